"""The burn-in as a number that readers honour, and the draws before it, freed for good.

Neither moves an array: both are written while chains record. A draw is dropped when the layout says
so; the chunks that lie wholly before are removed after that, so a process that is killed in between
leaves files that nobody reads and the next one removes.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from .errors import IncompleteTraceError, InvalidInputError
from .layout import STATE, Layout, chunk_of_key
from .layoutfile import LayoutFile
from .location import Location
from .rows import recorded, segments
from .warmup import chunk_keys


def with_burn_in(location: Location, layout: Layout, draws: int) -> Layout:
    """The layout in which the first draws of each chain are warmup, recorded or not yet."""
    _require_number(location, layout, draws, "be warmup")
    if draws < layout.dropped:
        raise InvalidInputError(
            f"the first {draws} draws cannot be all of the warmup: the first {layout.dropped} of "
            f"each chain of {location} were dropped, so {layout.dropped} is the least"
        )
    for group in layout.groups.values():
        layout = layout.with_group(replace(group, warmup=int(draws)))
    return layout


def without_draws(location: Location, layout: Layout, draw: int) -> Layout:
    """The layout in which the draws before this one are gone, and none of them is asked for."""
    _require_number(location, layout, draw, "be dropped")
    if draw <= layout.dropped:
        return layout
    counts = recorded(location, layout)
    if draw > counts.min():
        chain = int(counts.argmin())
        raise IncompleteTraceError(
            f"chain {chain} of {location} has recorded {counts[chain]} draws, fewer than the "
            f"{draw} to drop; drop_before(n) with n up to {counts[chain]}, or record more",
            chain=chain,
        )
    for group in layout.groups.values():
        layout = layout.with_group(replace(group, warmup=max(group.warmup, int(draw))))
    return replace(layout, dropped=int(draw))


def _require_number(location: Location, layout: Layout, draws: object, what: str) -> None:
    number = isinstance(draws, int | np.integer) and not isinstance(draws, bool)
    if not number or not 0 <= draws <= layout.total:  # type: ignore[operator]
        raise InvalidInputError(
            f"the first {draws!r} draws cannot {what}: a chain of {location} has {layout.total}"
        )


def delete_dropped(location: Location, layout_file: LayoutFile) -> list[str]:
    """Remove the chunks in which every draw was dropped; gives their keys.

    Not while a split is under way, when chunks are in more than one place.
    """
    layout = layout_file.current()
    if not layout.dropped:
        return []
    if layout.durable:
        # Before a chunk is gone, that it is must survive power loss.
        location.make_durable([f"{STATE}/zarr.json"])
    gone = [
        key
        for group in layout.groups.values()
        for variable in group.variables.values()
        for segment in segments(layout, group, variable)
        if segment.start <= layout.dropped
        for key in chunk_keys(location, segment.path)
        if segment.covered(chunk_of_key(key)[1], variable.draws_per_chunk).stop <= layout.dropped
    ]
    location.delete_many(gone)
    return gone
