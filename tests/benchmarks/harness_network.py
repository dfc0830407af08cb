"""What recording on a network file system costs, and how far behind a reader elsewhere is.

    sudo python tests/benchmarks/harness_network.py [--rounds 5] [--seconds 60]

The file system is sshfs, mounted twice on this machine: the caches of the mounts are apart like
those of two machines. The first part records the same draws on a local disk and, with a journal on
that disk, on a mount: as fast as it can, and as a sampler that takes a millisecond for each draw.
In the second part one process records, and another one looks through the other mount.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from timing import Run, by_turns, median, ratio

sys.path.insert(0, str(Path(__file__).parents[1]))
from two_mounts import two_mounts

import zarrtrace as zt

FORK = multiprocessing.get_context("fork")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=60, help="for which a reader looks")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, two_mounts(Path(name)) as mounts:
        recording(Path(name), mounts[0], given.rounds, 20_000, 0.0)
        recording(Path(name), mounts[0], given.rounds, 5_000, 0.001)
        for name, journal in (("memory", False), ("store", "store")):
            behind(mounts[0] / name, mounts[1] / name, journal, given.seconds)


def recording(local: Path, mount: Path, rounds: int, draws: int, sampling: float) -> None:
    """Record the same draws on a local disk and on the mount, each drawn in `sampling` seconds."""
    draw = {f"x{i}": float(i) for i in range(50)}
    vector = np.random.default_rng(1).normal(size=(draws, 100))
    posterior = {**{name: zt.Var() for name in draw}, "v": zt.Var(shape=100)}
    run = Run(local, rounds, False, itertools.count())

    def seconds(folder: Path, journal: Any) -> float:
        place = folder / f"{draws}-{run.fresh().name}"
        trace = zt.create(place, chains=1, draws=draws, posterior=posterior, journal=journal)
        begin = time.perf_counter()
        with trace.writer(0) as writer:
            for i in range(draws):
                until = time.perf_counter() + sampling
                while time.perf_counter() < until:
                    pass
                writer.record({**draw, "v": vector[i]})
        return time.perf_counter() - begin

    found = by_turns(
        run,
        here=lambda: seconds(local, True), there=lambda: seconds(mount, local),
    )  # fmt: skip
    print(
        f"{draws:,} draws of 50 scalars and a vector of 100, each drawn in {1e3 * sampling:g} ms: "
        f"{ratio(found, 'there', 'here'):.2f}× the time on a local disk "
        f"({median(found['here']):.2f} s)"
    )


def behind(here: Path, there: Path, journal: Any, seconds: float) -> None:
    """Look through one mount while a process records through the other one."""
    # With the least and the default seconds between flushes.
    for flush_every in (1.0, 10.0):
        places = [path.with_name(f"{path.name}{flush_every:g}.zarr") for path in (here, there)]
        draws = int(seconds * 50)
        process = FORK.Process(target=create, args=(places[0], draws, journal, flush_every))
        process.start()
        process.join()
        recorded_at = FORK.RawArray("d", draws)
        process = FORK.Process(target=record, args=(places[0], recorded_at))
        process.start()
        trace, behind = zt.open(places[1]), 0.0
        while process.is_alive():
            begin = time.monotonic()
            count = int(trace.recorded[0])
            if count < draws and recorded_at[count]:
                behind = max(behind, begin - recorded_at[count])
            time.sleep(0.2)
        process.join()
        print(f"{here.name} journal, flush_every={flush_every:g}: at most {behind:.1f} s behind")


def create(path: Path, draws: int, journal: Any, flush_every: float) -> None:
    variables = {"x": zt.Var(shape=10)}
    options = {"journal": journal, "flush_every": flush_every}
    zt.create(path, chains=1, draws=draws, posterior=variables, **options)


def record(path: Path, recorded_at: Any) -> None:
    with zt.open(path, "a").writer(0) as writer:
        for draw in range(len(recorded_at)):
            writer.record({"x": np.full(10, float(draw))})
            recorded_at[draw] = time.monotonic()
            time.sleep(0.02)


if __name__ == "__main__":
    main()
