"""The values of variables of a cut in memory: an outer key in, arrays out."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..layout.variables import Variable
from .cut import Cut
from .rows import Wanted, read_rows

Array = NDArray[Any]


def read_values(
    variables: Iterable[tuple[Cut, Variable]], draws: slice, flatten: bool
) -> list[Array]:
    """The draws of several variables, all of one hierarchy, in one read.

    Parameters
    ----------
    draws : slice
        Which draws of each cut.
    flatten : bool
        Whether chains and draws become one axis, chain after chain.
    """
    selections = [Selection(cut, variable, (slice(None), draws)) for cut, variable in variables]
    read_selections(selections)
    if not flatten:
        return [selection.values for selection in selections]
    return [s.values.reshape(-1, *s.variable.shape) for s in selections]


def read_selections(selections: list[Selection]) -> None:
    """Read the values of selections of one hierarchy: as much as possible at once."""
    if selections:
        hierarchy = selections[0].cut.moment.hierarchy
        read_rows(hierarchy, [w for selection in selections for w in selection.direct()])
        for selection in selections:
            for part in selection.parts:
                if not part.is_direct:
                    # One after the other: each takes memory for more than what is asked for.
                    buffer = selection.buffer(part)
                    read_rows(hierarchy, [selection.wanted(part, buffer)])
                    selection.copy(part, buffer)


class Part(NamedTuple):
    """What one block of chains gives to a selection.

    Attributes
    ----------
    rows : list of int
        The rows of the result.
    chains : list of int
        For each row the chain within the block.
    draws : range
        The draws to read that the chains of the block have, counted from the first one of the cut.
    is_direct : bool
        Whether they can be read right into the result.
    """

    block: int
    rows: list[int]
    chains: list[int]
    draws: range
    is_direct: bool


class Selection:
    """The values under an outer key of one variable of a cut.

    Parameters
    ----------
    key : tuple of int, slice or 1-d array
        One for each dimension, or for the first ones.

    Attributes
    ----------
    values : numpy.ndarray
        Shape (chains, draws, *shape) of what is selected; an int keeps its dimension.
    """

    def __init__(self, cut: Cut, variable: Variable, key: tuple[Any, ...]) -> None:
        keys = [*key, *[slice(None)] * (2 + len(variable.shape) - len(key))]
        self.cut = cut
        self.variable = variable
        self._inner = keys[2:]
        self._draws, self._picked = _draw_range(keys[1], cut.length)
        positions = np.arange(len(cut.chains))[keys[0]].ravel()
        self._numbers = np.arange(len(self._draws))[self._picked].ravel()
        inner = [np.arange(n)[k].size for n, k in zip(variable.shape, self._inner, strict=True)]
        shape = (positions.size, self._numbers.size, *inner)
        dtype = padded_dtype(variable.dtype) if cut.padded else variable.dtype
        self.values: Array = np.empty(shape, dtype)
        if cut.padded:
            self.values[...] = _missing(dtype)
        self.parts = self._parts(positions.tolist())

    def _parts(self, positions: list[int]) -> list[Part]:
        whole_draws = (
            isinstance(self._picked, slice)
            and self._picked == slice(None)
            and all(map(_is_whole, self._inner, self.variable.shape))
        )
        rows_of: dict[int, list[tuple[int, int]]] = {}
        for row, position in enumerate(positions):
            block, chain = divmod(self.cut.chains[position], self.cut.layout.chains_per_chunk)
            rows_of.setdefault(block, []).append((row, chain))
        parts = []
        for block, pairs in rows_of.items():
            rows, chains = map(list, zip(*pairs, strict=True))
            count = self.cut.counts[positions[rows[0]]]
            draws = self._draws
            recorded = draws[: len(range(draws.start, min(draws.stop, count), draws.step))]
            in_order = chains == list(range(len(self.cut.layout.chains_of(block))))
            in_place = rows == list(range(rows[0], rows[0] + len(rows)))
            is_direct = whole_draws and in_order and in_place
            parts.append(Part(block, rows, chains, recorded, is_direct))
        return parts

    def direct(self) -> list[Wanted]:
        """What can be read right into the values."""
        return [
            self.wanted(part, self.values[part.rows[0] : part.rows[-1] + 1, : len(part.draws)])
            for part in self.parts
            if part.is_direct
        ]

    def wanted(self, part: Part, into: Array) -> Wanted:
        """The draws of a part, as the chain counts them from its first draw of warmup on."""
        draws, first = part.draws, self.cut.start
        from_start = range(draws.start + first, draws.stop + first, draws.step)
        return Wanted(self.variable.group, self.variable.name, part.block, from_start, into)

    def buffer(self, part: Part) -> Array:
        """An array for all chains of the block, all draws and all values of the variable."""
        chains = len(self.cut.layout.chains_of(part.block))
        return np.empty((chains, len(part.draws), *self.variable.shape), self.variable.dtype)

    def copy(self, part: Part, buffer: Array) -> None:
        """Pick from a buffer what is selected."""
        picked = _pick(buffer, self._inner)
        is_recorded = self._numbers < len(part.draws)
        numbers = self._numbers[is_recorded]
        for row, chain in zip(part.rows, part.chains, strict=True):
            self.values[row, is_recorded] = picked[chain][numbers]


def _is_whole(key: Any, size: int) -> bool:
    return isinstance(key, slice) and key.indices(size) == (0, size, 1)


def _draw_range(key: Any, length: int) -> tuple[range, Any]:
    """The ascending draws to read for a key, and which of them the key asks for."""
    if isinstance(key, slice):
        asked = range(length)[key]
        if not len(asked):
            return range(0), slice(0)
        if asked.step < 0:
            return asked[::-1], slice(None, None, -1)
        return range(asked[0], asked[-1] + 1, asked.step), slice(None)
    wanted = np.arange(length)[key]
    if not wanted.size:
        return range(0), slice(0)
    first = int(wanted.min())
    return range(first, int(wanted.max()) + 1), wanted - first


def _pick(values: Array, keys: list[Any]) -> Array:
    """Index the dimensions after chain and draw one by one; an int keeps its dimension."""
    for axis, key in enumerate(keys, start=2):
        if isinstance(key, int | np.integer):
            key = slice(key, key + 1) if key != -1 else slice(-1, None)
        values = values[(*[slice(None)] * axis, key)]
    return values


def padded_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """A dtype with a missing value: numbers and booleans become float64."""
    return np.dtype("float64") if dtype.kind in "iub" else dtype


def _missing(dtype: np.dtype[Any]) -> Any:
    if dtype.kind in "mM":
        return np.array("NaT", dtype)
    return "" if isinstance(dtype, np.dtypes.StringDType) else np.nan
