"""How many draws each chain has recorded."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from ..layout.layout import Layout
from ..store.location import Location
from .block import ChainBlock
from .flushed import look_at


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
    unmapped = [block for block, count in zip(blocks, counts, strict=True) if count is None]
    flushed = (found.proven_count for found in look_at(unmapped))
    known = [next(flushed) if count is None else count for count in counts]
    return np.clip(np.array(known, np.int64), 0, layout.total)
