"""The structure of a journal's file: the header, the tables of rows, the slots of checkpoints.

FORMAT.md describes it in full. Traces before version 3 have another structure, and their
rows have no seals: `sealed` of the layout says which ones.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ..layout.layout import STATE, Layout
from ..layout.variables import Variable
from ..store.zarr_json import PLAIN, array_document, encode_document

JOURNAL = f"{STATE}/journal"
SLOT_BYTES = 8192  # of a checkpoint; the generators of NumPy take half of it
SEALS_BYTES = 2048  # of each slot, at its end: seals of chunks, see `chunk_seals.py`
SEAL_BYTES = 16  # at the end of a row: the number of its draw, a checksum, four zeros
_ALIGNMENT = 64


class Buffered(Protocol):
    """What a journal needs to know of the layout of a trace, or of a table."""

    @property
    def variables(self) -> list[Variable]:
        """Every recorded variable."""

    @property
    def chains_per_chunk(self) -> int:
        """The chains of one writer."""

    @property
    def durable(self) -> bool:
        """Whether draws survive power loss."""

    @property
    def sealed(self) -> bool:
        """Whether each row has a seal."""

    def __hash__(self) -> int:
        """Different for each layout."""

    def chunk_shape(self, variable: Variable) -> tuple[int, ...]:
        """The shape of its rows: (chains_per_chunk, draws_per_chunk, *shape)."""

    def array_starts(self, variable: Variable) -> tuple[int, ...]:
        """The draws that its arrays begin with, ascending."""


def has_rows(layout: Buffered, variable: Variable) -> bool:
    """Whether a variable has rows in the journal.

    Text has no fixed size, and a chunk of one draw is written before that draw counts.
    """
    return not variable.is_text and not (layout.sealed and variable.draws_per_chunk == 1)


def is_packed(layout: Buffered, variable: Variable) -> bool:
    """Whether a variable shares its rows with others of its group, so that one call writes them."""
    is_number = variable.declared.kind in "iuf" and not variable.shape
    return is_number and layout.chains_per_chunk == 1


def header_size(layout: Buffered) -> int:
    """Bytes before the tables of rows."""
    return 128 if layout.sealed else 64


def journal_size(layout: Buffered) -> int:
    """Bytes of a journal's file."""
    end = slots(layout)[1] + SLOT_BYTES
    return -(-end // layout.chains_per_chunk) * layout.chains_per_chunk


def journal_item(layout: Layout) -> tuple[str, bytes]:
    """The key and the zarr.json of the journal array: uncompressed, one chunk per writer."""
    size = journal_size(layout) // layout.chains_per_chunk
    document = array_document(
        PLAIN["uint8"],
        (layout.chains, size),
        (layout.chains_per_chunk, size),
        ("chain", "journal_byte"),
    )
    return f"{JOURNAL}/zarr.json", encode_document(document)


def slots(layout: Buffered) -> tuple[int, int]:
    """The offset of the two slots of checkpoints."""
    end = row_layouts(layout)[1]
    return end, end + SLOT_BYTES


def seal_areas(layout: Buffered) -> tuple[int, int]:
    """The offsets of the seals of chunks, at the end of each slot."""
    first, second = slots(layout)
    inside = SLOT_BYTES - SEALS_BYTES
    return first + inside, second + inside


# Equal only to itself: it is a key in caches.
@dataclass(frozen=True, eq=False)
class RowLayout:
    """Where the rows of a variable, or of variables that share their rows, are in the journal.

    Attributes
    ----------
    columns : dict of str to int
        The offset of each variable in the file, by `group/variable`.
    stride : int
        Bytes from one draw to the next: for the whole row, or for one chain without seals.
    first, size : int
        The offset of the first row in the file, and the bytes of its values.
    length : int
        The number of rows: the draws of a chunk.
    starts : tuple of int
        The draws that the arrays begin with, ascending.
    """

    columns: dict[str, int]
    stride: int
    first: int
    size: int
    length: int
    starts: tuple[int, ...]

    @property
    def shared(self) -> bool:
        """Whether several variables have their values in one row."""
        return len(self.columns) > 1

    def start_of(self, draw: int) -> int:
        """The first draw of the array that a draw lies in."""
        return max(start for start in self.starts if start <= draw)

    def chunk_of(self, draw: int) -> int:
        """The first draw of the chunk that a draw lies in."""
        start = self.start_of(draw)
        return draw - (draw - start) % self.length

    def offset(self, draw: int) -> int:
        """The offset of the row of a draw in the file."""
        return self.first + (draw - self.start_of(draw)) % self.length * self.stride


def tables(layout: Buffered) -> list[RowLayout]:
    """The tables of rows, in their order."""
    return list(dict.fromkeys(row_layouts(layout)[0].values()))


@functools.lru_cache(maxsize=16)
def row_layouts(layout: Buffered) -> tuple[dict[str, RowLayout], int]:
    """The rows of each variable, by `group/variable`, and the offset where the last ones end."""
    found: dict[str, RowLayout] = {}
    end = header_size(layout)
    for parts in _tables_of_parts(layout).values():
        columns, size = {}, 0
        for variables in parts.values():
            # The larger ones come first, so that each one is aligned.
            for variable in sorted(variables, key=lambda variable: -variable.dtype.itemsize):
                columns[variable.label] = end + size
                chains = layout.chains_per_chunk if layout.sealed else 1
                size += chains * variable.bytes_per_draw
            if layout.sealed or len(variables) > 1:
                size = -(-size // 8) * 8
        length, starts = variable.draws_per_chunk, layout.array_starts(variable)
        stride = size + SEAL_BYTES if layout.sealed else size
        row_layout = RowLayout(columns, stride, end, size, length, starts)
        found |= dict.fromkeys(columns, row_layout)
        rows = length if layout.sealed else length * layout.chains_per_chunk
        end += -(-rows * stride // _ALIGNMENT) * _ALIGNMENT
    return found, end


def _tables_of_parts(layout: Buffered) -> dict[Any, dict[Any, list[Variable]]]:
    """Which variables share a table of rows, and which of them lie side by side in each row."""
    found: dict[Any, dict[Any, list[Variable]]] = {}
    for variable in layout.variables:
        if has_rows(layout, variable):
            packed = is_packed(layout, variable)
            part = (variable.group, variable.draws_per_chunk) if packed else variable.label
            shared = variable.draws_per_chunk, layout.array_starts(variable)
            table = shared if layout.sealed else part
            found.setdefault(table, {}).setdefault(part, []).append(variable)
    return found


def seal_numbers(row_layout: RowLayout, buffer: Any) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The numbers of the draws in the seals of a table, as a view of the buffer."""
    first = row_layout.first + row_layout.size
    return np.ndarray((row_layout.length,), "<i8", buffer, first, (row_layout.stride,))
