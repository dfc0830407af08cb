"""`summary(kind="moments")`: each draw is read once, in bounded memory, without a file."""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import arviz as az
import numpy as np
import pytest
from benchmarks.timing import memory_of
from hypothesis import given, settings
from hypothesis import strategies as st

import zarrtrace as zt
from zarrtrace.cli import main
from zarrtrace.diagnostics import transposed
from zarrtrace.diagnostics.statistics import arviz_is_1, compute
from zarrtrace.errors import InvalidInputError
from zarrtrace.reading.rows import RowReader

KLL = ["kll_5%", "kll_50%", "kll_95%"]


def recorded(store: Any, values: dict[str, Any], **options: Any) -> Any:
    """A trace of values of shape (chains, draws, ...)."""
    chains, draws = next(iter(values.values())).shape[:2]
    trace = zt.create(
        store, chains=chains, draws=draws, **options,
        posterior={name: zt.Var(shape=of.shape[2:], dtype=of.dtype) for name, of in values.items()},
    )  # fmt: skip
    for block in trace.blocks:
        chosen = block if isinstance(block, int) else slice(block.start, block.stop)
        with trace.writer(block) as writer:
            writer.record_block({name: of[chosen] for name, of in values.items()})
    return trace


def moments(trace: Any, **options: Any) -> Any:
    options = {"ci_prob": 0.9, "round_to": "none", "progress": False} | options
    return trace.summary(kind="moments", **options)


