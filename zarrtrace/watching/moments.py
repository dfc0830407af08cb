"""Moments of blocks of draws, from which split R-hat follows without reading a draw twice.

Split R-hat of the first n draws needs the moments of both halves, so that blocks have to end at n
and at n / 2. They end where the number of draws has five binary digits before its zeros: at 16, 17,
..., 31, 32, 34, ..., 62, 64, 68, and so on. The half of such a number is another one, and where the
chains are about as long, the largest n is at least 16/17 of the draws that all of them have. A
chain has at most 32 blocks. When there are more, neighbours become one (Chan, Golub and LeVeque,
1979), those first that end before half of the shortest chain. Moments are those of the differences
from the first draw: values far from zero lose no digits.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

MOST_BLOCKS = 32
_AT_ONCE = 4096  # scalars that are computed together: what they need stays in the cache
_LEAST = 4  # draws: with fewer, ArviZ has no R-hat either
_BEHIND = 8  # times as many draws as the shortest chain that is compared has the longest, at most
# How many blocks may end while the number of draws doubles: from half of the shortest chain on, and
# before that for chains that are far behind. The first pair holds that leaves few enough.
_DENSITIES = [(near, far) for near in (16, 8, 4, 2, 1) for far in (16, 8, 4, 2, 1) if far <= near]

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


class _Block(NamedTuple):
    """Some draws of chains that are recorded together.

    Attributes
    ----------
    stop : int
        The number of draws at which it ends; it begins where the one before ends.
    place : int
        Where its moments are.
    """

    stop: int
    place: int


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
        self._blocks: list[list[_Block]] = [[] for _ in range(chains)]
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
        self._blocks[chains] = [[] for _ in self._blocks[chains]]

    def make_room(self, chains: slice, count: int, shortest: int) -> None:
        """Make blocks for `count` draws of chains that have the same draws.

        Parameters
        ----------
        shortest : int
            How many draws the shortest chain will have that is compared.
        """
        blocks = self._blocks[chains.start]
        stops = [block.stop for block in blocks]
        while not stops or stops[-1] < count:
            stops.append(_next_stop(stops[-1] if stops else 0))
        if len(stops) > len(blocks):
            self._regroup(chains, _fewer(stops, count, shortest))

    def _regroup(self, chains: slice, stops: list[int]) -> None:
        """Make the blocks end at these draws: merge some, and add others that have no draws yet."""
        groups: dict[int, list[tuple[int, int]]] = {stop: [] for stop in stops}
        count, start = int(self.counts[chains.start]), 0
        for stop, place in self._blocks[chains.start]:
            within = stops[bisect_left(stops, stop)]
            groups[within].append((place, max(0, min(stop, count) - start)))
            start = stop
        taken = {group[0][0] for group in groups.values() if group}
        free = iter(set(range(MOST_BLOCKS)) - taken)
        regrouped = [
            _Block(stop, self._merge(chains, group) if group else next(free))
            for stop, group in groups.items()
        ]
        self._blocks[chains] = [regrouped] * len(self._blocks[chains])

    def _merge(self, chains: slice, group: list[tuple[int, int]]) -> int:
        """Merge neighbours into the first of them, each given by its place and its draws."""
        (place, have), *others = group
        here = (chains, place)
        for other, new in others:
            if new:
                first = self._means[here], self._squares[here]
                second = self._means[chains, other], self._squares[chains, other]
                with np.errstate(all="ignore"):
                    self._means[here], self._squares[here] = _merged(first, have, second, new)
            have += new
        return place

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
        end, done, before = start + values.shape[1], start, 0
        with np.errstate(all="ignore"):
            for stop, place in self._blocks[chains.start]:
                if done < min(stop, end):
                    new = values[:, done - start : min(stop, end) - start]
                    for here, part in _in_columns(columns, new):
                        numbers = part - self._origin_of(here, part)
                        self._add_to(place, done - before, chains, here, numbers)
                    done = min(stop, end)
                before = stop

    def _origin_of(self, columns: slice, values: Array) -> Floats:
        """The numbers that are subtracted: the first draw that was ever taken in."""
        origin = self._origin[columns]
        if math.isnan(origin[:1].sum()):
            first = values[0, 0].reshape(-1).astype(np.float64)
            origin[:] = np.where(np.isfinite(first), first, 0.0)
        return origin.reshape(values.shape[2:])

    def _add_to(
        self, place: int, before: int, chains: slice, columns: slice, numbers: Floats
    ) -> None:
        """Add draws to a block that has `before` draws; `numbers` is overwritten."""
        new = numbers.shape[1]
        mean = numbers.mean(axis=1)
        numbers -= mean[:, None]
        squares = np.einsum("cd...,cd...->c...", numbers, numbers)
        flat = (len(mean), -1)
        here = (chains, place, columns)
        merged = _merged(
            (self._means[here], self._squares[here]),
            before,
            (mean.reshape(flat), squares.reshape(flat)),
            new,
        )
        self._means[here], self._squares[here] = merged

    # R-hat --------------------------------------------------------------------------------

    def course(self, chains: slice, column: int, parts: int) -> Floats:
        """The means of one scalar in equal parts of the draws, as far as blocks tell them apart.

        Returns
        -------
        numpy.ndarray
            float64, shape (parts,), the mean of chains that have the same draws; empty without any.
        """
        count, blocks = int(self.counts[chains.start]), self._blocks[chains.start]
        if not count:
            return np.empty(0)
        stops = [block.stop for block in blocks]
        middles = [(2 * part + 1) * count // (2 * parts) for part in range(parts)]
        places = [blocks[bisect_right(stops, middle)].place for middle in middles]
        means: Floats = self._means[chains, places, column].mean(axis=0, dtype=np.float64)
        means += self._origin[column]
        return means

    def comparable(self, chains: list[int]) -> tuple[int, tuple[int, ...]]:
        """How many draws of which chains have an R-hat: two halves of whole blocks of each."""
        shortest = shortest_compared(self.counts[chains].tolist())
        compared = tuple(chain for chain in chains if 0 < shortest <= self.counts[chain])
        common: set[int] = set()
        for chain in compared:
            stops = {block.stop for block in self._blocks[chain] if block.stop <= shortest}
            common = common & stops if chain != compared[0] else stops
        even = (stop for stop in common if stop >= _LEAST and stop % 2 == 0)
        return max((stop for stop in even if stop // 2 in common), default=0), compared

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
                for stop in (half, 2 * half):
                    mean, squares = self._moments_of(chain, stop - half, stop, columns)
                    means.append(mean)
                    variances.append(squares / (half - 1))
            between = half * np.var(means, axis=0, ddof=1)
            within = np.mean(variances, axis=0)
            rhat: Floats = np.sqrt((between / within + half - 1) / half)
        return rhat

    def _moments_of(
        self, chain: int, start: int, stop: int, columns: slice
    ) -> tuple[Floats, Floats]:
        """Mean and sum of squared deviations of draws that are whole blocks."""
        blocks = [block for block in self._blocks[chain] if start < block.stop <= stop]
        lengths = np.diff([start, *(block.stop for block in blocks)]).tolist()
        # Block after block: an array of all of them would not fit the cache.
        mean = np.zeros(self._means[chain, 0, columns].shape)
        for length, (_, place) in zip(lengths, blocks, strict=True):
            of_block = self._means[chain, place, columns]
            mean += np.multiply(of_block, length / (stop - start), dtype=np.float64)
        squares = np.zeros(mean.shape)
        for length, (_, place) in zip(lengths, blocks, strict=True):
            squares += self._squares[chain, place, columns]
            apart = self._means[chain, place, columns] - mean
            apart *= apart
            apart *= length
            squares += apart
        return mean, squares


def shortest_compared(counts: Iterable[int]) -> int:
    """The fewest draws of a chain that is compared with the longest one; 0 if none has begun.

    A chain that is far behind would leave few draws to compare.
    """
    counts = list(counts)
    least = max(counts, default=0) / _BEHIND
    return min((count for count in counts if count and count >= least), default=0)


def _next_stop(stop: int) -> int:
    """Where the block ends that begins at a stop, as long as no blocks are merged."""
    step = 1 << max(0, stop.bit_length() - 5)
    return stop + step


def _is_stop(number: int, density: int) -> bool:
    """Whether a block ends here, if this many blocks end while the number of draws doubles."""
    step = 1 << max(0, number.bit_length() - density.bit_length())
    return number % step == 0


def _fewer(stops: list[int], count: int, shortest: int) -> list[int]:
    """At most `MOST_BLOCKS` of the draws at which blocks end, without those needed least."""
    excess = max(0, len(stops) - MOST_BLOCKS)
    known = set(stops)
    halves = (stop for stop in stops if 2 * stop in known and stop <= shortest // 2)
    half = max(halves, default=0)
    # A chain that is far behind always has the powers of two.
    powers = {stop for stop in stops if 4 * _BEHIND * stop >= count and _is_stop(stop, 1)}
    for near, far in _DENSITIES:
        kept = {stop for stop in stops if stop >= half and _is_stop(stop, near)}
        kept |= {stop for stop in stops if 2 * _BEHIND * stop >= count and _is_stop(stop, far)}
        kept |= {*powers, stops[-1]}
        if len(kept) <= MOST_BLOCKS:
            break
    dropped = [stop for stop in stops if stop not in kept][:excess]
    return [stop for stop in stops if stop not in dropped]


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
