"""How a process with open writers ends, and how it shows that it lives.

At interpreter exit, at the end of a multiprocessing child and on SIGTERM the open writers are
closed; in a forked child they are released, since they belong to the parent. A process that is
preempted asks them to stop first, and so do those that it has started. While there are open
writers, one thread keeps their claims fresh, and sees when they are asked to stop. Nothing here
keeps a writer alive: one that no one else holds closes itself.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import multiprocessing
import os
import signal
import threading
import time
import weakref
from collections.abc import Collection
from types import FrameType
from typing import Protocol

from ..errors import TraceNotFoundError, TraceReplacedError
from ..sampling_state.claim import BEAT_EVERY


class OpenWriter(Protocol):
    """What this module needs of a writer."""

    def close(self) -> None:
        """Flush and close."""

    @property
    def _token(self) -> str:
        """The token of its claim."""

    def _release(self) -> None:
        """Close without flushing."""

    def _beat(self) -> None:
        """Refresh the claim."""

    def _look(self) -> None:
        """See what others have changed, if that costs no more than a look at a disk."""

    def _preempt(self, cause: str) -> None:
        """Let the sampler end, because the process has to."""


# What processes with writers are sent by the one that a scheduler has sent a signal.
FORWARDED = signal.SIGUSR1
_LOOK_EVERY = 1.0  # seconds
# An environment variable: processes have it from the one that starts them, whichever way it does.
_ANNOUNCED = "ZARRTRACE_PREEMPTION_SIGNALS"

_writers: weakref.WeakSet[OpenWriter] = weakref.WeakSet()
_lock = threading.RLock()
_process = 0
_stop = threading.Event()
_thread: threading.Thread | None = None
_took_sigterm = False
_preempted_by = ""
_had_sigterm = False


def register(writer: OpenWriter) -> None:
    """Refresh this writer's claim, and close it at exit, until `forget`."""
    global _thread, _stop
    with _lock:
        _prepare_process()
        _writers.add(writer)
        if _preempted_by:
            writer._preempt(_preempted_by)
        _take_preemption()
        _take_sigterm()
        # An interrupt may have come at any line of an earlier call.
        if _thread is None or not _thread.is_alive() or _stop.is_set():
            _stop.set()
            stop = threading.Event()
            _thread = threading.Thread(
                target=_beat, args=(stop, BEAT_EVERY), name="zarrtrace heartbeat", daemon=True
            )
            _stop = stop
            _thread.start()


def forget(writer: OpenWriter) -> None:
    """Stop watching a writer; after the last one the thread ends."""
    global _thread
    with _lock:
        _writers.discard(writer)
        if _writers:
            return
        _give_sigterm_back()
        _stop.set()
        thread, _thread = _thread, None
    # After an interrupt it may not have begun; then there is nothing to wait for.
    if thread is not None and thread is not threading.current_thread() and thread.is_alive():
        thread.join(timeout=5)


