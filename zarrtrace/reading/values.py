"""The values of variables of a cut in memory: select them by an outer key."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..layout.hierarchy import Hierarchy
from ..layout.variables import Variable
from .cut import Cut
from .rows import Wanted, read_rows

Array = NDArray[Any]


def read_values(
    variables: Iterable[tuple[Cut, Variable]], draws: slice, flatten: bool
) -> list[Array]:
    """Read the draws of several variables of one hierarchy at once.

    The results for similar variables are views of one array.

    Parameters
    ----------
    draws : slice
        The draws of each cut.
    flatten : bool
        Whether chains and draws become one axis, chain after chain.
    """
    drawn: dict[str, Drawn] = {}
    alike: dict[Any, dict[int, Variable]] = {}
    for number, (cut, variable) in enumerate(variables):
        if cut.name not in drawn:
            drawn[cut.name] = Drawn(cut, slice(None), draws)
        key = (cut.name, variable.dtype, variable.shape, variable.draws_per_chunk)
        alike.setdefault(key, {})[number] = variable
    selections = [
        Selection(drawn[key[0]], list(members.values()), (slice(None),) * len(key[2]))
        for key, members in alike.items()
    ]
    read_selections(selections)
    found: dict[int, Array] = {}
    for selection, members in zip(selections, alike.values(), strict=True):
        values, shape = selection.values, selection.variables[0].shape
        if flatten:
            values = values.reshape(len(values), -1, *shape)
        found |= zip(members, values, strict=True)
    return [found[number] for number in range(len(found))]


def read_selections(selections: list[Selection]) -> None:
    """Read the values of selections of one hierarchy: as much as possible at once."""
    if selections:
        hierarchy = selections[0].drawn.cut.moment.hierarchy
        read_rows(hierarchy, [w for selection in selections for w in selection.direct()])
        for selection in selections:
            selection.read_indirect(hierarchy)


class Part(NamedTuple):
    """The part of a selection in one block of chains.

    Attributes
    ----------
    rows : list of int
        The rows of the result.
    chains : list of int
        The chain within the block, for each row.
    draws : range
        The draws to read that the block has, counted from the start of its chains.
    in_place : bool
        Whether all chains of the block go into consecutive rows, in order.
    """

    block: int
    rows: list[int]
    chains: list[int]
    draws: range
    in_place: bool


class Drawn:
    """Which chains and draws of a cut are selected, whatever the variable.

    Attributes
    ----------
    draws : range
        The draws to read, counted from the first one of the cut.
    picked : numpy.ndarray
        The selected ones among them, in order.
    all_draws : bool
        Whether all of them are selected, in order.
    """

    def __init__(self, cut: Cut, chains: Any, draws: Any) -> None:
        self.cut = cut
        self.draws, picked = _draw_range(draws, cut.length)
        self.picked = np.arange(len(self.draws))[picked].ravel()
        self.all_draws = isinstance(picked, slice) and picked == slice(None)
        positions = np.arange(len(cut.chains))[chains].ravel().tolist()
        self.shape = (len(positions), len(self.picked))
        rows_of: dict[int, list[tuple[int, int]]] = {}
        for row, position in enumerate(positions):
            block, chain = divmod(cut.chains[position], cut.layout.chains_per_chunk)
            rows_of.setdefault(block, []).append((row, chain))
        self.parts = [
            self._part(block, pairs, cut.counts[positions[pairs[0][0]]])
            for block, pairs in rows_of.items()
        ]

    def series_of(self, block: int) -> bytes | None:
        """The series of the journal of a block at the moment of the cut; None if not known."""
        series = self.cut.moment.series
        return None if series is None else series[block]

    def _part(self, block: int, pairs: list[tuple[int, int]], count: int) -> Part:
        rows, chains = map(list, zip(*pairs, strict=True))
        there = self.draws[
            : len(range(self.draws.start, min(self.draws.stop, count), self.draws.step))
        ]
        first = self.cut.start
        draws = range(there.start + first, there.stop + first, there.step)
        in_order = chains == list(range(len(self.cut.layout.chains_of(block))))
        in_place = in_order and rows == list(range(rows[0], rows[0] + len(rows)))
        return Part(block, rows, chains, draws, in_place)


class Selection:
    """The values under an outer key, for similar variables of a cut.

    Parameters
    ----------
    variables : list of Variable
        Variables of the same dtype, shape and number of draws in a chunk.
    inner : tuple of int, slice or 1-d array
        The keys of the dimensions after chain and draw, or of the first ones.

    Attributes
    ----------
    values : numpy.ndarray
        Shape (variables, chains, draws, *shape) of the selection; an int keeps its dimension.
    """

    def __init__(self, drawn: Drawn, variables: list[Variable], inner: tuple[Any, ...]) -> None:
        sizes, dtype = variables[0].shape, variables[0].dtype
        self.drawn = drawn
        self.variables = variables
        self._inner = [*inner, *[slice(None)] * (len(sizes) - len(inner))]
        shape = [np.arange(n)[key].size for n, key in zip(sizes, self._inner, strict=True)]
        padded = drawn.cut.padded
        dtype = padded_dtype(dtype) if padded else dtype
        self.values: Array = np.empty((len(variables), *drawn.shape, *shape), dtype)
        if padded:
            self.values[...] = _missing(dtype)
        self._whole = drawn.all_draws and all(map(_is_whole, self._inner, sizes))

    def direct(self) -> list[Wanted]:
        """The parts that can be read directly into the values."""
        return [
            Wanted(
                self.variables,
                part.block,
                part.draws,
                self.values[:, part.rows[0] : part.rows[-1] + 1, : len(part.draws)],
                self.drawn.series_of(part.block),
            )
            for part in (self.drawn.parts if self._whole else ())
            if part.in_place
        ]

    def read_indirect(self, hierarchy: Hierarchy) -> None:
        """Read the blocks of chains from which values have to be picked.

        They are read one after the other: each needs more memory than its selection.
        """
        for part in self.drawn.parts:
            if not (self._whole and part.in_place):
                chains = len(self.drawn.cut.layout.chains_of(part.block))
                for variable, values in zip(self.variables, self.values, strict=True):
                    shape = (1, chains, len(part.draws), *variable.shape)
                    buffer: Array = np.empty(shape, variable.dtype)
                    series = self.drawn.series_of(part.block)
                    wanted = Wanted([variable], part.block, part.draws, buffer, series)
                    read_rows(hierarchy, [wanted])
                    self._copy(part, buffer[0], values)

    def _copy(self, part: Part, buffer: Array, values: Array) -> None:
        """Copy the selection from all chains and draws of a block."""
        picked = _pick(buffer, self._inner)
        is_recorded = self.drawn.picked < len(part.draws)
        numbers = self.drawn.picked[is_recorded]
        for row, chain in zip(part.rows, part.chains, strict=True):
            values[row, is_recorded] = picked[chain][numbers]


def _is_whole(key: Any, size: int) -> bool:
    return isinstance(key, slice) and key.indices(size) == (0, size, 1)


def _draw_range(key: Any, length: int) -> tuple[range, Any]:
    """The ascending draws to read for a key, and which of them the key selects."""
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
