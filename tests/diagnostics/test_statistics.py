"""Statistics of draws are those of ArviZ, of both lines, to the last digits."""

from __future__ import annotations

import logging
import warnings
from typing import Any

import arviz as az
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from zarrtrace.diagnostics.statistics import arviz_is_1, compute

DIAGNOSTICS = [
    *("r_hat", "r_hat_tail", "r_hat_split", "mcse_mean", "mcse_sd", "mcse_median"),
    *("ess_bulk", "ess_tail", "ess_mean", "ess_sd", "ess_median"),
]
R_HATS = {"r_hat": "rank", "r_hat_tail": "folded", "r_hat_split": "split"}


@pytest.fixture(autouse=True, scope="module")
def quiet_arviz() -> Any:
    """ArviZ without its warnings of NaN, and 0.x without numba, where `az.mcse` fails."""
    if not arviz_is_1():
        az.Numba.disable_numba()
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


def of_arviz(draws: Any, name: str) -> Any:
    """A diagnostic of each scalar; draws have the shape (chains, draws, scalars)."""
    data = xr.Dataset({"x": (("chain", "draw", "i"), draws)})
    kind, _, method = name.partition("_")
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        if name in R_HATS:
            found = az.rhat(data, method=R_HATS[name])
        else:
            found = getattr(az, kind)(data, method=method)
    return (found["posterior"] if "posterior" in getattr(found, "children", {}) else found)[
        "x"
    ].values


def draws_of(kind: str, chains: int, draws: int, seed: int) -> Any:
    """Draws of four scalars."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(chains, draws, 4))
    match kind:
        case "slow":
            return values.cumsum(axis=1)
        case "integers":
            return values.round().astype(np.int32)
        case "bool":
            return values > 0
        case "ties":
            return values.round(1) * 0.1
        case "rejected":
            return values[:, np.arange(draws) // 3]
        case "tiny":
            return values * 1e-9
        case "special":
            values[rng.integers(chains), rng.integers(draws), 0] = np.nan
            values[rng.integers(chains), rng.integers(draws), 1] = np.inf
            values[:, :, 2] = 3.3
            values[:, :, 3] = rng.normal(size=(chains, 1))
    return values


KINDS = ["normal", "slow", "integers", "bool", "ties", "rejected", "tiny", "special"]


@settings(max_examples=12, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    chains=st.integers(1, 9),
    draws=st.integers(1, 60),
    seed=st.integers(0, 2**32),
)
def test_diagnostics_are_those_of_arviz(kind: str, chains: int, draws: int, seed: int) -> None:
    values = draws_of(kind, chains, draws, seed)
    ours = compute(values, DIAGNOSTICS)
    for name in DIAGNOSTICS:
        theirs = of_arviz(values.astype(np.int8) if kind == "bool" else values, name)
        # Chains that never move differ by rounding alone within themselves.
        stuck = (ours[name] > 1e10) & (theirs > 1e10)
        if name == "mcse_sd":
            # So do squares of draws that have two values with equal distances from the mean.
            stuck |= np.nan_to_num(np.maximum(ours[name], theirs)) < 1e-8
        np.testing.assert_allclose(ours[name][~stuck], theirs[~stuck], rtol=1e-11, err_msg=name)


@settings(max_examples=12, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    draws=st.integers(1, 60),
    prob=st.sampled_from([0.5, 0.89, 0.94]),
    seed=st.integers(0, 2**32),
)
def test_descriptions_are_those_of_numpy(kind: str, draws: int, prob: float, seed: int) -> None:
    values = np.asarray(draws_of(kind, 3, draws, seed), float)
    flat = values.reshape(-1, 4)
    names = ["mean", "sd", "median", "mad", "eti_lower", "eti_upper"]
    for skipna in (False, True):
        keep = ~np.isnan(flat[:, 0]) if skipna else np.ones(len(flat), bool)
        columns = [flat[keep, 0], *flat.T[1:]]
        with np.errstate(all="ignore"):
            expected = [
                [
                    column.mean(), column.std(ddof=1), np.median(column),
                    np.median(abs(column - np.median(column))),
                    *np.quantile(column, [(1 - prob) / 2, 1 - (1 - prob) / 2]),
                ]
                for column in columns
            ]  # fmt: skip
        found = compute(values, names, prob=prob, skipna=skipna)
        for name, result in zip(names, np.transpose(expected), strict=True):
            np.testing.assert_allclose(found[name], result, rtol=1e-12, atol=1e-14, err_msg=name)


@pytest.mark.parametrize("kind", ["normal", "integers", "special"])
def test_the_shortest_interval_is_that_of_arviz(kind: str) -> None:
    values = draws_of(kind, 3, 50, 1)
    data = xr.Dataset({"x": (("chain", "draw", "i"), values)})
    found = compute(values, ["hdi_lower", "hdi_upper"], prob=0.9)
    with np.errstate(invalid="ignore"):
        options = {"prob": 0.9} if arviz_is_1() else {"hdi_prob": 0.9}
        expected = az.hdi(data, **options)["x"].transpose("i", ...).values
    np.testing.assert_array_equal(np.transpose([*found.values()]), expected)


@pytest.mark.once("newest")
def test_blocks_and_threads_give_what_one_block_gives() -> None:
    values = np.random.default_rng(2).normal(size=(4, 1000, 7, 9))
    seen: list[int] = []
    found = compute(values, ["r_hat", "ess_tail"], threads=2, done=seen.append)
    assert sum(seen) == 63
    assert len(seen) > 1
    assert found["r_hat"].shape == (7, 9)
    for name, result in found.items():
        alone = compute(values[:, :, 3:4, 5:6], [name])[name]
        np.testing.assert_allclose(result[3, 5], alone[0, 0], rtol=1e-13)


@pytest.mark.once("newest")
def test_without_scalars_or_draws_there_are_no_numbers() -> None:
    assert compute(np.zeros((2, 10, 0)), ["r_hat", "mean"])["mean"].shape == (0,)
    found = compute(np.zeros((2, 0, 3)), ["r_hat", "mean", "sd", "hdi_lower", "mad", "eti_upper"])
    assert all(np.isnan(result).all() for result in found.values())
    assert np.isnan(compute(np.ones((4, 20)), ["r_hat"])["r_hat"])
    assert compute(np.ones((4, 20)), ["ess_bulk"])["ess_bulk"] == 80
