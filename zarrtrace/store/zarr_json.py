"""The zarr.json documents of groups and arrays, and small whole arrays with them.

zarr-python composes one document per dtype, with the data type, fill value and codecs as the
Zarr v3 specification has them; shapes, chunks and names are filled in here, which is what makes
creating hundreds of arrays cheap.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np

from ..errors import DamagedTraceError, SchemaError
from .dtypes import fill_value
from .location import Location

LONGEST_DOCUMENT = 2**28  # bytes

# How the keys of chunks in arrays of ours are made: by a separator, or without the "c" before it.
V2_KEYS = "v2"
CHUNK_KEYS = {
    **{form: {"name": "default", "configuration": {"separator": form}} for form in "./"},
    V2_KEYS: {"name": "v2", "configuration": {"separator": "."}},
}

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
    # With indentation it would be encoded by Python itself, ten times slower.
    return json.dumps(document).encode()


def read_document(location: Location, path: str) -> dict[str, Any] | None:
    """The zarr.json of a node, or None when there is none."""
    data = location.read(f"{path}/zarr.json".lstrip("/"), LONGEST_DOCUMENT)
    return None if data is None else parse_document(data, f"{location}: {path}/zarr.json")


def read_documents(location: Location, paths: Iterable[str]) -> list[dict[str, Any] | None]:
    """The zarr.json of each node, or None where there is none."""
    paths = list(paths)
    found = location.read_many((f"{path}/zarr.json" for path in paths), LONGEST_DOCUMENT)
    return [
        None if data is None else parse_document(data, f"{location}: {path}/zarr.json")
        for path, data in zip(paths, found, strict=True)
    ]


def parse_document(data: memoryview, where: str) -> dict[str, Any]:
    """The content of a zarr.json."""
    try:
        document = json.loads(bytes(data))
    except (ValueError, RecursionError) as error:
        raise DamagedTraceError(f"this is not JSON ({error})", where=where) from None
    if not isinstance(document, dict):
        raise DamagedTraceError("this is not a JSON object", where=where)
    return document


def group_document(attrs: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The zarr.json of a group."""
    return {"zarr_format": 3, "node_type": "group", "attributes": dict(attrs or {})}


def consolidated_metadata(nodes: Mapping[str, Any]) -> dict[str, Any]:
    """The value of `consolidated_metadata` in a group's zarr.json, for the nodes below the group.

    Parameters
    ----------
    nodes : mapping of str to dict
        Path → zarr.json.
    """
    # zarr 3.1.6 loses nodes of a group that do not follow each other.
    in_order = sorted(nodes.items(), key=lambda node: node[0].rpartition("/")[0])
    return {"kind": "inline", "must_understand": False, "metadata": dict(in_order)}


def array_document(
    encoding: Mapping[str, Any],
    shape: Sequence[int],
    chunks: Sequence[int],
    dims: Sequence[str],
    attrs: Mapping[str, Any] | None = None,
    key_form: str = ".",
) -> dict[str, Any]:
    """The zarr.json of an array, its chunks keyed `c.0.1`: one directory for an array.

    With the form "/" the keys are `c/0/1`, as is Zarr's default; with "v2", `0.1`.
    """
    # An array may be empty along a dimension, but Zarr has no empty chunks.
    chunk_shape = [max(1, size) for size in chunks]
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(shape),
        "data_type": encoding["data_type"],
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": chunk_shape}},
        "chunk_key_encoding": CHUNK_KEYS[key_form],
        "fill_value": encoding["fill_value"],
        "codecs": encoding["codecs"],
        "attributes": dict(attrs or {}),
        "dimension_names": list(dims),
        "storage_transformers": [],
    }


def chunk_name(index: Iterable[int], key_form: str) -> str:
    """The key of a chunk below the path of its array."""
    if key_form.startswith(V2_KEYS):
        return (key_form.removeprefix(V2_KEYS) or ".").join(map(str, index)) or "0"
    return key_form.join(["c", *map(str, index)])


def chunk_key(path: str, index: Iterable[int], key_form: str) -> str:
    """The key of a chunk in an array."""
    return f"{path}/{chunk_name(index, key_form)}"


def key_form_of(document: Mapping[str, Any]) -> str:
    """How the keys of the chunks of an array are made, whoever has written its zarr.json."""
    encoding = document["chunk_key_encoding"]
    separator = encoding.get("configuration", {}).get("separator")
    if encoding["name"] == V2_KEYS:
        return V2_KEYS if separator in (None, ".") else V2_KEYS + separator
    return separator or "/"


def chunk_names(document: Mapping[str, Any]) -> Iterator[str]:
    """The keys of all chunks of an array, below its path."""
    chunks = document["chunk_grid"]["configuration"]["chunk_shape"]
    numbers = [-(-size // chunk) for size, chunk in zip(document["shape"], chunks, strict=True)]
    for index in product(*map(range, numbers)):
        yield chunk_name(index, key_form_of(document))


def documents_first(keys: Iterable[str]) -> list[str]:
    """Keys in the order in which every store takes them, and a plain reader needs them."""
    return sorted(keys, key=lambda key: not key.endswith("/zarr.json"))


# Among zeros and equal bits, it makes chunks a third smaller than lz4 does.
_OF_ROUNDED = {"cname": "zstd", "clevel": 5, "shuffle": "bitshuffle", "blocksize": 0}
_COMPRESSORS = ("blosc", "zstd", "gzip")


def encoding_of_rounded(encoding: Mapping[str, Any]) -> dict[str, Any]:
    """How numbers that end in zero bits are stored: with Blosc's zstd, bit by bit.

    It takes the place of other general compressors; a checksum stays, and so do codecs that do
    more than compress.
    """
    first, *rest = encoding["codecs"]
    if first["name"] != "bytes" or {c["name"] for c in rest} - {*_COMPRESSORS, "crc32c"}:
        return dict(encoding)
    typesize = _item_size(encoding["data_type"])
    blosc = {"name": "blosc", "configuration": {"typesize": typesize, **_OF_ROUNDED}}
    kept = [codec for codec in rest if codec["name"] not in _COMPRESSORS]
    return {**encoding, "codecs": [first, blosc, *kept]}


def _item_size(data_type: str) -> int:
    """The bytes of a float or complex number, such as 8 for "float64"."""
    return int(data_type.lstrip("abcdefghijklmnopqrstuvwxyz")) // 8


def compose_encoding(
    dtype: np.dtype[Any], compressors: Any, checksum: bool = False
) -> dict[str, Any]:
    """How zarr stores a dtype with these compressors; "auto" is Blosc lz4 with shuffle.

    Blosc lz4 encodes at 4.8 GB/s and, for floats, smaller than zarr's default zstd.
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
            f"compressors={compressors!r}: zarr refuses them for {dtype} ({error})"
        ) from error
    buffer = store.get_sync("zarr.json")
    assert buffer is not None
    document = json.loads(buffer.to_bytes())
    return {key: document[key] for key in ("data_type", "fill_value", "codecs")}
