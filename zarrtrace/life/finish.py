"""The end of a trace's life: trimmed to what was recorded, right for any Zarr reader."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np

from ..diagnostics import convergence
from ..errors import ChainError, DamagedTraceError, IncompleteTraceError, NotWritableError
from ..layout.hierarchy import Hierarchy
from ..layout.layout import (
    REFUSED,
    TABLES,
    UNFINISHED,
    Ended,
    Layout,
    array_path,
    group_attrs,
)
from ..messages import counted, list_chains
from ..reading.as_finished import forget_as_finished, restore_as_finished
from ..reading.cut import alignment_attrs, choose_chains, sampling_attrs
from ..reading.moment import Moment
from ..reading.others import find_others
from ..sampling_state.counts import recorded
from ..sampling_state.flushed import FLUSHED
from ..sampling_state.journal_format import JOURNAL
from ..store.location import Location
from ..store.small_arrays import DataArray, Numbers, array_items
from ..store.zarr_json import (
    encode_document,
    group_document,
    parse_document,
    read_document,
    read_documents,
)
from .consolidate import consolidate
from .split import end_journals, move, write_array

# Attributes of a group that one finish writes and the next one may not.
_OF_AN_END = ("chains_left_out", "draws_recorded", "alignment")


def with_chains(moment: Moment, chains: int | Iterable[int] | None) -> Layout:
    """The layout in which these chains are shown when the trace is finished, by default all.

    Raises
    ------
    ChainError
        There is no such chain, or a block is left out partly.
    NotWritableError
        A trace of an earlier version cannot leave out chains.
    """
    layout = moment.layout
    chosen = choose_chains(layout, chains, str(moment))
    if chosen is None:
        return replace(layout, left_out=())
    left_out = []
    for block in range(layout.blocks):
        asked = set(chosen).intersection(layout.chains_of(block))
        if not asked:
            left_out.append(block)
        elif len(asked) < len(layout.chains_of(block)):
            raise ChainError(
                f"{list_chains(layout.chains_of(block))} of {moment} are recorded together",
                remedy="keep all of them, or leave out all",
                chain=min(asked),
            )
    if left_out and layout.version < 3:
        raise NotWritableError(
            "an earlier version made this trace, so no chain can be left out",
            where=str(moment),
            remedy="zarrtrace.from_datatree(trace.to_datatree(chains=...), new_path) makes one of "
            "these chains",
        )
    return replace(layout, left_out=tuple(left_out))


def require_draws(moment: Moment) -> None:
    """Refuse to finish a trace in which a chain has no draws after its warmup."""
    layout, counts = moment.layout, moment.counts
    warmup, kept = layout.most_warmup, np.array(layout.kept_chains)
    if layout.draws != 0 and counts[kept].min() <= warmup:
        empty = kept[counts[kept] <= warmup].tolist()
        others = [chain for chain in kept.tolist() if chain not in empty]
        without = f"leave it out with finish(chains={others}), " if others else ""
        raise IncompleteTraceError(
            f"no draws after {warmup} of warmup in {list_chains(empty)} ({counts[empty[0]]} "
            f"recorded): finishing would cut every chain to nothing",
            where=str(moment),
            remedy=f"record the rest, {without}or choose an earlier split_warmup(n)",
            chain=empty[0],
        )


def describe_unequal(moment: Moment) -> str:
    """What other readers see of a finished trace with chains of unequal length; "" for equal.

    Without a declared end, chains are hardly ever equal: then it reports only chains with
    less than half of the draws of others.
    """
    layout = moment.layout
    after = (moment.counts - layout.most_warmup)[layout.kept_chains]
    enough = after.max() if layout.draws is not None else 0.5 * after.max()
    if after.min() >= enough:
        return ""
    each = ", ".join(map(str, after[:8])) + (", ..." if len(after) > 8 else "")
    return (
        f"the chains of {moment} are of unequal length ({each}): other readers see the first "
        f"{counted(int(after.min()), 'draw')} of each, and zarrtrace sees all; "
        f"finish(chains=[...]) leaves short ones out"
    )


def complete(hierarchy: Hierarchy, layout: Layout) -> Layout:
    """Complete a split or `finish` that was killed; returns the layout afterwards."""
    if layout.splitting or (layout.closed and not layout.finished):
        return carry_out(Moment(hierarchy, layout, recorded(hierarchy.location, layout)))
    return layout


def carry_out(moment: Moment) -> Layout:
    """Do what the layout announces: move chunks, and finish; returns the layout afterwards."""
    layout = move(moment) if moment.layout.splitting else moment.layout
    if layout.closed and not layout.finished:
        moment = replace(moment, layout=layout)
        _trim(moment)
        recorded_by_block = tuple(moment.counts[:: layout.chains_per_chunk].tolist())
        ended = Ended(recorded_by_block, moment.sampling_time)
        layout = replace(layout, finished=True, ended=ended)
        moment.hierarchy.change(layout)
        convergence.keep(moment.hierarchy)
    return layout


def _trim(moment: Moment) -> None:
    """Give every array the length of the shortest chain, and every group its attributes.

    Draws of longer chains stay in their chunks, beyond the shape that plain readers see.
    """
    location, layout, counts = moment.location, moment.layout, moment.counts
    paths = [path for group in layout.groups.values() for path in group.paths]
    paths += [
        array_path(path, variable)
        for group in layout.groups.values()
        for path in group.paths
        for variable in group.variables.values()
    ]
    read = dict(zip(paths, read_documents(location, paths), strict=True))
    documents: dict[str, dict[str, Any]] = {}
    arrays: dict[str, dict[str, Any]] = {}
    kept = layout.kept_chains
    for group in layout.groups.values():
        length = int(counts[kept].min()) - group.stored_warmup
        warmup = group.stored_warmup - group.stored_first
        for path in group.paths:
            for variable in group.variables.values():
                array = array_path(path, variable)
                document = read[array]
                if document is None:
                    raise DamagedTraceError(
                        f"the array {array} is missing",
                        where=str(location),
                        remedy="restore it from a copy",
                        group=path,
                        variable=variable.name,
                    )
                document["shape"][:2] = len(kept), length if path == group.name else warmup
                document.pop(UNFINISHED, None)
                arrays[array] = document
            document = read[path] or group_document()
            before = {k: v for k, v in document["attributes"].items() if k not in _OF_AN_END}
            attrs = {**before, **group_attrs(layout, path)}
            attrs |= sampling_attrs(moment)
            if len(kept) < layout.chains:
                shown = set(kept)
                left_out = [chain for chain in range(layout.chains) if chain not in shown]
                attrs["chains_left_out"] = left_out
            after = counts[kept] - group.stored_warmup
            if path == group.name and len(set(after)) > 1:
                attrs |= alignment_attrs(after, length)
            documents[path] = group_document(attrs)
            if layout.left_out or layout.chains != _size(location, f"{path}/chain"):
                chains = DataArray(("chain",), np.array(kept))
                documents[f"{path}/chain"] = _write_coordinate(location, layout, path, chains)
            draws = DataArray(("draw",), Numbers(length if path == group.name else warmup))
            documents[f"{path}/draw"] = _write_coordinate(location, layout, path, draws)
    # The consolidated metadata changes the length of all arrays at once.
    consolidate(location, layout, {**documents, **arrays})
    # Last comes the document that lets other readers open the trace: all it needs is right.
    for changed in (documents, arrays):
        location.write_many(
            (f"{path}/zarr.json", encode_document(document)) for path, document in changed.items()
        )
    if layout.durable:
        written = (f"{path}/zarr.json" for path in (*documents, *arrays))
        location.make_durable(["zarr.json", *written])
    end_journals(moment)
    for array in (JOURNAL, FLUSHED) if location.path is not None else (FLUSHED,):
        location.delete_tree(array)
    location.remove_partial_files(outside=(TABLES,))


def take_back(hierarchy: Hierarchy) -> None:
    """Keep other readers from a finished trace whose arrays are about to change.

    After a kill anywhere in it, the trace is one whose finish was interrupted.
    """
    location, layout = hierarchy.location, replace(hierarchy.layout, finished=False)
    restore_as_finished(location, hierarchy.layout)
    _restore_coordinates(location, hierarchy.layout)
    hierarchy.change(layout)
    for group in layout.groups.values():
        arrays = [array_path(path, v) for path in group.paths for v in group.variables.values()]
        for array in arrays:
            document = read_document(location, array)
            if document is not None:
                document["shape"][0] = layout.chains
                location.write(f"{array}/zarr.json", encode_document({**document, **REFUSED}))
    for path in ("", *(path for group in layout.groups.values() for path in group.paths)):
        document = read_document(location, path) or {}
        # Readers would use them instead of the documents of the arrays.
        if document.pop("consolidated_metadata", None) is not None:
            location.write(f"{path}/zarr.json".lstrip("/"), encode_document(document))
    forget_as_finished(location)


def _restore_coordinates(location: Location, layout: Layout) -> None:
    """Store coordinates in zarrtrace's way after another tool has rewritten them."""
    from ..reading.data_groups import read_labels

    for group in layout.groups.values():
        for path in group.paths:
            others = find_others(location, layout, path)
            for name in others.rewritten.difference(group.variables):
                array = read_labels(location, layout, path, name, others)
                before = location.keys(f"{path}/{name}")
                written = write_array(location, layout, f"{path}/{name}", array)
                location.delete_many(key for key in before if key not in written)


def _size(location: Location, path: str) -> int | None:
    """The length of an array with one dimension; None where it is missing."""
    document = read_document(location, path)
    return None if document is None else int(document["shape"][0])


def _write_coordinate(
    location: Location, layout: Layout, group: str, array: DataArray
) -> dict[str, Any]:
    """Write the chunks of a coordinate of chains or draws; returns the document for them."""
    path = f"{group}/{array.dims[0]}"
    items = array_items(path, array, layout.encodings["int64"], layout.separator)
    _, data = next(items)
    document = parse_document(memoryview(data), path)
    before = read_document(location, path)
    if before is not None and before["chunk_grid"] != document["chunk_grid"]:
        location.delete_many(key for key in location.keys(path) if not key.endswith("/zarr.json"))
    if before is None:
        # Other readers, and some stores, take no chunk without its array.
        location.write(f"{path}/zarr.json", bytes(data))
    location.write_many(items)
    return document
