"""A directory that holds a store: links, renames and syncs, which no other store has."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Container, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..errors import NotWritableError
from .failures import changing
from .local import (
    EXCHANGE,
    DirectoryLock,
    can_lock,
    files_below,
    open_regular,
    rename_with,
    sync_paths,
    walk,
    write_file_into,
)

# Seconds in which a file may change twice and have the same times. File systems that count in
# hundredths of a second at best may count in steps of two seconds. Others take the time from the
# system's clock, which ticks a hundred times a second or more.
_COARSE, _FINE = 2.0, 0.1
_HUNDREDTH = 10**7  # nanoseconds


def keys(root: Path, prefix: str) -> list[str]:
    """Every file below a prefix, in no particular order."""
    start = len(str(root)) + 1
    return [
        f"{directory}/{name}"[start:]
        for directory, _, names in walk(root / prefix)
        for name in names
    ]


def stamp(path: str, of_another_clock: bool) -> tuple[int, ...] | None:
    """A stamp that changes when a file changes; None where there is none, as for a new file.

    Parameters
    ----------
    of_another_clock : bool
        Its times are those of another clock than this machine's, such as that of a server.
    """
    try:
        descriptor, size = open_regular(path)
    except OSError:
        return None
    try:
        status = os.fstat(descriptor)
    finally:
        os.close(descriptor)
    times = status.st_mtime_ns, status.st_ctime_ns
    is_fine = not of_another_clock and all(nanoseconds % _HUNDREDTH for nanoseconds in times)
    if time.time() - max(times) / 1e9 < (_FINE if is_fine else _COARSE):
        return None
    return status.st_ino, size, *times


@contextmanager
def alone(root: Path, patience: float) -> Iterator[bool]:
    """Hold a lock; yields False if another process still holds it after `patience` seconds."""
    if not can_lock():
        yield True
        return
    deadline = time.monotonic() + patience
    lock = DirectoryLock()
    try:
        while not (is_alone := lock.take(root)) and time.monotonic() < deadline:
            time.sleep(0.001)
        yield is_alone
    finally:
        lock.let_go()


def require_no_link(root: Path, *prefixes: str) -> None:
    """Refuse to change what is below a prefix where a link leads out of the directory.

    Raises
    ------
    NotWritableError
        A directory on the way is a link: what it points to may belong to another trace.
    """
    for prefix in prefixes:
        path = root
        for part in prefix.split("/") if prefix else ():
            path = path / part
            if os.path.islink(path):
                raise NotWritableError(
                    f"{path} is a link to {os.readlink(path)}; what it points to is not "
                    f"changed: put a copy in the place of the link"
                )


def link(root: Path, source: str, target: str) -> bool:
    """Have a file under another key too; False where the file system has no links.

    An existing target stays as it is.
    """
    require_no_link(root, source.rpartition("/")[0], target.rpartition("/")[0])
    with changing(root, f"{target} cannot be written"):
        (root / target).parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(root / source, root / target)
    except FileNotFoundError:
        raise
    except OSError:
        # It was done before a kill, or there are no hard links.
        return os.path.lexists(root / target)
    return True


def move_tree(root: Path, source: str, target: str) -> None:
    """Rename a directory below the root, with everything in it."""
    require_no_link(root, source.rpartition("/")[0], target.rpartition("/")[0])
    with changing(root, f"{source} cannot be moved"):
        (root / target).parent.mkdir(parents=True, exist_ok=True)
        os.replace(root / source, root / target)


def exchange_trees(root: Path, one: str, other: str) -> bool:
    """Let two directories below it change places at once; False where the system cannot do that."""
    require_no_link(root, one.rpartition("/")[0], other.rpartition("/")[0])
    return rename_with(EXCHANGE, root / one, root / other)


def remove_partial_files(
    root: Path, directory: str, prefix: str, outside: Container[str]
) -> list[str]:
    """Remove what killed processes left half-written below a directory; returns the keys."""
    removed = []
    for file in list(files_below(root / directory)):
        if not file.name.endswith(".partial") or not file.name.startswith(prefix):
            continue
        key = file.relative_to(root)
        if key.parts[0] not in outside:
            with changing(root, f"{key} cannot be removed"):
                file.unlink(missing_ok=True)
            removed.append(str(key))
    return removed


def make_durable(root: Path, keys: Iterable[str]) -> None:
    """Wait until the bytes under these keys survive power loss."""
    paths = [root / key for key in keys]
    with changing(root, "what was written cannot be synced to the disk"):
        sync_paths(paths)
        sync_paths(dict.fromkeys(path.parent for path in paths))


def age(path: str) -> float | None:
    """Seconds since a file was written, on the clock that stamps the files there."""
    probe = f"{path}.{uuid.uuid4().hex}.partial"
    try:
        written = os.stat(path).st_mtime
        write_file_into(probe, b"")
        now = os.stat(probe).st_mtime
        os.unlink(probe)
    except OSError:
        return None
    return now - written


def write_into_array(path: str, data: bytes, synced: bool = False) -> None:
    """Write a file whole; of the missing directories, make only those of its array."""
    try:
        write_file_into(path, data, synced)
    except FileNotFoundError:
        directory = os.path.dirname(path)
        if os.path.basename(directory) != "c":
            raise
        # A key with "/", in a trace that comes from another store.
        with suppress(FileExistsError):
            os.mkdir(directory)
        write_file_into(path, data, synced)
