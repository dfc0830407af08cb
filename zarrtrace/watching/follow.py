"""Watch traces until they are over: look, show, wait, and look again."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Sequence

from ..errors import TraceError, TraceReplacedError
from ..layout.hierarchy import Hierarchy
from ..messages import printable
from .lines import as_line
from .look import Gone, Look
from .watcher import Watcher

OVER, DIED, GONE = 0, 3, 4  # exit codes
PATIENCE = 10.0  # seconds that a store may be away

Seen = Look | Gone


class Watched:
    """One trace that is looked at, whatever happens to its place."""

    def __init__(self, hierarchy: Hierarchy, make_watcher: Callable[[Hierarchy], Watcher]) -> None:
        self._location = hierarchy.location
        self._make_watcher = make_watcher
        self._watcher = make_watcher(hierarchy)
        self._gone_since: float | None = None
        self.told_finish = False
        self.told_deaths: set[tuple[int, int | None]] = set()

    def look(self) -> Seen:
        """A look, or why there is none."""
        try:
            try:
                look = self._watcher.look()
            except TraceReplacedError:
                # The run was begun again at the same place.
                self._watcher = self._make_watcher(Hierarchy(self._location))
                self.told_finish, self.told_deaths = False, set()
                look = self._watcher.look()
        except (TraceError, OSError) as error:
            now = time.monotonic()
            self._gone_since = now if self._gone_since is None else self._gone_since
            since = now - self._gone_since
            return Gone(str(self._location), time.time(), str(error), since)
        self._gone_since = None
        return look


def follow(
    watched: Sequence[Watched],
    show: Callable[[Sequence[Seen]], None],
    *,
    every: float,
    once: bool = False,
    on_finish: str = "",
    on_death: str = "",
    patience: float = PATIENCE,
    stopped: Callable[[float], bool] | None = None,
) -> int:
    """Watch traces until each is over, has died, or has gone away.

    Parameters
    ----------
    show : callable
        Is given the looks at all traces.
    every : float
        Seconds from one look to the next.
    once : bool, default False
        Whether to look once only.
    on_finish, on_death : str
        Commands for the shell, run when a trace has all its draws, and when a chain has died;
        what the look shows is JSON on their standard input.
    patience : float
        Seconds that a store may be away before it counts as gone.
    stopped : callable, optional
        Waits for some seconds, and says whether to end before the runs are over.

    Returns
    -------
    int
        0 when all draws are recorded, 3 when a chain died and no other is recorded any more, 4
        when a store went away.
    """
    wait = stopped or _sleep
    while True:
        began = time.monotonic()
        seen = [one.look() for one in watched]
        show(seen)
        for one, what in zip(watched, seen, strict=True):
            if isinstance(what, Look):
                _tell(one, what, on_finish, on_death)
        codes = [exit_code(what, patience if not once else 0.0) for what in seen]
        if once or None not in codes:
            return max((code for code in codes if code is not None), default=OVER)
        if wait(max(0.0, every - (time.monotonic() - began))):
            return OVER


def exit_code(seen: Seen, patience: float) -> int | None:
    """The exit code when a trace is over; None while it is not."""
    if isinstance(seen, Gone):
        return GONE if seen.seconds >= patience else None
    if seen.is_dead:
        return DIED
    return OVER if seen.is_over else None


def _sleep(seconds: float) -> bool:
    time.sleep(seconds)
    return False


def _tell(watched: Watched, look: Look, on_finish: str, on_death: str) -> None:
    """Run the commands for what has happened, each once."""
    if look.is_over and not watched.told_finish:
        watched.told_finish = True
        _run(on_finish, look)
    deaths = {(chain.chains.start, chain.pid) for chain in look.dead}
    if deaths - watched.told_deaths:
        watched.told_deaths |= deaths
        _run(on_death, look)


def _run(command: str, look: Look) -> None:
    if not command:
        return
    done = subprocess.run(command, shell=True, input=as_line(look), text=True, check=False)
    if done.returncode:
        said = f"zarrtrace: {command!r} ended with exit code {done.returncode}"
        print(printable(said), file=sys.stderr)
