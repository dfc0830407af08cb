"""The arrays of `_sampling_state`: one value per chain, one chunk per writer, each with a checksum.

A writer keeps its own chunks only, so that nobody waits for anybody.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from ..errors import DamagedTraceError
from ..layout.layout import STATE, Layout
from ..store.chunk_codec import ChunkCodec
from ..store.dtypes import STRING
from ..store.location import Location
from ..store.zarr_json import PLAIN, array_document, encode_document

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


def state_key(name: str, block: int) -> str:
    """The key of the chunk that a writer keeps in an array of `_sampling_state`."""
    return f"{STATE}/{name}/c.{block}"


def decode_value(
    location: Location, layout: Layout, name: str, block: int, data: memoryview | None
) -> Any:
    """What a chunk says for its block of chains; None when there is no chunk."""
    if data is None:
        return None
    codec = _CODECS[name]
    try:
        if codec is _TEXT:
            return str(codec.decode_strings(data)[0])
        return codec.decode(data, (layout.chains_per_chunk,))[0]
    except (ValueError, RuntimeError, TypeError, IndexError) as error:
        raise DamagedTraceError(
            f"{location}: {state_key(name, block)} is damaged ({error}); "
            f"`zarrtrace repair` makes it anew from what is there",
            chain=layout.chains_of(block)[0],
        ) from error


def read_value(location: Location, layout: Layout, name: str, block: int) -> Any:
    """What an array of `_sampling_state` says for a block of chains; None where it says nothing."""
    data = location.read(state_key(name, block))
    return decode_value(location, layout, name, block, data)


def write_value(location: Location, layout: Layout, name: str, block: int, value: Any) -> str:
    """Put a value into an array of `_sampling_state` for a block of chains; gives the key."""
    codec = _CODECS[name]
    if codec is _TEXT:
        # A state may be large: for the first chain of the block is enough.
        values: np.ndarray[Any, Any] = np.full(layout.chains_per_chunk, "", dtype=object)
        values[0] = value
    else:
        values = np.full(layout.chains_per_chunk, value, codec.dtype)
    key = state_key(name, block)
    location.write(key, codec.encode(values))
    return key


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
            # The same for every chain: the fill value says it without a chunk.
            encoding = {**encoding, "fill_value": layout.tune}
        document = array_document(encoding, (layout.chains,), per_block, ("chain",))
        yield f"{STATE}/{name}/zarr.json", encode_document(document)
