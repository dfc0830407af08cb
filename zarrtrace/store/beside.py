"""Directories beside a place, in which something is built whole before it takes that place.

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

from .local import can_lock, lock, locks_work, rename_with

_NEW, _OLD = "new", "old"  # in such a directory
_STALE_AFTER = 24 * 3600.0  # seconds, where the file system has no locks that tell
_TAKEN = {errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR}
_EXCHANGE = 2  # of renameat2(2)


def real_place(path: Path) -> Path:
    """Where the directory at a path is, or will be, when links are followed."""
    return Path(os.path.realpath(path))


def is_building(name: str) -> bool:
    """Whether a directory of this name is one in which something is built."""
    return re.fullmatch(r"\..+\.[0-9a-f]{32}\.building", name) is not None


@contextmanager
def building_beside(place: Path) -> Iterator[Path]:
    """The path of a directory to be made beside a place; what is there at the end is removed.

    Raises
    ------
    OSError
        Nothing can be made there.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    remove_abandoned(place)
    outer, descriptor = _make_locked(place)
    try:
        yield outer / _NEW
    finally:
        # What was exchanged for it, or was not finished.
        shutil.rmtree(outer, ignore_errors=True)
        if descriptor is not None:
            os.close(descriptor)


def _make_locked(place: Path) -> tuple[Path, int | None]:
    """A new directory beside a place, and the descriptor that keeps it locked."""
    while True:
        outer = place.parent / f".{place.name}.{uuid.uuid4().hex}.building"
        outer.mkdir()
        if not can_lock():
            return outer, None
        # Until it is locked, another process may take it for abandoned and remove it.
        with suppress(FileNotFoundError):
            descriptor = lock(outer)
            if descriptor is not None:
                return outer, descriptor


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
    """Put what was built in the place of what is there, which is removed with the building.

    Raises
    ------
    OSError
        It cannot be renamed: somebody else owns the directory around it, or it is a mount point.
    """
    if _exchange(built, place):
        return
    old = built.with_name(_OLD)
    os.rename(place, old)
    # A process that is killed here leaves nothing at the place: see `bring_back`.
    try:
        os.rename(built, place)
    except BaseException:
        os.rename(old, place)
        raise


def bring_back(place: Path) -> bool:
    """Put something at an empty place that a killed process left between its two renames."""
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
            descriptor = lock(outer)
            if descriptor is not None:
                try:
                    yield outer
                finally:
                    os.close(descriptor)


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two directories at once, where the system can; nobody sees neither."""
    return rename_with(_EXCHANGE, one, other)
