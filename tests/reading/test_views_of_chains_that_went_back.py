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


@pytest.mark.parametrize("journal", [True, False])
@pytest.mark.parametrize("length", [3, 4, 50])
def test_a_view_never_mixes_draws_with_those_that_took_their_numbers(
    tmp_path: Path, length: int, journal: bool
) -> None:
    path = tmp_path / "run.zarr"
    variables = {"mu": zt.Var(draws_per_chunk=length), "sigma": zt.Var()}
    zt.create(path, chains=1, draws=40, posterior=variables, journal=journal)
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


@pytest.mark.parametrize("journal", [True, False])
def test_a_view_stays_when_another_writer_continues_after_its_last_draw(
    tmp_path: Path, journal: bool
) -> None:
    path = tmp_path / "run.zarr"
    variables = {"mu": zt.Var(draws_per_chunk=3), "sigma": zt.Var()}
    zt.create(path, chains=1, draws=40, posterior=variables, journal=journal)
    recorded(path, 13, 100.0)
    trace = recorded(path, 14, 500.0)
    with trace.writer(0) as writer:
        writer.resume()
        writer.record({"mu": 710.0, "sigma": 0.0})
        writer.checkpoint({"draw": 11})
    view = trace.at_once()
    recorded(path, 15, 900.0)
    assert view.get("mu")[0, 9:].tolist() == [109.0, 710.0]
    assert trace.get("mu")[0, 9:].tolist() == [109.0, 710.0, 911.0, 912.0, 913.0, 914.0]
