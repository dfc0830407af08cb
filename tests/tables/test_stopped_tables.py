"""Whatever stops a call of a table, a row is appended or it is not, and no other is lost."""

from __future__ import annotations

import bisect
import itertools
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from failing_calls import failing, some_of
from interrupted import LEFT_TO_PYTHON
from killed_processes import killed_at_change
from stopped_calls import bytecodes

import zarrtrace as zt
from zarrtrace.tables import table

pytestmark = LEFT_TO_PYTHON

BEFORE, TOTAL = 3, 13  # the row that is stopped completes chunks, and more chunks follow

# With or without a journal, and with text that is written at each row.
KINDS = {"journal": (None, 1.0), "text": (str, 0.0), "memory": (str, 1e9)}


def rows(kind: str, start: int, stop: int) -> dict[str, Any]:
    numbers = np.arange(start, stop)
    values = {"n": numbers, "x": np.repeat(numbers / 2, 2).reshape(-1, 2)}
    if KINDS[kind][0]:
        values["word"] = np.array([str(n) for n in numbers], dtype=object)
    return values


def started(path: Path, kind: str) -> table.Table:
    columns = {"n": zt.Var(dtype=int, draws_per_chunk=4), "x": zt.Var(shape=2, draws_per_chunk=2)}
    if KINDS[kind][0]:
        columns["word"] = zt.Var(dtype=str, draws_per_chunk=4)
    started = table.open(path, columns, flush_every=KINDS[kind][1])
    started.append_rows(rows(kind, 0, BEFORE))
    return started


def row(kind: str, number: int) -> dict[str, Any]:
    return {name: values[0] for name, values in rows(kind, number, number + 1).items()}


def chosen_calls(action: Callable[[], object], trials: int | None) -> list[int]:
    """Some of the calls that an action makes, or as many as the command line asks for."""
    with failing(None) as made:
        action()
    return some_of(len(made), trials or 12)


def append(started: table.Table, kind: str) -> None:
    started.append(row(kind, BEFORE))


def append_rows(started: table.Table, kind: str) -> None:
    started.append_rows(rows(kind, BEFORE, BEFORE + 6))


def flush(started: table.Table, kind: str) -> None:
    started.flush()


def assert_complete(appended: table.Table, kind: str) -> None:
    """The same table takes the rest, and has every row once."""
    while (count := len(appended)) < TOTAL:
        appended.append(row(kind, count))
    appended.close()
    found = table.open(appended.path)
    assert not found.check()
    for name, expected in rows(kind, 0, TOTAL).items():
        assert found[name].tolist() == expected.tolist(), name


def interrupted(action: Callable[[], None], at: int | None = None) -> int:
    """The bytecodes of the writer that an action runs."""
    return bytecodes("tables/writer.py", action, at, but="_publish")


@pytest.mark.once("oldest")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("act", "added"), [(append, 1), (append_rows, 6), (flush, 0)])
def test_an_interrupt_at_any_bytecode_loses_no_row(
    tmp_path: Path, act: Callable[..., None], added: int, kind: str, trials: int | None
) -> None:
    whole = started(tmp_path / "whole", kind)
    total = interrupted(lambda: act(whole, kind))
    assert_complete(whole, kind)
    counts: list[int] = []

    def interrupt(at: int) -> int:
        appended = started(tmp_path / f"{len(counts)}", kind)
        with pytest.raises(KeyboardInterrupt):
            interrupted(lambda: act(appended, kind), at)
        counts.append(len(appended))
        assert_complete(appended, kind)
        return counts[-1]

    # Some of them by default; `--trials 10000` interrupts at each.
    for at in {*np.linspace(0, total - 1, trials or 3).astype(int).tolist()}:
        interrupt(at)
    if added:
        # Rows are appended at one bytecode: what is around it decides.
        last = bisect.bisect_left(range(total), BEFORE + added, key=interrupt)
        assert {interrupt(at) for at in range(last, last + 9, 4)} == {BEFORE + added}
    assert {*counts} <= {*range(BEFORE, BEFORE + added + 1)}


@pytest.mark.once("oldest")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("act", "added"), [(append, 1), (append_rows, 6), (flush, 0)])
def test_a_call_that_fails_says_which_rows_are_appended(
    tmp_path: Path, act: Callable[..., None], added: int, kind: str, trials: int | None
) -> None:
    whole = started(tmp_path / "whole", kind)
    chosen = chosen_calls(lambda: act(whole, kind), trials)
    refused = set()
    for at in chosen:
        appended = started(tmp_path / f"{at}", kind)
        outcome = BEFORE + added
        with failing(at):
            try:
                act(appended, kind)
            except zt.errors.PartlyRecordedError as error:
                outcome = BEFORE + error.kept
                refused.add((error.kept, error.draw))
            except zt.TraceError:
                outcome = BEFORE
        assert len(appended) == outcome
        assert_complete(appended, kind)
    assert len(refused) >= 2 * (added > 1)
    assert all(draw == BEFORE + kept for kept, draw in refused)


@pytest.mark.once("oldest")
@pytest.mark.parametrize("kind", KINDS)
def test_a_close_that_fails_keeps_the_rows(tmp_path: Path, kind: str, trials: int | None) -> None:
    chosen = chosen_calls(started(tmp_path / "whole", kind).close, trials)
    for at in chosen:
        appended = started(tmp_path / f"{at}", kind)
        with failing(at), suppress(zt.TraceError):
            appended.close()
        assert len(appended) == BEFORE
        assert_complete(appended, kind)


@pytest.mark.once("oldest")
def test_a_table_that_cannot_be_closed_says_that_it_keeps_its_rows(tmp_path: Path) -> None:
    appended = started(tmp_path / "table", "memory")
    for _ in range(2):
        with failing(0, "full"), pytest.raises(zt.errors.NotWritableError) as caught:
            appended.close()
        assert "up to 3 rows would be lost" in caught.value.why
        assert "call close() again" in caught.value.remedy
        assert caught.value.where == str(tmp_path / "table")
    appended.close()
    assert table.open(tmp_path / "table")["n"].tolist() == [0, 1, 2]
    # Another one may append.
    table.open(tmp_path / "table", mode="a").append(row("memory", BEFORE))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.once("oldest")
def test_a_repair_that_is_killed_loses_no_more_rows(tmp_path: Path) -> None:
    path, whole = tmp_path / "table", tmp_path / "whole"
    appended = started(path, "text")
    appended.append_rows(rows("text", BEFORE, TOTAL))
    appended.close()
    (path / "x" / "c.1.0").write_bytes(b"no chunk")
    (path / "n" / "zarr.json").unlink()
    shutil.copytree(path, whole)
    for step in itertools.count():
        # Its directory stays the one that it was written in: a copy has the rows that are proven.
        for left in [*path.iterdir(), Path(f"{path}.damaged")]:
            shutil.rmtree(left, ignore_errors=True)
        shutil.copytree(whole, path, dirs_exist_ok=True)
        killed = killed_at_change(path, step, lambda: table.open(path, mode="a").repair())
        assert len(table.open(path)) == TOTAL, step
        repaired = table.open(path, mode="a")
        repaired.repair()
        expected = rows("text", 0, TOTAL)
        expected["x"][2:4] = np.nan
        for name, values in expected.items():
            assert np.array_equal(repaired[name], values, equal_nan=name == "x"), (step, name)
        assert not repaired.check()
        assert (Path(f"{path}.damaged") / "x" / "c.1.0").read_bytes() == b"no chunk"
        if not killed:
            break
    assert step > 4
