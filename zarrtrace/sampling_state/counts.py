"""How many draws each chain has recorded."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from ..layout.layout import IN_STORE, Layout
from ..store.location import Location
from ..store.network import Arrival
from .block import ChainBlock
from .flushed import look_at

# The draws and the series of each block that this process saw last on a network file system. There
# a file may look as it was before, or empty, for a moment after it was seen.
_seen: dict[tuple[str, str, int], tuple[int, bytes]] = {}


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
    if location.network:
        arrival = Arrival(location.network)
        for place, block in enumerate(blocks):
            # A journal on a disk of this machine does not arrive.
            if found[place] is None or layout.journal == IN_STORE:
                known[place] = _not_fewer_than_seen(block, known[place], arrival)
    counts = np.array([count for count, _ in known], np.int64)
    return np.clip(counts, 0, layout.total), tuple(series for _, series in known)


def _not_fewer_than_seen(
    block: ChainBlock, known: tuple[int, bytes], arrival: Arrival
) -> tuple[int, bytes]:
    """The count and the series of a block, once this machine sees as many draws as before.

    A chain that goes back has another series; a file that has not arrived has none.
    """
    name = str(block.location), block.layout.identity, block.number
    most, its_series = _seen.get(name, (0, b""))
    while known[0] < most and (known[1] == its_series or not any(known[1])) and arrival.is_due():
        rows = block.journal_count_and_series
        if rows is None:
            [last] = look_at([block])
            rows = last.proven_count, last.series
        known = rows
    _seen[name] = known
    return known
