"""Split R-hat from moments of blocks is that of ArviZ, whatever came in which order."""

from __future__ import annotations

import arviz as az
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from zarrtrace.watching.moments import BlockMoments, shortest_compared


def arviz_rhat(draws: np.ndarray) -> np.ndarray:
    """Split R-hat by ArviZ, of draws of shape (chains, draws, scalars)."""
    dataset = xr.Dataset({"x": (("chain", "draw", "i"), draws)})
    found: np.ndarray = az.rhat(dataset, method="split")["x"].values
    return found


def take_in(moments: BlockMoments, chain: int, draws: np.ndarray) -> None:
    """Take in the next draws of a chain, (draws, scalars)."""
    chains, start = slice(chain, chain + 1), int(moments.counts[chain])
    counts = moments.counts.tolist()
    counts[chain] += len(draws)
    moments.make_room(chains, counts[chain], shortest_compared(counts))
    for columns in (slice(0, 2), slice(2, draws.shape[1])):
        moments.add(chains, columns, start, draws[None, :, columns])
    moments.counts[chain] = counts[chain]


@settings(max_examples=30)
@given(
    chains=st.integers(2, 5),
    steps=st.lists(st.tuples(st.integers(0, 4), st.integers(1, 200)), min_size=1, max_size=30),
    dropped=st.integers(0, 4),
    seed=st.integers(0, 2**32 - 1),
    shift=st.sampled_from([0.0, -3.0, 50.0]),
)
def test_split_rhat_is_that_of_arviz(
    chains: int, steps: list[tuple[int, int]], dropped: int, seed: int, shift: float
) -> None:
    rng = np.random.default_rng(seed)
    moments = BlockMoments(chains, 5)
    drawn = [np.empty((0, 5))] * chains
    for number, (chain, count) in enumerate(steps):
        chain %= chains
        if chain == dropped and number == len(steps) // 2:
            # It drew other draws.
            moments.clear(slice(chain, chain + 1))
            drawn[chain] = np.empty((0, 5))
        new = shift + 0.1 * chain + np.cumsum(rng.normal(size=(count, 5)), axis=0)
        take_in(moments, chain, new)
        drawn[chain] = np.concatenate([drawn[chain], new])
    found = moments.split_rhat(list(range(chains)))
    counts = [len(draws) for draws in drawn]
    compared = [chain for chain in range(chains) if 0 < max(counts) <= 8 * counts[chain]]
    assert found.chains == tuple(compared)
    shortest = min(counts[chain] for chain in found.chains)
    assert 2 * found.draws > shortest or (found.draws == 0 and shortest < 4)
    if found.draws == 0 or len(found.chains) < 2:
        assert np.isnan(found.values).all()
        return
    expected = arviz_rhat(np.stack([drawn[chain][: found.draws] for chain in found.chains]))
    np.testing.assert_allclose(found.values, expected, rtol=1e-12)


@pytest.mark.once("oldest")
@pytest.mark.parametrize("step", [1, 7, 600])
@pytest.mark.parametrize("waiting", [0, 1])
def test_most_draws_of_chains_that_are_about_as_long_count(step: int, waiting: int) -> None:
    moments = BlockMoments(2 + waiting, 3)
    for start in range(0, 600, step):
        for chain in range(2):
            # One of them is always a quarter behind.
            count = start + step if chain else (3 * (start + step)) // 4
            take_in(moments, chain, np.zeros((count - moments.counts[chain], 3)))
        draws, chains = moments.comparable([0, 1, 2][: 2 + waiting])
        shortest = int(moments.counts[0])
        assert chains == (0, 1) or not shortest
        assert draws >= 16 / 17 * shortest or draws == shortest // 2 * 2 or shortest < 4


@pytest.mark.once("oldest")
@pytest.mark.parametrize("count", [1, 20, 700, 5000])
def test_the_course_of_a_scalar_is_that_of_its_draws(count: int) -> None:
    moments = BlockMoments(1, 3)
    assert not moments.course(slice(0, 1), 2, 16).size
    draws = np.stack([np.zeros(count), np.zeros(count), 7.0 + np.arange(count)], axis=1)
    for part in np.array_split(draws, 9):
        take_in(moments, 0, part)
    middles = 7 + (np.arange(16) + 0.5) / 16 * count
    found = moments.course(slice(0, 1), 2, 16)
    np.testing.assert_allclose(found, middles, atol=1 + count / 24)
    assert (np.diff(found) >= 0).all()


@pytest.mark.once("oldest")
def test_values_without_an_rhat() -> None:
    rng = np.random.default_rng(3)
    draws = rng.normal(size=(2, 100, 6))
    draws[:, :, 0] = 0.1  # constant
    draws[0, 3, 1] = np.nan
    draws[1, 50, 2] = np.inf
    draws[:, 0, 3] = np.nan  # from the first draw on
    draws[:, :, 4] *= 1e200
    moments = BlockMoments(2, 6)
    for chain in range(2):
        for part in np.split(draws[chain], 10):
            take_in(moments, chain, part)
    found = moments.split_rhat([0, 1])
    assert np.isnan(found.values[:5]).all()
    assert found.values[5] == pytest.approx(arviz_rhat(draws[:, : found.draws, 5:])[0])
    assert np.isnan(moments.split_rhat([0]).values).all()
    moments.clear(slice(1, 2))
    assert moments.comparable([0, 1])[1] == (0,)


@pytest.mark.once("oldest")
def test_float32_keeps_enough_digits() -> None:
    rng = np.random.default_rng(4)
    draws = 1e5 + rng.normal(size=(4, 1000, 5))
    moments = BlockMoments(4, 5, np.float32)
    for chain in range(4):
        for part in np.array_split(draws[chain], 27):
            take_in(moments, chain, part)
    found = moments.split_rhat([0, 1, 2, 3])
    np.testing.assert_allclose(found.values, arviz_rhat(draws[:, : found.draws]), rtol=1e-5)
