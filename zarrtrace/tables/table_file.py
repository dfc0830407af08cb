"""The zarr.json of a table: its definition, the number of flushed rows, and who appends.

It is a single document and is replaced as a whole: a reader finds one moment of the table.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import astuple, dataclass
from typing import Any

import google_crc32c

from ..errors import DamagedTraceError, FormatVersionError, TraceNotFoundError
from ..layout.file import parse_count
from ..layout.layout import STATE
from ..sampling_state.claim import Claim
from ..sampling_state.journal_count import read_count
from ..store.location import Location
from ..store.zarr_json import LONGEST_DOCUMENT, encode_document, group_document, parse_document
from . import earlier
from .layout import LostRows, TableLayout, from_text, parse_lost, to_text
from .stored_rows import StoredRows, is_home

_LAYOUT = "zarrtrace_table"
_STATE = "zarrtrace_table_state"


@dataclass(frozen=True)
class Stored:
    """A table as it is stored at one moment.

    Attributes
    ----------
    rows : int
        Rows at the last flush.
    claim : Claim or None
        The claim of the process that appends.
    lost : tuple of LostRows
        Rows whose chunk was damaged, as repair found them.
    home : str
        Where the number of rows is valid: see `home_of`. Elsewhere the chunks are counted.
        "" in an object store. For tables of earlier versions the number is valid everywhere.
    as_trace : bool
        Whether it is stored as a trace, as earlier versions stored tables.
    """

    layout: TableLayout
    rows: int = 0
    claim: Claim | None = None
    lost: tuple[LostRows, ...] = ()
    home: str = ""
    as_trace: bool = False

    def chunks(self, location: Location) -> StoredRows:
        """Its chunks, in the form that a journal needs."""
        return StoredRows(location, self.layout, self.lost)

    def is_elsewhere(self, location: Location) -> bool:
        """Whether the number of rows was written elsewhere, so that only proven rows count."""
        return self.layout.sealed and not is_home(location, self.home)

    def proven_rows(self, location: Location) -> int:
        """The number of rows in the chunks."""
        count, chunks = self.rows, self.chunks(location)
        for column in self.layout.variables if self.is_elsewhere(location) else []:
            count = min(count, chunks.stored_draws(column, count))
        return count

    def document(self, column: str) -> dict[str, Any]:
        """The zarr.json of a column with the rows that were flushed."""
        lost = [str(one) for one in self.lost if one.column == column]
        return self.layout.document(self.layout.columns[column], self.rows, lost)


class TableFile:
    """Reads and replaces the zarr.json of a table."""

    def __init__(self, location: Location) -> None:
        self._location = location
        # One pair, replaced at once: threads may share a table.
        self._known: tuple[bytes, Stored] | None = None

    def current(self) -> Stored:
        """The table as it is stored now.

        Raises
        ------
        TraceNotFoundError
            There is no table, or an incomplete one.
        DamagedTraceError
            The document cannot be read.
        """
        data = self._read()
        if self._known is not None and data == self._known[0]:
            return self._known[1]
        attributes = self._attributes(data)
        if _LAYOUT not in attributes:
            return self._stored_as_trace()
        stored = self._with_state(self._layout(attributes), attributes)
        self._known = data, stored
        return stored

    def exists(self) -> bool:
        """Whether there is a table, damaged or not."""
        try:
            self.current()
        except TraceNotFoundError:
            return False
        except DamagedTraceError:
            pass
        return True

    def count_rows(self) -> int:
        """The number of rows now: that of the journal, or of the last flush."""
        stored = self.current()
        journal = stored.layout.journal_file(self._location)
        if journal is not None:
            count = read_count(stored.layout, journal, stored.chunks(self._location))
            if count is not None:
                return count
            # The number of rows is written before the journal is removed.
            stored = self.current()
        return stored.proven_rows(self._location)

    def write(self, stored: Stored) -> None:
        """Replace the document, atomically for every reader."""
        layout = to_text(stored.layout)
        state = json.dumps(
            {
                "rows": stored.rows,
                "writer": "" if stored.claim is None else stored.claim.to_text(),
                "lost": [astuple(one) for one in stored.lost],
                "home": stored.home,
            }
        )
        attrs = {
            **stored.layout.shown_attrs,
            _LAYOUT: layout,
            f"{_LAYOUT}_crc32c": _checksum(layout),
            _STATE: state,
            f"{_STATE}_crc32c": _checksum(state),
        }
        self._location.write("zarr.json", encode_document(group_document(attrs)))

    def write_columns(self, stored: Stored) -> None:
        """Write the zarr.json of each column, with the rows that were flushed."""
        self._location.write_many(
            (
                f"{stored.layout.path(column)}/zarr.json",
                encode_document(stored.document(column.name)),
            )
            for column in stored.layout.variables
        )

    def without_rows(self) -> Stored:
        """The readable part of a document that lacks a valid number of rows.

        Raises
        ------
        DamagedTraceError
            The layout cannot be read either.
        """
        attributes = self._attributes(self._read())
        if _LAYOUT in attributes:
            return Stored(self._layout(attributes))
        try:
            found = earlier.read_layout(self._location)
        except ValueError as error:
            raise self._damaged(str(error), f"{STATE}/zarr.json") from None
        if found is None:
            raise self._damaged("it has no layout of a table")
        return Stored(found[0], lost=found[1], as_trace=True)

    def _read(self) -> bytes:
        data = self._location.read("zarr.json", LONGEST_DOCUMENT)
        if data is None:
            raise TraceNotFoundError(f"there is no table at {self._location}")
        return bytes(data)

    def _attributes(self, data: bytes) -> Mapping[str, Any]:
        document = parse_document(memoryview(data), f"{self._location}: zarr.json")
        attributes = document.get("attributes")
        return attributes if isinstance(attributes, dict) else {}

    def _layout(self, attributes: Mapping[str, Any]) -> TableLayout:
        text = self._text(attributes, _LAYOUT)
        try:
            return from_text(text)
        except FormatVersionError as error:
            raise FormatVersionError(f"{self._location}: {error}") from None
        except (ValueError, KeyError, TypeError) as error:
            raise self._damaged(f"the layout of the table cannot be read ({error!r})") from None

    def _with_state(self, layout: TableLayout, attributes: Mapping[str, Any]) -> Stored:
        text = self._text(attributes, _STATE)
        try:
            content = json.loads(text)
            rows, claim = parse_count(content["rows"], 0), Claim.from_text(content["writer"])
            home = str(content.get("home", ""))  # earlier versions do not say it
            return Stored(layout, rows, claim, parse_lost(content["lost"]), home)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise self._damaged(f"the number of rows cannot be read ({error!r})") from None

    def _text(self, attributes: Mapping[str, Any], name: str) -> str:
        text = attributes.get(name)
        if not isinstance(text, str) or _checksum(text) != attributes.get(f"{name}_crc32c"):
            raise self._damaged(f"the checksum of the attribute {name} does not match")
        return text

    def _stored_as_trace(self) -> Stored:
        try:
            found = earlier.read_table(self._location)
        except ValueError as error:
            raise self._damaged(str(error), f"{STATE}/zarr.json") from None
        if found is None:
            raise TraceNotFoundError(f"there is no table at {self._location}")
        return Stored(*found, as_trace=True)

    def _damaged(self, why: str, key: str = "zarr.json") -> DamagedTraceError:
        return DamagedTraceError(
            why,
            where=f"{self._location}: {key} is damaged",
            remedy="`repair()` restores what it can",
        )


def _checksum(text: str) -> int:
    return int(google_crc32c.value(text.encode()))
