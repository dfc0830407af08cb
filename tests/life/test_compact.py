"""The draws of a finished trace are rounded by no more than their Monte Carlo errors allow."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import zarrtrace as zt
from zarrtrace.cli import main as zarrtrace
from zarrtrace.layout.rounding import EXACT, round_bits, round_to

ERROR = 1 / 16


def finished(path: Path, draws: dict[str, Any], tune: int = 0, **groups: Any) -> zt.Trace:
    """A trace with these draws, each of shape (chains, tune + draws, *shape)."""
    given = {"posterior": draws, **groups}
    first = next(iter(draws.values()))
    trace = zt.create(
        path,
        chains=len(first),
        tune=tune,
        draws=first.shape[1] - tune,
        **{
            group: {
                name: zt.Var(shape=values.shape[2:], dtype=values.dtype)
                for name, values in arrays.items()
            }
            for group, arrays in given.items()
        },
    )
    for chain in range(len(first)):
        with trace.writer(chain) as writer:
            blocks = {
                group: {name: values[chain] for name, values in arrays.items()}
                for group, arrays in given.items()
            }
            writer.record_block(blocks.pop("posterior"), **blocks)
    trace.finish()
    return trace


def autoregressive(seed: int, rho: float, shape: tuple[int, ...] = (4, 500)) -> np.ndarray:
    rng = np.random.default_rng(seed)
    draws = rng.normal(size=shape)
    for draw in range(1, shape[1]):
        draws[:, draw] = rho * draws[:, draw - 1] + np.sqrt(1 - rho**2) * draws[:, draw]
    return draws


NORMAL = autoregressive(0, 0.5)
DISTRIBUTIONS = {
    "normal": NORMAL,
    "slow": autoregressive(1, 0.8, (4, 1000)),
    "far from 0": 1000 + NORMAL,
    "skewed": np.exp(2 * NORMAL),
    "heavy tails": np.random.default_rng(3).standard_t(2, (4, 500)),
    "tiny": 1e-20 * NORMAL,
    "denormal": 1e-312 * NORMAL,
    "huge": 1e307 * NORMAL,
    "one chain": autoregressive(4, 0.3, (1, 600)),
    "float32": NORMAL.astype("float32"),
    "many scales": 10.0 ** np.arange(-200, 200, 80) * autoregressive(5, 0.2, (2, 400, 5)),
    "complex": NORMAL + 1e-6j * autoregressive(6, 0.5),
}


def real(values: np.ndarray) -> np.ndarray:
    """Numbers as (chains, draws, elements), with both parts of complex ones."""
    if values.dtype.kind == "c":
        values = np.stack([values.real, values.imag], axis=-1)
    return values.reshape(*values.shape[:2], -1).astype(float)


@pytest.mark.once("newest")
@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_mean_and_quantiles_change_by_less_than_a_part_of_their_errors(
    tmp_path: Path, name: str
) -> None:
    exact = DISTRIBUTIONS[name]
    trace = finished(tmp_path / "run.zarr", {"x": exact})
    table = trace.compact(ERROR)
    rounded = trace.get("x")
    attrs = trace.posterior.x.attrs
    assert rounded.dtype == exact.dtype
    np.testing.assert_array_equal(rounded[:, -1], exact[:, -1])
    smallest = np.min(attrs["rounded_to"])
    assert np.frexp(smallest)[0] == 0.5
    # In a scale in which nothing overflows.
    scale = 2.0 ** -(np.frexp(np.abs(real(exact)).max())[1] // 2)
    before, after = (real(values) * scale * scale for values in (exact, rounded))
    with np.errstate(over="ignore"):
        quanta = after[:, :-1] / scale / (smallest * scale)
    np.testing.assert_array_equal(quanta, np.rint(quanta))
    assert ((rounded == 0) == (exact == 0)).all()
    if name not in ("float32", "denormal", "one chain"):
        assert table.before["posterior/x"] > 2.4 * table.after["posterior/x"]
    if before.shape[2] == 1:
        allowed = ERROR * np.array(attrs["monte_carlo_errors"]) * scale * scale
        assert abs(after.mean() - before.mean()) <= allowed[0]
        for error, probability in zip(allowed[1:], (0.05, 0.5, 0.95), strict=True):
            assert abs(np.quantile(after, probability) - np.quantile(before, probability)) <= error


@pytest.mark.once("newest")
def test_arviz_computes_the_same_within_the_stated_error(tmp_path: Path) -> None:
    import arviz as az

    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 40))
    # Draws of the mean and the scale of a regression, and of a count model: exact posteriors, and
    # the log-likelihoods that are compared.
    slope = rng.normal((x @ y) / (x @ x), 1 / np.sqrt(x @ x), (4, 500))
    normal = -0.5 * (y - slope[..., None] * x) ** 2
    counts = rng.poisson(20, 30)
    rate = rng.gamma(counts.sum(), 1 / 30, (4, 500))
    poisson = counts * np.log(rate[..., None]) - rate[..., None]
    for name, draws, likelihood in (("a", slope, normal), ("b", rate, poisson)):
        trace = finished(tmp_path / name, {"x": draws}, log_likelihood={"y": likelihood})
        before = trace.to_inferencedata()
        loo, summary = az.loo(before), trace.summary(round_to="none")
        trace.compact(ERROR)
        after = trace.to_inferencedata()
        assert trace.log_likelihood.y.attrs["rounding_error"] == ERROR
        compared = az.loo(after)
        elpd, error = ("elpd_loo", "se") if hasattr(loo, "elpd_loo") else ("elpd", "se")
        assert abs(compared[elpd] - loo[elpd]) < ERROR * loo[error] / 10
        new = trace.summary(round_to="none")
        errors = summary.filter(like="mcse_mean").to_numpy().ravel()
        assert (abs(new["mean"] - summary["mean"]) <= ERROR * errors).all()
        for diagnostic in ("ess_bulk", "ess_tail", "r_hat"):
            np.testing.assert_allclose(new[diagnostic], summary[diagnostic], rtol=0.05)


@pytest.mark.once("newest")
def test_what_has_no_known_error_stays_exact(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    good = rng.normal(size=(2, 300))
    odd = {
        "constant": np.ones((2, 300)),
        "nothing": np.full((2, 300), np.nan),
        "infinite": np.where(good > 2, np.inf, good),
        "count": rng.integers(0, 5, (2, 300)),
        "whole": rng.integers(0, 5, (2, 300)).astype(float),
        "is_big": good > 0,
    }
    stats = {"lp": good + 1, "energy": good - 1, "step_size": good * 0 + [[0.1], [0.3]]}
    trace = finished(tmp_path / "run.zarr", {"good": good, **odd}, sample_stats=stats)
    before = trace.to_datatree().load()
    trace.compact()
    after = trace.to_datatree()
    for name in odd:
        xr.testing.assert_identical(after["posterior"][name], before["posterior"][name])
    assert not after["posterior"]["good"].equals(before["posterior"]["good"])
    for name, changed in (("lp", False), ("energy", True), ("step_size", False)):
        assert after["sample_stats"][name].equals(before["sample_stats"][name]) != changed
    with xr.open_datatree(tmp_path / "run.zarr", engine="zarr") as plain:
        xr.testing.assert_identical(plain["posterior"].dataset.load(), after.posterior.dataset)
    assert trace.check() == []


@pytest.mark.once("oldest")
def test_it_is_refused_where_the_errors_are_not_known(tmp_path: Path) -> None:
    running = zt.create(tmp_path / "running", chains=1, draws=5, posterior={"x": 0.0})
    with pytest.raises(zt.errors.IncompleteTraceError, match="not finished"):
        running.compact()
    apart = finished(tmp_path / "apart", {"x": NORMAL + np.array([[0], [0], [0], [3]])})
    with pytest.raises(zt.errors.IncompleteTraceError, match="R-hat of x is"):
        apart.compact(dry_run=True)
    short = finished(tmp_path / "short", {"x": NORMAL[:2, :40]})
    with pytest.raises(zt.errors.IncompleteTraceError, match="effective draws"):
        short.compact()
    assert short.compact(force=True).largest["posterior/x"] > 0
    for error in (0, -1, 2, "1/16", True, np.nan):
        with pytest.raises(zt.errors.InvalidInputError, match="Monte Carlo error"):
            apart.compact(error)  # type: ignore[arg-type]


@pytest.mark.once("oldest")
def test_all_that_a_trace_was_stays_and_it_can_be_continued(tmp_path: Path) -> None:
    path = tmp_path / "run.zarr"
    exact = autoregressive(7, 0.5, (2, 450))
    trace = finished(path, {"x": exact}, tune=50)
    view = trace.posterior
    trace.compact(keep=tmp_path / "exact.zarr")
    with pytest.raises(zt.errors.StaleViewError, match="were rounded"):
        _ = view.x.values
    np.testing.assert_array_equal(zt.open(tmp_path / "exact.zarr").get("x"), exact[:, 50:])
    with pytest.raises(zt.errors.TraceExistsError):
        trace.compact(1, keep=tmp_path / "exact.zarr")
    rounded = trace.get("x")
    quantum = trace.posterior.x.attrs["rounded_to"]
    warmup = trace.get("x", group="warmup_posterior") / quantum
    assert (warmup == np.rint(warmup)).all()
    assert "1 of 1 floating-point variables are rounded to 1/16" in repr(trace)
    # Without another draw there is nothing left to do.
    before = (path / "_sampling_state/zarr.json").read_bytes()
    trace.compact()
    assert (path / "_sampling_state/zarr.json").read_bytes() == before
    trace.extend(400)
    more = autoregressive(8, 0.5, (2, 400))
    for chain in range(2):
        with trace.writer(chain) as writer:
            writer.resume()
            writer.record_block({"x": more[chain]})
    trace.set_burn_in(60)
    trace.finish()
    np.testing.assert_array_equal(trace.get("x"), np.hstack([rounded[:, 10:], more]))
    assert trace.posterior.x.attrs["rounded_to"] == quantum
    trace.compact()
    # A finer quantum by now; what was rounded before says so.
    assert trace.posterior.x.attrs["rounded_to"] == quantum
    assert trace.get("x")[0, -1] == more[0, -1]
    assert abs(trace.get("x")[0, 390] / quantum) % 1 in (0, 0.5)


@pytest.mark.once("newest")
def test_who_reads_meanwhile_gets_all_draws_exact_or_all_rounded(tmp_path: Path) -> None:
    draws = {f"x{number}": autoregressive(number, 0.3, (2, 300, 10)) for number in range(5)}
    trace = finished(tmp_path / "run.zarr", draws)
    before = trace.get(list(draws))
    found: list[dict[str, np.ndarray]] = []
    done = threading.Event()

    def read() -> None:
        reader = zt.open(tmp_path / "run.zarr")
        while not done.is_set():
            # The draws may be rounded between the beginning and the end of a call.
            with suppress(zt.errors.StaleViewError):
                found.append(reader.get(list(draws)))

    thread = threading.Thread(target=read)
    thread.start()
    while thread.is_alive() and not found:
        time.sleep(0.001)
    trace.compact()
    done.set()
    thread.join()
    after = trace.get(list(draws))
    assert found
    for one in found:
        assert any(
            all(np.array_equal(one[name], state[name]) for name in draws)
            for state in (before, after)
        )


@pytest.mark.once("newest")
def test_the_command_says_what_it_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(tmp_path / "run.zarr")
    trace = finished(tmp_path / "run.zarr", {"x": NORMAL, "n": NORMAL > 0})
    exact = trace.get("x")
    assert zarrtrace(["compact", path, "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "posterior/n" in said
    assert "2^-9" in said
    assert "exact" in said
    assert "times smaller" in said
    np.testing.assert_array_equal(trace.get("x"), exact)
    assert zarrtrace(["compact", path, "--keep"]) == 0
    assert capsys.readouterr().out.startswith("Rounded bits are gone for good")
    np.testing.assert_array_equal(zt.open(tmp_path / "run-exact.zarr").get("x"), exact)
    assert zarrtrace(["info", path]) == 0
    said = capsys.readouterr().out
    assert "float64, rounded to 2^-9" in said
    assert zarrtrace(["compact", path, "--error", "3"]) == 1


@pytest.mark.once("newest")
def test_draws_are_rounded_when_their_chunk_is_written(tmp_path: Path) -> None:
    exact = np.random.default_rng(0).normal(size=(25, 3))
    trace = zt.create(
        tmp_path / "run.zarr",
        chains=1,
        draws=25,
        draws_per_chunk=10,
        posterior={
            "x": zt.Var(shape=3, rounded_to=2**-10),
            "y": zt.Var(shape=3, significant_bits=12, dtype="complex128"),
            "z": zt.Var(shape=3),
        },
    )
    with trace.writer(0) as writer:
        writer.record_block({"x": exact, "y": exact * (1 + 1j), "z": exact})
        found = trace.get(["x", "y"], chains=0, flatten=True)
        # The journal has all bits.
        np.testing.assert_array_equal(found["x"][20:], exact[20:])
        np.testing.assert_array_equal(found["x"][:20] * 2**10, np.rint(exact[:20] * 2**10))
    trace.finish()
    found = trace.get(["x", "y", "z"], flatten=True)
    np.testing.assert_array_equal(found["x"] * 2**10, np.rint(exact * 2**10))
    assert 0 < np.abs(found["y"].imag / exact - 1).max() < 2**-12
    np.testing.assert_array_equal(found["z"], exact)
    assert trace.posterior.x.attrs["rounded_to"] == 2**-10
    assert trace.posterior.y.attrs["significant_bits"] == 12
    with xr.open_datatree(tmp_path / "run.zarr", engine="zarr") as plain:
        np.testing.assert_array_equal(plain.posterior.x.values[0], found["x"])


@pytest.mark.once("oldest")
@pytest.mark.parametrize(
    "options",
    [
        {"rounded_to": 0.1},
        {"rounded_to": 0},
        {"rounded_to": -1.0},
        {"rounded_to": np.inf},
        {"rounded_to": "1"},
        {"significant_bits": 0},
        {"significant_bits": 1.5},
        {"significant_bits": 60},
        {"significant_bits": 5, "rounded_to": 1.0},
        {"rounded_to": 1.0, "dtype": int},
    ],
)
def test_a_rounding_that_means_nothing_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(zt.errors.SchemaError, match="posterior/x"):
        zt.create(None, chains=1, draws=1, posterior={"x": zt.Var(**options)})


@pytest.mark.once("oldest")
def test_a_column_of_a_table_is_not_rounded() -> None:
    with pytest.raises(zt.errors.SchemaError, match="not rounded"):
        zt.table.open(None, {"x": zt.Var(rounded_to=0.5)})


@pytest.mark.once("newest")
def test_rounding_keeps_signs_infinities_and_what_does_not_fit() -> None:
    values = np.array([0.0, -0.0, 1e-300, -1e-300, 5e-324, np.inf, -np.inf, np.nan, 1e308, 2.6])
    expected = [0.0, -0.0, 1.0, -1.0, 1.0, np.inf, -np.inf, np.nan, 1e308, 3.0]
    rounded = round_to(values, np.array(0))
    np.testing.assert_array_equal(rounded, expected)
    np.testing.assert_array_equal(np.signbit(rounded), np.signbit(expected))
    np.testing.assert_array_equal(round_to(values, np.array(EXACT)), values)
    most = np.array([65504, 65504], "float16")
    np.testing.assert_array_equal(round_to(most, np.array(10)), most)
    np.testing.assert_array_equal(round_bits(most, 3), most)
    np.testing.assert_array_equal(round_bits(values, 53), values)
