"""Where a trace lives: a Zarr store seen as keys and bytes, and an address for other processes.

Everything above this module works on keys and bytes. Local directories and memory are reached
through the stores' synchronous methods; every other store through its asynchronous ones, many keys
at a time.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Container, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from itertools import islice
from typing import Any

import zarr.buffer.cpu
from zarr.abc.store import Store
from zarr.core.sync import sync
from zarr.storage import LocalStore, MemoryStore

from ..errors import NotShareableError, NotWritableError, TraceNotFoundError
from . import directory, remote
from .at_once import AT_ONCE, at_once
from .failures import changing, directory_in_place_of, errors_of_ours, refused
from .local import (
    file_holds,
    read_file,
    read_first,
    read_twice,
    remove_tree,
    sync_tree,
    unreadable,
    write_file,
)
from .network import network_of
from .plain_store import LARGEST, plain_store
from .remote import Listed
from .waiting import WaitingStore


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
        self._direct = remote.answers_at_once(store)
        self.takes_any_key = remote.takes_any_key(store)
        remote.forget_listings(store)
        self._waiting = WaitingStore(self.store, str(self))

    def __str__(self) -> str:
        if self.path is not None:
            return str(self.path)
        below = f"/{self._prefix[:-1]}" if self._prefix else ""
        if self._address is not None:
            return self._address[0].rstrip("/") + below
        return ("memory" if self.in_memory else str(self.store)) + below

    def below(self, prefix: str) -> Location:
        """The same store, seen from a group in it."""
        if type(self.store) is LocalStore:
            return Location(LocalStore(self.store.root / prefix), self.read_only)
        inside = f"{self._prefix}{prefix}/"
        location = Location(self.store, self.read_only, self._address, inside)
        location._process = self._process
        return location

    @cached_property
    def network(self) -> str:
        """The type of its network file system, such as `nfs4`; "" for any other place.

        Other machines see what is written there late, and not in the order of the writes.
        """
        return "" if self.path is None else network_of(self.path)

    @property
    def in_memory(self) -> bool:
        """Whether the draws are in the memory of this process alone."""
        return isinstance(self.store, MemoryStore)

    def __reduce__(self) -> tuple[Any, ...]:
        if self.in_memory:
            raise NotShareableError(
                "a trace in memory belongs to this process and cannot be sent to another; "
                "create it with a path (zarrtrace.create('run.zarr', ...)), or use threads"
            )
        if self.path is not None:
            return _located_again, (str(self.path), self.read_only, None, "")
        below = self._prefix[:-1]
        if self._address is not None:
            return _located_again, (self._address[0], self.read_only, self._address[1], below)
        return _located_again, (self.store, self.read_only, None, below)

    def require_writable(self) -> None:
        """Refuse when the store is read-only, or its memory belongs to a parent process."""
        if self.read_only:
            zipped = "a .zip cannot be written; unpack it into a directory"
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
        """The separator of the numbers in the keys of a new array's chunks.

        "." keeps an array in one directory; every store takes "/".
        """
        return "/" if self.path is None else "."

    @property
    def waits(self) -> bool:
        """Whether reading waits for another machine, so that many keys at a time are faster."""
        return not self._direct

    @property
    def plain_store(self) -> Store:
        """The store for zarr-python to read, which reads regular files only."""
        return plain_store(self.store)

    # Reading ------------------------------------------------------------------------------

    def stamp(self, key: str) -> tuple[int, ...] | None:
        """A stamp that changes when the bytes under a key change; None where there is none.

        A file that was put in place of another differs in its times, unless both were written
        within the few milliseconds that file systems count in: a file so young has no stamp.
        """
        return directory.stamp(f"{self._root}/{key}", bool(self.network)) if self._root else None

    def read(self, key: str, most: int | None = None) -> memoryview | None:
        """The bytes under a key, or None.

        Raises
        ------
        DamagedTraceError
            There is something other than a file, or more than `most` bytes.
        """
        if self._root:
            try:
                path = f"{self._root}/{key}"
                return memoryview(read_twice(lambda: read_file(path, most or LARGEST)))
            except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
                return None
            except PermissionError:
                raise
            except OSError as error:
                raise unreadable(key, str(self), error) from error
        if not self._direct:
            return self._waiting.read(self._prefix + key)
        key = self._prefix + key
        with errors_of_ours(self, f"{key} cannot be read"):
            prototype = zarr.buffer.cpu.buffer_prototype
            buffer = self.store.get_sync(key, prototype=prototype)  # type: ignore[attr-defined]
        return None if buffer is None else memoryview(buffer.as_numpy_array())

    def read_many(self, keys: Iterable[str], most: int | None = None) -> list[memoryview | None]:
        """The bytes under each key, fetched in parallel where the store is remote."""
        if self._direct:
            return [self.read(key, most) for key in keys]
        return self._waiting.read_many([self._prefix + key for key in keys])

    def read_first(self, keys: Iterable[str], size: int) -> list[memoryview | None]:
        """The first bytes under each key, at most `size`."""
        if self._root:
            return [self._first_of_file(key, size) for key in keys]
        if not self._direct:
            return self._waiting.read_many([self._prefix + key for key in keys], size)
        return [None if data is None else data[:size] for data in map(self.read, keys)]

    def _first_of_file(self, key: str, size: int) -> memoryview | None:
        try:
            return memoryview(read_twice(lambda: read_first(f"{self._root}/{key}", size)))
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            return None
        except PermissionError:
            raise
        except OSError as error:
            raise unreadable(key, str(self), error) from error

    def hold(self, path: str, names: Iterable[str], data: bytes) -> list[bool]:
        """Whether exactly these bytes are under each name below a path.

        It reads as little as possible.
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
        sizes = self._waiting.sizes([self._prefix + key for key in keys])
        return [key for key, found in zip(keys, sizes, strict=True) if found == size]

    def exists(self, key: str) -> bool:
        """Whether a key exists."""
        if self.path is not None:
            return (self.path / key).is_file()
        if self._direct:
            return self.read(key) is not None
        return self._waiting.exists(self._prefix + key)

    def written_at(self, key: str) -> float | None:
        """When a key was written, in seconds since the epoch on the clock that stamps the files.

        None where the store has no such clock, or nothing under the key.
        """
        if self.path is None:
            return None
        try:
            return os.stat(f"{self._root}/{key}").st_mtime
        except OSError:
            return None

    def age(self, key: str) -> float | None:
        """Seconds since a key was written, on the clock that stamps the files of the store.

        None where the store has no such clock, or nothing under the key.
        """
        return None if self.path is None else directory.age(str(self.path / key))

    def keys(self, prefix: str) -> list[str]:
        """Every key below a prefix, in no particular order."""
        if self.path is not None:
            return directory.keys(self.path, prefix)
        if prefix and not self.takes_any_key and not self.exists(f"{prefix}/zarr.json"):
            return []  # such a store lists the keys of groups and arrays only
        below = self._prefix + (f"{prefix.rstrip('/')}/" if prefix else "")

        async def collect() -> list[str]:
            found = [key async for key in self.store.list_prefix(below)]
            return [key.removeprefix(self._prefix) for key in found]

        with errors_of_ours(self, f"the keys below {prefix!r} cannot be listed"):
            return sync(collect())

    def children(self, prefix: str) -> list[str]:
        """The names directly below a prefix, in no particular order."""
        if self.path is not None:
            with suppress(FileNotFoundError, NotADirectoryError):
                return os.listdir(self.path / prefix)
            return []

        with errors_of_ours(self, f"the keys below {prefix!r} cannot be listed"):
            return sync(remote.names(self.store, self._prefix + prefix))

    def listing(self, prefix: str) -> dict[str, Listed] | None:
        """Every key below a prefix, with its size, and its MD5 where the store lists one.

        None where the store would have to be asked for each key.
        """
        if self._direct:
            return None
        below = self._prefix + (f"{prefix.rstrip('/')}/" if prefix else "")
        with errors_of_ours(self, f"the keys below {prefix!r} cannot be listed"):
            found = sync(remote.listing(self.store, below))
        if found is None:
            return None
        return {key.removeprefix(self._prefix): listed for key, listed in found.items()}

    # Writing ------------------------------------------------------------------------------

    def write_again(self, key: str, data: bytes) -> None:
        """Replace the bytes under a key, without creating a directory that was removed.

        Raises
        ------
        TraceNotFoundError
            The directory is gone.
        """
        try:
            self._put(key, data, directory.write_into_array)
        except FileNotFoundError:
            raise TraceNotFoundError(
                f"{self}: the directory of {key} is gone; was the trace removed?"
            ) from None

    def write(self, key: str, data: bytes) -> None:
        """Put bytes under a key: a reader finds the old ones or the new ones, never a mixture."""
        self._put(key, data, write_file)

    def create(self, key: str, data: bytes) -> bool:
        """Put bytes under a new key; False if the key exists.

        If several processes do so at the same time, one succeeds on S3 and on other stores with
        conditional puts; elsewhere the callers that need it use a lock.
        """
        if self._direct:
            if self.exists(key):
                return False
            self.write(key, data)
            return True
        return self._waiting.create(self._prefix + key, data)

    def _put(self, key: str, data: bytes, to_file: Callable[[str, bytes, bool], None]) -> None:
        try:
            if self._root:
                to_file(f"{self._root}/{key}", data, bool(self.network))
                return
            if not self._direct:
                self._waiting.write(self._prefix + key, data)
                return
            # Fresh bytes each time: the MemoryStore of zarr <= 3.2.1 keeps the buffer itself.
            buffer = zarr.buffer.cpu.Buffer.from_bytes(data)
            self.store.set_sync(self._prefix + key, buffer)  # type: ignore[attr-defined]
        except IsADirectoryError as error:
            raise directory_in_place_of(self, key) from error
        except FileNotFoundError:
            raise
        except OSError as error:
            raise refused(self, f"{key} cannot be written", error) from error

    def write_many(self, items: Iterable[tuple[str, bytes]]) -> None:
        """Put bytes under each key, in order; in parallel where the store is remote."""
        if self.network:
            self._write_at_once(items)
        elif self._direct or not self.takes_any_key:
            for key, data in items:
                self.write(key, data)
        else:
            self._waiting.write_many((self._prefix + key, data) for key, data in items)

    def _write_at_once(self, items: Iterable[tuple[str, bytes]]) -> None:
        """Write files of a network file system: each of them waits for its server several times.

        No more of them are in memory than are written at once.
        """
        items = iter(items)
        while some := list(islice(items, AT_ONCE)):
            at_once(lambda item: self.write(*item), some)

    def sync_tree(self, prefix: str) -> None:
        """Wait until everything below a prefix on a local disk survives power loss."""
        if self.path is not None:
            with changing(self, f"{prefix} cannot be synced to the disk"):
                sync_tree(self.path / prefix)

    @contextmanager
    def alone(self, patience: float = 0.0) -> Iterator[bool]:
        """Hold a lock; yields False if another process still holds it after `patience` seconds.

        Only a local disk has this lock; elsewhere it yields True and holds nothing. Patience is in
        seconds.
        """
        if self.path is None:
            yield True
            return
        with directory.alone(self.path, patience) as is_alone:
            yield is_alone

    def make_durable(self, keys: Iterable[str]) -> None:
        """Wait until the bytes under these keys survive power loss.

        A remote store returns from a write only then.
        """
        if self.path is not None:
            directory.make_durable(self.path, keys)

    def delete(self, key: str) -> None:
        """Remove a key if it exists; the target of a link stays."""
        self.require_no_link(key.rpartition("/")[0])
        if self._root:
            try:
                os.unlink(f"{self._root}/{key}")
            except (FileNotFoundError, NotADirectoryError):
                pass  # no key is below a file
            except IsADirectoryError as error:
                raise directory_in_place_of(self, key) from error
            except OSError as error:
                raise refused(self, f"{key} cannot be removed", error) from error
        elif self._direct:
            self.store.delete_sync(self._prefix + key)  # type: ignore[attr-defined]
        else:
            self._waiting.delete(self._prefix + key)

    def delete_many(self, keys: Iterable[str]) -> None:
        """Remove the keys that exist, many in one request where the store is remote."""
        if self._direct:
            for key in keys:
                self.delete(key)
            return
        self._waiting.delete_many(self._prefix + key for key in keys)

    def delete_tree(self, prefix: str) -> None:
        """Remove everything below a prefix; the target of a link stays."""
        if self.path is not None:
            self.require_no_link(prefix.rpartition("/")[0])
            with changing(self, f"{prefix} cannot be removed"):
                if os.path.islink(self.path / prefix):
                    os.unlink(self.path / prefix)
                remove_tree(self.path / prefix)
        elif self._direct:
            sync(self.store.delete_dir(self._prefix + prefix))
        else:
            self.delete_many(self.keys(prefix))

    def remove_partial_files(
        self, below: str = "", prefix: str = "", outside: Container[str] = ()
    ) -> list[str]:
        """Remove what killed processes left half-written below a directory; returns the keys.

        No process may be writing such files: the caller makes sure of that, or passes the
        groups where others write.
        """
        if self.path is None:
            return []
        return directory.remove_partial_files(self.path, below, prefix, outside)

    def require_no_link(self, *prefixes: str) -> None:
        """Refuse to change what is below a prefix where a link leads out of the store.

        Raises
        ------
        NotWritableError
            A directory on the way is a link: what it points to may belong to another trace.
        """
        if self.path is not None:
            directory.require_no_link(self.path, *prefixes)

    @property
    def renames(self) -> bool:
        """Whether a tree of keys can be renamed; elsewhere each key is copied."""
        return self.path is not None

    def share(self, source: str, target: str) -> None:
        """Copy a key to another one: as a link, where there are links.

        An existing local target stays as it is.
        """
        if self.path is not None and directory.link(self.path, source, target):
            return
        data = self.read(source, sys.maxsize)
        if data is not None:
            self.write(target, bytes(data))

    def share_many(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Copy each first key to the second one; a remote store copies them itself."""
        if self._direct or not self.takes_any_key:
            for source, target in pairs:
                self.share(source, target)
            return

        inside = self._prefix
        self._waiting.copy_many((inside + source, inside + target) for source, target in pairs)

    def move_tree(self, source: str, target: str) -> None:
        """Rename a directory of a local store, with everything below it."""
        assert self.path is not None
        directory.move_tree(self.path, source, target)

    def exchange_trees(self, one: str, other: str) -> bool:
        """Let two directories of a local store change places at once; False where none can."""
        assert self.path is not None
        return directory.exchange_trees(self.path, one, other)


def _located_again(
    place: str | Store, read_only: bool, options: dict[str, Any] | None, prefix: str
) -> Location:
    """The location that was sent from another process, or copied."""
    if isinstance(place, Store):
        sync(place._ensure_open())
        location = Location(place, read_only or place.read_only)
    elif options is None:
        location = Location(LocalStore(place), read_only)
    else:
        location = Location(remote.open_url(place, options), read_only, address=(place, options))
    return location.below(prefix) if prefix else location
