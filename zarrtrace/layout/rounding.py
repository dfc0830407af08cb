"""Draws rounded to multiples of powers of two, so that they end in zero bits and take less room."""

from __future__ import annotations

import base64
import math
import zlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..errors import SchemaError

Exponents = npt.NDArray[np.int16]

EXACT = 2**14  # in the place of an exponent: this element of a draw stays as it is
_EXACT_FROM = 2.0**52  # quanta: numbers from there on are whole multiples anyway
_MOST_EXPONENTS = 2**28  # bytes


class Compacted(NamedTuple):
    """How the draws of a variable of a finished trace were rounded.

    Attributes
    ----------
    error : float
        The quantum of an element is at most this part of its smallest Monte Carlo error.
    draws : int
        The draws of a chain, warmup included, when it was rounded.
    smallest, largest : float
        The quanta among its elements: powers of two.
    monte_carlo_errors : tuple of float
        Those of mean, 5 % quantile, median and 95 % quantile; of several elements the smallest.
    exponents : str
        The exponent of the quantum of each element, as `pack_exponents` returns them. Empty once
        the draws are rounded.
    """

    error: float
    draws: int
    smallest: float
    largest: float
    monte_carlo_errors: tuple[float, ...]
    exponents: str = ""


def pack_exponents(exponents: Exponents) -> str:
    """The exponents as text, for the layout."""
    return base64.b64encode(zlib.compress(exponents.astype("<i2").tobytes())).decode("ascii")


def unpack_exponents(text: str, shape: tuple[int, ...]) -> Exponents:
    """The exponents in a text; ValueError for another text."""
    decoder = zlib.decompressobj()
    try:
        data = decoder.decompress(base64.b64decode(text, validate=True), _MOST_EXPONENTS)
    except zlib.error as error:
        raise ValueError(f"these are not exponents ({error})") from None
    return np.frombuffer(data, "<i2").astype(np.int16).reshape(shape)


def parse_compacted(content: Mapping[str, Any]) -> Compacted:
    """What a layout says of a variable that was rounded."""
    return Compacted(
        error=float(content["error"]),
        draws=int(content["draws"]),
        smallest=float(content["smallest"]),
        largest=float(content["largest"]),
        monte_carlo_errors=tuple(map(float, content["monte_carlo_errors"])),
        exponents=str(content.get("exponents", "")),
    )


