"""Directories next to a place, where something is built completely before it is moved there.

For a place `run.zarr` they are called `.run.zarr.<32 hex digits>.building`. Their maker holds a
lock on them; one whose lock is free was left behind by a process that was killed, and the next
process that builds for the same place removes it.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .local import EXCHANGE, DirectoryLock, can_lock, locks_work, rename_with

_NEW, _OLD = "new", "old"  # in such a directory
_STALE_AFTER = 24 * 3600.0  # seconds, where the file system has no locks
_TAKEN = {errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR}


def real_place(path: Path) -> Path:
    """Where the directory at a path is, or will be, when links are followed."""
    return Path(os.path.realpath(path))


def is_building(name: str) -> bool:
    """Whether a directory of this name is one in which something is built."""
    return re.fullmatch(r"\..+\.[0-9a-f]{32}\.building", name) is not None


@contextmanager
def building_beside(place: Path) -> Iterator[Path]:
    """Yield the path for a new directory beside a place, which is removed at the end.

    Raises
    ------
    OSError
        Nothing can be made there.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    remove_abandoned(place)
    lock = DirectoryLock()
    outer = _make_locked(place, lock)
    try:
        yield outer / _NEW
    finally:
        # What was exchanged for it, or was not finished.
        shutil.rmtree(outer, ignore_errors=True)
        lock.let_go()


def _make_locked(place: Path, lock: DirectoryLock) -> Path:
    """A new directory beside a place, which is locked."""
    while True:
        outer = place.parent / f".{place.name}.{uuid.uuid4().hex}.building"
        outer.mkdir()
        # Until it is locked, another process may take it for abandoned and remove it.
        with suppress(FileNotFoundError):
            if not can_lock() or lock.take(outer):
                return outer


def take_free_place(built: Path, place: Path) -> bool:
    """Move what was built to a place where nothing is; False when something is there."""
    try:
        os.rename(built, place)
    except OSError as error:
        if error.errno in _TAKEN or place.exists():
            return False
        raise
    return True


def change_places(built: Path, place: Path) -> None:
    """Replace what is at a place by what was built; the old one is removed with the building.

    Raises
    ------
    OSError
        It cannot be renamed: its parent belongs to another user, or it is a mount point.
    """
    if _exchange(built, place):
        return
    old = built.with_name(_OLD)
    os.rename(place, old)
    # If the process is killed here, the place stays empty: see `bring_back`.
    try:
        os.rename(built, place)
    except BaseException:
        os.rename(old, place)
        raise


def bring_back(place: Path) -> bool:
    """Restore what a process, killed between its two renames, took away from a place."""
    if place.exists():
        return False
    for outer in _abandoned(place):
        for name in (_NEW, _OLD) if (outer / _OLD).exists() else ():
            with suppress(OSError):
                os.rename(outer / name, place)
                return True
    return False


def remove_abandoned(place: Path) -> None:
    """Remove what killed processes were building for a place."""
    bring_back(place)
    for outer in _abandoned(place):
        shutil.rmtree(outer, ignore_errors=True)


def _abandoned(place: Path) -> Iterator[Path]:
    """The directories in which a process was building for a place when it was killed."""
    try:
        names = os.listdir(place.parent)
    except OSError:
        return
    for name in names:
        if not (is_building(name) and name[1:].rpartition(".")[0].rpartition(".")[0] == place.name):
            continue
        outer = place.parent / name
        with suppress(OSError):
            if not locks_work(outer):
                if time.time() - outer.stat().st_mtime > _STALE_AFTER:
                    yield outer
                continue
            lock = DirectoryLock()
            try:
                if lock.take(outer):
                    yield outer
            finally:
                lock.let_go()


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two directories at once, where the system can; nobody sees neither."""
    return rename_with(EXCHANGE, one, other)
