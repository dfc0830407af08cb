"""Small arrays that are written and read whole, without zarr-python."""

from __future__ import annotations

import math
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np

from ..errors import DamagedTraceError
from .chunk_codec import ChunkCodec
from .dtypes import dtype_of_document
from .location import Location
from .zarr_json import (
    array_document,
    chunk_key,
    chunk_name,
    encode_document,
    key_form_of,
    read_document,
)


@dataclass(frozen=True)
class DataArray:
    """A whole array as it will be stored: dimensions, values, attributes."""

    dims: tuple[str, ...]
    values: Any
    attrs: dict[str, Any] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, ...]:
        """One size for each dimension."""
        return tuple(self.values.shape)


class Numbers:
    """The numbers 0, 1, 2 and so on, of any length, and never in memory as a whole."""

    dtype = np.dtype("int64")
    ndim = 1

    def __init__(self, size: int) -> None:
        self.shape = (size,)

    def __getitem__(self, region: tuple[slice]) -> np.ndarray[Any, Any]:
        return np.arange(*region[0].indices(self.shape[0]))


CHUNK_BYTES = 4 * 2**20
# Blank chunks that are left out cost nothing to store, but memory to read.
_MOST_BLANK = 2**28  # bytes
_MANY_CHUNKS = 1024


# Whole arrays ---------------------------------------------------------------------------------


