"""How many draws each chain has recorded."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..layout.layout import Layout
from ..store.location import Location
from .arrays import decode_value, state_key
from .journal import journal_directory, read_count


def recorded(location: Location, layout: Layout) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Draws published per chain, warmup included."""
    counts = np.zeros(layout.chains, dtype=np.int64)
    directory = journal_directory(location, layout)
    without_journal = []
    for block in range(layout.blocks):
        count = read_count(directory, block) if directory is not None else None
        if count is None:
            without_journal.append(block)
        else:
            counts[layout.chains_of(block)] = count
    keys = [state_key("draw_idx", block) for block in without_journal]
    for block, data in zip(without_journal, location.read_many(keys), strict=True):
        counts[layout.chains_of(block)] = (
            decode_value(location, layout, "draw_idx", block, data) or 0
        )
    return np.clip(counts, 0, layout.total)
