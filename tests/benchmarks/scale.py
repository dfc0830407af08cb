"""Runs far larger than usual: they go through, and their memory does not grow."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from timing import Row, Run, at_most, memory_of

import zarrtrace as zt


def rows(run: Run) -> Iterator[Row]:
    count = run.scaled(1_000_000, 20_000)
    half, whole = (memory_of(many_draws, run.fresh(), count, n) for n in (count // 2, count))
    yield at_most(
        5, f"{count:,} draws of 5 scalars: memory", whole - half, " MB more than half as many",
        f"{whole:.0f} MB above the start",
    )  # fmt: skip
    chains = run.scaled(10_000, 500)
    steps = run.scaled(200, 20)
    half, whole = (memory_of(many_chains, run.fresh(), chains, n) for n in (steps, 2 * steps))
    yield at_most(
        5, f"{chains:,} chains in one writer: memory", whole - half, " MB more than half the steps",
        f"{whole:.0f} MB above the start",
    )  # fmt: skip
    size = run.scaled(8_000_000, 80_000)
    half, whole = (memory_of(large_draws, run.fresh(), size, n) for n in (4, 8))
    yield at_most(
        5, f"draws of {size * 8 / 1e6:g} MB: memory", whole - half, " MB more than half as many",
        f"{whole:.0f} MB above the start",
    )  # fmt: skip


def many_draws(path: Path, room: int, count: int) -> None:
    names = list("abcde")
    trace = zt.create(path, chains=1, draws=room, posterior=dict.fromkeys(names, 0.0))
    draws = [dict.fromkeys(names, float(i)) for i in range(1000)]
    with trace.writer(0) as writer:
        for draw in itertools.islice(itertools.cycle(draws), count):
            writer.record(draw)
    trace.finish()
    _require(trace, count)


def many_chains(path: Path, chains: int, steps: int) -> None:
    trace = zt.create(
        path, chains=chains, draws=steps, chains_per_chunk=chains, posterior={"x": zt.Var(shape=5)}
    )
    values = np.random.default_rng(1).normal(size=(chains, 5))
    with trace.writer(range(chains)) as writer:
        for _ in range(steps):
            writer.record({"x": values})
    trace.finish()
    _require(trace, steps)


def large_draws(path: Path, size: int, count: int) -> None:
    trace = zt.create(path, chains=1, draws=count, posterior={"x": zt.Var(shape=size)})
    values = np.random.default_rng(1).normal(size=size)
    with trace.writer(0) as writer:
        for _ in range(count):
            writer.record({"x": values})
    trace.finish()
    _require(trace, count)


def _require(trace: zt.Trace, count: int) -> None:
    if (trace.recorded != count).any():
        raise RuntimeError(f"{trace.recorded} draws are there, not {count}")
