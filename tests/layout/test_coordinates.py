"""Labels of dimensions come back as `create` documents them, here and in plain readers."""

from __future__ import annotations

import datetime
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import zarrtrace as zt

TEXT = object  # as netCDF gives it: NumPy does not cast its own dtype of text to str
NOON = datetime.datetime(2020, 1, 1, 12)
BERLIN = pd.DatetimeIndex(["2020-01-01", "2020-01-02", "2020-01-03"], tz="Europe/Berlin")


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([3, 1, 2], np.array([3, 1, 2])),
        (range(3), np.arange(3)),
        (np.array([1, 2, 3], dtype="uint8"), np.array([1, 2, 3], dtype="uint8")),
        ([0.5, 1, 2], np.array([0.5, 1.0, 2.0])),
        ((x / 4 for x in range(3)), np.array([0.0, 0.25, 0.5])),
        (["a", "b", "ö"], np.array(["a", "b", "ö"], dtype=TEXT)),
        (np.array(["a", "b", "c"]), np.array(["a", "b", "c"], dtype=TEXT)),
        (np.array(["a", "b", "c"], dtype=object), np.array(["a", "b", "c"], dtype=TEXT)),
        ({"a": 1, "b": 2, "c": 3}.keys(), np.array(["a", "b", "c"], dtype=TEXT)),
        ([True, False, True], np.array([True, False, True])),
        (
            np.array(["2020-01-01", "2020-01-02", "2020-01-03"], dtype="M8[D]"),
            np.array(["2020-01-01", "2020-01-02", "2020-01-03"], dtype="M8[s]"),
        ),
        ([NOON] * 3, np.array([NOON] * 3, dtype="M8[us]")),
        ([NOON.date()] * 3, np.array([NOON.date()] * 3, dtype="M8[us]")),
        ([datetime.timedelta(hours=1)] * 3, np.array([3_600_000_000] * 3, dtype="m8[us]")),
        (np.array([1, 2, 3], dtype="m8[ms]"), np.array([1, 2, 3], dtype="m8[ms]")),
        (pd.Index([3, 1, 2]), np.array([3, 1, 2])),
        (pd.RangeIndex(2, 8, 2), np.array([2, 4, 6])),
        (pd.Index(["a", "b", "c"]), np.array(["a", "b", "c"], dtype=TEXT)),
        (pd.Index([0.5, 1.5, 2.5]), np.array([0.5, 1.5, 2.5])),
        (
            pd.DatetimeIndex(["2020-01-01", "2020-01-02", "2020-01-03"], dtype="M8[ns]"),
            np.array(["2020-01-01", "2020-01-02", "2020-01-03"], dtype="M8[ns]"),
        ),
        (pd.to_timedelta([1, 2, 3], unit="s").as_unit("s"), np.array([1, 2, 3], dtype="m8[s]")),
        (pd.CategoricalIndex(["b", "a", "b"]), np.array(["b", "a", "b"], dtype=TEXT)),
        (pd.CategoricalIndex([2, 1, 2]), np.array([2, 1, 2])),
        (pd.Series([1.5, 2.5, 3.5]), np.array([1.5, 2.5, 3.5])),
        (xr.DataArray(["x", "y", "z"], dims="s"), np.array(["x", "y", "z"], dtype=TEXT)),
        # Tuples and mixed labels as their text.
        ([("a", 1), ("b", 2), ("c", 3)], np.array(["a, 1", "b, 2", "c, 3"], dtype=TEXT)),
        ([["a", 1], ["b", 2], ["c", 3]], np.array(["a, 1", "b, 2", "c, 3"], dtype=TEXT)),
        ([(1, (2, 3))] * 3, np.array(["1, 2, 3"] * 3, dtype=TEXT)),
        (["a", 1, 2.5], np.array(["a", "1", "2.5"], dtype=TEXT)),
        (["a", None, NOON], np.array(["a", "None", "2020-01-01 12:00:00"], dtype=TEXT)),
        (pd.Index(["a", 1, (2, 3)], dtype=object), np.array(["a", "1", "2, 3"], dtype=TEXT)),
        (
            pd.period_range("2020-01", periods=3, freq="M"),
            np.array(["2020-01", "2020-02", "2020-03"], dtype=TEXT),
        ),
        ([NOON.time()] * 3, np.array(["12:00:00"] * 3, dtype=TEXT)),
        (BERLIN, np.array([str(time) for time in BERLIN], dtype=TEXT)),
        (pd.interval_range(0, 3), np.array(["(0, 1]", "(1, 2]", "(2, 3]"], dtype=TEXT)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_labels_of_every_kind_come_back(memory: Any, labels: Any, expected: Any) -> None:
    trace = memory.create(
        chains=1,
        tune=1,
        draws=2,
        posterior={"x": zt.Var(dims="s")},
        sample_stats={"lp": zt.Var()},
        coords={"s": labels},
        observed_data={"y": ("s", [1.0, 2.0, 3.0])},
    )
    with trace.writer(0) as writer:
        writer.record_block({"x": np.zeros((3, 3))}, {"lp": np.zeros(3)})

    def assert_there(found: Any, text: Any = TEXT) -> None:
        for group in ("posterior", "warmup_posterior", "observed_data"):
            values = found[group]["s"].values
            assert values.dtype == (text if expected.dtype == TEXT else expected.dtype)
            assert values.tolist() == expected.tolist()
        assert "s" not in found["sample_stats"].coords

    assert_there(trace)
    trace.finish()
    assert_there(memory.open())
    assert_there(memory.open().to_datatree(save_warmup=True))
    with xr.open_datatree(memory.store, engine="zarr") as tree:
        assert_there(tree, np.dtypes.StringDType())


def test_each_level_of_a_multiindex_becomes_a_coordinate(fast_place: Any) -> None:
    levels = [("a", 1), ("a", 2), ("b", 1)]
    index = pd.MultiIndex.from_tuples(levels, names=["site", None])
    trace = fast_place.create(
        chains=1, draws=2, posterior={"x": zt.Var(dims="s")}, coords={"s": index}
    )
    with trace.writer(0) as writer:
        writer.record_block({"x": np.zeros((2, 3))})
    trace.finish()
    for found in (trace.posterior, open_plainly(fast_place.store, "posterior")):
        assert found.s.values.tolist() == ["a, 1", "a, 2", "b, 1"]
        assert {"chain", "draw", "s", "site", "s_level_1"} == set(found.coords)
        assert found.site.dims == found.s_level_1.dims == ("s",)
        assert found.site.values.tolist() == ["a", "a", "b"]
        assert found.s_level_1.values.tolist() == [1, 2, 1]
        # The index as it was, when a user wants it.
        again = found.drop_vars("s").set_index(s=["site", "s_level_1"])
        assert again.indexes["s"].tolist() == levels


def test_a_dimension_without_labels_is_numbered(fast_place: Any) -> None:
    trace = fast_place.create(
        chains=1,
        draws=2,
        posterior={"x": zt.Var(shape=(2, 3), dims=["row", "column"]), "v": np.zeros(2)},
        dims={"v": "row"},
    )
    posterior = trace.posterior
    assert posterior.x.dims == ("chain", "draw", "row", "column")
    assert posterior.v.dims == ("chain", "draw", "row")
    assert (posterior.row.values.tolist(), posterior.column.values.tolist()) == ([0, 1], [0, 1, 2])


def test_dimensions_take_the_name_of_their_variable_by_default(fast_place: Any) -> None:
    trace = fast_place.create(chains=1, draws=2, posterior={"x": zt.Var(shape=(2, 3))})
    assert trace.posterior.x.dims == ("chain", "draw", "x_dim_0", "x_dim_1")


def open_plainly(store: Any, group: str) -> xr.Dataset:
    return xr.open_zarr(store, group=group, consolidated=False)


def test_labels_and_attributes_of_data_join_the_trace(fast_place: Any) -> None:
    data = xr.Dataset(
        {"y": ("s", [1.0, 2.0], {"units": "points"})},
        coords={
            "s": ("s", ["a", "b"], {"long_name": "school"}),
            "size": ("s", [10, 20]),
        },
    )
    posterior = {"x": zt.Var(shape=2, dims="s")}
    trace = fast_place.create(chains=1, draws=2, posterior=posterior, observed_data=data)
    with trace.writer(0) as writer:
        writer.record_block({"x": np.zeros((2, 2))})
    trace.finish()
    plain = [open_plainly(fast_place.store, g) for g in ("posterior", "observed_data")]
    for dataset in (trace.posterior, trace.observed_data, *plain):
        assert "size" in dataset.coords
        assert dataset.s.values.tolist() == ["a", "b"]
        assert dataset["size"].dims == ("s",)
        assert dataset["size"].values.tolist() == [10, 20]
    assert trace.observed_data.y.attrs == {"units": "points"}


def test_the_attributes_of_labels_are_kept(fast_place: Any) -> None:
    labels = xr.DataArray([0.0, 0.5], dims="t", attrs={"units": "m", "long_name": "depth"})
    trace = fast_place.create(
        chains=1, draws=2, posterior={"x": zt.Var(dims="t")}, coords={"t": labels}
    )
    assert trace.posterior.t.attrs == {"units": "m", "long_name": "depth"}


def test_a_dimension_may_have_more_labels_than_its_own(fast_place: Any) -> None:
    coords = {
        "school": ["a", "b", "c"],
        "county": xr.DataArray([7, 8, 9], dims="school", attrs={"units": "1"}),
        "own": xr.DataArray([1, 2]),
    }
    posterior = {"theta": zt.Var(dims="school"), "phi": zt.Var(dims="own")}
    trace = fast_place.create(chains=1, draws=1, posterior=posterior, coords=coords)
    with trace.writer(0) as writer:
        writer.record({"theta": [1.0, 2.0, 3.0], "phi": [1.0, 2.0]})
    trace.finish()
    for found in (
        trace.posterior,
        xr.open_dataset(fast_place.store, engine="zarr", group="posterior"),
    ):
        assert found["theta"].coords["county"].values.tolist() == [7, 8, 9]
        assert found["theta"].coords["county"].dims == ("school",)
        assert found["phi"].coords["own"].values.tolist() == [1, 2]
    with pytest.raises(
        zt.errors.SchemaError, match="'county' has 2 labels along dimension 'school'"
    ):
        zt.create(
            chains=1, draws=1, posterior=posterior,
            coords=coords | {"county": xr.DataArray([7, 8], dims="school")},
        )  # fmt: skip


def test_labels_of_text_can_be_cast_and_searched(directory: Any) -> None:
    schools = {"school": ["Choate", "Zürich"]}
    posterior = {"x": zt.Var(dims="school")}
    data = {"y": ("school", [1.0, 2.0])}
    trace = directory.create(
        chains=1, draws=1, posterior=posterior, observed_data=data, coords=schools
    )
    for group in ("posterior", "observed_data"):
        labels = trace[group]["school"]
        assert labels.astype(str).values.tolist() == schools["school"]
        assert trace[group].sel(school="Zürich")["school"].item() == "Zürich"
