"""Groups that are given whole come, take the place of others, and go, each at one moment.

What will take a place is written whole, aside, before the layout names it. From then on readers
find it, there or in its place; whoever was killed leaves the rest to `settle_groups`.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from dataclasses import replace

from ..layout.hierarchy import Hierarchy
from ..layout.layout import ASIDE, Layout
from ..reading.other_groups import find_other_groups
from ..store.local import DirectoryLock, can_lock
from ..store.location import Location
from ..store.zarr_json import documents_first, encode_document, group_document, read_document
from .consolidate import consolidate

Items = Iterable[tuple[str, bytes]]


def put_group(hierarchy: Hierarchy, following: Layout, group: str, items: Items) -> None:
    """Have a group in a trace, in the place of what has its name.

    Parameters
    ----------
    following : Layout
        The layout with the group.
    items : iterable of (str, bytes)
        The keys and bytes of the group, its own document last.
    """
    location, layout = hierarchy.location, hierarchy.layout
    if is_there(location, layout, group):
        place = f"{group}.{uuid.uuid4().hex}"
        location.write(f"{ASIDE}/zarr.json", encode_document(group_document()))
        location.write_many((f"{ASIDE}/{place}{key[len(group) :]}", data) for key, data in items)
        location.sync_tree(f"{ASIDE}/{place}")
        hierarchy.change(replace(following, replacing={group: place}))
    else:
        # What a killed process has left.
        location.delete_tree(group)
        location.write_many(items)
        hierarchy.change(replace(following, replacing={group: ""} if layout.finished else {}))
    settle_groups(hierarchy)


def take_group_away(hierarchy: Hierarchy, group: str) -> None:
    """Remove a group that was given whole, or that another tool has put there."""
    layout = hierarchy.layout
    hierarchy.change(
        replace(
            layout,
            data_groups={k: v for k, v in layout.data_groups.items() if k != group},
            added_at={k: v for k, v in layout.added_at.items() if k != group},
            replacing={group: ""},
        )
    )
    settle_groups(hierarchy)


def is_there(location: Location, layout: Layout, group: str) -> bool:
    """Whether a trace has a group of this name that was given whole, by us or by another tool."""
    return group in layout.data_groups or group in find_other_groups(location, layout)


def settle_groups(hierarchy: Hierarchy) -> Layout:
    """Do what is left of a change of groups, and delete what nobody reads any more.

    Returns
    -------
    Layout
        The layout afterwards.
    """
    location, layout = hierarchy.location, hierarchy.layout
    if layout.replacing:
        if layout.finished:
            _forget_consolidated(location)
        for group, place in layout.replacing.items():
            if group not in layout.data_groups:
                _put_aside(location, group)
            elif place:
                created_at = layout.group_created_at(group)
                (_exchange if location.renames else _copy)(location, group, place, created_at)
        if layout.finished:
            consolidate(location, layout)
        layout = replace(layout, replacing={})
        hierarchy.change(layout)
    _delete_unread(location)
    return layout


def _forget_consolidated(location: Location) -> None:
    """Have other readers look at each document while one group is there and then another."""
    root = read_document(location, "")
    if root is not None and root.pop("consolidated_metadata", None) is not None:
        location.write("zarr.json", encode_document(root))
        location.make_durable(["zarr.json"])


def _is_of(location: Location, path: str, created_at: str) -> bool:
    document = read_document(location, path) or {}
    return bool(document.get("attributes", {}).get("created_at") == created_at)


def _exchange(location: Location, group: str, place: str, created_at: str) -> None:
    """Let a group on a local disk take the place of the one before, which goes aside."""
    if not _is_of(location, group, created_at):
        new = f"{ASIDE}/{place}"
        if not location.exchange_trees(new, group):
            _put_aside(location, group)
            location.move_tree(new, group)
    location.make_durable([group, ASIDE])


def _put_aside(location: Location, group: str) -> None:
    if location.renames:
        if location.children(group):
            location.write(f"{ASIDE}/zarr.json", encode_document(group_document()))
            location.move_tree(group, f"{ASIDE}/{group}.{uuid.uuid4().hex}")
            location.make_durable([ASIDE])
    else:
        # Without its document other readers do not see the group, nor what is left of it.
        location.delete(f"{group}/zarr.json")
        location.delete_tree(group)


def _copy(location: Location, group: str, place: str, created_at: str) -> None:
    """Copy a group to the place of the one before; it is there when its document is."""
    if _is_of(location, group, created_at):
        return
    _put_aside(location, group)
    new = f"{ASIDE}/{place}"
    copies = {key: f"{group}{key[len(new) :]}" for key in documents_first(location.keys(new))}
    # Whoever takes no chunk without its array has transactions: there the order is no matter.
    last = copies.pop(f"{new}/zarr.json")
    location.share_many(copies.items())
    location.share(f"{new}/zarr.json", last)


def _delete_unread(location: Location) -> None:
    """Delete what is aside, but for groups that somebody holds."""
    # The document may have been half-written by a process that was killed.
    location.remove_partial_files(ASIDE, "zarr.json.")
    names = set(location.children(ASIDE)) - {"zarr.json"}
    for name in names:
        lock = DirectoryLock()
        try:
            if location.path is None or not can_lock() or lock.take(location.path / ASIDE / name):
                # Without its document nobody finds it any more.
                location.delete(f"{ASIDE}/{name}/zarr.json")
                location.delete_tree(f"{ASIDE}/{name}")
        finally:
            lock.let_go()
    left = set(location.children(ASIDE))
    # On a disk an empty directory may be left.
    if left == {"zarr.json"} or (location.renames and not left):
        location.delete_tree(ASIDE)
