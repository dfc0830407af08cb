"""The data sets of StoreGate: a million samples put on the disk, and random batches of them."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
from timing import Row, Run, at_most, by_turns, median

from zarrtrace.adapters.storegate.samples import DataSet

BATCH = 128


def rows(run: Run) -> Iterator[Row]:
    """1 M × 10 float32, as the data of a classifier are."""
    values = np.random.default_rng(1).normal(size=(run.scaled(1_000_000, 20_000), 10))
    values = values.astype("float32")
    place = run.fresh()
    data = DataSet(place)
    data.add("x", values)
    rng = np.random.default_rng(2)

    def add() -> float:
        new = DataSet(run.fresh())
        start = time.perf_counter()
        new.add("x", values)
        return time.perf_counter() - start

    def batches(data: DataSet, number: int) -> float:
        asked = rng.integers(len(values), size=(number, BATCH))
        start = time.perf_counter()
        for index in asked:
            data.get("x", index)
        return (time.perf_counter() - start) / number

    def write() -> None:
        run.fresh().write_bytes(values.tobytes())

    def whole() -> None:
        data.get("x")

    seconds = by_turns(
        run,
        add=add,
        write=write,
        first=lambda: batches(DataSet(place, "r"), 1),
        batch=lambda: batches(data, 50),
        whole=whole,
    )
    size = values.nbytes / 1e6
    yield at_most(
        100, f"add {len(values):,} × 10 float32", median(seconds["add"]) * 1e3, " ms",
        f"writing the {size:.0f} MB as they are {median(seconds['write']) * 1e3:.0f} ms",
    )  # fmt: skip
    yield at_most(
        6.3, f"a random batch of {BATCH} of them", median(seconds["batch"]) * 1e3, " ms",
        f"the first {median(seconds['first']) * 1e3:.1f} ms; all of them "
        f"{median(seconds['whole']) * 1e3:.0f} ms",
    )  # fmt: skip
