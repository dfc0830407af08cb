"""Two sshfs mounts of one directory: a writer on one, readers and its successor on the other.

The number of kills is small by default: `pytest tests/promises/test_two_mounts.py --trials 1000`.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from two_mounts import can_mount, two_mounts

import zarrtrace as zt

DRAWS = 100_000
WRITER = """
import sys
import numpy as np
import zarrtrace as zt

with zt.open(sys.argv[1], mode="a").writer(0, patience=90) as writer:
    start, state = writer.resume()
    assert state is None or state == {"draw": start}, (start, state)
    print(start, flush=True)
    for draw in range(start, start + 3_000):
        writer.record({"x": np.full(40, float(draw))})
        if draw % 250 == 249:
            writer.checkpoint({"draw": draw + 1})
            print(draw + 1, flush=True)
"""


@pytest.fixture(scope="module")
def mounts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path]]:
    if not can_mount():
        pytest.skip("two mounts of one directory need sshfs, an SSH server and /dev/fuse")
    with contextlib.ExitStack() as stack:
        try:
            both = stack.enter_context(two_mounts(tmp_path_factory.mktemp("mounts")))
        except subprocess.CalledProcessError as error:
            pytest.skip(f"this machine mounts nothing: {error}")
        yield both


def wrong_and_read(path: Path) -> tuple[int, int]:
    """How many draws of a trace are wrong, and how many there are."""
    x = zt.open(path).get("x")[0]
    return int((x != np.arange(len(x))[:, None]).any(axis=1).sum()), len(x)


def checkpoint(path: Path, size: int) -> None:
    """Record another draw, with a checkpoint that is a file of its own."""
    with zt.open(path, "a").writer(0) as writer:
        writer.resume()
        writer.record({"x": np.full(40, float(writer.recorded))})
        writer.checkpoint(np.random.default_rng(1).bytes(size))


@pytest.mark.once("newest")
def test_a_checkpoint_that_arrives_without_its_end_is_read_again(
    mounts: tuple[Path, Path],
) -> None:
    here, there = (mount / "checkpoint.zarr" for mount in mounts)
    zt.create(here, chains=1, draws=DRAWS, posterior={"x": zt.Var(shape=40)}, journal="store")
    checkpoint(here, 50_000)
    # Now sshfs remembers its size, and the kernel asks it again after a second.
    assert len(zt.open(there).last_checkpoint(0)[1]) == 50_000
    checkpoint(here, 60_000)
    time.sleep(1.2)
    with zt.open(there, "a").writer(0, patience=90) as writer:
        assert writer.resume() == (2, np.random.default_rng(1).bytes(60_000))


@pytest.mark.once("newest")
@pytest.mark.parametrize("kind", ["memory", "store", "local"])
def test_kills_of_a_writer_on_the_other_mount(
    mounts: tuple[Path, Path], tmp_path: Path, kind: str, trials: int | None
) -> None:
    """No draw is wrong at any moment, and what was flushed is there after the kill."""
    journal = {"memory": False, "store": "store", "local": tmp_path}[kind]
    chooser = np.random.default_rng(17)
    name = f"{kind}.zarr"
    variable = zt.Var(shape=40, draws_per_chunk=300)
    zt.create(mounts[0] / name, chains=1, draws=DRAWS, posterior={"x": variable}, journal=journal)
    promised = looked = 0
    for trial in range(trials or 2):
        # The successor is on the other mount each time.
        here, there = mounts[trial % 2] / name, mounts[1 - trial % 2] / name
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(here)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        start = int(process.stdout.readline())
        assert start >= promised, "a checkpoint is lost"
        end = time.monotonic() + chooser.uniform(0.02, 0.5)
        # In the second trial there are draws of the first one, once this mount shows them.
        while time.monotonic() < end or (trial and not looked):
            wrong, read = wrong_and_read(there)
            assert wrong == 0
            looked += read
        process.kill()
        told, _ = process.communicate()
        promised = max([start, *map(int, told.split())])
        wrong, read = wrong_and_read(there)
        assert wrong == 0
        assert read >= promised, "a draw that was flushed is lost"
    assert looked > 0
