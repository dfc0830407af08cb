"""Which array of a variable holds which draws, before, during and after a split."""

from __future__ import annotations

from typing import NamedTuple

from .layout import STAGING, Layout, array_path, variable_key
from .variables import Variable


class Span(NamedTuple):
    """The draws `start` to `stop - 1`, which lie in the array at `path`."""

    path: str
    start: int
    stop: int
    separator: str  # in the keys of its chunks

    @property
    def gone(self) -> bool:
        """Whether these draws were dropped and lie nowhere."""
        return not self.path

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
        return variable_key(self.span.path, variable, block, self.number, self.span.separator)


def spans(layout: Layout, variable: Variable) -> list[Span]:
    """The arrays of a variable."""
    group = layout.groups[variable.group]
    return _arrays(layout, variable, group.stored_first, group.stored_warmup)


def future_spans(layout: Layout, variable: Variable) -> list[Span]:
    """The arrays of a variable after the split that is under way."""
    group = layout.groups[variable.group]
    assert group.moving_to is not None
    return _arrays(layout, variable, layout.dropped, group.moving_to)


def _arrays(layout: Layout, variable: Variable, first: int, boundary: int) -> list[Span]:
    group = layout.groups[variable.group]
    warmup = Span(array_path(group.warmup_name, variable), first, boundary, layout.separator)
    stop = max(layout.total, boundary)
    after = Span(array_path(group.name, variable), boundary, stop, layout.separator)
    return [warmup, after] if first < boundary else [after]


def written_spans(layout: Layout, variable: Variable) -> list[Span]:
    """Where a writer finds itself: the arrays, and before them what was dropped.

    A chain may go back to a checkpoint there, and draw what nobody reads again.
    """
    gone = Span("", 0, layout.groups[variable.group].stored_first, layout.separator)
    return [*([gone] if gone.stop else []), *spans(layout, variable)]


def span_of(found: list[Span], draw: int) -> Span:
    """The span a draw lies in, or would."""
    return next(span for span in reversed(found) if span.start <= draw)


def staged(path: str) -> str:
    """Where an array waits while a split takes its chunks away one by one."""
    return f"{STAGING}/{path}"
