"""A view shows the draws of its moment, or says that they are gone: a chain draws them again."""

from __future__ import annotations

from pathlib import Path

import pytest

import zarrtrace as zt


def recorded(path: Path, stop: int, value: float) -> zt.Trace:
    trace = zt.open(path, "a")
    with trace.writer(0) as writer:
        start, _ = writer.resume()
        for draw in range(start, stop):
            writer.record({"mu": value + draw, "sigma": value - draw})
            if draw == 9:
                writer.checkpoint({"draw": 10})
    return trace


@pytest.mark.parametrize("length", [3, 4, 50])
def test_a_view_never_mixes_draws_with_those_that_took_their_numbers(
    tmp_path: Path, length: int
) -> None:
    path = tmp_path / "run.zarr"
    var = zt.Var(draws_per_chunk=length)
    zt.create(path, chains=1, draws=40, posterior={"mu": var, "sigma": zt.Var()})
    early = recorded(path, 10, 100.0).at_once()
    trace = recorded(path, 13, 100.0)
    now, lazy = trace.at_once(), trace.posterior
    assert now.get("mu")[0, -1] == 112.0
    # The chain goes back to draw 10, and has more draws than before.
    recorded(path, 14, 500.0)
    for read in (lambda: now.get("sigma"), lambda: lazy.mu.values):
        with pytest.raises(zt.errors.StaleViewError, match="at draw 10"):
            read()
    assert trace.get("mu")[0, 9:].tolist() == [109.0, 510.0, 511.0, 512.0, 513.0]
    # Draws before the checkpoint have not changed.
    assert early.get("mu")[0].tolist() == [100.0 + draw for draw in range(10)]
