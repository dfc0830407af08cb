"""Split R-hat from moments of blocks is that of ArviZ, whatever came in which order."""

from __future__ import annotations

import arviz as az
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from zarrtrace.watching.moments import MOST_BLOCKS, BlockMoments


def arviz_rhat(draws: np.ndarray) -> np.ndarray:
    """Split R-hat by ArviZ, of draws of shape (chains, draws, scalars)."""
    dataset = xr.Dataset({"x": (("chain", "draw", "i"), draws)})
    found: np.ndarray = az.rhat(dataset, method="split")["x"].values
    return found


def take_in(moments: BlockMoments, chain: int, draws: np.ndarray, steps: list[int]) -> None:
    """Take in the draws of a chain, (draws, scalars), some at a time."""
    done, chains = 0, slice(chain, chain + 1)
    for step in [*steps, len(draws)]:
        stop = min(done + step, len(draws))
        moments.make_room(chains, stop)
        for columns in (slice(0, 2), slice(2, draws.shape[1])):
            moments.add(chains, columns, done, draws[None, done:stop, columns])
        moments.counts[chains] = stop
        done = stop


@settings(max_examples=40)
@given(
    counts=st.lists(st.integers(1, 700), min_size=2, max_size=5),
    steps=st.lists(st.integers(1, 90), max_size=12),
    seed=st.integers(0, 2**32 - 1),
    shift=st.sampled_from([0.0, -3.0, 50.0]),
)
def test_split_rhat_is_that_of_arviz(
    counts: list[int], steps: list[int], seed: int, shift: float
) -> None:
    rng = np.random.default_rng(seed)
    chains = [
        shift + 0.1 * number + np.cumsum(rng.normal(size=(count, 5)), axis=0)
        for number, count in enumerate(counts)
    ]
    moments = BlockMoments(len(counts), 5)
    for number, draws in enumerate(chains):
        take_in(moments, number, draws, steps)
    found = moments.split_rhat(list(range(len(counts))))
    if found.draws == 0 or len(found.chains) < 2:
        assert np.isnan(found.values).all()
        return
    expected = arviz_rhat(np.stack([chains[chain][: found.draws] for chain in found.chains]))
    np.testing.assert_allclose(found.values, expected, rtol=1e-12)
    left_out = set(range(len(counts))) - set(found.chains)
    assert all(counts[chain] <= max(counts) / 8 + 1 for chain in left_out)


@pytest.mark.once("oldest")
@pytest.mark.parametrize("count", [4, 5, 31, 32, 33, 63, 64, 65, 99, 1000, 1023, 1025, 5000])
def test_most_draws_of_equal_chains_count(count: int) -> None:
    moments = BlockMoments(2, 3)
    for chain in range(2):
        take_in(moments, chain, np.zeros((count, 3)), [7])
    draws, chains = moments.comparable([0, 1])
    assert chains == (0, 1)
    # Two blocks at most are not full, and there are at least half as many as there may be.
    assert count - draws < max(2, 4 * count / MOST_BLOCKS)


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
        take_in(moments, chain, draws[chain], [10])
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
        take_in(moments, chain, draws[chain], [37])
    found = moments.split_rhat([0, 1, 2, 3])
    np.testing.assert_allclose(found.values, arviz_rhat(draws[:, : found.draws]), rtol=1e-5)
