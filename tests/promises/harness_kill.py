"""Kill writers and their parent at random moments, and look for a lost or wrong draw.

    python tests/promises/harness_kill.py --trials 2000

One trial: three chains are sampled in processes of their own, split and finished by their parent,
while a reader polls without pause. At a random moment one writer, or the parent with all of them,
gets SIGKILL. What `record()` had acknowledged must be there with its value, the trace must open in
plain xarray, and the run, taken up again (and sometimes killed again), must end as the
uninterrupted one, bit for bit. At the end it prints how many trials and kills there were, and how
many trials found lost or wrong draws, a trace that cannot be read, or anything else that is wrong.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import warnings
from collections import Counter
from contextlib import suppress
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from zarr.errors import MetadataValidationError

sys.path.insert(0, str(Path(__file__).parents[1]))
from outcomes import KINDS, Outcomes, TrialFailed, kind_of

import zarrtrace as zt

CHAINS, TUNE, DRAWS = 3, 30, 60
TOTAL = TUNE + DRAWS
CHECKPOINT_EVERY = 13
FORK = multiprocessing.get_context("fork")

Draw = dict[str, Any]


class Walk:
    """A random walk: the smallest sampler that has a state."""

    def __init__(self, chain: int) -> None:
        self.rng = np.random.default_rng([7, chain])
        self.position = np.zeros(3)

    def step(self) -> tuple[Draw, Draw]:
        self.position = self.position + self.rng.normal(size=3)
        return (
            {
                "mu": float(self.position[0]),
                "theta": self.position.copy(),
                "steps": int(self.rng.integers(1000)),
                "label": f"at {self.position[1]:.3f}",
            },
            {"lp": float(-(self.position**2).sum()), "diverging": bool(self.rng.random() < 0.1)},
        )

    def state(self) -> dict[str, Any]:
        return {"position": self.position, "rng": self.rng.bit_generator.state}

    def restore(self, state: dict[str, Any]) -> None:
        self.position = state["position"]
        self.rng.bit_generator.state = state["rng"]


def reference() -> dict[str, np.ndarray[Any, Any]]:
    """What the uninterrupted chains draw, in memory."""
    found: dict[str, list[list[Any]]] = {}
    for chain in range(CHAINS):
        walk = Walk(chain)
        for _ in range(TOTAL):
            for values in walk.step():
                for name, value in values.items():
                    found.setdefault(name, [[] for _ in range(CHAINS)])[chain].append(value)
    return {name: np.array(values) for name, values in found.items()}


def create(path: Path, seed: int) -> zt.Trace:
    chooser = random.Random(seed)
    length = chooser.choice([5, 7, 20, TUNE])
    return zt.create(
        path,
        chains=CHAINS,
        tune=TUNE,
        draws=DRAWS,
        posterior={
            "mu": zt.Var(draws_per_chunk=length),
            "theta": zt.Var(shape=3, draws_per_chunk=chooser.choice([4, 10, TOTAL])),
            "steps": zt.Var(dtype="int16", draws_per_chunk=length),
            "label": zt.Var(dtype=str, draws_per_chunk=chooser.choice([6, 30])),
        },
        sample_stats={"lp": zt.Var(), "diverging": zt.Var(dtype=bool)},
    )


class Board:
    """What the processes of a trial tell each other, in memory that outlives them."""

    def __init__(self) -> None:
        # For each chain: acknowledged draws, draws at the last completed checkpoint, how often a
        # resume began, and which of these times was the last one that ended.
        self.acknowledged = FORK.RawArray("q", CHAINS)
        self.checkpointed = FORK.RawArray("q", CHAINS)
        self.resumes_begun = FORK.RawArray("q", CHAINS)
        self.resumes_ended = FORK.RawArray("q", CHAINS)
        self.killed_writers = FORK.RawValue("q", 0)
        self.reads = FORK.RawValue("q", 0)
        self.stop = FORK.RawValue("b", 0)
        self.complaint = FORK.RawArray("c", 2000)
        self.kind_of_complaint = FORK.RawValue("b", 0)
        self.pids = FORK.RawArray("q", CHAINS)

    def complain(self, error: Exception) -> None:
        self.kind_of_complaint.value = KINDS.index(kind_of(error))
        self.complaint.value = f"reader: {error!r}".encode()[:1999]

    def require_no_complaint(self) -> None:
        if self.complaint.value:
            why = self.complaint.value.decode(errors="replace")
            raise TrialFailed(KINDS[self.kind_of_complaint.value], why)


def record_chain(path: Path, chain: int, board: Board) -> None:
    board.pids[chain] = os.getpid()
    trace = zt.open(path, "a")
    walk = Walk(chain)
    with trace.writer(chain) as writer:
        # A kill inside resume() may come before or after it goes back to the checkpoint.
        board.acknowledged[chain] = min(board.acknowledged[chain], board.checkpointed[chain])
        board.resumes_begun[chain] += 1
        start, state = writer.resume()
        board.resumes_ended[chain] = board.resumes_begun[chain]
        if state is None:
            for _ in range(start):
                walk.step()
        else:
            walk.restore(state)
        board.acknowledged[chain] = start
        for i in range(start, TOTAL):
            writer.record(*walk.step())
            board.acknowledged[chain] = i + 1
            if (i + 1) % CHECKPOINT_EVERY == 0:
                writer.checkpoint(walk.state())
                board.checkpointed[chain] = i + 1


def run_parent(path: Path, board: Board) -> None:
    os.setpgid(0, 0)
    trace = zt.open(path, "a")
    writers = [
        FORK.Process(target=record_chain, args=(path, chain, board))
        for chain in range(CHAINS)
        if trace.recorded[chain] < TOTAL
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
        board.killed_writers.value += writer.exitcode == -signal.SIGKILL
    if (trace.recorded == TOTAL).all():
        trace.split_warmup()
        trace.finish()


def values_of(tree: Any, name: str) -> np.ndarray[Any, Any]:
    group = "sample_stats" if name in ("lp", "diverging") else "posterior"
    return np.asarray(tree[group][name].values)


def same(found: np.ndarray[Any, Any], wanted: np.ndarray[Any, Any]) -> bool:
    if found.shape != wanted.shape:
        return False
    if wanted.dtype.kind in "UT":
        return found.tolist() == wanted.tolist()
    return bool(np.array_equal(found, wanted))


def compare(trace: zt.Trace, wanted: dict[str, np.ndarray[Any, Any]]) -> None:
    """Compare the draws of a trace as it stands, chain by chain."""
    for group in trace.groups:
        first = 0 if group.startswith("warmup_") else TUNE
        for chain in range(CHAINS):
            dataset = trace.dataset(group, chains=chain)
            for name, array in dataset.data_vars.items():
                found = array.values[0]
                expected = wanted[str(name)][chain, first : first + len(found)]
                if not same(found, expected):
                    why = f"{group}/{name}, chain {chain}: {found!r} is not {expected!r}"
                    raise TrialFailed("wrong", why)


def poll(path: Path, board: Board, wanted: dict[str, np.ndarray[Any, Any]]) -> None:
    """Read the trace again and again until told to stop."""
    previous, ended_before = np.zeros(CHAINS, np.int64), [0] * CHAINS
    while not board.stop.value:
        ended = list(board.resumes_ended)
        try:
            trace = zt.open(path)
            counts = trace.recorded
            # A chain goes back to its checkpoint while it is resumed, and at no other time: from
            # before the last look until after this one no resume of it may have been under way.
            not_resumed = np.array(ended_before) == np.array(board.resumes_begun)
            if (not_resumed & (counts < previous)).any():
                raise TrialFailed("lost", f"shrank from {previous} to {counts}")
            compare(trace, wanted)
        except zt.errors.StaleViewError:
            pass  # the chain went back to its checkpoint
        except Exception as error:
            board.complain(error)
            return
        previous, ended_before = counts, ended
        board.reads.value += 1


def kill(parent: BaseProcess, board: Board, chooser: random.Random) -> None:
    """Send SIGKILL to one writer, or to the parent and all it has started, unless it has ended."""
    assert parent.pid is not None
    pids = [pid for pid in board.pids if pid]
    with suppress(ProcessLookupError):
        if pids and chooser.random() < 0.6:
            os.kill(chooser.choice(pids), signal.SIGKILL)
        else:
            os.killpg(parent.pid, signal.SIGKILL)


def trial(
    number: int,
    wanted: dict[str, np.ndarray[Any, Any]],
    typical: float,
    folder: Path,
    seen: Counter[str],
) -> float:
    """Run one trial, and count what happened in `seen`; returns how long the last run took."""
    chooser = random.Random(number)
    path = folder / f"trial-{number}.zarr"
    create(path, number)
    board = Board()
    reader = FORK.Process(target=poll, args=(path, board, wanted))
    # It takes a core for itself.
    if number % 4 == 0:
        reader.start()
    parents = 0
    kills = 0 if typical == 0 else chooser.choice([1, 1, 1, 2, 3])
    took = 0.0
    try:
        for attempt in range(kills + 5):
            for chain in range(CHAINS):
                board.pids[chain] = 0
            began = time.perf_counter()
            parent = FORK.Process(target=run_parent, args=(path, board))
            parent.start()
            if attempt < kills:
                time.sleep(chooser.uniform(0, typical * 1.1))
                kill(parent, board, chooser)
            parent.join()
            # What was really killed, and had not just ended.
            parents += parent.exitcode == -signal.SIGKILL
            took = time.perf_counter() - began
            verify(path, board, wanted)
            if zt.open(path).finished:
                break
        else:
            raise AssertionError("the run never ended")
    finally:
        board.stop.value = 1
        if number % 4 == 0:
            reader.join()
        writers = board.killed_writers.value
        seen.update({
            "of them with kills": int(writers + parents > 0),
            "kills of a writer": writers,
            "kills of the parent and all its writers": parents,
            "whole reads meanwhile": board.reads.value,
        })  # fmt: skip
    board.require_no_complaint()
    tree = xr.open_datatree(path, engine="zarr")
    for name, values in wanted.items():
        if not same(values_of(tree, name), values[:, TUNE:]):
            raise TrialFailed("wrong", f"finished: {name} differs from the uninterrupted run")
    leftovers = list(path.rglob("*.partial"))
    if leftovers:
        raise AssertionError(f"left behind: {leftovers}")
    shutil.rmtree(path)
    return took


def verify(path: Path, board: Board, wanted: dict[str, np.ndarray[Any, Any]]) -> None:
    """Every acknowledged draw is there, with its value; plain xarray refuses it, or is right."""
    trace = zt.open(path)
    counts, acknowledged = trace.recorded, list(board.acknowledged)
    if (counts < acknowledged).any():
        raise TrialFailed("lost", f"{acknowledged} acknowledged, {counts} there")
    compare(trace, wanted)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        for consolidated in (None, False):
            try:
                tree = xr.open_datatree(path, engine="zarr", consolidated=consolidated)
            except MetadataValidationError as error:
                if "zarrtrace_unfinished" not in str(error):
                    raise
                tree = None
            if trace.finished and tree is None:
                raise TrialFailed("unreadable", "finished, and plain xarray refuses it")
            for name, values in wanted.items() if tree is not None else ():
                if not same(values_of(tree, name), values[:, TUNE:]):
                    raise TrialFailed("wrong", f"plain xarray finds other values of {name}")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--trials", type=int, default=50)
    parser.add_argument("--first", type=int, default=0, help="number of the first trial")
    options = parser.parse_args()
    wanted = reference()
    outcomes = Outcomes()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        typical = max(trial(-1 - i, wanted, 0.0, folder, Counter()) for i in range(2))
        print(f"an undisturbed run takes {typical:.2f} s", flush=True)
        for number in range(options.first, options.first + options.trials):
            with outcomes.trial(number):
                trial(number, wanted, typical, folder, outcomes.seen)
    print(outcomes)
    return outcomes.exit_code


if __name__ == "__main__":
    sys.exit(main())
