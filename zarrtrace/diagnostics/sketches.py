"""Quantiles of numbers that are seen once, by KLL sketches (Karnin, Lang and Liberty, 2016).

A sketch keeps some of the numbers, each of which stands for several, so that the rank of a quantile
is wrong by a part of all numbers that depends on `k` alone, whatever the order of the numbers.
"""

from __future__ import annotations

import importlib
import math
from typing import Any

import numpy as np

from ..errors import InvalidInputError
from .statistics import Floats

_LEAST_K, _MOST_K = 8, 4096  # with 4,096 the sketch of 4 chains of 1,000 draws is exact


class Sketches:
    """A sketch for each of some scalars.

    Parameters
    ----------
    k : int
        How large each is: see `choose_k`.
    """

    def __init__(self, scalars: int, k: int) -> None:
        make = _datasketches().kll_doubles_sketch
        # A sketch that has given a quantile is twice as large: each is then replaced by None.
        self._sketches: list[Any] = [make(k) for _ in range(scalars)]

    def add(self, start: int, ascending: Floats) -> None:
        """Take in numbers of the scalars from `start` on, shape (scalars, numbers), without NaN.

        Any order is right; sketches sort what they are given, and what is sorted is faster.
        """
        for sketch, numbers in zip(self._sketches[start:], ascending, strict=False):
            sketch.update(numbers)

    def take_quantiles(self, probabilities: tuple[float, ...]) -> tuple[Floats, Floats]:
        """The quantiles of each scalar, and how wrong their ranks may be; the sketches are gone.

        Returns
        -------
        quantiles : numpy.ndarray
            Shape (probabilities, scalars): the smallest numbers that at least this part of all
            numbers does not exceed. NaN without any number.
        rank_errors : numpy.ndarray
            Shape (scalars,): what holds with a probability of 99 %; 0 where every number was kept.
        """
        quantiles = np.full((len(probabilities), len(self._sketches)), np.nan)
        rank_errors = np.zeros(len(self._sketches))
        for place, sketch in enumerate(self._sketches):
            self._sketches[place] = None
            if not sketch.is_empty():
                quantiles[:, place] = sketch.get_quantiles(probabilities, inclusive=True)
            if sketch.is_estimation_mode():
                rank_errors[place] = sketch.normalized_rank_error(False)
        return quantiles, rank_errors


def choose_k(scalars: int, numbers: int, memory: float) -> int:
    """The largest `k` with which the sketches fit into memory, each of `numbers` numbers.

    Raises
    ------
    InvalidInputError
        The smallest ones do not fit.
    """
    of_one = memory / scalars
    needed = _bytes_of_sketch(_LEAST_K, numbers)
    if of_one < needed:
        raise InvalidInputError(
            f"the sketches of {scalars:,} scalars take {needed * scalars / 1e6:.1f} MB at least, "
            f"and {memory / 1e6:.1f} MB of the memory are for them",
            remedy="give more memory, or choose scalars by var_names and coords",
        )
    k = _LEAST_K
    while k < _MOST_K and _bytes_of_sketch(k + 1, numbers) <= of_one:
        k += 1
    return k


def _bytes_of_sketch(k: int, numbers: int) -> float:
    """Levels that shrink by a third, one each time that the numbers double, and an object."""
    levels = max(1.0, math.log2(max(1, numbers) / k))
    return 400 + 24 * k + 64 * levels


def _datasketches() -> Any:
    try:
        return importlib.import_module("datasketches")
    except ImportError as error:
        raise InvalidInputError(
            "quantiles of draws that are seen once need `pip install 'zarrtrace[sketch]'`"
        ) from error
