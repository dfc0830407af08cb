"""A definition that cannot be stored is refused before anything is written, with the remedy."""

from __future__ import annotations

import datetime
import decimal
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import zarrtrace as zt
from zarrtrace.errors import InvalidInputError, SchemaError

GOOD: dict[str, Any] = {"chains": 2, "draws": 4, "posterior": {"mu": zt.Var()}}


def assert_refused(
    place: Any, says: str, error: type[zt.TraceError] = SchemaError, **definition: Any
) -> None:
    """`create` refuses it in these words, and leaves nothing behind."""
    with pytest.raises(error, match=says) as caught:
        place.create(**{**GOOD, **definition})
    assert isinstance(caught.value, ValueError)
    assert not place.path.exists()


# Names ----------------------------------------------------------------------------------------

NAMES = [
    ("a/b", r"'/' separates groups in Zarr; use 'a\.b'"),
    ("", "non-empty string"),
    ("..", "dots"),
    (".", "dots"),
    ("__x", "'__'"),
    ("zarr.json", "rename"),
    ("x" * 201, "200 bytes; shorten"),
    ("é" * 101, "200 bytes; shorten"),
    ("a\0b", "separates groups"),
    ("a\ud800", "surrogate"),
]
NO_STRINGS = [(3, "non-empty string, got 3"), (None, "got None"), (("a", "b"), "got")]


@pytest.mark.parametrize(("name", "says"), [*NAMES, *NO_STRINGS], ids=lambda x: repr(x)[:20])
def test_a_name_no_store_can_hold_is_refused(directory: Any, name: Any, says: str) -> None:
    assert_refused(directory, says, posterior={name: zt.Var()})
    assert_refused(directory, says, observed_data={name: [1.0]})
    assert_refused(directory, says, coords={name: [1, 2]})
    assert_refused(directory, says, posterior={"x": zt.Var(shape=2, dims=[name])})
    assert_refused(directory, says, groups={name: {"x": zt.Var()}})


@pytest.mark.parametrize("name", ["chain", "draw", "school"])
def test_a_variable_with_the_name_of_a_dimension_is_refused(directory: Any, name: str) -> None:
    coords = {"school": ["a", "b"]}
    says = f"{name}'? is .*name of a dimension"
    assert_refused(directory, says, posterior={name: zt.Var()}, coords=coords)
    assert_refused(directory, says, sample_stats={name: zt.Var()}, coords=coords)
    assert_refused(directory, says, observed_data={name: [1.0]}, coords=coords)


def test_a_dimension_named_after_a_variable_is_refused(directory: Any) -> None:
    says = "posterior/mu: 'mu' is also the name of a dimension"
    posterior = {"mu": zt.Var(), "x": zt.Var(shape=2, dims="mu")}
    assert_refused(directory, says, posterior=posterior)


@pytest.mark.parametrize(
    ("group", "says"),
    [
        ("_sampling_state", "leading '_'"),
        ("_mine", "leading '_'"),
        ("warmup_posterior", r"define 'posterior' and pass tune="),
    ],
)
def test_group_names_of_the_library_are_refused(directory: Any, group: str, says: str) -> None:
    assert_refused(directory, says, groups={group: {"x": zt.Var()}})


@pytest.mark.parametrize(
    "name", ["é", "a b", "β[0]", "x_log__", "c", "c.0.0", "mu.sigma", "x" * 200]
)
def test_every_other_name_is_recorded_and_read(directory: Any, name: str) -> None:
    trace = directory.create(chains=1, draws=2, tune=1, posterior={name: zt.Var()})
    with trace.writer(0) as writer:
        writer.record_block({name: [1.0, 2.0, 3.0]})
    trace.finish()
    assert directory.open().posterior[name].values.tolist() == [[2.0, 3.0]]
    with xr.open_datatree(directory.path, engine="zarr") as tree:
        assert tree["posterior"].dataset[name].values.tolist() == [[2.0, 3.0]]


