"""Do one thing with many files or chunks at once, where each waits for a disk or a server."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TypeVar

Item = TypeVar("Item")

AT_ONCE = 16


def at_once(act: Callable[[Item], object], items: Iterable[Item]) -> None:
    """Call a function with each item, in several threads; when all have ended, one error is raised.

    An interpreter that ends begins no thread. Writers that are closed there call the function with
    one item after the other.
    """
    items = list(items)
    if len(items) < 2:
        running = []
    else:
        with ThreadPoolExecutor(min(AT_ONCE, len(items))) as pool:
            try:
                running = [pool.submit(act, item) for item in items]
            except RuntimeError:
                running = []
            # Twice: an interrupt may end the first wait, and no thread may write after it. The pool
            # joins its threads, and before Python 3.13 one whose join was interrupted counts as
            # ended.
            try:
                wait(running)
            finally:
                wait(running)
    for item in items if not running else []:
        act(item)
    for future in running:
        future.result()
