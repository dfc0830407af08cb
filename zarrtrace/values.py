"""May this value go into this variable? The one place that decides what `record()` takes."""

from __future__ import annotations

from typing import Any

import numpy as np

from .checks import dtype_name
from .errors import DrawError
from .journal import chain_label
from .schema import Variable


class Target:
    """Where the values of one variable go, and what may go there."""

    __slots__ = ("length", "name", "offset", "rows", "shape", "trusted", "variable")

    def __init__(
        self,
        name: str,
        variable: Variable,
        rows: np.ndarray[Any, Any],
        shape: tuple[int, ...],
        offset: int,
    ) -> None:
        self.name = name
        self.variable = variable
        self.rows = rows
        self.shape = shape
        self.offset = offset
        self.length = variable.draws_per_chunk
        # Types whose every value fits as it is, or overflows with an error of its own.
        self.trusted: frozenset[type] = frozenset()
        if shape == ():
            scalar = variable.declared.type
            plain = {
                "f": (float, int, np.float64),
                "c": (complex, float, int),
                "i": (int,),
                "u": (int,),
            }
            more = {"b": (bool,), "T": (str,)}
            kind = variable.declared.kind
            self.trusted = frozenset(
                {*plain.get(kind, ()), *more.get(kind, ()), *((scalar,) if kind != "T" else ())}
            )

    def next_boundary(self, count: int) -> int:
        """The next count at which a chunk of this variable is full."""
        return self.offset + ((count - self.offset) // self.length + 1) * self.length

    def check(self, value: Any, chains: range, draw: int) -> np.ndarray[Any, Any]:
        """The value of one draw as an array that fits."""
        array = self._as_array(value, chains, draw)
        if array.shape != self.shape:
            raise self.refuse(
                f"the value has shape {array.shape}, one draw has {self.shape}; "
                f"give an array of that shape",
                chains,
                draw,
            )
        return self._cast(array, chains, draw)

    def check_block(
        self, value: Any, draws: int | None, chains: range, draw: int
    ) -> tuple[np.ndarray[Any, Any], int]:
        """The values of a block as an array with the draws first, and their number."""
        array = self._as_array(value, chains, draw)
        lead = 1 if len(self.shape) == len(self.variable.shape) else 2
        wanted = (*self.shape[: lead - 1], "draws" if draws is None else draws)
        shape = array.shape[:lead]
        if (
            array.ndim != lead + len(self.variable.shape)
            or array.shape[lead:] != self.variable.shape
            or (lead == 2 and shape[0] != self.shape[0])
            or (draws is not None and shape[-1] != draws)
        ):
            expected = ", ".join(map(str, (*wanted, *self.variable.shape)))
            raise self.refuse(
                f"the block has shape {array.shape}, needed is ({expected})", chains, draw
            )
        array = self._cast(array, chains, draw)
        return (np.moveaxis(array, 1, 0) if lead == 2 else array), shape[-1]

    def refuse(self, why: str, chains: range, draw: int) -> DrawError:
        """The error for a value that cannot be recorded."""
        return DrawError(
            f"{self.variable.label}, {chain_label(chains)}, draw {draw}: {why}",
            group=self.variable.group,
            variable=self.variable.name,
            chain=chains[0],
            draw=draw,
        )

    def _as_array(self, value: Any, chains: range, draw: int) -> np.ndarray[Any, Any]:
        try:
            return np.asarray(value)
        except Exception as error:
            raise self.refuse(f"{value!r} is no array ({error})", chains, draw) from error

    def _cast(self, array: np.ndarray[Any, Any], chains: range, draw: int) -> np.ndarray[Any, Any]:
        """The array in the declared dtype, if that loses nothing but floating precision."""
        declared = self.variable.declared
        if array.dtype == declared:
            return array
        if self.variable.is_text:
            if array.dtype.kind in "UT" or all(isinstance(item, str) for item in array.flat):
                return array.astype(declared)
            safe = False
        else:
            safe = array.dtype.kind not in "OUST" and np.can_cast(
                array.dtype, declared, casting="same_kind"
            )
        # A Python int has no dtype of its own: 3 goes into uint8, -3 and 300 do not.
        if array.dtype.kind in "iu" and declared.kind in "iu":
            with np.errstate(all="ignore"):
                cast = array.astype(declared)
            if not np.array_equal(cast, array):
                raise self.refuse(
                    f"{_some(array)} does not fit {declared}; widen the dtype", chains, draw
                )
            return cast
        if not safe:
            raise self.refuse(
                f"a value of dtype {array.dtype} cannot become {dtype_name(declared)} without "
                f"loss; convert it first, or declare zarrtrace.Var(dtype=...) so",
                chains,
                draw,
            )
        return array.astype(declared)


def _some(array: np.ndarray[Any, Any]) -> str:
    return str(array) if array.size < 10 else f"an array with {array.min()} to {array.max()}"
