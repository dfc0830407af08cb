"""Consolidated metadata: every zarr.json of a finished trace in the zarr.json of its root."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..layout.layout import STATE, TABLES, Layout, root_attrs
from ..reading.as_finished import keep_as_finished
from ..reading.other_groups import is_rewritten
from ..store.location import Location
from ..store.zarr_json import (
    consolidated_metadata,
    encode_document,
    group_document,
    read_document,
    read_documents,
)


def consolidate(
    location: Location, layout: Layout, changed: Mapping[str, dict[str, Any]] | None = None
) -> None:
    """Write consolidated metadata: one read opens the trace, and its groups keep their order.

    First it stores a copy of what other tools may change from then on.

    `_sampling_state` is left out, so that plain readers see what ArviZ knows; so are tables, which
    may grow after the end. Groups of other tools are included, with consolidated metadata
    of their own or without. `changed` has documents that replace the stored ones.
    """
    names = layout.group_names
    names += [path for group in layout.groups.values() for path in group.paths[1:]]
    metadata: dict[str, Any] = {}
    documents = dict(changed or {})
    nodes = [
        (name, path)
        for name in names
        for path in (name, *_arrays(location, layout, name, documents))
    ]
    unknown = [path for _, path in nodes if path not in documents]
    found = zip(unknown, read_documents(location, unknown), strict=True)
    documents |= {path: document for path, document in found if document is not None}
    for name, path in nodes:
        if path in documents:
            document = documents[path]
            if path == name or document["node_type"] == "array":
                metadata[path] = document
    others = {*location.children("")} - {*names, STATE, TABLES, "zarr.json"}
    for name in (*layout.data_groups, *sorted(others)):
        metadata |= _consolidated_group(location, name)
        if name in others and name not in metadata and is_rewritten(location, name):
            metadata |= _nodes(location, name)
    keep_as_finished(location, layout, metadata)
    root = read_document(location, "") or group_document(root_attrs(layout))
    root["consolidated_metadata"] = consolidated_metadata(metadata)
    location.write("zarr.json", encode_document(root))


def _arrays(
    location: Location, layout: Layout, name: str, changed: Mapping[str, dict[str, Any]]
) -> list[str]:
    """The paths of the arrays of a group: variables as they were defined, then the others.

    For some arrays only the future document exists.
    """
    found = {key.split("/")[1] for key in location.keys(name) if key.count("/") > 1}
    found |= {path.split("/")[1] for path in changed if path.startswith(f"{name}/")}
    group = layout.groups.get(name.removeprefix("warmup_"))
    named = layout.data_groups.get(name, ()) if group is None else group.variables
    variables = [variable for variable in named if variable in found]
    return [f"{name}/{node}" for node in (*variables, *sorted(found.difference(variables)))]


def _consolidated_group(location: Location, name: str) -> dict[str, Any]:
    """The nodes of a group that has consolidated metadata of its own, itself included."""
    document = read_document(location, name) or {}
    inside = document.pop("consolidated_metadata", None)
    if inside is None:
        return {}
    nodes = {f"{name}/{path}": node for path, node in inside["metadata"].items()}
    return {name: document, **nodes}


def _nodes(location: Location, name: str) -> dict[str, Any]:
    """The nodes of a group that another tool has added, itself included."""
    keys = sorted(key for key in location.keys(name) if key.endswith("/zarr.json"))
    paths = [key.removesuffix("/zarr.json") for key in keys]
    return {path: document for path in paths if (document := read_document(location, path))}