def array_items(
    path: str, array: DataArray, encoding: Mapping[str, Any], separator: str
) -> Iterator[tuple[str, bytes]]:
    """The keys and bytes of a whole array, chunk by chunk.

    Chunks run along the first dimension only; with chain and draw, one chain each, along draw.
    """
    values = array.values
    dtype = values.dtype
    codec = ChunkCodec(dtype, dict(encoding))
    lead = 2 if array.dims[:2] == ("chain", "draw") else min(1, values.ndim)
    row = int(np.prod(values.shape[lead:], dtype=np.int64)) * max(dtype.itemsize, 1)
    length = max(1, CHUNK_BYTES // max(row, 1))
    chunks = list(values.shape)
    if lead:
        chunks[lead - 1] = min(length, values.shape[lead - 1])
    if lead == 2:
        chunks[0] = 1
    chunks = [max(1, size) for size in chunks]
    document = array_document(encoding, values.shape, chunks, array.dims, array.attrs, separator)
    yield f"{path}/zarr.json", encode_document(document)
    if values.ndim == 0:
        yield chunk_key(path, (), separator), codec.encode(np.asarray(values))
        return
    counts = [-(-size // chunk) for size, chunk in zip(values.shape, chunks, strict=True)]
    for index in product(*map(range, counts)):
        region = tuple(
            slice(i * chunk, min((i + 1) * chunk, size))
            for i, chunk, size in zip(index, chunks, values.shape, strict=True)
        )
        part = np.asarray(values[region])
        if part.shape != tuple(chunks):
            whole = np.full(chunks, codec.fill, dtype=dtype)
            whole[tuple(map(slice, part.shape))] = part
            part = whole
        yield chunk_key(path, index, separator), codec.encode(part)


def read_array(
    location: Location,
    path: str,
    *,
    complete: bool = False,
    blank: Container[str] = (),
    given: Mapping[str, bytes] | None = None,
) -> DataArray:
    """A small array of ours (a coordinate, a counter), read whole without zarr-python.

    A missing chunk holds the fill value; with `complete` it is damage, unless its name (its key
    below the path) is in `blank`. Chunks whose names are in `given` are taken from there.
    """
    document = read_document(location, path)
    if document is None:
        raise DamagedTraceError(f"the array {path} is missing", where=str(location))
    try:
        shape = tuple(int(size) for size in document["shape"])
        chunks = tuple(int(size) for size in document["chunk_grid"]["configuration"]["chunk_shape"])
        dims = tuple(map(str, document["dimension_names"]))
        attrs = dict(document["attributes"])
        values = _read_values(location, path, document, shape, chunks, complete, blank, given or {})
    except (
        KeyError, TypeError, ValueError, AttributeError, OverflowError, IndexError,
    ) as error:  # fmt: skip
        raise DamagedTraceError(
            f"the array {path} cannot be read ({error})", where=str(location)
        ) from error
    return DataArray(dims, values, attrs)


def require_credible(location: Location, path: str) -> None:
    """Refuse an array whose document says that it is far larger than its chunks are.

    Raises
    ------
    DamagedTraceError
        It has no document, or one whose shape the existing chunks do not justify.
    """
    document = read_document(location, path)
    if document is None:
        raise DamagedTraceError(
            f"{path} is missing", where=str(location), remedy="restore it from a copy"
        )
    if document.get("node_type") != "array":
        return
    try:
        shape = tuple(map(int, document["shape"]))
        chunks = tuple(map(int, document["chunk_grid"]["configuration"]["chunk_shape"]))
        itemsize = dtype_of_document(document).itemsize
        if math.prod(shape) * itemsize > _MOST_BLANK:
            number = math.prod(-(-s // c) for s, c in zip(shape, chunks, strict=True))
            _require_chunks(location, path, shape, number, math.prod(chunks) * itemsize)
    except (KeyError, TypeError, ValueError, ArithmeticError) as error:
        raise DamagedTraceError(
            f"the array {path} cannot be read ({error})", where=str(location)
        ) from error


def _require_chunks(
    location: Location, path: str, shape: tuple[int, ...], number: int, chunk_bytes: int
) -> None:
    blank = number - len(location.keys(path))
    if blank * chunk_bytes > _MOST_BLANK or blank > _MANY_CHUNKS:
        raise ValueError(f"its shape is {shape}, but {blank:,} of its chunks are missing")


def _read_values(
    location: Location,
    path: str,
    document: dict[str, Any],
    shape: tuple[int, ...],
    chunks: tuple[int, ...],
    complete: bool,
    blank: Container[str],
    given: Mapping[str, bytes],
) -> np.ndarray[Any, Any]:
    """The values of an array, with no more memory than the existing chunks justify."""
    codec = ChunkCodec(dtype_of_document(document), document)
    if min(chunks, default=1) < 1 or min(shape, default=0) < 0:
        raise ValueError(f"the shape {shape} in chunks of {chunks} is impossible")
    counts = [-(-size // chunk) for size, chunk in zip(shape, chunks, strict=True)]
    chunk_bytes = math.prod(chunks) * max(codec.dtype.itemsize, 1)
    if math.prod(counts) > _MANY_CHUNKS:
        _require_chunks(location, path, shape, math.prod(counts), chunk_bytes)
    indices = list(product(*map(range, counts)))
    key_form = key_form_of(document)
    names = [chunk_name(index, key_form) for index in indices]
    keys = [f"{path}/{name}" for name in names]
    found: list[memoryview | bytes | None] = [
        given.get(name, data)
        for name, data in zip(
            names, location.read_many(keys, codec.most_encoded(chunks)), strict=True
        )
    ]
    missing = [name for name, data in zip(names, found, strict=True) if data is None]
    unexpected = complete and any(name not in blank for name in missing)
    if unexpected or len(missing) * chunk_bytes > _MOST_BLANK:
        raise ValueError(f"the chunk {path}/{missing[0]} is missing")
    values: np.ndarray[Any, Any] | None = None
    for index, data in zip(indices, found, strict=True):
        if data is None:
            continue
        part = codec.decode(data, chunks)
        # A chunk that decodes shows that the shape is right.
        if values is None:
            values = np.full(shape, codec.fill, dtype=codec.dtype)
        # With the ellipsis it is an array where there are no dimensions too.
        region: tuple[Any, ...] = tuple(
            slice(i * chunk, None) for i, chunk in zip(index, chunks, strict=True)
        )
        target = values[(*region, ...)]
        inside = tuple(map(slice, np.minimum(target.shape, chunks)))
        target[inside] = part[inside]
    return np.full(shape, codec.fill, dtype=codec.dtype) if values is None else values
