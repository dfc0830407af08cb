"""How the benchmarks time: two things by turns in one run, and what comes of it as a row."""

from __future__ import annotations

import itertools
import mmap
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MEGABYTE = 2**20


@dataclass(frozen=True)
class Row:
    """One figure: what was measured, what was to be reached, and what is behind it.

    `microseconds` are those of one draw or step, by what took them.
    """

    what: str
    value: float
    unit: str
    reach: float
    at_least: bool
    detail: str
    microseconds: dict[str, float] = field(default_factory=dict)

    @property
    def reached(self) -> bool:
        return self.value >= self.reach if self.at_least else self.value <= self.reach

    @property
    def wanted(self) -> str:
        return f"{'≥' if self.at_least else '≤'} {self.reach:g}{self.unit}"


def at_most(reach: float, what: str, value: float, unit: str, detail: str = "") -> Row:
    return Row(what, value, unit, reach, False, detail)


def at_least(reach: float, what: str, value: float, unit: str, detail: str = "") -> Row:
    return Row(what, value, unit, reach, True, detail)


@dataclass(frozen=True)
class Run:
    """What every benchmark is given: fresh places, how many rounds, and how large.

    `gigabytes` are those of the variable that is larger than memory.
    """

    directory: Path
    rounds: int
    small: bool
    numbers: itertools.count[int]
    gigabytes: float = 1

    def fresh(self) -> Path:
        """A place nothing has been at. Nothing is deleted while the run lasts.

        Creating files is several times slower for a while after many were deleted.
        """
        return self.directory / f"{next(self.numbers)}.zarr"

    def scaled(self, size: int, small: int) -> int:
        return small if self.small else size


Measurement = Callable[[], float | None]


def by_turns(run: Run, **measurements: Measurement) -> dict[str, list[float]]:
    """Seconds of each thing, a list as long as there are rounds.

    Each round does all of them, so that what the machine is busy with hits all alike. A thing that
    prepares something first times itself and returns the seconds.
    """
    seconds: dict[str, list[float]] = {name: [] for name in measurements}
    for _ in range(run.rounds):
        for name, measure in measurements.items():
            if not run.small:
                settle()
            start = time.perf_counter()
            own = measure()
            seconds[name].append(time.perf_counter() - start if own is None else own)
    return seconds


def settle() -> None:
    """Let the machine be as it was before: nothing waits for the disk, and memory is at hand.

    On a virtual machine a page that was never used costs some 10 µs, hundreds of times as much as
    any other; who first gets such pages, for what is written too, is a matter of luck.
    """
    os.sync()
    bytearray(2**29)[:: mmap.PAGESIZE] = b"\1" * (2**29 // mmap.PAGESIZE)


def forget(place: Path) -> None:
    """Give back the memory that caches what was written, so that the next one finds as much."""
    os.sync()
    for path in (place, *place.rglob("*")):
        if path.is_file():
            with open(path, "rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def median(values: list[float]) -> float:
    return statistics.median(values)


def ratio(seconds: dict[str, list[float]], over: str, under: str) -> float:
    """How many times as long `over` takes as `under`: the median of the rounds' ratios."""
    pairs = zip(seconds[over], seconds[under], strict=True)
    return statistics.median(above / below for above, below in pairs)


def memory_of(action: Callable[..., Any], *arguments: Any) -> float:
    """Megabytes that an action needs at its peak above the start, in a process of its own."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_report_memory, args=(theirs, action, arguments))
    process.start()
    theirs.close()
    peak: float = ours.recv()
    process.join()
    return peak


def _report_memory(pipe: Any, action: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    import xarray  # noqa: F401 - what is imported counts as the start

    import zarrtrace  # noqa: F401

    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again
    action(*arguments)
    pipe.send((_status("VmHWM") - before) / MEGABYTE)


def _status(name: str) -> int:
    """Bytes, from what Linux says about this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name + ":"))
