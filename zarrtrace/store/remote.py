"""Stores of other machines: what is copied and removed there, without passing through this one."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from glob import has_magic
from typing import TYPE_CHECKING, Any

import zarr.buffer.cpu
from zarr.abc.store import ByteRequest, OffsetByteRequest, Store
from zarr.storage import (
    FsspecStore,
    LocalStore,
    MemoryStore,
    ObjectStore,
    WrapperStore,
    ZipStore,
)

if TYPE_CHECKING:
    from fsspec.asyn import AsyncFileSystem

# What S3 removes in one request.
MOST_REMOVED = 1000


def whole(store: Store) -> ByteRequest | None:
    """How all bytes of a key are asked for in one request.

    Without a beginning s3fs asks for the size first, or takes it from an old listing.
    """
    is_s3 = isinstance(store, FsspecStore) and "s3" in store.fs.protocol
    return OffsetByteRequest(0) if is_s3 else None


def takes_any_key(store: Store) -> bool:
    """Whether a store keeps bytes under any key; Icechunk wants the document of an array first."""
    if isinstance(store, WrapperStore):
        return takes_any_key(store._store)
    return isinstance(store, FsspecStore | ObjectStore | LocalStore | MemoryStore | ZipStore)


async def copy(store: Store, source: str, target: str) -> None:
    """Copy the bytes of a key to another one: where they are, if the store can do that.

    Raises
    ------
    FileNotFoundError
        There is nothing under the source.
    """
    if isinstance(store, FsspecStore) and _is_remote(store.fs):
        with suppress(NotImplementedError):
            await store.fs._cp_file(_path(store, source), _path(store, target))
            return
    elif isinstance(store, ObjectStore):
        import obstore
        from obstore.exceptions import NotSupportedError

        with suppress(NotSupportedError, NotImplementedError):
            await obstore.copy_async(store.store, source, target)
            return
    data = await store.get(source, zarr.buffer.cpu.buffer_prototype, whole(store))
    if data is None:
        raise FileNotFoundError(source)
    await store.set(target, data)


async def remove(store: Store, keys: Sequence[str]) -> None:
    """Remove each key that is there: all in one request, if the store can do that."""
    if isinstance(store, FsspecStore) and _is_remote(store.fs):
        paths = [_path(store, key) for key in keys]
        # A name such as β[0] would be taken for a pattern.
        if not any(map(has_magic, paths)):
            with suppress(FileNotFoundError):
                await store.fs._rm(paths)
                return
        await asyncio.gather(*(_remove_file(store.fs, path) for path in paths))
        return
    if isinstance(store, ObjectStore):
        import obstore

        with suppress(FileNotFoundError):
            await obstore.delete_async(store.store, list(keys))
            return
    # One of them is not there, and the others may still be.
    await asyncio.gather(*(store.delete(key) for key in keys))


async def _remove_file(files: AsyncFileSystem, path: str) -> None:
    with suppress(FileNotFoundError):
        await files._rm_file(path)


def _is_remote(files: Any) -> bool:
    """Whether a file system is one that waits for another machine, and not one made to look so."""
    from fsspec.implementations.asyn_wrapper import AsyncFileSystemWrapper

    return not isinstance(files, AsyncFileSystemWrapper)


def _path(store: FsspecStore, key: str) -> str:
    """The path of a key in the file system of its store."""
    root = store.path.rstrip("/")
    return f"{root}/{key}" if root else key
