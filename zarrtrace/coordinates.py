"""Dimensions, their labels, and data that is given whole rather than drawn."""

from __future__ import annotations

from collections.abc import Container, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np

from .checks import STRING, as_dtype, check_name, check_variable_attrs, dtype_of_values
from .errors import SchemaError

if TYPE_CHECKING:
    import xarray as xr

    from .schema import Variable

SAMPLE_DIMS = ("chain", "draw")


@dataclass(frozen=True)
class DataArray:
    """An array that is given whole, as it will be stored: dimensions, values, attributes."""

    dims: tuple[str, ...]
    values: Any
    attrs: dict[str, Any] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, ...]:
        """One size for each dimension."""
        return tuple(self.values.shape)


class Numbers:
    """0, 1, 2 and so on: as many draws as there may be, and never in memory as a whole."""

    dtype = np.dtype("int64")
    ndim = 1

    def __init__(self, size: int) -> None:
        self.shape = (size,)

    def __getitem__(self, region: tuple[slice]) -> np.ndarray[Any, Any]:
        return np.arange(*region[0].indices(self.shape[0]))


class Dimensions:
    """The dimensions the user named: one size each in all groups, and coordinates where given."""

    def __init__(self, coords: Mapping[Any, Any] | None = None) -> None:
        self.sizes: dict[str, int] = {}
        self.coords: dict[str, DataArray] = {}
        if not isinstance(coords, Mapping | None):
            raise SchemaError(f"coords: give a mapping of dimensions to labels, got {coords!r}")
        for dim, labels in (coords or {}).items():
            name = check_name(dim, "coordinate")
            if name in SAMPLE_DIMS:
                raise SchemaError(
                    f"coordinate {name!r}: chains and draws are numbered by zarrtrace; leave it out"
                )
            self.coords.update(_coordinate(name, labels, coords or {}))
        for name, array in self.coords.items():
            dim, size = array.dims[0], int(np.shape(array.values)[0])
            if self.sizes.setdefault(dim, size) != size:
                raise SchemaError(
                    f"coordinate {name!r} has {size} labels along dimension {dim!r}, which has "
                    f"{self.sizes[dim]} elements"
                )

    def resolve(
        self,
        what: str,
        name: str,
        shape: tuple[int, ...] | None,
        dims: str | Sequence[str] | None,
    ) -> tuple[tuple[int, ...], tuple[str, ...]]:
        """The shape and the dimension names of a variable, checked against the others."""
        if dims is None:
            names = tuple(f"{name}_dim_{i}" for i in range(len(shape or ())))
        else:
            names = (dims,) if isinstance(dims, str) else tuple(dims)
        for dim in names:
            check_name(dim, f"{what}: dimension")
            if dim in SAMPLE_DIMS:
                raise SchemaError(
                    f"{what}: dimension {dim!r} is added by zarrtrace; give the shape of one draw"
                )
        if len(set(names)) != len(names):
            raise SchemaError(f"{what}: dimension names {names} repeat; xarray needs distinct ones")
        if shape is None:
            unknown = [dim for dim in names if dim not in self.sizes]
            if unknown:
                raise SchemaError(
                    f"{what}: the size of dimension {unknown[0]!r} is not known; "
                    f"give coords={{{unknown[0]!r}: ...}} or shape="
                )
            shape = tuple(self.sizes[dim] for dim in names)
        if len(shape) != len(names):
            raise SchemaError(
                f"{what}: shape {shape} has {len(shape)} dimensions, "
                f"dims {names} names {len(names)}"
            )
        for dim, size in zip(names, shape, strict=True):
            if size < 1:
                raise SchemaError(f"{what}: dimension {dim!r} has size {size}; leave {name!r} out")
            if dims is None and dim not in self.sizes:
                continue  # nobody named it: another group may have it with another size
            if self.sizes.setdefault(dim, size) != size:
                given = "coordinate labels" if dim in self.coords else "elements elsewhere"
                raise SchemaError(
                    f"{what}: dimension {dim!r} has {size} elements here but {self.sizes[dim]} "
                    f"{given}; mend the shape, or name the dimension differently"
                )
        return shape, names

    def coords_of(self, sizes: Mapping[str, int]) -> dict[str, DataArray]:
        """The coordinates of a group with these dimensions; those not given count from 0."""
        found = {name: array for name, array in self.coords.items() if array.dims[0] in sizes}
        for dim, size in sizes.items():
            if dim not in found:
                found[dim] = DataArray((dim,), np.arange(size))
        return found


