"""Results of other libraries become traces: every value, and what they lacked."""

from __future__ import annotations

import importlib.metadata
import json
import tracemalloc
from pathlib import Path
from typing import Any

import arviz as az
import numpy as np
import pandas as pd
import pytest
import xarray as xr

import zarrtrace as zt
from zarrtrace.adopt import from_datatree
from zarrtrace.errors import InvalidInputError, SchemaError, TraceExistsError, TraceNotFoundError
from zarrtrace.results import read_result

OLD_ARVIZ = importlib.metadata.version("arviz").startswith("0.")
RNG = np.random.default_rng(5)
SCHOOLS = ["Choate", "Deerfield", "Andover"]
CHAINS, TUNE, DRAWS = 3, 4, 10

POSTERIOR = {"mu": RNG.normal(size=(CHAINS, DRAWS)), "theta": RNG.normal(size=(CHAINS, DRAWS, 3))}
STATS = {"lp": RNG.normal(size=(CHAINS, DRAWS)), "diverging": RNG.random((CHAINS, DRAWS)) < 0.3}
GROUPS = {
    "posterior": POSTERIOR,
    "posterior_predictive": {"y": RNG.normal(size=(CHAINS, DRAWS, 3))},
    "log_likelihood": {"y": RNG.normal(size=(CHAINS, DRAWS, 3))},
    "sample_stats": STATS,
    "prior": {"mu": RNG.normal(size=(1, 7))},
    "observed_data": {"y": np.array([28.0, 8.0, -3.0])},
}
DIMS, COORDS = {"theta": ["school"], "y": ["school"]}, {"school": SCHOOLS}


def arviz_result() -> Any:
    """What ArviZ itself makes: InferenceData, or with ArviZ 1.x a DataTree."""
    if OLD_ARVIZ:
        return az.from_dict(**GROUPS, dims=DIMS, coords=COORDS)
    return az.from_dict(GROUPS, dims=DIMS, coords=COORDS)


def tree(**groups: Any) -> xr.DataTree:
    return xr.DataTree.from_dict({name: xr.Dataset(data) for name, data in groups.items()})


def sampled(values: Any, *dims: str) -> tuple[tuple[str, ...], Any]:
    return ("chain", "draw", *dims), values


def check_adopted(trace: zt.Trace) -> None:
    assert trace.finished
    for group, variables in GROUPS.items():
        for name, values in variables.items():
            found = trace[group][name]
            assert np.array_equal(found.values, values), (group, name)
            assert found.dtype == values.dtype
            assert found.dims[2 * (group != "observed_data") :] == tuple(DIMS.get(name, ()))
    assert trace.posterior.school.values.tolist() == SCHOOLS
    assert trace.posterior.draw.values.tolist() == list(range(DRAWS))


# What ArviZ made ------------------------------------------------------------------------------


def test_every_value_of_a_result_of_arviz_is_there(tmp_path: Path) -> None:
    trace = from_datatree(arviz_result(), tmp_path / "run.zarr")
    check_adopted(zt.open(tmp_path / "run.zarr"))
    assert trace.groups == tuple(
        sorted(GROUPS, key=["posterior", "posterior_predictive", "log_likelihood", "sample_stats",
                            "prior", "observed_data"].index)
    )  # fmt: skip


def test_a_netcdf_file_is_adopted_by_its_path(tmp_path: Path) -> None:
    arviz_result().to_netcdf(tmp_path / "result.nc")
    trace = from_datatree(tmp_path / "result.nc", tmp_path / "run.zarr")
    check_adopted(trace)
    # The file is not held: it can be replaced.
    arviz_result().to_netcdf(tmp_path / "result.nc")


# What zarr 3.1 says of the text that xarray writes.
@pytest.mark.filterwarnings("ignore:The data type:Warning")
def test_a_zarr_hierarchy_is_adopted_by_its_path(tmp_path: Path) -> None:
    result = arviz_result()
    (result.to_datatree() if OLD_ARVIZ else result).to_zarr(
        tmp_path / "result.zarr", consolidated=False
    )
    check_adopted(from_datatree(str(tmp_path / "result.zarr"), tmp_path / "run.zarr"))


