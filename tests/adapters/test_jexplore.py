"""jexplore's backend: what the original returns, bit for bit, and what it could not do.

jexplore needs Python 3.13. Where it is not installed, a model of it in this module says what it
returns; where it is installed, the two are compared.
"""

from __future__ import annotations

import signal
import tempfile
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jexplore_script import CONFIGS, attempt, differences, made, script
from scripts import Script

import zarrtrace as zt
from zarrtrace.adapters.jexplore import DefaultBackend
from zarrtrace.errors import ChainBusyError, InvalidInputError, TraceNotFoundError
from zarrtrace.tables.table import Table

Backend = DefaultBackend


def needs_jexplore() -> Any:
    return pytest.importorskip("jexplore", reason="jexplore needs Python 3.13 or later")


def same(ours: Any, theirs: Any) -> None:
    assert list(differences(ours, theirs)) == []


# As the original ------------------------------------------------------------------------------


def real_sampling() -> Any:
    """A sampling of jexplore: two temperatures, four walkers, three dimensions."""
    import jax.numpy as jnp
    from jexplore.sampling.mh import SamplingMH

    return SamplingMH(
        nwalker=4,
        temps=jnp.array([1.0, 2.0]),
        loglik=lambda p: -0.5 * jnp.sum(p**2, axis=-1),
        logprior=lambda p: jnp.zeros(p.shape[:-1]),
        dim=3,
    )


class Listing:
    """Keeps the epochs of a sampler."""

    def __init__(self) -> None:
        self.epochs: list[Any] = []

    def reset(self) -> None:
        self.epochs.clear()

    def ingest(self, epoch: Any) -> Listing:
        self.epochs.append(epoch)
        return self


@pytest.fixture(scope="module")
def real_epochs() -> list[Any]:
    """Two epochs of the real sampler, which compiles again for each."""
    needs_jexplore()
    import jax

    sampling, listing = real_sampling(), Listing()
    first = sampling.get_epoch(jax.random.normal(jax.random.PRNGKey(0), (8, 3)))
    sampling.get_sampler(backend=listing).run(first, 11, 2, seed=1)
    return listing.epochs


def check_script(epochs: list[Any], config: dict[str, Any], tmp_path: Path) -> None:
    """Do the same with the original and with ours."""
    needs_jexplore()
    from jexplore.backends.default import DefaultBackend as Original

    results = []
    for backend in (Backend, Original):
        place = tmp_path / backend.__module__
        place.mkdir()
        results.append(script(backend(outdir=str(place), **config), place, epochs))
    for (what, ours), (_, theirs) in zip(*results, strict=True):
        assert list(differences(ours, theirs)) == [], what


@pytest.mark.parametrize("config", CONFIGS)
def test_the_original_gives_the_same(config: str, tmp_path: Path) -> None:
    epochs = [made(number, 10 + number % 2) for number in range(9)]
    check_script(epochs, CONFIGS[config], tmp_path)


def test_the_original_gives_the_same_of_real_epochs(real_epochs: list[Any], tmp_path: Path) -> None:
    check_script([real_epochs[number % 2] for number in range(9)], {}, tmp_path)


class Model:
    """What the original's epochs are, in NumPy: a list of them, and a number of burned draws."""

    def __init__(self) -> None:
        self.epochs: list[dict[str, Any]] = []
        self.burn = 0

    def ingest(self, epoch: dict[str, Any]) -> None:
        self.epochs.append(epoch)

    def set_burn(self, burn: int) -> None:
        if burn < self.burn:
            raise ValueError
        self.burn = burn

    def clean(self) -> None:
        self.burn = max(self.burn, sum(e["samples"]["p"].shape[2] for e in self.epochs))

    def kept(self) -> list[dict[str, Any] | None]:
        left, kept = self.burn, []
        for epoch in self.epochs:
            samples = {name: values[:, :, left:] for name, values in epoch["samples"].items()}
            left = max(left - epoch["samples"]["p"].shape[2], 0)
            kept.append({**epoch, "samples": samples} if samples["p"].size else None)
        return kept

    def get(self, number: int) -> dict[str, Any]:
        epoch = self.kept()[number]
        if epoch is None:
            raise ValueError
        return epoch

    def get_samples(self, burn: int, thin: int, pars: list[str]) -> dict[str, Any] | None:
        parts: dict[str, list[Any]] = {name: [] for name in pars}
        for epoch in filter(None, self.kept()):
            for name in pars:
                parts[name].append(epoch["samples"][name][:, :, burn::thin])
            burn = max(burn - epoch["samples"]["p"].shape[2], 0)
        if not any(part.size for part in parts["p"]):
            return None
        return {name: np.concatenate(found, axis=2) for name, found in parts.items()}

    def get_stats(self) -> dict[str, Any]:
        return {f"epoch_{i}": epoch["stats"] for i, epoch in enumerate(self.kept()) if epoch}


