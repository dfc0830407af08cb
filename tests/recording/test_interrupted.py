"""A stop anywhere in record() leaves a draw that is recorded or one that is not."""

from __future__ import annotations

import inspect
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest
from interrupted import LEFT_TO_PYTHON
from stopped_calls import at_each_bytecode, bytecodes

import zarrtrace as zt

pytestmark = [pytest.mark.once("newest"), *LEFT_TO_PYTHON]

BEFORE, TOTAL = 3, 9  # the draw that is interrupted completes chunks, and more chunks follow

POSTERIOR = {
    "mu": zt.Var(draws_per_chunk=4),
    "count": zt.Var(dtype="int16", draws_per_chunk=4),
    "theta": zt.Var(shape=2, draws_per_chunk=2),
    "whole": zt.Var(shape=3, draws_per_chunk=1),
}


def draw(i: int) -> dict[str, Any]:
    return {
        "mu": float(i),
        "count": i,
        "theta": np.full(2, float(i)),
        "whole": np.full(3, float(i)),
    }


def block(start: int, stop: int) -> dict[str, Any]:
    draws = [draw(i) for i in range(start, stop)]
    return {name: np.array([values[name] for values in draws]) for name in POSTERIOR}


def record_the_rest(writer: zt.ChainWriter) -> None:
    while writer.recorded < TOTAL:
        writer.record(draw(writer.recorded))


def assert_draws(trace: zt.Trace, chain: int, stop: int) -> None:
    """The chain has the draws below `stop`, and each variable has them all."""
    for name in POSTERIOR:
        found = trace.get(name, chains=[chain], draws=slice(0, stop))[0].reshape(stop, -1)
        assert found.tolist() == [[i] * found.shape[1] for i in range(stop)], name


@pytest.mark.parametrize("durability", ["process", "disk"])
@pytest.mark.parametrize("how", ["record", "record_block"])
@pytest.mark.parametrize("then", ["the same writer", "another writer"])
def test_an_interrupt_at_any_bytecode_loses_nothing(
    tmp_path: Path, how: str, then: str, durability: Any, trials: int | None
) -> None:
    added = 1 if how == "record" else 3

    def create(chains: int) -> zt.Trace:
        path = tmp_path / f"{chains}.zarr"
        return zt.create(
            path, chains=chains, draws=TOTAL, posterior=POSTERIOR, durability=durability
        )

    def act(writer: zt.ChainWriter) -> None:
        if how == "record":
            writer.record(draw(BEFORE))
        else:
            writer.record_block(block(BEFORE, BEFORE + added))

    with create(chains=1).writer(0) as writer:
        writer.record_block(block(0, BEFORE))
        total = bytecodes("recording", lambda: act(writer))
    # Some of them by default; `--trials 10000` interrupts at each.
    chosen = np.unique(np.linspace(0, total - 1, trials or 12).astype(int))
    trace, counts = create(chains=len(chosen)), set()
    for chain, interrupt_at in enumerate(chosen):
        writer = trace.writer(chain)
        writer.record_block(block(0, BEFORE))
        with pytest.raises(KeyboardInterrupt):
            bytecodes("recording", lambda writer=writer: act(writer), int(interrupt_at))  # type: ignore[misc]
        count = writer.recorded
        assert BEFORE <= count <= BEFORE + added
        assert trace.recorded[chain] == count
        assert_draws(trace, chain, count)
        counts.add(count)
        if then == "the same writer":
            record_the_rest(writer)
            writer.close()
        else:
            writer._release()
            with trace.writer(chain) as other:
                assert other.resume() == (count, None)
                record_the_rest(other)
        assert_draws(trace, chain, TOTAL)
    assert counts >= {BEFORE, BEFORE + added}
    assert total > 300


@pytest.mark.once("newest")
@pytest.mark.parametrize("how", ["record", "record_block"])
def test_at_every_bytecode_each_counted_draw_is_whole(tmp_path: Path, how: str) -> None:
    """What a reader sees there is also what a kill there would leave."""
    trace = zt.create(tmp_path / "run.zarr", chains=1, draws=TOTAL, posterior=POSTERIOR)
    last = BEFORE + 2
    counts = [BEFORE]

    def look(number: int) -> None:
        counts.append(int(trace.recorded[0]))
        # Reading takes long, and most bytecodes change nothing that is recorded.
        if counts[-1] != counts[-2] or number % 25 == 0:
            assert_draws(trace, 0, counts[-1])

    def act(writer: zt.ChainWriter) -> None:
        if how == "record":
            writer.record(draw(BEFORE))
            writer.record(draw(BEFORE + 1))
        else:
            writer.record_block(block(BEFORE, last))

    with trace.writer(0) as writer:
        writer.record_block(block(0, BEFORE))
        assert at_each_bytecode("recording", lambda: act(writer), look) > 300
        look(0)
    assert counts == sorted(counts)
    assert {*counts} == {*range(BEFORE, last + 1)}


@pytest.mark.parametrize("line", ["_start_", "_started.wait"])
def test_an_interrupt_while_the_thread_of_heartbeats_begins_is_that_interrupt(
    tmp_path: Path, line: str
) -> None:
    trace = zt.create(tmp_path / "run.zarr", chains=1, draws=TOTAL, posterior=POSTERIOR)
    lines, first = inspect.getsourcelines(threading.Thread.start)
    [number] = [first + i for i, text in enumerate(lines) if line in text and "(" in text][:1]

    def interrupt(frame: FrameType, event: str, argument: Any) -> Any:
        if frame.f_code is not threading.Thread.start.__code__:
            return None
        if event == "line" and frame.f_lineno == number:
            sys.settrace(None)
            raise KeyboardInterrupt
        return interrupt

    before = sys.gettrace()
    sys.settrace(interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            trace.writer(0)
    finally:
        sys.settrace(before)
    with trace.writer(0) as writer:
        record_the_rest(writer)
    assert_draws(trace, 0, TOTAL)
