"""What of a trace is watched: the elements of variables that have an R-hat, as columns."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..layout.layout import Layout
from ..layout.variables import Variable
from .moments import BlockMoments

IN_FLOAT32_ABOVE = 256 * 2**20  # bytes of moments
_LIST_BYTES = 32 * 2**20  # of one chunk of each variable of a list


@dataclass(frozen=True)
class Columns:
    """Variables of one dtype, shape and chunk length, whose scalars are columns of the moments.

    Attributes
    ----------
    elements : numpy.ndarray or None
        The elements of each variable that are watched, in the order of one draw; None for all.
    columns : slice
        The columns, variable after variable.
    """

    variables: list[Variable]
    elements: NDArray[np.int64] | None
    columns: slice

    @property
    def each(self) -> int:
        """How many elements of each variable are watched."""
        width: int = self.columns.stop - self.columns.start
        return width // len(self.variables)

    def scalar(self, column: int) -> tuple[Variable, int]:
        """The variable of a column, and the element of a draw of it."""
        number, position = divmod(column - self.columns.start, self.each)
        element = position if self.elements is None else int(self.elements[position])
        return self.variables[number], element

    def values_in(self, read: NDArray[Any]) -> NDArray[Any]:
        """What was read, (variables, chains, draws, *shape), as (chains, draws, variables, ...)."""
        if self.elements is not None:
            read = read.reshape(*read.shape[:3], -1)[..., self.elements]
        return np.moveaxis(read, 0, 2)


@dataclass(frozen=True)
class Plan:
    """What is watched of a posterior.

    Attributes
    ----------
    scalars, of_scalars : int
        How many scalars are watched, of how many that have an R-hat.
    dtype : type
        Of the moments.
    left_out : tuple of str
        The names of variables that have no R-hat: text, times and complex numbers.
    """

    columns: list[Columns]
    scalars: int
    of_scalars: int
    dtype: Any
    left_out: tuple[str, ...]

    def column_of(self, variable: Variable) -> int | None:
        """The column of the first element of a variable that is watched; None if it is not."""
        for columns in self.columns:
            if variable in columns.variables:
                first: int = columns.columns.start
                return first + columns.variables.index(variable) * columns.each
        return None

    def columns_of(self, column: int) -> Columns:
        """The columns among which a column is."""
        return next(one for one in self.columns if column < one.columns.stop)


def make_plan(layout: Layout, memory: int, statistics: list[Variable]) -> Plan:
    """Choose what is watched so that the moments take at most `memory` bytes.

    Where not all scalars have room, a random subset of the elements of the largest variables is
    watched, the same one at each call.

    Parameters
    ----------
    statistics : list of Variable
        What is watched beside the posterior, such as lp.
    """
    group = layout.groups.get("posterior")
    variables = list(group.variables.values()) if group is not None else []
    # Padding has no R-hat: of draws that vary in size only the lengths are watched.
    real = [v for v in variables if is_real(v) and not (group and group.lengths_of(v))]
    real += statistics
    sizes = [variable.elements for variable in real]
    whole = BlockMoments.bytes_for(layout.chains, sum(sizes), np.float64)
    dtype = np.float64 if whole <= IN_FLOAT32_ABOVE else np.float32
    limit = _largest_share(sizes, memory // BlockMoments.bytes_for(layout.chains, 1, dtype))
    columns, start = [], 0
    for alike in lists_alike(real, layout.chains_per_chunk):
        size = math.prod(alike[0].shape)
        stop = start + min(size, limit) * len(alike)
        if stop > start:
            elements = None if size <= limit else _subset(alike[0].shape, limit)
            columns.append(Columns(alike, elements, slice(start, stop)))
        start = stop
    left_out = tuple(variable.name for variable in variables if not is_real(variable))
    return Plan(columns, start, sum(sizes), dtype, left_out)


def is_real(variable: Variable) -> bool:
    """Whether its values are real numbers."""
    return variable.dtype.kind in "fiub"


def _largest_share(sizes: list[int], room: int) -> int:
    """The most elements of one variable that may be watched so that all have room."""
    share, left = 0, max(room, len(sizes))
    for number, size in enumerate(sorted(sizes)):
        share = left // (len(sizes) - number)
        if size > share:
            return share
        left -= size
    return max(sizes, default=0)


def _subset(shape: tuple[int, ...], count: int) -> NDArray[np.int64]:
    rng = np.random.default_rng(zlib.crc32(repr(shape).encode()))
    chosen: NDArray[np.int64] = rng.choice(math.prod(shape), count, replace=False)
    return np.sort(chosen)


def lists_alike(variables: Iterable[Variable], chains_per_chunk: int) -> list[list[Variable]]:
    """Variables of one group, dtype, shape and chunk length together, but not too many."""
    alike: dict[Any, list[list[Variable]]] = {}
    for variable in variables:
        key = (variable.group, variable.dtype, variable.shape, variable.draws_per_chunk)
        lists = alike.setdefault(key, [[]])
        size = variable.bytes_per_draw * variable.draws_per_chunk * chains_per_chunk
        if lists[-1] and len(lists[-1]) * size >= _LIST_BYTES:
            lists.append([])
        lists[-1].append(variable)
    return [one for lists in alike.values() for one in lists]