def close_forgotten(writer: OpenWriter) -> None:
    """Close a writer that is no longer referenced."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        _close_quietly(writer)
    else:
        # Closing may need this thread, which runs the garbage collector at this moment.
        threading.Thread(target=_close_quietly, args=(writer,)).start()


def _close_quietly(writer: OpenWriter) -> None:
    # No caller is left who could be told that the trace is gone.
    with contextlib.suppress(TraceNotFoundError, TraceReplacedError):
        try:
            writer.close()
        finally:
            # Nobody can close it again.
            writer._release()


def preempt(cause: str) -> None:
    """Ask all writers of this process to stop, and those that are opened until `end_preemption`.

    Parameters
    ----------
    cause : str
        What preempted the process, for messages, such as "SIGUSR1".
    """
    global _preempted_by
    _preempted_by = cause
    for writer in open_writers():
        writer._preempt(cause)


def end_preemption() -> None:
    """Let writers that are opened from now on record as usual."""
    global _preempted_by, _had_sigterm
    _preempted_by, _had_sigterm = "", False


def announce_preemption(numbers: Collection[int]) -> None:
    """Say which signals preempt this process and those that it starts; none of them by ()."""
    if numbers:
        os.environ[_ANNOUNCED] = " ".join(str(int(number)) for number in numbers)
    else:
        os.environ.pop(_ANNOUNCED, None)


def preemption_signals() -> set[int]:
    """The signals that preempt this process and those that it starts.

    A scheduler may send them to all of these processes at once.
    """
    return {int(number) for number in os.environ.get(_ANNOUNCED, "").split()}


def preempted_by() -> str:
    """What preempted this process, or ""."""
    return _preempted_by


def open_writers() -> list[OpenWriter]:
    """The open writers of this process."""
    with _lock:
        return list(_writers)


def writer_with(token: str) -> OpenWriter | None:
    """The open writer of this process whose claim has this token, or None."""
    return next((writer for writer in open_writers() if writer._token == token), None)


def _beat(stop: threading.Event, every: float) -> None:
    due = time.monotonic() + every
    while not stop.wait(min(every, _LOOK_EVERY)):
        _look_once()
        if time.monotonic() >= due:
            _beat_once()
            due = time.monotonic() + every


# These are functions of their own, so that no variable holds a writer while the thread waits. The
# recording thread reports a store that does not answer.


def _look_once() -> None:
    for writer in open_writers():
        with contextlib.suppress(Exception):
            writer._look()


def _beat_once() -> None:
    for writer in open_writers():
        with contextlib.suppress(Exception):
            writer._beat()


def _close_all() -> None:
    # All of them are closed, even if one cannot be flushed.
    with contextlib.ExitStack() as stack:
        for writer in open_writers():
            stack.callback(writer.close)


def _prepare_process() -> None:
    """Arrange once per process that its writers are closed when it ends."""
    global _process
    if _process == os.getpid():
        return
    _process = os.getpid()
    from multiprocessing import util

    # A multiprocessing child leaves by os._exit, past atexit, but calls its finalizers.
    util.Finalize(None, _close_all, exitpriority=10)


def _take_sigterm() -> None:
    """Turn SIGTERM, which a scheduler sends before it kills, into an ordinary exit."""
    global _took_sigterm
    if (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    ):
        signal.signal(signal.SIGTERM, exit_on_sigterm)
        _took_sigterm = True


def _give_sigterm_back() -> None:
    global _took_sigterm
    if _took_sigterm and threading.current_thread() is threading.main_thread():
        if signal.getsignal(signal.SIGTERM) is exit_on_sigterm:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        _took_sigterm = False


def _take_preemption() -> None:
    """Let a process that another one started be told that this one has to end."""
    if (
        multiprocessing.parent_process() is None
        or threading.current_thread() is not threading.main_thread()
    ):
        return
    for number in {FORWARDED, *preemption_signals()}:
        if signal.getsignal(number) is signal.SIG_DFL:
            # It stays: without it, a signal that comes after the last writer would kill the
            # process.
            signal.signal(number, preempt_child)


def preempt_child(number: int, frame: FrameType | None) -> None:
    """Handle a signal in a process that another one started: its writers are asked to stop.

    A second SIGTERM ends the process, and so does the first one if it has no writer: it may come
    from a pool that ends.
    """
    global _had_sigterm
    if number == signal.SIGTERM:
        if _had_sigterm or not open_writers():
            exit_on_sigterm(number, frame)
        _had_sigterm = True
    preempt(signal.Signals(number).name)


def exit_on_sigterm(number: int, frame: FrameType | None) -> None:
    """End the process as `sys.exit` does, so that its writers are closed."""
    raise SystemExit(128 + number)


def _release_in_child() -> None:
    global _thread, _lock, _took_sigterm
    # The thread was not copied, and it may have held the lock.
    _lock, _thread = threading.RLock(), None
    end_preemption()
    for writer in list(_writers):
        writer._release()
    _writers.clear()
    if _took_sigterm:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        _took_sigterm = False


# A process that takes long to begin its chain can be told already.
if preemption_signals():
    _take_preemption()
atexit.register(_close_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_release_in_child)
