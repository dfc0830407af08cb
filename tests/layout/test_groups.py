"""The groups of a trace: given whole at the start or later, and handed out to xarray and ArviZ."""

from __future__ import annotations

import importlib.metadata
from typing import TYPE_CHECKING, Any

import arviz as az
import dask.array
import numpy as np
import pandas as pd
import pytest
import xarray as xr

import zarrtrace as zt
from zarrtrace.errors import (
    GroupNotFoundError,
    NotWritableError,
    SchemaError,
    TraceExistsError,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Encoded, Place

OLD_ARVIZ = importlib.metadata.version("arviz").startswith("0.")
SCHOOLS = ["Choate", "Deerfield", "Andover"]


@pytest.fixture
def trace(fast_place: Place) -> zt.Trace:
    """A trace with every draw of `theta`, whose dimension `school` has labels."""
    created = fast_place.create(
        chains=2,
        tune=1,
        draws=4,
        posterior={"theta": zt.Var(dims="school")},
        coords={"school": SCHOOLS},
        observed_data={"y": ("school", [28.0, 8.0, -3.0])},
    )
    for chain in range(2):
        with created.writer(chain) as writer:
            for draw in range(5):
                writer.record({"theta": [chain, draw, 0.5]})
    return created


# Data given at the start ----------------------------------------------------------------------

VALUES = np.array([28.0, 8.0, -3.0])
FORMS: dict[str, Any] = {
    "array": VALUES,
    "list": VALUES.tolist(),
    "pair": ("school", VALUES),
    "pair of tuples": (("school",), VALUES),
    "DataArray": xr.DataArray(VALUES, {"school": SCHOOLS}, "school"),
    "pandas": pd.Series(VALUES, name="y"),
}


@pytest.mark.parametrize("group", ["observed_data", "constant_data", "predictions_constant_data"])
@pytest.mark.parametrize("form", FORMS)
def test_data_is_given_in_any_form(memory: Place, group: str, form: str) -> None:
    options: dict[str, Any] = {group: {"y": FORMS[form]}}
    trace = memory.create(
        chains=1,
        draws=1,
        posterior={"x": 0.0},
        coords={"school": SCHOOLS},
        dims={"y": ["school"]},
        **options,
    )
    found = memory.open()[group].y
    assert found.dims == ("school",)
    assert found.dtype == np.float64
    assert found.values.tolist() == VALUES.tolist()
    assert found.school.values.tolist() == SCHOOLS
    assert group in trace.groups


def test_a_dataset_of_data_brings_its_coordinates(place: Place) -> None:
    data = xr.Dataset(
        {"y": (("time", "site"), np.arange(6).reshape(3, 2), {"units": "m"}), "n": 6},
        {"time": pd.date_range("2026-01-01", periods=3), "site": ["a", "b"]},
    )
    place.create(chains=1, draws=1, posterior={"x": 0.0}, observed_data=data)
    found = place.open().observed_data
    xr.testing.assert_equal(found.load(), data.assign_coords(time=data.time, site=data.site))
    assert found.y.attrs == {"units": "m"}
    assert found.n.dims == ()


def test_data_keeps_its_dtype(fast_place: Place) -> None:
    data = {
        "f": np.float32([1, 2]), "c": np.complex64([1j, 2]), "i": np.int16([-1, 2]),
        "u": np.uint64([1, 2**63]), "t": np.array(["2026-01-01", "NaT"], "datetime64[us]"),
        "d": np.array([1, 2], "timedelta64[ns]"), "s": np.array(["a", "bé"]), "b": [True, False],
    }  # fmt: skip
    fast_place.create(chains=1, draws=1, posterior={"x": 0.0}, constant_data=data)
    found = fast_place.open().constant_data
    assert list(found.data_vars) == list(data)
    for name, values in data.items():
        expected = np.asarray(values)
        assert found[name].dtype == (np.dtypes.StringDType() if name == "s" else expected.dtype)
        assert np.array_equal(found[name].values, expected, equal_nan=name == "t")


# Groups given later ---------------------------------------------------------------------------


@pytest.mark.parametrize("moment", ["running", "split", "finished"])
def test_a_group_is_added_at_any_moment(trace: zt.Trace, moment: str) -> None:
    if moment != "running":
        trace.split_warmup()
    if moment == "finished":
        trace.finish()
    draws = np.random.default_rng(1).normal(size=(2, 4, 3))
    trace.add_group("posterior_predictive", {"y": (("chain", "draw", "school"), draws)})
    assert trace.groups[:3] == ("posterior", "posterior_predictive", "observed_data")
    found = trace.posterior_predictive
    assert np.array_equal(found.y.values, draws)
    assert found.attrs["sample_dims"] == ["chain", "draw"]
    assert trace.finished == (moment == "finished")
    assert np.array_equal(trace.to_datatree()["posterior_predictive/y"].values, draws)


def test_a_later_group_shares_the_labels_of_the_trace(trace: zt.Trace) -> None:
    trace.add_group("predictions", {"y": (("chain", "draw", "school"), np.zeros((2, 4, 3)))})
    assert trace.predictions.school.values.tolist() == SCHOOLS
    with pytest.raises(SchemaError, match="'school' has 2 elements here but 3"):
        trace.add_group("prior", {"y": (("chain", "draw", "school"), np.zeros((2, 4, 2)))})
    assert "prior" not in trace


@pytest.mark.parametrize("labels", [["a", "b", "c"], ["elsewhere"]])
@pytest.mark.parametrize("finished", [False, True])
def test_a_later_group_may_have_labels_of_its_own(
    trace: zt.Trace, fast_place: Place, labels: list[str], finished: bool
) -> None:
    """Such are predictions: of other schools than those the model was fitted to."""
    values = np.zeros((2, 4, len(labels)))
    predictions = xr.Dataset({"y": (("chain", "draw", "school"), values)}, {"school": labels})
    if finished:
        trace.finish()
    trace.add_group("predictions", predictions)
    assert trace.predictions.school.values.tolist() == labels
    assert trace.posterior.school.values.tolist() == SCHOOLS
    if finished:
        with xr.open_datatree(fast_place.store, engine="zarr") as found:
            assert found["predictions"].school.values.tolist() == labels
            assert found["posterior"].school.values.tolist() == SCHOOLS
    arrays = {"y": predictions.y, "z": predictions.y.assign_coords(school=SCHOOLS[: len(labels)])}
    with pytest.raises(SchemaError, match="'school' has other labels here than elsewhere"):
        trace.add_group("prior", arrays)


def test_dimensions_without_a_name_belong_to_their_group(fast_place: Place) -> None:
    trace = fast_place.create(
        chains=1, draws=1, posterior={"w": np.zeros(2)}, log_likelihood={"w": np.zeros(3)},
        observed_data={"w": np.zeros(4)},
    )  # fmt: skip
    with trace.writer(0) as writer:
        writer.record({"w": np.ones(2)}, log_likelihood={"w": np.ones(3)})
    trace = fast_place.open()
    sizes = [trace[group].sizes["w_dim_0"] for group in trace.groups]
    assert sizes == [2, 3, 4]
    assert trace.log_likelihood.w_dim_0.values.tolist() == [0, 1, 2]


def test_data_with_draws_but_without_chains(fast_place: Place) -> None:
    data = xr.Dataset({"y": ("draw", np.arange(5.0))}, {"draw": np.arange(5) * 10})
    fast_place.create(chains=1, draws=1, posterior={"mu": 0.0}, constant_data=data)
    assert fast_place.open().constant_data.y.values.tolist() == list(range(5))


@pytest.mark.parametrize(
    "dims", [("chain", "draw", "k"), ("k", "draw", "chain"), ("draw", "k"), ("k", "chain"), ("k",)]
)
@pytest.mark.parametrize("form", ["pair", "DataArray", "Dataset", "dask"])
def test_chain_and_draw_come_first_in_whatever_order_they_are_given(
    trace: zt.Trace, dims: tuple[str, ...], form: str
) -> None:
    sizes = {"chain": 2, "draw": 4, "k": 3}
    values = np.arange(np.prod([sizes[dim] for dim in dims])).reshape([sizes[dim] for dim in dims])
    array = xr.DataArray(values, dims=dims, name="z")
    forms: dict[str, Callable[[], Any]] = {
        "pair": lambda: {"z": (dims, values)},
        "DataArray": lambda: {"z": array},
        "Dataset": lambda: array.to_dataset(),
        "dask": lambda: array.chunk(k=1).to_dataset(),
    }
    trace.add_group("extra", forms[form]())
    first = [dim for dim in ("chain", "draw") if dim in dims]
    assert trace.extra.z.dims == (*first, "k")
    xr.testing.assert_equal(trace.extra.z.transpose(*dims).drop_vars(trace.extra.coords), array)


def test_a_group_keeps_labels_of_chains_and_draws(trace: zt.Trace) -> None:
    data = xr.Dataset(
        {"y": (("draw", "chain"), np.arange(6.0).reshape(3, 2))},
        {"chain": [5, 7], "draw": [10, 20, 30], "note": ("draw", ["a", "b", "c"])},
    )
    trace.add_group("prior", data)
    assert trace.prior.chain.values.tolist() == [5, 7]
    assert trace.prior.draw.values.tolist() == [10, 20, 30]
    assert trace.prior.y.sel(chain=7, draw=20).item() == 3.0


def test_text_and_times_are_added(trace: zt.Trace) -> None:
    times = np.array([["2026-01-01", "NaT"]] * 2, "datetime64[ms]")
    data = {
        "word": (("chain", "draw"), np.array([["a", "bé"], ["", "d" * 50]])),
        "when": (("chain", "draw"), times),
        "objects": (("draw",), np.array(["x", "y"], dtype=object)),
    }
    trace.add_group("notes", data)
    assert trace.notes.word.values.tolist() == data["word"][1].tolist()
    assert trace.notes.objects.values.tolist() == ["x", "y"]
    assert np.array_equal(trace.notes.when.values, times, equal_nan=True)


def test_dask_arrays_are_computed_piece_by_piece(trace: zt.Trace) -> None:
    computed = []

    def piece(block_info: Any = None) -> np.ndarray:
        location = block_info[None]["chunk-location"]
        computed.append(location)
        return np.full((1, 500_000), float(location[0]))

    chunks = ((1,) * 3, (500_000,) * 2)
    lazy = dask.array.map_blocks(piece, chunks=chunks, dtype=float, meta=np.empty((0, 0)))
    trace.add_group("prior", {"x": (("chain", "draw"), lazy)})
    assert sorted(set(computed)) == [(c, d) for c in range(3) for d in range(2)]
    assert trace.prior.x.mean("draw").values.tolist() == [0.0, 1.0, 2.0]


def test_a_node_of_a_tree_is_added(trace: zt.Trace) -> None:
    other = zt.create(None, chains=2, draws=3, posterior={"x": zt.Var(shape=2)})
    for chain in range(2):
        with other.writer(chain) as writer:
            writer.record_block({"x": np.full((3, 2), chain)})
    trace.add_group("prior", other.to_datatree().posterior)
    assert trace.prior.x.values.tolist() == [[[0, 0]] * 3, [[1, 1]] * 3]


def test_what_cannot_be_added_is_refused_and_nothing_changes(trace: zt.Trace) -> None:
    before = trace.groups
    with pytest.raises(TraceExistsError, match="'posterior' already"):
        trace.add_group("posterior", {"x": 1.0})
    for name, data, message in [
        ("prior", {}, "no variables"),
        ("prior", {"x": np.array([object()])}, "object cannot be stored"),
        ("prior", {"a/b": 1.0}, "'/' separates groups"),
        ("prior", {"school": VALUES}, "also the name of a dimension"),
        ("warmup_prior", {"x": 1.0}, "makes the warmup groups"),
        ("_hidden", {"x": 1.0}, "leading '_'"),
        ("prior", {"x": ("chain", [1, 2]), "y": ("chain", [1, 2, 3])}, "chain has 3 elements"),
    ]:
        with pytest.raises(SchemaError, match=message):
            trace.add_group(name, data)
    assert trace.groups == before


def test_a_read_only_trace_takes_no_group(fast_place: Place, trace: zt.Trace) -> None:
    with pytest.raises(NotWritableError, match="mode='a'"):
        fast_place.open().add_group("prior", {"x": 1.0})


# As xarray and ArviZ take them ----------------------------------------------------------------


@pytest.fixture
def many(memory: Place, encoded: Encoded) -> zt.Trace:
    """A trace whose groups were not defined in ArviZ's order."""
    created = encoded.create(
        memory,
        chains=2,
        tune=2,
        draws=3,
        constant_data={"c": 1.0},
        observed_data={"o": 1.0},
        groups={"my_group": {"m": zt.Var()}},
        log_likelihood={"l": zt.Var()},
        unconstrained_posterior={"u": zt.Var()},
    )
    encoded.groups |= {
        "my_group": {"m": zt.Var()},
        "log_likelihood": {"l": zt.Var()},
        "unconstrained_posterior": {"u": zt.Var()},
    }
    return encoded.fill(created)


ORDER = [
    "posterior", "log_likelihood", "sample_stats", "observed_data", "constant_data",
    "unconstrained_posterior", "my_group",
]  # fmt: skip
SAMPLED = ["posterior", "sample_stats", "my_group", "log_likelihood", "unconstrained_posterior"]


def test_groups_come_in_the_order_of_arviz(many: zt.Trace) -> None:
    tree = many.to_datatree()
    assert isinstance(tree, xr.DataTree)
    assert list(tree.children) == ORDER
    whole = list(many.to_datatree(save_warmup=True).children)
    assert whole[: len(ORDER)] == ORDER
    assert sorted(whole[len(ORDER) :]) == sorted(f"warmup_{name}" for name in SAMPLED)
    assert whole == list(many.groups)
    assert list(tree.posterior.data_vars) == ["mu", "theta", "word"]
    assert "_sampling_state" not in tree


def test_chosen_groups_come_alone_and_as_asked(many: zt.Trace) -> None:
    chosen = ["sample_stats", "warmup_posterior"]
    assert list(many.to_datatree(chosen).children) == chosen
    with pytest.raises(GroupNotFoundError, match="no group 'nothing'; it has posterior"):
        many.to_datatree(["nothing"])


def test_the_tree_names_the_model_and_its_writer(memory: Place) -> None:
    trace = memory.create(chains=1, draws=1, posterior={"x": 0.0}, name="eight schools")
    attrs = trace.to_datatree().attrs
    assert attrs["name"] == "eight schools"
    assert attrs["creation_library"] == "zarrtrace"


def test_inferencedata_is_what_the_installed_arviz_takes(many: zt.Trace) -> None:
    exported = many.to_inferencedata(save_warmup=True)
    assert type(exported) is (az.InferenceData if OLD_ARVIZ else xr.DataTree)
    assert exported.posterior.mu.values.tolist() == many.get("mu").tolist()
    names = [name.strip("/") for name in exported.groups if name != "/"] if not OLD_ARVIZ else [
        *exported._groups, *exported._groups_warmup
    ]  # fmt: skip
    assert sorted(names) == sorted(many.groups)
    assert "warmup_posterior" not in many.to_inferencedata()
    one = many.to_inferencedata(["posterior"], chains=1)
    assert one.posterior.chain.values.tolist() == [1]