def check_model(backend: Any, model: Model) -> None:
    assert backend.epochs == len(model.epochs)
    assert backend.burn == model.burn
    for number in (*range(len(model.epochs)), *range(-len(model.epochs), 0)):
        same(attempt(backend.get, number), attempt(model.get, number))
    for burn, thin in ((0, 1), (3, 1), (0, 4), (13, 3)):
        same(
            backend.get_samples(burn=burn, thin=thin, pars=["p", "ll"]),
            model.get_samples(burn, thin, ["p", "ll"]),
        )
    same(backend.get_stats(), model.get_stats())


ACTIONS = st.one_of(
    st.tuples(st.just("ingest"), st.integers(1, 12)),
    st.tuples(st.just("set_burn"), st.integers(0, 90)),
    st.tuples(st.sampled_from(["clean", "reopen"]), st.just(0)),
)


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    actions=st.lists(ACTIONS, max_size=9),
    inmem=st.integers(0, 3),
    together=st.integers(1, 3),
)
def test_whatever_is_done_the_epochs_are_those_of_the_model(
    tmp_path: Path, actions: list[tuple[str, int]], inmem: int, together: int
) -> None:
    config: dict[str, Any] = {"inmem_epochs": inmem, "epochs_per_file": together}
    place = tempfile.mkdtemp(dir=tmp_path)
    backend = Backend(outdir=place, **config)
    model = Model()
    for number, (action, size) in enumerate([*actions, ("ingest", 5)]):
        if action == "ingest":
            epoch = made(number, draws=size)
            backend.ingest(epoch)
            model.ingest(epoch)
        elif action == "clean":
            backend.clean()
            model.clean()
        elif action == "set_burn":
            same(attempt(backend.set_burn, size), attempt(model.set_burn, size))
        elif inmem == 0 and Path(backend.path).exists():
            # What waits in memory would be stored; epochs that were all burned before one was
            # stored left nothing to be known by.
            burn = backend.burn
            backend.close()
            backend = Backend(burn, outdir=place, **config)
    check_model(backend, model)
    backend.reset()


def test_the_real_sampler_stores_and_restarts(real_epochs: list[Any], tmp_path: Path) -> None:
    sampling = real_sampling()
    backend = Backend(outdir=tmp_path)
    last = sampling.get_sampler(backend=backend).run(real_epochs[0], 5, 2, seed=2)
    assert backend.epochs == 2
    loaded = backend.load()
    assert type(loaded) is type(last)
    same(vars(loaded.samples), vars(last.samples))
    same(loaded.covs, last.covs)
    backend.close()
    sampler = sampling.get_sampler(backend=Backend(outdir=tmp_path, resume=True))
    again = sampler.run(loaded.complete(sampling), 5, 1, seed=3)
    uninterrupted = sampling.get_sampler(backend=Listing()).run(last, 5, 1, seed=3)
    same(vars(again.samples), vars(uninterrupted.samples))
    assert Backend(outdir=tmp_path).epochs == 3
    # One that does not resume begins again when it is passed to a sampler.
    sampler.backend.close()
    sampling.get_sampler(backend=Backend(outdir=tmp_path))
    assert Backend(outdir=tmp_path).epochs == 0