# dtypes and shapes ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "says"),
    [
        (object, "dtype object cannot be stored without pickle; use dtype=str for text"),
        (np.longdouble, "use float64"),
        (np.clongdouble, "use complex128"),
        (bytes, "use numbers, bool, str"),
        ("S5", "use numbers, bool, str"),
        ("V8", "use numbers, bool, str"),
        ([("x", "f8"), ("y", "i4")], "one variable per field"),
        ("M8[ps]", r"use datetime64\[ns\]"),
        ("m8[as]", r"use timedelta64\[ns\]"),
        ("nonsense", "'nonsense' is not a dtype"),
        (3, "3 is not a dtype"),
    ],
    ids=str,
)
def test_a_dtype_that_cannot_be_stored_is_refused(directory: Any, dtype: Any, says: str) -> None:
    assert_refused(directory, f"posterior/x: .*{says}", posterior={"x": zt.Var(dtype=dtype)})


@pytest.mark.parametrize(
    "example",
    [
        object(),
        None,
        b"bytes",
        {"a": 1},
        [[1.0], [1.0, 2.0]],
        decimal.Decimal(1),
        datetime.datetime(2020, 1, 1),
        np.longdouble(1),
        np.zeros(2, dtype=[("x", "f8")]),
        ["text", None],
    ],
    ids=lambda example: type(example).__name__,
)
def test_an_example_that_cannot_be_stored_is_refused(directory: Any, example: Any) -> None:
    assert_refused(directory, "posterior/x: ", posterior={"x": example})
    assert_refused(directory, "observed_data/x: ", observed_data={"x": example})


@pytest.mark.parametrize("shape", [-1, (2, -1), 1.5, "ab", (1.5,), True, (True,), (None,)], ids=str)
def test_a_shape_that_is_none_is_refused(directory: Any, shape: Any) -> None:
    assert_refused(directory, "posterior/x: ", posterior={"x": zt.Var(shape=shape)})


# Dimensions and coordinates -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("definition", "says"),
    [
        (
            {"posterior": {"x": zt.Var(shape=3, dims="s")}, "coords": {"s": [1, 2]}},
            "posterior/x: dimension 's' has 3 elements here but 2 coordinate labels",
        ),
        (
            {"posterior": {"x": zt.Var(shape=3, dims="s"), "y": zt.Var(shape=2, dims="s")}},
            "posterior/y: dimension 's' has 2 elements here but 3 elements elsewhere",
        ),
        (
            {"observed_data": {"y": ("s", [1.0])}, "coords": {"s": ["a", "b"]}},
            "observed_data/y: dimension 's' has 1 elements here but 2 coordinate labels",
        ),
        (
            {"posterior": {"x": np.zeros(3), "y": zt.Var(shape=2, dims="x_dim_0")}},
            "posterior/y: dimension 'x_dim_0' has 2 elements here but 3 elsewhere in the group",
        ),
        ({"posterior": {"x": zt.Var(dims="s")}}, "'s' is not known; give coords="),
        ({"posterior": {"x": zt.Var(shape=(2, 2), dims="s")}}, "2 dimensions, dims .* names 1"),
        ({"posterior": {"x": zt.Var(shape=(2, 2), dims=["s", "s"])}}, "not distinct"),
        ({"posterior": {"x": zt.Var(shape=2, dims=["chain"])}}, "'chain' is added by zarrtrace"),
        ({"posterior": {"x": zt.Var(shape=2, dims=["draw"])}}, "'draw' is added by zarrtrace"),
        ({"posterior": {"x": np.zeros(2)}, "dims": {"x": ["s", "t"]}}, "1 dimensions, dims"),
        ({"coords": {"chain": [0, 1]}}, "coordinate 'chain': .* leave it out"),
        ({"coords": {"draw": [0, 1]}}, "coordinate 'draw': .* leave it out"),
        ({"coords": {"s": "abc"}}, "expected a sequence of labels, got 'abc'"),
        ({"coords": {"s": 3}}, "expected a sequence of labels, got 3"),
        ({"coords": {"s": np.zeros((2, 2))}}, r"shape \(2, 2\); expected one label per element"),
        ({"coords": {"s": [b"a", b"b"]}}, "coordinate 's': dtype"),
        ({"coords": {"s": np.zeros(2, dtype="f16")}}, "coordinate 's': .* use float64"),
        (
            {"coords": {"s": pd.MultiIndex.from_tuples([(1, 2)], names=["s", "t"])}},
            "level 's' has the same name",
        ),
        ({"coords": ["s"]}, "coords: give a mapping"),
        ({"dims": ["s"]}, "dims: give a mapping"),
    ],
)
def test_dimensions_and_labels_that_do_not_fit_are_refused(
    directory: Any, definition: dict[str, Any], says: str
) -> None:
    assert_refused(directory, says, **definition)


