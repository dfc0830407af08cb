"""What a trace holds: variables, their names, dtypes, dimensions and coordinates, checked once.

Everything here is decided when a trace is created, before anything is written.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import SchemaError

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import DTypeLike

STRING = np.dtypes.StringDType()

# ArviZ 0.23's SUPPORTED_GROUPS, the order its users know.
GROUP_ORDER = (
    "posterior",
    "posterior_predictive",
    "predictions",
    "log_likelihood",
    "log_prior",
    "sample_stats",
    "prior",
    "prior_predictive",
    "sample_stats_prior",
    "observed_data",
    "constant_data",
    "predictions_constant_data",
    "unconstrained_posterior",
    "unconstrained_prior",
)
CONSTANT_GROUPS = ("observed_data", "constant_data", "predictions_constant_data")
SAMPLE_DIMS = ("chain", "draw")
_LONGEST_NAME = 200  # bytes: a name is a file name, and zarr adds a suffix of its own


@dataclass(frozen=True)
class Var:
    """One variable of a sampled group, for one draw of one chain.

    Parameters
    ----------
    shape : tuple of int, or int, optional
        Shape of one draw, without chain and draw. By default that of the coordinates of `dims`,
        and `()` without them.
    dtype : dtype, default float64
        Floats, complex64 and complex128, ints, bool, str, datetime64, timedelta64. A bool outside
        the sample_stats groups is kept as int8 (0 and 1), since ArviZ 1.x cannot summarise booleans.
    dims : str or sequence of str, optional
        Names of the dimensions of one draw; `{variable}_dim_0` and so on by default.
    draws_per_chunk : int, optional
        Draws in one chunk, at least 1; chosen by size by default.
    attrs : mapping, optional
        Attributes of the variable, such as units: strings, numbers, or lists of these.
    """

    shape: tuple[int, ...] | int | None = None
    dtype: DTypeLike = "float64"
    dims: str | Sequence[str] | None = None
    draws_per_chunk: int | None = None
    attrs: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def like(cls, example: Any, dims: str | Sequence[str] | None = None) -> Var:
        """A variable with the shape and dtype of an example value (number, list, array)."""
        value = np.asarray(example)
        return cls(shape=value.shape, dtype=_dtype_of_values(value), dims=dims)


@dataclass(frozen=True)
class Variable:
    """A variable as it is laid out: every size known, every name checked.

    Attributes
    ----------
    declared : numpy.dtype
        What `record()` takes.
    dtype : numpy.dtype
        What is stored; int8 for a bool outside the sample_stats groups.
    """

    group: str
    name: str
    declared: np.dtype[Any]
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    dims: tuple[str, ...]
    draws_per_chunk: int
    attrs: dict[str, Any]

    @property
    def label(self) -> str:
        """`group/name`, as messages say it."""
        return f"{self.group}/{self.name}"

    @property
    def is_text(self) -> bool:
        """Whether the values are variable-length strings."""
        return isinstance(self.dtype, np.dtypes.StringDType)

    @property
    def bytes_per_draw(self) -> int:
        """Of one chain, uncompressed."""
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True)
class DataArray:
    """An array without chain and draw as it will be stored: dimensions, values, attributes."""

    dims: tuple[str, ...]
    values: Any
    attrs: dict[str, Any] = field(default_factory=dict)


# dtypes ---------------------------------------------------------------------------------------


def as_dtype(dtype: DTypeLike, what: str) -> np.dtype[Any]:
    """The dtype a trace stores for a requested one; SchemaError with the remedy for the others."""
    if dtype is str or isinstance(dtype, np.dtypes.StringDType):
        return STRING
    try:
        found = np.dtype(dtype)
    except TypeError as error:
        raise SchemaError(f"{what}: {dtype!r} is no dtype ({error})") from None
    if found.kind in "UT":
        return STRING
    if found.kind in "mM":
        unit = np.datetime_data(found)[0]
        kind = "datetime64" if found.kind == "M" else "timedelta64"
        if unit == "generic":
            unit = "ns"
        elif unit not in ("s", "ms", "us", "ns"):
            # xarray reads no other units; the coarser ones fit into seconds.
            if unit in ("ps", "fs", "as"):
                raise SchemaError(
                    f"{what}: {found} is finer than xarray can read; use {kind}[ns]"
                )
            unit = "s"
        return np.dtype(f"{kind}[{unit}]")
    if found.kind == "O":
        raise SchemaError(
            f"{what}: dtype object cannot be stored without pickle; "
            f"use dtype=str for text, or one variable per field for records"
        )
    if found.kind in "fc" and found.itemsize not in (2, 4, 8, 16) or found.char in "gG":
        raise SchemaError(
            f"{what}: {found} is not the same on every machine and Zarr has no such dtype; "
            f"use {'float64' if found.kind == 'f' else 'complex128'}"
        )
    if found.kind not in "fciub":
        raise SchemaError(
            f"{what}: dtype {found} cannot be stored; "
            f"use numbers, bool, str, datetime64 or timedelta64, one variable per field"
        )
    return found.newbyteorder("=")


def stored_dtype(group: str, declared: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype on disk: as declared, but int8 for a bool that ArviZ would have to summarise."""
    if declared.kind == "b" and not group.startswith("sample_stats"):
        return np.dtype("int8")
    return declared


