"""The arrays of `_sampling_state`: one value per chain, one chunk per writer, each with a checksum.

A writer writes its own chunks only, so that no writer waits for another.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from ..layout.layout import STATE, Layout
from ..store.chunk_codec import ChunkCodec
from ..store.dtypes import STRING
from ..store.zarr_json import PLAIN, array_document, chunk_key, encode_document

_INTEGER = ChunkCodec(np.dtype("int64"), PLAIN["int64"])
_FLOAT = ChunkCodec(np.dtype("float64"), PLAIN["float64"])
_TEXT = ChunkCodec(STRING, PLAIN["str"])
_CODECS = {
    "draw_idx": _INTEGER,
    "sampling_time": _FLOAT,
    "sampling_start_time": _FLOAT,
    "state": _TEXT,
    "writer": _TEXT,
}


def state_key(layout: Layout, name: str, block: int) -> str:
    """The key of the chunk that a writer writes in an array of `_sampling_state`."""
    return chunk_key(f"{STATE}/{name}", (block,), layout.separator)


def decode_value(name: str, data: memoryview, chains: int) -> Any:
    """The value in a chunk of an array for its block of chains; ValueError for damaged bytes."""
    codec = _CODECS[name]
    if codec is _TEXT:
        return str(codec.decode_strings(data, chains)[0])
    return codec.decode(data, (chains,))[0]


def encode_value(name: str, value: Any, chains: int) -> bytes:
    """The chunk of an array with this value for a block of chains."""
    codec = _CODECS[name]
    if codec is _TEXT:
        # A state may be large: it is stored for the first chain of the block only.
        values: np.ndarray[Any, Any] = np.full(chains, "", dtype=object)
        values[0] = value
    else:
        values = np.full(chains, value, codec.dtype)
    return codec.encode(values)


def state_items(layout: Layout) -> Iterable[tuple[str, bytes]]:
    """The arrays of `_sampling_state`, one chunk per writer, written by it."""
    per_block = (layout.chains_per_chunk,)
    for name, kind in (
        ("draw_idx", "int64"),
        ("sampling_time", "float64"),
        ("sampling_start_time", "float64"),
        ("tuning_steps", "int64"),
        ("state", "str"),
        ("writer", "str"),
    ):
        encoding = PLAIN[kind]
        if name == "tuning_steps":
            # All chains have the same value: the fill value holds it without a chunk.
            encoding = {**encoding, "fill_value": layout.tune}
        document = array_document(
            encoding, (layout.chains,), per_block, ("chain",), key_form=layout.separator
        )
        yield f"{STATE}/{name}/zarr.json", encode_document(document)
