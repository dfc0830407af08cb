"""An asynchronous store: many keys are requested at the same time, and waited for."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from itertools import islice
from typing import Any

import zarr.buffer.cpu
from zarr.abc.store import ByteRequest, RangeByteRequest, Store
from zarr.core.sync import sync

from ..errors import NotWritableError
from . import remote
from .failures import errors_of_ours, patience

_SIDE_BY_SIDE = 32
_SLOWEST = 100_000  # bytes per second of the slowest request
_SECONDS_A_KEY = 0.1  # for each key that one request removes


class WaitingStore:
    """The keys of a store of another machine, or of one that is used like it.

    Parameters
    ----------
    store : zarr.abc.store.Store
        The store itself.
    where : str
        Its name in errors.
    """

    def __init__(self, store: Store, where: str) -> None:
        self._store = store
        self._where = where
        self._whole = remote.whole(store)

    # Reading ------------------------------------------------------------------------------

    def read(self, key: str) -> memoryview | None:
        """The bytes under a key, or None."""
        with errors_of_ours(self._where, f"{key} cannot be read"):
            return _bytes_of(sync(self._get(key, self._whole)))

    def read_many(self, keys: list[str], first: int | None = None) -> list[memoryview | None]:
        """The bytes under each key, or only the first ones."""
        part = self._whole if first is None else RangeByteRequest(0, first)

        async def gather() -> list[Any]:
            return await asyncio.gather(*(self._get(key, part) for key in keys))

        with errors_of_ours(self._where, "it cannot be read"):
            return [_bytes_of(buffer) for buffer in sync(gather())]

    async def _get(self, key: str, part: ByteRequest | None) -> Any:
        prototype = zarr.buffer.cpu.buffer_prototype
        try:
            return await asyncio.wait_for(self._store.get(key, prototype, part), patience())
        except (FileNotFoundError, NotADirectoryError):
            return None

    def sizes(self, keys: list[str]) -> list[int | None]:
        """The number of bytes under each key, or None."""

        async def size(key: str) -> int | None:
            try:
                return await asyncio.wait_for(self._store.getsize(key), patience())
            except FileNotFoundError:
                return None

        async def gather() -> list[int | None]:
            return await asyncio.gather(*(size(key) for key in keys))

        with errors_of_ours(self._where, "it cannot be read"):
            return sync(gather())

    def exists(self, key: str) -> bool:
        """Whether a key exists."""
        with errors_of_ours(self._where, f"{key} cannot be read"):
            return sync(asyncio.wait_for(self._store.exists(key), patience()))

    # Writing ------------------------------------------------------------------------------

    def write(self, key: str, data: bytes) -> None:
        """Put bytes under a key; an OSError is raised as it is."""
        with errors_of_ours(self._where, f"{key} cannot be written", NotWritableError, (OSError,)):
            sync(self._set(key, data))

    def write_many(self, items: Iterable[tuple[str, bytes]]) -> None:
        """Put bytes under each key."""

        async def put(batch: list[tuple[str, bytes]]) -> None:
            await asyncio.gather(*(self._set(key, data) for key, data in batch))

        # A few at a time, or a large group would be in memory as a whole.
        remaining = iter(items)
        while batch := list(islice(remaining, _SIDE_BY_SIDE)):
            with errors_of_ours(self._where, "it cannot be written", NotWritableError):
                sync(put(batch))

    async def _set(self, key: str, data: bytes) -> None:
        buffer = zarr.buffer.cpu.Buffer.from_bytes(data)
        seconds = patience() + len(data) / _SLOWEST
        await asyncio.wait_for(self._store.set(key, buffer), seconds)

    def create(self, key: str, data: bytes) -> bool:
        """Put bytes under a new key; False if the key exists."""
        buffer = zarr.buffer.cpu.Buffer.from_bytes(data)
        with errors_of_ours(self._where, f"{key} cannot be written", NotWritableError):
            return sync(asyncio.wait_for(remote.create(self._store, key, buffer), patience()))

    def copy_many(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Copy each first key to the second one."""

        async def copy(batch: list[tuple[str, str]]) -> None:
            copies = (remote.copy(self._store, source, target) for source, target in batch)
            seconds = 2 * patience()
            await asyncio.gather(*(asyncio.wait_for(one, seconds) for one in copies))

        remaining = iter(pairs)
        while batch := list(islice(remaining, _SIDE_BY_SIDE)):
            with errors_of_ours(self._where, "keys cannot be copied", NotWritableError):
                sync(copy(batch))

    # Removing -----------------------------------------------------------------------------

    def delete(self, key: str) -> None:
        """Remove a key if it exists."""
        with errors_of_ours(self._where, f"{key} cannot be removed", NotWritableError):
            sync(asyncio.wait_for(self._store.delete(key), patience()))

    def delete_many(self, keys: Iterable[str]) -> None:
        """Remove the keys that exist, many in one request."""
        remaining = iter(keys)
        while batch := list(islice(remaining, remote.MOST_REMOVED)):
            seconds = patience() + len(batch) * _SECONDS_A_KEY
            with errors_of_ours(self._where, "keys cannot be removed", NotWritableError):
                sync(asyncio.wait_for(remote.remove(self._store, batch), seconds))


def _bytes_of(buffer: Any) -> memoryview | None:
    return None if buffer is None else memoryview(buffer.as_numpy_array())
