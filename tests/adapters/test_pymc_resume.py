"""A PyMC run that was killed continues from disk, and ends as if nothing had happened."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest

pm = pytest.importorskip("pymc")

import zarrtrace as zt
from zarrtrace.adapters.pymc import ZarrTrace, resume
from zarrtrace.adapters.pymc.steps import restore, state_of
from zarrtrace.errors import InvalidInputError

pytestmark = [
    # PyMC forks by default, as do its users, and Python 3.12 says that threads do not like it.
    pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning"),
    # A PyTensor from PyPI brings no BLAS.
    pytest.mark.filterwarnings("ignore:PyTensor could not link to a BLAS"),
]

# PyMC for the oldest Python changes no more: kills and the usual steps are enough there.
newest = partial(pytest.param, marks=pytest.mark.once("newest"))

# They measure the clock, not the chain.
TIMES = {"perf_counter_start", "perf_counter_diff", "process_time_diff"}


def normal(scale: float = 1.0, observed: Any = (0.0, 1.0, 2.0), label: str = "a") -> Any:
    """A model that can be made slightly different."""
    with pm.Model(coords={"place": [label, "b"]}) as model:
        mu = pm.Normal("mu", 0, scale)
        sigma = pm.HalfNormal("sigma", 1)
        pm.Normal("effect", mu, sigma, dims="place")
        pm.Normal("y", mu, sigma, observed=np.array(observed))
    return model


def mixed() -> Any:
    """A model that PyMC draws with NUTS, Metropolis, and Gibbs steps together."""
    with normal() as model:
        pm.Poisson("count", 3)
        pm.Poisson("other", 2)
        pm.Bernoulli("coin", 0.4)
        pm.Categorical("kind", p=[0.2, 0.3, 0.5])
    return model


def killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def run(
    how: str,
    store: Any,
    kill_at: tuple[int, int] | None = None,
    kill: Callable[[], None] = killed,
    **options: Any,
) -> Any:
    """Sample 60 + 60 draws of two chains; the process may be killed at a chain's draw."""

    def callback(trace: Any, draw: Any) -> None:
        if (draw.chain, draw.draw_idx) == kill_at:
            kill()

    with mixed() if how == "compound" else normal():
        step = {
            "metropolis": lambda: pm.Metropolis(proposal_dist=cauchy()),
            "demetropolis": lambda: pm.DEMetropolisZ(tune_drop_fraction=0.5),
        }.get(how, lambda: None)()
        nuts = {"nuts": {"target_accept": 0.9}} if how == "nuts" else {}
        pm.sample(
            trace=ZarrTrace(store, checkpoint_every=0.0),
            step=step,
            callback=callback,
            random_seed=11,
            progressbar=False,
            compute_convergence_checks=False,
            nuts_sampler="pymc",
            **{"draws": 60, "tune": 60, "chains": 2, "cores": 1, **nuts, **options},
        )


def cauchy() -> Any:
    from pymc.step_methods.metropolis import CauchyProposal

    return CauchyProposal


def killed(how: str, store: Path, kill_at: tuple[int, int], **options: Any) -> zt.Trace:
    """A run in a fork of this process that kills itself at a draw, and leaves nothing running."""
    output, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setsid()
            os.dup2(write_end, sys.stdout.fileno())
            os.dup2(write_end, sys.stderr.fileno())
            os.close(write_end)
            warnings.simplefilter("ignore")
            run(how, store, kill_at, **options)
        finally:
            os._exit(1)
    os.close(write_end)
    with open(output, "rb") as file:
        printed = printed_until_all_ended(child, file)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL, printed
    return zt.open(store, mode="a")


def printed_until_all_ended(group: int, file: IO[bytes]) -> bytes:
    """What a run and its workers print, until the last of them has ended."""
    printed = b""
    while select.select([file], [], [], 240)[0]:
        more = os.read(file.fileno(), 2**16)
        if not more:
            return printed
        printed += more
    os.killpg(group, signal.SIGKILL)
    pytest.fail(f"the run does not end, or its workers outlive it: {printed.decode()}")


def assert_same(found: zt.Trace, expected: zt.Trace) -> None:
    """Every draw and statistic of two traces is the same, bit for bit."""
    assert found.groups == expected.groups
    for group in found.groups:
        for name in set(expected[group].variables) - TIMES:
            ours, theirs = found[group][name].values, expected[group][name].values
            assert ours.dtype == theirs.dtype
            equal = np.array_equal(ours, theirs, equal_nan=ours.dtype.kind == "f")
            assert equal, f"{group}/{name}"


# Killed, and resumed ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], zt.Trace]:
    """The run of each kind that nobody kills; done once."""

    @cache
    def whole(how: str) -> zt.Trace:
        path = tmp_path_factory.mktemp("whole") / f"{how}.zarr"
        run(how, path)
        return zt.open(path)

    return whole


