"""Kill writers and their parent at random moments, and look for a lost or wrong draw.

    python tests/promises/harness_kill.py --trials 2000

One trial: three chains are sampled in processes of their own, split and finished by their parent,
while a reader polls without pause. At a random moment one writer, or the parent with all of them,
gets SIGKILL. What `record()` had acknowledged must be there with its value, the trace must open in
plain xarray, and the run, taken up again (and sometimes killed again), must end as the
uninterrupted one, bit for bit.
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
from contextlib import suppress
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from zarr.errors import MetadataValidationError

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
        self.pids = FORK.RawArray("q", CHAINS)


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


def compare(trace: zt.Trace, wanted: dict[str, np.ndarray[Any, Any]]) -> str:
    """What is wrong with the draws of a trace as it stands, chain by chain; "" when nothing is."""
    for group in trace.groups:
        first = 0 if group.startswith("warmup_") else TUNE
        for chain in range(CHAINS):
            dataset = trace.dataset(group, chains=chain)
            for name, array in dataset.data_vars.items():
                found = array.values[0]
                expected = wanted[str(name)][chain, first : first + len(found)]
                if not same(found, expected):
                    return f"{group}/{name}, chain {chain}: {found!r} is not {expected!r}"
    return ""


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
                board.complaint.value = f"shrank from {previous} to {counts}".encode()
                return
            problem = compare(trace, wanted)
        except zt.TraceError as error:
            problem = "" if "went back to its checkpoint" in str(error) else repr(error)
        except Exception as error:
            problem = repr(error)
        if problem:
            board.complaint.value = f"reader: {problem}".encode()[:1999]
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
    number: int, wanted: dict[str, np.ndarray[Any, Any]], typical: float, folder: Path
) -> tuple[dict[str, int], float]:
    """Run one trial; returns what happened, and how long an undisturbed run took."""
    chooser = random.Random(number)
    path = folder / f"trial-{number}.zarr"
    create(path, number)
    board = Board()
    reader = FORK.Process(target=poll, args=(path, board, wanted))
    # It takes a core for itself.
    if number % 4 == 0:
        reader.start()
    seen: dict[str, int] = {"writer": 0, "parent": 0}
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
            seen["parent"] += parent.exitcode == -signal.SIGKILL
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
    if board.complaint.value:
        raise AssertionError(board.complaint.value.decode(errors="replace"))
    seen["writer"] = board.killed_writers.value
    seen["disturbed"] = int(seen["writer"] + seen["parent"] > 0)
    seen["reads"] = board.reads.value
    tree = xr.open_datatree(path, engine="zarr")
    for name, values in wanted.items():
        if not same(values_of(tree, name), values[:, TUNE:]):
            raise AssertionError(f"finished: {name} differs from the uninterrupted run")
    leftovers = list(path.rglob("*.partial"))
    if leftovers:
        raise AssertionError(f"left behind: {leftovers}")
    shutil.rmtree(path)
    return seen, took


def verify(path: Path, board: Board, wanted: dict[str, np.ndarray[Any, Any]]) -> None:
    """Every acknowledged draw is there, with its value; plain xarray refuses it, or is right."""
    trace = zt.open(path)
    counts, acknowledged = trace.recorded, list(board.acknowledged)
    if (counts < acknowledged).any():
        raise AssertionError(f"lost: {acknowledged} acknowledged, {counts} there")
    problem = compare(trace, wanted)
    if problem:
        raise AssertionError(problem)
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
                raise AssertionError("finished, and plain xarray refuses it")
            for name, values in wanted.items() if tree is not None else ():
                if not same(values_of(tree, name), values[:, TUNE:]):
                    raise AssertionError(f"plain xarray finds other values of {name}")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--trials", type=int, default=50)
    parser.add_argument("--first", type=int, default=0, help="number of the first trial")
    options = parser.parse_args()
    wanted = reference()
    totals: dict[str, int] = {}
    failures = 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        typical = max(trial(-1 - i, wanted, 0.0, folder)[1] for i in range(2))
        print(f"an undisturbed run takes {typical:.2f} s", flush=True)
        for number in range(options.first, options.first + options.trials):
            try:
                seen, _ = trial(number, wanted, typical, folder)
            except Exception as error:
                failures += 1
                print(f"trial {number}: {type(error).__name__}: {error}", flush=True)
                continue
            for key, value in seen.items():
                totals[key] = totals.get(key, 0) + value
    print(
        f"{options.trials} trials, {totals.get('disturbed', 0)} of them with kills "
        f"({totals.get('writer', 0)} of a writer, "
        f"{totals.get('parent', 0)} of the parent and all its writers), "
        f"{totals.get('reads', 0)} whole reads meanwhile, {failures} failed"
    )
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
