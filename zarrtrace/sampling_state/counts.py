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
    return recorded_and_series(location, layout)[0]


def recorded_and_series(
    location: Location, layout: Layout
) -> tuple[np.ndarray[Any, np.dtype[np.int64]], tuple[bytes, ...]]:
    """Draws published per chain, and for each block the series of its journal; b"" without one."""
    series: tuple[bytes, ...] = (b"",) * layout.blocks
    if layout.finished and layout.ended is not None:
        counts = np.minimum(layout.ended.recorded, layout.total)
    else:
        counts, series = _counts_and_series(location, layout, range(layout.blocks))
    return counts[np.arange(layout.chains) // layout.chains_per_chunk], series


def block_counts(
    location: Location, layout: Layout, numbers: Iterable[int]
) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Draws published per chain by the writers of some blocks of chains."""
    return _counts_and_series(location, layout, numbers)[0]


def _counts_and_series(
    location: Location, layout: Layout, numbers: Iterable[int]
) -> tuple[np.ndarray[Any, np.dtype[np.int64]], tuple[bytes, ...]]:
    blocks = [ChainBlock(location, layout, number) for number in numbers]
    found = [block.journal_count_and_series for block in blocks]
    unmapped = [block for block, one in zip(blocks, found, strict=True) if one is None]
    flushed = ((rows.proven_count, rows.series) for rows in look_at(unmapped))
    known = [next(flushed) if one is None else one for one in found]
    counts = np.array([count for count, _ in known], np.int64)
    return np.clip(counts, 0, layout.total), tuple(series for _, series in known)
