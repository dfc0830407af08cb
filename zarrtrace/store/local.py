"""Files of a local directory: written whole or not at all, locked, listed."""

from __future__ import annotations

import ctypes
import errno
import os
import uuid
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from stat import S_ISDIR, S_ISREG

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]
# Bytes in one call. For more Linux takes whole huge pages for its cache, and a virtual machine
# first has to ask its host for those: a fifth of the speed.
_AT_ONCE = 2**20
_OPENING = (
    getattr(os, "O_NONBLOCK", 0)
    | getattr(os, "O_NOCTTY", 0)
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_BINARY", 0)
)
_NO_SYNC = {errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP}
_SYNCED_AT_ONCE = 16
_MANY_TO_SYNC = 8
_HERE = -100  # the working directory, for the functions of the C library that end in "at"
_NO_REPLACE = 1  # of renameat2(2)


def can_lock() -> bool:
    """Whether this system has locks on files."""
    return fcntl is not None


def lock(directory: Path) -> int | None:
    """Lock a directory until the descriptor is closed; None when another process has locked it.

    Where the file system has no such locks, the directory counts as locked by this process.
    """
    while True:
        descriptor = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        except OSError:
            return descriptor  # a file system, such as NFS, that locks no directories
        # Another directory may have taken its place between opening and locking.
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), os.stat(directory)):
                return descriptor
        os.close(descriptor)


def locks_work(directory: Path) -> bool:
    """Whether the file system of a directory can lock it."""
    if fcntl is None:
        return False
    descriptor = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    else:
        return True
    finally:
        os.close(descriptor)


def file_holds(path: str, data: bytes) -> bool:
    """Whether a file holds just these bytes; of one that does not, little is read."""
    try:
        descriptor, size = open_regular(path)
    except OSError:
        return False
    with open(descriptor, "rb", buffering=0) as file:
        if size != len(data):
            return False
        done = 0
        while done < size:
            part = file.read(min(_AT_ONCE, max(4096, done)))
            if not part or part != data[done : done + len(part)]:
                return False
            done += len(part)
    return True


def open_regular(path: str | os.PathLike[str], flags: int = os.O_RDONLY) -> tuple[int, int]:
    """Open a file; gives its descriptor and its size.

    Anything else that has the name is refused: a pipe or a device would wait for ever, or never
    end. Opening them waits for nobody.

    Raises
    ------
    IsADirectoryError
        It is a directory.
    OSError
        It is neither a file nor a directory, or cannot be opened.
    """
    descriptor = os.open(path, flags | _OPENING)
    try:
        status = os.fstat(descriptor)
    except BaseException:
        os.close(descriptor)
        raise
    if S_ISREG(status.st_mode):
        return descriptor, status.st_size
    os.close(descriptor)
    if S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    raise OSError(errno.EINVAL, "it is neither a file nor a directory", str(path))


def read_file(path: str, most: int) -> bytes:
    """All bytes of a file, if it has at most so many.

    Raises
    ------
    OSError
        As `open_regular`, or it has more bytes.
    """
    descriptor, size = open_regular(path)
    try:
        if size > most:
            raise OSError(errno.EFBIG, f"it has {size:,} bytes, and {most:,} are the most", path)
        data = os.read(descriptor, size)
        while len(data) < size and (more := os.read(descriptor, size - len(data))):
            data += more
        return data
    finally:
        os.close(descriptor)


def rename_with(flag: int, source: Path, target: Path) -> bool:
    """Rename with a flag of Linux's renameat2(2); False when that cannot be done."""
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError, TypeError):
        return False
    paths = os.fsencode(source), os.fsencode(target)
    done: int = renameat2(_HERE, paths[0], _HERE, paths[1], ctypes.c_uint(flag))
    return done == 0


def link_or_move(source: Path, target: Path) -> None:
    """Have a file appear under another name, where nothing is: as a link if the disk has links.

    Raises
    ------
    FileExistsError
        Something is there.
    """
    try:
        os.link(source, target)
    except FileExistsError:
        raise
    except OSError:
        if rename_with(_NO_REPLACE, source, target):
            return
        if os.path.lexists(target):
            raise FileExistsError(target) from None
        os.rename(source, target)


def write_file(path: str, data: bytes) -> None:
    """Write a file whole, and make the directories it misses."""
    try:
        write_file_into(path, data)
    except FileNotFoundError:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        write_file_into(path, data)


def write_file_into(path: str, data: bytes) -> None:
    """Write a file whole: under another name first, so that a reader never finds half of it."""
    partial = f"{path}.{uuid.uuid4().hex}.partial"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    descriptor = os.open(partial, flags, 0o666)
    try:
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(descriptor, rest[:_AT_ONCE]) :]
        finally:
            os.close(descriptor)
        os.replace(partial, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(partial)
        raise


def sync_tree(directory: Path) -> None:
    """Return when everything in a directory, itself and its name survive power loss."""
    files, directories = [], [directory.parent]
    for root, _, names in os.walk(directory):
        directories.append(Path(root))
        files += [Path(root) / name for name in names]
    sync_paths(files)
    sync_paths(directories)


def sync_paths(paths: Iterable[Path]) -> None:
    """Return when files, or the names in directories, survive power loss.

    Side by side if there are many: the disk then commits many at once.
    """
    paths = list(paths)
    if len(paths) < _MANY_TO_SYNC:
        for path in paths:
            _sync_path(path)
        return
    with ThreadPoolExecutor(_SYNCED_AT_ONCE) as pool:
        # As a list: an error of one is raised, when all have ended.
        list(pool.map(_sync_path, paths))


def _sync_path(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some file systems sync files, but no directories.
        if error.errno not in _NO_SYNC or not S_ISDIR(os.fstat(descriptor).st_mode):
            raise
    finally:
        os.close(descriptor)


def files_below(directory: Path) -> Iterator[Path]:
    """Every file in a directory and in those below it; no link is followed."""
    if directory.is_symlink():
        return
    for root, _, names in os.walk(directory):
        for name in names:
            yield Path(root) / name