def test_a_trace_is_adopted_too(tmp_path: Path) -> None:
    from_datatree(arviz_result(), tmp_path / "first.zarr")
    check_adopted(from_datatree(tmp_path / "first.zarr", tmp_path / "second.zarr"))


def test_a_dataset_is_a_posterior() -> None:
    trace = from_datatree(xr.Dataset({"mu": sampled(POSTERIOR["mu"])}), None)
    assert np.array_equal(trace.get("mu"), POSTERIOR["mu"])
    assert trace.groups == ("posterior",)


def test_warmup_is_warmup(tmp_path: Path) -> None:
    warmup = RNG.normal(size=(CHAINS, TUNE))
    result = tree(
        posterior={"mu": sampled(POSTERIOR["mu"])},
        warmup_posterior={"mu": sampled(warmup)},
        log_likelihood={"y": sampled(GROUPS["log_likelihood"]["y"], "school")},
    )
    trace = from_datatree(result, tmp_path / "run.zarr")
    assert (trace.tune, trace.draws) == (TUNE, DRAWS)
    assert np.array_equal(trace.get("mu", group="warmup_posterior"), warmup)
    assert np.array_equal(trace.get("mu"), POSTERIOR["mu"])
    # What has no warmup of its own is there as it was.
    assert np.array_equal(trace.log_likelihood.y, GROUPS["log_likelihood"]["y"])
    opened = zt.open(tmp_path / "run.zarr", mode="a")
    opened.split_warmup(2)
    assert np.array_equal(opened.get("mu")[:, : TUNE - 2], warmup[:, 2:])


# nutpie, emcee --------------------------------------------------------------------------------


def test_a_zarr_trace_of_nutpie_gets_what_it_lacks(tmp_path: Path) -> None:
    nutpie = pytest.importorskip("nutpie")
    from nutpie.compiled_pyfunc import from_pyfunc

    def density() -> Any:
        return lambda x: (-0.5 * float(x @ x), -x)

    def expand(*seeds: Any) -> Any:
        return lambda x: {"x": np.asarray(x)}

    model = from_pyfunc(2, density, expand, [np.dtype("float64")], [(2,)], ["x"])
    (tmp_path / "nutpie.zarr").mkdir()
    nutpie.sample(
        model, chains=2, tune=30, draws=40, seed=1, progress_bar=False,
        zarr_store=nutpie.zarr_store.LocalStore(str(tmp_path / "nutpie.zarr")),
    )  # fmt: skip
    trace = from_datatree(tmp_path / "nutpie.zarr", tmp_path / "run.zarr")

    there = xr.open_datatree(tmp_path / "nutpie.zarr", engine="zarr", consolidated=False)
    assert (trace.tune, trace.draws) == (30, 40)
    assert np.array_equal(trace.get("x"), there.posterior.x)
    stats, before = trace.sample_stats, there.sample_stats
    for name, original in {"lp": "logp", "tree_depth": "depth", "diverging": "diverging",
                           "acceptance_rate": "mean_tree_accept"}.items():  # fmt: skip
        assert np.array_equal(stats[name], before[original]), name
    assert np.array_equal(trace.get("lp", group="warmup_sample_stats"),
                          there.warmup_sample_stats.logp)  # fmt: skip
    assert stats.chain.values.tolist() == [0, 1]
    assert stats.attrs["inference_library"] == "nutpie"
    assert json.loads(stats.attrs["sampler_settings"])["num_tune"] == 30
    trace.to_datatree().to_netcdf(tmp_path / "result.nc", engine="h5netcdf")
    there.close()


def run_emcee(path: Path, *, blobs: bool) -> Any:
    """A sampler whose run was killed: its file has room for 125 steps, and 30 were made."""
    emcee = pytest.importorskip("emcee")

    def log_density(x: Any) -> Any:
        lp = -0.5 * np.sum(x**2)
        return (lp, 2 * x[0], b"left" if x[0] < 0 else b"right") if blobs else lp

    backend = emcee.backends.HDFBackend(str(path))
    backend.reset(20, 2)
    dtype = [("twice", float), ("side", "S5")] if blobs else None
    sampler = emcee.EnsembleSampler(20, 2, log_density, backend=backend, blobs_dtype=dtype)
    state = sampler.run_mcmc(np.random.default_rng(1).normal(size=(20, 2)), 25)
    for _ in zip(range(5), sampler.sample(state, iterations=100), strict=False):
        pass
    return sampler


