"""Tables that earlier versions stored as traces of one chain, whose draws are the rows.

They are read as they are. The first append, or a repair, converts such a table to the present
form: its zarr.json is replaced, its columns stay where they are.
"""

from __future__ import annotations

import functools
import json

import google_crc32c
import numpy as np

from ..errors import TraceExistsError
from ..layout.layout import STATE
from ..sampling_state.claim import Claim
from ..sampling_state.journal_count import read_count
from ..sampling_state.journal_format import JOURNAL
from ..store.chunk_codec import ChunkCodec
from ..store.dtypes import STRING
from ..store.location import Location
from ..store.zarr_json import LONGEST_DOCUMENT, PLAIN, parse_document
from .layout import ROWS, LostRows, TableLayout, parse_layout, parse_lost

_COUNT = ChunkCodec(np.dtype("int64"), PLAIN["int64"])
_TEXT = ChunkCodec(STRING, PLAIN["str"])
_COUNT_KEY = f"{STATE}/draw_idx/c.0"
CLAIM_KEY = f"{STATE}/writer/c.0"


def read_table(
    location: Location,
) -> tuple[TableLayout, int, Claim | None, tuple[LostRows, ...]] | None:
    """Layout, flushed rows, who appends and what was lost; None where there is no such table.

    Raises
    ------
    ValueError
        It is damaged.
    TraceExistsError
        There is a trace instead of a table.
    """
    found = read_layout(location)
    if found is None:
        return None
    layout, lost = found
    journal = layout.journal_file(location)
    kept = None if journal is None else read_count(layout, journal)
    rows = _read_count(location) if kept is None else kept
    return layout, rows, read_claim(location), lost


def read_layout(location: Location) -> tuple[TableLayout, tuple[LostRows, ...]] | None:
    """Layout and lost rows, with the journal at the place of the earlier version.

    Raises as `read_table`.
    """
    text = _layout_text(location)
    if text is None:
        return None
    layout, lost = _parse(text)
    if layout is None:
        raise TraceExistsError(
            f"{location} holds a trace instead of a table; open it with zarrtrace.open, or give "
            f"the table another place, or a name: trace.table(name)"
        )
    return layout, lost


def _layout_text(location: Location) -> str | None:
    data = location.read(f"{STATE}/zarr.json", LONGEST_DOCUMENT)
    if data is None:
        return None
    attributes = parse_document(data, f"{location}: {STATE}/zarr.json").get("attributes") or {}
    text = attributes.get("zarrtrace")
    if not isinstance(text, str):
        return None  # Its process was killed while it made the table.
    if google_crc32c.value(text.encode()) != attributes.get("zarrtrace_crc32c"):
        raise ValueError("the checksum of the layout does not match")
    return text


@functools.lru_cache(maxsize=128)
def _parse(text: str) -> tuple[TableLayout | None, tuple[LostRows, ...]]:
    """The layout of the table and its lost rows; None for the layout of a trace."""
    try:
        content = json.loads(text)
        if [group["name"] for group in content["groups"]] != [ROWS]:
            return None, ()
        journal = JOURNAL if content["journal"] == "store" else ""
        lost = parse_lost((column, start, stop) for _, column, _, start, stop in content["lost"])
        return parse_layout(content, content["groups"][0]["variables"], journal, ROWS), lost
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"the layout cannot be read ({error!r})") from None


def _read_count(location: Location) -> int:
    data = location.read(_COUNT_KEY)
    try:
        return 0 if data is None else int(_COUNT.decode(data, (1,))[0])
    except (ValueError, RuntimeError, TypeError):
        raise ValueError(f"{_COUNT_KEY} does not say how many rows there are") from None


def read_claim(location: Location) -> Claim | None:
    """The claim of a process that appends with an earlier version; None without one."""
    data = location.read(CLAIM_KEY)
    try:
        return None if data is None else Claim.from_text(str(_TEXT.decode_strings(data, 1)[0]))
    except (ValueError, RuntimeError, TypeError, IndexError):
        return None
