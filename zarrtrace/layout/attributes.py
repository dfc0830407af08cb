"""Attributes that pass through JSON and netCDF."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..errors import SchemaError


def check_attrs(attrs: Mapping[str, Any], what: str) -> dict[str, Any]:
    """Attributes that JSON and netCDF both hold: strings, numbers, lists of these."""
    checked: dict[str, Any] = {}
    if not isinstance(attrs, Mapping):
        raise SchemaError(f"{what}: give a mapping of names to values, got {attrs!r}")
    for key, value in attrs.items():
        if isinstance(value, np.ndarray | np.generic):
            value = value.tolist()
        if isinstance(value, tuple):
            value = list(value)
        items = value if isinstance(value, list) else [value]
        if not _is_text(key) or not key or not (all(map(_is_text, items)) or _are_numbers(items)):
            raise SchemaError(
                f"{what}: attribute {key!r} is {value!r}; netCDF holds strings, numbers and lists "
                f"of these: use 'true' for a flag, json.dumps(...) for a dict, '' for None"
            )
        checked[key] = value
    return checked


def check_variable_attrs(
    attrs: Mapping[str, Any], what: str, dtype: np.dtype[Any]
) -> dict[str, Any]:
    """Attributes of an array; one by which xarray would change the stored values is refused."""
    checked = check_attrs(attrs, what)
    for key, value in checked.items():
        if changes_values({key: value}, dtype):
            raise SchemaError(
                f"{what}: xarray would decode the values by the attribute {key!r}; name it "
                f"differently, and declare times as datetime64 or timedelta64"
            )
    return checked


def changes_values(attrs: Mapping[str, Any], dtype: np.dtype[Any]) -> bool:
    """Whether xarray would change the stored values of an array with these attributes."""
    encoded = {"units", "calendar"} if dtype.kind in "mM" else set()
    return any(
        key in _DECODED or key in encoded or (key == "units" and " since " in str(value))
        for key, value in attrs.items()
    )


# What xarray's CF decoding and encoding act upon.
_DECODED = {
    *("_FillValue", "missing_value", "scale_factor", "add_offset", "dtype", "_Unsigned"),
    *("_Encoding", "_ARRAY_DIMENSIONS", "coordinates", "bounds", "grid_mapping"),
}


def _is_text(value: Any) -> bool:
    if not isinstance(value, str):
        return False
    return value.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in value)


def _are_numbers(values: list[Any]) -> bool:
    return all(
        (isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**63)
        or (isinstance(value, float) and math.isfinite(value))
        for value in values
    )