def dtype_name(dtype: np.dtype[Any]) -> str:
    """The name a dtype has in the layout, such as `float64`, `str` or `datetime64[ns]`."""
    return "str" if isinstance(dtype, np.dtypes.StringDType) else dtype.name


def _dtype_of_values(values: np.ndarray[Any, Any]) -> np.dtype[Any]:
    """The dtype for the values of an array; text in an object array is text."""
    if values.dtype.kind == "O" and all(isinstance(value, str) for value in values.flat):
        return STRING
    return values.dtype


# Names ----------------------------------------------------------------------------------------


def check_name(name: object, what: str) -> str:
    """A name that can be a Zarr node, a file and a netCDF variable; SchemaError otherwise."""
    if not isinstance(name, str) or not name:
        raise SchemaError(f"{what}: a name is a non-empty string, got {name!r}")
    if "/" in name or "\x00" in name:
        raise SchemaError(
            f"{what} {name!r}: '/' would make a group of it; use {name.replace('/', '.')!r}"
        )
    if name.startswith("__") or name.strip(".") == "":
        raise SchemaError(f"{what} {name!r}: Zarr keeps '__' and dots for itself; rename it")
    if len(name.encode()) > _LONGEST_NAME:
        raise SchemaError(f"{what} {name[:40]!r}...: longer than {_LONGEST_NAME} bytes; shorten it")
    return name


def check_group_name(name: object) -> str:
    """A group's name; `_...` and `warmup_...` are the library's own."""
    checked = check_name(name, "group")
    if checked.startswith("_"):
        raise SchemaError(f"group {checked!r}: a leading '_' is kept for zarrtrace; rename it")
    if checked.startswith("warmup_"):
        raise SchemaError(
            f"group {checked!r}: warmup groups are made by split_warmup(); "
            f"define {checked.removeprefix('warmup_')!r} and pass tune="
        )
    return checked


def check_attrs(attrs: Mapping[str, Any], what: str) -> dict[str, Any]:
    """Attributes that JSON and netCDF both hold: strings, numbers, lists of these."""
    checked: dict[str, Any] = {}
    for key, value in attrs.items():
        if isinstance(value, np.ndarray | np.generic):
            value = value.tolist()
        items = list(value) if isinstance(value, list | tuple) else [value]
        if isinstance(value, tuple):
            value = items
        if not isinstance(key, str) or not all(
            isinstance(item, str | int | float) and not isinstance(item, bool) for item in items
        ):
            raise SchemaError(
                f"{what}: attribute {key!r} is {value!r}; netCDF holds strings, numbers and lists "
                f"of these: use 'true' for a flag, json.dumps(...) for a dict, '' for None"
            )
        checked[key] = value
    return checked


