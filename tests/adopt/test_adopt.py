"""Results of other libraries become traces: every value, and what they lacked."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import tracemalloc
from pathlib import Path
from typing import Any

import arviz as az
import numpy as np
import pandas as pd
import pytest
import xarray as xr

import zarrtrace as zt
from zarrtrace.adopt.from_datatree import from_datatree
from zarrtrace.adopt.results import read_result
from zarrtrace.cli import main
from zarrtrace.errors import InvalidInputError, SchemaError, TraceExistsError, TraceNotFoundError
from zarrtrace.store.location import Location

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


def test_an_hdf5_file_of_two_runs_needs_import_hdf(tmp_path: Path) -> None:
    backends = pytest.importorskip("emcee").backends
    for name in ("first", "second"):
        backends.HDFBackend(str(tmp_path / "run.h5"), name).reset(4, 2)
    with pytest.raises(InvalidInputError, match=r"2 runs of emcee: first, second; .*import_hdf\("):
        from_datatree(tmp_path / "run.h5", tmp_path / "run.zarr")


def test_what_arviz_makes_of_emcee_is_adopted(tmp_path: Path) -> None:
    sampler = run_emcee(tmp_path / "run.h5", blobs=False)
    trace = from_datatree(az.from_emcee(sampler), None)
    assert np.array_equal(trace.get("lp"), sampler.get_log_prob().T)
    assert np.array_equal(trace.get("var_1"), sampler.get_chain()[:, :, 1].T)


# CmdStan --------------------------------------------------------------------------------------

CMDSTAN = Path(__file__).parent.parent / "data" / "cmdstan"
CSV = [CMDSTAN / "chain-1.csv", CMDSTAN / "chain-2.csv"]
# ArviZ's name of each stat in the files, and its dtype.
STAN_STATS = {
    "lp__": ("lp", "float64"), "accept_stat__": ("acceptance_rate", "float64"),
    "stepsize__": ("step_size", "float64"), "treedepth__": ("tree_depth", "int64"),
    "n_leapfrog__": ("n_steps", "int64"), "divergent__": ("diverging", "bool"),
    "energy__": ("energy", "float64"),
}  # fmt: skip


def columns_of(files: list[Path]) -> dict[str, np.ndarray[Any, Any]]:
    """What the files say, by column: (chains, warmup and draws)."""
    lines = [
        [line.split(",") for line in file.read_text().splitlines() if line[:1] not in ("", "#")]
        for file in files
    ]
    numbers = np.array([chain[1:] for chain in lines], dtype=float)
    return {name: numbers[:, :, column] for column, name in enumerate(lines[0][0])}


def check_adopted_from_csv(trace: zt.Trace) -> None:
    said = columns_of(CSV)
    assert (trace.chains, trace.tune, trace.draws) == (2, 30, 40)
    assert list(trace.posterior) == ["k", "m", "delta", "sigma_obs", "beta", "trend"]
    assert set(trace.sample_stats) == {name for name, _ in STAN_STATS.values()}
    for prefix, draws in {"warmup_": slice(30), "": slice(30, None)}.items():
        posterior, stats = trace[f"{prefix}posterior"], trace[f"{prefix}sample_stats"]
        assert np.array_equal(posterior.sigma_obs, said["sigma_obs"][:, draws])
        trend = np.stack([said[f"trend.{i}"][:, draws] for i in range(1, 5)], axis=-1)
        assert posterior.trend.dims == ("chain", "draw", "trend_dim_0")
        assert np.array_equal(posterior.trend, trend)
        for column, (name, dtype) in STAN_STATS.items():
            assert np.array_equal(stats[name], said[column][:, draws]), name
            assert stats[name].dtype == dtype, name
        assert posterior.attrs["inference_library"] == "CmdStan"
        assert posterior.attrs["inference_library_version"] == "2.37.0"
        assert posterior.attrs["sampling_time"] == 0.01
        settings = json.loads(posterior.attrs["sampler_settings"])
        assert (settings["num_warmup"], settings["max_depth"], settings["seed"]) == (30, 10, 12)
    # These draws diverge in warmup only.
    assert trace.warmup_sample_stats.diverging.any()
    assert trace.to_datatree().attrs["name"] == "prophet"


@pytest.mark.parametrize("path", [CSV, CMDSTAN, str(CMDSTAN / "chain-*.csv")],
                         ids=["files", "directory", "pattern"])  # fmt: skip
def test_csv_of_cmdstan_is_adopted_by_its_path(path: Any, tmp_path: Path) -> None:
    from_datatree(path, tmp_path / "run.zarr")
    check_adopted_from_csv(zt.open(tmp_path / "run.zarr"))


def test_csv_of_cmdstan_is_adopted_from_the_shell(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["adopt", *map(str, CSV), str(tmp_path / "run.zarr")]) == 0
    assert "2 chains × (30 warmup + 40 draws)" in capsys.readouterr().out
    check_adopted_from_csv(zt.open(tmp_path / "run.zarr"))


def readers_of_arviz() -> list[str]:
    return ["from_cmdstanpy", "from_cmdstan"] if OLD_ARVIZ else ["from_cmdstanpy"]


@pytest.mark.parametrize("reader", readers_of_arviz())
def test_what_arviz_makes_of_cmdstan_is_adopted(reader: str) -> None:
    cmdstanpy = pytest.importorskip("cmdstanpy")
    files = [str(file) for file in CSV]
    fit = cmdstanpy.from_csv(files) if reader == "from_cmdstanpy" else files
    result = getattr(az, reader)(fit, save_warmup=True)
    trace = from_datatree(result, None)
    said = columns_of(CSV)
    assert (trace.tune, trace.draws) == (30, 40)
    # ArviZ 1.3 leaves the stats of warmup and draws in one group; they are parted here.
    for column, (name, dtype) in STAN_STATS.items():
        assert np.array_equal(trace.get(name), said[column][:, 30:]), name
        assert np.array_equal(trace.get(name, group="warmup_sample_stats"), said[column][:, :30])
        assert trace.sample_stats[name].dtype == dtype
    assert np.array_equal(trace.get("k"), said["k"][:, 30:])
    assert np.array_equal(trace.get("k", group="warmup_posterior"), said["k"][:, :30])


def test_csv_without_its_warmup_has_none() -> None:
    file = CMDSTAN / "draws-only" / "output.csv"
    trace = from_datatree(file, None)
    assert (trace.chains, trace.tune, trace.draws) == (1, 0, 20)
    assert np.array_equal(trace.get("lp"), columns_of([file])["lp__"])


def test_csv_of_killed_chains_is_adopted_as_far_as_it_goes(tmp_path: Path) -> None:
    texts = [file.read_text() for file in CSV]
    files = [tmp_path / f"chain-{i}.csv" for i in range(3)]
    # One is killed in its warmup, and one in the midst of a line.
    third = texts[0].replace("# id = 1 (Default)", "# id = 3")
    for file, text in zip(files, (texts[0][:4000], texts[1][:18000], third), strict=True):
        file.write_text(text)
    trace = from_datatree(files, tmp_path / "run.zarr", attrs={"note": "killed"})
    lines = files[1].read_text().count("\n") - len(re.findall("^#", files[1].read_text(), re.M)) - 1
    assert trace.finished
    assert trace.recorded.tolist() == [lines, 70]
    assert trace.posterior.attrs["adopted_chains"] == [1, 2]
    assert trace.posterior.attrs["note"] == "killed"
    assert np.array_equal(trace.get("k", chains=1), columns_of(CSV[:1])["k"][:, 30:])


def test_csv_that_cannot_be_adopted_says_why(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InvalidInputError, match=r"table\.csv: the file is not a CSV file of CmdSt"):
        from_datatree([CSV[0], tmp_path / "table.csv"], tmp_path / "run.zarr")
    (tmp_path / "binary.csv").write_bytes(b"\0\1\2\n")
    with pytest.raises(InvalidInputError, match=r"binary\.csv: the file is not a text file"):
        from_datatree([CSV[0], tmp_path / "binary.csv"], tmp_path / "run.zarr")
    with pytest.raises(InvalidInputError, match="holds neither CSV of CmdStan"):
        from_datatree(tmp_path / "binary.csv", tmp_path / "run.zarr")
    with pytest.raises(TraceNotFoundError, match="there is nothing at"):
        from_datatree([CSV[0], tmp_path / "nothing.csv"], tmp_path / "run.zarr")
    assert not (tmp_path / "run.zarr").exists()


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
    trace = from_datatree(xr.DataTree.from_dict({"posterior": theta}))
    found = trace.posterior
    assert found.region.values.tolist() == ["north, 1", "north, 2", "south, 1", "south, 2"]
    assert found.side.dims == ("region",)
    assert found.number.values.tolist() == [1, 2, 1, 2]


def test_coordinates_beside_the_labels_stay_coordinates(tmp_path: Path) -> None:
    square_miles = {"unit": "square mile", "seen": None}
    theta = xr.Dataset(
        {"theta": sampled(POSTERIOR["theta"], "school"), "z": sampled(POSTERIOR["theta"], "unit")},
        {
            **COORDS,
            "area": ("school", [1.5, 2.5, 3.5], square_miles),
            "state": ("school", np.array(["MA", "MA", "VT"])),
            "weight": ("unit", [1, 2, 3]),  # along a dimension without labels
            "seed": ("chain", [5, 6, 7]),
            "distance": (("school", "unit"), np.eye(3)),
            "when": sampled(STATS["lp"]),
        },
    )
    y = xr.Dataset({"y": ("school", [28.0, 8.0, -3.0])}, {"area": ("school", [1.5, 2.5, 3.5])})
    result = xr.DataTree.from_dict({"posterior": theta, "observed_data": y})
    from_datatree(result, tmp_path / "run.zarr")
    for found in (
        zt.open(tmp_path / "run.zarr").to_datatree(),
        xr.open_datatree(tmp_path / "run.zarr", engine="zarr"),
    ):
        posterior = found["posterior"]
        assert set(posterior.coords) == {"chain", "draw", "school", "area", "state", "unit",
                                         "weight"}  # fmt: skip
        assert posterior.area.values.tolist() == [1.5, 2.5, 3.5]
        assert posterior.area.attrs == {"unit": "square mile"}
        assert posterior.state.values.tolist() == ["MA", "MA", "VT"]
        assert (posterior.weight.dims, posterior.weight.values.tolist()) == (("unit",), [1, 2, 3])
        assert found["observed_data"].area.values.tolist() == [1.5, 2.5, 3.5]
        # What a trace has no coordinates for is kept as variables.
        assert np.array_equal(posterior.when, STATS["lp"])
        assert found["constant_posterior"].seed.values.tolist() == [5, 6, 7]
        assert np.array_equal(found["constant_posterior"].distance, np.eye(3))


def test_a_coordinate_with_the_name_of_a_variable_is_kept_apart() -> None:
    theta = xr.Dataset(
        {"theta": sampled(POSTERIOR["theta"], "school")}, {"area": ("school", [1.5, 2.5, 3.5])}
    )
    area = xr.Dataset({"area": ("school", [7.0, 8.0, 9.0])})
    trace = from_datatree(xr.DataTree.from_dict({"posterior": theta, "constant_data": area}))
    assert trace.constant_posterior.area.values.tolist() == [1.5, 2.5, 3.5]
    assert trace.constant_data.area.values.tolist() == [7.0, 8.0, 9.0]


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
    assert (attrs["sampling_time"], attrs["inference_library"]) == (12.5, "mine")
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


@pytest.mark.parametrize(
    "names",
    [
        {"lp__": "lp", "accept_stat__": "acceptance_rate", "stepsize__": "step_size",
         "treedepth__": "tree_depth", "n_leapfrog__": "n_steps", "divergent__": "diverging",
         "energy__": "energy"},
        {"model_logp": "lp", "mean_tree_accept": "acceptance_rate", "depth": "tree_depth",
         "tree_size": "n_steps", "step_size_bar": "step_size_bar"},
        # What has ArviZ's name keeps it, and so does what would take it.
        {"n_steps": "n_steps", "tree_size": "tree_size", "logp": "lp", "model_logp": "model_logp"},
    ],
    ids=["Stan", "PyMC", "taken"],
)  # fmt: skip
def test_stats_get_the_names_arviz_knows(names: dict[str, str]) -> None:
    stats = {name: sampled(RNG.normal(size=(2, 3))) for name in names}
    trace = from_datatree(tree(posterior={"mu": sampled(np.ones((2, 3)))}, sample_stats=stats))
    assert list(trace.sample_stats) == list(names.values())
    for name, known in names.items():
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
    with pytest.raises(InvalidInputError, match="not a netCDF file, Zarr hierarchy or HDF5 file"):
        read_result(tmp_path / "notes.txt")


@pytest.mark.once("newest")
def test_a_pipe_is_refused_at_once(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.csv"
    os.mkfifo(pipe)
    with pytest.raises(InvalidInputError, match="neither a file nor a directory"):
        from_datatree(pipe, tmp_path / "run.zarr")
    with pytest.raises(InvalidInputError, match="neither a file nor a directory"):
        zt.follow(pipe, tmp_path / "run.zarr")
    assert main(["adopt", str(pipe), str(tmp_path / "run.zarr")]) == 1
    assert list(tmp_path.iterdir()) == [pipe]


def test_a_trace_that_is_not_finished_is_finished_first(tmp_path: Path) -> None:
    trace = zt.create(tmp_path / "run.zarr", chains=1, draws=5, posterior={"x": 0.0})
    with trace.writer(0) as writer:
        writer.record({"x": 1.0})
    with pytest.raises(InvalidInputError, match="is a trace that is not finished"):
        from_datatree(tmp_path / "run.zarr", tmp_path / "other.zarr")


# In place -------------------------------------------------------------------------------------


def _finished(place: Any) -> zt.Trace:
    trace: zt.Trace = place.create(
        chains=2, draws=5, posterior={"x": zt.Var(), "k": zt.Var(dtype=int)}
    )
    for chain in range(2):
        with trace.writer(chain) as writer:
            writer.record_block({"x": np.arange(5.0) + 1, "k": np.arange(5) + 1})
    trace.finish()
    return trace


@pytest.mark.parametrize("kind", ["the trace itself", "a lazy view", "dask"])
def test_a_trace_is_adopted_over_itself(fast_place: Any, kind: str) -> None:
    trace = _finished(fast_place)
    options = {"chunks": {}} if kind == "dask" else {}
    if options:
        pytest.importorskip("dask")
    result = trace.to_datatree(**options)
    if kind == "the trace itself" and fast_place.kind == "directory":
        result = fast_place.path
    adopted = zt.from_datatree(result, fast_place.store, overwrite=True)
    for found in (adopted, fast_place.open()):
        assert found.finished
        assert found.get("x").tolist() == [[1.0, 2.0, 3.0, 4.0, 5.0]] * 2
        assert found.get("k").tolist() == [[1, 2, 3, 4, 5]] * 2
        assert not found.check()


def test_a_result_that_is_refused_costs_no_trace(fast_place: Any) -> None:
    _finished(fast_place)
    lists = np.empty(2, dtype=object)
    lists[:] = [[1], [2, 3]]
    refused = xr.DataTree.from_dict(
        {
            "posterior": xr.Dataset({"x": (("chain", "draw"), np.full((2, 6), 5.0))}),
            "observed_data": xr.Dataset({"y": ("o", lists)}),
        }
    )
    with pytest.raises(SchemaError):
        zt.from_datatree(refused, fast_place.store, overwrite=True)
    found = fast_place.open()
    assert found.finished
    assert found.get("x").shape == (2, 5)
    assert not found.check()


class _Killed(BaseException):
    """As if the process ended here."""


def _killing_at(step: int) -> Any:
    """A way to write that ends before the step-th write of a location that is a whole store."""
    real, written = Location._put, []

    def put(self: Location, key: str, *rest: Any) -> None:
        if not self._prefix:
            written.append(key)
            if len(written) == step:
                raise _Killed
        real(self, key, *rest)

    return put


def test_a_replacement_in_a_store_without_names_is_finished_after_a_kill(memory: Any) -> None:
    """Killed at each write while the new trace takes its place, the next opening has it."""
    step, killed = 0, True
    while killed:
        step, killed = step + 1, False
        memory.store._store_dict.clear()
        result = _finished(memory).to_datatree().load()
        result["posterior"]["x"] += 1
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Location, "_put", _killing_at(step))
            try:
                zt.from_datatree(result, memory.store, overwrite=True)
            except _Killed:
                killed = True
        found = memory.open("a").get("x")
        assert found.tolist() in ([[1.0, 2, 3, 4, 5]] * 2, [[2.0, 3, 4, 5, 6]] * 2)
    assert step > 10
