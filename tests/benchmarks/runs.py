"""A folder of many runs, listed by the command; rows of cox."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from timing import Row, Run, at_most, by_turns, median

import zarrtrace as zt
from zarrtrace import folder as runs
from zarrtrace.adapters.cox import Store

LIST = "import sys; from zarrtrace.cli import main; sys.exit(main(['ls', sys.argv[1]]))"


def rows(run: Run) -> Iterator[Row]:
    yield from listing(run)
    yield from rows_of_cox(run)


def listing(run: Run) -> Iterator[Row]:
    count = run.scaled(1000, 20)
    finished, running = folder(run, count, finish=True), folder(run, count // 20, finish=False)

    def command(place: Path) -> None:
        done = subprocess.run([sys.executable, "-c", LIST, str(place)], capture_output=True)
        if done.returncode != 0:
            raise RuntimeError(done.stderr.decode())

    def with_settings() -> None:
        runs.open(finished).to_dataframe()

    seconds = by_turns(
        run,
        finished=lambda: command(finished),
        running=lambda: command(running),
        nothing=lambda: command(run.directory / "empty"),
        settings=with_settings,
    )
    milliseconds = {name: median(times) * 1e3 for name, times in seconds.items()}
    start, each = milliseconds["nothing"], count // 20
    computed = (milliseconds["running"] - start) / each
    yield at_most(
        2, f"zarrtrace ls: {count:,} finished runs of 10 values", milliseconds["finished"] / 1e3,
        " s", f"Python and imports {start:.0f} ms; not finished, {computed:.1f} ms each",
    )  # fmt: skip
    yield at_most(
        10, "runs.open(folder).to_dataframe(), with settings", milliseconds["settings"] / count,
        " ms a run",
    )  # fmt: skip


def folder(run: Run, count: int, *, finish: bool) -> Path:
    """Runs that are copies of one: 4 chains × (500 + 1000) draws of 10 values and 2 stats."""
    place = run.fresh()
    (run.directory / "empty").mkdir(exist_ok=True)
    rng = np.random.default_rng(1)
    trace = runs.create(
        place, "run 0", settings={"prior": "normal", "scale": 1.5}, seed=1, name="eight_schools",
        chains=4, tune=500, draws=1000,
        posterior={"mu": 0.0, "tau": 0.0, "theta": zt.Var(shape=8)},
        sample_stats={"lp": 0.0, "diverging": False},
    )  # fmt: skip
    for chain in range(4):
        with trace.writer(chain) as writer:
            writer.record_block(
                {name: rng.normal(size=1500) for name in ("mu", "tau")}
                | {"theta": rng.normal(size=(1500, 8))},
                {"lp": rng.normal(size=1500), "diverging": np.zeros(1500, bool)},
            )
    if finish:
        trace.finish()
    for number in range(1, count):
        shutil.copytree(place / "run 0", place / f"run {number}", copy_function=os.link)
    return place


def rows_of_cox(run: Run) -> Iterator[Row]:
    numbers = {"epoch": 1, "loss": 0.5, "ok": True}
    words = {**numbers, "name": "some words"}

    def append(row: dict[str, Any], count: int) -> float:
        with contextlib.redirect_stdout(io.StringIO()), Store(run.fresh(), "one") as store:
            table = store.add_table_like_example("log", row)
            start = time.perf_counter()
            for _ in range(count):
                table.append_row(row)
            return (time.perf_counter() - start) / count

    count = run.scaled(10_000, 200)
    seconds = by_turns(
        run, numbers=lambda: append(numbers, count), words=lambda: append(words, count // 20)
    )
    microseconds = {name: median(times) * 1e6 for name, times in seconds.items()}
    yield at_most(
        50, "cox, a row of 3 numbers that survives kill -9", microseconds["numbers"], " µs"
    )
    yield at_most(5000, "cox, the same with text, which is flushed", microseconds["words"], " µs")
