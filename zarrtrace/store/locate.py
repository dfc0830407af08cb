"""Find the store for a path, a URL, a zarr store, or None for memory."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from stat import S_ISREG
from typing import Any, TypeAlias
from zipfile import BadZipFile

from zarr.abc.store import Store
from zarr.core.sync import sync
from zarr.storage import LocalStore, MemoryStore, ZipStore

from ..errors import InvalidInputError, NotWritableError, TraceNotFoundError
from .location import Location
from .remote import open_url

# A Location is returned as it is: some callers build in one place what belongs to another.
Place: TypeAlias = "str | os.PathLike[str] | Store | Location | None"


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
            raise InvalidInputError("storage_options is only for a URL; this is already a store")
        if type(place) is LocalStore:
            return Location(LocalStore(place.root.absolute()), read_only or place.read_only)
        if isinstance(place, ZipStore) and not (read_only or place.read_only):
            raise NotWritableError(
                f"{place}: a .zip cannot take draws, because its files cannot be replaced; create "
                f"the trace in a directory, and zip the finished directory"
            )
        sync(place._ensure_open())
        return Location(place, read_only or place.read_only)
    if not isinstance(place, str | os.PathLike):
        raise InvalidInputError(
            f"the place of a trace is a path, a URL, a zarr Store, or None for memory; "
            f"got {type(place).__name__}"
        )
    text = os.fspath(place)
    if text.startswith("file://"):
        text = text.removeprefix("file://")
    if "://" in text:
        options = dict(storage_options or {})
        return Location(open_url(text, options), read_only, address=(text, options))
    if storage_options:
        raise InvalidInputError(f"storage_options is only for a URL, and {text!r} is a local path")
    path = Path(text).expanduser().absolute()
    try:
        is_file = S_ISREG(path.stat().st_mode)
    except PermissionError as error:
        raise TraceNotFoundError(
            f"{path} cannot be accessed: {error.strerror}. Ask its owner to let you read every "
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
            raise TraceNotFoundError(f"{path} is not a zip file; is the path right?") from None
    return Location(LocalStore(path), read_only)