def of_two_models() -> dict[str, Any]:
    epoch = made(1)
    epoch["samples"]["k"] = np.arange(40, dtype="int32").reshape(4, 1, 10) % 2
    epoch["sampling"]["masks"] = np.array([[True, False, False], [True, True, True]])
    epoch["class"] = "jexplore.sampling.modsel.EpochMS"
    return epoch


def test_models_are_told_apart_by_k(tmp_path: Path) -> None:
    epoch = of_two_models()
    backend = Backend(outdir=tmp_path).ingest(epoch)
    same(backend.get(), epoch)
    same(backend.get_samples(pars=["k"]), {"k": epoch["samples"]["k"]})
    assert backend.trace.posterior["k"].dims == ("chain", "draw")


def test_models_are_loaded_into_the_classes_of_the_original(tmp_path: Path) -> None:
    needs_jexplore()
    backend = Backend(outdir=tmp_path).ingest(of_two_models())
    assert sorted(vars(backend.load().samples)) == ["k", "ll", "lp", "p"]


# Files of the original ------------------------------------------------------------------------


def write_file(path: Path, epochs: dict[int, dict[str, Any]]) -> None:
    """A file as jexplore writes it: a group for each epoch, a dataset for each leaf."""

    def put(group: Any, content: dict[str, Any]) -> None:
        for name, value in content.items():
            if isinstance(value, dict):
                put(group.create_group(name), value)
            else:
                group[name] = value

    with h5py.File(path, "w") as file:
        for number, epoch in epochs.items():
            put(file.create_group(f"epoch_{number}"), epoch)


def test_files_of_the_original_are_read_and_ingested(tmp_path: Path) -> None:
    file = tmp_path / "epochs_1.h5"
    write_file(file, {number: made(number) for number in (2, 9, 10, 11)})
    same(Backend.read_epoch(str(file), 9), made(9))
    # The original takes epoch_9 for the newest: it compares the names.
    same(Backend.read_epoch(file), made(11))
    same(Backend.read_epoch(file, -4), made(2))
    for number in (0, 12, -5):
        with pytest.raises(ValueError, match="has the epochs 2, 9, 10, 11"):
            Backend.read_epoch(file, number)
    with pytest.raises(FileNotFoundError):
        Backend.read_epoch(tmp_path / "missing.h5")
    backend = Backend(outdir=tmp_path)
    backend.ingest(str(file), 2).ingest(file).ingest(str(file).encode(), 10)
    assert backend.epochs == 3
    for index, number in enumerate((2, 11, 10)):
        same(backend.get(index), made(number))


