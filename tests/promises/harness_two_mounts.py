"""Kill writers on one mount of a directory, and read and continue on another mount of it.

    sudo python tests/promises/harness_two_mounts.py --kills 1000

The mounts are sshfs, with caches apart like those of two machines. One trial: a process records a
chain through one mount, and gets SIGKILL at a random moment; a reader looks through the other mount
until then, and afterwards. The next writer continues there, on the mount that has not seen what
the last one wrote. Each trace has another kind of journal than the one before, and lives for 25
trials. At the end it prints how many looks there were, how many of them saw fewer draws than the
look before or were refused since the chain went back meanwhile, and how many trials found lost or
wrong draws, a trace that cannot be read, or anything else that is wrong. Mounting takes sshfs, an
SSH server and /dev/fuse.
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import shutil
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

import numpy as np

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent)]
from harness_kill import warm_up
from outcomes import KINDS, Outcomes, TrialFailed, kind_of
from two_mounts import two_mounts

import zarrtrace as zt
from zarrtrace.errors import StaleViewError

FORK = multiprocessing.get_context("fork")
JOURNALS = ("memory", "store", "local")
TRIALS_OF_A_TRACE = 25
TOTAL = 200_000
FAULT = 10  # exit code of a process that met a fault, of which the number in KINDS is added
PROMISED, DRAWS, LOOKS, FEWER, REFUSED, OPENED = range(6)  # what the processes of a trial tell


def create(path: Path, journal: Any) -> None:
    variable = zt.Var(shape=40, draws_per_chunk=300)
    zt.create(path, chains=1, draws=TOTAL, posterior={"x": variable}, journal=journal)


def record(path: Path, told: Any) -> None:
    """Record until the end, and say which draws have to survive."""
    with zt.open(path, mode="a").writer(0, patience=90) as writer:
        start, state = writer.resume()
        if state not in (None, {"draw": start}):
            raise TrialFailed("wrong", f"the checkpoint at {start} is {state}")
        if start < told[PROMISED]:
            raise TrialFailed("lost", f"it continues at {start}, {told[PROMISED]} were promised")
        told[OPENED] = 1
        for draw in range(start, TOTAL):
            writer.record({"x": np.full(40, float(draw))})
            if draw % 250 == 249:
                writer.checkpoint({"draw": draw + 1})
                told[PROMISED] = draw + 1


def look(trace: zt.Trace, told: Any, before: int) -> int:
    """Read all draws; returns how many there are."""
    x = trace.get("x")[0]
    if wrong := int((x != np.arange(len(x))[:, None]).any(axis=1).sum()):
        raise TrialFailed("wrong", f"{wrong} of {len(x)} draws")
    told[LOOKS] += 1
    told[DRAWS] += len(x)
    told[FEWER] += len(x) < before
    return len(x)


def trial(here: Path, there: Path, seed: int, told: Any) -> None:
    chooser = random.Random(seed)
    writer = FORK.Process(target=guarded, args=(record, here, told))
    writer.start()
    end = time.monotonic() + chooser.uniform(0.0, 0.8)
    held = zt.open(there) if chooser.random() < 0.5 else None
    read = 0
    try:
        while time.monotonic() < end and writer.is_alive():
            try:
                read = look(held or zt.open(there), told, read)
            except StaleViewError:
                told[REFUSED] += 1
    finally:
        writer.kill()
        writer.join()
    if writer.exitcode is not None and writer.exitcode > 0:
        sys.exit(writer.exitcode)
    read = look(held or zt.open(there), told, read)
    if read < told[PROMISED]:
        raise TrialFailed("lost", f"{read} are seen, {told[PROMISED]} were promised")


def guarded(act: Any, *arguments: Any) -> None:
    """Turn an error into an exit code of this process."""
    try:
        act(*arguments)
    except Exception as error:
        traceback.print_exc()
        sys.exit(FAULT + KINDS.index(kind_of(error)))


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument(
        "--minutes", type=float, default=float("inf"), help="end after this many minutes"
    )
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    warm_up()
    outcomes = Outcomes()
    began = printed = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mounts-") as name, two_mounts(Path(name)) as mounts:
        while outcomes.trials < given.kills and time.monotonic() < began + 60 * given.minutes:
            trace_number, turn = divmod(outcomes.trials, TRIALS_OF_A_TRACE)
            kind = JOURNALS[trace_number % len(JOURNALS)]
            trace = f"{trace_number}.zarr"
            if turn == 0:
                journal = {"memory": False, "store": "store", "local": Path(name)}[kind]
                process = FORK.Process(target=create, args=(mounts[0] / trace, journal))
                process.start()
                process.join()
                told = FORK.RawArray("q", 6)
            here, there = mounts[turn % 2] / trace, mounts[1 - turn % 2] / trace
            told[DRAWS:] = [0] * 5
            arguments = (trial, here, there, given.seed * 10**6 + outcomes.trials, told)
            with outcomes.trial(outcomes.trials):
                process = FORK.Process(target=guarded, args=arguments)
                process.start()
                process.join()
                if process.exitcode:
                    number = process.exitcode - FAULT
                    kind_of_fault = KINDS[number] if number in range(len(KINDS)) else "failed"
                    raise TrialFailed(kind_of_fault, f"{kind}: exit code {process.exitcode}")
            outcomes.seen["writers killed while they recorded"] += told[OPENED]
            outcomes.seen["looks"] += told[LOOKS]
            outcomes.seen["draws read"] += told[DRAWS]
            outcomes.seen["looks with fewer draws than before"] += told[FEWER]
            outcomes.seen["looks refused"] += told[REFUSED]
            if turn == TRIALS_OF_A_TRACE - 1:
                shutil.rmtree(Path(name) / "data" / trace)
            if time.monotonic() > printed + 60:
                print(outcomes, flush=True)
                printed = time.monotonic()
    print(outcomes)
    print(f"{(time.monotonic() - began) / outcomes.trials:.2f} s a trial")
    return outcomes.exit_code


if __name__ == "__main__":
    sys.exit(main())