@settings(max_examples=15, deadline=None)
@given(
    chains=st.integers(1, 5),
    draws=st.integers(1, 70),
    length=st.integers(1, 30),
    seed=st.integers(0, 2**32),
)
def test_sums_are_those_of_numpy_and_arviz(chains: int, draws: int, length: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = {
        "x": rng.normal(size=(chains, draws, 3)).cumsum(axis=1) + np.array([0, 100, 0]),
        "i": rng.poisson(3, size=(chains, draws)).astype(np.int16),
    }
    trace = recorded(None, values, draws_per_chunk=length, chains_per_chunk=2)
    # With so little memory, x is read in parts.
    found = moments(trace, memory=25_000)
    numbers = np.dstack([values["x"], values["i"]])
    expected = compute(numbers, ["mean", "sd", "r_hat_split"])
    for name, result in expected.items():
        np.testing.assert_allclose(found[name], result, rtol=1e-11, err_msg=name)
    batch = max(1, int(draws**0.5))
    means = numbers[:, : draws // batch * batch].reshape(chains, -1, batch, 4).mean(axis=2)
    if draws >= 4:
        variance = means.reshape(-1, 4).var(axis=0, ddof=1) * batch
        error = np.sqrt(variance / (chains * draws))
        np.testing.assert_allclose(found["mcse_mean_batch"], error, rtol=1e-11, atol=1e-13)
    else:
        assert found["mcse_mean_batch"].isna().all()


@pytest.mark.once("newest")
def test_quantiles_are_exact_where_memory_allows_it_and_else_as_near_as_they_say() -> None:
    rng = np.random.default_rng(1)
    x = rng.standard_t(3, size=(4, 1000, 200))
    x[:, :, 50:100] = x[:, :, 50:100].round()
    x[:, :, 100:150].sort(axis=1)
    trace = recorded(None, {"x": x})
    flat = x.reshape(4000, 200)
    exact = moments(trace)
    assert (exact["kll_rank_error"] == 0).all()
    of_numpy = np.quantile(flat, [0.05, 0.5, 0.95], axis=0, method="inverted_cdf")
    np.testing.assert_array_equal(exact[KLL].T, of_numpy)
    found = moments(trace, memory=1_300_000)
    bound = found["kll_rank_error"].to_numpy()
    assert ((bound > 0.01) & (bound < 0.05)).all()
    for column, rank in zip(KLL, (0.05, 0.5, 0.95), strict=True):
        below = (flat < found[column].to_numpy()).mean(axis=0)
        up_to = (flat <= found[column].to_numpy()).mean(axis=0)
        distance = np.maximum(np.maximum(below - rank, rank - up_to), 0)
        # The bound holds for 99 of 100.
        assert (distance > bound).mean() < 0.04
        assert (distance < 2 * bound).all()


@pytest.mark.once("newest")
def test_nan_infinite_constant_and_bool_draws_are_treated_as_arviz_treats_them() -> None:
    rng = np.random.default_rng(2)
    x = rng.normal(size=(3, 41, 5))
    x[1, 20, 0] = x[2, 40, 1] = np.nan  # the second one is in no batch
    x[0, 0, 2] = np.inf
    x[:, :, 3] = 3.3
    x[:, :, 4] = np.nan
    trace = recorded(None, {"x": x, "flag": x[:, :, 0] > 0})
    numbers = np.dstack([x, x[:, :, 0] > 0])
    for skipna in (False, True):
        found = moments(trace, skipna=skipna)
        expected = compute(numbers, ["mean", "sd"], skipna=skipna)
        np.testing.assert_allclose(found["mean"], expected["mean"], rtol=1e-12)
        # Rounding leaves ArviZ a standard deviation of a constant.
        np.testing.assert_allclose(found["sd"], expected["sd"], rtol=1e-12, atol=1e-14)
        is_known = [skipna, skipna, True, True, False, True]
        assert found[KLL].notna().all(axis=1).tolist() == is_known
        for diagnostic in ("r_hat_split", "mcse_mean_batch"):
            assert found[diagnostic].iloc[[0, 1, 2, 4]].isna().all()
        assert np.isnan(found["r_hat_split"].iloc[3])
        assert found["mcse_mean_batch"].iloc[3] == 0
        assert found["sd"].iloc[3] == 0
    assert found["kll_50%"].iloc[0] == np.sort(x[:, :, 0], axis=None)[60]


@pytest.mark.once("newest")
def test_running_and_unequal_chains_and_chosen_draws_have_it_too(tmp_path: Path) -> None:
    trace = zt.create(
        tmp_path / "t", chains=2, tune=5, draws=40, draws_per_chunk=7, posterior={"x": 0.0}
    )
    rng = np.random.default_rng(3)
    writers = [trace.writer(chain) for chain in range(2)]
    for writer, draws in zip(writers, (25, 33), strict=True):
        writer.record_block({"x": rng.normal(size=draws)})
    for options in ({}, {"coords": {"draw": slice(3, 17), "chain": [1]}}):
        with pytest.warns(RuntimeWarning, match="have 20 to 28 draws: the first 20 of each"):
            found = moments(trace, memory=10_000, **options)
        with pytest.warns(RuntimeWarning, match="have 20 to 28 draws"):
            expected = trace.summary(kind="stats", round_to="none", **options)
        np.testing.assert_allclose(found[["mean", "sd"]], expected[["mean", "sd"]], rtol=1e-13)
    for writer in writers:
        writer.close()


@pytest.mark.once("newest")
def test_every_chunk_is_read_once_and_no_file_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = {"x": np.random.default_rng(1).normal(size=(2, 160, 50))}
    trace = recorded(tmp_path / "t", values, draws_per_chunk=16)
    reads: list[str] = []
    read_chunk = RowReader.stored_chunk

    def counted(reader: RowReader, place: Any, *arguments: Any) -> Any:
        reads.append(place.key(trace._layout.variables[0], reader.block.number))
        return read_chunk(reader, place, *arguments)

    monkeypatch.setattr(RowReader, "stored_chunk", counted)
    monkeypatch.setattr(transposed.tempfile, "TemporaryFile", None)
    moments(trace, memory=120_000)
    assert len(reads) == len(set(reads)) == 20


@pytest.mark.once("oldest")
@pytest.mark.long
def test_a_variable_that_is_larger_than_memory_takes_what_it_may(tmp_path: Path) -> None:
    for size in (1, 12_000):
        trace = zt.create(
            tmp_path / f"{size}", chains=2, draws=200, posterior={"x": np.zeros(size)}
        )
        for chain in range(2):
            with trace.writer(chain) as writer:
                for _ in range(4):
                    numbers = np.random.default_rng(chain).normal(size=(50, size)).round(1)
                    writer.record_block({"x": numbers})
    of_imports = memory_of(summarise, tmp_path / "1", "stats")
    for kind in ("moments", "stats"):
        peak = memory_of(summarise, tmp_path / "12000", kind) - of_imports
        assert peak * 2**20 < 1.2 * MEMORY, f"{kind}: {peak:.1f} MB"


MEMORY = 40e6


def summarise(place: Path, kind: str) -> None:
    """Summarise a variable of 38 MB; this runs in a process of its own."""
    zt.open(place).summary(kind=kind, memory=MEMORY, progress=False, round_to="none")


@pytest.mark.once("newest")
def test_too_little_memory_and_a_missing_package_are_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trace = recorded(tmp_path / "t", {"x": np.zeros((2, 10, 300))})
    with pytest.raises(
        InvalidInputError, match=r"sketches of 300 scalars take .* give more memory"
    ):
        moments(trace, memory=100_000)
    monkeypatch.setitem(sys.modules, "datasketches", None)
    with pytest.raises(InvalidInputError, match=r"need `pip install 'zarrtrace\[sketch\]'`"):
        moments(trace)
    assert main(["summary", str(tmp_path / "t"), "--kind", "moments"]) == 1
    assert "zarrtrace[sketch]" in capsys.readouterr().err


@pytest.mark.once("newest")
def test_the_command_says_what_its_columns_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    x = np.random.default_rng(1).normal(size=(2, 100))
    recorded(tmp_path / "t", {"x": x})
    command = ["summary", str(tmp_path / "t"), "--kind", "moments", "--prob", "0.9"]
    assert main(command) == 0
    heading, row, explanation = capsys.readouterr().out.splitlines()
    columns = ["mean", "sd", *KLL, "kll_rank_error", "mcse_mean_batch", "r_hat_split"]
    assert heading.split() == columns
    assert row.split()[0] == "x"
    assert explanation.startswith("mcse_mean_batch is by batch means")
    assert main([*command, "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["explanation"] + "." == explanation
    assert content["scalars"][0]["mean"] == pytest.approx(x.mean(), rel=1e-12)


def nested(x: Any, superchains: Any) -> float:
    """Nested R-hat of draws (chains, draws): that of ArviZ 1.x, and its formula without it."""
    if arviz_is_1():
        return float(az.rhat_nested(x, superchain_ids=superchains))
    half = x.shape[1] // 2
    halves = np.concatenate([x[:, :half], x[:, -half:]])
    found = []
    for values in (halves, abs(halves - np.median(halves))):
        scores = _scores(values)
        ids = np.array([*superchains, *superchains])
        of_superchains = [scores[ids == one] for one in np.unique(ids)]
        within = np.mean(
            [
                np.var(one, axis=1, ddof=1).mean() + np.var(one.mean(axis=1), ddof=1)
                for one in of_superchains
            ]
        )
        found.append((1 + np.var([one.mean() for one in of_superchains], ddof=1) / within) ** 0.5)
    return max(found)


def _scores(values: Any) -> Any:
    from scipy.stats import norm, rankdata

    ranks = rankdata(values, method="average").reshape(values.shape)
    return norm.ppf((ranks - 3 / 8) / (values.size + 1 / 4))


@pytest.mark.parametrize(("chains", "draws", "many"), [(64, 7, 8), (6, 40, 3), (4, 9, 2)])
def test_nested_rhat_is_that_of_arviz(chains: int, draws: int, many: int) -> None:
    rng = np.random.default_rng(chains)
    superchains = rng.permutation(np.arange(chains) % many)
    x = rng.normal(size=(chains, draws, 2)) + superchains[:, None, None] / 2
    x[:, :, 1] = x[:, :, 1].round()
    trace = zt.create(
        None, chains=chains, draws=draws, chains_per_chunk=chains,
        posterior={"x": zt.Var(shape=2)}, superchains=superchains,
    )  # fmt: skip
    with trace.writer(range(chains)) as writer:
        writer.record_block({"x": x})
    found = trace.summary(kind="diagnostics", round_to="none")
    expected = [nested(x[:, :, i], superchains) for i in range(2)]
    np.testing.assert_allclose(found["r_hat_nested"], expected, rtol=1e-12)
    assert trace.posterior.attrs["superchains"] == superchains.tolist()
    other = np.roll(superchains, 1)
    given = trace.summary(kind="all_median", round_to="none", superchains=other)
    np.testing.assert_allclose(given["r_hat_nested"].iloc[0], nested(x[:, :, 0], other), rtol=1e-12)
    assert "r_hat_nested" not in trace.summary(kind="stats")


@pytest.mark.once("newest")
def test_superchains_that_do_not_fit_are_said() -> None:
    for superchains, why in (
        ([0, 1], "has 2 numbers for 4 chains"),
        ([0, 0, 0, 1], "two or more with as many chains in each, got 3 chains in 0, 1 chain in 1"),
        ([0, 0, 0, 0], "two or more"),
        (["a", "a", "b", "b"], "must be whole numbers"),
        (2, "must be whole numbers"),
        ([[0], [1, 2], [3], [4]], "must be whole numbers"),
    ):
        with pytest.raises(InvalidInputError, match=why):
            zt.create(chains=4, draws=9, posterior={"x": 0.0}, superchains=superchains)  # type: ignore[arg-type]
    trace = recorded(None, {"x": np.random.default_rng(1).normal(size=(4, 9))})
    with pytest.raises(InvalidInputError, match="has 1 numbers for 4 chains"):
        trace.summary(superchains=[0])
    with pytest.warns(RuntimeWarning, match="3 chosen chains of .* there is no nested R-hat"):
        table = trace.summary(superchains=[0, 0, 1, 1], coords={"chain": [0, 1, 2]})
    assert table["r_hat_nested"].isna().all()
    assert table["r_hat"].notna().all()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        table = trace.summary(superchains=[0, 0, 1, 1], coords={"chain": [1, 2]})
    assert table["r_hat_nested"].notna().all()
    named = zt.create(chains=2, draws=1, posterior={"x": 0.0}, attrs={"superchains": "something"})
    for chain in range(2):
        with named.writer(chain) as writer:
            writer.record({"x": 1.0})
    assert "r_hat_nested" not in named.summary()
