"""Watching a run: what a look costs, and whether whoever records notices it."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from timing import Row, Run, at_most, by_turns, ratio

import zarrtrace as zt
from zarrtrace.watching.watcher import Watcher


def rows(run: Run) -> Iterator[Row]:
    yield look(run)
    yield longest_look(run)
    yield caught_up(run)
    yield writer_beside_a_watcher(run)


def look(run: Run) -> Row:
    """Against reading the new draws of all scalars at once."""
    names, new = [f"v{number}" for number in range(run.scaled(400, 4))], 5
    rng = np.random.default_rng(0)
    posterior = {name: zt.Var(shape=100) for name in names}
    trace = zt.create(run.fresh(), chains=4, draws=10_000, posterior=posterior)
    writers = [trace.writer(chain) for chain in range(4)]
    count = 0

    def record(draws: int) -> None:
        nonlocal count
        for writer in writers:
            writer.record_block({name: rng.normal(size=(draws, 100)) for name in names})
        count += draws

    record(500)
    watcher = Watcher(zt.open(trace.path)._hierarchy)
    watcher.look()

    def timed_look() -> float:
        record(new)
        start = time.perf_counter()
        watcher.look()
        return time.perf_counter() - start

    def timed_read() -> float:
        start = time.perf_counter()
        trace.get(names, draws=slice(count - new, count))
        return time.perf_counter() - start

    seconds = by_turns(run, ours=timed_look, read=timed_read)
    for writer in writers:
        writer.close()
    return at_most(
        3, f"a look at {len(names) * 100:,} scalars, 4 chains, {new} new draws",
        ratio(seconds, "ours", "read"), " × reading them",
        f"{statistics.median(seconds['ours']) * 1e3:.0f} ms",
    )  # fmt: skip


def longest_look(run: Run) -> Row:
    """The longest of many looks: some compute R-hat of all scalars, and some merge blocks."""
    scalars, new = run.scaled(100_000, 100), 5
    rng = np.random.default_rng(0)
    draws = rng.normal(size=(new, scalars))
    trace = zt.create(run.fresh(), chains=4, draws=10_000, posterior={"x": zt.Var(shape=scalars)})
    writers = [trace.writer(chain) for chain in range(4)]
    watcher = Watcher(zt.open(trace.path)._hierarchy)
    seconds = []
    for number in range(run.scaled(60, 4)):
        for writer in writers:
            writer.record_block({"x": draws + rng.normal(size=(new, 1))})
        start = time.perf_counter()
        watcher.look()
        # The first looks get their memory, and wait for exact values.
        if number > 2:
            seconds.append(time.perf_counter() - start)
    for writer in writers:
        writer.close()
    return at_most(
        150, f"the longest look at {scalars:,} scalars, 4 chains, {new} new draws each",
        max(seconds) * 1e3, " ms", f"median {statistics.median(seconds) * 1e3:.0f} ms",
    )  # fmt: skip


def caught_up(run: Run) -> Row:
    scalars, draws = run.scaled(1000, 20), run.scaled(1000, 50)
    rng = np.random.default_rng(0)
    trace = zt.create(run.fresh(), chains=4, draws=draws, posterior={"x": zt.Var(shape=scalars)})
    for chain in range(4):
        with trace.writer(chain) as writer:
            writer.record_block({"x": rng.normal(size=(draws, scalars))})
    trace.finish()
    seconds = by_turns(run, ours=lambda: Watcher(zt.open(trace.path)._hierarchy).look() and None)
    return at_most(
        2, f"the first look at a finished run: {scalars:,} scalars × 4 × {draws:,}",
        statistics.median(seconds["ours"]), " s",
    )  # fmt: skip


def writer_beside_a_watcher(run: Run) -> Row:
    """Seconds that a writer takes with somebody who looks each second, over those without."""
    draws = run.scaled(200_000, 500)

    def record(is_watched: bool) -> float:
        path = run.fresh()
        trace = zt.create(path, chains=1, draws=draws, posterior={"x": zt.Var(shape=100)})
        value = {"x": np.arange(100.0)}
        with trace.writer(0) as writer:
            watching = watch(path) if is_watched else None
            start = time.perf_counter()
            for _ in range(draws):
                writer.record(value)
            seconds = time.perf_counter() - start
        if watching is not None:
            watching.communicate()
        return seconds

    seconds = by_turns(run, ours=lambda: record(True), alone=lambda: record(False))
    return at_most(
        1.02, "record() while a watcher looks each second",
        ratio(seconds, "ours", "alone"), " × alone",
    )  # fmt: skip


def watch(path: Path) -> subprocess.Popen[str]:
    """The command, when it has looked for the first time."""
    command = [sys.executable, "-m", "zarrtrace", "watch", str(path), "--plain", "--every", "1"]
    watching = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert watching.stdout is not None
    watching.stdout.readline()
    return watching