@pytest.mark.parametrize(
    ("how", "kill_at", "cores"),
    [
        ("nuts", (0, 25), 2),  # both chains are tuning
        newest("nuts", (0, 90), 1),  # the second chain has no draw yet
        newest("compound", (1, 30), 1),  # the first chain is done, the second is tuning
        newest("demetropolis", (1, 75), 1),
    ],
)
def test_a_killed_run_ends_as_if_nothing_had_happened(
    how: str,
    kill_at: tuple[int, int],
    cores: int,
    whole: Callable[[str], zt.Trace],
    compiled_before: Callable[..., None],
    tmp_path: Path,
) -> None:
    compiled_before(run, how, None, draws=2, tune=2)
    trace = killed(how, tmp_path / "killed.zarr", kill_at, cores=cores)
    assert trace.recorded[kill_at[0]] >= kill_at[1] + 1, "a recorded draw was lost"
    assert not trace.finished

    model = mixed() if how == "compound" else normal()
    data = resume(
        tmp_path / "killed.zarr",
        model,
        random_seed=11,
        progressbar=False,
        compute_convergence_checks=False,
    )
    assert data["posterior"].sizes["draw"] == 60
    assert_same(zt.open(tmp_path / "killed.zarr"), whole(how))


# spawn is as forkserver
@pytest.mark.parametrize(
    "start",
    [
        pytest.param("fork", marks=pytest.mark.once("oldest")),
        newest("forkserver"),
    ],
)
def test_workers_end_with_their_killed_parent_where_sigint_is_ignored(
    start: str,
    whole: Callable[[str], zt.Trace],
    fresh_script: Any,
    compiled_before: Callable[..., None],
    tmp_path: Path,
) -> None:
    """As it is in a job that a shell script put into the background."""
    compiled_before(run, "metropolis", None, draws=2, tune=2)
    store = tmp_path / "killed.zarr"
    process = fresh_script.start(
        f"""
        import signal
        import sys
        import warnings

        warnings.simplefilter("ignore")
        from test_pymc_resume import run

        if __name__ == "__main__":
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            run("metropolis", sys.argv[1], (0, 80), cores=2, mp_ctx={start!r})
        """,
        store,
        start_new_session=True,
        stderr=subprocess.STDOUT,
        text=False,
    )
    with process:
        printed = printed_until_all_ended(process.pid, process.stdout)
        assert process.wait() == -signal.SIGKILL, printed
    trace = zt.open(store, mode="a")
    assert trace.recorded[0] >= 81, "a recorded draw was lost"
    resume(store, normal(), progressbar=False, compute_convergence_checks=False)
    assert_same(zt.open(store), whole("metropolis"))


@pytest.mark.parametrize(
    ("start", "number", "at"),
    [
        pytest.param("fork", signal.SIGTERM, 80, marks=pytest.mark.once("oldest")),
        pytest.param("forkserver", signal.SIGUSR1, 25, marks=pytest.mark.once("newest")),
    ],
)
def test_a_signal_to_all_processes_of_a_job_ends_it_with_more_to_do(
    start: str,
    number: int,
    at: int,
    whole: Callable[[str], zt.Trace],
    fresh_script: Any,
    compiled_before: Callable[..., None],
    tmp_path: Path,
) -> None:
    compiled_before(run, "metropolis", None, draws=2, tune=2)
    store = tmp_path / "run.zarr"
    process = fresh_script.start(
        f"""
        import os, sys, warnings

        warnings.simplefilter("ignore")
        import zarrtrace as zt
        from test_pymc_resume import run

        if __name__ == "__main__":
            with zt.signals.preemptible(sys.argv[1]) as job:
                kill = lambda: os.killpg(0, {number:d})
                run("metropolis", sys.argv[1], (0, {at}), kill, cores=2, mp_ctx={start!r})
            sys.exit(job.exit_code)
        """,
        store,
        start_new_session=True,
    )
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 75, errors
    trace = zt.open(store)
    assert at < trace.recorded[0] < 120
    for chain, count in enumerate(trace.recorded):
        last = trace.last_checkpoint(chain)
        assert count == (last[0] if last else 0)
    with zt.signals.preemptible(store) as job:
        options = {"random_seed": 11, "compute_convergence_checks": False}
        resume(store, normal(), progressbar=False, **options)
    assert job.exit_code == 0
    assert_same(zt.open(store), whole("metropolis"))


def test_more_draws_are_those_of_a_longer_run(tmp_path: Path) -> None:
    run("nuts", tmp_path / "short.zarr", draws=25, tune=20)
    zt.open(tmp_path / "short.zarr", mode="a").extend(draws=15)
    with normal():
        data = resume(tmp_path / "short.zarr", progressbar=False, compute_convergence_checks=False)
    assert data["posterior"].sizes["draw"] == 40
    run("nuts", tmp_path / "long.zarr", draws=40, tune=20)
    assert_same(zt.open(tmp_path / "short.zarr"), zt.open(tmp_path / "long.zarr"))


def test_a_finished_run_is_given_back(tmp_path: Path) -> None:
    run("nuts", tmp_path / "run.zarr", draws=10, tune=10)
    data = resume(tmp_path / "run.zarr", normal(), discard_tuned_samples=False, progressbar=False)
    assert data["warmup_posterior"].sizes["draw"] == 10


