"""Away from the process that appends, a table has fewer rows, and never false ones."""

from __future__ import annotations

import random
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from promises.harness_copy import Moments
from scripts import Script

import zarrtrace as zt
from zarrtrace.tables import table

# Short chunks are partly filled, and full, and partly filled again while a copy is made.
COLUMNS: dict[str, dict[str, Any]] = {
    "numbers": {
        "n": zt.Var(dtype="int64", draws_per_chunk=7),
        "x": zt.Var(shape=3, draws_per_chunk=5),
        "odd": zt.Var(dtype=bool, draws_per_chunk=5),
        "whole": zt.Var(shape=(2, 2), dtype="float32", draws_per_chunk=1),
    },
    "text": {
        "n": zt.Var(dtype="int64", draws_per_chunk=7),
        "odd": zt.Var(dtype=bool, draws_per_chunk=4),
        "word": zt.Var(dtype=str, draws_per_chunk=5),
    },
}


def rows(columns: dict[str, Any], start: int, stop: int) -> dict[str, np.ndarray]:
    """Rows whose every value says which row it is; missing values are among them."""
    n = np.arange(start, stop)
    found = {
        "n": n // 3,
        "x": np.stack([n, np.where(n % 3, np.nan, n), -n], axis=1).astype(float),
        "odd": n % 2 == 1,
        "whole": np.repeat(n, 4).reshape(-1, 2, 2).astype("float32"),
        "word": np.array(["" if i % 3 == 0 else f"row {i}" for i in n], dtype=object),
    }
    return {name: found[name] for name in columns}


def assert_rows(found: table.Table) -> int:
    """Every column has the rows of the table and no false one; returns how many."""
    count = len(found)
    for name, expected in rows(found.columns, 0, count).items():
        np.testing.assert_array_equal(found[name], expected, err_msg=f"{found.path}: {name}")
    return count


APPEND = """
import sys, time
from test_table_copies import COLUMNS, rows
from zarrtrace.tables import table
path, kind, flush_every = sys.argv[1], sys.argv[2], float(sys.argv[3])
columns, n = COLUMNS[kind], 0
while n < 1_000_000:
    with table.open(path, columns, flush_every=flush_every) as appended:
        for _ in range(40):
            number = 1 + n % 4
            appended.append_rows(rows(columns, n, n + number))
            n += number
            time.sleep(0.001)
            if n % 3 == 0:
                appended.flush()
"""