def test_an_hdf5_file_of_emcee_is_cut_where_it_ended(tmp_path: Path) -> None:
    backend = run_emcee(tmp_path / "run.h5", blobs=True).backend
    trace = from_datatree(tmp_path / "run.h5", tmp_path / "run.zarr")
    assert (trace.chains, trace.draws) == (20, backend.iteration) == (20, 30)
    assert np.array_equal(trace.get("x"), backend.get_chain().swapaxes(0, 1))
    assert np.array_equal(trace.get("lp"), backend.get_log_prob().T)
    blobs = backend.get_blobs().T
    assert np.array_equal(trace.get("twice"), blobs["twice"])
    assert trace.get("side").tolist() == blobs["side"].astype(str).tolist()
    assert trace.posterior.attrs["inference_library"] == "emcee"
    assert trace.blocks == [range(20)]


def test_what_arviz_makes_of_emcee_is_adopted(tmp_path: Path) -> None:
    sampler = run_emcee(tmp_path / "run.h5", blobs=False)
    trace = from_datatree(az.from_emcee(sampler), None)
    assert np.array_equal(trace.get("lp"), sampler.get_log_prob().T)
    assert np.array_equal(trace.get("var_1"), sampler.get_chain()[:, :, 1].T)


# What results lack ----------------------------------------------------------------------------


def test_chains_that_were_cut_off_end_where_they_ended() -> None:
    mu, theta = POSTERIOR["mu"].copy(), POSTERIOR["theta"].copy()
    mu[1, 6:], theta[1, 6:] = np.nan, np.nan
    mu[2], theta[2] = np.nan, np.nan
    mu[0, 3:5] = np.nan  # in the midst, and theta is there: a value like any other
    mu[0, -1] = np.nan
    likelihood = GROUPS["log_likelihood"]["y"]
    result = tree(
        posterior={"mu": sampled(mu), "theta": sampled(theta, "school")},
        predictions={"y": sampled(likelihood, "school")},
        sample_stats={"diverging": sampled(STATS["diverging"])},
    )
    trace = from_datatree(result, None)
    assert trace.recorded.tolist() == [10, 6]
    assert trace.posterior.attrs["draws_recorded"] == [10, 6]
    assert trace.posterior.attrs["adopted_chains"] == [0, 1]
    whole = trace.dataset("posterior", chains=0)
    assert np.array_equal(whole.mu.values[0], mu[0], equal_nan=True)
    assert np.array_equal(trace.get("theta"), theta[:2, :6])
    assert np.array_equal(trace.get("diverging"), STATS["diverging"][:2, :6])
    assert np.array_equal(trace.predictions.y, likelihood[:2, :6])


def test_labels_of_chains_are_kept_as_an_attribute() -> None:
    data = xr.Dataset({"mu": sampled(POSTERIOR["mu"])}, {"chain": [1, 2, 4]})
    trace = from_datatree(data, None)
    assert trace.posterior.chain.values.tolist() == [0, 1, 2]
    assert trace.posterior.attrs["adopted_chains"] == [1, 2, 4]


def test_dimensions_come_in_any_order() -> None:
    result = tree(
        posterior={"theta": (("school", "draw", "chain"), POSTERIOR["theta"].transpose(2, 1, 0))},
        observed_data={"y": ("school", [1.0, 2.0, 3.0])},
    )
    assert np.array_equal(from_datatree(result, None).get("theta"), POSTERIOR["theta"])


def test_one_chain_without_its_dimension_is_a_chain() -> None:
    trace = from_datatree(xr.Dataset({"mu": ("draw", POSTERIOR["mu"][0])}), None)
    assert np.array_equal(trace.get("mu"), POSTERIOR["mu"][:1])


