"""Consolidated metadata: every zarr.json of a finished trace in the one of its root."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..datasets.catalogue import data_sets, in_order
from ..layout.layout import Layout, root_attrs
from ..store.location import Location
from ..store.zarr_json import encode_document, group_document, read_document


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
