"""Statistics of draws, for many scalars at once: R-hat, effective sample sizes, errors, intervals.

The definitions are those of Vehtari, Gelman, Simpson, Carpenter and Bürkner (2021),
"Rank-normalization, folding, and localization: an improved R-hat", and the corner cases those of
ArviZ: `compute` returns the numbers that its functions return, without a loop over scalars. What
statistics share is computed once: the order of the draws of a scalar serves its R-hat, its ESS, its
quantiles and its interval, and one real FFT serves all chains of all scalars of a block.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.metadata
import warnings
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from statistics import NormalDist
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Places = npt.NDArray[np.intp]

_AT_ONCE = 100_000  # numbers of a block, which is in memory some ten times
_NO_SPREAD = 1e-15  # what varies by less is constant, as in ArviZ
_FEWEST_DRAWS = 4  # of a chain
_CENTRAL = (0.1586553, 0.8413447)  # a standard error to both sides, as ArviZ rounds it


class Rules(NamedTuple):
    """In what the two lines of ArviZ differ.

    Attributes
    ----------
    tails : tuple of float
        The probabilities of the two quantiles whose effective sample sizes are that of the tails:
        5 % and 95 % in ArviZ 0.x and in the article, the ends of `rcParams["stats.ci_prob"]` in
        1.x, which are 11 % and 89 %.
    weighted_quantiles : bool
        Whether a quantile is the weighted mean of its neighbours, as in ArviZ 0.x, or what NumPy
        interpolates. They differ in the last bit, which decides among equal draws.
    folds_before_split : bool
        Whether the tail R-hat folds at the median of all draws, as the summary of ArviZ 0.x does.
        Otherwise the middle one of an odd number of draws does not count, as it is in no half.
    """

    tails: tuple[float, float]
    weighted_quantiles: bool
    folds_before_split: bool


ARVIZ_1 = Rules((1 - 0.89, 0.89), weighted_quantiles=False, folds_before_split=False)
ARVIZ_0 = Rules((0.05, 0.95), weighted_quantiles=True, folds_before_split=False)
ARVIZ_0_SUMMARY = ARVIZ_0._replace(folds_before_split=True)


@functools.cache
def arviz_is_1() -> bool:
    """Whether the installed ArviZ is 1.x, whose rules are used where there is no ArviZ too."""
    try:
        return not importlib.metadata.version("arviz").startswith("0.")
    except importlib.metadata.PackageNotFoundError:
        return True


@functools.cache
def has_min_ss() -> bool:
    """Whether the installed ArviZ knows the smallest sample size that is enough for a mean."""
    return arviz_is_1() and hasattr(_of_arviz(), "pareto_min_ss")


def _of_arviz() -> Any:
    """The functions of ArviZ 1.x that take arrays."""
    return importlib.import_module("arviz_stats.base").array_stats


def compute(
    draws: npt.NDArray[Any],
    names: Iterable[str],
    *,
    prob: float = 0.89,
    skipna: bool = False,
    rules: Rules | None = None,
    superchains: Sequence[int] = (),
    threads: int = 1,
    done: Callable[[int], None] | None = None,
) -> dict[str, Floats]:
    """Some statistics of each scalar.

    Parameters
    ----------
    draws : numpy.ndarray
        Real numbers, shape (chains, draws, *shape).
    names : iterable of str
        The statistics: `r_hat`, `r_hat_tail` (folded only), `r_hat_split` (of the draws as they
        are), `r_hat_nested`, `ess_bulk`, `ess_tail`, `ess_mean`, `ess_sd`, `ess_median`,
        `mcse_mean`, `mcse_sd`, `mcse_median`, `min_ss` (with ArviZ 1.x), `mean`, `sd`, `median`,
        `mad`, `eti_lower`, `eti_upper`, `hdi_lower`, `hdi_upper`; and `ess_q05`, `ess_q95`,
        `mcse_q05`, `mcse_q95` of two quantiles.
    prob : float, default 0.89
        The probability of the intervals.
    skipna : bool, default False
        Whether mean, sd, median, mad and the intervals leave NaN out.
    rules : Rules, optional
        By default those of the functions of the installed ArviZ.
    superchains : sequence of int
        For `r_hat_nested`, which is NaN without: the superchain of each chain, each as often as
        the others.
    threads : int, default 1
        How many blocks of scalars are computed at the same time.
    done : callable, optional
        Called after each block with the number of its scalars.

    Returns
    -------
    dict of str to numpy.ndarray
        float64 with shape `shape` for each name. R-hat, ESS and MCSE are NaN where a draw is NaN,
        and with fewer than 4 draws in a chain; R-hat also with one chain, and where nothing varies.
    """
    chains, count, *shape = draws.shape
    names = list(names)
    if rules is None:
        rules = ARVIZ_1 if arviz_is_1() else ARVIZ_0
    size = int(np.prod(shape))
    values = draws.reshape(chains, count, size)
    results = {name: np.empty(size) for name in names}
    step = max(1, _AT_ONCE // max(1, chains * count))

    def fill(start: int) -> None:
        part = slice(start, start + step)
        block = Block(
            values[:, :, part], prob=prob, skipna=skipna, rules=rules, superchains=superchains
        )
        for name in names:
            results[name][part] = getattr(block, name)
        if done:
            done(len(block.values))

    if threads > 1:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(fill, range(0, size, step)))
    else:
        for start in range(0, size, step):
            fill(start)
    return {name: result.reshape(shape) for name, result in results.items()}


def _diagnostic(fewest_chains: int) -> Callable[..., cached_property[Floats]]:
    """A statistic that is NaN for draws that are too few, and where one of them is NaN."""

    def decorate(method: Callable[[Block], Floats]) -> cached_property[Floats]:
        @functools.wraps(method)
        def checked(block: Block) -> Floats:
            size, chains, draws = block.values.shape
            if chains < fewest_chains or draws < _FEWEST_DRAWS:
                return np.full(size, np.nan)
            with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
                return np.where(block._has_nan, np.nan, method(block))

        return cached_property(checked)

    return decorate


def _description(method: Callable[[Block], Floats]) -> cached_property[Floats]:
    """A statistic that takes draws of any number and order, and leaves NaN out if it shall."""

    @functools.wraps(method)
    def checked(block: Block) -> Floats:
        if not block._rows.size:
            return np.full(len(block.values), np.nan)
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            result = method(block)
            for row in np.flatnonzero(block._has_nan) if block._skipna else ():
                numbers = block._rows[row]
                numbers = numbers[~np.isnan(numbers)].reshape(1, -1, 1)
                result[row] = getattr(block._of(numbers), method.__name__)[0]
        return result

    return cached_property(checked)


class Block:
    """The draws of some scalars; each of their statistics is computed when it is first asked for.

    Parameters
    ----------
    draws : numpy.ndarray
        Real numbers, shape (chains, draws, scalars), few enough to be in memory ten times.
    prob, skipna, rules, superchains
        As for `compute`.

    Attributes
    ----------
    values : numpy.ndarray
        float64, shape (scalars, chains, draws).
    """

    def __init__(
        self,
        draws: npt.NDArray[Any],
        *,
        prob: float = 0.89,
        skipna: bool = False,
        rules: Rules = ARVIZ_1,
        superchains: Sequence[int] = (),
    ) -> None:
        self.values: Floats = np.ascontiguousarray(draws.transpose(2, 0, 1), dtype=np.float64)
        self._prob, self._skipna, self._rules = prob, skipna, rules
        self._superchains = superchains

    def _of(self, draws: npt.NDArray[Any]) -> Block:
        return Block(draws, prob=self._prob, rules=self._rules)

    # What the statistics share ------------------------------------------------------------------

    @cached_property
    def _rows(self) -> Floats:
        """All draws of each scalar."""
        size, chains, draws = self.values.shape
        return self.values.reshape(size, chains * draws)

    @cached_property
    def _has_nan(self) -> npt.NDArray[np.bool_]:
        return np.asarray(np.isnan(self._rows).any(axis=1))

    @cached_property
    def _halves(self) -> Floats:
        return _split(self.values)

    @cached_property
    def _order(self) -> Places:
        """Where in all halves the smallest draw of each scalar is, the next one, ..."""
        return _argsort(self._halves.reshape(len(self.values), -1))

    @cached_property
    def _ordered_halves(self) -> Floats:
        return self._halves.ravel()[self._order]

    @cached_property
    def _ordered(self) -> Floats:
        if self.values.shape[2] % 2 == 0:
            return self._ordered_halves
        return np.sort(self._rows, axis=1)

    @cached_property
    def _scores(self) -> Floats:
        return _normal_scores(self._ordered_halves, self._order).reshape(self._halves.shape)

    @cached_property
    def _folded_scores(self) -> Floats:
        ordered = self._ordered if self._rules.folds_before_split else self._ordered_halves
        return self._fold(ordered)

    def _fold(self, ordered: Floats) -> Floats:
        """Scores of the distances from the median of ordered draws; NaN where none is left."""
        distances = np.abs(self._ordered_halves - _median(ordered)[:, None])
        # They fall and then rise: two runs, which a stable sort merges.
        order = _argsort(distances, kind="stable")
        distances = distances.ravel()[order]
        scores = _normal_scores(distances, self._order.ravel()[order])
        scores[np.isnan(distances[:, -1])] = np.nan
        return scores.reshape(self._halves.shape)

    @cached_property
    def _squares(self) -> Floats:
        """Squared distances of the draws from their mean."""
        squares: Floats = (self.values - self.mean[:, None, None]) ** 2
        return squares

    def _quantile(self, probability: float) -> Floats:
        """The quantile that divides the draws for an effective sample size."""
        if not self._rules.weighted_quantiles:
            return _interpolate(self._ordered, probability)
        count = self._ordered.shape[1]
        position = count * probability + (1 - probability)
        lower = int(min(max(position, 1), count - 1))
        weight = min(max(position - lower, 0), 1)
        below, above = self._ordered[:, lower - 1], self._ordered[:, lower]
        result: Floats = (1 - weight) * below + weight * above
        return result

    def _ess_quantile(self, probability: float) -> Floats:
        is_below = self.values <= self._quantile(probability)[:, None, None]
        return _effective_size(_split(is_below).astype(np.float64))

    # Do the chains agree, and how much do their draws tell? -------------------------------------

    @_diagnostic(fewest_chains=2)
    def r_hat(self) -> Floats:
        """Rank-normalised split R-hat: the larger one of bulk and tail."""
        bulk, tail = _rhat(self._scores), self.r_hat_tail
        # NaN of the tail does not count in ArviZ, NaN of the bulk does.
        return np.where(tail > bulk, tail, bulk)

    @_diagnostic(fewest_chains=2)
    def r_hat_tail(self) -> Floats:
        """Rank-normalised split R-hat of the distances from the median."""
        return _rhat(self._folded_scores)

    @_diagnostic(fewest_chains=2)
    def r_hat_split(self) -> Floats:
        """Split R-hat of the draws themselves."""
        return _rhat(self._halves)

    @_diagnostic(fewest_chains=2)
    def r_hat_nested(self) -> Floats:
        """Rank-normalised split nested R-hat: the larger one of bulk and tail.

        It is for many short chains, those of a superchain with the same start (Margossian et al.,
        2024, "Nested R-hat", arXiv:2110.13017).
        """
        if not self._superchains:
            return np.full(len(self.values), np.nan)
        # A chain is in both halves, and ArviZ always folds at the median of the halves.
        of_halves = [*self._superchains, *self._superchains]
        is_folded = not self._rules.folds_before_split
        folded = self._folded_scores if is_folded else self._fold(self._ordered_halves)
        bulk, tail = _nested_rhat(self._scores, of_halves), _nested_rhat(folded, of_halves)
        return np.where(tail > bulk, tail, bulk)

    @_diagnostic(fewest_chains=1)
    def ess_bulk(self) -> Floats:
        """Effective sample size of the normal scores."""
        return _effective_size(self._scores)

    @_diagnostic(fewest_chains=1)
    def ess_tail(self) -> Floats:
        """Effective sample size of a quantile in each tail: the smaller one."""
        low, high = map(self._ess_quantile, self._rules.tails)
        return np.where(high < low, high, low)

    @_diagnostic(fewest_chains=1)
    def ess_mean(self) -> Floats:
        """Effective sample size of the mean."""
        return _effective_size(self._halves)

    @_diagnostic(fewest_chains=1)
    def ess_sd(self) -> Floats:
        """Effective sample size of the variance."""
        return _effective_size(_split(self._squares))

    @_diagnostic(fewest_chains=1)
    def ess_median(self) -> Floats:
        """Effective sample size of the median."""
        return self._ess_quantile(0.5)

    @_diagnostic(fewest_chains=1)
    def ess_q05(self) -> Floats:
        """Effective sample size of the 5 % quantile."""
        return self._ess_quantile(0.05)

    @_diagnostic(fewest_chains=1)
    def ess_q95(self) -> Floats:
        """Effective sample size of the 95 % quantile."""
        return self._ess_quantile(0.95)

    @_diagnostic(fewest_chains=1)
    def mcse_mean(self) -> Floats:
        """Standard error of the mean."""
        return self.sd / np.sqrt(self.ess_mean)

    @_diagnostic(fewest_chains=1)
    def mcse_sd(self) -> Floats:
        """Standard error of the standard deviation."""
        squares = self._squares.reshape(self._rows.shape)
        variance = squares.mean(axis=1)
        # Rounding makes the difference negative where draws have two values with equal squares.
        of_variance = np.maximum((squares**2).mean(axis=1) - variance**2, 0) / self.ess_sd
        result: Floats = np.sqrt(of_variance / variance / 4)
        return result

    @_diagnostic(fewest_chains=1)
    def mcse_median(self) -> Floats:
        """Standard error of the median."""
        return self._mcse_quantile(0.5, self.ess_median)

    @_diagnostic(fewest_chains=1)
    def mcse_q05(self) -> Floats:
        """Standard error of the 5 % quantile."""
        return self._mcse_quantile(0.05, self.ess_q05)

    @_diagnostic(fewest_chains=1)
    def mcse_q95(self) -> Floats:
        """Standard error of the 95 % quantile."""
        return self._mcse_quantile(0.95, self.ess_q95)

    def _mcse_quantile(self, probability: float, ess: Floats) -> Floats:
        """Half the width of an interval of order statistics."""
        from scipy.special import betaincinv  # type: ignore[import-untyped, unused-ignore]

        count = self._ordered.shape[1]
        below, above = ess * probability + 1, ess * (1 - probability) + 1
        low, high = (betaincinv(below, above, place) * count - 1 for place in _CENTRAL)
        first = np.floor(np.fmax(low, 0)).astype(np.intp)[:, None]
        last = np.ceil(np.fmin(high, count - 1)).astype(np.intp)[:, None]
        return (_at(self._ordered, last) - _at(self._ordered, first)) / 2

    @_diagnostic(fewest_chains=1)
    def min_ss(self) -> Floats:
        """Draws with which a mean is reliable, by the tails of the draws: ArviZ 1.x has it."""
        result, of_one = np.full(len(self.values), np.nan), _of_arviz().pareto_min_ss
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for row, draws in enumerate(self.values):
                # ArviZ raises ValueError where all draws of a tail are equal.
                with contextlib.suppress(ValueError):
                    result[row] = of_one(draws, chain_axis=0, draw_axis=1)
        return result

    # What are they like? ------------------------------------------------------------------------

    @_description
    def mean(self) -> Floats:
        """Mean."""
        result: Floats = self._rows.mean(axis=1)
        return result

    @_description
    def sd(self) -> Floats:
        """Standard deviation, with n − 1."""
        if self._rows.shape[1] < 2:
            return np.full(len(self._rows), np.nan)
        result: Floats = self._rows.std(axis=1, ddof=1)
        return result

    @_description
    def median(self) -> Floats:
        """Median."""
        return _median(self._ordered)

    @_description
    def mad(self) -> Floats:
        """Median of the distances from the median."""
        distances = np.abs(self._ordered - _median(self._ordered)[:, None])
        return _median(np.sort(distances, axis=1))

    @_description
    def eti_lower(self) -> Floats:
        """Lower end of the interval with equal tails."""
        return _interpolate(self._ordered, (1 - self._prob) / 2)

    @_description
    def eti_upper(self) -> Floats:
        """Upper end of the interval with equal tails."""
        return _interpolate(self._ordered, 1 - (1 - self._prob) / 2)

    @_description
    def hdi_lower(self) -> Floats:
        """Lower end of the shortest interval."""
        return _at(self._ordered, self._shortest)

    @_description
    def hdi_upper(self) -> Floats:
        """Upper end of the shortest interval."""
        return _at(self._ordered, self._shortest + self._inside)

    @property
    def _inside(self) -> int:
        count: int = self._ordered.shape[1]
        return min(int(np.floor(self._prob * count)), count - 1)

    @cached_property
    def _shortest(self) -> Places:
        """Where the shortest interval begins among the ordered draws; the first one of equals."""
        count = self._ordered.shape[1]
        widths = self._ordered[:, self._inside :] - self._ordered[:, : count - self._inside]
        shortest: Places = widths.argmin(axis=1)[:, None]
        return shortest


def _split(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Both halves of each chain, the first ones before the second ones; no middle draw."""
    half = values.shape[2] // 2
    return np.concatenate([values[:, :, :half], values[:, :, values.shape[2] - half :]], axis=1)


