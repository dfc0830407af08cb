"""The end of a trace's life: trimmed to what was recorded, right for any Zarr reader."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from ..errors import DamagedTraceError, IncompleteTraceError
from ..layout.hierarchy import Hierarchy
from ..layout.layout import (
    IN_STORE,
    REFUSED,
    TABLES,
    UNFINISHED,
    Ended,
    Layout,
    array_path,
    group_attrs,
)
from ..reading import convergence
from ..reading.as_finished import forget_as_finished, restore_as_finished
from ..reading.cut import alignment_attrs, sampling_attrs
from ..reading.moment import Moment
from ..reading.others import find_others
from ..sampling_state.counts import recorded
from ..sampling_state.journal_format import JOURNAL
from ..store.chunk_codec import ChunkCodec
from ..store.location import Location
from ..store.zarr_json import (
    encode_document,
    group_document,
    key_of_chunk,
    read_document,
    read_documents,
)
from .consolidate import consolidate
from .split import end_journals, move, write_array


def require_draws(moment: Moment) -> None:
    """Refuse to finish a trace in which a chain has nothing after its warmup."""
    layout, counts = moment.layout, moment.counts
    warmup = max(group.warmup for group in layout.groups.values())
    if layout.draws and counts.min() <= warmup:
        empty = np.flatnonzero(counts <= warmup)
        raise IncompleteTraceError(
            f"chain {', '.join(map(str, empty))} of {moment} has no draw after {warmup} of "
            f"warmup ({counts[empty[0]]} recorded): finishing would cut every chain to nothing. "
            f"Record the rest, choose an earlier split_warmup(n), or export the other chains with "
            f"to_datatree(chains=...)",
            chain=int(empty[0]),
        )


def complete(hierarchy: Hierarchy, layout: Layout) -> Layout:
    """Do what is left of a split or of `finish` that was killed; gives the layout afterwards."""
    if layout.splitting or (layout.closed and not layout.finished):
        return carry_out(Moment(hierarchy, layout, recorded(hierarchy.location, layout)))
    return layout


def carry_out(moment: Moment) -> Layout:
    """Do what the layout says is to be done: move chunks, and end; gives the layout afterwards."""
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
    for group in layout.groups.values():
        length = int(counts.min()) - group.stored_warmup
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
                document["shape"][1] = length if path == group.name else warmup
                document.pop(UNFINISHED, None)
                arrays[array] = document
            document = read[path] or group_document()
            attrs = {**document["attributes"], **group_attrs(layout, path)}
            attrs |= sampling_attrs(moment)
            after = counts - group.stored_warmup
            if path == group.name and len(set(after)) > 1:
                attrs |= alignment_attrs(after, length)
            documents[path] = group_document(attrs)
        documents[f"{group.name}/draw"] = _draw_coordinate(location, layout, group.name, length)
    # With the consolidated metadata all arrays change their length at once.
    consolidate(location, layout, {**documents, **arrays})
    # Last what other readers may open from then on: all that it needs is right.
    for changed in (documents, arrays):
        location.write_many(
            (f"{path}/zarr.json", encode_document(document)) for path, document in changed.items()
        )
    if layout.durable:
        written = (f"{path}/zarr.json" for path in (*documents, *arrays))
        location.make_durable(["zarr.json", *written])
    end_journals(moment)
    if layout.journal == IN_STORE:
        location.delete_tree(JOURNAL)
    location.remove_partial_files(outside=(TABLES,))


def take_back(hierarchy: Hierarchy) -> None:
    """Keep other readers from a finished trace whose arrays are about to change.

    Killed anywhere in it, the trace is one whose finish was interrupted.
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
                location.write(f"{array}/zarr.json", encode_document({**document, **REFUSED}))
    for path in ("", *(path for group in layout.groups.values() for path in group.paths)):
        document = read_document(location, path) or {}
        # They would be read instead of the documents of the arrays.
        if document.pop("consolidated_metadata", None) is not None:
            location.write(f"{path}/zarr.json".lstrip("/"), encode_document(document))
    forget_as_finished(location)


def _restore_coordinates(location: Location, layout: Layout) -> None:
    """Store coordinates that another tool has written as zarrtrace stores them."""
    from ..reading.data_groups import read_labels

    for group in layout.groups.values():
        for path in group.paths:
            others = find_others(location, layout, path)
            for name in others.rewritten.difference(group.variables):
                array = read_labels(location, layout, path, name, others)
                before = location.keys(f"{path}/{name}")
                written = write_array(location, layout, f"{path}/{name}", array)
                location.delete_many(key for key in before if key not in written)


def _draw_coordinate(location: Location, layout: Layout, group: str, length: int) -> dict[str, Any]:
    """The document of a `draw` coordinate of this length, whose chunks hold at least so much."""
    path = f"{group}/draw"
    document = read_document(location, path)
    if document is None:
        raise DamagedTraceError(
            f"{path} is missing",
            where=str(location),
            remedy="`zarrtrace repair` numbers the draws again",
        )
    size = int(document["chunk_grid"]["configuration"]["chunk_shape"][0])
    codec = ChunkCodec(np.dtype("int64"), document)
    for chunk in range(-(-length // size)):
        numbers = np.arange(chunk * size, (chunk + 1) * size)
        location.write(key_of_chunk(path, (chunk,), document), codec.encode(numbers))
    return {**document, "shape": [length]}
