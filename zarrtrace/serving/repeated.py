"""A thread that looks each second, however many browsers are shown what it sees."""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Event, Thread

EVERY = 1.0  # seconds from one look to the next


class Repeated:
    """Calls a function each second in a thread, and then those who wait for it.

    Attributes
    ----------
    listeners : list of callable
        Are called after each look, in its thread.
    """

    def __init__(self, look: Callable[[], None]) -> None:
        self._look = look
        self._is_over = Event()
        self.listeners: list[Callable[[], None]] = []
        self._thread = Thread(target=self._run, name="zarrtrace serve", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._is_over.set()

    def _run(self) -> None:
        while not self._is_over.is_set():
            began = time.monotonic()
            self._look()
            for listener in list(self.listeners):
                listener()
            self._is_over.wait(max(0.1, EVERY - (time.monotonic() - began)))
