"""Values with nothing in them are stored, and what a mask hides is never read as a value."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from conftest import Place

import zarrtrace as zt
from zarrtrace.errors import DrawError, InvalidInputError, SchemaError

MASKED = np.ma.masked_values([1.0, -999.0, 3.0], -999.0)
MASKED_INTS = np.ma.masked_values([1, -999, 3], -999)


@pytest.mark.once("newest")
@pytest.mark.parametrize(
    "options",
    [{}, {"journal": False}, {"checksum": True}, {"compressors": None}],
    ids=["default", "without a journal", "with checksums", "not compressed"],
)
def test_a_variable_without_elements_goes_the_way_of_every_other(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    path = tmp_path / "run.zarr"
    posterior = {
        "mu": zt.Var(),
        "beta": zt.Var(dims="covariate"),
        "gamma": zt.Var(dims=("school", "covariate")),
        "text": zt.Var(shape=0, dtype=str),
    }
    trace = zt.create(
        path,
        chains=2,
        tune=4,
        draws=6,
        draws_per_chunk=3,
        posterior=posterior,
        constant_data={"X": (("school", "covariate"), np.empty((2, 0)))},
        coords={"covariate": [], "school": ["a", "b"]},
        **options,
    )

    def record(chain: int, start: int, stop: int) -> None:
        with trace.writer(chain) as writer:
            writer.resume()
            for draw in range(start, stop):
                empty = {"beta": [], "gamma": np.empty((2, 0)), "text": np.array([], "U")}
                writer.record({"mu": float(draw), **empty})

    for chain in range(2):
        record(chain, 0, 5)
    assert trace.get("gamma").shape == (2, 1, 2, 0)
    assert trace.check() == []
    for chain in range(2):
        record(chain, 5, 10)
    trace.finish()
    assert trace.check() == []
    for tree in (trace.to_datatree(), xr.open_datatree(path, engine="zarr")):
        posterior_group = tree["posterior"].to_dataset().load()
        assert posterior_group["mu"].values.tolist() == [list(map(float, range(4, 10)))] * 2
        shapes = {name: array.shape[2:] for name, array in posterior_group.data_vars.items()}
        assert shapes == {"mu": (), "beta": (0,), "gamma": (2, 0), "text": (0,)}
        assert tree["constant_data"]["X"].shape == (2, 0)
    adopted = zt.from_datatree(trace.to_datatree(), tmp_path / "adopted.zarr")
    assert adopted.posterior["gamma"].shape == (2, 6, 2, 0)


@pytest.mark.once("newest")
def test_masked_floats_and_times_are_missing(fast_place: Place) -> None:
    times = np.ma.array(np.array([1, 2], "M8[ns]"), mask=[False, True])
    trace = fast_place.create(
        chains=1,
        draws=4,
        posterior={
            "x": zt.Var(shape=3),
            "y": zt.Var(),
            "z": zt.Var(),
            "single": zt.Var(shape=3, dtype="float32"),
            "t": zt.Var(shape=2, dtype="datetime64[ns]"),
            "rows": zt.Var(shape=(2, 3)),
        },
        observed_data={"seen": MASKED, "when": times},
    )
    draw = {
        "x": MASKED,
        "y": np.ma.masked,
        "z": np.ma.array(5.0, mask=False),
        "single": MASKED,
        "t": times,
        "rows": [MASKED, np.ones(3)],
    }
    with trace.writer(0) as writer:
        writer.record(draw)
        writer.record_block({name: np.ma.stack([np.ma.array(v)] * 3) for name, v in draw.items()})
    for i in range(4):
        assert np.array_equal(trace.get("x")[0, i], [1, np.nan, 3], equal_nan=True)
        assert np.array_equal(trace.get("single")[0, i], [1, np.nan, 3], equal_nan=True)
        assert np.isnan(trace.get("y")[0, i])
        assert trace.get("z")[0, i] == 5
        assert np.isnat(trace.get("t")[0, i]).tolist() == [False, True]
        assert np.isnan(trace.get("rows")[0, i]).tolist() == [[False, True, False], [False] * 3]
    assert np.array_equal(trace.observed_data["seen"], [1, np.nan, 3], equal_nan=True)
    assert np.isnat(trace.observed_data["when"].values).tolist() == [False, True]


@pytest.mark.once("newest")
def test_masked_values_that_cannot_be_missing_are_refused(tmp_path: Path) -> None:
    says = "1 of 3 values of dtype int64 are masked"
    with pytest.raises(SchemaError, match=f"observed_data/k: {says}"):
        zt.create(chains=1, draws=1, posterior={"n": zt.Var()}, observed_data={"k": MASKED_INTS})
    variables = {"n": zt.Var(shape=3, dtype="int64")}
    trace = zt.create(chains=1, draws=2, posterior=variables)
    with trace.writer(0) as writer:
        with pytest.raises(DrawError, match=says):
            writer.record({"n": MASKED_INTS})
        with pytest.raises(DrawError, match="2 of 6 values of dtype int64 are masked"):
            writer.record_block({"n": np.ma.stack([MASKED_INTS] * 2)})
        with pytest.raises(
            InvalidInputError, match=r"state\['n'\].*give its \.data and its \.mask"
        ):
            writer.checkpoint({"n": MASKED_INTS})
        # A mask that hides nothing does no harm.
        writer.record({"n": np.ma.array([1, 2, 3])})
    assert trace.get("n").tolist() == [[[1, 2, 3]]]
    with pytest.raises(SchemaError, match=says):
        trace.add_group("predictions", {"k": MASKED_INTS})
    with zt.table.open(tmp_path / "table.zarr", mode="a", columns=variables) as table:
        with pytest.raises(DrawError, match=says):
            table.append(n=MASKED_INTS)
        with pytest.raises(DrawError, match=says):
            table.append_rows({"n": MASKED_INTS[np.newaxis]})
        assert len(table) == 0


@pytest.mark.once("newest")
@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        ("f4", 1e300),
        ("f2", 70_000),
        ("c8", 1e300 + 0j),
        ("f4", np.float64(1e39)),
    ],
)
def test_a_number_too_large_for_its_dtype_is_refused(dtype: str, value: Any) -> None:
    variables = {name: zt.Var(dtype=dtype) for name in ("one", "another")}
    variables["vector"] = zt.Var(shape=2, dtype=dtype)
    trace = zt.create(chains=1, draws=2, posterior=variables)
    fits: dict[str, Any] = {"one": 1.0, "another": np.inf, "vector": [1.0, -np.inf]}
    with trace.writer(0) as writer:
        for name in variables:
            too_large = [value, 1.0] if name == "vector" else value
            with pytest.raises(DrawError, match=f"posterior/{name}.* is too large for"):
                writer.record({**fits, name: too_large})
            with pytest.raises(DrawError, match=f"posterior/{name}.* is too large for"):
                writer.record_block({k: [v] for k, v in {**fits, name: too_large}.items()})
        writer.record(fits)
    assert trace.get("vector").tolist() == [[[1.0, -np.inf]]]
