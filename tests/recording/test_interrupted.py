"""An interrupt anywhere in record() leaves a draw that is recorded or one that is not."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest

import zarrtrace as zt

RECORDING = str(Path(zt.__file__).parent / "recording")
BEFORE, TOTAL = 3, 9  # the draw that is interrupted completes chunks, and more chunks follow
CHAINS = 2000  # more than there are places to interrupt

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


def interrupted(action: Callable[[], None], at: int) -> bool:
    """Whether the bytecode number `at` of the recording package was reached, and interrupted."""
    reached = 0

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal reached
        if not frame.f_code.co_filename.startswith(RECORDING):
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        if event == "opcode":
            reached += 1
            if reached > at:
                sys.settrace(None)
                raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        action()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)
    return False


def go_on(writer: zt.ChainWriter) -> None:
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
    trace = zt.create(
        tmp_path / "run.zarr",
        chains=CHAINS,
        draws=TOTAL,
        posterior=POSTERIOR,
        durability=durability,
    )
    # A part of them by default: `--trials 1` interrupts at each.
    step = trials or (11 if durability == "process" else 37)
    chain, added = 0, 1 if how == "record" else 3
    counts = set()
    for chain in range(CHAINS):
        writer = trace.writer(chain)
        writer.record_block(block(0, BEFORE))

        def action(writer: zt.ChainWriter = writer) -> None:
            if how == "record":
                writer.record(draw(BEFORE))
            else:
                writer.record_block(block(BEFORE, BEFORE + added))

        was_interrupted = interrupted(action, at=chain * step)
        count = writer.recorded
        assert BEFORE <= count <= BEFORE + added
        assert trace.recorded[chain] == count
        counts.add(count)
        assert_draws(trace, chain, count)
        if then == "the same writer":
            go_on(writer)
            writer.close()
        else:
            writer.release()
            with trace.writer(chain) as other:
                assert other.resume() == (count, None)
                go_on(other)
        assert_draws(trace, chain, TOTAL)
        if not was_interrupted:
            break
    assert not was_interrupted
    assert counts >= {BEFORE, BEFORE + added}
    assert chain * step > 300