def test_what_does_not_depend_on_the_draw_is_kept_apart() -> None:
    matrix = RNG.normal(size=(CHAINS, 2))
    result = tree(
        posterior={"mu": sampled(POSTERIOR["mu"])},
        sample_stats={"lp": sampled(STATS["lp"]), "inv_metric": (("chain", "q"), matrix),
                      "nothing": (("chain", "event"), np.zeros((CHAINS, 0)))},
    )  # fmt: skip
    trace = from_datatree(result, None)
    assert np.array_equal(trace.constant_sample_stats.inv_metric, matrix)
    assert list(trace.sample_stats) == ["lp"]


def test_labels_of_every_kind_are_there() -> None:
    regions = pd.MultiIndex.from_product([["north", "south"], [1, 2]], names=["side", "number"])
    theta = xr.Dataset(
        {"theta": sampled(np.ones((2, 3, 4)), "region")},
        xr.Coordinates.from_pandas_multiindex(regions, "region"),
    )
    theta = theta.assign_coords(area=("region", [1.5, 2.5, 3.5, 4.5]))
    trace = from_datatree(xr.DataTree.from_dict({"posterior": theta}))
    found = trace.posterior
    assert found.region.values.tolist() == ["north, 1", "north, 2", "south, 1", "south, 2"]
    assert found.side.dims == ("region",)
    assert found.number.values.tolist() == [1, 2, 1, 2]
    assert trace.constant_posterior.area.values.tolist() == [1.5, 2.5, 3.5, 4.5]


@pytest.mark.parametrize("labels", [{"school": ["new", "old"]}, {}], ids=["labels", "no labels"])
def test_predictions_for_others_have_their_own_labels(labels: Any) -> None:
    mine = xr.Dataset({"theta": sampled(POSTERIOR["theta"], "school")}, COORDS)
    y = RNG.normal(size=(CHAINS, DRAWS, 2))
    result = {"posterior": mine, "predictions": xr.Dataset({"y": sampled(y, "school")}, labels)}
    trace = from_datatree(xr.DataTree.from_dict(result))
    assert trace.posterior.school.values.tolist() == SCHOOLS
    assert trace.predictions.school.values.tolist() == labels.get("school", [0, 1])
    assert np.array_equal(trace.predictions.y, y)


def test_attributes_are_made_fit_for_netcdf(tmp_path: Path) -> None:
    units = {"unit": "m", "bad": None}
    result = tree(
        posterior={"mu": (("chain", "draw"), POSTERIOR["mu"], units)},
        observed_data={"y": ("school", [1.0, 2.0], units)},
    )
    result.attrs = {
        "name": "schools", "settings": {"tune": 5}, "seed": np.int64(3), "flag": True,
        "nothing": None, "weights": np.array([0.5, 1.0]), "sampling_time": 12.5,
        "inference_library": "mine", "created_at": "then",
    }  # fmt: skip
    trace = from_datatree(result, None, attrs={"seed": 4})
    attrs = trace.posterior.attrs
    assert json.loads(attrs["settings"]) == {"tune": 5}
    assert (attrs["seed"], attrs["flag"], attrs["weights"]) == (4, "true", [0.5, 1.0])
    assert (attrs["original_sampling_time"], attrs["inference_library"]) == (12.5, "mine")
    assert attrs["created_at"] != "then"
    assert "nothing" not in attrs
    assert trace.posterior.mu.attrs == trace.observed_data.y.attrs == {"unit": "m"}
    assert result.observed_data.y.attrs == units  # the result is as it was
    assert trace.to_datatree().attrs["name"] == "schools"
    trace.to_datatree().to_netcdf(tmp_path / "result.nc", engine="h5netcdf")


def test_objects_that_are_text_become_text() -> None:
    words = np.array([["a", None], [float("nan"), "bé"]], dtype=object)
    result = tree(
        posterior={"mu": sampled(np.ones((2, 2)))},
        sample_stats={"message": sampled(words), "code": sampled(np.array([[b"x"] * 2] * 2))},
        observed_data={"site": ("place", np.array(["a", "b"], dtype=object))},
    )
    trace = from_datatree(result, None)
    assert trace.get("message").tolist() == [["a", ""], ["", "bé"]]
    assert trace.get("code").tolist() == [["x", "x"], ["x", "x"]]
    assert trace.observed_data.site.values.tolist() == ["a", "b"]


