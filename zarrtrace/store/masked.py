"""Values as arrays: masked values are missing, whatever is stored under the mask."""

from __future__ import annotations

from typing import Any

import numpy as np

from .dtypes import fill_value


class MaskedValuesError(ValueError):
    """Some values are masked, and their dtype has no missing value."""


def as_array(value: Any) -> np.ndarray[Any, Any]:
    """The values as an array, with NaN or NaT where they are masked.

    Raises
    ------
    MaskedValuesError
        Some are masked, and their dtype has neither NaN nor NaT.
    ValueError
        They are not an array.
    """
    if isinstance(value, list | tuple) and any(isinstance(v, np.ma.MaskedArray) for v in value):
        value = np.ma.array(value)
    if not isinstance(value, np.ma.MaskedArray):
        return np.asarray(value)
    if not np.ma.is_masked(value):
        return np.asarray(value.data)
    if value.dtype.kind not in "fcmM":
        raise MaskedValuesError(
            f"{value.size - value.count()} of {value.size} values of dtype {value.dtype} are "
            f"masked, and only floats, complex numbers and times can be missing; convert them to "
            f"float64, or fill them with .filled(...)"
        )
    return np.asarray(value.filled(fill_value(value.dtype)))
