"""Rows of a table, appended one by one."""

from __future__ import annotations

import csv
import time
from collections.abc import Iterator
from typing import Any

from timing import Row, Run, at_most, by_turns, median, ratio

from zarrtrace.tables import table

NUMBERS = {"draw": int, "step_size": float, "acceptance": float, "energy": float, "ended": bool}


def rows(run: Run) -> Iterator[Row]:
    yield from appending(run, "5 columns of numbers", NUMBERS, {})
    yield from appending(run, "5 of numbers, one of text", {**NUMBERS, "note": str}, {"note": "ok"})
    yield one_row(run)


def one_row(run: Run) -> Row:
    place = run.fresh()

    def files() -> int:
        return sum(file.is_file() for file in place.rglob("*"))

    found = table.open(place, {"epoch": int, "loss": float})
    found.append(epoch=1, loss=0.5)
    while_open = files()
    found.close()
    return at_most(
        6, "table of one row of two numbers", float(max(files(), while_open)), " files",
        f"{while_open} while it is open, {files()} when it is closed",
    )  # fmt: skip


def appending(run: Run, what: str, columns: dict[str, Any], words: dict[str, str]) -> Iterator[Row]:
    count = run.scaled(100_000, 2_000)

    def row(number: int) -> dict[str, Any]:
        return {
            **{"draw": number, "step_size": 0.1, "acceptance": 0.8, "energy": 1.5, "ended": False},
            **words,
        }

    def ours() -> float:
        found = table.open(run.fresh(), columns)
        start = time.perf_counter()
        for number in range(count):
            found.append(row(number))
        found.close()
        return time.perf_counter() - start

    def lines() -> float:
        with run.fresh().open("w", newline="") as file:
            writer = csv.DictWriter(file, list(columns))
            start = time.perf_counter()
            for number in range(count):
                writer.writerow(row(number))
                file.flush()
            return time.perf_counter() - start

    seconds = by_turns(run, ours=ours, lines=lines)
    each = median(seconds["ours"]) / count * 1e6
    yield at_most(
        50, f"table append: {what}", each, " µs a row",
        f"a line of CSV, flushed, {median(seconds['lines']) / count * 1e6:.3g} µs: "
        f"{ratio(seconds, 'ours', 'lines'):.2g}×",
    )  # fmt: skip
