"""Append rows: value → journal → chunk → store, in the order that keeps the promises.

A row goes into the journal; when it completes a chunk of a column, that chunk is written; then the
number of rows is published. A published row is complete, and any other one was not appended.
"""

from __future__ import annotations

import difflib
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np

from ..errors import (
    DamagedTraceError,
    DrawError,
    NotWritableError,
    PartlyRecordedError,
    TraceError,
    TraceNotFoundError,
)
from ..layout.variables import Variable
from ..recording import exit as ending
from ..recording.holder import Holder, State
from ..recording.row_plan import Target, share_rows
from ..sampling_state.claim import Claim
from ..sampling_state.journal import Journal
from ..sampling_state.journal_format import has_rows, journal_size
from ..store.location import Location
from ..store.zarr_json import PLAIN, array_document, encode_document
from .appender import alone, busy, require_free
from .chunks import ColumnCodec
from .conversion import convert
from .layout import ROWS
from .rows import ColumnReader
from .stored_rows import home_of
from .table_file import Stored, TableFile

_OPEN = State.OPEN  # every row reads it, and access to an enum is slow
_ONE = range(1)  # the chains of a table, as a value's target counts them

Values = Mapping[str, Any]


class RowWriter(Holder):
    """Appends rows to one table, from the one process that may append."""

    _unit = "row"
    _another = "open the table again"
    # A table belongs to a process, not to one of its threads.
    _waits_for_threads = True

    def __init__(self, location: Location, table_file: TableFile) -> None:
        super().__init__(str(location), None)
        self._location = location
        self._table_file = table_file
        with alone(location):
            stored = table_file.current()
            if stored.as_trace:
                stored = convert(location, table_file, stored)
            self._layout = stored.layout
            predecessor = self._find_predecessor(stored.claim, patience=0)
            if predecessor is None:
                self._journal = self._open_journal(stored)
            else:
                self._journal = predecessor._give_way(self._claim)
                # The other writer may have written waiting rows.
                stored = table_file.current()
            try:
                self._claim.hold()
                if stored.claim is not None:
                    # Unfinished files of a writer that was killed are not needed.
                    location.remove_partial_files()
                table_file.write(replace(stored, claim=self._claim))
                if not self._journal.locked and not self._is_claimed():
                    raise busy(location, self._read_claim())
                self._lost = stored.lost  # a table is not repaired while it has a writer
                self._home = home_of(location) if self._layout.sealed else ""
                self._codecs = {
                    column.name: ColumnCodec(self._layout, column)
                    for column in self._layout.variables
                }
                self._shown = -1
                self._lay_out(stored)
                if self._journal.is_elsewhere or stored.is_elsewhere(location):
                    self._settle()
            except BaseException:
                self._let_go()
                raise
        self._flushed = time.monotonic()
        self._state = State.OPEN
        ending.register(self)

    # Opening ------------------------------------------------------------------------------

    def _open_journal(self, stored: Stored) -> Journal:
        file = self._layout.journal_file(self._location)

        def fill(journal: Journal) -> None:
            count = stored.proven_rows(self._location)
            for column in self._layout.variables:
                if has_rows(self._layout, column):
                    self._load(stored, column, count, journal.rows_of(column))
            journal.seal_rows(count)
            journal.count = count

        if file is None:
            require_free(self._location, self._read_claim)
            journal = Journal.in_memory(self._layout)
            fill(journal)
            return journal
        key = f"{self._layout.journal}/zarr.json"
        if not self._location.exists(key):
            self._location.write(key, self._journal_document())
        try:
            chunks = stored.chunks(self._location)
            journal = Journal.for_writing(self._layout, file, fill, chunks)
        except BlockingIOError:
            raise busy(self._location, stored.claim) from None
        # With the lock no process on this machine has it; locks may not reach other machines.
        claim = stored.claim
        if claim is not None and not (journal.locked and claim.is_of_this_machine):
            try:
                require_free(self._location, self._read_claim)
            except BaseException:
                journal.close()
                raise
        return journal

    def _journal_document(self) -> bytes:
        shape = (1, journal_size(self._layout))
        dims = ("writer", "journal_byte")
        return encode_document(array_document(PLAIN["uint8"], shape, shape, dims))

    def _lay_out(self, stored: Stored) -> None:
        """Plan where the values of a row go, so that appending only has to copy them."""
        self._counter = self._journal.counter
        self._seals = self._journal.seals(self.rows)
        self._held = {label: rows[0] for label, rows in self._journal.rows.items()}
        self._text = [column for column in self._layout.variables if column.is_text]
        for column in self._layout.variables:
            if column.label not in self._held:
                rows = np.zeros(self._layout.chunk_shape(column), column.dtype)
                self._load(stored, column, self.rows, rows)
                self._held[column.label] = rows[0]
        self._targets = [
            Target(column, self._held[column.label], column.shape)
            for column in self._layout.variables
        ]
        self._places = share_rows(self._targets, self._journal)
        self._set_boundary()

    def _load(
        self, stored: Stored, column: Variable, count: int, rows: np.ndarray[Any, Any]
    ) -> None:
        """Load the rows of the chunk that holds row `count`, as far as they exist."""
        chunk, filled = divmod(count, column.draws_per_chunk)
        if filled:
            reader = ColumnReader(self._location, stored, column)
            rows[0, :filled] = reader.chunk(chunk)[:filled]

    def _settle(self) -> None:
        """Make the chunks hold exactly the proven rows.

        Once new rows are appended, it cannot be seen that later chunks are not
        part of the table.
        """
        stale = []
        for column in self._layout.variables:
            first = -(-self.rows // column.draws_per_chunk)
            paths = self._location.keys(self._layout.path(column))
            stale += [path for path in paths if self._layout.chunk_of(column, path) >= first]
        self._location.delete_many(stale)
        self._write_out()
        self._show_rows()

    def _set_boundary(self) -> None:
        """Find the next number of rows at which some chunk is full."""
        self._boundary = min(
            (self.rows // target.length + 1) * target.length for target in self._targets
        )

    # Appending ----------------------------------------------------------------------------

    @property
    def rows(self) -> int:
        """The number of rows, including those that wait in memory."""
        return self._journal.count

    def append(self, values: Values) -> None:
        """Append one row.

        If a value is refused, others may be in the buffer already: they do not count, and
        the next row replaces them.
        """
        if self._state is not _OPEN:
            self._require_writable()
        while self._in_call:
            self._overlap()
        try:
            self._in_call = True
            count = self._counter[0]
            if count >= self._boundary:
                self._begin_chunks(count)
            self._put(values, count)
            self._advance(count + 1)
        finally:
            self._in_call = False

    def _put(self, values: Values, count: int) -> None:
        """Put the values of row `count` into the buffer."""
        try:
            if len(values) != len(self._targets):
                raise self._misnamed(values)
            for place in self._places:
                place.put(values, _ONE, count)
        except DrawError as error:
            raise self._refused(error) from None
        except LookupError:
            if values.keys() == self._layout.columns.keys():
                raise
            raise self._misnamed(values) from None

    def append_rows(self, columns: Values) -> None:
        """Append several rows: for every column an array with a value for each of them.

        Raises
        ------
        DrawError
            Values do not fit their columns; none of the rows is kept.
        PartlyRecordedError
            The store could not be written after some of the rows were appended. Its `kept` is
            their number: append the rest.
        NotWritableError
            The store could not be written, and none of the rows is kept.
        """
        with self._only_call():
            if self._state is not _OPEN:
                self._require_writable()
            if columns.keys() != self._layout.columns.keys():
                raise self._misnamed(columns)
            number: int | None = None
            checked = []
            try:
                for target in self._targets:
                    values, number = target.check_block(
                        columns[target.name], number, _ONE, self.rows
                    )
                    checked.append((target, values))
            except DrawError as error:
                raise self._refused(error) from None
            begin = self.rows
            try:
                self._append_parts(checked, number or 0)
            except (NotWritableError, DamagedTraceError, OSError) as error:
                kept = self.rows - begin
                if not kept or isinstance(error, TraceNotFoundError):
                    raise
                raise PartlyRecordedError(
                    f"the first {kept} of {number} rows are appended, then appending failed "
                    f"({error})",
                    where=str(self._location),
                    remedy=f"remove the cause and append the rest of these rows, starting with row "
                    f"{kept}",
                    group=ROWS,
                    draw=self.rows,
                    kept=kept,
                ) from error

    def _append_parts(self, checked: list[tuple[Target, np.ndarray[Any, Any]]], rows: int) -> None:
        """Append rows in parts, each up to the end of a chunk."""
        done = 0
        while done < rows:
            count = self.rows
            if count >= self._boundary:
                self._begin_chunks(count)
            step = min(rows - done, self._boundary - count)
            for target, values in checked:
                first = count % target.length
                target.rows[first : first + step] = values[done : done + step]
            done += step
            self._advance(count + step)

    def _advance(self, count: int) -> None:
        """Publish the rows below `count`. A failure stops it between two steps."""
        survives = self._journal.survives
        if not survives and time.monotonic() > self._flushed + self._layout.flush_every:
            # This concerns the rows before this one: if it fails, this one was not accepted.
            self._require_claim()
            self._write_out()
        # 1. The chunks that these rows complete are written.
        if count == self._boundary:
            self._write_full(count)
        if self._text and survives:
            self._write_partial(count, self._text)
        # 2. They get seals, for readers who cannot trust the count.
        for row in range(self._counter[0], count):
            for seal in self._seals:
                seal.put(row)
        # 3. One assignment publishes them, if the writer was not closed or displaced meanwhile.
        if self._state is not _OPEN:
            self._require_writable()
        self._counter[0] = count
        # 4. Only now may rows go into the buffer of the chunks that are full. These are appended,
        # so a failure does not concern them: the next call tries again before it appends.
        if count == self._boundary:
            with suppress(TraceError, OSError):
                self._begin_chunks(count)

    def _begin_chunks(self, count: int) -> None:
        """Move on to the chunks of row `count`, if some were full before it.

        If this is interrupted, the next row finds the boundary unchanged, and does it again.
        """
        lengths = [column.draws_per_chunk for column in self._layout.variables]
        if not self._journal.survives and not any(count % length for length in lengths):
            # No row waits, so a reader without a journal may know about all of them.
            self._publish()
        self._set_boundary()

    # Writing ------------------------------------------------------------------------------

    @property
    def waits(self) -> bool:
        """Whether rows wait in memory and would be lost with the process."""
        return not self._journal.survives

    def flush(self) -> None:
        """Write what is buffered, so that any Zarr reader finds all rows."""
        with self._only_call():
            self._require_writable()
            self._write_out()
            self._show_rows()

    def _write_out(self) -> None:
        """Write what is buffered, and the number of rows."""
        # Full chunks were written when they became full, and may no longer be in the buffer.
        self._write_partial(self.rows, self._layout.variables)
        self._publish()
        self._flushed = time.monotonic()

    def _write_last(self) -> None:
        """Write the chunks that are not full, and show all rows to any Zarr reader."""
        self._require_claim()
        self._write_partial(self.rows, self._layout.variables)
        self._show_rows()
        self._publish()
        self._remove_journal()

    def _remove_journal(self) -> None:
        """Remove the journal, when all of its rows are in the chunks."""
        file = self._layout.journal_file(self._location)
        if file is not None:
            # The next writer can open once the array of the journal is gone too.
            with alone(self._location):
                file.unlink(missing_ok=True)
                self._location.delete_tree(self._layout.journal)

    def _write_full(self, count: int) -> None:
        """Write the chunks whose last row is the one before `count`.

        Their rows are in the buffer only until the next row is appended.
        """
        if not self._journal.locked:
            # Another writer may hold the table by now.
            self._require_writable()
        full = [c for c in self._layout.variables if count % c.draws_per_chunk == 0]
        self._write((c, count // c.draws_per_chunk - 1, c.draws_per_chunk) for c in full)

    def _write_partial(self, count: int, columns: Iterable[Variable]) -> None:
        """Write the chunks that are partly filled."""
        places = ((c, *divmod(count, c.draws_per_chunk)) for c in columns)
        self._write((c, chunk, filled) for c, chunk, filled in places if filled)

    def _write(self, chunks: Iterable[tuple[Variable, int, int]]) -> None:
        # The store makes missing directories: a table that was removed must not come back.
        if self._location.path is not None and not self._location.exists("zarr.json"):
            raise TraceNotFoundError(
                f"the table at {self._location} was removed while rows were "
                f"appended; rows in memory cannot be flushed"
            )
        self._location.write_many(
            (
                self._layout.chunk_key(column, chunk),
                self._codecs[column.name].encode(self._held[column.label], filled),
            )
            for column, chunk, filled in chunks
        )

    def _publish(self) -> None:
        """Store the number of rows for readers that find no journal."""
        with self._claiming:
            self._table_file.write(self._stored(self._claim))

    def _stored(self, claim: Claim | None) -> Stored:
        return Stored(self._layout, self.rows, claim, self._lost, self._home)

    def _show_rows(self) -> None:
        """Set the length of the arrays to the number of rows in their chunks."""
        if self.rows == self._shown:
            return
        self._table_file.write_columns(self._stored(None))
        self._shown = self.rows

    # The claim ----------------------------------------------------------------------------

    def _read_claim(self) -> Claim | None:
        return self._table_file.current().claim

    def _write_claim(self, claim: Claim | None) -> None:
        self._table_file.write(replace(self._table_file.current(), claim=claim))

    # Refusing -----------------------------------------------------------------------------

    def _require_writable(self) -> None:
        self._require_open()
        self._require_claim()

    def _misnamed(self, values: Values) -> DrawError:
        """The error for a column that is missing, or that the table does not have."""
        names = list(self._layout.columns)
        unknown = [name for name in values if name not in names]
        if unknown:
            close = difflib.get_close_matches(str(unknown[0]), names, 1)
            remedy = f"did you mean {close[0]!r}?" if close else f"it has {', '.join(names)}"
            return self._error(f"there is no column {unknown[0]!r}", remedy, unknown[0])
        missing = [name for name in names if name not in values]
        why = f"no value for {', '.join(map(repr, missing))}"
        return self._error(why, "give one in each row", missing[0])

    def _refused(self, error: DrawError) -> DrawError:
        """The error for a value that does not fit its column."""
        if error.chain is None:
            return error
        return self._error(error.why, error.remedy, error.variable)

    def _error(self, why: str, remedy: str, column: str | None) -> DrawError:
        known = f", column {column!r}" if column in self._layout.columns else ""
        return DrawError(
            why,
            where=f"{self._location}{known}, row {self.rows}",
            remedy=remedy,
            group=ROWS,
            variable=column,
            draw=self.rows,
        )


RowWriter._calls = frozenset(
    call.__code__ for call in (RowWriter.append, RowWriter.append_rows, RowWriter.flush)
)
