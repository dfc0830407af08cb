"""`pm.sample(trace=ZarrTrace(...))` is a drop-in: the same draws, on disk, under ArviZ's names."""

from __future__ import annotations

import logging
import os
import signal
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

pm = pytest.importorskip("pymc")

import zarrtrace as zt
from zarrtrace.adapters.pymc import ZarrTrace
from zarrtrace.errors import IncompleteTraceError, InvalidInputError, TraceExistsError
from zarrtrace.recording.row_plan import Target

# PyMC forks by default, as do its users, and Python 3.12 says that threads do not like it.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning"),
    # A PyTensor from PyPI brings no BLAS.
    pytest.mark.filterwarnings("ignore:PyTensor could not link to a BLAS"),
    pytest.mark.filterwarnings("ignore:.*return_inferencedata=False:FutureWarning"),
]

# They measure the clock, not the chain.
TIMES = {"perf_counter_start", "perf_counter_diff", "process_time_diff"}
WARNINGS = {"warning_kind", "warning_level", "warning_step"}


@pytest.fixture(scope="module")
def mixed() -> Any:
    """Continuous and discrete variables, a transform, a deterministic, labels, data."""
    with pm.Model(coords={"school": ["a", "b", "c"]}) as model:
        offset = pm.Data("offset", np.array([0.5, 0.0, -0.5]), dims="school")
        mu = pm.Normal("mu", 0, 1)
        tau = pm.HalfNormal("tau", 1)
        theta = pm.Normal("theta", mu, tau, dims="school")
        pm.Poisson("count", 3)
        pm.Poisson("other", 2)
        pm.Deterministic("double", 2 * theta, dims="school")
        pm.Normal("y", theta + offset, 1, observed=np.arange(3.0), dims="school")
    return model


@pytest.fixture(scope="module")
def normal() -> Any:
    with pm.Model() as model:
        mu = pm.Normal("mu", 0, 1)
        sigma = pm.HalfNormal("sigma", 1)
        pm.Normal("y", mu, sigma, observed=np.arange(3.0))
    return model


def sample(model: Any, trace: Any = None, **options: Any) -> Any:
    defaults = {"draws": 40, "tune": 30, "chains": 2, "cores": 1, "random_seed": 5}
    # With nutpie installed, PyMC 6 would draw with that where no trace is given.
    quiet = {
        "progressbar": False,
        "compute_convergence_checks": False,
        "nuts_sampler": "pymc",
    }
    with model:
        return pm.sample(trace=trace, **{**defaults, **quiet, **options})


@pytest.fixture(scope="module")
def default_run(mixed: Any) -> Any:
    """The mixed model in PyMC's own trace in memory."""
    return sample(mixed, discard_tuned_samples=False)


def assert_same(found: Any, expected: Any, groups: tuple[str, ...]) -> None:
    """The same draws, dtypes, dimensions and statistics as the default trace."""
    for group in groups:
        ours, theirs = found[group], expected[group]
        assert set(ours.data_vars) - WARNINGS == set(theirs.data_vars)
        for name in set(theirs.data_vars) - TIMES:
            assert ours[name].dims == theirs[name].dims, name
            assert ours[name].dtype == theirs[name].dtype, name
            if name == "lp" and not theirs[name].any():
                # Steps in a compound do not report it: 0 in the default trace, missing in ours.
                assert np.isnan(ours[name]).all()
                continue
            equal = np.array_equal(ours[name], theirs[name], equal_nan=ours[name].dtype.kind == "f")
            assert equal, f"{group}/{name}"


# The same draws ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "start",
    [
        None,
        "fork",
        pytest.param("forkserver", marks=pytest.mark.once("newest")),
        pytest.param("spawn", marks=pytest.mark.once("oldest")),
    ],
)
def test_the_draws_are_those_of_the_default_trace_however_processes_start(
    start: str | None, mixed: Any, default_run: Any, tmp_path: Path
) -> None:
    how = {"cores": 1} if start is None else {"cores": 2, "mp_ctx": start}
    found = sample(mixed, ZarrTrace(tmp_path / "run.zarr"), discard_tuned_samples=False, **how)
    sampled = ("posterior", "sample_stats", "warmup_posterior", "warmup_sample_stats")
    assert_same(found, default_run, sampled)
    assert found["observed_data"]["y"].equals(default_run["observed_data"]["y"])
    assert found["constant_data"]["offset"].values.tolist() == [0.5, 0.0, -0.5]
    assert found["posterior"]["school"].values.tolist() == ["a", "b", "c"]


