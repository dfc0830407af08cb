"""Many variables: the last draws of all of them, and whether each costs what one of few does."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator

import dask.array  # noqa: F401 - xarray imports it at the first look
import numpy as np
import xarray  # noqa: F401
from timing import Row, Run, at_most, by_turns, ratio

import zarrtrace as zt
from zarrtrace.sampling_state.journal_format import row_layouts


def rows(run: Run) -> Iterator[Row]:
    yield last_draws(run)
    yield from each_costs_the_same(run)


def last_draws(run: Run) -> Row:
    """Against the system's reads of the same bytes, those of each variable and chain."""
    count, last = run.scaled(500, 50), 20
    names = [f"v{number}" for number in range(count)]
    path = run.fresh()
    trace = zt.create(path, chains=4, draws=1000, posterior={name: zt.Var() for name in names})
    writers = [trace.writer(chain) for chain in range(4)]
    for writer in writers:
        writer.record_block(dict.fromkeys(names, np.arange(900.0)))
    layout, length = trace._layout, trace._layout.variables[0].draws_per_chunk
    row = (900 - last) % length
    places = [
        rows.columns[label] + row * rows.stride for label, rows in row_layouts(layout)[0].items()
    ]

    def system() -> None:
        for chain in range(4):
            file = trace._block(chain).journal_file
            assert file is not None
            descriptor = os.open(file, os.O_RDONLY)
            for place in places:
                os.pread(descriptor, last * 8, place)
            os.close(descriptor)

    def ours() -> None:
        trace.get(names, draws=slice(-last, None))

    seconds = by_turns(run, ours=ours, system=system)
    for writer in writers:
        writer.close()
    return at_most(
        5, f"the last {last} draws of {count} scalars, 4 chains running",
        ratio(seconds, "ours", "system"), " × os.pread",
        f"{statistics.median(seconds['ours']) * 1e3:.0f} ms",
    )  # fmt: skip


def each_costs_the_same(run: Run) -> Iterator[Row]:
    few, many = run.scaled(500, 20), run.scaled(5000, 200)
    life(run, 5)  # what is imported at the first use
    small, large = [], []
    for _ in range(run.rounds):
        small.append(life(run, few))
        large.append(life(run, many))
    for what in small[0]:
        pairs = [after[what] / before[what] for before, after in zip(small, large, strict=True)]
        yield at_most(
            12, f"{what} of {many} scalars: processor time", statistics.median(pairs),
            f" × that of {few}", f"{statistics.median(one[what] for one in large):.2f} s",
        )  # fmt: skip


def life(run: Run, count: int) -> dict[str, float]:
    """Seconds of the processor that the parts of a trace's life take."""
    path = run.fresh()
    names = [f"v{number}" for number in range(count)]
    seconds: dict[str, float] = {}

    def timed(what: str, action: Callable[[], object]) -> None:
        start = time.process_time()
        action()
        seconds[what] = time.process_time() - start

    timed(
        "create()",
        lambda: zt.create(path, chains=2, draws=20, posterior={name: zt.Var() for name in names}),
    )
    timed("open()", lambda: zt.open(path))
    trace = zt.open(path, "a")
    for chain in range(2):
        with trace.writer(chain) as writer:
            writer.record_block(dict.fromkeys(names, np.arange(20.0)))
    timed("finish()", trace.finish)
    timed("posterior.load()", lambda: zt.open(path).posterior.load())
    return seconds
