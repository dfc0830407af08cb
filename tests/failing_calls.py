"""Have calls of the operating system fail: one of them, or all that take room from one on."""

from __future__ import annotations

import builtins
import errno
import fcntl
import io
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Literal
from unittest.mock import patch

import numpy as np

# "once": one call of any kind fails, as on a disk or a network that falters; the next one works.
# "full": from one call on, every call that takes room fails, as on a full disk.
Failure = Literal["once", "full"]

_TAKING_ROOM = ("open", "write", "pwrite", "posix_fallocate", "replace", "rename", "link", "mkdir")
_OTHERS = (
    "unlink", "remove", "rmdir", "fsync", "stat", "lstat", "listdir", "scandir", "read", "pread",
)  # fmt: skip
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


@contextmanager
def failing(at: int | None, failure: Failure = "once") -> Iterator[list[str]]:
    """Have the call of this number fail, or all from it on; returns the calls that were made.

    Among them are calls that the functions of `os`, `pathlib` and `shutil` make.
    An error names the files that a real one names.
    """
    made: list[str] = []

    def failing_call(name: str, original: Callable[..., Any], takes_room: bool) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            if failure == "full" and not (takes_room and _takes_room(name, arguments)):
                return original(*arguments, **options)
            made.append(name)
            number = len(made) - 1
            if at is not None and (number == at or (failure == "full" and number > at)):
                raise _error(name, arguments, errno.ENOSPC if failure == "full" else errno.EIO)
            return original(*arguments, **options)

        return call

    places: list[tuple[Any, str, bool]] = [
        *((os, name, True) for name in _TAKING_ROOM),
        *((os, name, False) for name in _OTHERS),
        *((module, "open", False) for module in (io, builtins)),
        (fcntl, "flock", False),
    ]
    with ExitStack() as stack:
        for module, name, takes_room in places:
            real = getattr(module, name)
            stack.enter_context(patch.object(module, name, failing_call(name, real, takes_room)))
        yield made


def some_of(count: int, trials: int | None) -> list[int]:
    """Return the numbers of some of `count` calls; `--trials 10000` returns all of them."""
    found: list[int] = np.unique(np.linspace(0, count - 1, trials or 9).astype(int)).tolist()
    return found


def _takes_room(name: str, arguments: tuple[Any, ...]) -> bool:
    return name != "open" or (len(arguments) > 1 and bool(arguments[1] & _WRITING))


def _error(name: str, arguments: tuple[Any, ...], number: int) -> OSError:
    if name in ("replace", "rename", "link"):
        return OSError(number, os.strerror(number), arguments[0], None, arguments[1])
    # An error of an open file has its number.
    return OSError(number, os.strerror(number), *arguments[:1])
