"""A thread that looks each second, however many browsers are shown what it sees."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from threading import Event, Thread

_log = logging.getLogger(__name__)

EVERY = 1.0  # seconds from one look to the next


class Repeated:
    """Calls a function each second in a thread, and then those who wait for it.

    Parameters
    ----------
    fail : callable
        Is told what the function has raised, in words.

    Attributes
    ----------
    listeners : list of callable
        Are called after each look, in its thread.
    """

    def __init__(self, look: Callable[[], None], fail: Callable[[str], None]) -> None:
        self._look, self._fail = look, fail
        self._said = ""
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
            try:
                self._look()
            except Exception as error:  # whatever it is: a page that stands still would not say it
                self._tell(error)
            for listener in list(self.listeners):
                try:
                    listener()
                except Exception:  # its browser is just going, and the others are told
                    _log.debug("a browser could not be told of a look", exc_info=True)
            self._is_over.wait(max(0.1, EVERY - (time.monotonic() - began)))

    def _tell(self, error: Exception) -> None:
        """Say what has failed: in the log once, and on the page until a look succeeds."""
        said = f"{type(error).__name__}: {error}"
        if said != self._said:
            _log.error("a look has failed, and is tried again each second", exc_info=error)
        self._said = said
        self._fail(said)