def check_group(
    group: str, arrays: Mapping[str, Variable | DataArray], dimensions: Dimensions
) -> dict[str, int]:
    """The sizes of a group's dimensions, other than chain and draw, or why it cannot be.

    A variable with the name of a dimension or coordinate is refused: xarray would hide it.
    """
    sizes: dict[str, int] = {}
    for name, array in arrays.items():
        for dim, size in zip(array.dims, array.shape, strict=True):
            if dim not in SAMPLE_DIMS and sizes.setdefault(dim, size) != size:
                raise SchemaError(
                    f"{group}/{name}: dimension {dim!r} has {size} elements here but "
                    f"{sizes[dim]} elsewhere in the group; name the dimension differently"
                )
    for name in arrays:
        if name in SAMPLE_DIMS or any(
            name in names for names in (sizes, dimensions.sizes, dimensions.coords)
        ):
            raise SchemaError(
                f"{group}/{name}: {name!r} is also the name of a dimension or coordinate; "
                f"rename one of the two"
            )
    return sizes


def _coordinate(dim: str, labels: Any, coords: Container[Any] = ()) -> dict[str, DataArray]:
    """The coordinate arrays of a dimension; a pandas MultiIndex gives one more for each level.

    An array that names a dimension of `coords` other than its own labels that one too.
    """
    levels = getattr(labels, "levels", None)
    if levels is not None and hasattr(labels, "get_level_values"):
        names = [level or f"{dim}_level_{i}" for i, level in enumerate(labels.names)]
        arrays = {dim: DataArray((dim,), _label_values(dim, np.asarray(labels, dtype=object)))}
        for number, level in enumerate(names):
            check_name(level, f"coordinate {dim!r}: level")
            if level in arrays:
                raise SchemaError(f"coordinate {dim!r}: its level {level!r} has the same name")
            values = np.asarray(labels.get_level_values(number))
            arrays[level] = DataArray((dim,), _label_values(level, values))
        return arrays
    if isinstance(labels, str | bytes) or not hasattr(labels, "__iter__"):
        raise SchemaError(f"coordinate {dim!r}: labels are a sequence, got {labels!r}")
    dims = getattr(labels, "dims", (dim,))
    attrs = getattr(labels, "attrs", {})
    if not hasattr(labels, "dtype"):
        labels = list(labels)
        if any(isinstance(label, tuple | list) for label in labels):
            objects = np.empty(len(labels), dtype=object)
            objects[:] = labels
            labels = objects
        elif len({type(label) for label in labels}) > 1 and any(
            isinstance(label, str) for label in labels
        ):
            labels = np.array(labels, dtype=object)
    values = _label_values(dim, np.asarray(labels))
    if values.ndim != 1 or len(dims) != 1:
        raise SchemaError(
            f"coordinate {dim!r}: labels have shape {values.shape}; they are one per element"
        )
    if not len(values):
        raise SchemaError(f"coordinate {dim!r} has no labels; leave it out")
    attrs = check_variable_attrs(attrs, f"coordinate {dim!r}", values.dtype)
    along = str(dims[0]) if dims[0] in coords else dim
    return {dim: DataArray((along,), values, attrs)}


def _label_values(name: str, values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Labels with a dtype that can be stored; mixed ones and tuples as their text."""
    if values.dtype.kind == "O":
        plain = np.array(values.tolist()) if not _has_tuples(values) else values
        if plain.ndim == 1 and plain.dtype.kind in "fiubM" and not _has_text(values):
            values = plain
        elif all(isinstance(v, date) and getattr(v, "tzinfo", None) is None for v in values):
            values = np.array(values, dtype="datetime64[us]")
        elif all(isinstance(v, timedelta) for v in values):
            values = np.array(values, dtype="timedelta64[us]")
        else:
            values = np.array([_text(value) for value in values], dtype=STRING)
    return values.astype(as_dtype(values.dtype, f"coordinate {name!r}"))


def _has_tuples(values: np.ndarray[Any, Any]) -> bool:
    return any(isinstance(value, tuple | list) for value in values)


def _has_text(values: np.ndarray[Any, Any]) -> bool:
    return any(isinstance(value, str) for value in values)


def _text(value: Any) -> str:
    if isinstance(value, tuple | list):
        return ", ".join(_text(item) for item in value)
    return str(value)


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
        lazy = hasattr(value, "astype") and hasattr(value, "__array_function__")
        try:
            values: Any = value if lazy else np.asarray(value)
        except ValueError as error:
            raise SchemaError(f"{what}: the value is no array ({error})") from None
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
    values = np.asarray(coord.values)
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
            f"group {group!r}: coordinate {name!r} has other labels than elsewhere; "
            f"name the dimension differently"
        )


def labelled_dims(data: Any) -> set[str]:
    """The dimensions for which data that is given whole brings labels."""
    items = [data, *data.values()] if isinstance(data, Mapping) else [data]
    coords = [coords for item in items if isinstance(coords := getattr(item, "coords", 0), Mapping)]
    return {str(dim) for group in coords for coord in group.values() for dim in coord.dims}