@pytest.fixture
def appended(tmp_path: Path, script: Script, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A table that another process appends to."""
    kind, flush_every = request.param
    path = tmp_path / "table"
    process = script.start(APPEND, path, kind, flush_every)
    try:
        while not (path / "zarr.json").exists() or len(table.open(path)) < 9:
            assert process.poll() is None, process.communicate()
        yield path
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()


def copy_files(path: Path, copy: Path, backwards: bool) -> None:
    """Copy a directory file by file; files come and go meanwhile."""
    names = sorted((name for name in path.rglob("*") if name.is_file()), reverse=backwards)
    for name in names:
        target = copy / name.relative_to(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            target.write_bytes(name.read_bytes())
        except FileNotFoundError:
            target.unlink(missing_ok=True)


@pytest.mark.long
@pytest.mark.once("newest")
@pytest.mark.parametrize("appended", [("numbers", 1), ("text", 0), ("text", 1e-4)], indirect=True)
def test_no_copy_of_a_table_that_is_appended_to_has_a_wrong_row(
    appended: Path, tmp_path: Path, trials: int | None
) -> None:
    lengths = []
    for number in range(trials or 8):
        copy = tmp_path / "copy"
        copy_files(appended, copy, backwards=number % 2 == 1)
        if (copy / "zarr.json").exists():
            lengths.append(assert_rows(table.open(copy)))
        shutil.rmtree(copy)
    assert lengths[-1] > 0


def continue_with_other_rows(path: Path, columns: dict[str, Any], count: int, what: str) -> None:
    """Append rows of other values; a copy that is made before the table is closed has them."""
    continued, other = table.open(path, columns, flush_every=0), 1000 - count
    for _ in range(5):
        length = len(continued)
        continued.append_rows(rows(columns, length + other, length + other + 2))
    assert continued._writer is not None
    continued._writer._release()
    copy = path.with_name(f"{path.name}-again")
    shutil.copytree(path, copy)
    for found in (table.open(path), table.open(copy)):
        before, after = rows(columns, 0, count), rows(columns, count + other, count + other + 10)
        assert len(found) == count + 10, what
        for name in columns:
            expected = np.concatenate([before[name], after[name]])
            np.testing.assert_array_equal(found[name], expected, err_msg=f"{what}: {name}")


def remembered(path: Path, columns: dict[str, Any], chooser: random.Random, steps: int) -> Moments:
    """The files of a table after each of the things that are done to it."""
    moments, n = Moments(path), 0
    appended = table.open(path, columns, flush_every=0)
    for _ in range(steps):
        do = chooser.random()
        if do < 0.1:
            appended.close()
        elif do < 0.2:
            # As if it was killed.
            writer, appended = appended._writer, table.open(path, columns)
            if writer is not None:
                writer._release()
        elif do < 0.4:
            appended.flush()
        else:
            number = chooser.choice([1, 1, 1, 2, 9])
            appended.append_rows(rows(columns, n, n + number))
            n += number
        moments.remember([n])
    appended.close()
    return moments


def trial(seed: int, folder: Path) -> tuple[int, int]:
    """Put tables together of one that is appended to; returns rows that were there, and missing."""
    chooser = random.Random(seed)
    columns = COLUMNS[chooser.choice(["numbers", "text"])]
    moments = remembered(folder / "table", columns, chooser, chooser.randrange(5, 40))
    there = missing = 0
    for number in range(8):
        last = chooser.randrange(len(moments.files))
        first = max(0, last - chooser.choice([0, 1, 3, 10, 100]))
        copy = folder / f"copy-{number}"
        moments.put_together(copy, first, last, chooser, chooser.random() < 0.3)
        if not (copy / "zarr.json").exists():
            continue
        found = assert_rows(table.open(copy))
        if first == last:
            assert found == moments.counts[first][0], f"seed {seed}: {copy} has {found} rows"
        there += moments.counts[first][0]
        missing += max(0, moments.counts[first][0] - found)
        if number % 2 == 0:
            # The copy continues, and a copy of it holds no row from before.
            continue_with_other_rows(copy, columns, found, f"seed {seed}, {copy.name}")
    return there, missing


@pytest.mark.once("newest")
def test_files_of_several_moments_have_no_wrong_row(tmp_path: Path, trials: int | None) -> None:
    there = missing = 0
    for seed in range(trials or 4):
        counted = trial(seed, tmp_path / str(seed))
        there, missing = there + counted[0], missing + counted[1]
        shutil.rmtree(tmp_path / str(seed))
    assert missing < there / 2


@pytest.mark.once("oldest")
def test_a_flipped_bit_in_a_row_of_a_copy_ends_its_rows(tmp_path: Path) -> None:
    columns = {
        "n": zt.Var(dtype=int, draws_per_chunk=4),
        "odd": zt.Var(dtype=bool, draws_per_chunk=8),
    }
    appended = table.open(tmp_path / "table", columns)
    appended.append_rows(rows(columns, 0, 18))
    shutil.copytree(tmp_path / "table", tmp_path / "copy")
    appended.close()
    file = tmp_path / "copy" / "_journal" / "c.0.0"
    whole = file.read_bytes()
    counts = {assert_rows(table.open(tmp_path / "copy"))}
    assert counts == {18}
    for place in range(128, len(whole) - 16_384, 5):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << place % 8
        file.write_bytes(flipped)
        counts.add(assert_rows(table.open(tmp_path / "copy")))
    # Those before are in full chunks.
    assert counts == {16, 17, 18}