# Refusing ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> zt.Trace:
    """A run with room for more draws."""
    path = tmp_path_factory.mktemp("run") / "run.zarr"
    run("nuts", path, draws=10, tune=10)
    return zt.open(path, mode="a").extend(draws=5)


def with_more_variables() -> Any:
    with normal() as model:
        pm.Normal("extra")
    return model


def with_another_shape() -> Any:
    with pm.Model(coords={"place": ["a", "b", "c"]}) as model:
        mu = pm.Normal("mu", 0, 1)
        sigma = pm.HalfNormal("sigma", 1)
        pm.Normal("effect", mu, sigma, dims="place")
        pm.Normal("y", mu, sigma, observed=np.array([0.0, 1.0, 2.0]))
    return model


@pytest.mark.parametrize(
    ("other", "difference"),
    [
        (lambda: normal(scale=2.0), r"only in this model: mu ~ Normal\(0, 2\)"),
        (lambda: normal(observed=[0.0, 1.0, 3.0]), "observed_data/y: other values"),
        (lambda: normal(observed=[0.0]), r"observed_data/y: \{'y_dim_0': 3\} in the run"),
        (lambda: normal(label="z"), "posterior/place: other values"),
        (with_another_shape, r"posterior/effect: \{'place': 2\} in the run"),
        (with_more_variables, "only in this model: extra ~ Normal"),
        (mixed, "only in this model: count ~ Poisson"),
    ],
)
def test_another_model_is_refused_and_nothing_changes(
    other: Any, difference: str, begun: zt.Trace
) -> None:
    before = begun.recorded.tolist()
    with pytest.raises(InvalidInputError, match=difference):
        resume(begun, other(), progressbar=False)
    assert begun.recorded.tolist() == before


def test_another_step_method_is_refused_and_nothing_changes(begun: zt.Trace) -> None:
    with normal() as model, pytest.raises(InvalidInputError) as caught:
        resume(begun, model, step=pm.DEMetropolisZ(), progressbar=False)
    assert "step method of the run: NUTS(mu, sigma_log__, effect)" in str(caught.value)
    assert "step method here: DEMetropolisZ(mu, sigma_log__, effect)" in str(caught.value)
    assert begun.recorded.tolist() == [20, 20]


def test_a_trace_of_something_else_is_refused(tmp_path: Path) -> None:
    zt.create(tmp_path / "run.zarr", chains=1, draws=1, posterior={"x": zt.Var()})
    with pytest.raises(InvalidInputError, match="not a run of"):
        resume(tmp_path / "run.zarr", normal(), progressbar=False)


# The state of each step method ------------------------------------------------------------


def nuts(init: str) -> Any:
    return pm.init_nuts(init=init, random_seed=[3], progressbar=False)[1]


@pytest.mark.filterwarnings("ignore:QuadPotentialFullAdapt is an experimental feature")
@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")
@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda: nuts("jitter+adapt_diag"), id="diag"),
        newest(lambda: nuts("jitter+adapt_full"), id="full"),
        newest(lambda: nuts("jitter+adapt_diag_grad"), id="grad"),
        newest(lambda: pm.NUTS(scaling=np.array([1.0, 2.0, 3.0, 4.0])), id="scaled"),
        newest(lambda: pm.HamiltonianMC(), id="hmc"),
        newest(lambda: pm.Metropolis(S=np.eye(4), blocked=True), id="multivariate"),
        pytest.param(lambda: pm.Metropolis(), id="metropolis"),
        pytest.param(lambda: pm.DEMetropolisZ(), id="demetropolis"),
        pytest.param(lambda: pm.Slice(), id="slice"),
    ],
)
def test_a_step_method_continues_from_its_state_bit_for_bit(make: Any) -> None:
    trace = zt.create(None, chains=1, draws=200, posterior={"x": zt.Var()})
    with normal() as model:
        step, another = make(), make()
    seed(step, 1)
    seed(another, 2)
    point = model.initial_point()
    with trace.writer(0) as writer:
        for start, stop in ((0, 130), (130, 170), (170, 200)):  # new, tuning, sampling
            writer.checkpoint(state_of(step))
            _, state = writer.resume()
            restore(another, state)
            expected, end = advance(step, point, start, stop)
            found, _ = advance(another, point, start, stop)
            assert found == expected, f"after {start} draws"
            point = end


def seed(step: Any, number: int) -> None:
    generator = np.random.default_rng(number)
    if hasattr(step, "setup_chain"):
        step.setup_chain(generator, 150, 50)
    else:
        step.set_rng(generator)


def advance(step: Any, point: Any, start: int, stop: int) -> tuple[list[Any], Any]:
    """Draw with 150 draws of tuning; the statistics and points, and the last point."""
    found: list[Any] = []
    for draw in range(start, stop):
        if draw == 150:
            step.stop_tuning()
        point, stats = step.step(point)
        found += [
            [str({name: s[name] for name in s if name not in {*TIMES, "warning"}}) for s in stats],
            {name: value.tobytes() for name, value in point.items()},
        ]
    return found, point
