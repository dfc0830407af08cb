"""The chunks that one writer is filling: what is in them, where they go, and when they are full."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..layout.rounding import round_bits, round_to
from ..layout.spans import Span, span_of, written_spans
from ..layout.variables import Variable
from ..sampling_state.block import ChainBlock
from ..sampling_state.chunk_seals import (
    ChunkSeals,
    ChunkSet,
    begin_seal,
    chunk_sets,
    end_seal,
    extend_seal,
    extend_seal_by_texts,
)
from ..sampling_state.draw_codec import DrawCodec, draw_codec

EncodedChunk = tuple[str, bytes]  # the key and the bytes under it


class OpenChunk:
    """The chunk of one variable that is being filled.

    Attributes
    ----------
    variable : Variable
        The variable it belongs to.
    rows : numpy.ndarray
        The whole chunk. Only the rows of recorded draws are valid.
    """

    __slots__ = ("_block", "_codec", "_span", "rows", "variable")

    def __init__(
        self,
        variable: Variable,
        span: Span,
        rows: np.ndarray[Any, Any],
        codec: DrawCodec,
        block: int,
    ) -> None:
        self.variable = variable
        self.rows = rows
        self._span = span
        self._codec = codec
        self._block = block

    @property
    def is_stored(self) -> bool:
        """Whether it will be written: draws that were dropped are never read again."""
        return not self._span.gone

    def encoded(self, number: int, draws: int) -> EncodedChunk:
        """The chunk with its first `draws` rows."""
        places = len(self._span.chunk(number, self.variable.draws_per_chunk).draws)
        rows = _rounded(self.variable, self.rows)
        return self.key(number), self._codec.encode(rows, draws, places)

    def key(self, number: int) -> str:
        """The key of a chunk of the variable."""
        chunk = self._span.chunk(number, self.variable.draws_per_chunk)
        return chunk.key(self.variable, self._block)


def _rounded(variable: Variable, rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The rows as they are stored, for a variable that is rounded while it is recorded."""
    if variable.rounded_to:
        exponent = math.frexp(variable.rounded_to)[1] - 1
        return round_to(rows, np.full(variable.parts_shape, exponent))
    return round_bits(rows, variable.significant_bits) if variable.significant_bits else rows


@dataclass(frozen=True)
class Schedule:
    """When chunks begin and end, for all variables with chunks of the same length.

    Attributes
    ----------
    start, stop : int
        The arrays hold the draws from `start` to `stop - 1`.
    chunk_set : ChunkSet
        The variables, as seals name them.
    chunks : list of OpenChunk
        One chunk for each variable.
    """

    start: int
    stop: int
    chunk_set: ChunkSet
    chunks: list[OpenChunk] = field(default_factory=list)

    @property
    def length(self) -> int:
        """The draws of a chunk."""
        return self.chunk_set.length

    def number_of(self, draw: int) -> int:
        """The number of the chunk that a draw lies in."""
        return (draw - self.start) // self.length

    def draws_of(self, number: int) -> range:
        """The draws that lie in a chunk."""
        first = self.start + number * self.length
        return range(first, min(first + self.length, self.stop))

    def end_of(self, draw: int) -> int:
        """The draw after the last one of the chunk that a draw lies in."""
        return self.draws_of(self.number_of(draw)).stop


class OpenChunks:
    """The chunks that one writer is filling, planned once for all draws up to the next array.

    Parameters
    ----------
    block : ChainBlock
        The chains that the writer records.
    rows : mapping of str to numpy.ndarray
        The rows of each variable by `group/variable`, in the shape of a chunk.
    count : int
        The draws recorded so far. The next draw decides in which arrays the chunks lie.
    """

    def __init__(
        self, block: ChainBlock, rows: Mapping[str, np.ndarray[Any, Any]], count: int
    ) -> None:
        layout = block.layout
        schedules: dict[int, Schedule] = {}
        timings = {
            v.label: chunk_set for chunk_set in chunk_sets(layout) for v in chunk_set.variables
        }
        self._chunks: dict[str, OpenChunk] = {}
        self._schedule_of: dict[str, Schedule] = {}
        for variable in layout.variables:
            span = span_of(written_spans(layout, variable), count)
            chunk_set = timings[variable.label]
            schedule = schedules.setdefault(
                chunk_set.number, Schedule(span.start, span.stop, chunk_set)
            )
            codec = draw_codec(layout, variable)
            chunk = OpenChunk(variable, span, rows[variable.label], codec, block.number)
            schedule.chunks.append(chunk)
            self._chunks[variable.label] = chunk
            self._schedule_of[variable.label] = schedule
        self._schedules = list(schedules.values())

    def chunk(self, variable: Variable) -> OpenChunk:
        """The chunk of a variable."""
        return self._chunks[variable.label]

    def schedule(self, variable: Variable) -> Schedule:
        """The begin and end of the chunks of a variable."""
        return self._schedule_of[variable.label]

    def whole_draws(self, count: int) -> int:
        """How many of the draws below the count every variable has in full chunks."""
        found = count
        for schedule in self._schedules if count else []:
            draws = schedule.draws_of(schedule.number_of(count - 1))
            if draws.stop != count:
                found = min(found, draws.start)
        return found

    def next_end(self, count: int) -> int:
        """The next count at which a chunk is full, or an array ends."""
        return min([schedule.end_of(count) for schedule in self._schedules])

    def at_end_of_array(self, count: int) -> bool:
        """Whether draw `count` is in a different array from the draw before it."""
        return any(count == schedule.stop for schedule in self._schedules)

    def all_full(self, count: int) -> bool:
        """Whether the draws below the count leave no chunk partly filled."""
        return all(schedule.end_of(count - 1) == count for schedule in self._schedules)

    def full(self, count: int, seals: ChunkSeals | None) -> Iterator[EncodedChunk]:
        """The chunks whose last draw is the one before the count; each set of them gets its seal.

        Their rows are in the buffer only until the next draw is recorded.
        """
        for schedule in self._schedules:
            number = schedule.number_of(count - 1)
            draws = schedule.draws_of(number)
            if draws.stop == count:
                seal = begin_seal(draws.start)
                for chunk in schedule.chunks:
                    if chunk.is_stored:
                        key, data = chunk.encoded(number, len(draws))
                        if seals is not None:  # a journal of an earlier version has no room for it
                            seal = extend_seal(seal, data)
                        yield key, data
                if seals is not None:
                    seals.put(schedule.chunk_set, count, end_seal(seal))

    def seal_texts(self, count: int, seals: ChunkSeals | None) -> None:
        """Keep the seal of the texts in the chunks that the draws below the count fill partly."""
        if seals is None or not count:
            return
        seal = begin_seal(count)
        for schedule in self._schedules:
            draws = schedule.draws_of(schedule.number_of(count - 1))
            for chunk in schedule.chunks if draws.stop > count else []:
                if chunk.variable.is_text and chunk.is_stored:
                    seal = extend_seal_by_texts(seal, chunk.rows[:, : count - draws.start])
        seals.put_texts(count, end_seal(seal))

    def partial(self, count: int, *, text_only: bool = False) -> Iterator[EncodedChunk]:
        """The chunks that the draws below the count fill partly."""
        for schedule in self._schedules if count else []:
            number = schedule.number_of(count - 1)
            draws = schedule.draws_of(number)
            if draws.stop > count:
                for chunk in schedule.chunks:
                    if chunk.is_stored and (chunk.variable.is_text or not text_only):
                        yield chunk.encoded(number, count - draws.start)