def test_labels_of_data_that_contradict_the_trace_are_refused(directory: Any) -> None:
    other = xr.Dataset({"y": ("s", [1.0, 2.0])}, coords={"s": ["b", "a"]})
    says = "coordinate 's' has other labels"
    assert_refused(directory, says, coords={"s": ["a", "b"]}, observed_data=other)
    longer = xr.Dataset({"y": ("s", [1.0] * 3)}, coords={"s": [1, 2, 3]})
    posterior = {"x": zt.Var(shape=2, dims="s")}
    assert_refused(directory, "'s'", posterior=posterior, observed_data=longer)


# Groups, counts and the rest ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("definition", "says"),
    [
        ({"posterior": {}}, "group 'posterior' has no variables"),
        ({"posterior": None}, "nothing to record"),
        ({"posterior": zt.Var()}, "give a mapping of names to zarrtrace.Var"),
        ({"posterior": ["mu"]}, "give a mapping"),
        ({"log_likelihood": 3}, "group 'log_likelihood': give a mapping"),
        ({"observed_data": {}}, "group 'observed_data' has no variables"),
        ({"observed_data": [1.0]}, "group 'observed_data': give a mapping"),
        ({"constant_data": 3}, "group 'constant_data': give a mapping"),
        ({"draws_per_chunk": 0}, "draws_per_chunk must be a whole number from 1, got 0"),
        ({"draws_per_chunk": 1.5}, "draws_per_chunk must be a whole number"),
        ({"draws_per_chunk": True}, "draws_per_chunk must be a whole number"),
        (
            {"posterior": {"x": zt.Var(draws_per_chunk=-1)}},
            "draws_per_chunk must be a whole number",
        ),
        ({"compressors": "zst"}, "compressors='zst': zarr refuses them"),
        ({"compressors": [1]}, "compressors="),
        ({"compressors": 3}, "compressors="),
    ],
)
def test_a_definition_that_is_none_is_refused(
    directory: Any, definition: dict[str, Any], says: str
) -> None:
    assert_refused(directory, says, **definition)


@pytest.mark.parametrize(
    ("name", "least"), [("chains", 1), ("draws", 0), ("tune", 0), ("chains_per_chunk", 1)]
)
def test_counts_are_whole_numbers(directory: Any, name: str, least: int) -> None:
    # Without a number of draws a trace has no end.
    for value in (least - 1, -5, 1.5, 2.0, "2", True, [2], *([] if name == "draws" else [None])):
        says = f"{name} must be a whole number from {least}"
        assert_refused(directory, says, InvalidInputError, **{name: value})


def test_a_trace_without_draws_is_refused(directory: Any) -> None:
    assert_refused(directory, "nothing to record", InvalidInputError, tune=0, draws=0)


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        ("flush_every", -1, "number of seconds"),
        ("flush_every", "often", "number of seconds"),
        ("flush_every", float("nan"), "number of seconds"),
        ("durability", "tape", "'process' .* or 'disk'"),
        ("journal", "/no/such/place", "not a directory; create it first"),
    ],
)
def test_options_are_checked(directory: Any, option: str, value: Any, says: str) -> None:
    assert_refused(directory, says, InvalidInputError, **{option: value})


