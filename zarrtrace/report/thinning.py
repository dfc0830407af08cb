"""Draws thinned for drawing: the smallest and the largest of each pixel column, never a choice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_MOST_LINES = 16
_COLUMNS = 2400  # of all lines of a plot
_FEWEST_COLUMNS = 100
_LARGEST = float(np.finfo(np.float32).max)

Array = NDArray[Any]
Floats = NDArray[np.float64]


class Thinning:
    """How the draws of some chains are drawn: in lines of one chain, or of several.

    Parameters
    ----------
    draws : range
        The draws, counted from the start of a chain.
    chains : sequence of int
        The numbers of the chains.

    Attributes
    ----------
    groups : list of list of int
        Which rows of the draws are in each line.
    lines : list of list of int
        The chains of each line.
    x : numpy.ndarray
        Where the points of each line are: float32, shape (points,).
    """

    def __init__(self, draws: range, chains: Sequence[int]) -> None:
        rows = np.array_split(np.arange(len(chains)), max(1, min(len(chains), _MOST_LINES)))
        self.groups = [group.tolist() for group in rows]
        self.lines = [[chains[row] for row in group] for group in self.groups]
        columns = max(_FEWEST_COLUMNS, min(600, _COLUMNS // max(1, len(rows))))
        is_single = all(len(group) == 1 for group in self.groups)
        self._edges: NDArray[np.intp] | None = None
        if is_single and len(draws) <= 2 * columns:
            self.x = np.arange(draws.start, draws.stop, dtype=np.float32)
            return
        edges = np.linspace(0, len(draws), min(columns, len(draws)) + 1)
        self._edges = edges[:-1].astype(np.intp)
        quarters = np.diff(edges)[:, None] * [0.25, 0.75]
        places = draws.start + edges[:-1, None] + quarters - 0.5
        self.x = places.ravel().astype(np.float32)

    def lines_of(self, values: Floats) -> list[Array]:
        """The points of each line, from draws of one scalar, shape (chains, draws).

        Numbers that are not finite leave a gap.
        """
        with np.errstate(invalid="ignore"):
            finite = np.where(np.isfinite(values), values, np.nan)
        return [_short(self._points(finite[group])) for group in self.groups]

    def _points(self, values: Floats) -> Floats:
        if self._edges is None:
            only: Floats = values[0]
            return only
        least = np.fmin.reduceat(np.fmin.reduce(values, axis=0), self._edges)
        most = np.fmax.reduceat(np.fmax.reduce(values, axis=0), self._edges)
        points: Floats = np.stack([least, most], axis=1).ravel()
        return points

    def columns_with(self, is_true: NDArray[np.bool_]) -> Array:
        """Where in x a draw of any chain is true, from values of shape (chains, draws)."""
        anywhere = is_true.any(axis=0)
        if self._edges is None:
            return self.x[anywhere]
        return self.x[::2][np.logical_or.reduceat(anywhere, self._edges)]


def _short(points: Floats) -> Array:
    """The points as float32, or as float64 where float32 would not tell them apart."""
    if not np.isfinite(points).any():
        return points.astype(np.float32)
    low, high = np.nanmin(points), np.nanmax(points)
    largest = max(abs(low), abs(high))
    is_coarse = low < high and high / largest - low / largest < 1e-4  # no difference overflows
    return points if is_coarse or largest > _LARGEST else points.astype(np.float32)