# Dimensions and coordinates -------------------------------------------------------------------


class Dimensions:
    """The dimensions of a trace: one size each, and coordinates where the user gave them."""

    def __init__(self, coords: Mapping[Any, Any] | None = None) -> None:
        self.sizes: dict[str, int] = {}
        self.coords: dict[str, DataArray] = {}
        for dim, labels in (coords or {}).items():
            name = check_name(dim, "coordinate")
            if name in SAMPLE_DIMS:
                raise SchemaError(
                    f"coordinate {name!r}: chains and draws are numbered by zarrtrace; leave it out"
                )
            self.coords.update(_coordinate(name, labels))
            self.sizes[name] = int(np.shape(self.coords[name].values)[0])
        for name, array in self.coords.items():
            if name not in self.sizes and array.dims[0] == name:
                self.sizes[name] = int(np.shape(array.values)[0])

    def resolve(
        self,
        what: str,
        name: str,
        shape: tuple[int, ...] | None,
        dims: str | Sequence[str] | None,
    ) -> tuple[tuple[int, ...], tuple[str, ...]]:
        """The shape and the dimension names of a variable, checked against the others."""
        names = None if dims is None else (dims,) if isinstance(dims, str) else tuple(dims)
        if names is None:
            names = tuple(f"{name}_dim_{i}" for i in range(len(shape or ())))
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
                f"{what}: shape {shape} has {len(shape)} dimensions, dims {names} names {len(names)}"
            )
        for dim, size in zip(names, shape, strict=True):
            if size < 1:
                raise SchemaError(f"{what}: dimension {dim!r} has size {size}; leave {name!r} out")
            if self.sizes.setdefault(dim, size) != size:
                given = "coordinate labels" if dim in self.coords else "elements elsewhere"
                raise SchemaError(
                    f"{what}: dimension {dim!r} has {size} elements here but {self.sizes[dim]} "
                    f"{given}; mend the shape, or name the dimension differently"
                )
        return shape, names

    def coords_of(self, dims: Iterable[str]) -> dict[str, DataArray]:
        """The stored coordinates of some dimensions; the others are numbered from 0."""
        wanted = list(dict.fromkeys(dims))
        found = {
            name: array for name, array in self.coords.items() if array.dims[0] in wanted
        }
        for dim in wanted:
            if dim not in found:
                found[dim] = DataArray((dim,), np.arange(self.sizes[dim]))
        return found


def _coordinate(dim: str, labels: Any) -> dict[str, DataArray]:
    """The coordinate arrays of a dimension; a pandas MultiIndex gives one more for each level."""
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
    attrs = check_attrs(getattr(labels, "attrs", {}), f"coordinate {dim!r}")
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
    return {dim: DataArray((dim,), values, attrs)}


