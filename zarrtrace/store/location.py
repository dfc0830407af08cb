"""Where a trace lives: a Zarr store seen as keys and bytes, and an address for other processes.

Everything above this module works on keys and bytes. Local directories and memory are reached
through the stores' synchronous methods; every other store through its asynchronous ones, many keys
at a time.
"""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import time
import uuid
import zlib
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import Any, TypeAlias
from zipfile import BadZipFile

import zarr
import zarr.buffer.cpu
from zarr.abc.store import Store
from zarr.core.sync import sync
from zarr.storage import LocalStore, MemoryStore, WrapperStore, ZipStore

from ..errors import (
    DamagedTraceError,
    InvalidInputError,
    NotShareableError,
    NotWritableError,
    TraceError,
    TraceNotFoundError,
)
from . import remote
from .local import (
    can_lock,
    file_holds,
    files_below,
    lock,
    open_regular,
    read_file,
    sync_paths,
    sync_tree,
    write_file,
    write_file_into,
)
from .remote import Listed

_SIDE_BY_SIDE = 32
_YOUNG = 2.0  # seconds
# Bytes under a key of which nothing else says how many there may be: what Blosc can hold.
LARGEST = 2**31

_PATIENCE = 60.0  # seconds for the answer to one request
_SLOWEST = 100_000  # bytes in a second that a request may be slow to send
_SECONDS_A_KEY = 0.1  # for each key that one request removes

_NO_ROOM = "there is no room left; nothing is lost: make room and go on"
_NO_RIGHT = "permission is denied; nothing is lost: mend the permissions and go on"
_REMEDIES = {
    errno.ENOSPC: _NO_ROOM,
    errno.EDQUOT: _NO_ROOM,
    errno.EACCES: _NO_RIGHT,
    errno.EPERM: _NO_RIGHT,
    errno.EROFS: _NO_RIGHT,
}

# A Location is found already: for what builds in one place what belongs to another.
Place: TypeAlias = "str | os.PathLike[str] | Store | Location | None"
_PACKAGES = {
    "s3": "fsspec s3fs",
    "s3a": "fsspec s3fs",
    "gs": "fsspec gcsfs",
    "gcs": "fsspec gcsfs",
    "abfs": "fsspec adlfs",
    "abfss": "fsspec adlfs",
    "az": "fsspec adlfs",
    "http": "fsspec aiohttp",
    "https": "fsspec aiohttp",
}


def locate(
    place: Place,
    *,
    read_only: bool = False,
    storage_options: Mapping[str, Any] | None = None,
) -> Location:
    """Find the store of a path, a URL, a zarr `Store`, or None for a new one in memory.

    Nothing is created. A `.zip` file is opened read-only, whatever `read_only` says.
    """
    if isinstance(place, Location):
        return place
    if place is None:
        place = MemoryStore()
    if isinstance(place, Store):
        if storage_options:
            raise InvalidInputError("storage_options goes with a URL; this is a store already")
        if type(place) is LocalStore:
            return Location(LocalStore(place.root.absolute()), read_only or place.read_only)
        if isinstance(place, ZipStore) and not (read_only or place.read_only):
            raise NotWritableError(
                f"{place}: a .zip takes no draws, because what it holds cannot be replaced; create "
                f"the trace in a directory, and zip that when it is finished"
            )
        sync(place._ensure_open())
        return Location(place, read_only or place.read_only)
    if not isinstance(place, str | os.PathLike):
        raise InvalidInputError(
            f"a trace lives at a path, a URL, a zarr Store, or None for memory; "
            f"got {type(place).__name__}"
        )
    text = os.fspath(place)
    if text.startswith("file://"):
        text = text.removeprefix("file://")
    if "://" in text:
        from zarr.storage import FsspecStore

        try:
            store = FsspecStore.from_url(text, storage_options=dict(storage_options or {}))
        except ImportError as error:
            packages = _PACKAGES.get(text.partition("://")[0], "fsspec")
            raise InvalidInputError(
                f"{text} cannot be opened, a package is missing ({error}): pip install {packages}"
            ) from error
        except ValueError as error:
            raise TraceNotFoundError(f"{text} cannot be opened: {error}") from error
        return Location(store, read_only, address=(text, dict(storage_options or {})))
    if storage_options:
        raise InvalidInputError(f"storage_options goes with a URL; {text!r} is a local path")
    path = Path(text).expanduser().absolute()
    try:
        is_file = S_ISREG(path.stat().st_mode)
    except PermissionError as error:
        raise TraceNotFoundError(
            f"{path} cannot be looked at: {error.strerror}. Ask its owner to let you read every "
            "directory on the way to it"
        ) from None
    except OSError:
        is_file = False
    if is_file:
        if path.suffix.lower() != ".zip":
            raise TraceNotFoundError(
                f"{path} is a file; a trace is a directory (run.zarr) or a .zip of a finished one"
            )
        try:
            return Location(sync(ZipStore.open(path, mode="r")), read_only=True)
        except BadZipFile:
            raise TraceNotFoundError(f"{path} is no zip file; is the path right?") from None
    return Location(LocalStore(path), read_only)


