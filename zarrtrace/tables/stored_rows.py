"""The rows that are in the chunks of a table, where nobody is believed who says how many there are.

At home, that is on the machine and in the directory where it is written, a table has the rows that
its journal and its zarr.json say. Elsewhere these, and the chunks, may each be of another moment:
there only those rows count that are proven.
"""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass
from pathlib import Path

from ..layout.variables import Variable
from ..sampling_state.journal_header import NOWHERE, whereabouts
from ..store.local import open_regular, unreadable
from ..store.location import Location
from .chunks import HEADER, ColumnCodec
from .layout import LostRows, TableLayout


@dataclass(frozen=True)
class StoredRows:
    """The chunks of a table.

    Attributes
    ----------
    lost : tuple of LostRows
        Rows whose chunk was damaged: they count as stored.
    """

    location: Location
    layout: TableLayout
    lost: tuple[LostRows, ...]

    @property
    def directory(self) -> Path | None:
        """The directory of the table, by which a journal knows where it is."""
        return self.location.path

    def stored_draws(self, variable: Variable, count: int) -> int:
        """How many of the first `count` rows of a column the chunks hold, from the first on."""
        if 0 in variable.shape:
            return count  # what is empty cannot be wrong
        known = _rows_in_full_chunks(self)
        length = variable.draws_per_chunk
        done = known.get(variable.name, 0)
        codec = ColumnCodec(self.layout, variable)
        while done < count:
            rows = self._rows_in(variable, codec, done // length)
            if rows < length:
                return min(done + rows, count)
            done += length
            known[variable.name] = done
        return count

    def _rows_in(self, column: Variable, codec: ColumnCodec, chunk: int) -> int:
        """How many rows of a chunk are there, from the first on."""
        key = self.layout.chunk_key(column, chunk)
        header = self._header(key)
        if header is None:
            lost = any(one.meets(column, chunk) for one in self.lost)
            return len(codec) if lost else 0
        if not codec.may_have_more(header):
            return len(codec)
        data = self.location.read(key, codec.most)
        return 0 if data is None else codec.rows_in(data)

    def _header(self, key: str) -> memoryview | bytes | None:
        """How a chunk begins; None for one that is not there, or not all of it."""
        if self.location.path is None:
            return self.location.read(key)
        try:
            descriptor, size = open_regular(self.location.path / key)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise unreadable(key, str(self.location), error) from error
        try:
            header = os.pread(descriptor, HEADER, 0)
        finally:
            os.close(descriptor)
        # Power loss may leave a new file without its bytes.
        return header if size == int.from_bytes(header[12:16], "little") > 0 else None


@functools.lru_cache(maxsize=1024)
def _rows_in_full_chunks(stored: StoredRows) -> dict[str, int]:
    """How many rows of each column were found in full chunks, from the first on."""
    return {}


def home_of(location: Location) -> str:
    """What says where a table is; "" in a store that is not a directory."""
    return "" if location.path is None else whereabouts(location.path)


def is_home(location: Location, home: str) -> bool:
    """Whether a table is where it was written, as its writer has said."""
    return home != NOWHERE and home == home_of(location)
