"""Epochs of jexplore: ingested, and read again, beside its own files of HDF5."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from timing import Row, Run, at_most, by_turns, forget, median, ratio


def rows(run: Run) -> Iterator[Row]:
    # It needs Python 3.13.
    if importlib.util.find_spec("jexplore") is not None:
        yield from epochs(run, 64, 10, 100, run.scaled(100, 3))
        yield from epochs(run, 200, 50, 500, run.scaled(30, 2))


def epochs(run: Run, chains: int, dims: int, draws: int, count: int) -> Iterator[Row]:
    from jexplore.backends.default import DefaultBackend as Original

    from zarrtrace.adapters.jexplore import DefaultBackend

    epoch = like_a_samplers(chains, dims, draws)
    reading: dict[str, list[float]] = {"ours": [], "files": []}

    def ours() -> float:
        place = run.fresh()
        start = time.perf_counter()
        with DefaultBackend(outdir=place) as backend:
            for _ in range(count):
                backend.ingest(epoch)
        seconds = time.perf_counter() - start
        reading["ours"].append(seconds_to_read(DefaultBackend(outdir=place)))
        forget(place)
        return seconds

    def files() -> float:
        place: Path = run.fresh()
        backend = Original(outdir=str(place))
        start = time.perf_counter()
        for _ in range(count):
            backend.ingest(epoch)
        seconds = time.perf_counter() - start
        reading["files"].append(seconds_to_read(backend))
        forget(place)
        return seconds

    seconds = by_turns(run, ours=ours, files=files)
    size = f"{count} epochs of {chains} chains × {dims} × {draws} draws"
    for what, found in (("ingest", seconds), ("get_samples", reading)):
        each = {name: median(times) / count * 1e3 for name, times in found.items()}
        yield at_most(
            1, f"jexplore, {what}: {size}", ratio(found, "ours", "files"), "× its files",
            f"{each['ours']:.3g} ms an epoch, its files {each['files']:.3g} ms",
        )  # fmt: skip


def seconds_to_read(backend: Any) -> float:
    start = time.perf_counter()
    backend.get_samples(pars=["p", "ll", "lp"])
    return time.perf_counter() - start


def like_a_samplers(chains: int, dims: int, draws: int) -> dict[str, Any]:
    """An epoch of random walks that moved three times in ten: the rest are repetitions."""
    rng = np.random.default_rng(1)
    moved = rng.random((chains, 1, draws)) < 0.3
    latest = np.maximum.accumulate(np.where(moved, np.arange(draws), 0), axis=2)
    positions = rng.normal(size=(chains, dims, draws)).cumsum(axis=2)
    samples = {"p": np.take_along_axis(positions, latest, axis=2)}
    for name in ("ll", "lp"):
        samples[name] = np.take_along_axis(rng.normal(size=(chains, 1, draws)), latest, axis=2)
    fields = [("name", "S50"), ("incycle", "i8"), ("weight", "f8")]
    return {
        "samples": {name: values.astype("float32") for name, values in samples.items()},
        "covs": rng.normal(size=(chains, dims, dims)).astype("float32"),
        "cycle": np.array([("step", 0, 1.0)], fields),
        "sampling": {
            "class": "jexplore.sampling.mh.SamplingMH",
            "temps": np.ones(1, "float32"),
            "nchain": np.int64(chains),
        },
        "stats": {
            "steps": np.zeros(draws, "int32"),
            "counts": np.ones(1, "float32"),
            "stats": np.ones((1, chains), "float32"),
        },
        "class": "jexplore.sampling.mh.EpochMH",
    }
