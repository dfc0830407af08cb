"""Which array of a variable holds which draws, before, during and after a split."""

from __future__ import annotations

from typing import NamedTuple

from .layout import STAGING, Layout, SampledGroup, array_path
from .variables import Variable


class Stretch(NamedTuple):
    """The draws `start` to `stop - 1`, which lie in the array at `path`."""

    path: str
    start: int
    stop: int

    @property
    def gone(self) -> bool:
        """Whether these draws were dropped and lie nowhere."""
        return not self.path

    def place(self, draw: int, length: int) -> tuple[int, range]:
        """The chunk a draw lies in, and the draws of that chunk, for chunks of `length` draws."""
        chunk = (draw - self.start) // length
        return chunk, self.covered(chunk, length)

    def covered(self, chunk: int, length: int) -> range:
        """The draws of a chunk."""
        first = self.start + chunk * length
        return range(first, min(first + length, self.stop))


def stretches(layout: Layout, group: SampledGroup, variable: Variable) -> list[Stretch]:
    """The arrays of a variable."""
    return _arrays(layout, group, variable, group.stored_first, group.stored_warmup)


def future_stretches(layout: Layout, group: SampledGroup, variable: Variable) -> list[Stretch]:
    """The arrays of a variable after the split that is under way."""
    assert group.moving_to is not None
    return _arrays(layout, group, variable, layout.dropped, group.moving_to)


def _arrays(
    layout: Layout, group: SampledGroup, variable: Variable, first: int, boundary: int
) -> list[Stretch]:
    warmup = Stretch(array_path(group.warmup_name, variable), first, boundary)
    after = Stretch(array_path(group.name, variable), boundary, max(layout.total, boundary))
    return [warmup, after] if first < boundary else [after]


def written_stretches(layout: Layout, group: SampledGroup, variable: Variable) -> list[Stretch]:
    """Where a writer finds itself: the arrays, and before them what was dropped.

    A chain may go back to a checkpoint there, and draw what nobody reads again.
    """
    gone = Stretch("", 0, group.stored_first)
    return [*([gone] if gone.stop else []), *stretches(layout, group, variable)]


def stretch_of(found: list[Stretch], draw: int) -> Stretch:
    """The stretch a draw lies in, or would."""
    return next(stretch for stretch in reversed(found) if stretch.start <= draw)


def staged(path: str) -> str:
    """Where an array waits while a split takes its chunks away one by one."""
    return f"{STAGING}/{path}"
