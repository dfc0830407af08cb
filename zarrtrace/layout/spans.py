"""Which array of a variable holds which draws, before, during and after a split."""

from __future__ import annotations

from typing import NamedTuple

from .layout import NO_END, STAGING, Layout, array_path, block_places, variable_key
from .variables import Variable


class Span(NamedTuple):
    """The draws `start` to `stop - 1`, which lie in the array at `path`.

    Attributes
    ----------
    key_form : str
        How the keys of its chunks are made.
    places : tuple of int
        Where each block of chains lies; empty where that is its number.
    """

    path: str
    start: int
    stop: int
    key_form: str
    places: tuple[int, ...] = ()

    @property
    def gone(self) -> bool:
        """Whether these draws were dropped and lie nowhere."""
        return not self.path

    def place_of(self, block: int) -> int:
        """Where a block of chains lies, in the keys of chunks."""
        return self.places[block] if self.places else block

    def block_at(self, place: int) -> int:
        """The block of chains that lies at a place; the place itself if there is none."""
        return self.places.index(place) if place in self.places else place

    def place(self, draw: int, length: int) -> ChunkPlace:
        """The chunk a draw lies in, for chunks of `length` draws."""
        return self.chunk((draw - self.start) // length, length)

    def chunk(self, number: int, length: int) -> ChunkPlace:
        """A chunk by its number, for chunks of `length` draws."""
        first = self.start + number * length
        return ChunkPlace(self, number, range(first, min(first + length, self.stop)))


class ChunkPlace(NamedTuple):
    """One chunk of a variable: the array it belongs to, its number there, the draws it has."""

    span: Span
    number: int
    draws: range

    def key(self, variable: Variable, block: int) -> str:
        """The key of the chunk for one block of chains."""
        place = self.span.place_of(block)
        return variable_key(self.span.path, variable, place, self.number, self.span.key_form)


def spans(layout: Layout, variable: Variable) -> list[Span]:
    """The arrays of a variable."""
    group = layout.groups[variable.group]
    boundary, left_out = group.stored_warmup, group.stored_left_out
    key_form = layout.key_form(group)
    return _arrays(layout, variable, group.stored_first, boundary, left_out, key_form)


def future_spans(layout: Layout, variable: Variable) -> list[Span]:
    """The arrays of a variable after the split that is under way."""
    group = layout.groups[variable.group]
    assert group.moving_to is not None
    key_form = layout.next_key_form(group)
    return _arrays(layout, variable, layout.dropped, group.moving_to, layout.left_out, key_form)


def _arrays(
    layout: Layout,
    variable: Variable,
    first: int,
    boundary: int,
    left_out: tuple[int, ...],
    key_form: str,
) -> list[Span]:
    group = layout.groups[variable.group]
    places = block_places(left_out, layout.blocks) if left_out else ()
    warmup = Span(array_path(group.warmup_name, variable), first, boundary, key_form, places)
    # A run may be extended while it is recorded: its declared end cuts no chunk.
    after = Span(array_path(group.name, variable), boundary, NO_END, key_form, places)
    return [warmup, after] if first < boundary else [after]


def written_spans(layout: Layout, variable: Variable) -> list[Span]:
    """The arrays as a writer sees them, after one span for the draws that were dropped.

    A chain may go back to a checkpoint there, and draw again what is never read.
    """
    gone = Span("", 0, layout.groups[variable.group].stored_first, layout.separator)
    return [*([gone] if gone.stop else []), *spans(layout, variable)]


def span_of(found: list[Span], draw: int) -> Span:
    """The span a draw lies in, or would."""
    return next(span for span in reversed(found) if span.start <= draw)


def staged(path: str) -> str:
    """Where an array waits while a split takes its chunks away one by one."""
    return f"{STAGING}/{path}"
