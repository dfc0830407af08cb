"""A view that returns at once: drawn in place by a thread, in a notebook or in a terminal."""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any

from .follow import Watched, follow
from .lines import as_text
from .look import Gone, Look
from .screen import Screen, as_html

Draw = Callable[[Sequence[Look | Gone]], None]


class View:
    """A view of a run, as `Trace.watch` returns it: drawn until the run is over.

    Attributes
    ----------
    seen : Look, Gone or None
        What was seen last; None before the first look.
    """

    def __init__(self, watched: Watched, every: float) -> None:
        self.seen: Look | Gone | None = None
        self._stopped = threading.Event()
        # In this thread: a notebook would not know which cell another one belongs to.
        draw = _draw_in_notebook()
        self._thread = threading.Thread(
            target=self._follow, args=(watched, every, draw), name="zarrtrace watch", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Draw no more; the run is not affected."""
        self._stopped.set()
        self._thread.join()

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until the run is over, or for some seconds; whether it is over."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _follow(self, watched: Watched, every: float, draw: Draw | None) -> None:
        if draw is None and sys.stdout.isatty():
            with Screen(live=True) as screen:
                self._draw_with(watched, every, screen.show)
        else:
            self._draw_with(watched, every, draw or _draw_nothing)

    def _draw_with(self, watched: Watched, every: float, draw: Draw) -> None:
        follow([watched], self._shows(draw), every=every, stopped=self._stopped.wait)

    def _shows(self, draw: Draw) -> Draw:
        def show(seen: Sequence[Look | Gone]) -> None:
            [self.seen] = seen
            draw(seen)

        return show

    def __repr__(self) -> str:
        what = "nothing seen yet" if self.seen is None else as_text(self.seen)
        return f"<zarrtrace.View {what}>"


def _draw_nothing(seen: Sequence[Look | Gone]) -> None:
    """Draw where nobody looks."""


def _draw_in_notebook() -> Draw | None:
    """Draws in the cell that is running; None where there is no notebook."""
    ipython: Any = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    if shell is None or not hasattr(shell, "kernel"):
        return None
    display: Any = importlib.import_module("IPython.display").display
    handle: Any = display({"text/plain": "zarrtrace"}, raw=True, display_id=True)

    def draw(seen: Sequence[Look | Gone]) -> None:
        plain = "\n".join(map(as_text, seen))
        handle.update({"text/html": as_html(seen), "text/plain": plain}, raw=True)

    return draw