def _label_values(name: str, values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Labels with a dtype that can be stored; mixed ones and tuples as their text."""
    if values.dtype.kind == "O":
        plain = np.array(values.tolist()) if not _has_tuples(values) else values
        if plain.ndim == 1 and plain.dtype.kind in "fiubM" and not _has_text(values):
            values = plain
        elif all(hasattr(value, "isoformat") for value in values):
            values = np.array(values, dtype="datetime64[us]")
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


# Definitions given by the user ----------------------------------------------------------------


def define_group(
    group: str,
    definition: Mapping[Any, Any],
    dimensions: Dimensions,
    dims: Mapping[str, str | Sequence[str]],
    draws_per_chunk: int | None,
) -> list[Variable]:
    """The variables of a sampled group; `draws_per_chunk` is 0 where it is still to be chosen."""
    if not isinstance(definition, Mapping):
        raise SchemaError(
            f"group {group!r}: give a mapping of names to zarrtrace.Var or to example values, "
            f"got {type(definition).__name__}"
        )
    if not definition:
        raise SchemaError(f"group {group!r} has no variables; leave it out")
    variables = []
    for key, value in definition.items():
        name = check_name(key, f"variable in {group}")
        what = f"{group}/{name}"
        if name in SAMPLE_DIMS:
            raise SchemaError(f"{what}: {name!r} is the name of a dimension; rename the variable")
        var = value if isinstance(value, Var) else Var.like(value, dims.get(name))
        declared = as_dtype(var.dtype, what)
        shape = _shape(var.shape, what) if var.shape is not None else None
        named = var.dims if var.dims is not None else dims.get(name)
        if shape is None and named is None:
            shape = ()
        shape, names = dimensions.resolve(what, name, shape, named)
        length = var.draws_per_chunk if var.draws_per_chunk is not None else draws_per_chunk
        if length is not None and (not isinstance(length, int) or length < 1):
            raise SchemaError(f"{what}: draws_per_chunk is a whole number from 1, got {length!r}")
        variables.append(
            Variable(
                group=group,
                name=name,
                declared=declared,
                dtype=stored_dtype(group, declared),
                shape=shape,
                dims=names,
                draws_per_chunk=length or 0,
                attrs=check_attrs(var.attrs, what),
            )
        )
    return variables


def _shape(shape: Any, what: str) -> tuple[int, ...]:
    items = (shape,) if isinstance(shape, int | np.integer) else tuple(shape)
    if not all(isinstance(size, int | np.integer) and not isinstance(size, bool) for size in items):
        raise SchemaError(f"{what}: shape {shape!r} is not made of whole numbers")
    return tuple(int(size) for size in items)


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
    if hasattr(data, "to_dataset") and not hasattr(data, "data_vars"):
        data = data.to_dataset()
    arrays: dict[str, DataArray] = {}
    # A DataTree node and a Dataset both have data_vars and coords.
    if hasattr(data, "data_vars"):
        for name, coord in data.coords.items():
            if name not in SAMPLE_DIMS:
                _adopt_coordinate(group, name, coord, dimensions)
        data = dict(data.data_vars)
    for key, value in data.items():
        name = check_name(key, f"variable in {group}")
        what = f"{group}/{name}"
        named: Any = dims.get(name)
        attrs: dict[str, Any] = {}
        if hasattr(value, "dims") and hasattr(value, "coords"):
            for coord_name, coord in value.coords.items():
                if coord_name not in SAMPLE_DIMS:
                    _adopt_coordinate(group, coord_name, coord, dimensions)
            named, attrs, value = value.dims, check_attrs(value.attrs, what), value.data
        elif isinstance(value, tuple) and len(value) == 2 and _are_names(value[0]):
            named, value = value
        values = value if hasattr(value, "dtype") and hasattr(value, "shape") else np.asarray(value)
        values = values.astype(as_dtype(_dtype_of_values(values), what), copy=False)
        sampled = named is not None and not isinstance(named, str) and tuple(named[:2])
        lead = 2 if sampled == SAMPLE_DIMS else 0
        rest = None if named is None else (named if isinstance(named, str) else named[lead:])
        _, names = dimensions.resolve(what, name, tuple(values.shape[lead:]), rest)
        arrays[name] = DataArray(SAMPLE_DIMS[:lead] + names, values, attrs)
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
            f"group {group!r}: coordinate {name!r} has other labels than in the trace; "
            f"name the dimension differently"
        )
    return


def check_distinct(variables: Iterable[str], dimensions: Dimensions, group: str) -> None:
    """Refuse a variable with the name of a dimension or coordinate: xarray would hide it."""
    for name in variables:
        if name in dimensions.sizes or name in dimensions.coords:
            raise SchemaError(
                f"{group}/{name}: {name!r} is also the name of a dimension or coordinate; "
                f"rename one of the two"
            )


def ordered(groups: Iterable[str]) -> list[str]:
    """Groups in ArviZ's order; others after them, as they were defined."""
    groups = list(groups)
    known = [name for name in GROUP_ORDER if name in groups]
    return known + [name for name in groups if name not in known]