def round_to(values: npt.NDArray[Any], exponents: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the values as multiples of powers of two, in a new array.

    What is not 0 does not become 0, so that a positive number stays positive. NaN and infinities
    stay as they are.

    Parameters
    ----------
    values : numpy.ndarray
        Floats, or complex numbers, whose parts are rounded each.
    exponents : numpy.ndarray
        The exponent of the quantum, of any integer dtype, for the last dimensions of the values;
        complex numbers have one more dimension of length 2. `EXACT` keeps an element as it is.
    """
    if values.dtype.kind == "c":
        real = np.dtype(f"f{values.dtype.itemsize // 2}")
        parts = np.ascontiguousarray(values).view(real).reshape(*values.shape, 2)
        return round_to(parts, exponents).view(values.dtype)[..., 0]
    is_exact = exponents == EXACT
    shift = np.where(is_exact, 0, exponents).astype(np.int32)
    numbers = values.astype(np.float64)
    with np.errstate(all="ignore"):
        scaled = np.ldexp(numbers, -shift)
        whole = np.rint(scaled)
        np.copyto(whole, np.copysign(1.0, scaled), where=(whole == 0) & (numbers != 0))
        rounded = np.ldexp(whole, shift).astype(values.dtype)
    is_kept = ~(np.abs(scaled) < _EXACT_FROM) | is_exact | ~np.isfinite(rounded)
    return np.where(is_kept, values, rounded)


def round_bits(values: npt.NDArray[Any], bits: int) -> npt.NDArray[Any]:
    """Return floats, or complex numbers, with this number of significant bits, in a new array."""
    if values.dtype.kind == "c":
        real = np.dtype(f"f{values.dtype.itemsize // 2}")
        return round_bits(np.ascontiguousarray(values).view(real), bits).view(values.dtype)
    with np.errstate(all="ignore"):
        fraction, exponent = np.frexp(values.astype(np.float64))
        whole = np.rint(np.ldexp(fraction, bits))
        rounded = np.ldexp(whole, exponent - bits).astype(values.dtype)
    return np.where(np.isfinite(rounded), rounded, values)


def check_rounding(
    rounded_to: Any, significant_bits: Any, dtype: np.dtype[Any], what: str
) -> tuple[float, int]:
    """Check how a variable is rounded while it is recorded; 0 and 0 where it is not."""
    if rounded_to is None and significant_bits is None:
        return 0.0, 0
    if dtype.kind not in "fc":
        raise SchemaError(
            f"{what}: {dtype} is not rounded, only floating-point and complex numbers are",
            remedy="leave rounded_to and significant_bits out",
        )
    if rounded_to is not None and significant_bits is not None:
        raise SchemaError(f"{what}: give rounded_to or significant_bits", remedy="not both of them")
    if significant_bits is not None:
        is_number = isinstance(significant_bits, int | np.integer)
        if not is_number or isinstance(significant_bits, bool) or not 1 <= significant_bits <= 53:
            raise SchemaError(
                f"{what}: significant_bits is a whole number from 1 to 53, got {significant_bits!r}"
            )
        return 0.0, int(significant_bits)
    is_number = isinstance(rounded_to, int | float | np.number) and not isinstance(rounded_to, bool)
    if not is_number or not 0 < rounded_to < math.inf:
        raise SchemaError(f"{what}: rounded_to is a power of two above 0, got {rounded_to!r}")
    fraction, exponent = math.frexp(rounded_to)
    if fraction != 0.5:
        raise SchemaError(
            f"{what}: rounded_to={rounded_to!r} is not a power of two, whose multiples end in zero "
            f"bits",
            remedy=f"the next smaller one is 2**{exponent - 1}",
        )
    return float(rounded_to), 0


def rounding_label(rounded_to: float, significant_bits: int, compacted: Compacted | None) -> str:
    """`rounded to 2^-9`, as descriptions say it; "" for draws that are as they were recorded."""
    if compacted is not None:
        smallest, largest = (power_label(quantum) for quantum in compacted[2:4])
        return f"rounded to {smallest}" + ("" if smallest == largest else f" to {largest}")
    if rounded_to:
        return f"rounded to {power_label(rounded_to)}"
    return f"rounded to {significant_bits} bits" if significant_bits else ""


def power_label(quantum: float) -> str:
    """`2^-9`."""
    return f"2^{math.frexp(quantum)[1] - 1}"


def rounding_attrs(
    rounded_to: float, significant_bits: int, compacted: Compacted | None
) -> dict[str, Any]:
    """The attributes of a variable that say how its draws were rounded; none if they were not."""
    if compacted is not None:
        is_one = compacted.smallest == compacted.largest
        quanta = [compacted.smallest, compacted.largest]
        return {
            "rounded_to": compacted.smallest if is_one else quanta,
            "rounding_rule": (
                "by zarrtrace compact: each element is a multiple of a power of two, which is at "
                f"most {compacted.error:g} times the smallest Monte Carlo standard error of its "
                "mean, 5 %, 50 % and 95 % quantile"
                + ("; rounded_to has the smallest and the largest power" if not is_one else "")
                + f"; draws before {compacted.draws - 1} of each chain, warmup included, are "
                "rounded, and elements whose error is unknown or 0 are exact"
            ),
            "rounding_error": compacted.error,
            "monte_carlo_errors": list(compacted.monte_carlo_errors),
        }
    if rounded_to:
        rule = "while it was recorded: each draw is a multiple of rounded_to"
        return {"rounded_to": rounded_to, "rounding_rule": rule}
    if significant_bits:
        rule = f"while it was recorded: each draw has {significant_bits} significant bits"
        return {"significant_bits": significant_bits, "rounding_rule": rule}
    return {}
