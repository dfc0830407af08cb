"""Dimensions, their labels, and data that is passed whole rather than drawn."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from datetime import date, timedelta
from typing import Any

import numpy as np

from ..errors import SchemaError
from ..store.dtypes import STRING, as_dtype
from ..store.small_arrays import DataArray
from .attributes import check_variable_attrs
from .names import check_name

SAMPLE_DIMS = ("chain", "draw")


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
                    f"coordinate {name!r}: zarrtrace numbers chains and draws; leave it out"
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
            raise SchemaError(f"{what}: dimension names {names} are not distinct, as xarray needs")
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
            if size < 0:
                raise SchemaError(f"{what}: dimension {dim!r} has size {size}, which is negative")
            if dims is None and dim not in self.sizes:
                continue  # the user did not name it: its size may differ in another group
            if self.sizes.setdefault(dim, size) != size:
                given = "coordinate labels" if dim in self.coords else "elements elsewhere"
                raise SchemaError(
                    f"{what}: dimension {dim!r} has {size} elements here but {self.sizes[dim]} "
                    f"{given}; fix the shape, or name the dimension differently"
                )
        return shape, names

    def coords_of(self, sizes: Mapping[str, int]) -> dict[str, DataArray]:
        """The coordinates of a group with these dimensions; those not given count from 0."""
        found = {name: array for name, array in self.coords.items() if array.dims[0] in sizes}
        for dim, size in sizes.items():
            if dim not in found:
                found[dim] = DataArray((dim,), np.arange(size))
        return found


def _coordinate(dim: str, labels: Any, coords: Container[Any] = ()) -> dict[str, DataArray]:
    """The coordinate arrays of a dimension; a pandas MultiIndex adds one for each level.

    An array whose dimension is another one of `coords` labels that one too.
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
        raise SchemaError(f"coordinate {dim!r}: expected a sequence of labels, got {labels!r}")
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
            f"coordinate {dim!r}: labels have shape {values.shape}; expected one label per element"
        )
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
