"""Away from its writer a trace has fewer draws, and never false ones.

`harness_copy.py` does the same with many more traces: `--trials 2000` takes an hour or two.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Place
from outcomes import counts
from scripts import ForkedProcess, Script

import zarrtrace as zt
from zarrtrace.sampling_state.last_checkpoint import last_checkpoint

JOURNAL = "_sampling_state/journal/c.0.0"


HARNESS = Path(__file__).with_name("harness_copy.py")


@pytest.mark.once("newest")
@pytest.mark.long
def test_files_and_pages_of_different_moments_never_give_a_wrong_draw(trials: int | None) -> None:
    trials = trials or 4
    command = [sys.executable, str(HARNESS), "--trials", str(trials)]
    done = subprocess.run(command, capture_output=True, text=True)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    found = counts(done.stdout)
    assert (found["trials"], found["copies"]) == (trials, 4 * trials)
    assert found["torn copies"] >= trials
    assert found["draws not proven"] < found["draws"] / 2


PROGRAM = """
import sys
import numpy as np
import zarrtrace as zt
from zarrtrace.sampling_state.last_checkpoint import last_checkpoint
writer = zt.open(sys.argv[1], "a").writer(0)
for i in range(3000):
    if i % 500 == 0:
        sys.stdin.readline()
    writer.record({"mu": i + 0.5, "x": np.full(500, i + 0.5), "word": f"draw {i}"}, {"lp": -i})
    if i % 7 == 0:
        writer.flush()
    if i % 11 == 0:
        writer.checkpoint({"draw": i + 1})
