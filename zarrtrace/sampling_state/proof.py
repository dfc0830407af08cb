"""Rows that prove themselves: a seal has the draw's number, and a checksum of it and the values.

A reader trusts the count in a journal's header only where it was written: in a copy,
on another machine and after power loss the header and the rows may be of different moments.
There the rows and the chunks prove the count.
"""

from __future__ import annotations

import struct
from typing import Any, Protocol

import google_crc32c

from ..layout.variables import Variable
from .journal_format import Buffered, RowLayout, has_rows, seal_numbers, tables

# The text after the last draw in a chunk of text that is not full.
NOT_RECORDED = "\0not recorded yet"

_SEAL = struct.Struct("<qI")  # the number of the draw, and the checksum
_NO_DRAW = -1
_WORD = 0xFFFFFFFF


class Chunks(Protocol):
    """The chunks that a journal belongs to."""

    def stored_draws(self, variable: Variable, count: int) -> int:
        """How many draws of a variable, from the first on, the chunks hold; at most `count`."""


class Seal:
    """Seals the rows of one table for the draws up to the next array."""

    __slots__ = ("_buffer", "_first", "_length", "_size", "_start", "_stride")

    def __init__(self, row_layout: RowLayout, buffer: Any, draw: int) -> None:
        self._buffer = buffer
        self._first = row_layout.first
        self._length = row_layout.length
        self._size = row_layout.size
        self._stride = row_layout.stride
        self._start = row_layout.start_of(draw)

    def put(self, draw: int) -> None:
        """Seal the row of a draw, after its values were written."""
        first = self._first + (draw - self._start) % self._length * self._stride
        stop = first + self._size
        # As `_checksum`; the bytes of a mapped file need no copy.
        checksum = google_crc32c.extend(draw & _WORD, self._buffer[first:stop])
        _SEAL.pack_into(self._buffer, stop, draw, checksum)


def _checksum(draw: int, values: bytes) -> int:
    # It begins with the number: a row of another draw never has the same checksum.
    return int(google_crc32c.extend(draw & _WORD, values))


def seal_rows(layout: Buffered, buffer: Any, count: int, start: int = 0) -> None:
    """Seal the rows of draws below the count that are in the chunks that are being filled.

    Those of draws before `start` have seals.
    """
    for row_layout in tables(layout):
        for draw in range(max(row_layout.chunk_of(count), start), count):
            first = row_layout.offset(draw)
            stop = first + row_layout.size
            _SEAL.pack_into(buffer, stop, draw, _checksum(draw, bytes(buffer[first:stop])))


def break_seals(layout: Buffered, buffer: Any, count: int) -> None:
    """Remove the seals of draws from the count on, which were not published."""
    for row_layout in tables(layout):
        numbers = seal_numbers(row_layout, buffer)
        numbers[numbers >= count] = _NO_DRAW


def is_proven(row_layout: RowLayout, buffer: Any, draw: int) -> bool:
    """Whether the row of a draw holds all its values."""
    first = row_layout.offset(draw)
    stop = first + row_layout.size
    number, checksum = _SEAL.unpack_from(buffer, stop)
    return bool(number == draw and checksum == _checksum(draw, bytes(buffer[first:stop])))


def proven_count(layout: Buffered, buffer: Any, count: int, chunks: Chunks) -> int:
    """The number of draws, at most the count, that the rows in a buffer and the chunks prove.

    A draw is proven when every variable has it in a row or in a full chunk.
    """
    labels = {variable.label: variable for variable in layout.variables}
    shared = tables(layout)
    alone = [variable for variable in layout.variables if not has_rows(layout, variable)]
    found = -1
    while found != count:
        found = count
        for variable in alone:
            count = min(count, chunks.stored_draws(variable, count))
        for row_layout in shared:
            full = row_layout.chunk_of(count)
            for label in row_layout.columns:
                # The draws of a missing chunk, and of those after it, are missing.
                full = min(full, chunks.stored_draws(labels[label], full))
            if full < row_layout.chunk_of(count):
                count = full
            else:
                count = _first_unproven(row_layout, buffer, full, count)
    return count


def _first_unproven(row_layout: RowLayout, buffer: Any, start: int, stop: int) -> int:
    for draw in range(start, stop):
        if not is_proven(row_layout, buffer, draw):
            return draw
    return stop
