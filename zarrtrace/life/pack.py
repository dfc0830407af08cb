"""A finished trace as one file: a zip of its keys, which any reader of Zarr opens where it lies."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from zipfile import ZIP_STORED, ZipFile, ZipInfo

from ..errors import ChainBusyError, IncompleteTraceError, InvalidInputError
from ..layout.hierarchy import Hierarchy
from ..layout.layout import ASIDE
from ..store.local import new_file
from ..store.location import Location

_READ_AT_ONCE = 16  # keys, where they are waited for
_NO_DATE = (1980, 1, 1, 0, 0, 0)  # the first that a zip can have


def pack(hierarchy: Hierarchy, path: str | os.PathLike[str] | None) -> Path:
    """Write a finished trace to a .zip file, which is there when it is whole; returns its path."""
    location, layout = hierarchy.location, hierarchy.layout
    if path is None and location.path is None:
        raise InvalidInputError(
            "a trace that is not in a directory is packed to a path", remedy="give pack one"
        )
    file = Path(f"{location.path}.zip" if path is None else path).expanduser().absolute()
    if file.suffix.lower() != ".zip":
        raise InvalidInputError(f"{file}: the name of a packed trace ends in .zip")
    if location.path is not None and location.path in file.parents:
        raise InvalidInputError(f"{file} lies in the trace", remedy="choose a place beside it")
    if not layout.finished or layout.replacing:
        raise IncompleteTraceError(
            "the trace is not finished, and a .zip takes no more draws",
            where=str(location),
            remedy="call finish(), or `zarrtrace finish PATH`, first",
        )
    with new_file(file, overwrite=False) as partial, ZipFile(partial, "w", ZIP_STORED) as packed:
        for key, data in _items(location):
            packed.writestr(ZipInfo(key, _NO_DATE), data)
        if hierarchy.layout is not layout:
            raise ChainBusyError(
                "the trace was changed while it was packed", where=str(location), remedy="try again"
            )
    return file


def _items(location: Location) -> Iterator[tuple[str, bytes]]:
    """Every key of a trace with its bytes, the root's document first."""
    keys = sorted(location.keys(""), key=lambda key: (key != "zarr.json", key))
    keys = [key for key in keys if not key.endswith(".partial") and not _is_aside(key)]
    for start in range(0, len(keys), _READ_AT_ONCE):
        together = keys[start : start + _READ_AT_ONCE]
        for key, data in zip(together, location.read_many(together), strict=True):
            if data is not None:
                yield key, bytes(data)


def _is_aside(key: str) -> bool:
    return key.partition("/")[0] == ASIDE
