"""A call of the system that fails leaves a draw that is recorded or one that is not."""

from __future__ import annotations

import gc
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from failing_calls import failing, some_of

import zarrtrace as zt
from zarrtrace.errors import PartlyRecordedError

pytestmark = pytest.mark.once("newest")

BEFORE, TOTAL = 3, 12

POSTERIOR = {
    "mu": zt.Var(draws_per_chunk=4),
    "theta": zt.Var(shape=2, draws_per_chunk=2),
    "whole": zt.Var(shape=3, draws_per_chunk=1),
    "word": zt.Var(dtype=str, draws_per_chunk=4),
}


def draws(start: int, stop: int) -> dict[str, Any]:
    numbers = np.arange(start, stop, dtype=float)
    return {
        "mu": numbers,
        "theta": np.repeat(numbers[:, None], 2, axis=1),
        "whole": np.repeat(numbers[:, None], 3, axis=1),
        "word": np.array([str(i) for i in range(start, stop)]),
    }


def draw(number: int) -> dict[str, Any]:
    return {name: values[0] for name, values in draws(number, number + 1).items()}


@pytest.fixture(params=["process", "disk", "no journal"])
def options(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    # How often full chunks are published depends on the time that it took: here always.
    monkeypatch.setattr("zarrtrace.recording.flusher._PUBLISHING_IS_ONE_IN", 0)
    return {"journal": False} if request.param == "no journal" else {"durability": request.param}


def started(path: Path, options: dict[str, Any]) -> zt.ChainWriter:
    trace = zt.create(path, chains=1, draws=TOTAL, posterior=POSTERIOR, **options)
    writer = trace.writer(0)
    writer.record_block(draws(0, BEFORE))
    return writer


def assert_complete(writer: zt.ChainWriter, path: Path) -> None:
    """The same writer records the rest, and the chain has every draw once."""
    while writer.recorded < TOTAL:
        writer.record(draw(writer.recorded))
    writer.close()
    trace = zt.open(path)
    assert not trace.check()
    for name, expected in draws(0, TOTAL).items():
        assert trace.get(name)[0].tolist() == expected.tolist(), name


def chosen_calls(action: Callable[[], object], trials: int | None) -> list[int]:
    """Some of the calls that an action makes, or as many as the command line asks for."""
    with failing(None) as made:
        action()
    return some_of(len(made), trials or 16)


@pytest.mark.parametrize("number", [BEFORE, TOTAL - 1], ids=["end of a chunk", "last draw"])
def test_a_draw_is_recorded_or_refused(
    number: int, options: dict[str, Any], tmp_path: Path, trials: int | None
) -> None:
    writer = started(tmp_path / "whole.zarr", options)
    writer.record_block(draws(BEFORE, number))
    chosen = chosen_calls(lambda: writer.record(draw(number)), trials)
    assert_complete(writer, tmp_path / "whole.zarr")
    refused = 0
    for at in chosen:
        path = tmp_path / f"{at}.zarr"
        writer = started(path, options)
        writer.record_block(draws(BEFORE, number))
        with failing(at):
            try:
                writer.record(draw(number))
            except zt.TraceError:
                refused += 1
                assert writer.recorded == number
            else:
                assert writer.recorded == number + 1
        assert_complete(writer, path)
    assert refused


def test_a_block_says_how_much_of_it_is_recorded(
    options: dict[str, Any], tmp_path: Path, trials: int | None
) -> None:
    writer = started(tmp_path / "whole.zarr", options)
    chosen = chosen_calls(lambda: writer.record_block(draws(BEFORE, TOTAL - 1)), trials)
    kept = set()
    for at in chosen:
        path = tmp_path / f"{at}.zarr"
        writer = started(path, options)
        outcome = TOTAL - 1
        with failing(at):
            try:
                writer.record_block(draws(BEFORE, TOTAL - 1))
            except PartlyRecordedError as error:
                outcome = BEFORE + error.kept
                kept.add((error.kept, error.draw))
            except zt.TraceError:
                outcome = BEFORE
        assert writer.recorded == outcome
        assert_complete(writer, path)
    assert len(kept) > 3
    assert all(first == BEFORE + count for count, first in kept)


@pytest.mark.parametrize("what", ["flush", "checkpoint", "close"])
def test_what_fails_can_be_done_again(
    what: str, options: dict[str, Any], tmp_path: Path, trials: int | None
) -> None:
    def action(writer: zt.ChainWriter) -> None:
        writer.checkpoint({"at": 2}) if what == "checkpoint" else getattr(writer, what)()

    writer = started(tmp_path / "whole.zarr", options)
    writer.checkpoint({"at": 1})
    chosen = chosen_calls(lambda: action(writer), trials)
    writer.close()
    for at in chosen:
        path = tmp_path / f"{at}.zarr"
        writer = started(path, options)
        writer.checkpoint({"at": 1})
        with failing(at), suppress(zt.TraceError):
            action(writer)
        writer.close()
        with zt.open(path, "a").writer(0) as writer:
            number, state = writer.resume()
            assert (number, state["at"]) in [(BEFORE, 1), (BEFORE, 2)]
            assert_complete(writer, path)


def test_a_close_that_fails_without_a_journal_keeps_the_draws(
    tmp_path: Path, trials: int | None
) -> None:
    options = {"journal": False}
    whole = started(tmp_path / "whole.zarr", options)
    refused = 0
    for at in chosen_calls(whole.close, trials):
        path = tmp_path / f"{at}.zarr"
        writer = started(path, options)
        with failing(at):
            try:
                writer.close()
            except zt.TraceError:
                refused += not writer.closed
        writer.close()
        assert zt.open(path).recorded.tolist() == [BEFORE], at
        with zt.open(path, "a").writer(0) as writer:
            writer.resume()
            assert_complete(writer, path)
    assert refused


@pytest.mark.filterwarnings("ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning")
def test_a_writer_that_nobody_can_close_again_gives_its_place_up(tmp_path: Path) -> None:
    writer = started(tmp_path / "run.zarr", {"journal": False})
    with failing(0, "full"):
        del writer
        gc.collect()
    with zt.open(tmp_path / "run.zarr", "a").writer(0) as writer:
        assert writer.resume()[0] == 0