def test_files_the_original_wrote_are_read(real_epochs: list[Any], tmp_path: Path) -> None:
    from jexplore.backends.default import DefaultBackend as Original

    theirs = Original(outdir=str(tmp_path), epochs_per_file=2)
    epochs = [*real_epochs, real_epochs[0]]  # the third begins a file
    for epoch in epochs:
        theirs.ingest(epoch)
    files = [str(tmp_path / f"epochs_{number}.h5") for number in (1, 2)]
    ours = Backend(outdir=tmp_path)
    for number in range(3):
        same(Backend.read_epoch(files[number // 2], number), theirs.get(number))
        ours.ingest(files[number // 2], number)
    same(ours.get_samples(pars=["p", "lp"]), theirs.get_samples(pars=["p", "lp"]))
    loaded, expected = Backend.load_epoch(files[1]), theirs.load()
    same(vars(loaded.samples), vars(expected.samples))


def test_a_trace_of_epochs_is_read_as_a_file_is(tmp_path: Path) -> None:
    backend = Backend(outdir=tmp_path)
    backend.ingest(made(0)).ingest(made(1))
    same(Backend.read_epoch(backend.path), made(1))
    same(Backend.read_epoch(backend.path, 0), made(0))
    with pytest.raises(ValueError, match="no epoch 7"):
        Backend.read_epoch(backend.path, 7)


@pytest.mark.parametrize("together", [1, 2])
def test_the_name_of_a_file_finds_its_epochs_in_the_trace(tmp_path: Path, together: int) -> None:
    backend = Backend(outdir=tmp_path / "run", epochs_per_file=together)
    for number in range(5):
        backend.ingest(made(number))
    for number in range(5):
        file = f"{tmp_path}/run/epochs_{number // together + 1}.h5"
        same(Backend.read_epoch(file, number), made(number))
    same(Backend.read_epoch(f"{tmp_path}/run/epochs_1.h5"), made(together - 1))
    with pytest.raises(ValueError, match=rf"epochs_2.h5' has the epochs {together}"):
        Backend.read_epoch(f"{tmp_path}/run/epochs_2.h5", 0)
    with pytest.raises(ValueError, match="has the epochs none"):
        Backend.read_epoch(tmp_path / "run/epochs_9.h5")
    other = Backend(outdir=tmp_path / "other")
    other.ingest(f"{tmp_path}/run/epochs_1.h5", 0)
    same(other.get(0), made(0))
    write_file(tmp_path / "run/epochs_1.h5", {7: made(7)})
    same(Backend.read_epoch(tmp_path / "run/epochs_1.h5"), made(7))


@pytest.mark.once("newest")
def test_to_get_an_epoch_reads_the_places_of_new_ones_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = Backend(outdir=tmp_path)
    for number in range(30):
        backend.ingest(made(number))
    reader = Backend(outdir=tmp_path)
    same(reader.get(29), made(29))
    rows_read: list[int] = []
    read = Table.read

    def count(table: Table, column: str, rows: slice = slice(None)) -> Any:
        found = read(table, column, rows)
        if table.path.endswith("segments"):
            rows_read.append(len(found))
        return found

    monkeypatch.setattr(Table, "read", count)
    for number in (0, 17, -1):
        same(reader.get(number), made(number % 30))
    assert rows_read == []
    backend.ingest(made(30))
    same(reader.get(), made(30))
    assert set(rows_read) == {1}


# What the original could not ------------------------------------------------------------------


def test_a_backend_is_opened_again_where_it_was(tmp_path: Path) -> None:
    first = Backend(burn=5, outdir=tmp_path)
    first.ingest(made(0)).ingest(made(1))
    first.set_burn(13)
    first.close()
    again = Backend(outdir=tmp_path)
    assert (again.epochs, again.burn) == (2, 13)
    with pytest.raises(ValueError, match="was burned"):
        again.get(0)
    again.ingest(made(2))
    same(again.get(), made(2))
    assert again.get_samples()["p"].shape == (4, 3, 17)  # type: ignore[index]
    assert repr(again).endswith("epochs.zarr: 3 epochs, 13 draws burned, 0 epochs in memory>")


def test_others_read_while_epochs_come(tmp_path: Path, script: Script) -> None:
    code = """
    import sys
    from zarrtrace.adapters.jexplore import DefaultBackend
    backend = DefaultBackend(outdir=sys.argv[1])
    print(backend.epochs, backend.get_samples()["p"].shape[2], backend.get()["stats"]["steps"][0])
    """
    backend = Backend(outdir=tmp_path)
    reader = None
    for number in range(3):
        backend.ingest(made(number))
        reader = reader or Backend(outdir=tmp_path)
        assert reader.epochs == number + 1
        same(reader.get(), made(number))
    assert script.run(code, tmp_path).split() == ["3", "30", "2"]
    with pytest.raises(ChainBusyError):
        zt.open(backend.path, "a").finish()


KILLED = """
    import sys
    from jexplore_script import made
    from zarrtrace.adapters.jexplore import DefaultBackend
    backend = DefaultBackend(outdir=sys.argv[1])
    while True:
        number = backend.epochs
        backend.ingest(made(number, draws=20 + number % 5))
        print(number, flush=True)
"""


def test_a_killed_process_loses_no_epoch(tmp_path: Path, script: Script) -> None:
    rng = np.random.default_rng(5)
    seen = 0
    for _ in range(3):
        process = script.start(KILLED, tmp_path)
        assert process.stdout is not None
        told = [int(process.stdout.readline()) for _ in range(rng.integers(3, 20))]
        time.sleep(rng.uniform(0, 0.02))
        process.send_signal(signal.SIGKILL)
        rest, errors = process.communicate()
        assert not errors
        told += [int(line) for line in rest.splitlines()]
        backend = Backend(outdir=tmp_path)
        assert backend.epochs in (told[-1] + 1, told[-1] + 2)
        for number in range(seen, backend.epochs):
            same(backend.get(number), made(number, draws=20 + number % 5))
        seen = backend.epochs
    for number in range(backend.epochs):
        same(backend.get(number), made(number, draws=20 + number % 5))
    draws = sum(20 + number % 5 for number in range(backend.epochs))
    assert backend.get_samples()["p"].shape[2] == draws  # type: ignore[index]


@pytest.mark.parametrize("number", [0, 5, 15])
@pytest.mark.parametrize("step", ["Segments.add", "ChainWriter.checkpoint"])
def test_an_epoch_that_was_not_stored_to_its_end_is_none(
    step: str, number: int, tmp_path: Path, script: Script
) -> None:
    code = """
    import os, signal, sys
    from jexplore_script import made
    from zarrtrace.adapters.jexplore import DefaultBackend
    from zarrtrace.tables.segments import Segments
    from zarrtrace.recording.writer import ChainWriter

    backend = DefaultBackend(outdir=sys.argv[1])
    number = int(sys.argv[2])
    for earlier in range(number):
        backend.ingest(made(earlier))
    kind, name = sys.argv[3].split(".")
    last_step = getattr(vars()[kind], name)

    def die(self, *arguments, **options):
        # The trace is new, and nothing of the epoch was recorded.
        if isinstance(self, ChainWriter) and self.recorded <= 10 * number:
            return last_step(self, *arguments, **options)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(vars()[kind], name, die)
    backend.ingest(made(99))
    """
    process = script.start(code, tmp_path, number, step)
    _, errors = process.communicate()
    assert process.returncode == -signal.SIGKILL, errors
    backend = Backend(outdir=tmp_path)
    assert backend.epochs == number
    backend.ingest(made(number, draws=7))
    for earlier in range(number):
        same(backend.get(earlier), made(earlier))
    same(backend.get(), made(number, draws=7))
    assert backend.trace.recorded.tolist() == [10 * number + 7] * 4


def test_the_trace_reads_as_any_other(tmp_path: Path) -> None:
    backend = Backend(outdir=tmp_path, parameter_names=["a", "b", "c"])
    for number in range(3):
        backend.ingest(made(number))
    backend.set_burn(5)
    trace = backend.trace
    joined = {
        name: np.concatenate([made(i)["samples"][name] for i in range(3)], axis=2)[:, :, 5:]
        for name in ("p", "ll", "lp")
    }
    assert np.array_equal(trace.posterior["p"], joined["p"].swapaxes(1, 2))
    assert trace.posterior["p_dim"].values.tolist() == ["a", "b", "c"]
    assert np.array_equal(trace.sample_stats["log_likelihood"], joined["ll"][:, 0])
    assert np.array_equal(trace.sample_stats["log_prior"], joined["lp"][:, 0])
    assert trace.posterior.attrs["inference_library"] == "jexplore"
    segment = trace.segments[2]
    assert (segment.start, segment.stop) == (20, 30)
    assert segment.attrs["cycle"]["name"] == ["DEStep", "Stretch", "TSwap"]
    assert np.array_equal(segment.arrays["stats/steps"], made(2)["stats"]["steps"])


def test_what_is_burned_gives_its_room_back(tmp_path: Path) -> None:
    def size() -> int:
        return sum(file.stat().st_size for file in (tmp_path / "epochs.zarr/posterior/p").iterdir())

    backend = Backend(outdir=tmp_path)
    sizes = []
    for number in range(12):
        backend.ingest(made(number, draws=300, chains=8, dims=20))
        if number % 3 == 2:
            sizes.append(size())
            backend.clean()
    assert max(sizes) < 1.5 * min(sizes)
    assert size() < min(sizes) / 2


def test_epochs_wait_in_memory_as_many_as_asked(tmp_path: Path) -> None:
    backend = Backend(outdir=tmp_path, inmem_epochs=2)
    for number in range(2):
        backend.ingest(made(number))
    with pytest.raises(TraceNotFoundError):
        _ = backend.trace
    for number in range(2, 5):
        backend.ingest(made(number))
        assert len(backend.trace.segments) == number - 1
    backend.inmem_epochs = 1
    backend.update()
    assert len(backend.trace.segments) == 4
    backend.close()
    assert len(backend.trace.segments) == 5
    for number in range(5):
        same(backend.get(number), made(number))


def test_epochs_share_chunks_as_asked(tmp_path: Path) -> None:
    counts = {}
    for together in (1, 4):
        place = tmp_path / str(together)
        with Backend(outdir=place, epochs_per_file=together) as backend:
            for number in range(8):
                backend.ingest(made(number, draws=100, chains=32, dims=8))
        counts[together] = len(list((place / "epochs.zarr/posterior/p").glob("c.*")))
    assert counts == {1: 8, 4: 2}


def test_what_is_taken_is_a_copy(tmp_path: Path) -> None:
    epoch = made(0)
    backend = Backend(outdir=tmp_path, inmem_epochs=3).ingest(epoch)
    epoch["samples"]["p"][:] = 0
    backend.get()["samples"]["p"][:] = 0
    same(backend.get(), made(0))


def test_several_runs_may_be_in_one_directory(tmp_path: Path) -> None:
    one = Backend(outdir=tmp_path).ingest(made(0))
    two = Backend(outdir=tmp_path, outfile_fmt="other_%d.h5").ingest(made(1))
    assert Path(two.path).name == "other.zarr"
    two.reset()
    assert not Path(two.path).exists()
    same(one.get(), made(0))


def test_reset_begins_again(tmp_path: Path) -> None:
    backend = Backend(burn=4, outdir=tmp_path)
    backend.reset()
    backend.ingest(made(0)).ingest(made(1))
    assert backend.get(0)["samples"]["p"].shape[2] == 6
    backend.set_burn(25)
    backend.reset()
    # Five draws were still to be burned.
    assert (backend.epochs, backend.burn) == (0, 5)
    assert not Path(backend.path).exists()
    backend.ingest(made(2))
    same(backend.get()["stats"], made(2)["stats"])
    assert backend.get(0)["samples"]["p"].shape[2] == 5


def test_a_run_that_another_process_writes_is_not_reset(tmp_path: Path, script: Script) -> None:
    writing = Backend(outdir=tmp_path).ingest(made(0))
    code = """
    import sys
    from zarrtrace.adapters.jexplore import DefaultBackend
    from zarrtrace.errors import ChainBusyError

    try:
        DefaultBackend(outdir=sys.argv[1]).reset()
    except ChainBusyError:
        print("refused")
    """
    assert script.run(code, tmp_path) == "refused\n"
    same(writing.get(), made(0))


def test_a_finished_trace_takes_more_epochs(tmp_path: Path) -> None:
    with Backend(outdir=tmp_path) as backend:
        backend.ingest(made(0))
    zt.open(backend.path, "a").finish()
    backend = Backend(outdir=tmp_path).ingest(made(1))
    same(backend.get(0), made(0))
    same(backend.get(1), made(1))


# Refused --------------------------------------------------------------------------------------


def test_no_class_is_imported_by_a_stored_name(tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "trap.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    epoch = made(0) | {"class": "trap.Epoch"}
    backend = Backend(outdir=tmp_path).ingest(epoch)
    with pytest.raises(ValueError, match=r"'trap\.Epoch', and classes are not imported"):
        backend.load()
    write_file(tmp_path / "epochs_1.h5", {0: epoch})
    with pytest.raises(ValueError, match="pass the class"):
        Backend.load_epoch(tmp_path / "epochs_1.h5")
    loaded = backend.load(eclass=dict, pars=["p", "ll"])
    assert sorted(loaded) == ["covs", "ll", "p"]
    with pytest.raises(KeyError, match="unknown"):
        backend.load(eclass=dict, pars=["unknown"])


def without(name: str) -> dict[str, Any]:
    samples = made(1)["samples"]
    del samples[name]
    return made(1) | {"samples": samples}


@pytest.mark.parametrize(
    ("epoch", "error", "message"),
    [
        (made(1, chains=6), ValueError, "6 chains and shape .* in this epoch and .* of 4 chains"),
        (made(1, dims=5), ValueError, r"shape \(5,\) in this epoch"),
        (without("ll"), ValueError, "'ll'.* is missing in this epoch"),
        (without("p"), KeyError, "'p'"),
        ({}, KeyError, "'samples'"),
        (
            made(1) | {"samples": {k: v.astype("f8") for k, v in made(1)["samples"].items()}},
            ValueError,
            "float64 .* in this epoch and float32",
        ),
        (
            made(1) | {"samples": made(1)["samples"] | {"ll": np.ones((4, 1, 9), "f4")}},
            ValueError,
            "p 4 × 10, ll 4 × 9",
        ),
        (made(1) | {"samples": {"p": np.ones((4, 3, 0))}}, ValueError, "at least one of each"),
        (made(1) | {"samples": {"p": np.ones((4, 3))}}, ValueError, "shape .4, 3."),
        (made(1) | {"samples": {"p": [[["a"]]]}}, ValueError, "<U1"),
        (made(1) | {"model": print}, ValueError, "attrs.'model'"),
        (3, TypeError, "not a int"),
        (None, TypeError, "not a NoneType"),
        ("missing.h5", FileNotFoundError, "missing.h5"),
    ],
    ids=[
        *("chains", "dims", "without ll", "without p", "empty", "dtype", "draws", "no draws"),
        *("no chains", "text", "function", "number", "none", "no file"),
    ],
)
def test_what_is_not_an_epoch_is_refused_and_nothing_is_lost(
    epoch: Any, error: type[Exception], message: str, tmp_path: Path
) -> None:
    backend = Backend(outdir=tmp_path).ingest(made(0))
    with pytest.raises(error, match=message):
        backend.ingest(epoch)
    assert backend.epochs == 1
    backend.ingest(made(2))
    same([backend.get(0), backend.get(1)], [made(0), made(2)])
    again = Backend(outdir=tmp_path)
    same([again.get(0), again.get(1)], [made(0), made(2)])


def test_options_that_are_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="bogus"):
        Backend(outdir=tmp_path, bogus=3)  # type: ignore[call-arg]
    for options in ({"burn": 2.5}, {"epochs_per_file": 0}, {"inmem_epochs": "1"}):
        with pytest.raises(InvalidInputError, match="must be a whole number"):
            Backend(outdir=tmp_path, **options)  # type: ignore[arg-type]
    backend = Backend(outdir=tmp_path).ingest(made(0))
    for asked in ({"thin": 0}, {"thin": -1}, {"burn": -2}):
        with pytest.raises(ValueError, match="must be a whole number"):
            backend.get_samples(**asked)  # type: ignore[arg-type]
    with pytest.raises(IndexError, match="leaves no axis"):
        backend.get_samples(mask=1)


def test_an_empty_backend_has_nothing(tmp_path: Path) -> None:
    backend = Backend(outdir=tmp_path / "none")
    assert backend.get_samples() is None
    assert backend.flatten_samples(None) is None
    assert backend.get_stats() == {}
    backend.clean()
    backend.update()
    backend.reset()
    backend.close()
    with pytest.raises(IndexError, match="there are 0 epochs"):
        backend.get()
    assert not (tmp_path / "none").exists()


def test_a_trace_of_something_else_is_left_alone(tmp_path: Path) -> None:
    zt.create(tmp_path / "epochs.zarr", chains=1, draws=1, posterior={"x": zt.Var()})
    with pytest.raises(InvalidInputError, match="holds no epochs of jexplore"):
        Backend(outdir=tmp_path)
