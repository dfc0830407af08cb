"""Repair a damaged trace: keep all that can be kept, and report exactly what was lost."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DamagedTraceError
from ..layout.hierarchy import Hierarchy
from ..layout.layout import (
    TABLES,
    Layout,
    Lost,
    array_path,
    changed_keys,
    coordinates_attr,
    group_attrs,
    root_attrs,
)
from ..layout.variables import Variable
from ..reading.as_finished import read_whole
from ..reading.other_groups import is_rewritten
from ..reading.rows import RowReader
from ..sampling_state.block import ChainBlock, chain_blocks
from ..sampling_state.counts import recorded
from ..sampling_state.flushed import Series, read_last_rows
from ..sampling_state.last_checkpoint import checkpoint_text, drop_checkpoint
from ..sampling_state.state_text import decode_state, read_checkpoint
from ..store.dtypes import fill_value
from ..store.location import Location
from ..store.small_arrays import DataArray, array_items
from ..store.zarr_json import encode_document, group_document, read_document
from .burn_in import delete_dropped
from .check import check
from .consolidate import consolidate
from .damage import DamagedDraws
from .finish import complete
from .split import require_no_links


def repair(hierarchy: Hierarchy) -> Iterator[str]:
    """Fix what `check` finds, and yield what was done for each thing.

    No chain may be recorded meanwhile. On a local disk damaged chunks are not deleted: they
    are moved to `PATH.damaged`, beside the trace.
    """
    location = hierarchy.location
    require_no_links(location, hierarchy.layout)
    for key in location.remove_partial_files(outside=(TABLES,)):
        yield f"{key}: removed, left behind by a process that was killed"
    yield from _repair_documents(location, hierarchy.layout)
    yield from _repair_bookkeeping(location, hierarchy.layout)
    layout = hierarchy.layout
    if layout.splitting or (layout.closed and not layout.finished):
        complete(hierarchy, layout)
        yield "the interrupted split or finish is completed"
    for key in delete_dropped(hierarchy):
        yield f"{key}: removed, its draws were dropped"
    layout = hierarchy.layout
    lost = [damage for damage in check(location, layout) if isinstance(damage, DamagedDraws)]
    for damage in lost:
        # This comes first: away from its writer, a journal proves no draw after a missing chunk.
        layout = _with_lost(layout, damage)
        hierarchy.change(layout)
        yield _give_up(location, layout, damage)
        _say_lost(location, layout, damage)
    if layout.finished:
        consolidate(location, layout)
    for left in check(location, layout):
        yield f"not repaired: {left}; restore it from a copy"


# Documents ------------------------------------------------------------------------------------


def _repair_documents(location: Location, layout: Layout) -> Iterator[str]:
    for path, document in _expected_documents(location, layout):
        try:
            found = read_document(location, path)
        except DamagedTraceError:
            found = None
        if found is not None and not changed_keys(found, document):
            continue
        if found is not None and layout.finished and is_rewritten(location, path):
            continue
        location.write(f"{path}/zarr.json".lstrip("/"), encode_document(document))
        yield f"{path}/zarr.json: written again from the layout"


def _expected_documents(location: Location, layout: Layout) -> Iterator[tuple[str, dict[str, Any]]]:
    yield "", group_document(root_attrs(layout))
    for name in layout.data_groups:
        yield name, group_document(group_attrs(layout, name))
    for group in layout.groups.values():
        if group.moving_to is not None:
            continue
        try:
            cut = _shown_draws(location, layout)
        except DamagedTraceError:
            cut = layout.planned_draws
        lengths = (max(0, cut - group.stored_warmup), group.stored_warmup - group.stored_first)
        paths = zip(group.paths, lengths, strict=False)
        dims = {dim for variable in group.variables.values() for dim in variable.dims}
        coords = {name: dim for name, dim in layout.coords.items() if dim in dims}
        for path, draws in paths:
            yield path, group_document(group_attrs(layout, path) | coordinates_attr(coords))
            for variable in group.variables.values():
                yield array_path(path, variable), layout.document(variable, draws)


def _shown_draws(location: Location, layout: Layout) -> int:
    """Draws of each chain, warmup included, that the arrays have."""
    if not layout.finished:
        return layout.planned_draws
    return int(recorded(location, layout)[layout.kept_chains].min())


# Bookkeeping ----------------------------------------------------------------------------------


def _repair_bookkeeping(location: Location, layout: Layout) -> Iterator[str]:
    blocks = chain_blocks(location, layout)
    for block in blocks:
        for name in ("sampling_time", "sampling_start_time", "writer"):
            if _is_damaged(block, name):
                block.delete(name)
                yield f"{block.key(name)}: removed, {block.label} no longer has a {name}"
        yield from _repair_count(block)
    for block in blocks:
        yield from _repair_checkpoint(block)
    for group in layout.groups.values():
        if group.moving_to is None:
            for path in group.paths:
                yield from _repair_numbers(location, layout, path)


def _repair_checkpoint(block: ChainBlock) -> Iterator[str]:
    count = int(recorded(block.location, block.layout)[block.chains[0]])
    try:
        draws, content, _ = read_checkpoint(checkpoint_text(block))
        decode_state(content)
        why = f"it belongs to draw {draws}, but the chain has {count}" if draws > count else ""
    except (DamagedTraceError, ValueError) as error:
        why = f"it cannot be read ({error})"
    if why:
        drop_checkpoint(block)
        yield f"{block.key('state')}: the checkpoint of {block.label} is dropped: {why}"


def _repair_count(block: ChainBlock) -> Iterator[str]:
    journal = block.read_journal() if _has_damaged_rows(block) else None
    if journal is not None:
        block.location.write_again(block.key("flushed"), Series(block, journal).encode())
        yield f"{block.key('flushed')}: written again from the journal"
    elif _has_damaged_rows(block):
        block.delete("flushed")
        count = count_draws(block)
        block.write("draw_idx", count)
        yield f"{block.key('flushed')}: removed, {block.label} has {count} draws, by its chunks"
    if _is_damaged(block, "draw_idx"):
        kept = block.journal_count
        rows = read_last_rows(block) if kept is None else None
        if kept is not None:
            count, source = kept, "its journal"
        elif rows is not None:
            count, source = rows.journal.count, "its last rows"
        else:
            count, source = count_draws(block), "its chunks"
        # The count of last rows is with these.
        block.write("draw_idx", count if rows is None else 0)
        yield f"{block.key('draw_idx')}: {block.label} has {count} draws, by {source}"


def _has_damaged_rows(block: ChainBlock) -> bool:
    try:
        read_last_rows(block)
    except DamagedTraceError:
        return True
    return False


def _is_damaged(block: ChainBlock, name: str) -> bool:
    try:
        block.read(name)
    except DamagedTraceError:
        return True
    return False


def count_draws(block: ChainBlock) -> int:
    """How many draws of a block are in its chunks, by the chunks alone.

    Draws at the end of the last chunk whose values are all the fill value do not count; without a
    variable whose fill value is NaN or NaT, the last chunk counts only when the chain ends with it.
    """
    layout = block.layout
    readers = [(variable, RowReader(block, variable)) for variable in layout.variables]
    ends = [(_end_of_chunks(reader, variable), variable) for variable, reader in readers]
    count = min(layout.total, *(end for end, _ in ends))
    if not any(variable.dtype.kind in "fcmM" for variable in layout.variables):
        whole = min(end - variable.draws_per_chunk for end, variable in ends)
        return count if count == layout.total else max(layout.dropped, whole)
    # Dropped draws count as recorded, as this can no longer be checked.
    blank = np.ones(max(0, count - layout.dropped), dtype=bool)
    for _, reader in readers:
        for place, rows, taken in reader.chunks(range(layout.dropped, count)):
            try:
                blank[taken] &= _is_fill(reader.chunk(place)[:, rows])
            except DamagedTraceError:
                # The damaged chunk existed, so it was recorded.
                blank[taken] = False
    while count > layout.dropped and blank[count - layout.dropped - 1]:
        count -= 1
    return count


def _end_of_chunks(reader: RowReader, variable: Variable) -> int:
    """The draw after the last of the existing chunks without a gap, from the first on."""
    location, block = reader.block.location, reader.block
    end = block.layout.dropped
    for span in reader.spans:
        draw = max(span.start, end)
        while draw < span.stop:
            place = span.place(draw, variable.draws_per_chunk)
            if not location.exists(place.key(variable, block.number)) and not reader.is_blank(
                place
            ):
                break
            draw = end = place.draws.stop
    return end


def _is_fill(rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """For each draw, whether all its values are the fill value."""
    fill = fill_value(rows.dtype)
    same = np.isnan(rows) if rows.dtype.kind in "fc" else rows == fill
    if rows.dtype.kind in "mM":
        same = np.isnat(rows)
    found: np.ndarray[tuple[int], np.dtype[np.bool_]] = np.all(same, axis=(0, *range(2, rows.ndim)))
    return found


def _repair_numbers(location: Location, layout: Layout, path: str) -> Iterator[str]:
    group = layout.groups[path.removeprefix("warmup_")]
    draws = group.stored_warmup - group.stored_first
    if path == group.name:
        draws = max(0, _shown_draws(location, layout) - group.stored_warmup)
    chains = np.array(layout.kept_chains) if layout.finished else np.arange(layout.chains)
    arrays = {"chain": chains, **({"draw": np.arange(draws)} if layout.finished else {})}
    for name, numbers in arrays.items():
        if is_rewritten(location, f"{path}/{name}"):
            continue
        try:
            read_whole(location, layout, f"{path}/{name}", complete=True)
        except DamagedTraceError:
            array = DataArray((name,), numbers)
            encoding = layout.encodings["int64"]
            location.write_many(array_items(f"{path}/{name}", array, encoding, layout.separator))
            yield f"{path}/{name}: numbered again"
    # An earlier version numbered the draws before the end, and an extension leaves them numbered.
    if not layout.finished and location.keys(f"{path}/draw"):
        try:
            read_whole(location, layout, f"{path}/draw", complete=True)
        except DamagedTraceError:
            location.delete_tree(f"{path}/draw")
            yield f"{path}/draw: removed, because finish() numbers the draws"


# Chunks ---------------------------------------------------------------------------------------


def _give_up(location: Location, layout: Layout, damage: DamagedDraws) -> str:
    """Move a damaged chunk out of the way of every reader."""
    variable = layout.groups[damage.group].variables[damage.variable]
    first = damage.draws.start
    reader = RowReader(ChainBlock(location, layout, damage.block), variable)
    span = next(span for span in reader.spans if span.start <= first < span.stop)
    key = span.place(first, variable.draws_per_chunk).key(variable, damage.block)
    where = put_chunk_aside(location, key)
    missing = "read as missing values" if variable.dtype.kind in "fcmM" else "cannot be read"
    return f"{damage}: lost, these draws of {variable.label} {missing}{where}"


def put_chunk_aside(location: Location, key: str) -> str:
    """Move a damaged chunk beside a local store, or delete it; returns its new place in words."""
    if location.path is None or not (location.path / key).exists():
        location.delete(key)
        return ""
    aside = Path(f"{location.path}.damaged") / key
    aside.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(location.path / key, aside)
    return f"; the damaged chunk is now {aside}"


def _with_lost(layout: Layout, damage: DamagedDraws) -> Layout:
    draws = damage.draws
    entry = Lost(damage.group, damage.variable, damage.block, draws.start, draws.stop)
    # It is there already if a repair was killed before it moved the chunk.
    return replace(layout, lost=tuple(dict.fromkeys((*layout.lost, entry))))


def _say_lost(location: Location, layout: Layout, damage: DamagedDraws) -> None:
    """Store what was lost in the variable's attributes, where every reader sees it."""
    group = layout.groups[damage.group]
    variable = group.variables[damage.variable]
    for path in (group.name, group.warmup_name):
        document = read_document(location, array_path(path, variable))
        if document is not None:
            document["attributes"] |= layout.variable_attrs(variable)
            location.write(f"{array_path(path, variable)}/zarr.json", encode_document(document))
