"""Keys and bytes: any Zarr store, the codec of a chunk, `zarr.json`, dtypes, small arrays.

What is listed here is for adapters that store arrays of their own beside traces:

- `locate`, `Location` and `Place`: a store, seen as keys and bytes.
- `read_document`, `parse_document`, `encode_document`: the `zarr.json` of a node and its content.
- `group_document`, `array_document`, `consolidated_metadata`, `compose_encoding`: new documents.
- `ChunkCodec`: a chunk's values ↔ its bytes.
- `STRING`, `as_dtype`, `dtype_name`, `dtype_of_values`, `dtype_of_document`: the dtypes that can be
  stored.
"""

from .chunk_codec import ChunkCodec
from .dtypes import STRING, as_dtype, dtype_name, dtype_of_document, dtype_of_values
from .locate import Place, locate
from .location import Location
from .zarr_json import (
    array_document,
    compose_encoding,
    consolidated_metadata,
    encode_document,
    group_document,
    parse_document,
    read_document,
)

__all__ = [
    "STRING",
    "ChunkCodec",
    "Location",
    "Place",
    "array_document",
    "as_dtype",
    "compose_encoding",
    "consolidated_metadata",
    "dtype_name",
    "dtype_of_document",
    "dtype_of_values",
    "encode_document",
    "group_document",
    "locate",
    "parse_document",
    "read_document",
]
