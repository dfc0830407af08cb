"""How many draws each chain has recorded."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

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
    known = _look(blocks)
    if location.network:
        arrival = Arrival(location.network)
        known = [
            _not_fewer_than_seen(block, one, arrival)
            for block, one in zip(blocks, known, strict=True)
        ]
    counts = np.array([one.draws for one in known], np.int64)
    return np.clip(counts, 0, layout.total), tuple(one.series for one in known)


class _Known(NamedTuple):
    """The draws and the series of a block, and whether the store has them."""

    draws: int
    series: bytes
    in_store: bool


def _look(blocks: list[ChainBlock]) -> list[_Known]:
    """What this machine sees of each block now."""
    journals = [block.journal_count_and_series for block in blocks]
    without = [block for block, found in zip(blocks, journals, strict=True) if found is None]
    flushed = (_Known(rows.proven_count, rows.series, True) for rows in look_at(without))
    return [
        next(flushed) if found is None else _Known(*found, block.layout.journal == IN_STORE)
        for block, found in zip(blocks, journals, strict=True)
    ]


def _not_fewer_than_seen(block: ChainBlock, known: _Known, arrival: Arrival) -> _Known:
    """What is known of a block, once this machine sees as many draws in the store as before.

    A chain that goes back has another series; a file that has not arrived has none. A journal on a
    disk of this machine does not arrive.
    """
    if not known.in_store:
        return known
    name = str(block.location), block.layout.identity, block.number
    most, its_series = _seen.get(name, (0, b""))
    while (
        known.draws < most
        and (known.series == its_series or not any(known.series))
        and arrival.is_due()
    ):
        [known] = _look([block])
    _seen[name] = known.draws, known.series
    return known