def _relocate(
    place: Place, read_only: bool, storage_options: dict[str, Any] | None, prefix: str
) -> Location:
    location = locate(place, read_only=read_only, storage_options=storage_options)
    return location.below(prefix) if prefix else location


def _is_synchronous(store: Store) -> bool:
    """Whether a store answers without waiting: a wrapper has the methods whatever it wraps."""
    answers_at_once = hasattr(store, "set_sync") and hasattr(store, "get_sync")
    inside = getattr(store, "_store", None)
    if isinstance(store, WrapperStore) and isinstance(inside, Store):
        return answers_at_once and _is_synchronous(inside)
    return answers_at_once


def _patience() -> float:
    """Seconds to wait for the answer to one request: what zarr was told, or a minute."""
    return float(zarr.config.get("async.timeout", None) or _PATIENCE)


def _write_into_array(path: str, data: bytes) -> None:
    """Write a file whole, and of the directories that it misses make only those of its array."""
    try:
        write_file_into(path, data)
    except FileNotFoundError:
        directory = os.path.dirname(path)
        if os.path.basename(directory) != "c":
            raise
        # A key with "/", in a trace that comes from another store.
        with suppress(FileExistsError):
            os.mkdir(directory)
        write_file_into(path, data)


class RegularFiles(LocalStore):
    """A local store to read from, whose keys are files: a pipe or a device is refused."""

    def __init__(self, root: Path | str, *, read_only: bool = True) -> None:
        super().__init__(root, read_only=read_only)

    async def get(self, key: str, *args: Any, **options: Any) -> Any:
        """The bytes under a key."""
        self._require_regular(key)
        return await super().get(key, *args, **options)

    def get_sync(self, key: str, *args: Any, **options: Any) -> Any:
        """The bytes under a key."""
        self._require_regular(key)
        return super().get_sync(key, *args, **options)

    def _require_regular(self, key: str) -> None:
        with suppress(FileNotFoundError, NotADirectoryError):
            status = os.stat(self.root / key)
            is_file = S_ISREG(status.st_mode)
            if not is_file and not S_ISDIR(status.st_mode):
                raise DamagedTraceError(
                    f"{self.root}: {key} cannot be read (it is neither a file nor a directory)"
                )
            if is_file and status.st_size > LARGEST:
                raise DamagedTraceError(
                    f"{self.root}: {key} cannot be read (it has {status.st_size:,} bytes)"
                )


