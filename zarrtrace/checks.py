"""What can be stored: names, attributes and dtypes, each refused with its remedy."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import SchemaError

if TYPE_CHECKING:
    from numpy.typing import DTypeLike

STRING = np.dtypes.StringDType()
_LONGEST_NAME = 200  # bytes: a name is a file name, and zarr adds a suffix of its own

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
        unit = np.datetime_data(found)[0]  # type: ignore[arg-type]
        kind = "datetime64" if found.kind == "M" else "timedelta64"
        if unit == "generic":
            unit = "ns"
        elif unit not in ("s", "ms", "us", "ns"):
            # xarray reads no other units; the coarser ones fit into seconds.
            if unit in ("ps", "fs", "as"):
                raise SchemaError(f"{what}: {found} is finer than xarray can read; use {kind}[ns]")
            unit = "s"
        return np.dtype(f"{kind}[{unit}]")
    if found.kind == "O":
        raise SchemaError(
            f"{what}: dtype object cannot be stored without pickle; "
            f"use dtype=str for text, or one variable per field for records"
        )
    if (found.kind in "fc" and found.itemsize not in (2, 4, 8, 16)) or found.char in "gG":
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


def counted(count: int, what: str) -> str:
    """`1 row`, `2 rows`."""
    return f"{count} {what}{'s' * (count != 1)}"


def dtype_name(dtype: np.dtype[Any]) -> str:
    """The name a dtype has in the layout, such as `float64`, `str` or `datetime64[ns]`."""
    return "str" if isinstance(dtype, np.dtypes.StringDType) else dtype.name


def dtype_of_values(values: Any) -> np.dtype[Any]:
    """The dtype for the values of an array; text in an object array is text."""
    if values.dtype.kind == "O" and all(isinstance(value, str) for value in values.flat):
        return STRING
    dtype: np.dtype[Any] = values.dtype
    return dtype


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
    if name == "zarr.json":
        raise SchemaError(f"{what} {name!r}: Zarr keeps this name for its documents; rename it")
    if not _is_text(name):
        raise SchemaError(f"{what} {name!r}: half a surrogate pair is no text; rename it")
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
    """Attributes of an array: none that tells xarray to read other values than are stored."""
    checked = check_attrs(attrs, what)
    encoded = {"units", "calendar"} if dtype.kind in "mM" else set()
    for key, value in checked.items():
        if key in _DECODED or key in encoded or (key == "units" and " since " in str(value)):
            raise SchemaError(
                f"{what}: xarray would decode the values by the attribute {key!r}; name it "
                f"differently, and declare times as datetime64 or timedelta64"
            )
    return checked


# What xarray's CF decoding and encoding act upon.
_DECODED = {
    *("_FillValue", "missing_value", "scale_factor", "add_offset", "dtype", "_Unsigned"),
    *("_Encoding", "_ARRAY_DIMENSIONS", "coordinates", "bounds", "grid_mapping"),
}


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and not any("\ud800" <= letter <= "\udfff" for letter in value)


def _are_numbers(values: list[Any]) -> bool:
    return all(
        (isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**63)
        or (isinstance(value, float) and math.isfinite(value))
        for value in values
    )
