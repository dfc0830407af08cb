"""The split, which moves the first draws of each chain to the warmup groups.

The layout first says what becomes warmup, and that chunks are about to move; then that the new ones
exist and replace the old ones; then that it is done. Readers find every draw
throughout, and repeating the same steps finishes a split that was killed anywhere.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np

from ..errors import GroupNotFoundError, IncompleteTraceError, InvalidInputError
from ..layout.layout import Layout
from ..layout.spans import span_of, spans
from ..reading.moment import Moment
from ..sampling_state.block import chain_blocks, remove_journals
from ..store.dtypes import dtype_name
from ..store.location import Location
from ..store.small_arrays import DataArray, array_items
from ..store.zarr_json import CHUNK_KEYS, compose_encoding, read_document
from .staging import Staging


def plan_split(
    moment: Moment,
    at: int | None = None,
    groups: Iterable[str] | None = None,
) -> Layout:
    """The layout with which a split begins: which draws of which groups move.

    Parameters
    ----------
    at : int, optional
        Draws from the start of each chain that are warmup; by default the warmup of each group.
    groups : iterable of str, optional
        The sampled groups to split; all by default.
    """
    location, layout, counts = moment.location, moment.layout, moment.counts
    names = list(layout.groups) if groups is None else list(groups)
    require_no_links(location, layout)
    kept = layout.kept_chains
    for name in names:
        if name not in layout.groups:
            raise GroupNotFoundError(
                f"{location} has no sampled group {name!r} to split",
                remedy=f"it has {', '.join(layout.groups)}",
                group=name,
            )
        group = layout.groups[name]
        target = group.warmup if at is None else check_warmup(location, layout, at)
        if target > counts[kept].min():
            chain = kept[int(counts[kept].argmin())]
            raise IncompleteTraceError(
                f"chain {chain} of {location} has recorded {counts[chain]} draws, fewer than the "
                f"{target} of warmup; record the rest, or split_warmup(n) with n up to "
                f"{counts[chain]}",
                chain=chain,
            )
        # The warmup changes at once for all groups; its place changes one array after the other.
        stored = (group.stored_first, group.stored_warmup, group.stored_left_out)
        there = stored == (layout.dropped, target, layout.left_out)
        group = replace(group, warmup=target, moving_to=None)
        if not there:
            # A store with transactions is never copied during one.
            v2_keys = location.takes_any_key and not group.v2_keys
            group = replace(group, moving_to=target, moving_to_v2_keys=v2_keys)
        layout = layout.with_group(group)
    return layout


def require_no_links(location: Location, layout: Layout) -> None:
    """Refuse to move or remove draws where an array is a link to another place."""
    for group in layout.groups.values():
        for path in group.paths if location.path is not None else ():
            names = (f"{path}/{name}" for name in location.children(path))
            location.require_no_link(path, *names)


def check_draws(location: Location, layout: Layout, draws: Any, what: str) -> int:
    """Check a number of draws from the start of a chain; `what` says in errors what is refused."""
    is_number = isinstance(draws, int | np.integer) and not isinstance(draws, bool)
    if not is_number or not 0 <= draws <= layout.total:
        raise InvalidInputError(
            f"the first {draws!r} draws cannot {what}: a chain of {location} has {layout.total}"
        )
    return int(draws)


def check_warmup(location: Location, layout: Layout, draws: Any) -> int:
    """Check a number of draws for warmup, which has to include all dropped ones."""
    number = check_draws(location, layout, draws, "be warmup")
    if number < layout.dropped:
        raise InvalidInputError(
            f"warmup cannot be only the first {number} draws: the first {layout.dropped} of "
            f"each chain of {location} were dropped, so warmup has at least {layout.dropped}"
        )
    return number


def move(moment: Moment) -> Layout:
    """Complete a split that was begun; returns the layout afterwards.

    Every draw must be in the chunks: while these move, no journal is read or written.
    """
    location, layout = moment.location, moment.layout
    staging = Staging(location, layout, moment.counts)
    if not all(group.swapping for group in layout.groups.values() if group.moving_to is not None):
        staging.fill()
        moment.hierarchy.change(staging.swapping)
    staging.swap()
    # Their rows fit the old arrays.
    end_journals(replace(moment, layout=staging.done))
    moment.hierarchy.change(staging.done)
    return staging.done


def end_journals(moment: Moment) -> None:
    """Remove the journals of all writers, after syncing the chunks with their draws to the disk."""
    location, layout = moment.location, moment.layout
    keys = []
    for block in chain_blocks(location, layout) if location.path is not None else ():
        path, count = block.journal_file, int(moment.counts[block.chains[0]])
        is_kept = (path is not None and path.exists()) or location.exists(block.key("flushed"))
        if not is_kept or not count:
            continue
        keys.append(block.key("draw_idx"))
        # A chain whose draws were all dropped has none in the arrays.
        for variable in layout.variables if count > layout.dropped else ():
            place = span_of(spans(layout, variable), count - 1).place(
                count - 1, variable.draws_per_chunk
            )
            keys.append(place.key(variable, block.number))
    location.make_durable(key for key in keys if location.exists(key))
    remove_journals(location, layout)
    location.delete_many(block.key("flushed") for block in chain_blocks(location, layout))


def write_array(location: Location, layout: Layout, path: str, array: DataArray) -> set[str]:
    """Replace a small array of another tool by ours; returns its keys.

    Readers see the other tool's array until the new document is written.
    """
    encoding = layout.encodings.get(dtype_name(array.values.dtype))
    if encoding is None:
        encoding = compose_encoding(array.values.dtype, "auto")
    if not location.takes_any_key:
        # Such a store has transactions.
        items = list(array_items(path, array, encoding, layout.separator))
        location.write_many(items)
        return {key for key, _ in items}
    replaced = read_document(location, path) or {}
    # The new chunks must not have the keys of existing ones.
    separator = "/" if replaced.get("chunk_key_encoding") == CHUNK_KEYS["."] else "."
    document, *chunks = array_items(path, array, encoding, separator)
    location.write_many(chunks)
    location.write(*document)
    return {key for key, _ in (document, *chunks)}
