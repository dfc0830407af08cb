"""One moment of a trace: its layout and the draws of every chain, read once for a whole call."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ..layout.hierarchy import Hierarchy
from ..layout.layout import Layout
from ..sampling_state.block import chain_blocks
from ..sampling_state.counts import recorded_and_series
from ..sampling_state.flushed import look_at
from ..sampling_state.request import End, read_end
from ..store.location import Location
from .other_groups import find_other_groups


@dataclass(frozen=True, eq=False)
class Moment:
    """A trace at one moment: a call reads everything at the same moment.

    Attributes
    ----------
    counts : numpy.ndarray
        Draws recorded per chain, warmup included: int64, shape (chains,).
    series : tuple of bytes or None
        For each block of chains the series of the journal that has its count; b"" without a
        journal. None where it was not asked for.
    """

    hierarchy: Hierarchy
    layout: Layout
    counts: np.ndarray[Any, np.dtype[np.int64]]
    series: tuple[bytes, ...] | None = None

    @classmethod
    def of(cls, hierarchy: Hierarchy) -> Moment:
        """The present moment."""
        layout = hierarchy.layout
        return cls(hierarchy, layout, *recorded_and_series(hierarchy.location, layout))

    @property
    def location(self) -> Location:
        """Where the trace is stored."""
        return self.hierarchy.location

    @cached_property
    def end(self) -> End:
        """Where the chains end: at the declared draws, or where they were asked to stop."""
        return read_end(self.location, self.layout)

    @cached_property
    def sampling_time(self) -> float:
        """Seconds for which the writers of the slowest chain were open; 0 if there was none."""
        if self.layout.finished and self.layout.ended is not None:
            return self.layout.ended.sampling_time
        blocks = chain_blocks(self.location, self.layout)
        found = self.location.read_many([block.key("sampling_time") for block in blocks])
        times = [b.decode("sampling_time", data) for b, data in zip(blocks, found, strict=True)]
        return max((float(time) for time in times if time), default=0.0)

    @cached_property
    def is_elsewhere(self) -> bool:
        """Whether this is a copy, or is read on another machine than it is recorded on."""
        blocks = chain_blocks(self.location, self.layout)
        if self.location.path is None or any(block.is_elsewhere for block in blocks):
            return any(block.is_elsewhere for block in blocks)
        files = [(block, block.journal_file) for block in blocks]
        unmapped = [block for block, file in files if file is None or not file.exists()]
        return any(flushed.is_elsewhere for flushed in look_at(unmapped))

    @property
    def groups(self) -> tuple[str, ...]:
        """The groups in ArviZ's order, then those of other tools, the warmup groups last."""
        return (*self.layout.group_names, *self.other_groups, *self._warmup_groups)

    @property
    def sampled_groups(self) -> tuple[str, ...]:
        """The groups that are recorded draw by draw, the warmup groups last."""
        return (*self.layout.groups, *self._warmup_groups)

    @property
    def _warmup_groups(self) -> list[str]:
        groups = self.layout.groups.values()
        return [group.warmup_name for group in groups if group.warmup > self.layout.dropped]

    def has_group(self, name: str) -> bool:
        """Whether there is such a group; only groups of other tools need a look at the store."""
        ours = (*self.sampled_groups, *self.layout.data_groups)
        return name in ours or name in self.other_groups

    @cached_property
    def other_groups(self) -> tuple[str, ...]:
        """The groups that another tool has added to a finished trace."""
        return find_other_groups(self.location, self.layout)

    def __str__(self) -> str:
        return str(self.hierarchy)
