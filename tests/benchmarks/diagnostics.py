"""Diagnostics: the table of `az.summary`, and a variable that is larger than memory."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from timing import Row, Run, at_least, at_most, by_turns, median, memory_of, ratio

import zarrtrace as zt


def rows(run: Run) -> Iterator[Row]:
    yield from summary(run)
    yield from larger_than_memory(run)


def summary(run: Run) -> Iterator[Row]:
    import arviz as az

    for scalars in (1000, 5000):
        size, draws = run.scaled(scalars, 10), run.scaled(1000, 50)
        trace = record(run.fresh(), draws, size)
        data: Any = trace.to_inferencedata()
        with warnings.catch_warnings():
            # ArviZ imports what it needs when it is first used.
            warnings.simplefilter("ignore")
            az.summary(data, coords={"x_dim_0": [0]})
            seconds = by_turns(
                run,
                one=lambda trace=trace: _drop(trace.summary(progress=False)),
                arviz=lambda data=data: _drop(az.summary(data)),
                two=lambda trace=trace: _drop(trace.summary(progress=False, threads=2)),
            )
        what = f"summary of {scalars:,} scalars"
        detail = f"{median(seconds['one']):.1f} s, az.summary {median(seconds['arviz']):.1f} s"
        yield at_least(5, f"{what}, one thread", ratio(seconds, "arviz", "one"), " ×", detail)
        detail = f"{median(seconds['two']):.1f} s"
        yield at_least(8, f"{what}, two threads", ratio(seconds, "arviz", "two"), " ×", detail)


def larger_than_memory(run: Run) -> Iterator[Row]:
    """A tenth of the variable may be in memory.

    Transposing is measured without statistics, and those that need one pass with what they read.
    """
    size = int(run.scaled(31_250, 500) * (1 if run.small else run.gigabytes))
    place = run.fresh()
    record(place, 1000, size)
    bytes_of_variable = 4 * 1000 * size * 8
    memory = bytes_of_variable / 10
    scratch = str(run.directory)
    step = max(1, int(100 / max(1, run.gigabytes)))  # draws, of 100 MB at most
    seconds = by_turns(
        run,
        ours=lambda: transpose(place, memory, scratch),
        read=lambda: read_twice(place, step),
        moments=lambda: moments(place, memory),
    )
    megabytes = f"{bytes_of_variable / 1e6:.0f} MB in {memory / 1e6:.0f}"
    yield at_most(
        4, "transposing a variable, to reading it twice", ratio(seconds, "ours", "read"), " ×",
        f"{megabytes}, {median(seconds['ours']):.1f} s",
    )  # fmt: skip
    peak = memory_of(transpose, place, memory, scratch) * 2**20 / memory
    yield at_most(1.2, "memory of transposing, to what was allowed", peak, " ×", megabytes)
    yield at_most(
        4, "moments of a variable, to reading it twice", ratio(seconds, "moments", "read"), " ×",
        f"{megabytes}, {median(seconds['moments']):.1f} s",
    )  # fmt: skip


def record(place: Path, draws: int, size: int) -> zt.Trace:
    rng = np.random.default_rng(1)
    trace = zt.create(place, chains=4, draws=draws, posterior={"x": zt.Var(shape=size)})
    for chain in range(4):
        with trace.writer(chain) as writer:
            for _ in range(0, draws, 50):
                writer.record_block({"x": rng.normal(size=(50, size))})
    trace.finish()
    return zt.open(place)


def moments(place: Path, memory: float) -> None:
    # With the least memory the sketches of a small run would not fit.
    zt.open(place).summary(kind="moments", memory=max(memory, 3e6), progress=False)


def transpose(place: Path, memory: float, scratch: str) -> None:
    from zarrtrace.diagnostics.selection import Selection
    from zarrtrace.diagnostics.transposed import Room, read_in_slabs

    selection = Selection(zt.open(place)._now())
    room = Room(memory, scratch, lambda sentence: None)
    for _ in read_in_slabs(selection, selection.variables[0], room):
        pass


def read_twice(place: Path, step: int) -> None:
    trace = zt.open(place)
    for _ in range(2):
        for first in range(0, 1000, step):
            trace.get("x", draws=slice(first, first + step))


def _drop(_: object) -> None:
    """So that a result is freed within the time that it took."""