class Location:
    """A Zarr store seen as keys and bytes.

    Attributes
    ----------
    store : zarr.abc.store.Store
        The store itself, read-only when `read_only` is.
    path : pathlib.Path or None
        The directory of a local store: its files can be renamed and mapped.
    takes_any_key : bool
        Whether the store keeps a chunk whose array has no document.
    """

    def __init__(
        self,
        store: Store,
        read_only: bool,
        address: tuple[str, dict[str, Any]] | None = None,
        prefix: str = "",
    ) -> None:
        self.store = store.with_read_only(True) if read_only and not store.read_only else store
        self.read_only = read_only
        self.path = store.root / prefix if isinstance(store, LocalStore) else None
        # zarr's own store does the same with files, in twice the time.
        self._root = str(store.root) if type(store) is LocalStore else ""
        self._address = address
        self._prefix = prefix  # of every key, with a slash at its end
        self._process = os.getpid()
        # LocalStore, MemoryStore and, in a newer zarr, a wrapper around one of them.
        self._direct = _is_synchronous(store)
        self._whole = remote.whole(store)
        self.takes_any_key = remote.takes_any_key(store)
        remote.forget_listings(store)

    def __str__(self) -> str:
        if self.path is not None:
            return str(self.path)
        below = f"/{self._prefix[:-1]}" if self._prefix else ""
        if self._address is not None:
            return self._address[0].rstrip("/") + below
        return ("memory" if self.in_memory else str(self.store)) + below

    def below(self, prefix: str) -> Location:
        """The same store from a group in it on."""
        if type(self.store) is LocalStore:
            return Location(LocalStore(self.store.root / prefix), self.read_only)
        inside = f"{self._prefix}{prefix}/"
        location = Location(self.store, self.read_only, self._address, inside)
        location._process = self._process
        return location

    @property
    def in_memory(self) -> bool:
        """Whether the draws live in this process alone."""
        return isinstance(self.store, MemoryStore)

    def __reduce__(self) -> tuple[Any, ...]:
        if self.in_memory:
            raise NotShareableError(
                "a trace in memory lives in this process alone and cannot be sent to another; "
                "create it with a path (zarrtrace.create('run.zarr', ...)), or use threads"
            )
        if self.path is not None:
            return _relocate, (str(self.path), self.read_only, None, "")
        below = self._prefix[:-1]
        if self._address is not None:
            return _relocate, (self._address[0], self.read_only, self._address[1], below)
        return _relocate, (self.store, self.read_only, None, below)

    def require_writable(self) -> None:
        """Refuse when the store is read-only, or its memory belongs to a parent process."""
        if self.read_only:
            zipped = "a .zip is not written to; unpack it into a directory"
            again = "open it with zarrtrace.open(..., mode='a') to write"
            remedy = zipped if str(self).startswith("zip:") else again
            raise NotWritableError(f"{self} is open read-only; {remedy}")
        if self.in_memory and os.getpid() != self._process:
            raise NotShareableError(
                "this is a forked copy of a trace in memory: what is recorded here would be lost "
                "with this process; create the trace with a path, or use threads"
            )

    @property
    def separator(self) -> str:
        """What stands between the numbers in the keys of a new array's chunks.

        "." keeps an array in one directory; "/" is what every store takes.
        """
        return "/" if self.path is None else "."

    @property
    def waits(self) -> bool:
        """Whether reading means waiting for another machine, so that many at a time are better."""
        return not self._direct

    @property
    def plain_store(self) -> Store:
        """The store for zarr-python to read, which gets nothing but regular files."""
        if type(self.store) is LocalStore:
            return RegularFiles(self.store.root)
        return remote.read_whole(self.store)

    # Reading ------------------------------------------------------------------------------

    def stamp(self, key: str) -> tuple[int, ...] | None:
        """What is the same as long as the bytes under a key are; None where nothing says it.

        A file that was put in place of another differs in its times, unless both were written
        within the few milliseconds that file systems count in: a file so young has no stamp.
        """
        if not self._root:
            return None
        try:
            descriptor, size = open_regular(f"{self._root}/{key}")
        except OSError:
            return None
        try:
            status = os.fstat(descriptor)
        finally:
            os.close(descriptor)
        if time.time() - max(status.st_mtime, status.st_ctime) < _YOUNG:
            return None
        return status.st_ino, size, status.st_mtime_ns, status.st_ctime_ns

    def read(self, key: str, most: int | None = None) -> memoryview | None:
        """The bytes under a key, or None.

        Raises
        ------
        DamagedTraceError
            There is something else than a file, or more than `most` bytes.
        """
        if self._root:
            try:
                return memoryview(read_file(f"{self._root}/{key}", most or LARGEST))
            except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
                return None
            except PermissionError:
                raise
            except OSError as error:
                raise DamagedTraceError(
                    f"{self}: {key} cannot be read ({error.strerror})"
                ) from error
        key = self._prefix + key
        prototype = zarr.buffer.cpu.buffer_prototype
        with self._errors_of_ours(f"{key} cannot be read"):
            if self._direct:
                buffer = self.store.get_sync(key, prototype=prototype)  # type: ignore[attr-defined]
            else:
                buffer = sync(self._get(key))
        return None if buffer is None else memoryview(buffer.as_numpy_array())

    def read_many(self, keys: Iterable[str], most: int | None = None) -> list[memoryview | None]:
        """The bytes under each key, fetched side by side where the store is remote."""
        keys = list(keys)
        if self._direct:
            return [self.read(key, most) for key in keys]

        async def gather() -> list[memoryview | None]:
            buffers = await asyncio.gather(*(self._get(self._prefix + key) for key in keys))
            return [None if b is None else memoryview(b.as_numpy_array()) for b in buffers]

        with self._errors_of_ours("it cannot be read"):
            return sync(gather())

    def hold(self, path: str, names: Iterable[str], data: bytes) -> list[bool]:
        """Whether there are just these bytes under each name below a path.

        Reads as little as that takes.
        """
        keys = [f"{path}/{name}" for name in names]
        if self._root:
            return [file_holds(f"{self._root}/{key}", data) for key in keys]
        asked = keys if self._direct else self._with_size(path, keys, len(data))
        found = dict(zip(asked, self.read_many(asked), strict=True))
        return [bytes(found.get(key) or b"") == data for key in keys]

    def _with_size(self, path: str, keys: list[str], size: int) -> list[str]:
        listed = self.listing(path)
        if listed is not None:
            return [key for key in keys if key in listed and listed[key].size == size]
        return [key for key, found in zip(keys, self._sizes(keys), strict=True) if found == size]

    def _sizes(self, keys: list[str]) -> list[int | None]:
        async def size(key: str) -> int | None:
            try:
                return await asyncio.wait_for(self.store.getsize(key), _patience())
            except FileNotFoundError:
                return None

        async def gather() -> list[int | None]:
            return await asyncio.gather(*(size(self._prefix + key) for key in keys))

        with self._errors_of_ours("it cannot be read"):
            return sync(gather())

    async def _get(self, key: str) -> Any:
        prototype = zarr.buffer.cpu.buffer_prototype
        try:
            return await asyncio.wait_for(self.store.get(key, prototype, self._whole), _patience())
        except (FileNotFoundError, NotADirectoryError):
            return None

    @contextmanager
    def _errors_of_ours(
        self, what: str, kind: type[TraceError] = TraceError, but: tuple[type[Exception], ...] = ()
    ) -> Iterator[None]:
        """Errors of a store that is not a directory as errors of ours."""
        try:
            yield
        except (TraceError, MemoryError):
            raise
        except (BadZipFile, zlib.error) as error:
            raise DamagedTraceError(f"{self}: {what} ({error})") from error
        except TimeoutError as error:
            raise kind(
                f"{self}: {what}, the store has not answered for {_patience():.0f} s; "
                f"zarr.config.set({{'async.timeout': seconds}}) waits longer"
            ) from error
        except Exception as error:
            if isinstance(error, but):
                raise
            raise kind(f"{self}: {what} ({type(error).__name__}: {error})") from error

    def exists(self, key: str) -> bool:
        """Whether there is something under a key."""
        if self.path is not None:
            return (self.path / key).is_file()
        if self._direct:
            return self.read(key) is not None
        with self._errors_of_ours(f"{key} cannot be read"):
            return sync(asyncio.wait_for(self.store.exists(self._prefix + key), _patience()))

    def age(self, key: str) -> float | None:
        """Seconds since a key was written, on the clock that stamps the files of the store.

        None where the store has no such clock, or nothing under the key.
        """
        if self.path is None:
            return None
        path = f"{self._root}/{key}"
        probe = f"{path}.{uuid.uuid4().hex}.partial"
        try:
            written = os.stat(path).st_mtime
            write_file_into(probe, b"")
            now = os.stat(probe).st_mtime
            os.unlink(probe)
        except OSError:
            return None
        return now - written

    def keys(self, prefix: str) -> list[str]:
        """Every key below a prefix, in no particular order."""
        if self.path is not None:
            start = len(str(self.path)) + 1
            return [
                f"{directory}/{name}"[start:]
                for directory, _, names in os.walk(self.path / prefix)
                for name in names
            ]

        if prefix and not self.takes_any_key and not self.exists(f"{prefix}/zarr.json"):
            return []  # such a store lists what is in groups and arrays, and nothing else
        below = self._prefix + (f"{prefix.rstrip('/')}/" if prefix else "")

        async def collect() -> list[str]:
            found = [key async for key in self.store.list_prefix(below)]
            return [key.removeprefix(self._prefix) for key in found]

        with self._errors_of_ours(f"the keys below {prefix!r} cannot be listed"):
            return sync(collect())

    def children(self, prefix: str) -> list[str]:
        """The names directly below a prefix, in no particular order."""
        if self.path is not None:
            with suppress(FileNotFoundError, NotADirectoryError):
                return os.listdir(self.path / prefix)
            return []

        with self._errors_of_ours(f"the keys below {prefix!r} cannot be listed"):
            return sync(remote.names(self.store, self._prefix + prefix))

    def listing(self, prefix: str) -> dict[str, Listed] | None:
        """Every key below a prefix, with its size, and the MD5 of its bytes where the store has it.

        None where the store would have to be asked for each key.
        """
        if self._direct:
            return None
        below = self._prefix + (f"{prefix.rstrip('/')}/" if prefix else "")
        with self._errors_of_ours(f"the keys below {prefix!r} cannot be listed"):
            found = sync(remote.listing(self.store, below))
        if found is None:
            return None
        return {key.removeprefix(self._prefix): listed for key, listed in found.items()}

    # Writing ------------------------------------------------------------------------------

    def write_again(self, key: str, data: bytes) -> None:
        """Put other bytes under a key, but bring no directory back that was removed.

        Raises
        ------
        TraceNotFoundError
            The directory is gone.
        """
        try:
            self._put(key, data, _write_into_array)
        except FileNotFoundError:
            raise TraceNotFoundError(
                f"{self}: the directory of {key} is gone; was the trace removed?"
            ) from None

    def write(self, key: str, data: bytes) -> None:
        """Put bytes under a key: a reader finds the old ones or the new ones, never a mixture."""
        self._put(key, data, write_file)

    def create(self, key: str, data: bytes) -> bool:
        """Put bytes under a key where there are none; False where there are.

        Of several processes that do so at the same time one succeeds, on S3 and whatever else has
        conditional puts; elsewhere those hold each other off that need it.
        """
        if self._direct:
            if self.exists(key):
                return False
            self.write(key, data)
            return True
        buffer = zarr.buffer.cpu.Buffer.from_bytes(data)
        with self._errors_of_ours(f"{key} cannot be written", NotWritableError):
            made = remote.create(self.store, self._prefix + key, buffer)
            return sync(asyncio.wait_for(made, _patience()))

    def _put(self, key: str, data: bytes, to_file: Callable[[str, bytes], None]) -> None:
        try:
            if self._root:
                to_file(f"{self._root}/{key}", data)
                return
            # Fresh bytes each time: zarr 3.2.1's MemoryStore and earlier ones keep what they get.
            buffer = zarr.buffer.cpu.Buffer.from_bytes(data)
            if self._direct:
                self.store.set_sync(self._prefix + key, buffer)  # type: ignore[attr-defined]
            else:
                with self._errors_of_ours(f"{key} cannot be written", NotWritableError, (OSError,)):
                    sync(self._set(key, data))
        except IsADirectoryError as error:
            raise self._is_directory(key) from error
        except OSError as error:
            remedy = _REMEDIES.get(error.errno or 0)
            if remedy is None and self._direct:
                raise
            if remedy is None:
                remedy = f"{type(error).__name__}: {error}"
            raise NotWritableError(f"{self}: {key} cannot be written, {remedy}") from error

    def _is_directory(self, key: str) -> DamagedTraceError:
        return DamagedTraceError(f"{self}: there is a directory in place of {key}; remove it")

    def write_many(self, items: Iterable[tuple[str, bytes]]) -> None:
        """Put bytes under each key, in order; side by side where the store is remote."""
        if self._direct or not self.takes_any_key:
            for key, data in items:
                self.write(key, data)
            return

        async def put(batch: list[tuple[str, bytes]]) -> None:
            await asyncio.gather(*(self._set(key, data) for key, data in batch))

        # So many at a time, or a large group would be in memory as a whole.
        remaining = iter(items)
        while batch := list(islice(remaining, _SIDE_BY_SIDE)):
            with self._errors_of_ours("it cannot be written", NotWritableError):
                sync(put(batch))

    def sync_tree(self, prefix: str) -> None:
        """Return when all that is below a prefix on a local disk survives power loss."""
        if self.path is not None:
            sync_tree(self.path / prefix)

    async def _set(self, key: str, data: bytes) -> None:
        buffer = zarr.buffer.cpu.Buffer.from_bytes(data)
        patience = _patience() + len(data) / _SLOWEST
        await asyncio.wait_for(self.store.set(self._prefix + key, buffer), patience)

    @contextmanager
    def alone(self, patience: float = 0.0) -> Iterator[bool]:
        """Hold off other processes that would do the same; False when one is at it all the time.

        On a local disk only; elsewhere nothing is held and the answer is True. Patience is in
        seconds.
        """
        if self.path is None or not can_lock():
            yield True
            return
        deadline = time.monotonic() + patience
        while (descriptor := lock(self.path)) is None and time.monotonic() < deadline:
            time.sleep(0.001)
        try:
            yield descriptor is not None
        finally:
            if descriptor is not None:
                os.close(descriptor)

    def make_durable(self, keys: Iterable[str]) -> None:
        """Return when what was written under these keys survives power loss.

        On a remote store it does when it is written.
        """
        if self.path is None:
            return
        paths = [self.path / key for key in keys]
        try:
            sync_paths(paths)
            sync_paths(dict.fromkeys(path.parent for path in paths))
        except OSError as error:
            reason = _REMEDIES.get(error.errno or 0, f"{type(error).__name__}: {error}")
            raise NotWritableError(
                f"{self}: what was written is not on the disk, {reason}"
            ) from error

    def delete(self, key: str) -> None:
        """Remove a key, if it is there; what a link points to stays."""
        self.require_no_link(key.rpartition("/")[0])
        if self._root:
            try:
                os.unlink(f"{self._root}/{key}")
            except FileNotFoundError:
                pass
            except IsADirectoryError as error:
                raise self._is_directory(key) from error
        elif self._direct:
            self.store.delete_sync(self._prefix + key)  # type: ignore[attr-defined]
        else:
            with self._errors_of_ours(f"{key} cannot be removed", NotWritableError):
                sync(asyncio.wait_for(self.store.delete(self._prefix + key), _patience()))

    def delete_many(self, keys: Iterable[str]) -> None:
        """Remove each key that is there, many in one request where the store is remote."""
        if self._direct:
            for key in keys:
                self.delete(key)
            return
        remaining = iter(keys)
        while batch := [self._prefix + key for key in islice(remaining, remote.MOST_REMOVED)]:
            patience = _patience() + len(batch) * _SECONDS_A_KEY
            with self._errors_of_ours("keys cannot be removed", NotWritableError):
                sync(asyncio.wait_for(remote.remove(self.store, batch), patience))

    def delete_tree(self, prefix: str) -> None:
        """Remove everything below a prefix, if there is anything; what a link points to stays."""
        if self.path is not None:
            self.require_no_link(prefix.rpartition("/")[0])
            if os.path.islink(self.path / prefix):
                os.unlink(self.path / prefix)
            shutil.rmtree(self.path / prefix, ignore_errors=True)
        elif self._direct:
            sync(self.store.delete_dir(self._prefix + prefix))
        else:
            self.delete_many(self.keys(prefix))

    def remove_partial_files(
        self, directory: str = "", prefix: str = "", outside: Container[str] = ()
    ) -> list[str]:
        """Remove what killed processes left half-written below a directory; gives its keys.

        Whoever could still be writing such files must not: the caller sees to that, or names the
        groups where others write.
        """
        if self.path is None:
            return []
        removed = []
        for file in list(files_below(self.path / directory)):
            if not file.name.endswith(".partial") or not file.name.startswith(prefix):
                continue
            key = file.relative_to(self.path)
            if key.parts[0] not in outside:
                file.unlink(missing_ok=True)
                removed.append(str(key))
        return removed

    def clear(self) -> None:
        """Remove everything there."""
        sync(self.store.delete_dir(self._prefix[:-1]) if self._prefix else self.store.clear())

    def require_no_link(self, *prefixes: str) -> None:
        """Refuse to change what is below a prefix where a link leads out of the store.

        Raises
        ------
        NotWritableError
            A directory on the way is a link: what it points to may belong to another trace.
        """
        if self.path is None:
            return
        for prefix in prefixes:
            path = self.path
            for part in prefix.split("/") if prefix else ():
                path = path / part
                if os.path.islink(path):
                    raise NotWritableError(
                        f"{path} is a link to {os.readlink(path)}, and what is there is not "
                        f"changed: put a copy in the place of the link"
                    )

    @property
    def renames(self) -> bool:
        """Whether a tree of keys can be renamed; elsewhere each key is copied."""
        return self.path is not None

    def share(self, source: str, target: str) -> None:
        """Have the bytes of a key under another one too: as a link, where there are links.

        A local target that is there already stays as it is.
        """
        if self.path is None:
            data = self.read(source)
            if data is not None:
                self.write(target, bytes(data))
            return
        self.require_no_link(source.rpartition("/")[0], target.rpartition("/")[0])
        (self.path / target).parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(self.path / source, self.path / target)
        except FileExistsError:
            pass  # done before a kill
        except FileNotFoundError:
            raise
        except OSError:
            # A file system without hard links.
            if not os.path.lexists(self.path / target):
                self.write(target, (self.path / source).read_bytes())

    def share_many(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Have the bytes of each first key under the second one too: a remote store copies them."""
        if self._direct or not self.takes_any_key:
            for source, target in pairs:
                self.share(source, target)
            return

        async def copy(batch: list[tuple[str, str]]) -> None:
            await asyncio.gather(
                *(
                    asyncio.wait_for(
                        remote.copy(self.store, self._prefix + source, self._prefix + target),
                        2 * _patience(),
                    )
                    for source, target in batch
                )
            )

        remaining = iter(pairs)
        while batch := list(islice(remaining, _SIDE_BY_SIDE)):
            with self._errors_of_ours("keys cannot be copied", NotWritableError):
                sync(copy(batch))

    def move_tree(self, source: str, target: str) -> None:
        """Rename a directory of a local store, with everything below it."""
        assert self.path is not None
        self.require_no_link(source.rpartition("/")[0], target.rpartition("/")[0])
        (self.path / target).parent.mkdir(parents=True, exist_ok=True)
        os.replace(self.path / source, self.path / target)
