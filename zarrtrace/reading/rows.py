"""The draws of one variable, wherever they lie: chunks, a journal, or half-way through a split.

A draw is named by its number since the start of its chain, warmup included. That number never
changes, so whoever holds it reads the same values before, during and after a split, until the draw
is dropped.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from ..errors import DamagedTraceError, TraceError
from ..layout.file import LayoutFile
from ..layout.layout import Layout, SampledGroup, variable_key
from ..layout.spans import Stretch, future_stretches, staged, stretches
from ..layout.variables import Variable
from ..messages import chain_label
from ..sampling_state.counts import recorded
from ..sampling_state.journal import Journal, journal_directory
from ..store.chunk_codec import ChunkCodec
from ..store.location import Location

_AT_ONCE = 16  # chunks that are waited for


class Wanted(NamedTuple):
    """Some draws of one block of chains, and the array they go into: (chains, draws, *shape)."""

    block: int
    draws: range
    into: np.ndarray[Any, Any]


def read_rows(
    location: Location, layout_file: LayoutFile, group: str, name: str, wanted: Iterable[Wanted]
) -> None:
    """Read some draws of one variable, each chunk once, several chunks side by side.

    The values are those of one layout: when a split changes it meanwhile, they are read again.

    Raises
    ------
    DamagedTraceError
        A chunk below the published count is missing or cannot be decoded.
    """
    wanted = list(wanted)
    while True:
        layout = layout_file.current()
        _require_kept(location, layout, wanted)
        sampled = layout.groups[group]
        readers = [
            RowReader(location, layout, sampled, sampled.variables[name], part.block)
            for part in wanted
        ]
        try:
            pieces = [
                piece
                for reader, part in zip(readers, wanted, strict=True)
                for piece in reader.pieces(part.draws, part.into)
            ]
            if location.waits:
                _fill_waiting(pieces)
            else:
                # One at a time: Blosc decodes each with all cores, and memory is that of one.
                for piece in pieces:
                    piece.fill()
            if not layout.closed:
                # Where no journal says that a chain went back, its chunks may be blank at the end.
                counts = recorded(location, layout)
                for reader, part in zip(readers, wanted, strict=True):
                    count = int(counts[layout.chains_of(part.block)[0]])
                    reader.require_recorded(count, part.draws[-1] + 1 if part.draws else 0)
        except DamagedTraceError:
            if layout_file.current() is layout:
                raise
            continue
        if layout_file.current() is layout:
            return


def _require_kept(location: Location, layout: Layout, wanted: Iterable[Wanted]) -> None:
    """Refuse draws that were dropped: what is left of their chunks may not be what they were."""
    if any(part.draws and part.draws[0] < layout.dropped for part in wanted):
        raise TraceError(
            f"the draws of {location} before {layout.dropped} were dropped since this view was "
            f"made; ask the trace for it again"
        )


def _fill_waiting(pieces: list[Piece]) -> None:
    """Fill the pieces side by side: on a store that makes us wait."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        # As a list: an error of one is raised here, when all have ended.
        list(pool.map(Piece.fill, pieces))


class Piece(NamedTuple):
    """What one chunk gives to a read."""

    reader: RowReader
    stretch: Stretch
    chunk: int
    covered: range
    rows: slice
    into: np.ndarray[Any, Any]

    def fill(self) -> None:
        """Read them."""
        self.reader.fill(self.stretch, self.chunk, self.covered, self.rows, self.into)


