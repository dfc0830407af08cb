"""What an adapter cannot do it refuses clearly, and nothing that is stored is lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import zarrtrace as zt
from zarrtrace.errors import (
    ChainsFailedError,
    InvalidInputError,
    NotWritableError,
    TraceExistsError,
    TraceNotFoundError,
)

# emcee ----------------------------------------------------------------------------------------

WALKERS = 8


class Blobs:
    """A log probability whose blobs change after some calls."""

    def __init__(self, first: Any, then: Any, after: int) -> None:
        self.first, self.then, self.after = first, then, after
        self.calls = 0

    def __call__(self, x: Any) -> tuple[float, Any]:
        self.calls += 1
        return -0.5 * float(x @ x), self.first if self.calls <= self.after else self.then


def run_emcee(backend: Any, steps: int, log_prob: Any) -> None:
    emcee = pytest.importorskip("emcee")
    sampler = emcee.EnsembleSampler(WALKERS, 2, log_prob, backend=backend)
    initial = np.random.default_rng(1).normal(size=(WALKERS, 2))
    started = backend.initialized and backend.iteration
    sampler.run_mcmc(backend.get_last_sample() if started else initial, steps)


def hdf_backend(*args: Any, **options: Any) -> Any:
    pytest.importorskip("emcee")
    from zarrtrace.adapters.emcee import HDFBackend

    return HDFBackend(*args, **options)


@pytest.mark.parametrize(
    ("first", "then"),
    [(np.zeros(2), np.zeros(3)), (np.zeros(2), 1.0), (1.0, np.zeros(2)), (1.0, "text")],
    ids=["longer", "a number", "a vector", "text"],
)
def test_blobs_that_change_in_a_run_lose_no_step(first: Any, then: Any, tmp_path: Path) -> None:
    backend = hdf_backend(tmp_path / "run.zarr")
    # emcee refuses them itself, before the backend sees them.
    with pytest.raises((ValueError, TypeError)):
        run_emcee(backend, 9, Blobs(first, then, after=WALKERS * 5))
    assert backend.iteration == 4
    assert np.array_equal(backend.get_blobs(), np.zeros((4, WALKERS, *np.shape(first))) + first)
    run_emcee(backend, 2, Blobs(first, first, after=0))
    assert backend.iteration == 6
    assert zt.open(backend.path).check() == []


def test_a_step_of_another_number_of_walkers_is_refused(tmp_path: Path) -> None:
    emcee = pytest.importorskip("emcee")
    backend = hdf_backend(tmp_path / "run.zarr")
    run_emcee(backend, 3, Blobs(1.0, 1.0, after=0))
    backend.grow(1, np.zeros(WALKERS))
    state = emcee.State(
        np.zeros((12, 2)), log_prob=np.zeros(12), blobs=np.zeros(12), random_state=None
    )
    with pytest.raises(ValueError, match="invalid coordinate dimensions"):
        backend.save_step(state, np.ones(12, dtype=bool))
    assert backend.iteration == 3


@pytest.mark.parametrize("name", ["", "/", "..", "../other", "a//b", "./run"])
def test_a_name_that_leaves_the_directory_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="is not the name of a run"):
        hdf_backend(tmp_path / "run.zarr", name)


@pytest.mark.parametrize(("name", "place"), [("/mcmc", "mcmc"), ("first/mcmc", "first/mcmc")])
def test_names_mean_what_they_mean_in_hdf5(name: str, place: str, tmp_path: Path) -> None:
    backend = hdf_backend(tmp_path / "run.zarr", name)
    run_emcee(backend, 2, Blobs(1.0, 1.0, after=0))
    assert zt.open(tmp_path / "run.zarr" / place).recorded.tolist() == [2] * WALKERS


def test_a_trace_in_the_place_of_the_directory_is_left_alone(tmp_path: Path) -> None:
    trace = zt.create(tmp_path / "run.zarr", chains=1, draws=1, posterior={"x": 0.0})
    with pytest.raises(TraceExistsError, match="is a trace itself"):
        run_emcee(hdf_backend(trace.path), 2, Blobs(1.0, 1.0, after=0))
    assert sorted(file.name for file in (tmp_path / "run.zarr").iterdir()) == [
        "_sampling_state", "posterior", "zarr.json",
    ]  # fmt: skip


# PyMC -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model() -> Any:
    pm = pytest.importorskip("pymc")
    with pm.Model() as model:
        pm.Normal("x", shape=2)
    return model


def sample_pymc(model: Any, store: Any) -> None:
    import pymc as pm

    from zarrtrace.adapters.pymc import ZarrTrace

    with model:
        pm.sample(
            draws=6, tune=4, chains=2, cores=1, random_seed=1, step=pm.Metropolis(),
            trace=ZarrTrace(store), progressbar=False, compute_convergence_checks=False,
        )  # fmt: skip


def test_pymc_leaves_alone_what_is_not_a_trace(model: Any, tmp_path: Path) -> None:
    folder, file = tmp_path / "folder", tmp_path / "file"
    folder.mkdir()
    for place in (folder / "notes.txt", file):
        place.write_text("mine")
    with pytest.raises(TraceExistsError, match="holds something that is not a trace"):
        sample_pymc(model, folder)
    with pytest.raises(TraceNotFoundError, match="is a file"):
        sample_pymc(model, file)
    assert (folder / "notes.txt").read_text() == file.read_text() == "mine"


@pytest.mark.filterwarnings("ignore:More chains .* than draws:UserWarning")
def test_pymc_continues_only_where_it_may_write(model: Any, tmp_path: Path) -> None:
    from zarrtrace.adapters.pymc import resume

    path = tmp_path / "run.zarr"
    with pytest.raises(TraceNotFoundError, match="there is nothing at"):
        resume(path, model)
    sample_pymc(model, path)
    trace = zt.open(path, mode="a").extend(3)
    first = trace.get("x")
    with pytest.raises(NotWritableError, match="mode='a'"):
        resume(zt.open(path), model, progressbar=False)
    with trace.writer(0), pytest.raises(ChainsFailedError) as caught:
        resume(path, model, progressbar=False)
    assert "chain 0 of" in str(caught.value)
    assert "is being recorded by process" in str(caught.value)
    # Chain 1 went on; of chain 0 nothing is lost.
    assert trace.recorded.tolist() == [10, 13]
    assert np.array_equal(trace.get("x"), first)
    resume(path, model, progressbar=False, compute_convergence_checks=False)
    assert zt.open(path).recorded.tolist() == [13, 13]
