"""Statistics that need each draw once: mean, standard deviation, split R-hat, and a few more.

Sums of squares are those of distances from a mean, and two of them become one as Chan, Golub and
LeVeque (1979) do it. The first draw is subtracted from all: values far from zero lose no digits,
and those of a constant are 0.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable

import numpy as np
import numpy.typing as npt

from .parts import Part
from .sketches import Sketches, choose_k
from .statistics import Floats

NAMES = (
    *("mean", "sd", "r_hat_split", "mcse_mean_batch"),
    *("kll_lower", "kll_median", "kll_upper", "kll_rank_error"),
)

_AT_ONCE = 100_000  # numbers that are summed together: they stay in the cache
_FEWEST_DRAWS = 4  # of a chain, as for other diagnostics
_OF_SKETCHES = 0.7  # of the memory


def compute_in_one_pass(
    parts: Iterable[Part],
    shape: tuple[int, int, int],
    *,
    chains_together: int = 1,
    memory: float = 1e9,
    prob: float = 0.89,
    skipna: bool = False,
    done: Callable[[float], None] | None = None,
) -> dict[str, Floats]:
    """The statistics `NAMES` of each scalar.

    Parameters
    ----------
    parts : iterable of Part
        All draws of all chains, those of a chain in order.
    shape : tuple of int
        How many chains, draws of each, and scalars.
    chains_together : int
        How many chains are begun before one of them is complete.
    memory : float
        The bytes that all sums and sketches may take.
    prob : float
        The probability between the outer two quantiles.
    skipna : bool, default False
        Whether mean, sd and quantiles leave NaN out.
    done : callable, optional
        Called after each part with the number of its draws as a part of all draws.

    Returns
    -------
    dict of str to numpy.ndarray
        Shape (scalars,). `r_hat_split` and `mcse_mean_batch` are NaN where a draw is NaN, and with
        fewer than 4 draws in a chain, `r_hat_split` also with one chain. `kll_rank_error` is the
        part of all draws by which the ranks of the three quantiles may be wrong, with 99 %
        confidence.

    Raises
    ------
    InvalidInputError
        The memory is too small, or datasketches is not installed.
    """
    chains, draws, scalars = shape
    of_sums = 8 * scalars * (12 + 4 * chains_together)
    k = choose_k(scalars, chains * draws, max(0.0, _OF_SKETCHES * memory - of_sums))
    sketches = Sketches(scalars, k)
    sums = _RunSums(shape, skipna)
    for part in parts:
        sums.begin(part)
        step = max(1, _AT_ONCE // len(part.values))
        for start in range(0, scalars, step):
            here = slice(start, min(scalars, start + step))
            numbers = np.array(part.values[:, here].T, np.float64, order="C")
            sketches.add(start, np.sort(numbers, axis=1))
            sums.add(part, here, numbers)
        if done:
            done(len(part.values) / (chains * draws))
    quantiles, rank_errors = sketches.take_quantiles(((1 - prob) / 2, 0.5, (1 + prob) / 2))
    if not skipna:
        quantiles[:, sums.has_nan] = np.nan
    ends = dict(zip(("kll_lower", "kll_median", "kll_upper"), quantiles, strict=True))
    return {**sums.statistics(), **ends, "kll_rank_error": rank_errors}


def _sums_without(
    is_left_out: npt.NDArray[np.bool_], values: Floats
) -> tuple[Floats, Floats, Floats]:
    """Count, sum, and squared distances from the mean, of some numbers of each scalar."""
    is_counted = ~is_left_out
    count = is_counted.sum(axis=1).astype(np.float64)
    total = values.sum(axis=1, where=is_counted)
    distances = np.where(is_counted, values - (total / np.maximum(count, 1))[:, None], 0)
    return count, total, np.einsum("sd,sd->s", distances, distances)


class _Sums:
    """Count, sum, and squared distances from the mean, of the numbers of each scalar."""

    def __init__(self, scalars: int) -> None:
        self.count, self.total, self.squares = np.zeros((3, scalars))

    def add(
        self, here: slice, count: Floats | float, total: Floats, squares: Floats | float
    ) -> None:
        """Take in the sums of more numbers of some scalars."""
        known = self.count[here]
        difference = total / np.maximum(count, 1) - self.total[here] / np.maximum(known, 1)
        weight = known * count / np.maximum(known + count, 1)
        self.squares[here] += squares + weight * difference**2
        self.total[here] += total
        self.count[here] += count

    def clear(self, here: slice) -> None:
        for one in (self.count, self.total, self.squares):
            one[here] = 0

    def mean(self, here: slice = slice(None)) -> Floats:
        result: Floats = self.total[here] / self.count[here]
        return result

    def variance(self, here: slice = slice(None)) -> Floats:
        count = self.count[here]
        result: Floats = self.squares[here] / np.where(count > 1, count - 1, np.nan)
        return result


class _RunSums:
    """The sums of all chains: of their draws, of the means of half chains and of batches.

    A batch has as many draws as there are batches in a chain; the draws that are left at its end
    are in none. The middle one of an odd number of draws is in no half, as in ArviZ.
    """

    def __init__(self, shape: tuple[int, int, int], skipna: bool) -> None:
        _, draws, scalars = shape
        self.has_nan: npt.NDArray[np.bool_] = np.zeros(scalars, bool)
        self._chains, self._draws, self._scalars = shape
        self._skipna = skipna
        self._half = draws // 2
        self._batch = max(1, math.isqrt(draws))
        self._batched = draws - draws % self._batch
        halves = {0, self._half, draws - self._half, draws}
        self._bounds = sorted(halves | set(range(0, self._batched + 1, self._batch)))
        self._origin: Floats | None = None
        self._all, self._halves, self._batches = (_Sums(scalars) for _ in range(3))
        self._within = np.zeros(scalars)  # the sum of the variances of half chains
        self._open: dict[int, tuple[_Sums, Floats]] = {}

    def begin(self, part: Part) -> None:
        """Prepare for a part, before its numbers are added."""
        if self._origin is None:
            first = part.values[0].astype(np.float64)
            self._origin = np.where(np.isfinite(first), first, 0.0)
        if part.first == 0:
            # The sums of the half chain and of the batch that are not complete.
            self._open[part.chain] = _Sums(self._scalars), np.zeros(self._scalars)

    def add(self, part: Part, here: slice, numbers: Floats) -> None:
        """Add some scalars of a part; `numbers`, of shape (scalars, draws), is overwritten."""
        assert self._origin is not None
        half, batch = self._open[part.chain]
        stop = part.first + numbers.shape[1]
        with np.errstate(all="ignore"):
            numbers -= self._origin[here, None]
            inside = (bound for bound in self._bounds if part.first < bound < stop)
            for first, last in itertools.pairwise([part.first, *inside, stop]):
                values = numbers[:, first - part.first : last - part.first]
                self._add_segment(half, batch, here, values, first, last)
        if stop == self._draws and here.stop == self._scalars:
            del self._open[part.chain]

    def _add_segment(
        self, half: _Sums, batch: Floats, here: slice, values: Floats, first: int, last: int
    ) -> None:
        """Add draws that are in one half of a chain, and in one batch."""
        count, total = last - first, values.sum(axis=1)
        distances = values - (total / count)[:, None]
        squares = np.einsum("sd,sd->s", distances, distances)
        is_nan = np.isnan(values) if np.isnan(total).any() else None
        if is_nan is not None:
            self.has_nan[here] |= is_nan.any(axis=1)
        if is_nan is not None and self._skipna:
            self._all.add(here, *_sums_without(is_nan, values))
        else:
            self._all.add(here, count, total, squares)
        if last <= self._half or first >= self._draws - self._half:
            half.add(here, count, total, squares)
            if last in (self._half, self._draws):
                self._halves.add(here, 1, half.mean(here), 0.0)
                self._within[here] += half.variance(here)
                half.clear(here)
        if last <= self._batched:
            batch[here] += total
            if last % self._batch == 0:
                self._batches.add(here, 1, batch[here] / self._batch, 0.0)
                batch[here] = 0

    def statistics(self) -> dict[str, Floats]:
        """What follows from the sums when all chains are complete."""
        assert self._origin is not None
        half = self._half
        with np.errstate(all="ignore"):
            mean, sd = self._origin + self._all.mean(), np.sqrt(self._all.variance())
            between = half * self._halves.variance()
            within = self._within / self._halves.count
            r_hat = np.sqrt((between / within + half - 1) / half)
            of_one_draw = self._batch * self._batches.variance()
            error = np.sqrt(of_one_draw / (self._chains * self._draws))
        undefined = self.has_nan | (self._draws < _FEWEST_DRAWS)
        error[undefined] = np.nan
        r_hat[undefined | (self._chains < 2)] = np.nan
        return {"mean": mean, "sd": sd, "r_hat_split": r_hat, "mcse_mean_batch": error}
