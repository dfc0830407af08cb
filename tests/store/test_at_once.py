"""Many files at once: all of them are done, or one error says why not, and no thread is left."""

from __future__ import annotations

import os
import signal
import threading
import time

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
    done: list[int] = []

    def act(item: int) -> None:
        time.sleep(0.5)
        done.append(item)

    threading.Timer(0.1, os.kill, [os.getpid(), signal.SIGINT]).start()
    with pytest.raises(KeyboardInterrupt):
        at_once(act, range(4))
    assert len(done) == 4
