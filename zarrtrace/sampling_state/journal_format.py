"""What is where in a journal's file: the header, the tables of rows, the slots of checkpoints."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, Protocol

from ..layout.layout import STATE, Layout
from ..layout.variables import Variable
from ..store.zarr_json import PLAIN, array_document, encode_document

JOURNAL = f"{STATE}/journal"
HEADER = 64
SLOT_BYTES = 8192  # of a checkpoint; the generators of NumPy take half of it
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
        """Whether draws shall survive power loss."""

    def __hash__(self) -> int:
        """Different for each layout."""

    def chunk_shape(self, variable: Variable) -> tuple[int, ...]:
        """The shape of its rows: (chains_per_chunk, draws_per_chunk, *shape)."""


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
    """Where the two slots of checkpoints begin."""
    end = tables(layout)[1]
    return end, end + SLOT_BYTES


@dataclass(frozen=True)
class Table:
    """Where the rows of a variable are in the journal, or of the numbers that share theirs.

    Attributes
    ----------
    columns : dict of str to int
        Where each variable, by `group/variable`, begins in the file.
    stride : int
        Bytes from one draw of a chain to the next.
    """

    columns: dict[str, int]
    stride: int

    @property
    def shared(self) -> bool:
        """Whether several variables have their numbers in one row."""
        return len(self.columns) > 1


@functools.lru_cache(maxsize=16)
def tables(layout: Buffered) -> tuple[list[Table], int]:
    """The tables of a journal in their order, and where the last one ends."""
    together: dict[Any, list[Variable]] = {}
    for variable in layout.variables:
        if not variable.is_text:
            # Numbers, one a draw: many of them are written by one call, rather than one by one.
            number = variable.declared.kind in "iuf" and not variable.shape
            shares = number and layout.chains_per_chunk == 1
            key = (variable.group, variable.draws_per_chunk) if shares else variable.label
            together.setdefault(key, []).append(variable)
    found, end = [], HEADER
    for variables in together.values():
        variables.sort(key=lambda variable: -variable.dtype.itemsize)
        columns, offset = {}, 0
        for variable in variables:
            columns[variable.label] = end + offset
            offset += variable.bytes_per_draw
        stride = offset if len(variables) == 1 else -(-offset // 8) * 8
        found.append(Table(columns, stride))
        size = layout.chains_per_chunk * variables[0].draws_per_chunk * stride
        end += -(-size // _ALIGNMENT) * _ALIGNMENT
    return found, end
