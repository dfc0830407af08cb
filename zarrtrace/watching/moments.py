"""Moments of blocks of draws, from which split R-hat follows without reading a draw twice.

A chain has at most 32 blocks of equal length. When there are more, pairs become one (Chan, Golub
and LeVeque, 1979), so that a block is twice as long from then on. Moments are those of the
differences from the first draw: values far from zero lose no digits.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

MOST_BLOCKS = 32
_AT_ONCE = 4096  # scalars that are computed together: what they need stays in the cache
_LEAST = 4  # draws: with fewer, ArviZ has no R-hat either

Array = NDArray[Any]
Floats = NDArray[np.float64]


class SplitRhat(NamedTuple):
    """Split R-hat of the first draws of some chains.

    Attributes
    ----------
    values : numpy.ndarray
        One for each scalar, float64; NaN where there is none.
    draws : int
        How many draws of each chain it is of: an even number, 0 where there are too few.
    chains : tuple of int
        The chains, without those that have too few draws beside the longest one.
    """

    values: Floats
    draws: int
    chains: tuple[int, ...]


class BlockMoments:
    """Counts, means and sums of squared deviations, for each block of draws, chain and scalar.

    Parameters
    ----------
    dtype : numpy.dtype
        Of what is kept, float64 or float32; everything is computed in float64.

    Attributes
    ----------
    counts : numpy.ndarray
        How many draws of each chain are in: int64, shape (chains,).
    """

    def __init__(self, chains: int, scalars: int, dtype: Any = np.float64) -> None:
        self.counts = np.zeros(chains, np.int64)
        self._lengths = np.ones(chains, np.int64)
        # Pages of zeros take no memory before they are written to.
        self._means: Array = np.zeros((chains, MOST_BLOCKS, scalars), dtype)
        self._squares: Array = np.zeros((chains, MOST_BLOCKS, scalars), dtype)
        self._origin: Floats = np.full(scalars, np.nan)

    @staticmethod
    def bytes_for(chains: int, scalars: int, dtype: Any) -> int:
        """The memory that the moments of this many chains and scalars take."""
        return 2 * MOST_BLOCKS * chains * scalars * int(np.dtype(dtype).itemsize)

    def clear(self, chains: slice) -> None:
        """Forget the draws of some chains."""
        self.counts[chains] = 0
        self._lengths[chains] = 1
        self._means[chains] = 0
        self._squares[chains] = 0

    def make_room(self, chains: slice, count: int) -> None:
        """Make blocks long enough for `count` draws of chains that have the same draws."""
        with np.errstate(all="ignore"):
            while count > MOST_BLOCKS * self._lengths[chains.start]:
                self._merge_pairs(chains)

    def add(self, chains: slice, columns: slice, start: int, values: Array) -> None:
        """Take in draws of some scalars, for which `make_room` was called.

        Parameters
        ----------
        start : int
            How many draws of these scalars are in already.
        values : numpy.ndarray
            Real numbers, shape (chains, draws, ...), the scalars of one draw in the order of
            `columns`.
        """
        length = int(self._lengths[chains.start])
        done, draws = 0, values.shape[1]
        with np.errstate(all="ignore"):
            while done < draws:
                block, before = divmod(start + done, length)
                stop = min(draws, done + length - before)
                for here, part in _in_columns(columns, values[:, done:stop]):
                    self._add_to(block, before, chains, here, part - self._origin_of(here, part))
                done = stop

    def _origin_of(self, columns: slice, values: Array) -> Floats:
        """The numbers that are subtracted: the first draw that was ever taken in."""
        origin = self._origin[columns]
        if math.isnan(origin[:1].sum()):
            first = values[0, 0].reshape(-1).astype(np.float64)
            origin[:] = np.where(np.isfinite(first), first, 0.0)
        return origin.reshape(values.shape[2:])

    def _add_to(
        self, block: int, before: int, chains: slice, columns: slice, numbers: Floats
    ) -> None:
        """Add draws to a block that has `before` draws; `numbers` is overwritten."""
        new = numbers.shape[1]
        mean = numbers.mean(axis=1)
        numbers -= mean[:, None]
        squares = np.einsum("cd...,cd...->c...", numbers, numbers)
        flat = (len(mean), -1)
        here = (chains, block, columns)
        merged = _merged(
            (self._means[here], self._squares[here]),
            before,
            (mean.reshape(flat), squares.reshape(flat)),
            new,
        )
        self._means[here], self._squares[here] = merged

    def _merge_pairs(self, chains: slice) -> None:
        length = int(self._lengths[chains.start])
        counts = np.clip(
            int(self.counts[chains.start]) - length * np.arange(MOST_BLOCKS), 0, length
        )
        for pair in range(MOST_BLOCKS // 2):
            first, second = (chains, 2 * pair), (chains, 2 * pair + 1)
            merged = _merged(
                (self._means[first], self._squares[first]),
                int(counts[2 * pair]),
                (self._means[second], self._squares[second]),
                int(counts[2 * pair + 1]),
            )
            self._means[chains, pair], self._squares[chains, pair] = merged
        self._means[chains, MOST_BLOCKS // 2 :] = 0
        self._squares[chains, MOST_BLOCKS // 2 :] = 0
        self._lengths[chains] = 2 * length

    # R-hat --------------------------------------------------------------------------------

    def comparable(self, chains: list[int]) -> tuple[int, tuple[int, ...]]:
        """How many draws of which chains have an R-hat: two halves of whole blocks of each."""
        begun = [chain for chain in chains if self.counts[chain]]
        if not begun:
            return 0, ()
        pair = 2 * int(self._lengths[begun].max())
        compared = tuple(chain for chain in begun if self.counts[chain] >= pair)
        draws = pair * (self.common(compared) // pair)
        return draws if draws >= _LEAST else 0, compared

    def common(self, chains: tuple[int, ...]) -> int:
        """How many draws all of these chains have."""
        return int(self.counts[list(chains)].min()) if chains else 0

    def split_rhat(self, chains: list[int]) -> SplitRhat:
        """Split R-hat of the first draws of these chains, as `arviz.rhat(method="split")`."""
        draws, compared = self.comparable(chains)
        scalars = self._means.shape[2]
        found = np.full(scalars, np.nan)
        if draws and len(compared) > 1:
            for start in range(0, scalars, _AT_ONCE):
                columns = slice(start, start + _AT_ONCE)
                found[columns] = self._rhat_of(compared, draws // 2, columns)
        return SplitRhat(found, draws, compared)

    def _rhat_of(self, chains: tuple[int, ...], half: int, columns: slice) -> Floats:
        means, variances = [], []
        with np.errstate(all="ignore"):
            for chain in chains:
                length = int(self._lengths[chain])
                place = (chain, slice(2 * half // length), columns)
                halves = (2, half // length, -1)
                of_blocks = self._means[place].reshape(halves)
                mean = of_blocks.mean(axis=1, dtype=np.float64)
                apart = np.subtract(of_blocks, mean[:, None], dtype=np.float64)
                squares = self._squares[place].reshape(halves).sum(axis=1, dtype=np.float64)
                squares += length * np.einsum("hbs,hbs->hs", apart, apart)
                means += [*mean]
                variances += [*(squares / (half - 1))]
            between = half * np.var(means, axis=0, ddof=1)
            within = np.mean(variances, axis=0)
            rhat: Floats = np.sqrt((between / within + half - 1) / half)
        return rhat


def _in_columns(columns: slice, values: Array) -> Iterator[tuple[slice, Array]]:
    """Draws of scalars in parts, where one variable has many."""
    if values.ndim < 4 or values.shape[2] > 1:
        yield columns, values
        return
    flat = values.reshape(*values.shape[:2], -1)
    for start in range(columns.start, columns.stop, _AT_ONCE):
        stop = min(start + _AT_ONCE, columns.stop)
        yield slice(start, stop), flat[:, :, start - columns.start : stop - columns.start]


def _merged(
    first: tuple[Array, Array], count: int, second: tuple[Array, Array], added: int
) -> tuple[Array, Array]:
    """Mean and sum of squared deviations of two sets of draws together."""
    if not count or not added:
        return first if count else second
    total = count + added
    apart = second[0] - first[0]
    mean = first[0] + apart * (added / total)
    return mean, first[1] + second[1] + np.square(apart) * (count * added / total)
