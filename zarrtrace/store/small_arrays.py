"""Small arrays that are written and read whole, without zarr-python."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np

from ..errors import DamagedTraceError
from .chunk_codec import ChunkCodec
from .dtypes import dtype_of_document
from .location import Location
from .zarr_json import array_document, chunk_key, encode_document, read_document


@dataclass(frozen=True)
class DataArray:
    """An array that is given whole, as it will be stored: dimensions, values, attributes."""

    dims: tuple[str, ...]
    values: Any
    attrs: dict[str, Any] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, ...]:
        """One size for each dimension."""
        return tuple(self.values.shape)


class Numbers:
    """0, 1, 2 and so on: as many draws as there may be, and never in memory as a whole."""

    dtype = np.dtype("int64")
    ndim = 1

    def __init__(self, size: int) -> None:
        self.shape = (size,)

    def __getitem__(self, region: tuple[slice]) -> np.ndarray[Any, Any]:
        return np.arange(*region[0].indices(self.shape[0]))


CHUNK_BYTES = 4 * 2**20


# Whole arrays ---------------------------------------------------------------------------------


def array_items(
    path: str, array: DataArray, encoding: Mapping[str, Any]
) -> Iterator[tuple[str, bytes]]:
    """The keys and bytes of an array that is given whole, chunk by chunk.

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
    document = array_document(encoding, values.shape, chunks, array.dims, array.attrs)
    yield f"{path}/zarr.json", encode_document(document)
    if values.ndim == 0:
        yield f"{path}/c", codec.encode(np.asarray(values))
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
        yield chunk_key(path, index), codec.encode(part)


def read_array(location: Location, path: str, *, complete: bool = False) -> DataArray:
    """A small array of ours (a coordinate, a counter), read whole without zarr-python.

    A missing chunk holds the fill value; with `complete` it is damage.
    """
    document = read_document(location, path)
    if document is None:
        raise DamagedTraceError(f"{location}: the array {path} is missing")
    try:
        dtype = dtype_of_document(document)
        shape = tuple(int(size) for size in document["shape"])
        chunks = tuple(int(size) for size in document["chunk_grid"]["configuration"]["chunk_shape"])
        dims = tuple(map(str, document["dimension_names"]))
        attrs = dict(document["attributes"])
        codec = ChunkCodec(dtype, document)
        counts = [-(-size // chunk) for size, chunk in zip(shape, chunks, strict=True)]
        indices = list(product(*map(range, counts)))
        found = location.read_many([chunk_key(path, index) for index in indices])
        values = np.full(shape, codec.fill, dtype=dtype)
        for index, data in zip(indices, found, strict=True):
            if data is None and complete:
                raise ValueError(f"the chunk {chunk_key(path, index)} is missing")
            if data is None:
                continue
            region = tuple(slice(i * chunk, None) for i, chunk in zip(index, chunks, strict=True))
            target = values[region]
            part = codec.decode(data, chunks)
            inside = tuple(map(slice, np.minimum(target.shape, chunks)))
            target[inside] = part[inside]
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise DamagedTraceError(f"{location}: the array {path} cannot be read ({error})") from error
    return DataArray(dims, values, attrs)
