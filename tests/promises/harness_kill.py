"""Kill processes at random moments of the life of a trace, and look for a lost or wrong draw.

    python tests/promises/harness_kill.py --trials 1000

One trial is the life of a trace, in some dozen parts. In each part up to three processes record
chains at once, while another one extends the run, drops draws, replaces groups or appends to a
table, and a reader reads; or one process splits, finishes, extends, repairs or overwrites the
trace. In every second part the operation that was interrupted least often so far is aimed at. One
of the processes, or all of them, get SIGKILL: at a random moment, or at a random system
call. So may those that take up what was interrupted. After each kill the trace is opened, and all
that was acknowledged must be there with its value: draws, checkpoints, groups, rows of tables.
Then `check()` must find nothing wrong. At the end of the life all that is missing is recorded, and
plain xarray must read the finished trace. Each minute, and at the end, it prints how many trials
and kills there were, during which operations, and how many trials found lost or wrong draws, a
trace that cannot be read, or anything else that is wrong.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import importlib.metadata
import os
import pkgutil
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import xarray as xr

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent)]
import killed_verdict as verdict
from killed_at_random import Death, Stop, ended, fork, kill
from killed_board import BLOCKS, COUNTED, IDLE, NEVER, Board, Plan
from killed_lives import CHOICES, Actor
from outcomes import KINDS, Outcomes, TrialFailed, kind_of

import zarrtrace

PARTS = 14  # of a life

Part = Callable[[Stop], None]


def warm_up() -> None:
    """Import what the processes need, so that each is forked with it; no thread may run by then."""
    for package in ("layout", "life", "reading", "recording", "sampling_state", "tables"):
        for module in pkgutil.iter_modules([str(Path(zarrtrace.__path__[0]) / package)]):
            importlib.import_module(f"zarrtrace.{package}.{module.name}")
    importlib.import_module("multiprocessing.synchronize")
    importlib.metadata.version("xarray")
    xr.backends.list_engines()
    dataset = xr.Dataset({"a": ("x", np.zeros(2))})
    xr.DataTree.from_dict({"a": dataset})
    repr(dataset.a.values)
    # Objects that live for ever are left alone, so that the memory of a fork stays shared.
    gc.collect()
    gc.freeze()


class Life:
    """One trial: the parts of the life of one trace, and what is seen in them."""

    def __init__(self, number: int, folder: Path, seen: Counter[str]) -> None:
        self.number, self.path, self.seen = number, folder / "run.zarr", seen
        self.chooser, self.board, self.part = random.Random(number), Board(), 0
        self.aim = ""

    def live(self) -> None:
        for self.part in range(1, PARTS + 1):
            processes = self.choose_processes()
            killed = self.run(*processes)
            while killed and self.chooser.random() < 0.4:
                self.judge()
                self.aim = ""
                killed = self.run(self.actor("recover", 0))
            self.judge(settle=True, in_xarray=self.part % 5 == 0)
        self.run(self.actor("complete", 0), spare=True)
        self.judge(settle=True, in_xarray=True)

    def choose_processes(self) -> list[Part]:
        generation = self.board.value("generation")
        self.aim = self.choose_aim()
        if self.aim in CHOICES or self.aim == "create":
            keeper = self.actor("keep_house", BLOCKS, 3, self.aim, alone=True)
            return [keeper]
        alone = generation < 0 or self.board.value("finished") or self.chooser.random() < 0.4
        if alone:
            return [self.actor("keep_house", BLOCKS, self.chooser.randrange(1, 6), alone=True)]
        blocks = Plan(self.number, generation).blocks
        chosen = sorted(self.chooser.sample(range(blocks), self.chooser.randint(1, blocks)))
        keeps_house = self.chooser.random() < 0.3
        parts = [
            self.actor(
                "record_chain", block, block, self.chooser.randrange(3, 40), alone=not keeps_house
            )
            for block in chosen
        ]
        if keeps_house:
            steps = self.chooser.randrange(1, 4)
            parts.append(self.actor("keep_house", BLOCKS, steps, alone=False))
        if self.chooser.random() < 0.1:
            parts.append(self.reader())
        return parts

    def choose_aim(self) -> str:
        """The operation that was interrupted least often; in half of the parts none is aimed at."""
        if self.board.value("generation") == NEVER:
            return "create"
        if self.chooser.random() < 0.5:
            return ""
        return min(CHOICES, key=lambda operation: self.seen[f"in {operation}"])

    def actor(self, name: str, slot: int, *values: int | str, **options: bool) -> Part:
        seed = f"{self.number} {self.part} {self.chooser.random()}"

        def act(stop: Stop) -> None:
            actor = Actor(self.path, self.board, seed, slot, self.part, stop)
            getattr(actor, name)(*values, **options)

        return act

    def reader(self) -> Part:
        return lambda stop: verdict.read_meanwhile(self.path, self.number, self.board, 0.2)

    def run(self, *parts: Part, spare: bool = False) -> bool:
        """Run parts at once, each in a process, and kill one or all; returns whether any died."""
        chooser = self.chooser
        calls = chooser.random() < 0.6
        death = Death(
            0 if self.aim else chooser.choice([0, 0, 1, 2, 3, 5, 8, 13]),
            calls=int(2 ** chooser.uniform(0, 10.5)) if calls else 0,
            seconds=2 ** chooser.uniform(-13, -3),
            operation=self.aim,
        )
        victim, kills_all = chooser.randrange(len(parts)), chooser.random() < 0.4
        self.board.operation[:] = 0
        # Those that are not watched begin while the one that is waits.
        processes = [
            fork(self.guarded(part), death if i == victim and not spare else None)
            for i, part in enumerate(parts)
        ]
        if not spare:
            kill(processes[victim], death)
        if kills_all and not spare:
            for process in processes[:victim] + processes[victim + 1 :]:
                os.kill(process, signal.SIGKILL)
        codes = [ended(process) for process in processes]
        kills = codes.count(-signal.SIGKILL)
        if self.board.complaint:
            kind, why = self.board.complaint.split(" ", 1)
            raise TrialFailed(KINDS[int(kind)], f"part {self.part}: {why}")
        if any(code not in (0, -signal.SIGKILL) for code in codes):
            raise TrialFailed("failed", f"part {self.part}: processes ended with {codes}")
        self.count(kills, calls)
        return kills > 0

    def count(self, kills: int, calls: bool) -> None:
        self.seen["kills"] += kills
        if kills:
            self.seen["kills at a system call"] += calls
            interrupted = [self.board.done(slot) for slot in range(BLOCKS + 1)]
            for operation in interrupted:
                if operation != IDLE:
                    self.seen[f"in {operation}"] += 1

    def guarded(self, part: Part) -> Part:
        def act(stop: Stop) -> None:
            warnings.simplefilter("ignore")
            try:
                part(stop)
            except Exception as error:
                text = "".join(traceback.format_exception(error)[-6:])
                self.board.complain(f"{KINDS.index(kind_of(error))} {error!r}\n{text}")

        return act

    def judge(self, *, settle: bool = False, in_xarray: bool = False) -> None:
        """Look at the trace as a reader; with `settle`, then also as whoever continues."""

        def act(stop: Stop) -> None:
            for settles in (False, True)[: 1 + settle]:
                verdict.judge(
                    self.path, self.number, self.board, settle=settles, in_xarray=in_xarray
                )

        code = ended(fork(self.guarded(act)))
        if self.board.complaint:
            kind, why = self.board.complaint.split(" ", 1)
            raise TrialFailed(KINDS[int(kind)], f"part {self.part}, seen afterwards: {why}")
        if code:
            raise TrialFailed("failed", f"part {self.part}: the one who looks ended with {code}")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--trials", type=int, default=50)
    parser.add_argument("--kills", type=int, default=0, help="go on until there were so many")
    parser.add_argument("--first", type=int, default=0, help="number of the first trial")
    parser.add_argument("--keep", type=Path, help="a directory for the traces of failed trials")
    options = parser.parse_args()
    warm_up()
    outcomes = Outcomes()
    number, printed = options.first, time.monotonic()
    while outcomes.trials < options.trials or outcomes.seen["kills"] < options.kills:
        with tempfile.TemporaryDirectory() as folder, outcomes.trial(number):
            life = Life(number, Path(folder), outcomes.seen)
            try:
                life.live()
            except TrialFailed:
                if options.keep:
                    shutil.copytree(folder, options.keep / f"trial-{number}")
                raise
            finally:
                for what, many in zip(COUNTED, life.board.counted, strict=True):
                    outcomes.seen[what] += int(many)
        number += 1
        if time.monotonic() > printed + 60:
            print(outcomes, flush=True)
            printed = time.monotonic()
    print(outcomes)
    return outcomes.exit_code


if __name__ == "__main__":
    sys.exit(main())
