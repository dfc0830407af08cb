"""How many draws each chain has recorded."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from ..layout.layout import Layout
from ..store.location import Location
from .block import ChainBlock


def recorded(location: Location, layout: Layout) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Draws published per chain, warmup included."""
    if layout.finished and layout.ended is not None:
        counts = np.minimum(layout.ended.recorded, layout.total)
    else:
        counts = block_counts(location, layout, range(layout.blocks))
    return counts[np.arange(layout.chains) // layout.chains_per_chunk]


def block_counts(
    location: Location, layout: Layout, numbers: Iterable[int]
) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Draws published per chain by the writers of some blocks of chains."""
    blocks = [ChainBlock(location, layout, number) for number in numbers]
    counts = [block.journal_count for block in blocks]
    flushed = [block for block, count in zip(blocks, counts, strict=True) if count is None]
    found = location.read_many([block.key("draw_idx") for block in flushed])
    said = (b.decode("draw_idx", data) or 0 for b, data in zip(flushed, found, strict=True))
    known = [next(said) if count is None else count for count in counts]
    return np.clip(np.array(known, np.int64), 0, layout.total)
