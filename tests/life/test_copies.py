"""A trace that is copied from one kind of store to another, whose chunks have other keys."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from conftest import Encoded, Place
from zarr.core.buffer.cpu import Buffer
from zarr.storage import MemoryStore

import zarrtrace as zt

TUNE, DRAWS = 6, 9


def recorded(place: Any, encoded: Encoded, *stops: int) -> zt.Trace:
    definition = {"chains": 2, "tune": TUNE, "draws": DRAWS, "observed_data": {"y": np.arange(3)}}
    return encoded.fill(encoded.create(place, **definition), *stops)


def live_on(trace: zt.Trace, place: Any, encoded: Encoded) -> None:
    """Record the rest of the draws, split, finish, and read it by everything."""
    encoded.fill(trace)
    trace.split_warmup(4)
    encoded.check_split(zt.open(place), 4, TUNE + DRAWS)
    trace.split_warmup(TUNE)
    with trace.table("steps", {"step": int, "text": str}) as table:
        table.append(step=1, text="one")
    trace.finish()
    assert trace.check() == []
    found = zt.open(place)
    encoded.check_split(found, TUNE, TUNE + DRAWS)
    assert found.table("steps")["text"].tolist() == ["one"]
    with xr.open_datatree(place, engine="zarr") as plain:
        encoded.check_split(plain, TUNE, TUNE + DRAWS)
        assert plain.observed_data.y.values.tolist() == [0, 1, 2]
    trace.extend(1)
    encoded.fill(trace)
    assert zt.open(place).recorded.tolist() == [TUNE + DRAWS + 1] * 2


@pytest.mark.parametrize("stop", [0, 11, TUNE + DRAWS])
def test_from_an_object_store_to_a_disk(tmp_path: Path, encoded: Encoded, stop: int) -> None:
    store = MemoryStore()
    recorded(store, encoded, stop)
    assert {key for key in store._store_dict if "/c." in key} == set()
    for key, data in store._store_dict.items():
        file = tmp_path / "run.zarr" / key
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data.to_bytes())
    trace = zt.open(tmp_path / "run.zarr", "a")
    assert trace.recorded.tolist() == [stop, stop]
    live_on(trace, tmp_path / "run.zarr", encoded)


def test_from_a_disk_to_an_object_store(directory: Place, encoded: Encoded) -> None:
    recorded(directory, encoded, 11)
    store = MemoryStore()
    for file in directory.path.rglob("*"):
        if file.is_file():
            key = str(file.relative_to(directory.path))
            store._store_dict[key] = Buffer.from_bytes(file.read_bytes())
    assert not any("/c/" in key for key in store._store_dict)
    live_on(zt.open(store, "a"), store, encoded)


if sys.version_info >= (3, 12):

    def test_a_store_that_knows_zarr(encoded: Encoded) -> None:
        """Icechunk takes chunks of arrays that have a document, by the keys that are usual."""
        import icechunk

        repository = icechunk.Repository.create(icechunk.in_memory_storage())
        session = repository.writable_session("main")
        recorded(session.store, encoded, 1)
        definition = {"chains": 2, "tune": TUNE, "draws": DRAWS, "overwrite": True}
        trace = encoded.fill(encoded.create(session.store, **definition), 11)
        trace.add_group("constant_data", {"k": [1, 2, 3]})
        with trace.table("steps", {"step": int, "text": str}) as table:
            table.append(step=1, text="one")
        encoded.fill(trace)
        trace.split_warmup(4)
        encoded.check_split(zt.open(session.store), 4, TUNE + DRAWS)
        trace.split_warmup(TUNE)
        trace.finish()
        assert trace.check() == []
        session.commit("finished")
        store = repository.readonly_session("main").store
        found = zt.open(store)
        encoded.check_split(found, TUNE, TUNE + DRAWS)
        assert found.table("steps")["text"].tolist() == ["one"]
        assert found.constant_data.k.values.tolist() == [1, 2, 3]
        with xr.open_datatree(store, engine="zarr") as plain:
            encoded.check_split(plain, TUNE, TUNE + DRAWS)
        session = repository.writable_session("main")
        twice = xr.Dataset({"twice": 2 * found.posterior.mu.load().variable})
        twice.to_zarr(session.store, group="posterior", mode="a", consolidated=False)
        trace = zt.open(session.store, "a")
        trace.split_warmup(4)
        posterior = trace.posterior
        assert np.array_equal(posterior.twice[:, 2:], 2 * posterior.mu[:, 2:])
        assert np.isnan(posterior.twice[:, :2]).all()
        assert trace.check() == []
        session.commit("split again")