@pytest.mark.parametrize(
    "value",
    [
        *(None, True, np.bool_(True), {"a": 1}, [None], [True], [[1]], b"x", 1j),
        *(np.datetime64(0, "s"), [1, "a"], 2**63, float("nan"), "\ud800", np.zeros((2, 2))),
    ],
    ids=repr,
)
def test_attributes_that_netcdf_cannot_hold_are_refused(directory: Any, value: Any) -> None:
    says = "attribute 'a' is .*netCDF holds strings, numbers and lists"
    assert_refused(directory, f"attrs: {says}", attrs={"a": value})
    says = f"posterior/x: {says}"
    assert_refused(directory, says, posterior={"x": zt.Var(attrs={"a": value})})


@pytest.mark.parametrize(
    ("dtype", "attrs"),
    [
        ("int64", {"_FillValue": 1}),
        ("float64", {"missing_value": 1.0}),
        ("float64", {"scale_factor": 10.0}),
        ("int32", {"add_offset": 10}),
        ("int8", {"dtype": "bool"}),
        ("int8", {"_Unsigned": "true"}),
        ("int64", {"units": "days since 2000-01-01"}),
        ("float64", {"_ARRAY_DIMENSIONS": ["chain", "draw"]}),
        ("M8[s]", {"units": "s"}),
        ("M8[s]", {"calendar": "noleap"}),
    ],
    ids=str,
)
def test_attributes_by_which_xarray_would_decode_are_refused(
    directory: Any, dtype: str, attrs: dict[str, Any]
) -> None:
    says = f"x: xarray would decode the values by the attribute '{next(iter(attrs))}'"
    assert_refused(directory, says, posterior={"x": zt.Var(dtype=dtype, attrs=attrs)})
    data = xr.Dataset({"x": ("s", np.zeros(2, dtype), attrs)})
    assert_refused(directory, says, observed_data=data)


def test_attributes_are_a_mapping_with_string_keys(directory: Any) -> None:
    assert_refused(directory, "attribute 1", attrs={1: "a"})
    assert_refused(directory, "attribute ''", attrs={"": "a"})
    assert_refused(directory, "attrs: give a mapping", attrs=["a"])


def test_an_existing_group_is_not_added_again(fast_place: Any) -> None:
    trace = fast_place.create(chains=1, draws=2, posterior={"x": zt.Var()})
    trace.add_group("predictions", {"y": [1.0]})
    for name in ("posterior", "predictions"):
        with pytest.raises(zt.errors.TraceExistsError, match=f"{name}.*already; .*name it differ"):
            trace.add_group(name, {"z": [2.0]})
    for data in ({"a/b": [1.0]}, {"a": object()}, {}, 3, {"draw": [1.0]}):
        with pytest.raises(SchemaError):
            trace.add_group("more", data)  # type: ignore[arg-type]
    assert trace.groups == ("posterior", "predictions")
    assert fast_place.open().predictions.y.values.tolist() == [1.0]


@pytest.mark.parametrize(
    ("definition", "says"),
    [
        ({"x": zt.Var}, r"posterior/x: zarrtrace\.Var is a class; pass zarrtrace\.Var\(\)"),
        ({"x": {"a": 1.0}}, r"posterior/x: a mapping is not a value, .* define 'x\.a'"),
        ({"x": object}, "posterior/x: dtype object cannot be stored"),
    ],
    ids=["a class", "a mapping", "object"],
)
def test_what_stands_for_no_variable_is_refused(
    directory: Any, definition: dict[str, Any], says: str
) -> None:
    assert_refused(directory, says, chains=1, draws=1, posterior=definition)


def test_a_dtype_stands_for_a_number_of_it() -> None:
    given: dict[str, Any] = {"x": float, "n": int, "text": str, "small": np.dtype("f4"), "b": bool}
    trace = zt.create(chains=1, draws=1, posterior=given)
    with trace.writer(0) as writer:
        writer.record({"x": 0.5, "n": 2, "text": "a", "small": 0.25, "b": True})
    found = {name: trace.get(name) for name in given}
    kinds = {name: values.dtype.str[1:] for name, values in found.items() if name != "text"}
    assert kinds == {"x": "f8", "n": "i8", "small": "f4", "b": "i1"}
    assert {name: values[0, 0] for name, values in found.items()} == {
        "x": 0.5, "n": 2, "text": "a", "small": 0.25, "b": 1,
    }  # fmt: skip