def _at(ordered: Floats, places: Places) -> Floats:
    return np.take_along_axis(ordered, places, axis=1)[:, 0]


def _median(ordered: Floats) -> Floats:
    """The middle of each ordered row; NaN where the row has NaN, which is at its end."""
    count = ordered.shape[1]
    middle = ordered[:, (count - 1) // 2 : count // 2 + 1].mean(axis=1)
    return np.where(np.isnan(ordered[:, -1]), np.nan, middle)


def _interpolate(ordered: Floats, probability: float) -> Floats:
    """A quantile of each ordered row as NumPy interpolates it; NaN where the row has NaN."""
    place = (ordered.shape[1] - 1) * probability
    lower = int(place)
    upper, weight = min(lower + 1, ordered.shape[1] - 1), place - lower
    below, above = ordered[:, lower], ordered[:, upper]
    step = above - below
    result = below + step * weight if weight < 0.5 else above - step * (1 - weight)
    return np.where(np.isnan(ordered[:, -1]), np.nan, result)


def _rhat(chains: Floats) -> Floats:
    """R-hat of each scalar, from values (scalars, chains, draws)."""
    draws = chains.shape[2]
    between = draws * chains.mean(axis=2).var(axis=1, ddof=1)
    within = chains.var(axis=2, ddof=1).mean(axis=1)
    result: Floats = np.sqrt((between / within + draws - 1) / draws)
    return result


def _nested_rhat(chains: Floats, superchains: Sequence[int]) -> Floats:
    """Nested R-hat of each scalar, from values (scalars, chains, draws)."""
    means, variances = chains.mean(axis=2), chains.var(axis=2, ddof=1)
    _, number, sizes = np.unique(superchains, return_inverse=True, return_counts=True)
    # (scalars, superchains, chains of each); there are as many in each.
    order = np.argsort(number, kind="stable").reshape(len(sizes), -1)
    between = means[:, order].var(axis=2, ddof=1)
    within = (variances[:, order].mean(axis=2) + between).mean(axis=1)
    of_superchains = means[:, order].mean(axis=2).var(axis=1, ddof=1)
    result: Floats = np.sqrt(1 + of_superchains / within)
    return result


def _effective_size(chains: Floats) -> Floats:
    """Effective sample size of each scalar, from values (scalars, chains, draws).

    Autocorrelations are summed in pairs of lags as long as a pair is positive, and no pair counts
    more than the one before it (Geyer's initial positive and monotone sequences).
    """
    scalars, n_chains, draws = chains.shape
    size = n_chains * draws
    means = chains.mean(axis=2)
    padded = _fast_length(2 * draws)
    spectrum = np.fft.rfft(chains - means[:, :, None], n=padded, axis=2)
    # Chains are averaged before they are transformed back: one transform for all of them.
    power = (spectrum.real**2 + spectrum.imag**2).mean(axis=1)
    covariance = np.fft.irfft(power, n=padded, axis=1)[:, :draws] / draws
    within = covariance[:, 0] * draws / (draws - 1)
    total = covariance[:, 0] + means.var(axis=1, ddof=1)
    correlation = 1 - (within[:, None] - covariance) / total[:, None]
    correlation[:, 0] = 1

    last = max(0, (draws - 3) // 2)  # the last pair of lags that is looked at
    pairs = correlation[:, 0 : 2 * last + 1 : 2] + correlation[:, 1 : 2 * last + 2 : 2]
    is_positive = pairs > 0
    stop = np.where(is_positive.all(axis=1), last, is_positive.argmin(axis=1))
    counts = np.arange(last + 1) < stop[:, None]
    decreasing = np.minimum.accumulate(pairs, axis=1)
    rows = np.arange(scalars)
    even: Floats = correlation[rows, 2 * stop]
    rest = np.where((even > 0) | (pairs[rows, stop] >= 0), even, 0)
    time = -1 + 2 * np.where(counts, decreasing, 0).sum(axis=1) + rest
    effective: Floats = size / np.maximum(time, 1 / np.log10(size))
    effective[np.isnan(correlation[:, 1])] = np.nan
    rows_of_all = chains.reshape(scalars, size)
    spread = rows_of_all.max(axis=1) - rows_of_all.min(axis=1)
    effective[spread < _NO_SPREAD] = size
    return effective


@functools.lru_cache(maxsize=64)
def _fast_length(least: int) -> int:
    """The smallest length from `least` on that has no prime factor above 5."""
    for length in range(least, 2 * least + 1):
        rest = length
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return length
    return least


def _argsort(rows: Floats, kind: Literal["quicksort", "stable"] = "quicksort") -> Places:
    """The order of each row, as places in all rows: NumPy is faster with these."""
    order: Places = rows.argsort(axis=1, kind=kind)
    order += np.arange(len(rows))[:, None] * rows.shape[1]
    return order


def _normal_scores(ascending: Floats, order: Places) -> Floats:
    """The normal quantiles of ranks, for rows in ascending order; equal numbers share a rank.

    `order` says where in all rows each number was; its score is put there.
    """
    quantiles = _quantiles(ascending.shape[1])
    ordered = np.empty(ascending.shape)
    ordered[:] = quantiles[::2]
    is_new = ascending[:, 1:] != ascending[:, :-1]
    tied = np.flatnonzero(~is_new.all(axis=1))
    ordered[tied] = quantiles[_rank_sums(is_new[tied])]
    scores = np.empty(ascending.size)
    scores[order] = ordered
    result: Floats = scores.reshape(ascending.shape)
    return result


def _rank_sums(is_new: npt.NDArray[np.bool_]) -> Places:
    """For each place of a row, the first plus the last place with the same number."""
    count = is_new.shape[1] + 1
    place = np.arange(count)
    begins = np.ones((len(is_new), count), dtype=bool)
    begins[:, 1:] = is_new
    first = np.maximum.accumulate(np.where(begins, place, 0), axis=1)
    ends = np.ones((len(is_new), count), dtype=bool)
    ends[:, :-1] = is_new
    last = np.minimum.accumulate(np.where(ends, place, count)[:, ::-1], axis=1)[:, ::-1]
    sums: Places = first + last
    return sums


@functools.lru_cache(maxsize=8)
def _quantiles(count: int) -> Floats:
    """Normal quantiles of the ranks 1, 1.5, 2, ..., `count`, as Blom places them."""
    quantile = NormalDist().inv_cdf
    ranks = np.arange(2, 2 * count + 1) / 2
    return np.array([quantile(p) for p in ((ranks - 0.375) / (count + 0.25)).tolist()])