"""


@dataclass
class Recorded:
    """A trace that another process records, some hundred draws at a time."""

    path: Path
    process: ForkedProcess

    def go_on(self) -> None:
        self.process.stdin.write("\n")
        self.process.stdin.flush()


@pytest.fixture
def recorded(tmp_path: Path, script: Script, request: pytest.FixtureRequest) -> Iterator[Recorded]:
    """A trace that has its first draws, with chunks of the lengths that are asked for."""
    path = tmp_path / "run.zarr"
    first, second, third = request.param
    zt.create(
        path,
        chains=1,
        draws=3000,
        posterior={
            "mu": zt.Var(draws_per_chunk=first),
            "x": zt.Var(shape=500, draws_per_chunk=second),
            "word": zt.Var(dtype=str, draws_per_chunk=third),
        },
        sample_stats={"lp": zt.Var(draws_per_chunk=first)},
    )
    process = script.start(PROGRAM, path)
    found = Recorded(path, process)
    try:
        found.go_on()
        while zt.open(path).recorded[0] < 20:
            assert process.poll() is None
        yield found
    finally:
        process.kill()
        process.communicate()


@pytest.mark.once("oldest")
@pytest.mark.parametrize("recorded", [(50, 50, 20), (7, 1, 40), (1000, 13, 5)], indirect=True)
def test_every_copy_of_a_trace_that_is_recorded_is_right_or_shorter(
    recorded: Recorded, tmp_path: Path
) -> None:
    for number in range(6):
        copy = tmp_path / f"copy-{number}.zarr"
        before = int(zt.open(recorded.path).recorded[0])
        if number:
            # However fast the process is: it records while it is copied.
            recorded.go_on()
        # Files disappear while it copies.
        subprocess.run(["cp", "-r", recorded.path, copy], stderr=subprocess.DEVNULL)
        trace = zt.open(copy)
        count = int(trace.recorded[0])
        numbers = np.arange(count)
        assert np.array_equal(trace.get("mu")[0], numbers + 0.5)
        assert np.array_equal(trace.get("x")[0], np.repeat(numbers + 0.5, 500).reshape(-1, 500))
        assert trace.get("word")[0].tolist() == [f"draw {i}" for i in numbers]
        assert np.array_equal(trace.get("lp")[0], -numbers)
        checkpoint = last_checkpoint(trace._block(0))
        assert checkpoint is None or checkpoint[0] == checkpoint[1]["draw"] <= count
        # A file that was being written may be copied as it was.
        assert [one for one in trace.check() if not one.path.endswith(".partial")] == []
        # What was in full chunks before it was copied is in full chunks of the copy.
        assert count >= before - 1000
        shutil.rmtree(copy)


def filled(directory: Place, count: int, **options: object) -> zt.Trace:
    trace = directory.create(
        chains=1, draws=100, posterior={"mu": zt.Var(draws_per_chunk=10)}, **options
    )
    writer = trace.writer(0)
    for i in range(count):
        writer.record({"mu": i + 0.5})
    writer._release()
    return trace


def test_a_copy_that_stands_still_has_every_draw_and_continues(
    directory: Place, tmp_path: Path
) -> None:
    filled(directory, 37)
    copy = tmp_path / "copy.zarr"
    shutil.copytree(directory.path, copy)
    trace = zt.open(copy, "a")
    assert trace.recorded.tolist() == [37]
    with trace.writer(0) as writer:
        assert writer.resume() == (37, None)
        writer.record({"mu": 37.5})
    assert trace.get("mu")[0].tolist() == [i + 0.5 for i in range(38)]
    assert directory.open().recorded.tolist() == [37]


def test_a_copy_says_that_it_is_one_until_it_is_recorded_or_finished(
    directory: Place, tmp_path: Path
) -> None:
    filled(directory, 37)
    copy = tmp_path / "copy.zarr"
    shutil.copytree(directory.path, copy)
    assert "recorded_elsewhere" not in directory.open().posterior.attrs
    assert "draws survive kill -9" in repr(directory.open())
    trace = zt.open(copy, "a")
    assert "away from where it is recorded: shows the proven draws" in repr(trace)
    assert "shows the proven draws" in trace.posterior.attrs["recorded_elsewhere"]
    trace.writer(0).close()
    assert "draws survive kill -9" in repr(trace)
    assert "recorded_elsewhere" not in trace.posterior.attrs
    trace.finish()
    assert zt.open(copy).recorded.tolist() == [37]


@pytest.mark.parametrize("text", ["short", "x" * 9000])
def test_a_copy_has_no_checkpoint_of_a_draw_that_it_lacks(
    directory: Place, tmp_path: Path, text: str
) -> None:
    trace = directory.create(chains=1, draws=100, posterior={"mu": zt.Var(draws_per_chunk=10)})
    writer = trace.writer(0)
    for i in range(37):
        writer.record({"mu": i + 0.5})
        if i in (7, 34):
            writer.checkpoint({"after": i + 1, "text": text})
    writer._release()
    copy = tmp_path / "copy.zarr"
    shutil.copytree(directory.path, copy)
    assert zt.open(copy).last_checkpoint(0) == (35, {"after": 35, "text": text})
    (copy / "posterior/mu/c.0.2").unlink()
    # Both slots are in the journal; of a file of its own there is only the last.
    earlier = (8, {"after": 8, "text": text}) if text == "short" else None
    assert zt.open(copy).last_checkpoint(0) == (earlier or (0, None))
    with zt.open(copy, "a").writer(0) as writer:
        assert writer.resume() == (earlier or (20, None))


def test_a_trace_that_is_moved_is_the_same_trace(directory: Place, tmp_path: Path) -> None:
    filled(directory, 37)
    moved = tmp_path / "moved.zarr"
    os.rename(directory.path, moved)
    journal = zt.open(moved)._block(0).read_journal()
    assert journal is not None
    assert (journal.count, journal.is_elsewhere) == (37, False)


def test_a_copy_made_of_hard_links_does_not_follow_the_writer(
    directory: Place, tmp_path: Path
) -> None:
    trace = filled(directory, 37)
    copy = tmp_path / "copy.zarr"
    shutil.copytree(directory.path, copy, copy_function=os.link)
    assert zt.open(copy).recorded.tolist() == [37]
    with trace.writer(0) as writer:
        writer.resume()
        for i in range(37, 58):
            writer.record({"mu": i + 0.5})
    # The journal is one file in both, and the copy has no chunk with draws 30 to 39.
    assert zt.open(copy).recorded.tolist() == [30]
    assert zt.open(copy).get("mu")[0].tolist() == [i + 0.5 for i in range(30)]


@pytest.mark.parametrize("byte", [0, 7, 8, 11, 15, 16, 19])
def test_a_row_with_a_wrong_bit_does_not_prove_its_draw(
    directory: Place, tmp_path: Path, byte: int
) -> None:
    filled(directory, 37)
    copy = tmp_path / "copy.zarr"
    shutil.copytree(directory.path, copy)
    with open(copy / JOURNAL, "r+b") as file:
        file.seek(128 + 5 * 24 + byte)
        [old] = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([old ^ 1]))
    assert zt.open(copy).recorded.tolist() == [35]
    assert zt.open(copy).get("mu")[0].tolist() == [i + 0.5 for i in range(35)]


def test_a_chunk_that_is_missing_or_empty_ends_what_is_proven(
    directory: Place, tmp_path: Path
) -> None:
    filled(directory, 37)
    for name, damage in (("gone", Path.unlink), ("empty", lambda file: file.write_bytes(b""))):
        copy = tmp_path / name
        shutil.copytree(directory.path, copy)
        damage(copy / "posterior/mu/c.0.1")
        assert zt.open(copy).recorded.tolist() == [10]


def test_rows_that_were_given_up_prove_nothing_later(directory: Place, tmp_path: Path) -> None:
    """A copy has fewer draws than its rows; a writer there does not get the others back."""
    filled(directory, 37)
    copy = tmp_path / "copy.zarr"
    shutil.copytree(directory.path, copy)
    (copy / "posterior/mu/c.0.2").unlink()
    trace = zt.open(copy, "a")
    with trace.writer(0) as writer:
        assert writer.resume() == (20, None)
        for i in range(20, 32):
            writer.record({"mu": -1.0 - i})
    again = tmp_path / "again.zarr"
    shutil.copytree(copy, again)
    expected = [i + 0.5 for i in range(20)] + [-1.0 - i for i in range(20, 32)]
    assert zt.open(again).get("mu")[0].tolist() == expected


def test_a_flush_leaves_no_chunk_that_is_not_full(directory: Place, tmp_path: Path) -> None:
    trace = filled(directory, 14)
    with trace.writer(0) as writer:
        writer.resume()
        writer.flush()
        assert not (directory.path / "posterior/mu/c.0.1").exists()
        assert trace.get("mu")[0].tolist() == [i + 0.5 for i in range(14)]
    assert not (directory.path / "posterior/mu/c.0.1").exists()
    trace.split_warmup(2)
    assert (directory.path / "posterior/mu/0.1").exists(), "as long as nobody writes"
    with trace.writer(0) as writer:
        assert not (directory.path / "posterior/mu/0.1").exists()
        writer.resume()
        writer.record({"mu": 14.5})
    assert trace.get("mu")[0].tolist() == [i + 0.5 for i in range(2, 15)]


HISTORIES = Path(__file__).with_name("harness_histories.py")


@pytest.mark.once("newest")
@pytest.mark.long
def test_no_copy_of_a_trace_that_changes_has_a_wrong_value(trials: int | None) -> None:
    some = [] if trials else ["extended", "added twice", "went back"]
    trials = trials or 20
    command = [sys.executable, str(HISTORIES), "--trials", str(trials)]
    command += [word for name in some for word in ("--history", name)]
    done = subprocess.run(command, capture_output=True, text=True)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    found = counts(done.stdout)
    assert found["torn copies"] > found["copies"] / 2
    assert found["values"] > 100 * found["copies"]


@pytest.mark.parametrize("compressors", ["auto", None])
def test_a_chunk_from_before_it_was_filled_is_not_taken_for_the_full_one(
    directory: Place, tmp_path: Path, compressors: Any
) -> None:
    trace = directory.create(
        chains=1,
        draws=10,
        posterior={"x": zt.Var(draws_per_chunk=4), "n": zt.Var(dtype=int, draws_per_chunk=4)},
        compressors=compressors,
    )

    def record(stop: int) -> None:
        with trace.writer(0) as writer:
            for draw in range(writer.resume()[0], stop):
                writer.record({"x": draw + 0.5, "n": 0})

    record(10)
    trace.finish()
    chunk = directory.path / "posterior/x/0.2"
    chunk = chunk if chunk.exists() else directory.path / "posterior/x/c.0.2"
    earlier = chunk.read_bytes()
    trace.extend(5)
    record(15)
    running, finished = tmp_path / "running.zarr", tmp_path / "finished.zarr"
    shutil.copytree(directory.path, running)
    trace.finish()
    shutil.copytree(directory.path, finished)
    for copy in (running, finished):
        (copy / chunk.relative_to(directory.path)).write_bytes(earlier)
    found = zt.open(running)
    assert found.recorded.tolist() == [8], "its rows are gone, and it is not full"
    assert found.get("x")[0].tolist() == [draw + 0.5 for draw in range(8)]
    with pytest.raises(zt.errors.DamagedTraceError, match="fewer draws"):
        zt.open(finished).get("x")
    assert zt.open(finished).get("n").tolist() == [[0] * 15]
    assert ["x" in str(damage) for damage in zt.open(finished).check()] == [True]


@pytest.mark.once("oldest")
@pytest.mark.parametrize(
    ("checkpoint", "checksum", "journal"), [(6, False, True), (17, True, True), (12, False, False)]
)
def test_a_copy_of_a_chain_that_went_back_holds_one_of_its_attempts(
    directory: Place, tmp_path: Path, checkpoint: int, checksum: bool, journal: bool
) -> None:
    """The chain draws others from draw 6 on: no old chunk is read beside a new journal, or back."""
    lengths = {"mu": 4, "word": 5, "vector": 1, "slow": 50}
    variables = {
        name: zt.Var(
            dtype=str if name == "word" else float,
            shape=3 if name == "vector" else (),
            draws_per_chunk=length,
        )
        for name, length in lengths.items()
    }
    options = {"checksum": checksum, "journal": journal}
    directory.create(chains=1, draws=60, posterior=variables, **options)

    def record(stop: int, first: float, checkpoint: int) -> Path:
        with directory.open("a").writer(0) as writer:
            for draw in range(writer.resume()[0], stop):
                value = first + draw
                numbers = {"mu": value, "slow": value, "vector": np.full(3, value)}
                writer.record({"word": str(value), **numbers})
                if draw + 1 == checkpoint:
                    writer.checkpoint({"draws": draw + 1})
        return Path(shutil.copytree(directory.path, tmp_path / f"{first}.zarr"))

    early, late = record(14, 100.0, 6), record(19, 500.0, checkpoint)
    attempts = [[first + draw for draw in range(6, 19)] for first in (100.0, 500.0)]
    assert zt.open(late).recorded.tolist() == [19], "nothing is lost of a whole copy"
    files = {
        file.relative_to(copy).as_posix()
        for copy in (early, late)
        for pattern in ("posterior/*", "_sampling_state/journal", "_sampling_state/flushed")
        for file in copy.glob(f"{pattern}/c*")
    }
    for one, other in ((early, late), (late, early)):
        for name in sorted(files):
            copy = tmp_path / "copy.zarr"
            shutil.copytree(one, copy)
            (copy / name).unlink(missing_ok=True)
            if (other / name).exists():
                shutil.copyfile(other / name, copy / name)
            found = zt.open(copy).get(list(lengths))
            draws = {
                name: [float(np.ravel(value)[0]) for value in values[0][6:]]
                for name, values in found.items()
            }
            assert any(
                all(values == attempt[: len(values)] for values in draws.values())
                for attempt in attempts
            ), f"{name} of {other.name}: {draws}"
            shutil.rmtree(copy)
