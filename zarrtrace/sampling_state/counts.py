"""How many draws each chain has recorded."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..layout.layout import Layout
from ..store.location import Location
from .block import chain_blocks


def recorded(location: Location, layout: Layout) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Draws published per chain, warmup included."""
    counts = np.zeros(layout.chains, dtype=np.int64)
    without_journal = []
    for block in chain_blocks(location, layout):
        count = block.journal_count
        if count is None:
            without_journal.append(block)
        else:
            counts[block.chains] = count
    found = location.read_many([block.key("draw_idx") for block in without_journal])
    for block, data in zip(without_journal, found, strict=True):
        counts[block.chains] = block.decode("draw_idx", data) or 0
    return np.clip(counts, 0, layout.total)
