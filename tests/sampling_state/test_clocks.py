"""Clocks of two machines that differ by an hour say nothing about who is alive."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest

import zarrtrace as zt
from zarrtrace.sampling_state import claim as claims
from zarrtrace.sampling_state.block import ChainBlock
from zarrtrace.sampling_state.claim import STALE_AFTER, Claim


@pytest.mark.once("oldest")
@pytest.mark.parametrize("hours", [-1, 1])
def test_a_writer_whose_clock_differs_is_judged_by_the_clock_of_the_reader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    trace = zt.create(tmp_path / "run.zarr", chains=1, draws=9, posterior={"x": 0.0})
    block = ChainBlock(trace._location, trace._layout, 0)
    beat = time.time() + hours * 3600
    other = replace(Claim.new(), boot="another machine", host="node7", since=beat, beat=beat)
    block.write_claim(other)
    now = [1000.0]
    monkeypatch.setattr(claims.time, "monotonic", lambda: now[0])
    assert other.alive
    with pytest.raises(zt.errors.ChainBusyError, match="node7"):
        trace.writer(0)
    # Each beat counts for a minute of the reader's own clock, whatever time it has.
    now[0] += STALE_AFTER - 1
    other = replace(other, beat=beat + 15)
    block.write_claim(other)
    assert other.alive
    now[0] += STALE_AFTER - 1
    assert block.claim == other
    assert other.alive
    now[0] += 2
    assert not other.alive
    trace.writer(0).close()
