"""xarray opens a running trace by `engine="zarrtrace"`: the cut, ordered view, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import xarray as xr
from conftest import Place

import zarrtrace as zt


@pytest.fixture
def running(directory: Place) -> Iterator[zt.Trace]:
    """Two chains, one further than the other, which are not closed yet."""
    trace = directory.create(
        chains=2,
        tune=3,
        draws=10,
        posterior={"theta": zt.Var(shape=2, draws_per_chunk=4), "mu": zt.Var(draws_per_chunk=4)},
        sample_stats={"lp": zt.Var()},
        observed_data={"y": np.arange(3.0)},
    )
    writers = [trace.writer(chain) for chain in range(2)]
    for chain, draws in enumerate((9, 7)):
        for i in range(draws):
            writers[chain].record({"mu": i, "theta": [i, chain]}, {"lp": -i})
    yield trace
    for writer in writers:
        writer.close()


def test_a_running_trace_is_cut_to_its_draws(running: zt.Trace) -> None:
    tree = xr.open_datatree(running.path, engine="zarrtrace")
    assert list(tree.children) == list(running.groups)
    assert list(tree["posterior"].data_vars) == ["theta", "mu"]
    assert tree["posterior"]["mu"].values.tolist() == [[3, 4, 5, 6]] * 2
    assert tree["warmup_posterior"]["mu"].values.tolist() == [[0, 1, 2]] * 2
    assert tree["posterior"]["mu"].dims == ("chain", "draw")
    assert tree.attrs["creation_library"] == "zarrtrace"


def test_options_are_those_of_the_trace(running: zt.Trace) -> None:
    tree = xr.open_datatree(
        running.path, engine="zarrtrace", save_warmup=False, align="pad", drop_variables="theta"
    )
    assert "warmup_posterior" not in tree.children
    assert list(tree["posterior"].data_vars) == ["mu"]
    assert tree["posterior"].sizes["draw"] == 6
    assert np.isnan(tree["posterior"]["mu"].values[1]).tolist() == [False] * 4 + [True] * 2


def test_one_group_and_all_of_them_as_a_dictionary(running: zt.Trace) -> None:
    dataset = xr.open_dataset(running.path, engine="zarrtrace", group="warmup_sample_stats")
    assert dataset["lp"].values.tolist() == [[0, -1, -2]] * 2
    assert xr.open_dataset(running.path, engine="zarrtrace").sizes["draw"] == 4
    groups = xr.open_groups(running.path, engine="zarrtrace")
    assert set(groups) == {"/", *(f"/{name}" for name in running.groups)}


def test_dask_only_when_it_is_asked_for(running: zt.Trace) -> None:
    lazy = xr.open_datatree(running.path, engine="zarrtrace")
    assert lazy["posterior"]["mu"].chunks is None
    chunked = xr.open_datatree(running.path, engine="zarrtrace", chunks={})
    assert chunked["posterior"]["mu"].chunks is not None
    assert chunked["posterior"]["mu"].values.tolist() == [[3, 4, 5, 6]] * 2


def test_what_is_not_a_trace_is_named(tmp_path) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(zt.errors.TraceNotFoundError, match=r"nothing\.zarr"):
        xr.open_datatree(tmp_path / "nothing.zarr", engine="zarrtrace")