@pytest.mark.parametrize("method", ["NUTS", "Metropolis", "DEMetropolisZ", "Slice"])
def test_the_draws_of_each_step_method_are_those_of_the_default_trace(
    method: str, normal: Any, tmp_path: Path
) -> None:
    with normal:
        # One each: Slice continues with the widths of the run before.
        first, second = (getattr(pm, method)() for _ in range(2))
    expected = sample(normal, step=first)
    found = sample(normal, ZarrTrace(tmp_path / "run.zarr"), step=second)
    assert_same(found, expected, ("posterior", "sample_stats"))


def test_a_population_of_chains_is_recorded(normal: Any, tmp_path: Path) -> None:
    options = {"chains": 3, "draws": 10, "tune": 5}
    with normal:
        step = pm.DEMetropolis()
    with pytest.warns(UserWarning, match="cannot be resumed"):
        found = sample(normal, ZarrTrace(tmp_path / "run.zarr"), step=step, **options)
    assert_same(found, sample(normal, step=step, **options), ("posterior",))


def test_a_finished_run_opens_without_pymc_and_without_zarrtrace(
    mixed: Any, tmp_path: Path
) -> None:
    xr = pytest.importorskip("xarray")
    found = sample(mixed, ZarrTrace(tmp_path / "run.zarr"))
    with xr.open_datatree(tmp_path / "run.zarr", engine="zarr") as tree:
        assert np.array_equal(tree["posterior"]["theta"], found["posterior"]["theta"])
    trace = zt.open(tmp_path / "run.zarr")
    assert trace.finished
    assert trace.posterior.attrs["inference_library"] == "pymc"


def test_in_memory_the_main_process_records(normal: Any) -> None:
    trace = ZarrTrace()
    with pytest.warns(UserWarning, match="MemoryStore"):
        found = sample(normal, trace, cores=2)
    assert_same(found, sample(normal), ("posterior", "sample_stats"))


# What is stored, and how pm.sample is asked -----------------------------------------------


def test_var_names_choose_what_is_stored(mixed: Any, tmp_path: Path) -> None:
    found = sample(mixed, ZarrTrace(tmp_path / "run.zarr"), var_names=["double", "mu"])
    assert set(found["posterior"].data_vars) == {"double", "mu"}


def test_transformed_variables_have_a_group_of_their_own(normal: Any, tmp_path: Path) -> None:
    trace = ZarrTrace(tmp_path / "run.zarr", include_transformed=True)
    found = sample(normal, trace)
    assert set(found["unconstrained_posterior"].data_vars) == {"sigma_log__"}
    unconstrained = found["unconstrained_posterior"]["sigma_log__"]
    assert np.allclose(np.exp(unconstrained), found["posterior"]["sigma"])
    assert trace.unconstrained_posterior.sizes == {"chain": 2, "draw": 40}


@pytest.mark.parametrize("discard", [True, False])
@pytest.mark.parametrize("as_data", [True, False])
def test_the_result_is_what_was_asked_for(
    discard: bool, as_data: bool, normal: Any, tmp_path: Path
) -> None:
    trace = ZarrTrace(tmp_path / "run.zarr")
    found = sample(
        normal, trace, discard_tuned_samples=discard, return_inferencedata=as_data, chains=1
    )
    if not as_data:
        assert found is trace
        found = trace.to_inferencedata(save_warmup=not discard)
    groups = list(found.children) if hasattr(found, "children") else found.groups()
    assert ("warmup_posterior" in groups) is (not discard)
    assert found["posterior"].sizes["draw"] == 40
    assert trace.trace.finished


