"""The dtypes that can be stored, their names, and their fill values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import SchemaError

if TYPE_CHECKING:
    from numpy.typing import DTypeLike


STRING = np.dtypes.StringDType()
_NAMES = (
    "string", "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
    "float16", "float32", "float64", "complex64", "complex128",
)  # fmt: skip

# dtypes ---------------------------------------------------------------------------------------


def as_dtype(dtype: DTypeLike, what: str) -> np.dtype[Any]:
    """The dtype a trace stores for a requested one; SchemaError with the remedy for the others."""
    if dtype is str or isinstance(dtype, np.dtypes.StringDType):
        return STRING
    try:
        found = np.dtype(dtype)
    except TypeError as error:
        raise SchemaError(f"{what}: {dtype!r} is not a dtype ({error})") from None
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
            f"{what}: {found} differs between machines, and Zarr has no such dtype; "
            f"use {'float64' if found.kind == 'f' else 'complex128'}"
        )
    if found.kind not in "fciub":
        raise SchemaError(
            f"{what}: dtype {found} cannot be stored; "
            f"use numbers, bool, str, datetime64 or timedelta64, one variable per field"
        )
    return found.newbyteorder("=")


def dtype_name(dtype: np.dtype[Any]) -> str:
    """The name a dtype has in the layout, such as `float64`, `str` or `datetime64[ns]`."""
    return "str" if isinstance(dtype, np.dtypes.StringDType) else dtype.name


def dtype_of_values(values: Any) -> np.dtype[Any]:
    """The dtype for the values of an array; text in an object array is text."""
    if values.dtype.kind == "O" and all(isinstance(value, str) for value in values.flat):
        return STRING
    dtype: np.dtype[Any] = values.dtype
    return dtype


def as_labels(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Values of a coordinate as ArviZ's users know them: text as objects, as from netCDF.

    NumPy does not cast its own dtype of text to `str`.
    """
    return values.astype(object) if isinstance(values.dtype, np.dtypes.StringDType) else values


def fill_value(dtype: np.dtype[Any]) -> Any:
    """The value where nothing was recorded: NaN, NaT, 0, False or ""."""
    if isinstance(dtype, np.dtypes.StringDType):
        return ""
    if dtype.kind in "fc":
        return dtype.type(complex(np.nan, np.nan) if dtype.kind == "c" else np.nan)
    if dtype.kind in "mM":
        return np.array("NaT", dtype)[()]
    return dtype.type(0)


def dtype_of_document(document: Mapping[str, Any]) -> np.dtype[Any]:
    """The dtype of an array of ours, by its zarr.json."""
    data_type = document["data_type"]
    if data_type not in _NAMES and not isinstance(data_type, dict):
        raise ValueError(f"{data_type!r} is not the name of a dtype")
    if isinstance(data_type, dict):
        kind = {"numpy.datetime64": "M8", "numpy.timedelta64": "m8"}[data_type["name"]]
        return np.dtype(f"{kind}[{data_type['configuration']['unit']}]")
    dtype: np.dtype[Any] = STRING if data_type == "string" else np.dtype(data_type)
    return dtype
