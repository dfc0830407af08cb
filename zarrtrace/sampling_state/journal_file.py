"""The file of a journal: where it is, and how it is reserved, mapped and locked."""

from __future__ import annotations

import contextlib
import errno
import functools
import mmap
import os
import warnings
from pathlib import Path
from typing import BinaryIO

from ..layout.layout import IN_STORE, Layout
from ..store.location import Location
from .journal_format import JOURNAL

try:
    import fcntl
except ImportError:  # Windows: no flock; buffers stay in memory there.
    fcntl = None  # type: ignore[assignment]

# The errors of a system call that a file system does not support; NFS has 524.
_MISSING = {
    errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL, errno.EPERM,
    errno.ENODEV, 524,
}  # fmt: skip


def can_map() -> bool:
    """Whether this system can map and lock the journal's file."""
    return fcntl is not None


def journal_directory(location: Location, layout: Layout) -> Path | None:
    """Where the journals of a trace are: in its store, elsewhere on this machine, or nowhere."""
    if layout.journal == IN_STORE:
        return None if location.path is None else location.path / JOURNAL
    return Path(layout.journal) if layout.journal else None


def journal_file(directory: Path, block: int) -> Path:
    """The file of one writer, named as its chunk."""
    return directory / f"c.{block}.0"


def remove_partial_files(path: Path) -> None:
    """Remove files that killed processes reserved for a journal locked by this process.

    A file that another process is filling may be removed too: that process is too late.
    """
    for partial in path.parent.glob(f"{path.name}.*.partial"):
        partial.unlink(missing_ok=True)


def lock(file: BinaryIO, path: Path) -> bool:
    """Lock the file of a journal; False where the file system has no locks.

    Raises
    ------
    BlockingIOError
        Another writer holds the lock.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError as error:
        _raise_unless_missing(error, path)
        _warn_once(
            f"{path.parent}: this file system has no locks ({error.strerror}), so a second writer "
            f"of a chain is told from a dead one by its process and its heartbeat only: make sure "
            f"that each chain is recorded by one process"
        )
        return False
    return True


def is_locked(path: Path) -> bool:
    """Whether a writer holds the lock of a journal."""
    with contextlib.suppress(FileNotFoundError), open(path, "r+b", buffering=0) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError as error:
            _raise_unless_missing(error, path)
    return False


class NoMappingError(OSError):
    """The file system cannot map a file for writing."""


def map_file(path: Path, size: int) -> mmap.mmap:
    """Map a file of this many bytes; NoMappingError where the file system cannot."""
    # The file is opened again: a mapping keeps its own descriptor, and would keep the lock.
    with open(path, "r+b", buffering=0) as file:
        try:
            return mmap.mmap(file.fileno(), size)
        except OSError as error:
            _raise_unless_missing(error, path)
            _warn_once(
                f"{path.parent}: this file system cannot map files ({error.strerror}), so draws "
                f"wait in memory for a flush, and a killed process loses the last of them; "
                f"journal='/a/local/disk' keeps them all"
            )
            raise NoMappingError(error.errno, error.strerror, str(path)) from error


def _raise_unless_missing(error: OSError, path: Path) -> None:
    """Raise an error with its place, unless it says that the file system lacks the call."""
    if error.errno not in _MISSING:
        error.filename = os.fspath(path)
        raise error


@functools.cache
def _warn_once(message: str) -> None:
    warnings.warn(message, RuntimeWarning, stacklevel=2)


def reserve(descriptor: int, size: int) -> None:
    """Reserve the bytes of a new file on the disk."""
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(descriptor, 0, size)
        except OSError as error:
            if error.errno not in _MISSING:
                raise
        else:
            return
    zeros = bytes(2**20)
    for start in range(0, size, len(zeros)):
        os.pwrite(descriptor, zeros[: size - start], start)


def read_whole(descriptor: int, size: int) -> bytearray:
    """A copy of a file; what is missing at its end is zeros."""
    found = bytearray(size)
    done = 0
    while data := os.pread(descriptor, size - done, done):
        found[done : done + len(data)] = data
        done += len(data)
    return found
