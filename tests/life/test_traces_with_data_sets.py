"""Traces of version 0.1 with data sets in their data groups open, and live on as any other."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr

import zarrtrace as zt
from zarrtrace.errors import TraceExistsError

STORED = Path(__file__).parent.parent / "data" / "traces_with_data_sets.zip"
DRAWS = [[4, 5, 6, 7, 8, 9], [104, 105, 106, 107, 108, 109]]


@pytest.fixture
def traces(tmp_path: Path) -> Path:
    """`running.zarr` and `finished.zarr`: 2 chains of 4 draws of warmup and 6 draws.

    `observed_data` has `y`, given whole, and a data set; `constant_data` is a data set only.
    """
    with zipfile.ZipFile(STORED) as stored:
        stored.extractall(tmp_path)
    return tmp_path


@pytest.mark.parametrize("life", ["running", "finished"])
def test_it_reads_and_shows_nothing_wrong(traces: Path, life: str) -> None:
    trace = zt.open(traces / f"{life}.zarr")
    assert trace.check() == []
    assert trace.posterior.mu.values.tolist() == DRAWS
    assert trace.observed_data.y.values.tolist() == [0, 1, 2, 3]
    assert list(trace.to_datatree()["observed_data"].data_vars) == ["y"]
    assert "constant_data" not in trace.groups
    assert "mu, w (w_dim_0: 3)" in repr(trace)


def check_plain(path: Path, warmup: int, labels: list[int]) -> None:
    """What readers that know nothing of zarrtrace find in a finished trace."""
    consolidated: Any = xr.open_datatree(path, engine="zarr", chunks=None)
    separate: Any = xr.open_datatree(path, engine="zarr", chunks=None, consolidated=False)
    for tree in (consolidated, separate):
        assert tree["posterior"].mu.shape == (2, 10 - warmup)
        assert tree["warmup_posterior"].mu.values.tolist()[1] == [100 + i for i in range(warmup)]
        assert tree["observed_data"].y.values.tolist() == [0, 1, 2, 3]
        assert tree["observed_data/train"].x.values.tolist() == np.arange(18).reshape(6, 3).tolist()
        assert tree["observed_data/valid"].label.values.tolist() == labels
        assert tree["constant_data/train"].z.values.tolist() == list(range(10))
    document = zarr.open_group(path, mode="r").metadata.consolidated_metadata
    assert document is not None
    assert "constant_data/train/z" in document.flattened_metadata


def test_it_splits_records_on_and_finishes(traces: Path) -> None:
    trace = zt.open(traces / "running.zarr", mode="a")
    trace.split_warmup(3)
    assert trace.posterior.mu.values.tolist()[0] == list(range(3, 10))
    trace.finish()
    assert trace.check() == []
    check_plain(traces / "running.zarr", 3, [6, 7])


def test_a_finished_one_is_split_again_extended_and_repaired(traces: Path) -> None:
    path = traces / "finished.zarr"
    check_plain(path, 4, [6, 7])
    trace = zt.open(path, mode="a")
    trace.split_warmup(2)
    check_plain(path, 2, [6, 7])
    trace.add_group("predictions", {"y": np.zeros(4)})
    assert trace.repair() == []
    check_plain(path, 2, [6, 7])
    tree = xr.open_datatree(path, engine="zarr", chunks=None)
    assert tree["observed_data/test"].predicted.values.tolist() == [8, 9]
    assert tree["predictions"].y.shape == (4,)
    longer = trace.extend(draws=2)
    for chain in range(2):
        with longer.writer(chain) as writer:
            writer.resume()
            writer.record({"mu": 0.0, "w": [0.0] * 3})
    longer.finish()
    assert xr.open_datatree(path, engine="zarr", chunks=None)["posterior"].mu.shape == (2, 9)
    assert zt.open(path).check() == []


def test_a_new_group_does_not_take_the_place_of_a_data_set(traces: Path) -> None:
    path = traces / "running.zarr"
    trace = zt.open(path, mode="a")
    with pytest.raises(TraceExistsError, match="not a group of the trace"):
        trace.add_group("constant_data", {"n": 3})
    assert zarr.open_group(path, mode="r")["constant_data/train/z"].shape == (10,)
