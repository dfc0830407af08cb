"""Promise 1: what `record()` has taken survives the process; where it cannot, it says so."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from conftest import Place, open_plainly
from scripts import Script

import zarrtrace as zt
from zarrtrace.sampling_state import journal_header

DEFINITION: dict[str, Any] = {
    "chains": 2,
    "draws": 50,
    "posterior": {"mu": zt.Var(draws_per_chunk=10), "nu": zt.Var(shape=3, draws_per_chunk=7)},
}


def kill_after(script: Script, path: Path, draws: int) -> None:
    """Record that many draws of chain 0 in a process that then kills itself."""
    code = """
        import os, signal, sys
        import zarrtrace as zt
        writer = zt.open(sys.argv[1], "a").writer(0)
        start, _ = writer.resume()
        for i in range(start, start + int(sys.argv[2])):
            writer.record({"mu": i, "nu": [i, i, i]})
        os.kill(os.getpid(), signal.SIGKILL)
    """
    process = script.start(code, path, draws)
    _, errors = process.communicate()
    assert process.returncode == -signal.SIGKILL, errors


@pytest.mark.once("newest")
@pytest.mark.parametrize("draws", [1, 7, 10, 13, 49, 50])
def test_every_draw_survives_kill_9_and_the_chain_continues(
    directory: Place, script: Script, draws: int
) -> None:
    trace = directory.create(**DEFINITION)
    kill_after(script, directory.path, draws)
    assert trace.recorded.tolist() == [draws, 0]
    assert trace.get("mu", chains=0)[0].tolist() == list(range(draws))
    assert trace.get("nu", chains=0)[0, :, 2].tolist() == list(range(draws))
    for chain in range(2):
        with trace.writer(chain) as writer:
            start, _ = writer.resume()
            assert start == (draws if chain == 0 else 0)
            for i in range(start, 50):
                writer.record({"mu": i, "nu": [i, i, i]})
    trace.finish()
    assert np.array_equal(zt.open(directory.path).get("mu"), [np.arange(50)] * 2)


def test_a_trace_of_killed_chains_can_be_finished_at_once(directory: Place, script: Script) -> None:
    trace = directory.create(**DEFINITION | {"chains": 1})
    kill_after(script, directory.path, 33)
    trace.finish()
    plain = zarr.open_array(str(directory.path), path="posterior/mu", mode="r")
    assert np.asarray(plain[0]).tolist() == list(range(33))


def test_the_journal_is_a_zarr_array_that_holds_what_its_specification_says(
    directory: Place,
) -> None:
    trace = directory.create(**DEFINITION)
    with trace.writer(1) as writer:
        for i in range(4):
            writer.record({"mu": 10.0 + i, "nu": [i, i, i]})
        assert open_plainly(directory.path) is None
        plain = zarr.open_array(str(directory.path), path="_sampling_state/journal", mode="r")
        row = np.asarray(plain[1])
    assert bytes(row[:8]) == b"zarrtrc3"
    assert int.from_bytes(row[8:16].tobytes(), "little") == 4
    rows = np.frombuffer(row[128 : 128 + 4 * 24].tobytes()).reshape(4, 3)
    assert rows[:, 0].tolist() == [10, 11, 12, 13]
    assert rows[:, 1].view(np.int64).tolist() == [0, 1, 2, 3]
    start = 128 + 256  # 10 draws of mu, each with a seal of 16 bytes, take 240 bytes
    assert np.frombuffer(row[start : start + 24].tobytes()).tolist() == [0, 0, 0]
    assert not np.asarray(plain[0]).any()


def test_its_blocks_are_reserved_when_it_is_made(directory: Place) -> None:
    trace = directory.create(**DEFINITION)
    with trace.writer(0):
        file = directory.path / "_sampling_state" / "journal" / "c.0.0"
        status = file.stat()
        assert status.st_blocks * 512 >= status.st_size


def test_the_journal_is_gone_with_finish(directory: Place) -> None:
    trace = directory.create(**DEFINITION | {"chains": 1})
    with trace.writer(0) as writer:
        writer.record({"mu": 0, "nu": [0, 0, 0]})
    trace.finish()
    assert not (directory.path / "_sampling_state" / "journal").exists()


def test_a_journal_on_another_disk(place: Place, tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    trace = place.create(**DEFINITION | {"chains": 1}, journal=scratch)
    writer = trace.writer(0)
    for i in range(9):
        writer.record({"mu": i, "nu": [i, i, i]})
    # Unflushed, and seen at once by whoever reads on this machine.
    assert place.open().recorded.tolist() == [9]
    assert place.open().get("mu")[0].tolist() == list(range(9))
    writer._release()
    with trace.writer(0) as writer:
        assert writer.resume() == (9, None)
    trace.finish()
    assert not list(scratch.rglob("c.*"))
    assert place.open().get("nu")[0, :, 1].tolist() == list(range(9))


def test_a_journal_directory_must_be_there(memory: Place, tmp_path: Path) -> None:
    with pytest.raises(zt.errors.InvalidInputError, match="create it first"):
        memory.create(**DEFINITION, journal=tmp_path / "nowhere")


def test_without_a_journal_draws_are_flushed_by_time_and_it_says_what_may_be_lost(
    directory: Place,
) -> None:
    trace = directory.create(**DEFINITION, journal=False, flush_every=0)
    assert "loses up to 0 s of draws" in repr(trace)
    writer = trace.writer(0)
    for i in range(5):
        writer.record({"mu": i, "nu": [i, i, i]})
        # A draw flushes those before it, so that it is refused when they cannot be.
        assert trace.recorded[0] == i
    writer.close()
    patient = zt.create(
        directory.path, **DEFINITION, journal=False, flush_every=1000, overwrite=True
    )
    with patient.writer(0) as writer:
        for i in range(5):
            writer.record({"mu": i, "nu": [i, i, i]})
        assert patient.recorded[0] == 0
        writer.flush()
        assert patient.recorded[0] == 5


def test_a_journal_says_that_nothing_is_lost(directory: Place) -> None:
    assert "kill -9" in repr(directory.create(**DEFINITION))


# Power loss -----------------------------------------------------------------------------------


def another_boot(monkeypatch: pytest.MonkeyPatch) -> None:
    identity = uuid.uuid4().bytes
    monkeypatch.setattr(journal_header, "boot_id", lambda: identity)


def test_after_power_loss_the_draws_of_the_last_checkpoint_count(
    directory: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace = directory.create(**DEFINITION, durability="disk")
    writer = trace.writer(0)
    for i in range(23):
        writer.record({"mu": i, "nu": [i, i, i]})
        if i == 15:
            writer.checkpoint("after 16")
    writer._release()
    assert trace.recorded[0] == 23
    another_boot(monkeypatch)
    # What was written since the last checkpoint may or may not have reached the disk: here it has.
    assert trace.recorded[0] == 23
    assert trace.get("mu", chains=0)[0].tolist() == list(range(23))
    with trace.writer(0) as again:
        assert again.resume() == (16, "after 16")
        for i in range(16, 50):
            again.record({"mu": i, "nu": [i, i, i]})
    assert trace.get("mu", chains=0)[0].tolist() == list(range(50))


def test_without_it_the_count_holds_over_a_boot(
    directory: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace = directory.create(**DEFINITION)
    writer = trace.writer(0)
    writer.record({"mu": 0, "nu": [0, 0, 0]})
    writer._release()
    another_boot(monkeypatch)
    assert trace.recorded[0] == 1


def test_chunks_reach_the_disk_before_their_rows_are_used_again(
    directory: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace = directory.create(**DEFINITION, durability="disk")
    synced: list[str] = []
    counts: list[int] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        real(descriptor)

    with trace.writer(0) as writer:
        monkeypatch.setattr(os, "fsync", fsync)
        for i in range(20):
            writer.record({"mu": i, "nu": [i, i, i]})
            counts.append(len(synced))
        mu = [path for path in synced if "posterior/mu/c.0" in path]
        assert len(mu) == 2
        # The tenth draw completes a chunk of mu: it is synced within that record().
        assert counts[9] > counts[8]
        assert any(path.endswith("posterior/mu") for path in synced)
        assert not any(".partial" in path for path in synced)
    assert any("draw_idx" in path for path in synced)


# No room, no permission, no directory ---------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Any:
    """A file system of 3 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(command, stderr=subprocess.PIPE).returncode:
        pytest.skip("a small file system can only be mounted by root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_is_an_error_and_the_run_continues_when_there_is_room(
    small_disk: Path,
) -> None:
    # Random numbers do not compress; 8 kB a draw.
    rng = np.random.default_rng(0)
    values = rng.normal(size=(400, 1000))
    path = small_disk / "run.zarr"
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(1_000_000))
    trace = zt.create(
        path, chains=1, draws=300, posterior={"x": zt.Var(shape=1000, draws_per_chunk=20)}
    )
    writer = trace.writer(0)
    recorded = 0

    def until_it_is_full() -> None:
        nonlocal recorded
        for i in range(300):
            writer.record({"x": values[i]})
            recorded = i + 1

    with pytest.raises(zt.errors.NotWritableError, match="the disk is full") as caught:
        until_it_is_full()
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.__cause__.errno == errno.ENOSPC
    assert 100 < recorded < 300
    assert trace.recorded[0] == recorded
    assert np.array_equal(zt.open(path).get("x")[0], values[:recorded])
    with pytest.raises(zt.errors.NotWritableError, match="the disk is full"):
        writer.record({"x": values[recorded]})

    ballast.unlink()
    for i in range(recorded, recorded + 30):
        writer.record({"x": values[i]})
    writer.close()
    assert np.array_equal(zt.open(path).get("x")[0], values[: recorded + 30])
    assert not list(path.rglob("*.partial"))


