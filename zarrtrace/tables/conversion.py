"""Convert a table that an earlier version stored as a trace to the present form.

Its columns stay where they are. Rows that are only in its journal are written to chunks; then one
document is replaced, and from then on the table has the present form. After a kill at any time,
every row exists.
"""

from __future__ import annotations

from dataclasses import replace

from ..layout.layout import STATE
from ..sampling_state.journal import Journal
from ..store.location import Location
from .appender import busy, require_free
from .chunks import ColumnCodec
from .earlier import CLAIM_KEY, read_claim
from .layout import JOURNAL
from .table_file import Stored, TableFile


def convert(location: Location, table_file: TableFile, stored: Stored) -> Stored:
    """Convert such a table; the caller locks out other processes.

    Raises
    ------
    ChainBusyError
        A process with an earlier version appends to it.
    """
    require_free(location, lambda: read_claim(location), CLAIM_KEY)
    rows = _rows_in_chunks(location, stored)
    layout = replace(stored.layout, journal=JOURNAL if stored.layout.journal else "")
    converted = Stored(layout, rows, lost=stored.lost)
    table_file.write_columns(converted)
    table_file.write(converted)
    location.delete_tree(STATE)
    return table_file.current()


def _rows_in_chunks(location: Location, stored: Stored) -> int:
    """Write the chunks that are partly filled; returns the number of rows in the chunks."""
    layout = stored.layout
    file = layout.journal_file(location)
    if file is None or not file.exists():
        return stored.rows
    try:
        journal = Journal.for_writing(layout, file, lambda journal: None)
    except BlockingIOError:
        raise busy(location, stored.claim) from None
    try:
        for column in layout.variables:
            chunk, filled = divmod(journal.count, column.draws_per_chunk)
            if filled and not column.is_text:
                rows = journal.rows_of(column)[0]
                data = ColumnCodec(layout, column).encode(rows, filled)
                location.write(layout.chunk_key(column, chunk), data)
        return journal.count
    finally:
        journal.close()
