"""The end of a trace's life: trimmed to what was recorded, right for any Zarr reader."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from . import convergence
from .bookkeeping import read_value
from .catalogue import data_sets, in_order
from .chunks import ChunkCodec
from .documents import chunk_key, encode_document, group_document, read_document
from .errors import DamagedTraceError, IncompleteTraceError
from .journal import remove_journals
from .journallayout import JOURNAL
from .layout import GROWING, Layout, array_path, group_attrs, root_attrs
from .layoutfile import LayoutFile
from .location import Location
from .rows import recorded
from .warmup import resume_split


def require_draws(location: Location, layout: Layout) -> None:
    """Refuse to finish a trace in which a chain has nothing after its warmup."""
    counts = recorded(location, layout)
    warmup = max(group.warmup for group in layout.groups.values())
    if layout.draws and counts.min() <= warmup:
        empty = np.flatnonzero(counts <= warmup)
        raise IncompleteTraceError(
            f"chain {', '.join(map(str, empty))} of {location} has no draw after {warmup} of "
            f"warmup ({counts[empty[0]]} recorded): finishing would cut every chain to nothing. "
            f"Record the rest, choose an earlier split_warmup(n), or export the other chains with "
            f"to_datatree(chains=...)",
            chain=int(empty[0]),
        )


def complete(location: Location, layout_file: LayoutFile) -> None:
    """Do what is left of a split or of `finish`, after it was killed too."""
    resume_split(location, layout_file)
    layout = layout_file.current()
    if layout.closed and not layout.finished:
        _trim(location, layout)
        layout_file.write(replace(layout, finished=True))
        convergence.keep(location, layout_file)


def _trim(location: Location, layout: Layout) -> None:
    """Give every array the length of the shortest chain, and every group its attributes.

    Draws of longer chains stay in their chunks, beyond the shape that plain readers see.
    """
    counts = recorded(location, layout)
    documents: dict[str, dict[str, Any]] = {}
    for group in layout.groups.values():
        length = int(counts.min()) - group.stored_warmup
        warmup = group.stored_warmup - group.stored_first
        for path in group.paths:
            for variable in group.variables.values():
                array = array_path(path, variable)
                document = read_document(location, array)
                if document is None:
                    raise DamagedTraceError(
                        f"{location}: the array {array} is missing; restore it from a copy",
                        group=path,
                        variable=variable.name,
                    )
                document["shape"][1] = length if path == group.name else warmup
                documents[array] = document
            document = read_document(location, path) or group_document()
            attrs = {**document["attributes"], **group_attrs(layout, path)}
            attrs |= sampling_attrs(location, layout)
            after = counts - group.stored_warmup
            if path == group.name and len(set(after)) > 1:
                attrs |= alignment_attrs(after, length)
            documents[path] = group_document(attrs)
        documents[f"{group.name}/draw"] = _draw_coordinate(location, layout, group.name, length)
    # With the consolidated metadata all arrays change their length at once.
    consolidate(location, layout, documents)
    location.write_many(
        (f"{path}/zarr.json", encode_document(document)) for path, document in documents.items()
    )
    remove_journals(location, layout)
    location.delete_tree(JOURNAL)
    location.remove_partial_files(outside=GROWING)


def _draw_coordinate(location: Location, layout: Layout, group: str, length: int) -> dict[str, Any]:
    """The document of a `draw` coordinate of this length, whose chunks hold at least so much."""
    path = f"{group}/draw"
    document = read_document(location, path)
    if document is None:
        raise DamagedTraceError(f"{location}: {path} is missing; `zarrtrace repair` numbers anew")
    size = int(document["chunk_grid"]["configuration"]["chunk_shape"][0])
    codec = ChunkCodec(np.dtype("int64"), document)
    for chunk in range(-(-length // size)):
        numbers = np.arange(chunk * size, (chunk + 1) * size)
        location.write(chunk_key(path, (chunk,)), codec.encode(numbers))
    return {**document, "shape": [length]}


def sampling_attrs(location: Location, layout: Layout) -> dict[str, Any]:
    """`sampling_time` in seconds, of the chain that took longest; the user's own holds."""
    if "sampling_time" in layout.attrs:
        return {}
    spent = [read_value(location, layout, "sampling_time", b) or 0.0 for b in range(layout.blocks)]
    return {"sampling_time": float(max(spent))} if any(spent) else {}


def alignment_attrs(counts: np.ndarray[Any, Any], length: int) -> dict[str, Any]:
    """What a reader should know about chains of unequal length."""
    how = "cut to the shortest chain" if length == counts.min() else "padded to the longest chain"
    return {"draws_recorded": counts.tolist(), "alignment": how}


def consolidate(
    location: Location, layout: Layout, changed: Mapping[str, dict[str, Any]] | None = None
) -> None:
    """Write consolidated metadata: one read opens the trace, and its groups keep their order.

    `_sampling_state` is left out, so that plain readers see what ArviZ knows, and tables are, which
    may grow after the end. Data sets keep it up to date themselves.
    Documents that are `changed` are taken from there.
    """
    names = layout.group_names
    names += [path for group in layout.groups.values() for path in group.paths[1:]]
    metadata: dict[str, Any] = {}
    for name in names:
        group = layout.groups.get(name.removeprefix("warmup_"))
        nodes = sorted({key.split("/")[1] for key in location.keys(name)} - {"zarr.json"})
        if group is not None:
            first = [variable for variable in group.variables if variable in nodes]
            nodes = first + [node for node in nodes if node not in group.variables]
        for path in (name, *(f"{name}/{node}" for node in nodes)):
            document = (changed or {}).get(path) or read_document(location, path)
            if document is not None and (path == name or document["node_type"] == "array"):
                metadata[path] = document
    for name in data_sets(location):
        document = read_document(location, name) or group_document()
        inside = document.pop("consolidated_metadata")["metadata"]
        metadata[name] = document
        metadata |= {f"{name}/{path}": found for path, found in inside.items()}
    root = read_document(location, "") or group_document(root_attrs(layout))
    root["consolidated_metadata"] = {
        "kind": "inline",
        "must_understand": False,
        "metadata": in_order(metadata),
    }
    location.write("zarr.json", encode_document(root))
