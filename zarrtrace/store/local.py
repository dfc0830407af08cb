"""Files of a local directory: written whole or not at all, locked, listed."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import Any, TypeVar

from ..errors import DamagedTraceError, TraceError, TraceExistsError
from .at_once import at_once

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
# The file does not cause these errors: it is not damaged, and the next try may read it.
_PASSING = {
    errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN,
    errno.EINTR,
}  # fmt: skip
_MANY_TO_SYNC = 8
_HERE = -100  # the working directory, for the functions of the C library that end in "at"
_NO_REPLACE, EXCHANGE = 1, 2  # of renameat2(2)
# A tree that is removed: another process was faster, or NFS keeps a file that somebody has open.
_AS_GOOD_AS_GONE = {errno.ENOENT, errno.ENOTDIR, errno.EBUSY, errno.ENOTEMPTY}


def can_lock() -> bool:
    """Whether this system has locks on files."""
    return fcntl is not None


class DirectoryLock:
    """A lock on a directory, held until it is released or this object is deleted.

    An interrupt may come between any two lines, and must not leave a directory locked for ever: a
    descriptor gets into the list, and out of it to be closed, in one call each.
    """

    def __init__(self) -> None:
        self._descriptors: list[int] = []

    def take(self, directory: Path) -> bool:
        """Lock a directory; False when another process has locked it.

        Where the file system has no such locks, the directory counts as locked by this process.
        """
        while True:
            # Opening a pipe that lies there would wait for ever.
            flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
            self._descriptors.extend(map(os.open, [directory], [flags]))
            descriptor = self._descriptors[-1]
            try:
                fcntl.flock(descriptor, self._kind() | fcntl.LOCK_NB)
            except BlockingIOError:
                self.let_go()
                return False
            except OSError:
                return True  # a file system, such as NFS, that locks no directories
            # Another directory may have taken its place between opening and locking.
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), os.stat(directory)):
                    return True
            self.let_go()

    def _kind(self) -> int:
        return fcntl.LOCK_EX

    def let_go(self) -> None:
        """Release the lock, if it is held."""
        while self._descriptors:
            list(map(os.close, map(self._descriptors.pop, [-1])))

    __del__ = let_go


class SharedLock(DirectoryLock):
    """A lock on a directory that any number may hold, while nobody has a `DirectoryLock` on it.

    A copy of one is the same lock, and in another process a free one.
    """

    def _kind(self) -> int:
        return fcntl.LOCK_SH

    def __reduce__(self) -> tuple[Any, ...]:
        return SharedLock, ()

    def __deepcopy__(self, copied: object) -> SharedLock:
        return self


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
    """Whether a file holds exactly these bytes; it reads little of a file that does not."""
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
    """Open a file; returns its descriptor and its size.

    Anything but a regular file is refused: a pipe or a device could wait for ever, or never
    end. Opening one does not block.

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
    """All bytes of a file, if it has at most that many.

    Raises
    ------
    OSError
        As `open_regular`, or it has more bytes.
    """
    descriptor, size = open_regular(path)
    try:
        if size > most:
            raise OSError(errno.EFBIG, f"it has {size:,} bytes, at most {most:,} allowed", path)
        data = os.read(descriptor, size)
        while len(data) < size and (more := os.read(descriptor, size - len(data))):
            data += more
        return data
    except OSError as error:
        error.filename = path
        raise
    finally:
        os.close(descriptor)


def read_first(path: str, size: int) -> bytes:
    """The first bytes of a file, at most `size`; OSError as `open_regular`."""
    descriptor, _ = open_regular(path)
    try:
        return os.read(descriptor, size)
    finally:
        os.close(descriptor)


T = TypeVar("T")


def read_twice(read: Callable[[], T]) -> T:
    """Call a function that reads, and call it again after an input or output error.

    A network that faltered answers then; a disk that has lost a file fails again.
    """
    try:
        return read()
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        return read()


