"""What it costs to record: beside copying into arrays in RAM, zarr's own writing, and others."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import zarr
from timing import Row, Run, at_least, at_most, by_turns, forget, median, ratio

import zarrtrace as zt

SCALARS = [f"x{i}" for i in range(50)]
Draw = dict[str, Any]


def rows(run: Run) -> Iterator[Row]:
    yield from single_draws(run)
    yield from blocks_of_draws(run)
    yield from large_draws(run)
    yield longest_record(run)
    yield from many_scalars(run)
    yield from blocks_of_chains(run)
    yield four_processes(run)


def variables() -> dict[str, zt.Var]:
    return {**{name: zt.Var() for name in SCALARS}, "vector": zt.Var(shape=100)}


def some_draws(count: int) -> list[Draw]:
    rng = np.random.default_rng(1)
    return [
        {**dict(zip(SCALARS, rng.normal(size=50).tolist(), strict=True)),
         "vector": rng.normal(size=100)}
        for _ in range(count)
    ]  # fmt: skip


def record_all(trace: zt.Trace, chain: int, draws: list[Draw], count: int) -> float:
    """Seconds for that many draws, with all that is flushed, to the closed writer."""
    writer = trace.writer(chain)
    start = time.perf_counter()
    for draw in itertools.islice(itertools.cycle(draws), count):
        writer.record(draw)
    writer.close()
    return time.perf_counter() - start


def single_draws(run: Run) -> Iterator[Row]:
    count = run.scaled(10_000, 300)
    few = run.scaled(2000, 100)
    draws = some_draws(min(count, 1000))

    def ours() -> float:
        trace = zt.create(
            run.fresh(), chains=1, tune=count // 2, draws=count // 2, posterior=variables()
        )
        return record_all(trace, 0, draws, count)

    def floor() -> float:
        arrays = {name: np.zeros((count, *np.shape(draws[0][name]))) for name in draws[0]}
        start = time.perf_counter()
        for i, draw in enumerate(itertools.islice(itertools.cycle(draws), count)):
            for name, array in arrays.items():
                array[i] = draw[name]
        return time.perf_counter() - start

    def by_zarr() -> float:
        """Buffers a hundred draws, and assigns them to a chunk of each array."""
        group = zarr.open_group(run.fresh(), mode="w")
        arrays = {}
        for name, value in draws[0].items():
            shape = np.shape(value)
            arrays[name] = group.create_array(
                name, shape=(1, count, *shape), chunks=(1, 100, *shape), dtype="f8"
            )
        rows = {name: np.zeros((100, *np.shape(value))) for name, value in draws[0].items()}
        start = time.perf_counter()
        for i, draw in enumerate(itertools.islice(itertools.cycle(draws), few)):
            for name, array in rows.items():
                array[i % 100] = draw[name]
            if i % 100 == 99:
                for name, array in arrays.items():
                    array[0, i - 99 : i + 1] = rows[name]
        return (time.perf_counter() - start) * count / few

    seconds = by_turns(run, ours=ours, floor=floor, zarr=by_zarr)
    each = {name: median(times) / count * 1e6 for name, times in seconds.items()}
    what = "record: 50 scalars and a vector of 100, journal on"
    row = at_most(
        2.5, what, ratio(seconds, "ours", "floor"), "× the bare loop into RAM",
        f"{each['ours']:.1f} µs a draw, the loop {each['floor']:.1f} µs",
    )  # fmt: skip
    yield replace(row, microseconds=each)
    yield at_least(
        30, what, ratio(seconds, "zarr", "ours"), "× faster than `array[...] =` of 100 draws",
        f"zarr {each['zarr']:,.0f} µs a draw",
    )  # fmt: skip


def blocks_of_draws(run: Run) -> Iterator[Row]:
    block, blocks = 1000, run.scaled(10, 2)
    rng = np.random.default_rng(1)
    values = {name: rng.normal(size=block) for name in SCALARS}
    values["vector"] = rng.normal(size=(block, 100))

    def create() -> zt.Trace:
        return zt.create(run.fresh(), chains=1, draws=block * blocks, posterior=variables())

    chunks = {name: create().dataset("posterior")[name].encoding for name in values}
    lengths = {name: chunks[name]["preferred_chunks"]["draw"] for name in values}

    def ours() -> float:
        writer = create().writer(0)
        start = time.perf_counter()
        for _ in range(blocks):
            writer.record_block(values)
        writer.close()
        return time.perf_counter() - start

    def by_hand() -> float:
        """Copies each block, and encodes and writes each chunk, at the end those not full too."""
        place = run.fresh()
        place.mkdir()
        rows = {name: np.zeros((lengths[name], *values[name].shape[1:])) for name in values}
        codec = numcodecs.Blosc("lz4", 5, 1)
        start = time.perf_counter()
        for number in range(blocks):
            for name, value in values.items():
                length, done = lengths[name], 0
                while done < block:
                    chunk, at = divmod(number * block + done, length)
                    step = min(length - at, block - done)
                    rows[name][at : at + step] = value[done : done + step]
                    done += step
                    if at + step == length:
                        (place / f"{name}.{chunk}").write_bytes(codec.encode(rows[name]))
        for name in values:
            (place / f"{name}.last").write_bytes(codec.encode(rows[name]))
        return time.perf_counter() - start

    seconds = by_turns(run, ours=ours, by_hand=by_hand)
    yield at_most(
        1.2, "record_block: 1,000 draws of the same", ratio(seconds, "ours", "by_hand"),
        "× copying, encoding and writing them by hand",
        f"{median(seconds['ours']) / blocks * 1e3:.2f} ms a block",
    )  # fmt: skip


def large_draws(run: Run) -> Iterator[Row]:
    size, count = 100_000, run.scaled(300, 12)
    draws = np.random.default_rng(1).normal(size=(10, size))

    def ours(place: Path, **options: Any) -> float:
        posterior = {"x": zt.Var(shape=size)}
        trace = zt.create(place, chains=1, draws=count, posterior=posterior, **options)
        writer = trace.writer(0)
        start = time.perf_counter()
        for i in range(count):
            writer.record({"x": draws[i % 10]})
        writer.close()
        return time.perf_counter() - start

    def raw(place: Path) -> float:
        with open(place, "wb", buffering=0) as file:
            start = time.perf_counter()
            for i in range(count):
                file.write(draws[i % 10])
            return time.perf_counter() - start

    def raw_files(place: Path) -> float:
        """The same bytes, with a file for every five draws, as many as a chunk holds."""
        place.mkdir()
        start = time.perf_counter()
        for i in range(0, count, 5):
            with open(place / str(i), "wb", buffering=0) as file:
                for draw in draws[:5]:
                    file.write(draw)
        return time.perf_counter() - start

    def forgotten(write: Callable[..., float], **options: Any) -> Callable[[], float]:
        def measure() -> float:
            place = run.fresh()
            seconds = write(place, **options)
            forget(place)
            return seconds

        return measure

    seconds = by_turns(
        run,
        on=forgotten(ours), off=forgotten(ours, journal=False),
        uncompressed_on=forgotten(ours, compressors=None),
        uncompressed_off=forgotten(ours, compressors=None, journal=False),
        raw=forgotten(raw), files=forgotten(raw_files),
    )  # fmt: skip
    speed = {name: count * size * 8 / median(times) / 1e6 for name, times in seconds.items()}
    for journal, reach in (("on", 0.5), ("off", 0.8)):
        yield at_least(
            reach, f"draws of 100,000 float64, journal {journal}", ratio(seconds, "raw", journal),
            "× the speed of a raw write()",
            f"{speed[journal]:,.0f} MB/s, not compressed "
            f"{speed[f'uncompressed_{journal}']:,.0f} MB/s, raw {speed['raw']:,.0f} MB/s, raw into "
            f"files of a chunk {speed['files']:,.0f} MB/s",
        )  # fmt: skip


def longest_record(run: Run) -> Row:
    count = run.scaled(10_000, 300)
    names = [f"x{i}" for i in range(100)]
    draw = dict(zip(names, np.random.default_rng(1).normal(size=100).tolist(), strict=True))

    def ours() -> float:
        posterior = {name: zt.Var() for name in names}
        trace = zt.create(run.fresh(), chains=1, tune=1000, draws=count, posterior=posterior)
        longest = 0.0
        with trace.writer(0) as writer:
            for _ in range(count):
                start = time.perf_counter()
                writer.record(draw)
                longest = max(longest, time.perf_counter() - start)
        return longest

    def files() -> float:
        """As many files as one record() writes when all chunks are full."""
        places = [run.fresh() for _ in names]
        for place in places:
            place.mkdir()
        content = np.random.default_rng(1).normal(size=1000)
        start = time.perf_counter()
        for place in places:
            with open(place / "new", "wb", buffering=0) as file:
                file.write(content)
            os.replace(place / "new", place / "c.0.0")
        return time.perf_counter() - start

    seconds = by_turns(run, ours=ours, files=files)
    return at_most(
        10, "longest single record, 100 scalars", median(seconds["ours"]) * 1e3, " ms",
        f"of {count:,} draws; over all rounds {max(seconds['ours']) * 1e3:.1f} ms; the 100 files "
        f"alone {median(seconds['files']) * 1e3:.1f} ms",
    )  # fmt: skip


def many_scalars(run: Run) -> Iterator[Row]:
    """A model with a number for each of its many parts, and how many files that makes."""
    variables, chains = run.scaled(5000, 50), 4
    tune = draws = run.scaled(1000, 20) // 2
    names = [f"x{i}" for i in range(variables)]
    rng = np.random.default_rng(1)
    values = [dict(zip(names, rng.normal(size=variables).tolist(), strict=True)) for _ in range(10)]
    files: list[float] = []

    def ours() -> float:
        path = run.fresh()
        posterior = {name: zt.Var() for name in names}
        trace = zt.create(path, chains=chains, tune=tune, draws=draws, posterior=posterior)
        seconds = 0.0
        for chain in range(chains):
            writer = trace.writer(chain)
            start = time.perf_counter()
            for i in range(tune + draws):
                writer.record(values[i % 10])
            seconds += time.perf_counter() - start
            writer.close()
        written = sum(file.name.startswith("c.") for file in (path / "posterior").rglob("c.*"))
        files.append(written / variables / chains)
        return seconds / chains

    def floor() -> float:
        arrays = {name: np.zeros(tune + draws) for name in names}
        start = time.perf_counter()
        for i in range(tune + draws):
            draw = values[i % 10]
            for name, array in arrays.items():
                array[i] = draw[name]
        return time.perf_counter() - start

    seconds = by_turns(run, ours=ours, floor=floor)
    what = f"{variables:,} scalars × {chains} × {tune + draws:,}"
    each = {name: median(times) / (tune + draws) * 1e6 for name, times in seconds.items()}
    yield at_most(
        2.5, f"record: {what}", ratio(seconds, "ours", "floor"), "× the bare loop into RAM",
        f"{each['ours']:,.0f} µs a draw, the loop {each['floor']:,.0f} µs",
    )  # fmt: skip
    yield at_most(2.3, f"files: {what}", max(files), " for each variable and chain", "")


def blocks_of_chains(run: Run) -> Iterator[Row]:
    for walkers, dims, most in ((32, 10, 100), (200, 100, 300)):
        steps = run.scaled(2000, 60)
        seconds = by_turns(run, **ensemble(run, walkers, dims, steps))
        what = f"block writer, {walkers} walkers × {dims}"
        each = {name: median(times) / steps * 1e6 for name, times in seconds.items()}
        raw = each.pop("raw")
        row = at_most(
            most, what, each["ours"], " µs a step", f"a raw write() of the same bytes {raw:.0f} µs"
        )
        yield replace(row, microseconds=each)
        yield at_least(
            15, what, ratio(seconds, "emcee", "ours"), "× faster than emcee's HDFBackend",
            f"HDFBackend {each['emcee']:,.0f} µs a step",
        )  # fmt: skip


def ensemble(run: Run, walkers: int, dims: int, steps: int) -> dict[str, Callable[[], float]]:
    import emcee

    rng = np.random.default_rng(1)
    positions = rng.normal(size=(100, walkers, dims))
    log_probability = rng.normal(size=(100, walkers))
    accepted = rng.random(walkers) < 0.4

    def ours() -> float:
        trace = zt.create(
            run.fresh(), chains=walkers, draws=steps, chains_per_chunk=walkers,
            posterior={"x": zt.Var(shape=dims)},
            sample_stats={"lp": zt.Var(), "accepted": zt.Var(dtype=bool)},
        )  # fmt: skip
        writer = trace.writer(range(walkers))
        start = time.perf_counter()
        for i in range(steps):
            writer.record(
                {"x": positions[i % 100]}, {"lp": log_probability[i % 100], "accepted": accepted}
            )
        writer.close()
        return time.perf_counter() - start

    def by_emcee() -> float:
        backend = emcee.backends.HDFBackend(str(run.fresh()))
        backend.reset(walkers, dims)
        few = max(steps // 10, 1)
        backend.grow(steps, None)
        random_state = np.random.RandomState(1).get_state()
        states = [
            emcee.State(x, log_prob=lp, random_state=random_state)
            for x, lp in zip(positions, log_probability, strict=True)
        ]
        start = time.perf_counter()
        for i in range(few):
            backend.save_step(states[i % 100], accepted)
        return (time.perf_counter() - start) * steps / few

    def raw() -> float:
        parts = [[x, lp, accepted] for x, lp in zip(positions, log_probability, strict=True)]
        with open(run.fresh(), "wb", buffering=0) as file:
            start = time.perf_counter()
            for i in range(steps):
                for part in parts[i % 100]:
                    file.write(part)
            return time.perf_counter() - start

    return {"ours": ours, "emcee": by_emcee, "raw": raw}


def four_processes(run: Run) -> Row:
    context = multiprocessing.get_context("fork")
    count = run.scaled(30_000, 300)
    draws = some_draws(min(count, 1000))

    def sample(path: Path, chain: int) -> None:
        record_all(zt.open(path, mode="a"), chain, draws, count)

    def processes(chains: int) -> float:
        path = run.fresh()
        zt.create(path, chains=chains, draws=count, posterior=variables())
        started = [context.Process(target=sample, args=(path, i)) for i in range(chains)]
        start = time.perf_counter()
        for process in started:
            process.start()
        for process in started:
            process.join()
        return time.perf_counter() - start

    seconds = by_turns(run, one=lambda: processes(1), four=lambda: processes(4))
    return at_least(
        1.6, "four processes at once", 4 * ratio(seconds, "one", "four"),
        "× the draws a second of one process", f"{len(os.sched_getaffinity(0))} cores",
    )  # fmt: skip