def test_the_stats_of_stan_get_the_names_arviz_knows() -> None:
    stan = {"lp__": "lp", "accept_stat__": "acceptance_rate", "stepsize__": "step_size",
            "treedepth__": "tree_depth", "n_leapfrog__": "n_steps", "divergent__": "diverging",
            "energy__": "energy"}  # fmt: skip
    stats = {name: sampled(RNG.normal(size=(2, 3))) for name in stan}
    trace = from_datatree(tree(posterior={"mu": sampled(np.ones((2, 3)))}, sample_stats=stats))
    for name, known in stan.items():
        assert np.array_equal(trace.get(known), stats[name][1])


# Large results --------------------------------------------------------------------------------


def test_a_large_result_is_never_in_memory_as_a_whole(tmp_path: Path) -> None:
    size = (2, 3000, 2000)  # 96 MB
    with_chunks = {"x": {"chunks": (1, 100, 2000), "compressors": None}}
    source = xr.Dataset({"x": sampled(np.broadcast_to(np.arange(2000.0), size), "q")})
    xr.DataTree.from_dict({"posterior": source}).to_zarr(
        tmp_path / "large.zarr", encoding={"/posterior": with_chunks}, consolidated=False
    )
    tracemalloc.start()
    try:
        trace = from_datatree(tmp_path / "large.zarr", tmp_path / "run.zarr", compressors=None)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 60 * 2**20
    assert np.array_equal(trace.get("x", draws=slice(-1, None))[1, 0], np.arange(2000.0))


# Bad input ------------------------------------------------------------------------------------

ONES = {"mu": sampled(np.ones((2, 3)))}
BAD: dict[str, tuple[Any, type[Exception], str]] = {
    "no posterior": (tree(prior=ONES), InvalidInputError, r"this one has prior \(chain, draw\)"),
    "stacked": (
        tree(posterior={"mu": ("sample", np.ones(6))}), InvalidInputError, "unstack"
    ),
    "no draw": (
        tree(posterior={"mu": sampled(np.full((2, 3), np.nan))}), InvalidInputError, "is NaN"
    ),
    "no result": ([1, 2], InvalidInputError, "got list"),
    "nested": (
        xr.DataTree.from_dict({"posterior/a": xr.Dataset(ONES)}), SchemaError, "holds groups itself"
    ),
    "objects": (
        tree(posterior=ONES, sample_stats={"w": sampled(np.full((2, 3), object()))}),
        SchemaError, "sample_stats/w: holds a object",
    ),
    "another warmup": (
        tree(posterior=ONES, warmup_posterior={"nu": sampled(np.ones((2, 2)))}),
        SchemaError, r"have not the same .*: mu, nu; leave warmup_posterior out",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_adopted_says_why(name: str) -> None:
    result, kind, message = BAD[name]
    with pytest.raises(kind, match=message):
        from_datatree(result, None)


def test_a_place_with_a_trace_is_left_alone(tmp_path: Path) -> None:
    result = tree(posterior=ONES)
    from_datatree(result, tmp_path / "run.zarr")
    with pytest.raises(TraceExistsError, match="overwrite=True"):
        from_datatree(result, tmp_path / "run.zarr")
    assert from_datatree(result, tmp_path / "run.zarr", overwrite=True).finished


def test_a_path_that_holds_no_result_says_so(tmp_path: Path) -> None:
    with pytest.raises(TraceNotFoundError, match="there is nothing at"):
        read_result(tmp_path / "nothing.nc")
    (tmp_path / "notes.txt").write_text("no result")
    with pytest.raises(InvalidInputError, match="no netCDF file, Zarr hierarchy or HDF5 file"):
        read_result(tmp_path / "notes.txt")


def test_a_trace_that_is_not_finished_is_finished_first(tmp_path: Path) -> None:
    trace = zt.create(tmp_path / "run.zarr", chains=1, draws=5, posterior={"x": 0.0})
    with trace.writer(0) as writer:
        writer.record({"x": 1.0})
    with pytest.raises(InvalidInputError, match="is a trace that is not finished"):
        from_datatree(tmp_path / "run.zarr", tmp_path / "other.zarr")
