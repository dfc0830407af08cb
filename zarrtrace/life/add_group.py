"""Groups that are given whole and come later: added to a trace, replaced, and removed."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from ..errors import GroupNotFoundError, InvalidInputError, TraceExistsError
from ..layout.coordinates import Dimensions
from ..layout.given_data import define_data, labelled_dims
from ..layout.hierarchy import Hierarchy
from ..layout.layout import Layout, group_attrs
from ..layout.names import check_group_name
from ..layout.variables import check_group
from ..store.location import Location
from ..store.small_arrays import read_array
from ..store.zarr_json import read_document
from .create import Definition, compose_encodings, group_items, new_group_name, sample_coordinates
from .given_groups import is_there, put_group, take_group_away

if TYPE_CHECKING:
    import xarray as xr


def add_data_group(
    hierarchy: Hierarchy, name: str, data: Definition | xr.Dataset, overwrite: bool = False
) -> None:
    """Write a group that is given whole, and enter it into the layout."""
    location, layout = hierarchy.location, hierarchy.layout
    group = new_group_name(name)
    if overwrite and group in layout.groups:
        raise _is_sampled(location, group, "replaced")
    is_given = is_there(location, layout, group)
    if group in layout.groups or (is_given and not overwrite):
        raise TraceExistsError(
            f"there is a group {group!r} already",
            where=str(location),
            remedy="name it differently"
            if group in layout.groups
            else "pass overwrite=True to replace it, or name it differently",
            group=group,
        )
    # The group may be a data set of StoreGate; what a killed process left of a group never has it.
    is_of_others = "consolidated_metadata" in (read_document(location, group) or {})
    if is_of_others and not is_given:
        raise TraceExistsError(
            f"{location} holds {group!r}, which is not a group of the trace; name it differently"
        )
    dimensions = _known_dimensions(location, layout, group, labelled_dims(data))
    arrays = define_data(group, data, dimensions, {})
    coords = dimensions.coords_of(check_group(group, arrays, dimensions))
    samples = sample_coordinates(group, arrays, getattr(data, "coords", {}))
    encodings = compose_encodings([], {group: arrays}, dimensions, "auto") | layout.encodings
    following = replace(
        layout,
        data_groups={**layout.data_groups, group: tuple(arrays)},
        added_at={**layout.added_at, group: datetime.now(UTC).isoformat()},
    )
    attrs = group_attrs(following, group) | ({"sample_dims": list(samples)} if samples else {})
    items = group_items(group, attrs, {**samples, **coords}, arrays, encodings, layout.separator)
    put_group(hierarchy, following, group, items)


def remove_data_group(hierarchy: Hierarchy, name: str) -> None:
    """Take a group that was given whole out of the layout, and remove it."""
    location, layout = hierarchy.location, hierarchy.layout
    if name.removeprefix("warmup_") in layout.groups:
        raise _is_sampled(location, name, "removed")
    if not is_there(location, layout, name):
        raise GroupNotFoundError(
            f"there is no group {name!r}",
            where=str(location),
            remedy=f"those given whole are {', '.join(layout.data_groups) or 'none'}",
            group=name,
        )
    take_group_away(hierarchy, check_group_name(name))


def _is_sampled(location: Location, group: str, what: str) -> InvalidInputError:
    return InvalidInputError(
        f"the group {group!r} is sampled, and holds draws that are never {what}",
        where=str(location),
        remedy="only groups that were given whole are; drop_before(draw) frees draws",
        group=group,
    )


def _known_dimensions(
    location: Location, layout: Layout, added: str, others: Container[str]
) -> Dimensions:
    """The dimensions with labels in the trace, shared by a later group that brings no others."""
    dimensions = Dimensions()
    for name, dim in layout.coords.items():
        for group in layout.group_names if dim not in others else ():
            if group != added and read_document(location, f"{group}/{name}") is not None:
                array = read_array(location, f"{group}/{name}")
                dimensions.coords[name] = array
                dimensions.sizes[dim] = len(array.values)
                break
    return dimensions