def unreadable(what: str, where: str, error: OSError) -> TraceError:
    """The error for a file that cannot be read: damage, unless the system caused it."""
    why = f"{what} cannot be read ({error.strerror})"
    if error.errno in _PASSING:
        return TraceError(why, where=where, remedy="it is not damaged: try again")
    return DamagedTraceError(why, where=where)


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
    """Move a file to an unused name: as a link if the disk has links.

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


def write_file(path: str, data: bytes, synced: bool = False) -> None:
    """Write a file whole, and make the missing directories."""
    try:
        write_file_into(path, data, synced)
    except FileNotFoundError:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        write_file_into(path, data, synced)


def write_file_into(path: str, data: bytes, synced: bool = False) -> None:
    """Write a file whole: first under another name, so that a reader never finds half of it.

    If it is to be synced, its bytes are on the disk or the server before it has its name.
    """
    partial = f"{path}.{uuid.uuid4().hex}.partial"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    descriptor = os.open(partial, flags, 0o666)
    try:
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(descriptor, rest[:_AT_ONCE]) :]
            if synced:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(partial, path)
    except BaseException as error:
        if isinstance(error, OSError):
            error.filename = path
        with suppress(OSError):
            os.unlink(partial)
        raise


@contextmanager
def new_file(path: Path, overwrite: bool) -> Iterator[Path]:
    """Where to write a file that is at its place when the block ends well, and not before.

    Raises
    ------
    TraceExistsError
        Something is there, and `overwrite` is False.
    """
    if not overwrite and os.path.lexists(path):
        raise _is_taken(path)
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}.partial")
    try:
        yield partial
        _sync_path(partial)
        if overwrite:
            os.replace(partial, path)
        else:
            try:
                link_or_move(partial, path)
            except FileExistsError:
                raise _is_taken(path) from None
    finally:
        with suppress(FileNotFoundError):
            os.unlink(partial)


def _is_taken(path: Path) -> TraceExistsError:
    return TraceExistsError(
        "there is something already", where=str(path), remedy="choose another place, or remove it"
    )


def sync_tree(directory: Path) -> None:
    """Wait until a directory, its name and everything in it survive power loss."""
    files, directories = [], [directory.parent]
    for root, _, names in walk(directory):
        directories.append(Path(root))
        files += [Path(root) / name for name in names]
    sync_paths(files)
    sync_paths(directories)


def sync_paths(paths: Iterable[Path]) -> None:
    """Wait until files, or the names in directories, survive power loss.

    In parallel if there are many: the disk then commits many at once.
    """
    paths = list(paths)
    if len(paths) < _MANY_TO_SYNC:
        for path in paths:
            _sync_path(path)
        return
    at_once(_sync_path, paths)


def _sync_path(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | _OPENING)
    try:
        os.fsync(descriptor)
    except OSError as error:
        error.filename = os.fspath(path)
        # Some file systems sync files but not directories; a pipe or a device has nothing to sync.
        if error.errno not in _NO_SYNC or S_ISREG(os.fstat(descriptor).st_mode):
            raise
    finally:
        os.close(descriptor)


def walk(directory: Path) -> Iterator[tuple[str, list[str], list[str]]]:
    """Each directory in a tree with its names, as `os.walk` yields them; links are not followed.

    Raises
    ------
    OSError
        A directory cannot be listed: `os.walk` would continue as if it were empty.
    """
    yield from os.walk(directory, onerror=_raise_unless_gone)


def _raise_unless_gone(error: OSError) -> None:
    # The root of a file system has this directory, which only root may list.
    if os.path.basename(error.filename) == "lost+found":
        return
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise error


def files_below(directory: Path) -> Iterator[Path]:
    """Every file in a directory and in those below it; links are not followed."""
    if directory.is_symlink():
        return
    for root, _, names in walk(directory):
        for name in names:
            yield Path(root) / name


def remove_tree(directory: Path) -> None:
    """Remove a directory with everything in it, if it is there.

    Raises
    ------
    OSError
        Something in it cannot be removed; everything else is.
    """
    errors: list[OSError] = []

    def note(function: object, path: str, found: tuple[Any, BaseException, Any]) -> None:
        error = found[1]
        if isinstance(error, OSError) and error.errno not in _AS_GOOD_AS_GONE:
            error.filename = path
            errors.append(error)

    shutil.rmtree(directory, onerror=note)
    if errors:
        raise errors[0]
