"""The draws of variables, wherever they lie: chunks, a journal, or half-way through a split.

A draw is named by its number since the start of its chain, warmup included. This number never
changes, so it refers to the same values before, during and after a split, until the draw
is dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property, partial
from itertools import islice
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from ..errors import DamagedTraceError, StaleViewError
from ..layout.hierarchy import Hierarchy
from ..layout.layout import Layout
from ..layout.spans import ChunkPlace, Span, future_spans, span_of, spans, staged
from ..layout.variables import Variable
from ..messages import range_label
from ..sampling_state.block import ChainBlock
from ..sampling_state.draw_codec import draw_codec
from ..sampling_state.flushed import Flushed, look_at, read_last_rows
from ..sampling_state.journal import Journal
from ..sampling_state.journal_format import row_layouts
from ..store.at_once import at_once
from ..store.large_blocks import reuse_large_blocks
from ..store.network import Arrival
from .as_finished import is_as_finished, is_blank, read_before_threads

_BLOCKS_AT_ONCE = 64  # blocks of chains whose journals are mapped
_REMEDY = "restore it from a copy"
_MISSING = (
    "is missing: it was lost, or another tool has overwritten it with fill values, and Zarr "
    "stores no chunk for these"
)
_TOO_SHORT = "has fewer draws than the chain"
_OVERWRITTEN = (
    "was overwritten by another tool: with numbers for times, or with fill values after the end of "
    "the shortest chain"
)

# Reads some rows of one chunk into an array.
Piece: TypeAlias = Callable[[], None]


class Wanted(NamedTuple):
    """Some draws of variables in a block of chains, and the array to read them into.

    Attributes
    ----------
    variables : list of Variable
        Variables of one group, dtype, shape and number of draws in a chunk. Using the same list
        for other blocks saves looking up their rows in each journal.
    into : numpy.ndarray
        Shape (variables, chains of the block, draws, *shape).
    series : bytes or None
        The series of the journal of the block when the draws were counted, b"" without one. If the
        chain has gone back to a draw before their end since, they are refused. None reads the
        present draws of these numbers.
    """

    variables: list[Variable]
    block: int
    draws: range
    into: np.ndarray[Any, Any]
    series: bytes | None = None


def read_rows(hierarchy: Hierarchy, wanted: Iterable[Wanted]) -> None:
    """Read some draws of any number of variables, each chunk once.

    All values are read under one layout: if a split changes it meanwhile, they are read again.

    Raises
    ------
    DamagedTraceError
        A chunk below the published count is missing or cannot be decoded.
    StaleViewError
        The draws were dropped, or their chain went back to a checkpoint.
    """
    by_block: dict[int, list[Wanted]] = {}
    for part in wanted:
        if part.draws:
            by_block.setdefault(part.block, []).append(part)
    blocks = iter(by_block.items())
    while batch := dict(islice(blocks, _BLOCKS_AT_ONCE)):
        _read_batch(hierarchy, batch)


def _read_batch(hierarchy: Hierarchy, batch: Mapping[int, list[Wanted]]) -> None:
    arrival = Arrival(hierarchy.location.network)
    while True:
        layout = hierarchy.layout
        _require_kept(hierarchy, layout, batch)
        _require_same_rounding(hierarchy, layout, batch)
        stops = {
            ChainBlock(hierarchy.location, layout, number): _stop_of(parts)
            for number, parts in batch.items()
        }
        blocks = _open_blocks(stops)
        try:
            _fill(blocks, batch)
        except DamagedTraceError:
            # If the chain went back, this is not damage: its last chunks are written again.
            is_present = hierarchy.layout is layout and _are_current(blocks, stops)
            if is_present and (layout.finished or not arrival.is_due()):
                raise
            continue
        if _are_current(blocks, stops) and hierarchy.layout is layout:
            return


def _stop_of(parts: list[Wanted]) -> int:
    """The draw after the last one that is wanted."""
    return max(part.draws[-1] + 1 for part in parts)


def _require_kept(hierarchy: Hierarchy, layout: Layout, batch: Mapping[int, list[Wanted]]) -> None:
    """Refuse draws that were dropped: their remaining chunks may have been rewritten."""
    if any(part.draws[0] < layout.dropped for parts in batch.values() for part in parts):
        raise StaleViewError(
            f"the draws of {hierarchy} before {layout.dropped} were dropped since this view was "
            f"made",
            remedy="ask the trace for it again",
        )


def _require_same_rounding(
    hierarchy: Hierarchy, layout: Layout, batch: Mapping[int, list[Wanted]]
) -> None:
    """Refuse draws that were rounded since: a view shows one state of them."""
    lists = {id(part.variables): part.variables for parts in batch.values() for part in parts}
    for variables in lists.values():
        now = layout.groups[variables[0].group].variables
        for variable in variables:
            if now[variable.name].compacted != variable.compacted:
                raise StaleViewError(
                    f"the draws of {variable.label} in {hierarchy} were rounded since this view "
                    f"was made",
                    remedy="ask the trace for it again",
                    group=variable.group,
                    variable=variable.name,
                )


def require_recorded(block: ChainBlock, count: int, stop: int) -> None:
    """Refuse draws that a chain no longer has because it went back to its checkpoint."""
    if count < stop:
        raise StaleViewError(
            f"{block} went back to its checkpoint at draw {count} since this view was made",
            remedy="ask the trace for it again",
            chain=block.chains[0],
            draw=count,
        )


def _fill(blocks: list[_OpenBlock], batch: Mapping[int, list[Wanted]]) -> None:
    """Fill the arrays: first from the journals, then chunk by chunk from the store."""
    runs: dict[int, list[_Run]] = {}
    # Draws are in the same places in all blocks.
    chunks: dict[tuple[str, range], list[ChunkRows]] = {}
    pieces: list[Piece] = []
    for open_block, parts in zip(blocks, batch.values(), strict=True):
        for part in parts:
            draws, key = part.draws, id(part.variables)
            if open_block.journal is not None:
                if key not in runs:
                    runs[key] = _runs(open_block.block.layout, part.variables)
                draws = draws[: open_block.copy_rows(part, open_block.journal, runs[key])]
            open_block.require_same_series(part)
            if not draws:
                continue
            for variable, into in zip(part.variables, part.into, strict=True):
                reader = RowReader(open_block.block, variable)
                if (variable.label, draws) not in chunks:
                    chunks[variable.label, draws] = reader.chunks(draws)
                pieces += reader.pieces(chunks[variable.label, draws], into)
    location = blocks[0].block.location
    if location.waits:
        read_before_threads(location, blocks[0].block.layout)
    fill_pieces(pieces, location.waits)


def fill_pieces(pieces: list[Piece], waits: bool) -> None:
    """Read chunks from the store, in parallel if the store is remote."""
    if waits:
        at_once(lambda fill: fill(), pieces)
    else:
        # One at a time: Blosc decodes each with all cores, with the memory of one chunk.
        for fill in pieces:
            fill()


class _Run(NamedTuple):
    """Variables with equidistant rows in a journal: every `step` bytes from `start` on."""

    variables: slice
    start: int
    step: int


def _runs(layout: Layout, variables: list[Variable]) -> list[_Run]:
    """Where the rows of similar variables are in each journal; neighbours form one run."""
    tables, _ = row_layouts(layout)
    if variables[0].label not in tables:
        return []  # text
    places = []
    for label in [variable.label for variable in variables]:
        table = tables[label]
        places.append((table.columns[label], table.stride))
    runs, first = [], 0
    while first < len(places):
        start, stride = places[first]
        stop = first + 1
        step = places[stop][0] - start if stop < len(places) else 0
        while stop < len(places) and places[stop] == (start + (stop - first) * step, stride):
            stop += 1
        runs.append(_Run(slice(first, stop), start, step))
        first = stop
    return runs


class _OpenBlock:
    """A block of chains with its journal, mapped once for all reads, or with its last rows.

    Attributes
    ----------
    flushed : Flushed or None
        What its writer had flushed, where no journal is mapped.
    """

    def __init__(self, block: ChainBlock) -> None:
        self.block = block
        self.has_journal = not (block.layout.closed or block.layout.splitting)
        self.journal = block.read_journal() if self.has_journal else None
        self.flushed: Flushed | None = None

    def is_current(self) -> bool:
        """Whether it still has the mapped journal, or none, with which it was opened.

        A chain that goes back replaces its journal before it rewrites a chunk.
        """
        if not self.has_journal:
            return True
        if self.journal is not None and self.flushed is None:
            return self.journal.is_current()
        path = self.block.journal_file
        return path is None or not path.exists()

    def require_same_series(self, part: Wanted) -> None:
        """Refuse draws that the chain has drawn again: they may have other values than before."""
        journal, known = self.journal, part.series
        if self.flushed is not None and known is not None and known != self.flushed.series:
            rows = read_last_rows(self.block)
            journal = None if rows is None else rows.journal
        if journal is None or known is None or known == journal.series:
            return
        if (back := journal.went_back_to) is not None:
            require_recorded(self.block, back, part.draws[-1] + 1)

    def copy_rows(self, part: Wanted, journal: Journal, runs: list[_Run]) -> int:
        """Copy the last draws, of the chunk that is being filled, from its journal.

        Returns
        -------
        int
            The number of draws before them, in full chunks.
        """
        draws, variable, count = part.draws, part.variables[0], journal.count
        require_recorded(self.block, count, draws[-1] + 1)
        span = span_of(spans(self.block.layout, variable), count)
        filling = span.place(count, variable.draws_per_chunk).draws
        before = len(range(draws.start, min(draws.stop, filling.start), draws.step))
        inside = draws[before:]
        if not runs or not inside or count == filling.stop:
            return len(draws)
        rows = slice(inside[0] - filling.start, inside[-1] - filling.start + 1, draws.step)
        for run in runs:
            like = journal.rows_of(part.variables[run.variables.start])
            shape = (run.variables.stop - run.variables.start, *like.shape)
            strides = (run.step, *like.strides)
            buffered: np.ndarray[Any, Any] = np.ndarray(
                shape, like.dtype, journal.buffer, run.start, strides
            )
            part.into[run.variables, :, before:] = buffered[:, : len(self.block.chains), rows]
        # The chunk was filled meanwhile: these may be rows of the next chunk.
        return before if journal.count < filling.stop else len(draws)


def _open_blocks(stops: Mapping[ChainBlock, int]) -> list[_OpenBlock]:
    """Open blocks of chains to read draws up to a stop of each, with last rows if needed."""
    opened = [_OpenBlock(block) for block in stops]
    unmapped = [
        one for one in opened if one.has_journal and one.journal is None and stops[one.block]
    ]
    for one, found in zip(unmapped, look_at(one.block for one in unmapped), strict=True):
        one.flushed = found
        if found.series and stops[one.block] > found.in_chunks:
            rows = read_last_rows(one.block)
            one.journal = None if rows is None else rows.journal
    return opened


def _are_current(opened: list[_OpenBlock], stops: Mapping[ChainBlock, int]) -> bool:
    """Whether no chain went back and none was moved since the blocks were opened.

    Raises
    ------
    StaleViewError
        A chain has fewer draws than were asked for: it went back before that.
    """
    if not all(one.is_current() for one in opened):
        return False
    unmapped = [one for one in opened if one.flushed is not None]
    current = True
    for one, now in zip(unmapped, look_at(one.block for one in unmapped), strict=True):
        assert one.flushed is not None
        require_recorded(one.block, now.count, stops[one.block])
        current = current and now.series == one.flushed.series
    return current


class ChunkRows(NamedTuple):
    """Some rows of one chunk, and their positions in a range of draws."""

    place: ChunkPlace
    rows: slice
    taken: slice


class RowReader:
    """Reads draws of one variable and one block of chains from the store, under one layout."""

    def __init__(self, block: ChainBlock, variable: Variable) -> None:
        layout = block.layout
        self.block = block
        self._location = block.location
        self._layout = layout
        self._group = layout.groups[variable.group]
        self._variable = variable
        self._codec = draw_codec(layout, variable)
        self._checked: _OpenBlock | None = None
        reuse_large_blocks(
            layout.chains_per_chunk * variable.draws_per_chunk * variable.bytes_per_draw
        )

    @cached_property
    def spans(self) -> list[Span]:
        """The arrays in which the variable is read."""
        moved = self._group.moving_to is not None and self._variable.name in self._group.moved
        return (future_spans if moved else spans)(self._layout, self._variable)

    @cached_property
    def _most(self) -> int | None:
        """The most bytes that a chunk may have; None where unknown."""
        return self._codec.most_encoded(self._layout.chunk_shape(self._variable))

    def read(self, draws: range) -> np.ndarray[Any, Any]:
        """The draws of a range, shape (chains of the block, draws, *shape)."""
        shape = (len(self.block.chains), len(draws), *self._variable.shape)
        found: np.ndarray[Any, Any] = np.empty(shape, dtype=self._variable.dtype)
        for fill in self.pieces(self.chunks(draws), found):
            fill()
        return found

    def chunks(self, draws: range) -> list[ChunkRows]:
        """Where the draws of a range lie, chunk by chunk."""
        found, done = [], 0
        for span in self.spans:
            while done < len(draws) and draws[done] < span.stop:
                place = span.place(draws[done], self._variable.draws_per_chunk)
                number = len(range(draws[done], place.draws.stop, draws.step))
                inside = draws[done : done + number]
                first = place.draws.start
                rows = slice(inside[0] - first, inside[-1] - first + 1, draws.step)
                found.append(ChunkRows(place, rows, slice(done, done + len(inside))))
                done += len(inside)
        return found

    def pieces(self, chunks: Iterable[ChunkRows], into: np.ndarray[Any, Any]) -> Iterator[Piece]:
        """Functions that read rows of some chunks into an array (chains, draws, *shape)."""
        for place, rows, taken in chunks:
            yield partial(self.fill, place, rows, into[:, taken])

    def fill(self, place: ChunkPlace, rows: slice, into: np.ndarray[Any, Any]) -> None:
        """Read some rows of one chunk."""
        if self._layout.finished:
            key = place.key(self._variable, self.block.number)
            if not is_as_finished(self._location, self._layout, key, rows.stop):
                raise self._damaged(place, _OVERWRITTEN, _REMEDY)
        shape, dtype = self._layout.chunk_shape(self._variable), self._variable.dtype
        if (into.shape, into.dtype) == (shape, dtype):
            self.stored_chunk(place, rows.stop, into)
        else:
            stored, _ = self.stored_chunk(place, rows.stop)
            into[...] = stored[: len(into), rows]

    def check(self, draws: range) -> None:
        """Raise DamagedTraceError unless these draws of one chunk can be read."""
        shape = (1, len(self.block.chains), len(draws), *self._variable.shape)
        into: np.ndarray[Any, Any] = np.empty(shape, self._variable.dtype)
        wanted = Wanted([self._variable], self.block.number, draws, into)
        # A full chunk needs no rows besides.
        stop = 0 if draws.stop == self.chunks(draws)[-1].place.draws.stop else draws.stop
        while True:
            open_block = self._opened(stop)
            _fill([open_block], {self.block.number: [wanted]})
            if open_block.is_current():
                return

    def _opened(self, stop: int) -> _OpenBlock:
        """The block to check draws up to a stop of, with the journal of the check before.

        A copy proves its draws each time that its journal is opened, chunk by chunk.
        """
        found = self._checked
        if (
            found is None
            or found.journal is None
            or found.flushed is not None
            or not found.is_current()
        ):
            (found,) = _open_blocks({self.block: stop})
            self._checked = found
        return found

    def chunk(self, place: ChunkPlace, stop: int = 0) -> np.ndarray[Any, Any]:
        """One whole chunk from the store.

        It has fill values after its draws, of which it must have the first `stop`.
        """
        rows, draws = self.stored_chunk(place, stop)
        if draws == rows.shape[1]:
            return rows
        rows = rows.copy()
        rows[:, draws:] = self._codec.fill
        return rows

    def stored_chunk(
        self, place: ChunkPlace, stop: int, into: np.ndarray[Any, Any] | None = None
    ) -> tuple[np.ndarray[Any, Any], int]:
        """One whole chunk in a new array or in the given one, and how many of its draws count.

        What is after these draws has no meaning. The first `stop` must be among them.
        """
        shape = self._layout.chunk_shape(self._variable)
        data = self._bytes(place)
        if data is None:
            return self._missing_chunk(place, into), shape[1]
        try:
            if into is None:
                rows = self._codec.decode(data, shape)
            else:
                self._codec.decode_into(data, rows := into)
        except ValueError as error:
            raise self._damaged(place, f"cannot be decoded ({error})", _REMEDY) from error
        draws = self._codec.draws_in(rows) if self._codec.may_be_partial(data) else shape[1]
        if draws < min(stop, shape[1]):
            raise self._damaged(place, _TOO_SHORT, _REMEDY)
        return rows, draws

    def _bytes(self, place: ChunkPlace) -> memoryview | None:
        if self._group.moving_to is not None:
            return self._moving_bytes(place)
        return self._location.read(place.key(self._variable, self.block.number), self._most)

    def _missing_chunk(
        self, place: ChunkPlace, into: np.ndarray[Any, Any] | None
    ) -> np.ndarray[Any, Any]:
        """The values for a missing chunk: missing values if the chunk was lost."""
        is_blank = self.is_blank(place)
        if not is_blank and not self._layout.is_lost(
            self._variable, self.block.number, place.draws
        ):
            raise self._damaged(place, _MISSING if self._layout.finished else "is missing", _REMEDY)
        if not is_blank and self._variable.dtype.kind not in "fcmM":
            raise self._damaged(place, "was lost, as repair reported")
        if into is None:
            into = np.empty(self._layout.chunk_shape(self._variable), self._variable.dtype)
        into[...] = self._codec.fill
        return into

    def is_blank(self, place: ChunkPlace) -> bool:
        """Whether a chunk of a finished trace held the fill value alone: Zarr may delete it."""
        return is_blank(self._location, self._layout, place.key(self._variable, self.block.number))

    def _damaged(self, place: ChunkPlace, why: str, remedy: str = "") -> DamagedTraceError:
        draws = range_label("draw", place.draws)
        return DamagedTraceError(
            f"the chunk {place.key(self._variable, self.block.number)} {why}",
            where=f"{self._location}: {self._variable.label}, {self.block.label}, {draws}",
            remedy=remedy,
            group=self._group.name,
            variable=self._variable.name,
            chain=self.block.chains[0],
            draw=place.draws.start,
        )

    def _moving_bytes(self, place: ChunkPlace) -> memoryview | None:
        """The bytes of a chunk during a split, from its old, its staged or its new place."""
        keys, moved = [], ""
        for new in future_spans(self._layout, self._variable):
            if new.start <= place.draws.start < new.stop:
                target = new.place(place.draws.start, self._variable.draws_per_chunk)
                moved = target.key(self._variable, self.block.number)
                # A chunk that is cut again begins with another draw, or has fewer.
                first, last = place.draws.start, place.draws.stop
                has_all = target.draws.start == first and target.draws.stop >= last
                keys = [staged(moved)] if has_all else []
        # A path belongs to the old array until the groups are swapped, and then to the new one.
        if self._group.swapping:
            keys.append(moved)
        elif self._variable.name not in self._group.moved:
            keys.insert(0, place.key(self._variable, self.block.number))
        # It may have moved from one place to the other while both were checked.
        for key in (*keys, *keys):
            data = self._location.read(key, self._most)
            if data is not None:
                return data
        return None
