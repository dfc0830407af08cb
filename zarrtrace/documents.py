"""The zarr.json documents of groups and arrays, and small whole arrays with them.

zarr-python composes one document per dtype, with the data type, fill value and codecs as the
Zarr v3 specification has them; shapes, chunks and names are filled in here, which is what makes
creating hundreds of arrays cheap.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np

from .checks import STRING
from .chunks import ChunkCodec, fill_value
from .coordinates import DataArray
from .errors import DamagedTraceError, SchemaError
from .location import Location

CHUNK_BYTES = 4 * 2**20

# Bookkeeping arrays are tiny: no compression, a checksum always.
_CHECKSUM = {"name": "crc32c"}
PLAIN: dict[str, dict[str, Any]] = {
    "int64": {
        "data_type": "int64",
        "fill_value": 0,
        "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}, _CHECKSUM],
    },
    "float64": {
        "data_type": "float64",
        "fill_value": "NaN",
        "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}, _CHECKSUM],
    },
    "str": {
        "data_type": "string",
        "fill_value": "",
        "codecs": [{"name": "vlen-utf8"}, _CHECKSUM],
    },
    # The journal: mapped, so its bytes are the array's.
    "uint8": {"data_type": "uint8", "fill_value": 0, "codecs": [{"name": "bytes"}]},
}


def encode_document(document: Mapping[str, Any]) -> bytes:
    """The bytes of a zarr.json."""
    return json.dumps(document, indent=1).encode()


def read_document(location: Location, path: str) -> dict[str, Any] | None:
    """The zarr.json of a node, or None when there is none."""
    data = location.read(f"{path}/zarr.json".lstrip("/"))
    return None if data is None else parse_document(data, f"{location}: {path}/zarr.json")


def parse_document(data: memoryview, where: str) -> dict[str, Any]:
    """The content of a zarr.json."""
    try:
        document = json.loads(bytes(data))
    except (ValueError, RecursionError) as error:
        raise DamagedTraceError(f"{where} is no JSON ({error})") from None
    if not isinstance(document, dict):
        raise DamagedTraceError(f"{where} is no JSON object")
    return document


def group_document(attrs: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The zarr.json of a group."""
    return {"zarr_format": 3, "node_type": "group", "attributes": dict(attrs or {})}


def array_document(
    encoding: Mapping[str, Any],
    shape: Sequence[int],
    chunks: Sequence[int],
    dims: Sequence[str],
    attrs: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The zarr.json of an array, its chunks keyed `c.0.1`: one directory for an array."""
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(shape),
        "data_type": encoding["data_type"],
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(chunks)}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}},
        "fill_value": encoding["fill_value"],
        "codecs": encoding["codecs"],
        "attributes": dict(attrs or {}),
        "dimension_names": list(dims),
        "storage_transformers": [],
    }


def chunk_key(path: str, index: Sequence[int]) -> str:
    """The key of a chunk in an array of ours."""
    return f"{path}/c.{'.'.join(map(str, index))}"


def compose_encoding(
    dtype: np.dtype[Any], compressors: Any, checksum: bool = False
) -> dict[str, Any]:
    """How zarr stores a dtype with these compressors; "auto" is Blosc lz4 with shuffle.

    Blosc lz4 encodes at 4.8 GB/s and, on floats, smaller than zarr's default zstd.
    """
    import zarr
    from zarr.codecs import BloscCodec, Crc32cCodec
    from zarr.storage import MemoryStore

    if isinstance(compressors, str) and compressors == "auto":
        compressors = [BloscCodec(cname="lz4", clevel=5, shuffle="shuffle")]
    if checksum:
        given = compressors if isinstance(compressors, list | tuple) else [compressors]
        compressors = [*(codec for codec in given if codec is not None), Crc32cCodec()]
    store = MemoryStore()
    try:
        zarr.create_array(
            store,
            shape=(1,),
            chunks=(1,),
            dtype=dtype,
            compressors=compressors,
            fill_value=fill_value(dtype),
        )
    except (TypeError, ValueError) as error:
        raise SchemaError(
            f"compressors={compressors!r}: zarr refuses it for {dtype} ({error})"
        ) from error
    buffer = store.get_sync("zarr.json")
    assert buffer is not None
    document = json.loads(buffer.to_bytes())
    return {key: document[key] for key in ("data_type", "fill_value", "codecs")}


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


def dtype_of_document(document: Mapping[str, Any]) -> np.dtype[Any]:
    """The dtype of an array of ours, by its zarr.json."""
    data_type = document["data_type"]
    if isinstance(data_type, dict):
        kind = {"numpy.datetime64": "M8", "numpy.timedelta64": "m8"}[data_type["name"]]
        return np.dtype(f"{kind}[{data_type['configuration']['unit']}]")
    dtype: np.dtype[Any] = STRING if data_type == "string" else np.dtype(data_type)
    return dtype
