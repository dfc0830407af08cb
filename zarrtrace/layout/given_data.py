"""Groups that are passed whole: data, constants, predictions."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import SchemaError
from ..store.dtypes import as_dtype, dtype_of_values
from ..store.masked import MaskedValuesError, as_array
from ..store.small_arrays import DataArray
from .attributes import check_variable_attrs
from .coordinates import SAMPLE_DIMS, Dimensions, _coordinate, _label_values
from .names import check_name

if TYPE_CHECKING:
    import xarray as xr


def define_data(
    group: str,
    data: Mapping[Any, Any] | xr.Dataset,
    dimensions: Dimensions,
    dims: Mapping[str, str | Sequence[str]],
) -> dict[str, DataArray]:
    """The arrays of a group that is given whole: a Dataset, or names with values.

    A value is an array, a number, a list, an xarray DataArray, or a pair (dims, values). Its
    coordinates, if it brings any, join those of the trace.
    """
    arrays: dict[str, DataArray] = {}
    # A Dataset and a node of a DataTree both have data_vars, and their arrays bring the coords.
    items: Any = getattr(data, "data_vars", data)
    if not isinstance(items, Mapping):
        raise SchemaError(
            f"group {group!r}: give a mapping of names to values or a Dataset, "
            f"got {type(data).__name__}"
        )
    for key, value in items.items():
        name = check_name(key, f"variable in {group}")
        what = f"{group}/{name}"
        named: Any = dims.get(name)
        attrs: dict[str, Any] = {}
        if hasattr(value, "dims") and hasattr(value, "coords"):
            for coord_name, coord in value.coords.items():
                if coord_name not in SAMPLE_DIMS:
                    _adopt_coordinate(group, coord_name, coord, dimensions)
            named, attrs, value = value.dims, value.attrs, value.data
        elif isinstance(value, tuple) and len(value) == 2 and _are_names(value[0]):
            named, value = value
        # Arrays of dask stay lazy; everything else is in memory already.
        is_array = hasattr(value, "astype") and hasattr(value, "__array_function__")
        lazy = is_array and not isinstance(value, np.ndarray)
        try:
            values: Any = value if lazy else as_array(value)
        except MaskedValuesError as error:
            raise SchemaError(f"{what}: {error}") from None
        except ValueError as error:
            raise SchemaError(f"{what}: the value is not an array ({error})") from None
        values = values.astype(as_dtype(dtype_of_values(values), what), copy=False)
        attrs = check_variable_attrs(attrs, what, values.dtype)
        all_names = None if named is None else (named,) if isinstance(named, str) else tuple(named)
        sampled = [dim for dim in SAMPLE_DIMS if dim in (all_names or ())]
        if all_names is not None and len(all_names) == values.ndim:
            ordered = (*sampled, *(dim for dim in all_names if dim not in sampled))
            values = values.transpose([all_names.index(dim) for dim in ordered])
            all_names = ordered
        lead = len(sampled)
        rest = None if all_names is None else all_names[lead:]
        _, names = dimensions.resolve(what, name, tuple(values.shape[lead:]), rest)
        arrays[name] = DataArray((*sampled, *names), values, attrs)
    if not arrays:
        raise SchemaError(f"group {group!r} has no variables; leave it out")
    return arrays


def _are_names(value: Any) -> bool:
    names = (value,) if isinstance(value, str) else value
    return isinstance(names, tuple | list) and all(isinstance(name, str) for name in names)


def _adopt_coordinate(group: str, name: Hashable, coord: Any, dimensions: Dimensions) -> None:
    if len(coord.dims) != 1 or coord.dims[0] in SAMPLE_DIMS:
        return
    dim = coord.dims[0]
    values = as_array(coord.values)
    if name == dim:
        arrays = _coordinate(str(dim), coord.to_index())
    else:
        arrays = {str(name): DataArray((str(dim),), _label_values(str(name), values))}
    arrays = {key: array for key, array in arrays.items() if key not in SAMPLE_DIMS}
    known = dimensions.coords.get(str(name))
    if known is None:
        if dimensions.sizes.setdefault(str(dim), len(values)) != len(values):
            raise SchemaError(
                f"group {group!r}: dimension {dim!r} has {len(values)} labels here and "
                f"{dimensions.sizes[str(dim)]} elements in the trace; name it differently"
            )
        dimensions.coords.update(arrays)
    elif not np.array_equal(known.values, arrays[str(name)].values):
        raise SchemaError(
            f"group {group!r}: coordinate {name!r} has other labels here than elsewhere; "
            f"name the dimension differently"
        )


def labelled_dims(data: Any) -> set[str]:
    """The dimensions that are labelled by data that is passed whole."""
    items = [data, *data.values()] if isinstance(data, Mapping) else [data]
    coords = [coords for item in items if isinstance(coords := getattr(item, "coords", 0), Mapping)]
    return {str(dim) for group in coords for coord in group.values() for dim in coord.dims}
