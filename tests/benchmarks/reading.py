"""Reading: a variable of 64 MB, every tenth draw of it, and the import."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numcodecs
import numpy as np
from timing import Row, Run, at_least, at_most, by_turns, median, memory_of, ratio

import zarrtrace as zt


def rows(run: Run) -> Iterator[Row]:
    yield from one_variable(run)
    yield importing(run)


def one_variable(run: Run) -> Iterator[Row]:
    chains, draws, size = 4, 2000, run.scaled(1000, 50)
    values = np.random.default_rng(1).normal(size=(chains, draws, size))
    path, file = run.fresh(), run.fresh().with_suffix(".npy")
    trace = zt.create(path, chains=chains, draws=draws, posterior={"x": zt.Var(shape=size)})
    for chain in range(chains):
        with trace.writer(chain) as writer:
            writer.record_block({"x": values[chain]})
    trace.finish()
    np.save(file, values)
    length = trace.posterior.x.encoding["preferred_chunks"]["draw"]
    codec = numcodecs.Blosc("lz4", 5, 1)
    encoded = [
        codec.encode(np.ascontiguousarray(values[chain, first : first + length]))
        for chain in range(chains)
        for first in range(0, draws, length)
    ]

    whole = np.zeros_like(values)

    def decode() -> None:
        """Into memory that is at hand."""
        for i, data in enumerate(encoded):
            chain, part = divmod(i, len(encoded) // chains)
            decoded = np.frombuffer(codec.decode(data)).reshape(-1, size)
            whole[chain, part * length : part * length + len(decoded)] = decoded

    seconds = by_turns(
        run,
        ours=lambda: _drop(zt.open(path).posterior["x"].values),
        get=lambda: _drop(zt.open(path).get("x")),
        thin=lambda: _drop(zt.open(path).get("x", draws=slice(None, None, 10))),
        numpy=lambda: _drop(np.load(file)),
        decode=decode,
    )
    slower = max(("numpy", "decode"), key=lambda name: median(seconds[name]))
    speed = {name: values.nbytes / median(times) / 1e6 for name, times in seconds.items()}
    peer = {"numpy": "np.load", "decode": "decoding it"}[slower]
    yield at_least(
        0.7, f"load one variable of {values.nbytes / 1e6:.0f} MB", ratio(seconds, slower, "ours"),
        f"× the speed of {peer}",
        f"{speed['ours']:,.0f} MB/s, np.load {speed['numpy']:,.0f}, "
        f"decoding {speed['decode']:,.0f}",
    )  # fmt: skip
    yield at_most(
        1, "get(draws=slice(None, None, 10))", ratio(seconds, "thin", "get"), "× the full read"
    )
    row = chains * length * size * 8
    allowed = (values.nbytes / 10 + row) / 2**20
    yield at_most(
        1, "get(draws=slice(None, None, 10)): memory", memory_of(thin, path) / allowed,
        "× the result and a row of chunks", f"{allowed:.0f} MB",
    )  # fmt: skip


def thin(path: Path) -> None:
    zt.open(path).get("x", draws=slice(None, None, 10))


def _drop(values: object) -> None:
    """Ends the life of what was read within the time: freeing memory costs too."""


def importing(run: Run) -> Row:
    def start(module: str) -> None:
        subprocess.run([sys.executable, "-c", f"import {module}"], check=True)

    seconds = by_turns(run, ours=lambda: start("zarrtrace"), zarr=lambda: start("zarr"))
    return at_most(
        1.3, "import zarrtrace", ratio(seconds, "ours", "zarr"), "× import zarr",
        f"{median(seconds['ours']) * 1e3:.0f} ms, zarr {median(seconds['zarr']) * 1e3:.0f} ms, "
        f"Python included",
    )  # fmt: skip
