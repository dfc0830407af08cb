"""A trace of many variables, and one of many bytes: created, split, finished, opened, loaded."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import xarray as xr
from timing import Row, Run, at_least, at_most, by_turns, median, memory_of, ratio

import zarrtrace as zt


def rows(run: Run) -> Iterator[Row]:
    yield from many_variables(run)
    yield from finishing(run)


def many_variables(run: Run) -> Iterator[Row]:
    chains, tune, draws = 4, run.scaled(1000, 200), run.scaled(1000, 200)
    count = run.scaled(200, 20)
    names = [f"x{i}" for i in range(count)]
    values = np.random.default_rng(1).normal(size=tune + draws)

    def create(path: Path, draws_per_chunk: int | None = None) -> zt.Trace:
        return zt.create(
            path, chains=chains, tune=tune, draws=draws,
            posterior={name: zt.Var(draws_per_chunk=draws_per_chunk) for name in names},
        )  # fmt: skip

    def recorded(draws_per_chunk: int | None = None) -> Path:
        path = run.fresh()
        trace = create(path, draws_per_chunk)
        for chain in range(chains):
            with trace.writer(chain) as writer:
                writer.record_block(dict.fromkeys(names, values))
        trace.finish()
        return path

    ours, short = recorded(), recorded(100)
    files = sum(1 for file in ours.rglob("*") if file.is_file())
    what = f"{count} variables × {chains} chains × ({tune} + {draws}) draws"
    yield at_most(
        3, f"files of {what}", files / (count * chains), " per variable and chain",
        f"{files:,} files",
    )  # fmt: skip

    def read(path: Path, load: bool) -> None:
        tree = zt.open(path).to_datatree(save_warmup=True)
        if load:
            tree.load()

    def read_plain(path: Path, load: bool) -> None:
        with xr.open_datatree(path, engine="zarr") as tree:
            if load:
                tree.load()

    def create_one() -> None:
        create(run.fresh())

    seconds = by_turns(
        run,
        create=create_one,
        open=lambda: read(ours, False),
        plain_open=lambda: read_plain(ours, False),
        load=lambda: read(ours, True),
        short_load=lambda: read_plain(short, True),
    )
    milliseconds = {name: median(times) * 1e3 for name, times in seconds.items()}
    yield at_most(150, f"create: {what}", milliseconds["create"], " ms")
    yield at_most(
        1, "open it", ratio(seconds, "open", "plain_open"), "× xr.open_datatree",
        f"{milliseconds['open']:.0f} ms, xarray {milliseconds['plain_open']:.0f} ms",
    )  # fmt: skip
    yield at_least(
        5, "open and load all of it", ratio(seconds, "short_load", "load"),
        "× faster than the same in chunks of 100",
        f"{milliseconds['load']:.0f} ms, chunks of 100 {milliseconds['short_load']:,.0f} ms",
    )  # fmt: skip


def finishing(run: Run) -> Iterator[Row]:
    chains, tune, draws, size = 4, 1000, 1000, run.scaled(16_000, 400)
    block = np.random.default_rng(1).normal(size=(50, size))
    gigabytes = chains * (tune + draws) * size * 8 / 1e9

    def recorded(draws_per_chunk: int) -> Path:
        path = run.fresh()
        trace = zt.create(
            path, chains=chains, tune=tune, draws=draws,
            posterior={"x": zt.Var(shape=size, draws_per_chunk=draws_per_chunk)},
        )  # fmt: skip
        for chain in range(chains):
            with trace.writer(chain) as writer:
                for _ in range((tune + draws) // len(block)):
                    writer.record_block({"x": block})
        return path

    def finish(draws_per_chunk: int) -> float:
        path = recorded(draws_per_chunk)
        start = time.perf_counter()
        finish_trace(path)
        return time.perf_counter() - start

    def copy() -> float:
        path = recorded(25)
        start = time.perf_counter()
        shutil.copytree(path, run.fresh())
        return time.perf_counter() - start

    aligned, unaligned = 25, 27  # of 1000 draws of warmup
    seconds = by_turns(
        run, aligned=lambda: finish(aligned), unaligned=lambda: finish(unaligned), copy=copy
    )
    memory = {length: memory_of(finish_trace, recorded(length)) for length in (aligned, unaligned)}
    what = f"finish of {gigabytes:.2g} GB"
    yield at_most(0.3, f"{what}, aligned", median(seconds["aligned"]), " s")
    yield at_most(50, f"{what}, aligned: memory", memory[aligned], " MB above the start")
    yield at_least(
        0.3, f"{what}, not aligned", ratio(seconds, "copy", "unaligned"), "× the speed of a copy",
        f"{median(seconds['unaligned']):.2f} s, a copy {median(seconds['copy']):.2f} s",
    )  # fmt: skip
    yield at_most(100, f"{what}, not aligned: memory", memory[unaligned], " MB above the start")


def finish_trace(path: Path) -> None:
    zt.open(path, mode="a").finish()
