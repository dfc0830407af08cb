"""The rows in the chunks of a table, counted without trusting any stored number of rows.

At home, that is on the machine and in the directory where it is written, a table has the rows that
its journal and its zarr.json say. Elsewhere these files and the chunks may be of different moments:
only proven rows count there.
"""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass
from pathlib import Path

from ..layout.variables import Variable
from ..sampling_state.chunk_seals import ChunkSeals
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
        """The directory of the table, by which a journal recognises its place."""
        return self.location.path

    @property
    def has_checkpoint_apart(self) -> bool:
        """False: a table has no checkpoints, and never goes back."""
        return False

    def sealed_draws(self, seals: ChunkSeals, draws: range, count: int) -> int:
        """All of them: the chunks of a table have no seals."""
        return draws.stop

    def stored_draws(self, variable: Variable, count: int) -> int:
        """How many rows of a column, from the first on, the chunks hold; at most `count`."""
        if 0 in variable.shape:
            return count  # an empty value cannot be wrong
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
        """How many rows a chunk holds, from the first on."""
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
        """The first bytes of a chunk; None for a chunk that is missing or incomplete."""
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
    """A text for where a table is; "" in a store that is not a directory."""
    return "" if location.path is None else whereabouts(location.path)


def is_home(location: Location, home: str) -> bool:
    """Whether a table is where its writer wrote it."""
    return home != NOWHERE and home == home_of(location)
