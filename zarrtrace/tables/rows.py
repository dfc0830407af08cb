"""Read rows of a column: from its chunks, and from the journal while a chunk is being filled."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any, NamedTuple

import numpy as np

from ..errors import DamagedTraceError, StaleViewError
from ..layout.variables import Variable
from ..sampling_state.journal import Journal
from ..sampling_state.journal_format import has_rows
from ..store.location import Location
from .chunks import ColumnCodec
from .table_file import Stored, TableFile

_AT_ONCE = 16  # chunks that are fetched in parallel


def read_rows(
    location: Location, table_file: TableFile, name: str, rows: range
) -> np.ndarray[Any, Any]:
    """Some existing rows of a column, ascending: shape (rows, *shape).

    Raises
    ------
    DamagedTraceError
        A chunk is missing or cannot be decoded.
    StaleViewError
        The table has fewer rows by now.
    """
    while True:
        stored = table_file.current()
        try:
            return ColumnReader(location, stored, stored.layout.columns[name]).read(rows)
        except DamagedTraceError:
            # Another process may have changed how the table is stored, or which rows are lost.
            if table_file.current() is stored:
                raise


class _Piece(NamedTuple):
    """The part of a chunk in a read: which of its rows, and where they go."""

    chunk: int
    inside: slice
    into: np.ndarray[Any, Any]


class ColumnReader:
    """Reads rows of one column of a table as it is stored at one moment."""

    def __init__(self, location: Location, stored: Stored, column: Variable) -> None:
        self._location = location
        self._stored = stored
        self._layout = stored.layout
        self._column = column
        self._length = column.draws_per_chunk
        self._codec = ColumnCodec(self._layout, column)

    def read(self, rows: range) -> np.ndarray[Any, Any]:
        """The rows of an ascending range."""
        found: np.ndarray[Any, Any] = np.empty((len(rows), *self._column.shape), self._column.dtype)
        journal = self._journal()
        if journal is not None and rows and rows[-1] >= journal.count:
            raise self._went_back(journal.count)
        pieces = (
            piece
            for piece in self._pieces(rows, found)
            if journal is None or not self._copy_from_journal(journal, piece)
        )
        while batch := list(islice(pieces, _AT_ONCE)):
            keys = [self._layout.chunk_key(self._column, piece.chunk) for piece in batch]
            for piece, data in zip(
                batch, self._location.read_many(keys, self._codec.most), strict=True
            ):
                piece.into[...] = self._decode(piece.chunk, data)[piece.inside]
        return found

    def chunk(self, number: int) -> np.ndarray[Any, Any]:
        """One whole chunk: shape (draws_per_chunk, *shape)."""
        key = self._layout.chunk_key(self._column, number)
        return self._decode(number, self._location.read(key, self._codec.most))

    def _pieces(self, rows: range, found: np.ndarray[Any, Any]) -> Iterator[_Piece]:
        done = 0
        while done < len(rows):
            chunk, first = divmod(rows[done], self._length)
            number = len(range(first, self._length, rows.step))
            into = found[done : done + number]
            yield _Piece(
                chunk, slice(first, first + (len(into) - 1) * rows.step + 1, rows.step), into
            )
            done += number

    def _journal(self) -> Journal | None:
        file = self._layout.journal_file(self._location)
        if file is None or not has_rows(self._layout, self._column):
            return None
        return Journal.for_reading(self._layout, file, self._stored.chunks(self._location))

    def _copy_from_journal(self, journal: Journal, piece: _Piece) -> bool:
        """Copy rows of the chunk that is being filled; False when it is full and stored."""
        stop = (piece.chunk + 1) * self._length
        if journal.count >= stop:
            return False
        piece.into[...] = journal.rows_of(self._column)[0, piece.inside]
        # It was filled meanwhile: these may be rows of the next chunk.
        return journal.count < stop

    def _decode(self, chunk: int, data: memoryview | None) -> np.ndarray[Any, Any]:
        if data is not None:
            try:
                return self._codec.decode(data)
            except (ValueError, RuntimeError, TypeError) as error:
                raise self._damaged(chunk, f"cannot be decoded ({error})") from error
        if not any(lost.meets(self._column, chunk) for lost in self._stored.lost):
            raise self._damaged(chunk, "is missing")
        if self._column.dtype.kind not in "fcmM":
            raise self._damaged(chunk, "was lost, as repair reported")
        return np.full(self._codec.shape, self._codec.fill, self._column.dtype)

    def _went_back(self, count: int) -> StaleViewError:
        """The error for rows that were counted but are missing: on the disk of another machine.

        There different files may be seen at different times.
        """
        return StaleViewError(
            f"there are {count} rows, but more were counted before",
            where=f"{self._location}: column {self._column.name!r}",
            remedy="read it again; close() the table in the process that writes it to see all rows",
            group=self._column.group,
            variable=self._column.name,
            draw=count,
        )

    def _damaged(self, chunk: int, what: str) -> DamagedTraceError:
        first = chunk * self._length
        last = first + self._length - 1
        key = self._layout.chunk_key(self._column, chunk)
        return DamagedTraceError(
            f"the chunk {key} {what}",
            where=f"{self._location}: column {self._column.name!r}, rows {first} to {last}",
            remedy="restore it from a copy",
            group=self._column.group,
            variable=self._column.name,
            draw=first,
        )
