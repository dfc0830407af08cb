"""The burn-in as a number that readers honour, and the final removal of the draws before it.

Neither moves an array: both are written while chains record. A draw is dropped once the layout says
so; the chunks that are wholly before it are removed then, so a process that is killed in between
leaves files that are never read, and that the next process removes.
"""

from __future__ import annotations

from dataclasses import replace

from ..errors import IncompleteTraceError
from ..layout.hierarchy import Hierarchy
from ..layout.layout import Layout
from ..layout.spans import spans
from ..sampling_state.counts import recorded
from ..store.location import Location
from .split import check_draws, check_warmup, require_no_links
from .staging import chunk_keys


def with_burn_in(location: Location, layout: Layout, draws: int) -> Layout:
    """The layout in which the first draws of each chain are warmup, recorded or not yet."""
    number = check_warmup(location, layout, draws)
    for group in layout.groups.values():
        layout = layout.with_group(replace(group, warmup=number))
    return layout


def without_draws(location: Location, layout: Layout, draw: int) -> Layout:
    """The layout in which the draws before this one are dropped."""
    number = check_draws(location, layout, draw, "be dropped")
    require_no_links(location, layout)
    if number <= layout.dropped:
        return layout
    counts, kept = recorded(location, layout), layout.kept_chains
    if number > counts[kept].min():
        chain = kept[int(counts[kept].argmin())]
        raise IncompleteTraceError(
            f"chain {chain} of {location} has recorded {counts[chain]} draws, fewer than the "
            f"{number} to drop; drop_before(n) with n up to {counts[chain]}, or record more",
            chain=chain,
        )
    for group in layout.groups.values():
        layout = layout.with_group(replace(group, warmup=max(group.warmup, number)))
    return replace(layout, dropped=number)


def delete_dropped(hierarchy: Hierarchy) -> list[str]:
    """Remove the chunks in which every draw was dropped; returns their keys.

    This must not happen during a split, when chunks are in more than one place.
    """
    location, layout = hierarchy.location, hierarchy.layout
    if not layout.dropped:
        return []
    chunks = chunk_keys(location, (path for g in layout.groups.values() for path in g.paths))
    gone = [
        chunk.key
        for variable in layout.variables
        for span in spans(layout, variable)
        for chunk in chunks.get(span.path, ())
        if _is_before(span.chunk(chunk.number, variable.draws_per_chunk).draws, layout)
    ]
    location.delete_many(gone)
    return gone


def _is_before(draws: range, layout: Layout) -> bool:
    """Whether every draw of a chunk that may be recorded was dropped."""
    return min(draws.stop, layout.total) <= layout.dropped