def test_a_disk_without_room_for_the_journal_says_so_at_the_start(small_disk: Path) -> None:
    trace = zt.create(
        small_disk / "run.zarr",
        chains=1,
        draws=1000,
        posterior={"x": zt.Var(shape=1000, draws_per_chunk=500)},
    )
    with pytest.raises(zt.errors.NotWritableError, match="no space for a journal"):
        trace.writer(0)
    assert not list((small_disk / "run.zarr").rglob("*.partial"))
    assert trace.recorded.tolist() == [0]


def test_a_directory_that_is_removed_underneath(directory: Place) -> None:
    trace = directory.create(**DEFINITION)
    writer = trace.writer(0)
    writer.record({"mu": 0, "nu": [0, 0, 0]})
    shutil.rmtree(directory.path)

    def to_the_end() -> None:
        for i in range(1, 50):
            writer.record({"mu": i, "nu": [i, i, i]})

    with pytest.raises(zt.errors.TraceNotFoundError, match="removed") as caught:
        to_the_end()
    assert str(directory.path) in str(caught.value)
    writer._release()
    with pytest.raises(zt.errors.TraceNotFoundError):
        zt.open(directory.path)


def as_another_user(program: str, path: Path) -> str:
    """What a program prints when it runs as a user who owns nothing of the trace."""
    if os.getuid() == 0:
        program = program.replace("# another user", "import os; os.seteuid(65534)")
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def shared() -> Iterator[Path]:
    """A directory other users may look into; pytest's own are closed to them."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def test_a_read_only_directory(shared: Path) -> None:
    path = shared / "run.zarr"
    zt.create(path, **DEFINITION)
    everything = [path, *path.rglob("*")]
    for entry in everything:
        entry.chmod(0o555 if entry.is_dir() else 0o444)
    printed = as_another_user(
        "import sys\n"
        "import zarrtrace as zt\n"
        "# another user\n"
        "assert zt.open(sys.argv[1]).recorded.tolist() == [0, 0]\n"
        "try:\n"
        "    zt.open(sys.argv[1], 'a').writer(0)\n"
        "except zt.errors.NotWritableError as error:\n"
        "    print(error)\n",
        path,
    )
    for entry in everything:
        entry.chmod(0o755)
    assert "cannot be written" in printed


def test_a_directory_one_may_not_look_into(shared: Path) -> None:
    path = shared / "closed" / "run.zarr"
    zt.create(path, **DEFINITION)
    path.parent.chmod(0)
    printed = as_another_user(
        "import sys\n"
        "import zarrtrace as zt\n"
        "# another user\n"
        "try:\n"
        "    zt.open(sys.argv[1])\n"
        "except zt.errors.TraceNotFoundError as error:\n"
        "    print(error)\n",
        path,
    )
    path.parent.chmod(0o755)
    assert "Permission denied" in printed
    assert str(path) in printed
