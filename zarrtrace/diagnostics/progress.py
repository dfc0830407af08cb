"""A bar on standard error for what takes longer than a second, and sentences beside it."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

from ..messages import printable

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

_PATIENCE = 1.0  # seconds after which a bar appears


class Progress:
    """A bar of some steps, on a terminal; blocks of steps may be done by several threads.

    Parameters
    ----------
    steps : int
        How many there are.
    shown : bool
        Whether there is a bar, and sentences.
    """

    def __init__(self, steps: int, *, shown: bool) -> None:
        self._steps, self._shown, self._done = steps, shown, 0.0
        self._began = time.monotonic()
        self._bar: Bar | None = None

    def advance(self, steps: float) -> None:
        """Some steps are done."""
        self._done += steps
        if self._bar is None and time.monotonic() - self._began > _PATIENCE:
            self._start()
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=self._done)

    def say(self, sentence: str) -> None:
        """Print a sentence before what it announces begins."""
        if self._shown:
            print(printable(sentence), file=sys.stderr, flush=True)

    def _start(self) -> None:
        if not self._shown or not sys.stderr.isatty():
            return
        from rich.console import Console
        from rich.progress import Progress as Bar

        self._bar = Bar(console=Console(file=sys.stderr), transient=True)
        self._bar.add_task("scalars", total=self._steps)
        self._bar.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
