"""Add a group that is given whole to an existing trace."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import replace
from typing import TYPE_CHECKING

from ..errors import TraceExistsError
from ..layout.coordinates import Dimensions
from ..layout.given_data import define_data, labelled_dims
from ..layout.hierarchy import Hierarchy
from ..layout.layout import Layout, group_attrs
from ..layout.variables import check_group
from ..store.location import Location
from ..store.small_arrays import read_array
from ..store.zarr_json import read_document
from .create import Definition, compose_encodings, group_items, new_group_name, sample_coordinates

if TYPE_CHECKING:
    import xarray as xr


# A group that comes later ---------------------------------------------------------------------


def add_data_group(hierarchy: Hierarchy, name: str, data: Definition | xr.Dataset) -> None:
    """Write a group that is given whole, and enter it into the layout."""
    location, layout = hierarchy.location, hierarchy.layout
    group = new_group_name(name)
    if group in layout.group_names:
        raise TraceExistsError(f"{location} has a group {group!r} already; name it differently")
    # The group may be a data set of StoreGate; what a killed process left of a group never has it.
    if "consolidated_metadata" in (read_document(location, group) or {}):
        raise TraceExistsError(
            f"{location} holds {group!r}, which is not a group of the trace; name it differently"
        )
    dimensions = _known_dimensions(location, layout, labelled_dims(data))
    arrays = define_data(group, data, dimensions, {})
    coords = dimensions.coords_of(check_group(group, arrays, dimensions))
    samples = sample_coordinates(group, arrays, getattr(data, "coords", {}))
    encodings = compose_encodings([], {group: arrays}, dimensions, "auto") | layout.encodings
    attrs = group_attrs(layout, group) | ({"sample_dims": list(samples)} if samples else {})
    location.delete_tree(group)
    location.write_many(
        group_items(group, attrs, {**samples, **coords}, arrays, encodings, layout.separator)
    )
    data_groups = {**layout.data_groups, group: tuple(arrays)}
    hierarchy.change(replace(layout, data_groups=data_groups))


def _known_dimensions(location: Location, layout: Layout, others: Container[str]) -> Dimensions:
    """The dimensions with labels in the trace, shared by a later group that brings no others."""
    dimensions = Dimensions()
    for name, dim in layout.coords.items():
        for group in layout.group_names if dim not in others else ():
            if read_document(location, f"{group}/{name}") is not None:
                array = read_array(location, f"{group}/{name}")
                dimensions.coords[name] = array
                dimensions.sizes[dim] = len(array.values)
                break
    return dimensions
