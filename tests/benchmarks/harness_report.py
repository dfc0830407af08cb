"""What a report costs beside its summary: its size, and processor time.

    python tests/benchmarks/harness_report.py [SCALARS ...] [--draws 1000] [--as-variables]

Without SCALARS those of the promises: 50 and 5,000.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import zarrtrace as zt

CHAINS = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scalars", type=int, nargs="*", default=[50, 5000])
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--as-variables", action="store_true", help="each scalar is a variable")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        warm = recorded(Path(folder) / "warm.zarr", 1, 100, False)
        summarised(warm)  # what is imported at the first use
        warm.report(Path(folder) / "warm.html")
        for scalars in given.scalars:
            trace = recorded(
                Path(folder) / f"{scalars}.zarr", scalars, given.draws, given.as_variables
            )
            say(trace, scalars, Path(folder) / f"{scalars}.html")


def say(trace: zt.Trace, scalars: int, file: Path) -> None:
    summary = processor_time(lambda: summarised(trace))
    report = processor_time(lambda: trace.report(file))
    print(
        f"{scalars:7,} scalars: summary {summary:6.2f} s of a processor, report {report:6.2f} s"
        f" = {report / summary:.1f} ×, {file.stat().st_size / 1e6:.2f} MB",
        flush=True,
    )


def recorded(path: Path, scalars: int, draws: int, as_variables: bool) -> zt.Trace:
    names = [f"x{number}" for number in range(scalars)]
    variables = {name: zt.Var() for name in names} if as_variables else {"x": zt.Var(shape=scalars)}
    trace = zt.create(path, chains=CHAINS, draws=draws, posterior=variables)
    for chain in range(CHAINS):
        values = np.random.default_rng(chain).normal(size=(draws, scalars))
        with trace.writer(chain) as writer:
            by_name = dict(zip(names, values.T, strict=True)) if as_variables else {"x": values}
            writer.record_block(by_name)
    trace.finish()
    return trace


def summarised(trace: zt.Trace) -> None:
    zt.open(trace.path).summary()


def processor_time(action: Callable[[], object]) -> float:
    start = time.process_time()
    action()
    return time.process_time() - start


if __name__ == "__main__":
    main()