def test_divergences_are_warned_of_and_kept_as_numbers(
    normal: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with normal:
        too_long = pm.NUTS(step_scale=2.5, adapt_step_size=False)
    with caplog.at_level(logging.INFO):
        found = sample(
            normal,
            ZarrTrace(tmp_path / "run.zarr"),
            step=too_long,
            compute_convergence_checks=True,
        )
    diverging = found["sample_stats"]["diverging"].values
    assert 0 < diverging.sum() < diverging.size
    assert "after tuning" in caplog.text
    kind = found["sample_stats"]["warning_kind"]
    meanings = kind.attrs["flag_meanings"].split()
    assert [meanings[number] for number in np.unique(kind.values[diverging])] == ["DIVERGENCE"]
    assert not kind.values[~diverging].any()
    assert (found["sample_stats"]["warning_level"].values[diverging] == logging.DEBUG).all()
    assert (found["sample_stats"]["warning_step"].values[diverging] >= 30).all()


def test_labels_of_every_kind_are_kept(tmp_path: Path) -> None:
    pd = pytest.importorskip("pandas")
    labels = {
        "number": [10, 20],
        "day": pd.date_range("2024-01-01", periods=2),
        "pair": pd.MultiIndex.from_tuples([("a", 1), ("b", 2)]),
        "mixed": ["a", 2],
    }
    with pm.Model(coords=labels) as model:
        for dim in labels:
            pm.Normal(f"x_{dim}", dims=dim)
    found = sample(model, ZarrTrace(tmp_path / "run.zarr"), chains=1, draws=5, tune=5)
    posterior = found["posterior"]
    assert posterior["number"].values.tolist() == [10, 20]
    assert posterior["day"].values.astype("M8[D]").astype(str).tolist() == [
        "2024-01-01",
        "2024-01-02",
    ]
    assert posterior["pair"].values.tolist() == ["a, 1", "b, 2"]
    assert posterior["mixed"].values.tolist() == ["a", "2"]


# The surface of the original --------------------------------------------------------------


def test_it_has_the_methods_and_properties_of_the_original(mixed: Any, tmp_path: Path) -> None:
    trace = ZarrTrace(tmp_path / "run.zarr", None, None, 8, False)
    sample(mixed, trace, return_inferencedata=False)
    assert [chain.chain for chain in trace.straces] == [0, 1]
    assert [len(chain) for chain in trace.straces] == [70, 70]
    assert trace.tuning_steps == 30
    assert trace.sampling_time > 0
    assert {"posterior", "warmup_posterior", "sample_stats", "constant_data"} <= set(trace.groups())
    assert trace.posterior["mu"].attrs["kind"] == "freeRV"
    assert trace.posterior["double"].attrs["kind"] == "deterministic"
    assert trace.sample_stats.sizes["draw"] == 40
    assert trace.constant_data["offset"].dims == ("school",)
    assert trace.observed_data["y"].dims == ("school",)
    with pytest.raises(RuntimeError, match="already been split"):
        trace.split_warmup("posterior")
    trace.split_warmup("posterior", error_if_already_split=False)
    assert trace.create_group("predictions_constant_data", {}) is None
    added = trace.create_group("predictions_constant_data", {"offset": np.zeros(3)})
    assert added is not None
    assert added["offset"].dims == ("school",)
    for refused in (
        lambda: trace.init_group_with_empty("posterior", {}, 2, 10),
        lambda: trace.init_sampling_state_group(tune=1, chains=2),
    ):
        with pytest.raises(InvalidInputError, match="init_trace"):
            refused()


@pytest.mark.once("newest")
def test_a_trace_that_thins_is_refused_pymc_counts_what_it_draws(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="thin: PyMC counts"):
        ZarrTrace(tmp_path / "run.zarr", thin=2)


def test_before_sampling_there_is_no_trace(tmp_path: Path) -> None:
    trace = ZarrTrace(tmp_path / "run.zarr")
    with pytest.raises(ValueError, match=r"zarrtrace\.open"):
        _ = trace.posterior
    assert not (tmp_path / "run.zarr").exists()


# Ctrl-C -----------------------------------------------------------------------------------


def interrupt(at: int) -> Any:
    """A callback that presses Ctrl-C after this draw of the first chain."""

    def callback(trace: Any, draw: Any) -> None:
        if draw.chain == 0 and draw.draw_idx == at:
            os.kill(os.getpid(), signal.SIGINT)

    return callback


def test_ctrl_c_keeps_every_draw_and_gives_the_longest_chains(normal: Any, tmp_path: Path) -> None:
    found = sample(normal, ZarrTrace(tmp_path / "run.zarr"), callback=interrupt(39))
    trace = zt.open(tmp_path / "run.zarr")
    assert trace.recorded.tolist() == [40, 70]
    # One chain of 40 draws is more than two of 10.
    assert found["posterior"].sizes == {"chain": 1, "draw": 40}
    whole = sample(normal)
    assert np.array_equal(trace.get("mu", chains=0)[0], whole["posterior"]["mu"][0, :10])
    assert np.array_equal(found["posterior"]["mu"][0], whole["posterior"]["mu"][1])
    assert not trace.finished, "resume() can continue"


def test_ctrl_c_during_tuning_says_what_is_there(normal: Any, tmp_path: Path) -> None:
    with pytest.raises(IncompleteTraceError, match="recorded are 20, and"):
        sample(normal, ZarrTrace(tmp_path / "run.zarr"), chains=1, callback=interrupt(19))
    assert zt.open(tmp_path / "run.zarr").get("mu", group="warmup_posterior").shape == (1, 20)


# Bad input --------------------------------------------------------------------------------


def test_a_used_store_is_left_as_it_is(normal: Any, tmp_path: Path) -> None:
    first = sample(normal, ZarrTrace(tmp_path / "run.zarr"), chains=1)
    with pytest.raises(TraceExistsError, match="overwrite=True") as raised:
        sample(normal, ZarrTrace(tmp_path / "run.zarr"), chains=1, random_seed=6)
    assert "zarrtrace.adapters.pymc.resume(path, model)" in raised.value.remedy
    assert np.array_equal(zt.open(tmp_path / "run.zarr").get("mu"), first["posterior"]["mu"])
    again = ZarrTrace(tmp_path / "run.zarr", overwrite=True)
    second = sample(normal, again, chains=1, random_seed=6)
    assert not np.array_equal(zt.open(tmp_path / "run.zarr").get("mu"), first["posterior"]["mu"])
    with pytest.raises(RuntimeError, match="make another"):
        sample(normal, again, chains=1)
    assert np.array_equal(zt.open(tmp_path / "run.zarr").get("mu"), second["posterior"]["mu"])


def test_a_model_without_free_variables_makes_no_trace(tmp_path: Path) -> None:
    with pm.Model() as empty:
        pm.Normal("y", observed=[1.0])
    with pytest.raises(pm.exceptions.SamplingError, match="free variables"):
        sample(empty, ZarrTrace(tmp_path / "run.zarr"))
    assert not (tmp_path / "run.zarr").exists()


def test_a_statistic_of_another_dtype_than_declared_is_converted(
    normal: Any, tmp_path: Path
) -> None:
    class Loose(pm.Metropolis):
        def astep(self, q0: Any) -> Any:
            point, [stats] = super().astep(q0)
            return point, [{**stats, "accepted": True, "scaling": np.float32(1)}]

    with normal:
        step = Loose()
    with pytest.warns(UserWarning, match="cannot be resumed"):
        found = sample(normal, ZarrTrace(tmp_path / "run.zarr"), step=step, chains=1)
    assert found["sample_stats"]["accepted"].dtype == np.float64
    assert (found["sample_stats"]["accepted"] == 1).all()


def test_python_objects_in_statistics_are_kept_as_text(normal: Any, tmp_path: Path) -> None:
    class Talking(pm.Slice):
        stats_dtypes_shapes: ClassVar[Any] = {
            **pm.Slice.stats_dtypes_shapes,
            "said": (object, None),
        }

        def astep(self, apoint: Any) -> Any:
            point, [stats] = super().astep(apoint)
            return point, [{**stats, "said": {"a": 1}}]

    with normal:
        step = Talking([normal["mu"], normal["sigma"]], blocked=True)
    with pytest.warns(UserWarning, match="cannot be resumed"):
        found = sample(normal, ZarrTrace(tmp_path / "run.zarr"), step=step, chains=1, draws=3)
    assert found["sample_stats"]["said"].values.tolist() == [["{'a': 1}"] * 3]


def test_the_numbers_of_every_draw_are_packed_by_one_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one_by_one: set[str] = set()
    put = Target.put

    def counting(self: Target, values: Any, chains: range, draw: int) -> None:
        one_by_one.add(f"{self.variable.group}/{self.name}")
        put(self, values, chains, draw)

    monkeypatch.setattr(Target, "put", counting)
    trace = ZarrTrace(tmp_path / "run.zarr")
    with pm.Model():
        pm.Normal("a")
        pm.HalfNormal("s")
        pm.sample(
            20, tune=20, chains=1, cores=1, trace=trace, progressbar=False, random_seed=1,
            compute_convergence_checks=False,
        )  # fmt: skip
    stats = zt.open(tmp_path / "run.zarr").sample_stats
    assert "lp" in stats
    packed = {name for name, array in stats.data_vars.items() if array.dtype.kind in "iuf"}
    assert len(packed) > 5
    assert not {name for name in one_by_one if name.removeprefix("sample_stats/") in packed}
    assert not {name for name in one_by_one if name.startswith("posterior/")}


@pytest.mark.filterwarnings("ignore:Passing `log_likelihood`:FutureWarning")
def test_the_log_likelihood_is_kept_in_the_trace(normal: Any, tmp_path: Path) -> None:
    trace = ZarrTrace(tmp_path / "run.zarr")
    found = sample(normal, trace, idata_kwargs={"log_likelihood": True})
    kept = zt.open(tmp_path / "run.zarr").log_likelihood
    assert kept.y.dims == found["log_likelihood"].y.dims
    assert np.array_equal(kept.y, found["log_likelihood"].y)
    assert "log_prior" not in trace.groups()
