"""Power loss: a disk as it is at a moment at which nobody has had time to write anything back.

    sudo python tests/promises/harness_power.py --trials 200

One trial: a trace is recorded on a file system of its own, in a file that is mounted. At a random
moment the process that records is stopped and the file copied, without a sync: it has what had
reached the disk. What is found in the copy, after a restart of the machine as it seems, must be
right. With durability="disk" it has at least the draws below the last checkpoint or flush; and the
run must be able to continue there. At the end it prints how many runs were stopped before their
end, and how many trials found lost or wrong draws, a trace that cannot be read, or anything else
that is wrong. Mounting takes root and Linux.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from harness_copy import TOTAL, check, continue_run, create, lacking_journals, values_of
from outcomes import KINDS, Outcomes, TrialFailed, kind_of

import zarrtrace as zt
from zarrtrace.sampling_state import claim, journal_header

FORK = multiprocessing.get_context("fork")
# Exit codes of the process that looks: it met damage where there may be some, or a fault, of which
# the number in KINDS is added.
NAMED, FAULT = 3, 10
ENDED = 10**6  # in place of a count: the trace is finished


@contextmanager
def mounted(image: Path, place: Path) -> Iterator[Path]:
    place.mkdir(exist_ok=True)
    call("mount", "-o", "loop", image, place)
    try:
        yield place
    finally:
        call("umount", place)


def call(*command: str | Path) -> None:
    """Call a tool, without which there is no trial."""
    if code := subprocess.run(command).returncode:
        sys.exit(f"{command[0]} ended with {code}: the harness takes root, and loop devices")


def record(path: Path, seed: int, durable: Any) -> None:
    """Record all chains, and say in `durable` which draws have to survive."""
    chooser = random.Random(seed)
    trace = zt.open(path, "a")
    writers = {number: trace.writer(chains) for number, chains in enumerate(trace.blocks)}
    for writer in writers.values():
        writer.resume()
    while any(writer.recorded < TOTAL for writer in writers.values()):
        number = chooser.choice([n for n, writer in writers.items() if writer.recorded < TOTAL])
        writer = writers[number]
        writer.record(**values_of(writer.chains, writer.recorded))
        do = chooser.random()
        if do < 0.1:
            writer.checkpoint({"draw": writer.recorded, "more": "x" * chooser.choice([1, 9000])})
        elif do < 0.15:
            writer.flush()
        if do < 0.15:
            durable[number] = writer.recorded
        if do > 0.98:
            os.sync()  # what others on the machine do
        time.sleep(0.001)
    for number, writer in writers.items():
        writer.close()
        durable[number] = TOTAL
    if chooser.random() < 0.5:
        trace.split_warmup(chooser.randrange(TOTAL // 2))
    trace.finish()
    durable[0] = ENDED


def restart() -> None:
    """Have this process find itself on a machine that was started again."""
    again = uuid.uuid4()
    journal_header.boot_id = lambda: again.bytes  # type: ignore[assignment]
    claim._boot_id = lambda: str(again)  # type: ignore[assignment]


def verify(path: Path, acknowledged: list[int]) -> None:
    restart()
    trace = zt.open(path)
    is_durable = trace._layout.durable
    if is_durable and acknowledged[0] == ENDED and not trace.finished:
        raise TrialFailed("lost", "it was finished")
    lacking = lacking_journals(path) if not trace.finished else []
    for chain in lacking:
        # Nothing says which of its draws are there: right, or an error.
        with suppress(zt.errors.DamagedTraceError):
            check(path, but=[other for other in range(trace.chains) if other != chain])
    counts = check(path, but=lacking)
    for number, chains in enumerate(trace.blocks):
        first = chains if isinstance(chains, int) else chains[0]
        least = min(acknowledged[number], TOTAL)
        if is_durable and counts[first] < least:
            raise TrialFailed("lost", f"{counts} there, {acknowledged} acknowledged")
    if not trace.finished and not lacking:
        continue_run(path)


def verify_or_name(path: Path, acknowledged: list[int]) -> None:
    """As `verify`; where nothing was to survive power loss, an error may name what is damaged."""
    try:
        verify(path, acknowledged)
    except Exception as error:
        if isinstance(error, zt.errors.DamagedTraceError) and not zt.open(path)._layout.durable:
            sys.exit(NAMED)
        traceback.print_exc()
        sys.exit(FAULT + KINDS.index(kind_of(error)))


def trial(seed: int, folder: Path, seen: Counter[str]) -> None:
    """One trial; counts what it met."""
    chooser = random.Random(seed)
    image, copy = folder / "disk", folder / "copy"
    call("truncate", "-s", "24M", image)
    call("mkfs.ext4", "-q", "-F", image)
    durable = FORK.RawArray("q", 8)
    with mounted(image, folder / "mounted") as place:
        create(place / "run.zarr", chooser)
        # The trace itself has to be there.
        os.sync()
        process = FORK.Process(target=record, args=(place / "run.zarr", seed, durable))
        process.start()
        assert process.pid is not None
        process.join(chooser.uniform(0, 2.5))
        stopped = process.is_alive()
        if stopped:
            os.kill(process.pid, signal.SIGSTOP)
        acknowledged = list(durable)
        shutil.copyfile(image, copy)
        process.kill()
        process.join()
    with mounted(copy, folder / "mounted") as place:
        process = FORK.Process(target=verify_or_name, args=(place / "run.zarr", acknowledged))
        process.start()
        process.join()
    seen.update({
        "runs that were stopped": int(stopped),
        "draws acknowledged": sum(min(count, TOTAL) for count in acknowledged),
        "errors that named damage": int(process.exitcode == NAMED),
    })  # fmt: skip
    if process.exitcode not in (0, NAMED):
        fault = (process.exitcode or 0) - FAULT
        kind = KINDS[fault] if fault in range(len(KINDS)) else "failed"
        raise TrialFailed(kind, f"{acknowledged} were acknowledged")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    outcomes = Outcomes()
    for seed in range(options.seed, options.seed + options.trials):
        with tempfile.TemporaryDirectory() as folder, outcomes.trial(seed):
            trial(seed, Path(folder), outcomes.seen)
    print(outcomes)
    # Long before half of the time that a trial has at most, a run has not ended.
    assert outcomes.seen["runs that were stopped"] >= options.trials / 5
    return outcomes.exit_code


if __name__ == "__main__":
    sys.exit(main())
