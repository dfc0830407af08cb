"""One call at a time: another thread, or a signal handler, is refused while one is under way."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import CodeType, FrameType
from typing import ClassVar

from ..errors import ChainBusyError

_LONGEST = 10.0  # seconds, for a call of another thread that must end first


class OneCallAtATime:
    """Keeps the calls of a writer from overlapping.

    A call whose time matters does by itself what `_only_call` does. It reads
    `_in_call` and sets it in two statements, between which no other thread and no signal handler
    runs: Python switches only at calls and at the ends of loops.
    """

    # The functions that are calls, set once the class exists.
    _calls: ClassVar[frozenset[CodeType]] = frozenset()
    # Whether a call waits for the call of another thread, or is refused.
    _waits_for_threads: ClassVar[bool] = False

    def __init__(self, where: str, chain: int | None) -> None:
        self._in_call = False
        self._where = where
        self._first_chain = chain

    @contextmanager
    def _only_call(self) -> Iterator[None]:
        """Let no other call run while this one does."""
        while self._in_call:
            self._overlap()
        try:
            self._in_call = True
            yield
        finally:
            self._in_call = False

    def _overlap(self) -> None:
        """Another call may be under way: wait for it, or refuse this one."""
        threads = self._threads_in_calls()
        if len(threads) > 1:  # one is this call
            if threads.count(threading.get_ident()) > 1:
                raise self._busy_in("this thread")
            if not self._waits_for_threads:
                raise self._busy_in("another thread")
            time.sleep(0.001)
        elif self._in_call and len(self._threads_in_calls()) == 1:
            # An interrupt ended the other call before it could reset the flag.
            self._in_call = False

    def _wait_for_other_threads(self) -> None:
        """Wait until no other thread is in a call.

        Raises
        ------
        ChainBusyError
            Its call does not end.
        """
        deadline = time.monotonic() + _LONGEST
        while self._in_call and set(self._threads_in_calls()) - {threading.get_ident()}:
            if time.monotonic() > deadline:
                raise self._busy_in("another thread")
            time.sleep(0.001)

    def _require_no_call(self) -> None:
        """Wait until no thread is in a call; a call of this thread is refused."""
        self._wait_for_other_threads()
        if threading.get_ident() in self._threads_in_calls():
            raise self._busy_in("this thread")

    def _threads_in_calls(self) -> list[int]:
        """The thread of each call that is under way, read from the stacks of all threads."""
        threads = []
        for thread, top in sys._current_frames().items():
            frame: FrameType | None = top
            while frame is not None:
                if frame.f_code in self._calls and frame.f_locals.get("self") is self:
                    threads.append(thread)
                frame = frame.f_back
        return threads

    def _busy_in(self, thread: str) -> ChainBusyError:
        return ChainBusyError(
            f"another call of this writer is under way in {thread}",
            where=self._where,
            remedy="that call continues, and this one did nothing: use a writer in one thread, and "
            "not in a signal handler",
            chain=self._first_chain,
        )
