"""Seals of full chunks: they show which attempt of a chain has written a chunk.

A chain that goes back to its checkpoint writes other chunks under the same keys. A copy may have a
journal of one attempt, and a chunk of another one. So a writer keeps, in the journal, a checksum of
the last chunks that it has filled. Chunks that are filled together have one seal. Chunks of text
are written before they are full, and the texts in those have a seal too.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import google_crc32c
import numcodecs
import numpy as np

from ..layout.variables import Variable
from .journal_format import SEALS_BYTES, Buffered, seal_areas

_NO_SEAL = 0
_WORD = 0xFFFFFFFF
_ITEM = np.dtype("<u4")
_OF_TEXTS = np.dtype([("count", _ITEM), ("seal", _ITEM)])  # the last two, at the end of the file


@dataclass(frozen=True)
class ChunkSet:
    """Variables whose chunks begin and end with the same draws.

    Attributes
    ----------
    number : int
        Its place among the sets of a trace, which is the same for each layout of that trace.
    place : int
        The offset of their first seal in the file.
    room : int
        How many of their last chunks have a seal.
    """

    number: int
    variables: list[Variable]
    place: int
    room: int

    @property
    def length(self) -> int:
        """The draws of a chunk."""
        return self.variables[0].draws_per_chunk

    def number_of(self, stop: int) -> int:
        """A number for the chunks whose last draw is the one before `stop`, in ascending order."""
        return (stop - 1) // self.length


@functools.lru_cache(maxsize=16)
def chunk_sets(layout: Buffered) -> list[ChunkSet]:
    """The variables of a layout by when their chunks are full, in order of definition."""
    found: dict[Any, list[Variable]] = {}
    for variable in layout.variables:
        timing = variable.draws_per_chunk, layout.array_starts(variable)
        found.setdefault(timing, []).append(variable)
    areas = seal_areas(layout)
    # One half of them has its seals after the first slot, the other half after the second.
    room = (SEALS_BYTES - 2 * _OF_TEXTS.itemsize) // _ITEM.itemsize // -(-len(found) // 2)
    return [
        ChunkSet(i, variables, areas[i % 2] + i // 2 * room * _ITEM.itemsize, room)
        for i, variables in enumerate(found.values())
    ]


class ChunkSeals:
    """The seals of chunks in the buffer of a journal."""

    def __init__(self, layout: Buffered, buffer: Any) -> None:
        self._sets = chunk_sets(layout)
        self._seals = [
            np.ndarray((chunk_set.room,), _ITEM, buffer, chunk_set.place)
            for chunk_set in self._sets
        ]
        end = seal_areas(layout)[1] + SEALS_BYTES
        place = end - 2 * _OF_TEXTS.itemsize
        self._of_texts = np.ndarray((2,), _OF_TEXTS, buffer, place)

    def __iter__(self) -> Iterator[ChunkSet]:
        return iter(self._sets)

    def put(self, chunk_set: ChunkSet, stop: int, seal: int) -> None:
        """Keep the seal of the chunks that end before draw `stop`."""
        if chunk_set.room:
            self._seals[chunk_set.number][chunk_set.number_of(stop) % chunk_set.room] = seal

    def find(self, chunk_set: ChunkSet, stop: int, count: int) -> int | None:
        """The seal of the chunks that end before draw `stop`, in the journal with this count.

        None if there is none: they were filled before the journal was made, or too long ago.
        """
        number = chunk_set.number_of(stop)
        if number < self._oldest(chunk_set, count):
            return None
        seal = int(self._seals[chunk_set.number][number % chunk_set.room])
        return None if seal == _NO_SEAL else seal

    def first_draw(self, chunk_set: ChunkSet, count: int) -> int:
        """No chunk that ends before this draw has a seal, in the journal with this count."""
        return self._oldest(chunk_set, count) * chunk_set.length

    @staticmethod
    def _oldest(chunk_set: ChunkSet, count: int) -> int:
        """The number of the first chunks whose seal is not overwritten by those of later ones."""
        return chunk_set.number_of(max(count, 1)) + 2 - chunk_set.room

    def put_texts(self, count: int, seal: int) -> None:
        """Keep the seal of the texts below the count that are in chunks which are not full.

        The one of the draw before stays: the count may not be published yet.
        """
        self._of_texts[count % 2] = (count & _WORD, seal)

    def find_texts(self, count: int) -> int | None:
        """The seal of these texts; None if there is none for this count."""
        known, seal = self._of_texts[count % 2].tolist()
        return seal if known == count & _WORD else None

    def remove(self, draws: range) -> None:
        """Remove the seals of the chunks that have one of these draws, and of those after them."""
        for chunk_set, seals in zip(self._sets, self._seals, strict=True):
            first, last = chunk_set.number_of(draws.start + 1), chunk_set.number_of(draws.stop) + 1
            for number in range(first, min(last + 1, first + chunk_set.room)):
                seals[number % chunk_set.room] = _NO_SEAL

    def take(self, other: ChunkSeals) -> None:
        """Take the seals of another journal of the same layout."""
        for seals, taken in zip(self._seals, other._seals, strict=True):
            seals[:] = taken


def begin_seal(first: int) -> int:
    """The seal of chunks that begin with this draw, before their bytes are added."""
    return first & _WORD


def extend_seal(seal: int, data: bytes | memoryview) -> int:
    """The seal with the bytes of the next chunk; the chunks come in order of definition."""
    data = bytes(data)
    # The checksum of all chunks that end with their own crc32c is the same. So their last bytes,
    # which are that checksum, are added once more.
    return int(google_crc32c.extend(google_crc32c.extend(seal, data), data[-4:]))


def extend_seal_by_texts(seal: int, texts: np.ndarray[Any, Any]) -> int:
    """The seal with the texts of some draws of the next variable, shape (chains, draws, *shape)."""
    flat = np.asarray(texts, dtype=object).ravel()
    return extend_seal(seal, numcodecs.VLenUTF8().encode(flat))


def end_seal(seal: int) -> int:
    """The seal as it is stored."""
    return seal or 1
