"""Documents that another tool has written into a trace, and the groups that it has added."""

from __future__ import annotations

import functools
from typing import Any

from ..errors import DamagedTraceError
from ..layout.layout import ASIDE, STATE, TABLES, Layout
from ..store.location import Location
from ..store.zarr_json import LONGEST_DOCUMENT, encode_document, parse_document

_OURS = b'{"zarr_format": 3, "node_type": '


def find_other_groups(location: Location, layout: Layout) -> tuple[str, ...]:
    """The groups that another tool has added to a finished trace."""
    if not layout.finished:
        return ()
    # Asking a remote store is slow, so it is done once for each trace that is opened.
    return (_look_once if location.waits else _look)(location, layout)


def _look(location: Location, layout: Layout) -> tuple[str, ...]:
    warmups = [group.warmup_name for group in layout.groups.values()]
    known = {*layout.group_names, *warmups, STATE, TABLES, ASIDE, "zarr.json"}
    names = [name for name in node_names(location, "") if name not in known]
    found = location.read_many([f"{name}/zarr.json" for name in names], LONGEST_DOCUMENT)
    groups = []
    for name, data in zip(names, found, strict=True):
        document = None if data is None else parse_other_document(data)
        if document is None or document.get("node_type") != "group":
            continue
        # Data sets of version 0.1 are groups beside those of the trace, and not part of it.
        attributes = document.get("attributes") or {}
        if not any(str(key).startswith("zarrtrace_") for key in attributes):
            groups.append(name)
    return tuple(groups)


_look_once = functools.lru_cache(maxsize=16)(_look)


def node_names(location: Location, path: str) -> list[str]:
    """The names of possible arrays and groups below a path.

    File systems and desktops leave files whose names begin with a dot, and some stores refuse to
    look for a key below a file.
    """
    names = (name for name in location.children(path) if not name.startswith("."))
    return sorted(name for name in names if name != "zarr.json")


def is_rewritten(location: Location, path: str) -> bool:
    """Whether another tool has written the document of an array."""
    data = location.read(f"{path}/zarr.json", LONGEST_DOCUMENT)
    return data is not None and parse_other_document(data) is not None


def parse_other_document(data: memoryview) -> dict[str, Any] | None:
    """A document that another tool has written: JSON in another form than zarrtrace writes."""
    text = bytes(data)
    # It is not parsed, which would be slow for a group of hundreds of arrays.
    if text.startswith(_OURS) and b"\n" not in text:
        return None
    try:
        document = parse_document(data, "")
    except DamagedTraceError:
        return None
    return None if encode_document(document) == text else document
