"""Looks at a folder of runs, again and again: each look reads what has changed since the last."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from .. import folder as folders
from ..errors import TraceError
from ..folder.run import NOTHING, Run, join
from ..layout.layout import STATE
from ..life.status import find_status, parse_time
from ..messages import counted
from ..reading.moment import Moment
from ..sampling_state.block import chain_blocks, read_claims
from ..watching.intake import burn_in
from ..watching.lines import draws_per_second, who
from ..watching.progress import Progress, Stats

WAITING, GONE = "not read yet", "gone"

_ROOM = 1.0  # seconds, after which a look leaves the other runs to the next one
_SCAN_EVERY = 10.0  # seconds, where the folder itself has not changed
_AGAIN = 60.0  # seconds, for a run that may change without a trace of it
_EVERY = 10.0  # seconds at least from one worst R-hat of a run that is recorded to the next
_SHARE = 9  # times as long as a worst R-hat took passes until it is computed again
_YOUNG = 2.0  # seconds in which a file may change twice and have the same times
# What changes when a run is created, recorded, stopped, split, extended, finished or repaired.
_CHANGES = (
    *("", STATE, f"{STATE}/zarr.json", f"{STATE}/writer", f"{STATE}/draw_idx"),
    f"{STATE}/request/zarr.json",
)

Stamp = tuple[tuple[int, ...] | None, ...]


@dataclass(frozen=True)
class RunLook:
    """What a look shows of one run.

    Attributes
    ----------
    described : mapping of str to object
        As `Run.describe`; its status may also be `gone` or `not read yet`.
    rate : float or None
        Draws a second over the last minute; None where it is not recorded.
    heard : float or None
        When it was last heard of, in seconds since the epoch; None where nobody knows.
    problem : str
        What is wrong with it, in words; "" for nothing.
    """

    name: str
    described: Mapping[str, Any]
    rate: float | None
    heard: float | None
    problem: str


@dataclass(frozen=True)
class FolderLook:
    """What a look shows of a folder.

    Attributes
    ----------
    error : str
        Why the folder cannot be read; its runs are then those of the last look. "" where it can.
    notes : tuple of str
        What is not shown.
    """

    folder: str
    runs: tuple[RunLook, ...]
    error: str
    notes: tuple[str, ...]


class FolderLooks:
    """Looks at the runs of a folder, those of which `zarrtrace ls` shows a line.

    A run that does not change is not read again. A look takes about a second at most: runs that
    it has not come to are the first ones of the next look.

    Raises
    ------
    TraceNotFoundError
        There is no such folder, or it is a trace itself.
    """

    def __init__(
        self, folder: str | os.PathLike[str], storage_options: Mapping[str, Any] | None = None
    ) -> None:
        self._options = dict(storage_options or {})
        self._folder = os.fspath(folder)
        is_local = "://" not in self._folder
        self._root = os.path.realpath(Path(self._folder).expanduser()) if is_local else None
        self._runs: dict[str, _Watched] = {}
        self._error = ""
        self._links: list[str] = []
        self._scanned = time.monotonic(), self._changed()
        self._take(self._names())

    def path_of(self, name: str) -> str | None:
        """Where a run is; None where the folder has none, or a link that leads out of it."""
        if name not in self._runs or not self._is_inside(name):
            return None
        return join(self._root or self._folder, name)

    def look(self) -> FolderLook:
        """One look at the folder, and at those of its runs that have changed."""
        deadline = time.monotonic() + _ROOM
        self._find_runs()
        runs_to_read = [] if self._error else sorted(self._runs.values(), key=_looked_at)
        for run in runs_to_read:
            if time.monotonic() > deadline:
                break
            if run.is_due:
                run.look()
        runs = tuple(run.shown for run in self._runs.values())
        return FolderLook(self._folder, runs, self._error, tuple(self._notes()))

    def _find_runs(self) -> None:
        """Find new runs, and those that are gone, where the folder may have changed."""
        clock, changed = time.monotonic(), self._changed()
        scanned, before = self._scanned
        if changed == before and clock - scanned < _SCAN_EVERY:
            return
        self._scanned = clock, changed
        try:
            names = self._names()
        except (TraceError, OSError) as error:
            self._error = str(error)
        else:
            self._error = ""
            self._take(names)

    def _changed(self) -> int:
        """When the folder itself was changed, as far as that can be known."""
        try:
            return os.stat(self._root).st_mtime_ns if self._root else 0
        except OSError:
            return -1

    def _names(self) -> tuple[str, ...]:
        """The names of all runs."""
        return folders.open(self._root or self._folder, storage_options=self._options).names

    def _take(self, names: Sequence[str]) -> None:
        """Watch the runs that there are now."""
        self._links = [name for name in names if not self._is_inside(name)]
        found = dict.fromkeys(name for name in names if name not in self._links)
        gone = [name for name in self._runs if name not in found]
        for name in gone:
            self._runs[name].is_there = False
        for name in found:
            run = self._runs.get(name) or self._watch(name)
            run.is_there = True
            self._runs[name] = run
        self._runs = {name: self._runs[name] for name in [*found, *gone]}

    def _watch(self, name: str) -> _Watched:
        path = join(self._root or self._folder, name)
        stamp = partial(_stamp_of, path) if self._root else lambda: None
        return _Watched(name, partial(Run, name, path, "r", self._options), stamp)

    def _is_inside(self, name: str) -> bool:
        """Whether a run is in the folder, and not where a link leads out of it."""
        if self._root is None:
            return True
        real = os.path.realpath(os.path.join(self._root, name))
        return os.path.commonpath([self._root, real]) == self._root

    def _notes(self) -> Iterator[str]:
        if self._links:
            are = "is" if len(self._links) == 1 else "are"
            listed = ", ".join(self._links[:5]) + (", ..." if len(self._links) > 5 else "")
            links = counted(len(self._links), "link")
            yield f"{links} that lead out of the folder {are} not shown: {listed}"


class _Watched:
    """One run of a folder, as it was seen last.

    Attributes
    ----------
    looked_at : float
        When it was read last, by `time.monotonic`; 0 before.
    is_there : bool
        Whether the folder has it.
    shown : RunLook
        What is shown of it.
    """

    def __init__(
        self, name: str, open_run: Callable[[], Run], stamp: Callable[[], Stamp | None]
    ) -> None:
        self._name = name
        self._open_run = open_run
        self._read_stamp = stamp
        self.looked_at = 0.0
        self.is_there = True
        self._begin()
        self._show({**NOTHING, "status": WAITING})

    def _begin(self) -> None:
        self._run: Run | None = None
        self._progress = Progress()
        self._stamp: Stamp | None = None
        self._described_at = self._took = 0.0

    @property
    def is_due(self) -> bool:
        """Whether it may have changed since it was read."""
        status: str = self.shown.described["status"]
        if not self.is_there:
            return status != GONE
        if status in (WAITING, GONE, "sampling"):
            return True
        stamp = self._read_stamp()
        may_hide_changes = stamp is None or status == "damaged"
        if may_hide_changes and time.monotonic() - self.looked_at > _AGAIN:
            return True
        return stamp != self._stamp

    def look(self) -> None:
        """Read what may have changed."""
        self.looked_at = time.monotonic()
        if not self.is_there:
            self._begin()
            self._show({**self.shown.described, "status": GONE}, problem="it is gone")
            return
        stamp = self._read_stamp()
        is_of_use = self._run is not None and self.shown.described["status"] == "sampling"
        if is_of_use and self.looked_at < self._described_at + max(_EVERY, _SHARE * self._took):
            try:
                self._look_at_chains()
                return
            except (TraceError, OSError):
                self._begin()
        self._describe()
        # The next change of a file that has just changed may have the same time.
        self._stamp = () if stamp and _is_young(stamp) else stamp

    def _describe(self) -> None:
        """Read all that is shown of a run, its worst R-hat too."""
        began = time.monotonic()
        self._run = self._open_run()
        described = self._run.describe()
        self._show(described, heard=described["since"] or parse_time(described["when"]))
        if described["status"] == "sampling":
            with suppress(TraceError, OSError):
                self._look_at_chains()
        self._described_at = time.monotonic()
        self._took = self._described_at - began

    def _look_at_chains(self) -> None:
        """Read how far the chains are, and who records them."""
        assert self._run is not None
        hierarchy = self._run.trace._hierarchy
        claims = read_claims(chain_blocks(hierarchy.location, hierarchy.layout))
        now = Moment.of(hierarchy)
        layout = now.layout
        chains = self._progress.look(now, claims, Stats(layout.chains), burn_in(layout))
        status = find_status(now, claims)
        last_draw = min((c.idle for c in chains if c.idle is not None), default=math.inf)
        signs = [claim.beat for claim in claims if claim is not None]
        self._show(
            {
                **self.shown.described,
                "status": status.word,
                "since": status.since,
                "recorded": int(now.counts[layout.kept_chains].min()),
            },
            draws_per_second(chains),
            max([*signs, time.time() - last_draw]),
            "; ".join(who(chain) for chain in chains if chain.writer in ("dead", "silent")),
        )

    def _show(
        self,
        described: dict[str, Any],
        rate: float | None = None,
        heard: float | None = None,
        problem: str = "",
    ) -> None:
        problem = problem or described["error"]
        self.shown = RunLook(self._name, described, rate, heard, problem)


def _looked_at(run: _Watched) -> float:
    return run.looked_at


def _stamp_of(run: str) -> Stamp:
    """When the files of a run changed whose change is a change of what is shown."""
    return tuple(_times(os.path.join(run, name)) for name in _CHANGES)


def _times(path: str) -> tuple[int, ...] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _is_young(stamp: Stamp) -> bool:
    last = max((max(times[2:]) for times in stamp if times is not None), default=0)
    return time.time() - last / 1e9 < _YOUNG
