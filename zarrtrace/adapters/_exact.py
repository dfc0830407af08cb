"""NumPy types that Zarr lacks, as their bytes: long doubles, fixed strings, structures."""

from __future__ import annotations

import ast
from typing import Any

import numpy as np

import zarrtrace as zt
from zarrtrace.errors import SchemaError

_PLAIN_FLOATS = {np.dtype(name) for name in ("f2", "f4", "f8", "c8", "c16")}


def is_plain(dtype: np.dtype[Any]) -> bool:
    """Whether a trace stores this dtype as it is."""
    if not dtype.isnative:
        return False
    if dtype.kind in "mM":
        return np.datetime_data(dtype) in {("s", 1), ("ms", 1), ("us", 1), ("ns", 1)}
    return dtype.kind in "biu" or dtype in _PLAIN_FLOATS


def stored_variable(
    name: str, dtype: np.dtype[Any], shape: tuple[int, ...], **options: Any
) -> zt.Var:
    """The variable for values of this dtype and shape.

    Parameters
    ----------
    name : str
        For messages.
    dtype : numpy.dtype
        Any dtype except object. One that a trace cannot store gets one more dimension, of bytes.
    shape : tuple of int
        The shape of the value of one draw.
    **options
        Arguments of `zarrtrace.Var`.

    Raises
    ------
    SchemaError
        The dtype holds Python objects.
    """
    if dtype.hasobject:
        raise SchemaError(
            f"{name}: Python objects cannot be stored without pickle; use a dtype, such as "
            f"blobs_dtype=[('name', float), ...]",
            variable=name,
        )
    if is_plain(dtype):
        return zt.Var(shape=shape, dtype=dtype, **options)
    return zt.Var(shape=(*shape, dtype.itemsize), dtype=np.uint8, **options)


def as_stored(name: str, values: Any, dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    """Values of a dtype in the form of `stored_variable`; plain ones as they are.

    Raises
    ------
    ValueError
        They would be read back changed, such as a longer string.
    """
    if is_plain(dtype):
        return np.asarray(values)
    array = np.asarray(values)
    exact = array.astype(dtype)
    if not np.can_cast(array.dtype, dtype) and not np.array_equal(exact, array):
        raise ValueError(
            f"{name}: {array.dtype} does not fit {dtype}, the type of the first step; use a type "
            f"that holds all of them, such as blobs_dtype=[({name!r}, 'U20')]"
        )
    return np.ascontiguousarray(exact)[..., None].view(np.uint8)


def from_stored(stored: np.ndarray[Any, Any], dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    """The stored values in their original dtype."""
    if is_plain(dtype):
        return stored
    values: np.ndarray[Any, Any] = np.ascontiguousarray(stored).view(dtype)[..., 0]
    return values


def write_dtype(dtype: np.dtype[Any]) -> str:
    """The text of a dtype, as in files of NumPy; structures and subarrays too."""
    plain = np.lib.format.drop_metadata(np.dtype([("value", dtype)]))
    return repr(np.lib.format.dtype_to_descr(plain))


def read_dtype(text: str) -> np.dtype[Any]:
    """The dtype of a text by `write_dtype`; reading it runs no code."""
    return np.lib.format.descr_to_dtype(ast.literal_eval(text))[0]
