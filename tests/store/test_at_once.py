"""Many files at once: all of them are done, or one error says why not, and no thread is left."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import traceback
from concurrent.futures import wait

import pytest

from zarrtrace.store.at_once import at_once


@pytest.mark.once("newest")
@pytest.mark.parametrize("count", [0, 1, 2, 40])
def test_a_function_is_called_with_each_item(count: int) -> None:
    done: list[int] = []
    at_once(done.append, range(count))
    assert sorted(done) == list(range(count))


@pytest.mark.once("newest")
@pytest.mark.parametrize("items", [[3], range(20)])
def test_an_error_is_raised_when_all_have_ended(items: list[int]) -> None:
    done: list[int] = []

    def act(item: int) -> None:
        if item == 3:
            raise OSError("full")
        time.sleep(0.01)
        done.append(item)

    with pytest.raises(OSError, match="full"):
        at_once(act, items)
    assert sorted(done) == [item for item in items if item != 3]


@pytest.mark.once("newest")
def test_an_interrupt_is_raised_when_all_have_ended() -> None:
    caller, interrupted = threading.get_ident(), threading.Event()
    done: list[int] = []

    def interrupt(*_: object) -> None:
        if not interrupted.is_set():
            interrupted.set()
            raise KeyboardInterrupt

    def caller_waits() -> bool:
        frames = traceback.walk_stack(sys._current_frames()[caller])
        return any(frame.f_code is wait.__code__ for frame, _ in frames)

    def act(item: int) -> None:
        if item == 0:
            ends = time.monotonic() + 60
            while not caller_waits() and time.monotonic() < ends:
                time.sleep(0.001)
            # One that comes just before the caller begins to sleep wakes it up no more.
            while not interrupted.wait(0.05) and time.monotonic() < ends:
                os.kill(os.getpid(), signal.SIGINT)
        assert interrupted.wait(60)
        time.sleep(0.1)  # time in which a caller that does not wait would continue
        done.append(item)

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            at_once(act, range(4))
        assert len(done) == 4
    finally:
        signal.signal(signal.SIGINT, before)
