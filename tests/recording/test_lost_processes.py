"""A chain whose process was killed is started again, and one that raised is not."""

from __future__ import annotations

import os
import signal

import numpy as np
import pytest
from conftest import Place

import zarrtrace as zt
from zarrtrace.errors import ChainsFailedError, InvalidInputError

# From Python 3.12 on, forks are warned of.
on_both_kinds_of_processes = pytest.mark.parametrize(
    "fork",
    [
        pytest.param(False, id="fresh", marks=pytest.mark.once("oldest")),
        pytest.param(True, id="forked", marks=pytest.mark.once("newest")),
    ],
)


def create(place: Place) -> zt.Trace:
    return place.create(chains=2, draws=60, posterior={"x": zt.Var(draws_per_chunk=20)})


def record(index: int, trace: zt.Trace, killed_at: int = -1) -> None:
    rng = np.random.default_rng(index)
    with trace.writer(index) as writer:
        start, state = writer.resume()
        if state is not None:
            rng.bit_generator.state = state
        for draw in range(start, trace.draws):
            if draw == killed_at:
                os.kill(os.getpid(), signal.SIGKILL)
            writer.record({"x": rng.normal()})
            if draw % 10 == 9:
                writer.checkpoint(rng.bit_generator.state)


def is_complete(trace: zt.Trace) -> bool:
    return np.array_equal(
        trace.get("x"), [np.random.default_rng(i).normal(size=60) for i in (0, 1)]
    )


@on_both_kinds_of_processes
def test_a_killed_chain_continues_from_its_checkpoint(directory: Place, fork: bool) -> None:
    trace = create(directory)

    def killed_once(index: int, trace: zt.Trace) -> None:
        record(index, trace, killed_at=25 if index == 1 and not trace.recorded[1] else -1)

    with pytest.warns(
        RuntimeWarning, match=r"chain 1 .*after 25 draws \(killed by SIGKILL\).*1 of 2"
    ):
        zt.run(killed_once, trace, progress=False, fork=fork)
    assert is_complete(trace)


@pytest.mark.once("newest")
def test_a_chain_that_is_killed_again_and_again_fails(directory: Place) -> None:
    trace = create(directory)

    def killed(index: int, trace: zt.Trace) -> None:
        record(index, trace, killed_at=25 if index else -1)

    with (
        pytest.warns(RuntimeWarning, match="chain 1 ") as warned,
        pytest.raises(
            ChainsFailedError, match="chain 1 after 25 draws: killed by SIGKILL"
        ) as caught,
    ):
        zt.run(killed, trace, progress=False, fork=True)
    assert sum("is started again" in str(warning.message) for warning in warned) == 2
    assert list(caught.value.failures) == [1]
    zt.run(record, trace, progress=False, fork=True)
    assert is_complete(trace)


@pytest.mark.once("newest")
def test_a_chain_that_raised_is_not_started_again(directory: Place) -> None:
    trace = create(directory)
    started = directory.path.parent / "started"

    def raising(index: int, trace: zt.Trace) -> None:
        with started.open("a") as file:
            file.write("x")
        raise ArithmeticError

    with pytest.raises(ChainsFailedError, match="2 of 2 chains"):
        zt.run(raising, trace, progress=False, fork=True)
    assert started.read_text() == "xx"


@pytest.mark.once("newest")
def test_a_chain_with_all_its_draws_has_not_failed(directory: Place) -> None:
    trace = create(directory)

    def ends_badly(index: int, trace: zt.Trace) -> None:
        record(index, trace)
        if index:
            raise ArithmeticError("too late")
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.warns(RuntimeWarning, match="has all its draws") as warned:
        zt.run(ends_badly, trace, progress=False, fork=True)
    # Forks are warned of, by Python 3.12 and by JAX.
    said = [text for text in (str(one.message) for one in warned) if "has all its draws" in text]
    assert sorted(text.rpartition(": ")[2] for text in said) == ["killed by SIGKILL", "too late"]
    assert is_complete(trace)


@pytest.mark.parametrize("retries", [-1, 1.5, True, "2"])
def test_retries_are_a_whole_number(place: Place, retries: object) -> None:
    with pytest.raises(InvalidInputError, match="retries must be a whole number from 0"):
        zt.run(record, create(place), retries=retries, progress=False)  # type: ignore[arg-type]
