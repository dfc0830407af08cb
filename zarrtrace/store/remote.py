"""Stores on other machines, where keys are copied and removed without passing through this one."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from contextlib import suppress
from glob import has_magic
from typing import TYPE_CHECKING, Any, NamedTuple

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

from ..errors import InvalidInputError, TraceNotFoundError

if TYPE_CHECKING:
    from fsspec.asyn import AsyncFileSystem
    from zarr.core.buffer import Buffer, BufferPrototype

# The keys that S3 removes, or lists, in one request.
MOST_REMOVED = 1000
MOST_LISTED = 1000
_BUCKETS = ("s3", "gs", "abfs")  # their file systems list everything below a prefix at once


class Listed(NamedTuple):
    """What a store says about the bytes under a key in a listing.

    Attributes
    ----------
    md5 : str
        Their MD5 in hexadecimal digits. "" where the store says nothing; some stores say
        something else that looks like an MD5.
    """

    size: int
    md5: str


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


def open_url(url: str, options: dict[str, Any]) -> FsspecStore:
    """The store at a URL, with options of fsspec.

    Raises
    ------
    InvalidInputError
        A package is missing.
    TraceNotFoundError
        fsspec knows no such URL.
    """
    try:
        return FsspecStore.from_url(url, storage_options=dict(options))
    except ImportError as error:
        packages = _PACKAGES.get(url.partition("://")[0], "fsspec")
        raise InvalidInputError(
            f"{url} cannot be opened because a package is missing ({error}): pip install {packages}"
        ) from error
    except ValueError as error:
        raise TraceNotFoundError(f"{url} cannot be opened: {error}") from error


def whole(store: Store) -> ByteRequest | None:
    """A request for all bytes of a key at once.

    Without a start, s3fs first asks for the size or takes it from an old listing.
    """
    return OffsetByteRequest(0) if _is_s3(store) else None


class _WholeGets(FsspecStore):
    """An S3 store that reads all bytes of a key in one request."""

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """The bytes under a key."""
        return await super().get(key, prototype, byte_range or OffsetByteRequest(0))


def read_whole(store: Store) -> Store:
    """The same store for zarr-python to read from, with as few requests as possible."""
    if type(store) is FsspecStore and _is_s3(store):
        return _WholeGets(
            store.fs,
            read_only=True,
            path=store.path,
            allowed_exceptions=store.allowed_exceptions,
        )
    return store


def answers_at_once(store: Store) -> bool:
    """Whether a store answers without waiting: a wrapper has the methods whatever it wraps."""
    has_methods = hasattr(store, "set_sync") and hasattr(store, "get_sync")
    inside = getattr(store, "_store", None)
    if isinstance(store, WrapperStore) and isinstance(inside, Store):
        return has_methods and answers_at_once(inside)
    return has_methods


def takes_any_key(store: Store) -> bool:
    """Whether a store keeps bytes under any key; Icechunk wants the document of an array first."""
    if isinstance(store, WrapperStore):
        return takes_any_key(store._store)
    return isinstance(store, FsspecStore | ObjectStore | LocalStore | MemoryStore | ZipStore)


def forget_listings(store: Store) -> None:
    """Make a file system list what is there now, not what its cache of listings holds.

    With the cache it would never see what another process has written since.
    """
    if isinstance(store, WrapperStore):
        forget_listings(store._store)
    elif isinstance(store, FsspecStore):
        listings: Any = getattr(store.fs, "dircache", None)
        if getattr(listings, "use_listings_cache", False):
            listings.use_listings_cache = False
            listings.clear()


async def names(store: Store, prefix: str) -> list[str]:
    """The names directly below a prefix."""
    if isinstance(store, FsspecStore) and _is_s3(store):
        # For an empty prefix, its `_ls` sends one more request, for the parent.
        path = _path(store, prefix).rstrip("/")
        return [info["name"].removeprefix(f"{path}/") for info in await store.fs._lsdir(path)]
    return [name async for name in store.list_dir(prefix)]


async def listing(store: Store, prefix: str) -> dict[str, Listed] | None:
    """Every key below a prefix with its listing; None if one request cannot list them."""
    if isinstance(store, FsspecStore) and any(kind in store.fs.protocol for kind in _BUCKETS):
        root = _path(store, "")
        found = await store.fs._find(_path(store, prefix).rstrip("/"), detail=True)
        return {
            path.removeprefix(root): Listed(int(info["size"]), _digest(info.get("ETag")))
            for path, info in found.items()
        }
    if isinstance(store, ObjectStore):
        import obstore

        return {
            info["path"]: Listed(info["size"], _digest(info["e_tag"]))
            async for batch in obstore.list(store.store, prefix or None)
            for info in batch
        }
    return None


def _digest(tag: str | None) -> str:
    digest = (tag or "").strip('"')
    return digest if re.fullmatch("[0-9a-f]{32}", digest) else ""


async def create(store: Store, key: str, data: Buffer) -> bool:
    """Put bytes under a new key; False if the key exists.

    If several processes do so at the same time, one succeeds where the store can tell; other
    stores are asked first, and two processes may both succeed.
    """
    # Some servers refuse such a put, and count as stores that do not have it.
    with suppress(Exception):
        if isinstance(store, FsspecStore) and _is_s3(store):
            try:
                await store.fs._pipe_file(_path(store, key), data.to_bytes(), mode="create")
            except FileExistsError:
                return False
            return True
        if isinstance(store, ObjectStore):
            import obstore
            from obstore.exceptions import AlreadyExistsError

            try:
                await obstore.put_async(store.store, key, data.to_bytes(), mode="create")
            except AlreadyExistsError:
                return False
            return True
    if await store.exists(key):
        return False
    await store.set(key, data)
    return True


async def copy(store: Store, source: str, target: str) -> None:
    """Copy the bytes of a key to another one: inside the store, if it can do that.

    Raises
    ------
    FileNotFoundError
        There is nothing under the source.
    """
    if isinstance(store, FsspecStore) and _is_s3(store):
        # Its `_cp_file` asks for the size first, and copies more than 5 GB in parts.
        await store.fs._copy_basic(_path(store, source), _path(store, target))
        return
    if isinstance(store, FsspecStore) and _is_remote(store.fs):
        with suppress(NotImplementedError):
            await store.fs._cp_file(_path(store, source), _path(store, target))
            return
    if isinstance(store, ObjectStore):
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
    """Remove the keys that exist: all in one request, if the store can do that."""
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
    # One of them does not exist, and the others still may.
    await asyncio.gather(*(store.delete(key) for key in keys))


async def _remove_file(files: AsyncFileSystem, path: str) -> None:
    with suppress(FileNotFoundError):
        await files._rm_file(path)


def _is_s3(store: Store) -> bool:
    return isinstance(store, FsspecStore) and "s3" in store.fs.protocol


def _is_remote(files: Any) -> bool:
    """Whether a file system is asynchronous itself, and not wrapped to look so."""
    from fsspec.implementations.asyn_wrapper import AsyncFileSystemWrapper

    return not isinstance(files, AsyncFileSystemWrapper)


def _path(store: FsspecStore, key: str) -> str:
    """The path of a key in the file system of its store."""
    root = store.path.rstrip("/")
    return f"{root}/{key}" if root else key