class RowReader:
    """Reads draws of one variable and one block of chains under one layout."""

    def __init__(
        self,
        location: Location,
        layout: Layout,
        group: SampledGroup,
        variable: Variable,
        block: int,
    ) -> None:
        self._location = location
        self._layout = layout
        self._group = group
        self._variable = variable
        self._block = block
        self._codec = ChunkCodec(variable.dtype, layout.encoding(variable.dtype))
        self._directory = journal_directory(location, layout)
        moved = group.moving_to is not None and variable.name in group.moved
        find = future_stretches if moved else stretches
        self.stretches = find(layout, group, variable)

    def read(self, draws: range) -> np.ndarray[Any, Any]:
        """The draws of a range, shape (chains of the block, draws, *shape)."""
        chains = len(self._layout.chains_of(self._block))
        shape = (chains, len(draws), *self._variable.shape)
        found: np.ndarray[Any, Any] = np.empty(shape, dtype=self._variable.dtype)
        for piece in self.pieces(draws, found):
            piece.fill()
        return found

    def pieces(self, draws: range, into: np.ndarray[Any, Any]) -> Iterator[Piece]:
        """Where the draws of a range lie, chunk by chunk, and where in an array they go."""
        length, done = self._variable.draws_per_chunk, 0
        for stretch in self.stretches:
            while done < len(draws) and draws[done] < stretch.stop:
                chunk, covered = stretch.place(draws[done], length)
                inside = draws[done : done + len(range(draws[done], covered.stop, draws.step))]
                rows = slice(inside[0] - covered.start, inside[-1] - covered.start + 1, draws.step)
                after = done + len(inside)
                yield Piece(self, stretch, chunk, covered, rows, into[:, done:after])
                done = after

    def fill(
        self, stretch: Stretch, chunk: int, covered: range, rows: slice, into: np.ndarray[Any, Any]
    ) -> None:
        """Read some rows of one chunk: from the journal while the chunk is being filled."""
        while (journal := self._journal()) is not None:
            self.require_recorded(journal.count, covered.start + rows.stop)
            if journal.count < covered.stop and not self._variable.is_text:
                into[...] = journal.rows_of(self._variable)[: len(into), rows]
                # Published in full meanwhile: these may be rows of the next chunk.
                if journal.count < covered.stop:
                    return
            self._fill_from_store(stretch, chunk, covered, rows, into)
            # A chain that goes back replaces its journal before it writes any chunk anew.
            if journal.is_current():
                return
        self._fill_from_store(stretch, chunk, covered, rows, into)

    def _fill_from_store(
        self, stretch: Stretch, chunk: int, covered: range, rows: slice, into: np.ndarray[Any, Any]
    ) -> None:
        shape, dtype = self._layout.chunk_shape(self._variable), self._variable.dtype
        if (into.shape, into.dtype) == (shape, dtype):
            self.chunk(stretch, chunk, covered, into)
        else:
            into[...] = self.chunk(stretch, chunk, covered)[: len(into), rows]

    def _journal(self) -> Journal | None:
        if self._directory is None:
            return None
        return Journal.for_reading(self._layout, self._directory, self._block)

    def require_recorded(self, count: int, stop: int) -> None:
        """Refuse draws that a chain no longer has: it went back to its checkpoint."""
        if count < stop:
            raise TraceError(
                f"{chain_label(self._layout.chains_of(self._block))} of {self._location} went back "
                f"to its checkpoint at draw {count} since this view was made; ask the trace for it "
                f"again"
            )

    def check(self, stretch: Stretch, chunk: int, covered: range, there: range) -> None:
        """Raise DamagedTraceError unless the draws `there` of a chunk can be read."""
        shape = (len(self._layout.chains_of(self._block)), len(there), *self._variable.shape)
        into: np.ndarray[Any, Any] = np.empty(shape, self._variable.dtype)
        first = there.start - covered.start
        self.fill(stretch, chunk, covered, slice(first, first + len(there), 1), into)

    def _is_lost(self, covered: range) -> bool:
        return any(
            (lost.group, lost.variable, lost.block)
            == (self._group.name, self._variable.name, self._block)
            and lost.start < covered.stop
            and covered.start < lost.stop
            for lost in self._layout.lost
        )

    def chunk(
        self,
        stretch: Stretch,
        chunk: int,
        covered: range,
        into: np.ndarray[Any, Any] | None = None,
    ) -> np.ndarray[Any, Any]:
        """One whole chunk from the store, in an array of its own or in one that is given."""
        shape = self._layout.chunk_shape(self._variable)
        key = variable_key(stretch.path, self._variable, self._block, chunk)
        moving = self._group.moving_to is not None
        data = self._moving_bytes(key, covered) if moving else self._location.read(key)
        chains = self._layout.chains_of(self._block)
        where = (
            f"{self._location}: {self._variable.label}, {chain_label(chains)}, "
            f"draws {covered.start} to {covered.stop - 1}: the chunk {key}"
        )
        place: dict[str, Any] = {
            "group": self._group.name,
            "variable": self._variable.name,
            "chain": chains[0],
            "draw": covered.start,
        }
        if data is None and self._layout.lost and self._is_lost(covered):
            if self._variable.dtype.kind in "fcmM":
                into = np.empty(shape, self._variable.dtype) if into is None else into
                into[...] = self._codec.fill
                return into
            raise DamagedTraceError(f"{where} was lost, as repair has said", **place)
        if data is None:
            raise DamagedTraceError(f"{where} is missing; restore it from a copy", **place)
        try:
            if into is None:
                return self._codec.decode(data, shape)
            self._codec.decode_into(data, into)
            return into
        except (ValueError, RuntimeError, TypeError) as error:
            raise DamagedTraceError(
                f"{where} cannot be decoded ({error}); restore it from a copy", **place
            ) from error

    def _moving_bytes(self, key: str, covered: range) -> memoryview | None:
        """The bytes of a chunk during a split: where it was, where it is staged, where it goes."""
        places, moved = [], ""
        for new in future_stretches(self._layout, self._group, self._variable):
            if new.start <= covered.start < new.stop:
                chunk, _ = new.place(covered.start, self._variable.draws_per_chunk)
                moved = variable_key(new.path, self._variable, self._block, chunk)
                places = [staged(moved)]
        # One path is the old array's until the groups are swapped, and the new one's from then.
        if self._group.swapping:
            places.append(moved)
        elif self._variable.name not in self._group.moved:
            places.insert(0, key)
        # It may have gone from one place to the next while both were looked at.
        for place in (*places, *places):
            data = self._location.read(place)
            if data is not None:
                return data
        return None
