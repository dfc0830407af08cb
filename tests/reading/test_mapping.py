"""A trace is a mapping of its groups, and a context manager that closes what was opened."""

from __future__ import annotations

import copy
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import zarrtrace as zt


def create(store: Any = None, **options: Any) -> zt.Trace:
    groups: dict[str, Any] = {"posterior": {"x": 0.0}, "sample_stats": {"lp": 0.0}, **options}
    return zt.create(store, chains=2, tune=1, draws=3, **groups)


def filled(trace: zt.Trace) -> zt.Trace:
    for chain in range(2):
        with trace.writer(chain) as writer:
            for i in range(4):
                writer.record({"x": chain + i}, {"lp": -i})
    return trace


NAMES = ["posterior", "sample_stats", "observed_data", "warmup_posterior", "warmup_sample_stats"]


def test_a_trace_is_a_mapping_of_its_groups() -> None:
    trace = filled(create(observed_data={"y": [1.0, 2.0]}))
    assert list(trace) == list(trace.keys()) == list(trace.groups) == NAMES
    assert len(trace) == len(trace.keys()) == len(trace.items()) == len(NAMES)
    assert "posterior" in trace
    assert "prior" not in trace
    assert trace.keys() & {"posterior", "prior"} == {"posterior"}
    for (name, dataset), value in zip(trace.items(), trace.values(), strict=True):
        assert dataset.identical(trace.dataset(name))
        assert value.identical(dataset)
    assert list(dict(trace)) == NAMES
    assert {**trace}["posterior"].x.values.tolist() == [[1, 2, 3], [2, 3, 4]]


def test_a_trace_equals_itself_alone_and_can_be_a_key(tmp_path: Path) -> None:
    trace = create(tmp_path / "run.zarr")
    other = zt.open(tmp_path / "run.zarr")
    assert trace == trace
    assert trace != other
    assert {trace: 1, other: 2}[trace] == 1


def test_to_ask_whether_there_is_a_trace_reads_nothing(tmp_path: Path) -> None:
    trace = create(tmp_path / "run.zarr")
    (tmp_path / "run.zarr/_sampling_state/zarr.json").unlink()
    assert bool(trace)


@pytest.mark.parametrize("again", [copy.copy, lambda trace: pickle.loads(pickle.dumps(trace))])
def test_a_copy_of_a_trace_is_a_mapping_too(tmp_path: Path, again: Any) -> None:
    trace = filled(create(tmp_path / "run.zarr"))
    assert list(again(trace)) == list(trace)
    assert repr(again(trace)) == repr(trace)


@pytest.mark.parametrize("name", ["draws", "table", "check", "get", "keys", "close"])
def test_a_group_with_the_name_of_an_attribute_is_an_item(name: str) -> None:
    trace = create()
    trace.add_group(name, {"z": [1.0, 2.0]})
    assert name in trace
    assert trace[name].z.values.tolist() == [1, 2]
    assert trace.draws == 3
    assert list(dict(trace.items())) == list(trace)


def test_leaving_a_trace_closes_its_writers_and_tables(tmp_path: Path) -> None:
    create(tmp_path / "run.zarr")
    with zt.open(tmp_path / "run.zarr", mode="a") as trace:
        writers = [trace.writer(chain) for chain in range(2)]
        writers[0].record({"x": 1.0}, {"lp": 0.0})
        table = trace.table("loss")
        table.append(step=1, value=0.5)
    assert all(writer.closed for writer in writers)
    # Others may write now.
    with zt.open(tmp_path / "run.zarr", mode="a").writer(0) as writer:
        assert writer.resume() == (1, None)
    zt.open(tmp_path / "run.zarr", mode="a").table("loss").append(step=2, value=0.25)
    assert trace.table("loss")["step"].tolist() == [1, 2]


def test_a_closed_trace_is_read_and_opens_writers_again() -> None:
    trace = create()
    trace.close()
    trace.close()
    with filled(trace) as same:
        assert same is trace
    assert trace.recorded.tolist() == [4, 4]
    np.testing.assert_array_equal(trace.posterior.x, [[1, 2, 3], [2, 3, 4]])


def test_an_exception_closes_the_writers_and_the_draws_are_kept(tmp_path: Path) -> None:
    writers = []

    def fail() -> None:
        with create(tmp_path / "run.zarr") as trace:
            writers.append(trace.writer(1))
            writers[0].record({"x": 1.0}, {"lp": 0.0})
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert writers[0].closed
    assert zt.open(tmp_path / "run.zarr").recorded.tolist() == [0, 1]


def test_a_writer_that_cannot_be_closed_leaves_no_other_open(tmp_path: Path) -> None:
    trace = create(tmp_path / "run.zarr", journal=False)
    writers = [trace.writer(chain) for chain in range(2)]
    for writer in writers:
        writer.record({"x": 1.0}, {"lp": 0.0})
    shutil.rmtree(tmp_path / "run.zarr")
    with pytest.raises(zt.errors.TraceNotFoundError):
        trace.close()
    assert all(writer.closed for writer in writers)


def test_items_and_values_are_of_one_moment() -> None:
    trace = create()
    with trace.writer(0) as first, trace.writer(1) as second:
        for writer in (first, second):
            for _ in range(3):
                writer.record({"x": 0.0}, {"lp": 0.0})
        items, values = iter(trace.items()), iter(trace.values())
        sizes = [next(items)[1].sizes["draw"], next(values).sizes["draw"]]
        for writer in (first, second):
            writer.record({"x": 0.0}, {"lp": 0.0})
        sizes += [dataset.sizes["draw"] for _, dataset in items if "lp" in dataset]
        sizes += [dataset.sizes["draw"] for dataset in values if "lp" in dataset]
    assert sizes == [2, 2, 2, 1, 2, 1]


def test_a_snapshot_is_a_mapping_too() -> None:
    trace = filled(create())
    with trace.at_once() as now:
        assert list(now) == list(now.keys()) == list(trace)
        assert len(now) == len(now.items()) == 4
        assert dict(now)["posterior"].identical(now.posterior)
