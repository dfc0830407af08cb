"""Another run under the same path is never taken for the one that a reader or a writer holds."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Place
from scripts import FreshScript

import zarrtrace as zt
from zarrtrace.errors import StaleViewError, TraceReplacedError

DEFINITION: dict[str, Any] = {
    "chains": 1,
    "draws": 40,
    "posterior": {"mu": zt.Var(draws_per_chunk=10)},
    "observed_data": {"y": [1.0, 2.0]},
}


def make(path: Path, value: float, draws: int = 40, **options: Any) -> zt.Trace:
    trace = zt.create(path, **DEFINITION, **options)
    with trace.writer(0) as writer:
        writer.record_block({"mu": np.full(draws, value)})
    return trace


def make_again(path: Path, how: str, value: float) -> zt.Trace:
    if how == "removed":
        shutil.rmtree(path)
        return make(path, value)
    return make(path, value, overwrite=True)


@pytest.mark.parametrize("how", ["removed", "overwritten"])
@pytest.mark.parametrize("finished", [False, True])
def test_what_is_held_of_a_trace_shows_no_other_one(
    tmp_path: Path, how: str, finished: bool
) -> None:
    path = tmp_path / "run.zarr"
    made = make(path, 1.0)
    if finished:
        made.finish()
    opened = zt.open(path)
    view, tree, snapshot = opened.posterior, opened.to_datatree(), opened.at_once()
    data = opened.observed_data
    other = make_again(path, how, -7.0)
    if finished:
        other.finish()
    held = [
        lambda: view.mu.values,
        lambda: data.y.values,
        lambda: tree["observed_data"].y.sum().values,
        lambda: tree["posterior"].mu.mean().values,
        lambda: snapshot.get("mu"),
        lambda: opened.get("mu"),
        lambda: opened.recorded,
        lambda: made.posterior,
        lambda: made.writer(0),
    ]
    for read in held:
        with pytest.raises(TraceReplacedError, match="another trace lies here now"):
            read()
    assert issubclass(TraceReplacedError, StaleViewError)
    assert zt.open(path).get("mu").tolist() == [[-7.0] * 40]


def record_until_it_is_refused(writer: zt.ChainWriter) -> None:
    for _ in range(20):
        writer.record({"mu": -1.0})


def test_a_forgotten_writer_writes_nothing_into_the_trace_that_took_its_place(
    tmp_path: Path,
) -> None:
    path = tmp_path / "run.zarr"
    zt.create(path, **DEFINITION)
    old = zt.open(path, "a").writer(0)
    for _ in range(5):
        old.record({"mu": -1.0})
    shutil.rmtree(path)
    new = zt.create(path, **DEFINITION).writer(0)
    for i in range(25):
        new.record({"mu": float(i)})
    with pytest.raises(TraceReplacedError) as caught:
        record_until_it_is_refused(old)
    assert caught.value.chain == 0
    old._beat()
    for attempt in (old.flush, lambda: old.checkpoint({"state": np.zeros(2000)}), old.close):
        with pytest.raises(TraceReplacedError):
            attempt()
    assert old.closed
    assert zt.open(path).get("mu").tolist() == [[float(i) for i in range(25)]]
    new.record({"mu": 25.0})
    new.close()
    trace = zt.open(path, "a")
    assert trace.get("mu").tolist() == [[float(i) for i in range(26)]]
    assert trace.check() == []


def test_a_writer_left_open_by_a_cell_does_not_touch_the_next_trace_at_exit(
    tmp_path: Path, fresh_script: FreshScript
) -> None:
    path = tmp_path / "run.zarr"
    fresh_script.run(
        """
        import shutil, sys
        import zarrtrace as zt

        def make():
            return zt.create(sys.argv[1], chains=1, draws=10, posterior={"mu": zt.Var()})

        writer = make().writer(0)
        for i in range(5):
            writer.record({"mu": -1.0})
        shutil.rmtree(sys.argv[1])
        trace = make()
        with trace.writer(0) as other:
            for i in range(10):
                other.record({"mu": float(i)})
        trace.finish()
        """,
        path,
    )
    trace = zt.open(path)
    assert trace.finished
    assert trace.recorded.tolist() == [10]
    assert trace.get("mu").tolist() == [[float(i) for i in range(10)]]
    assert trace.check() == []


def test_in_memory_and_on_object_stores_too(place: Place) -> None:
    trace = place.create(**DEFINITION)
    with trace.writer(0) as writer:
        writer.record_block({"mu": np.ones(40)})
    view = trace.posterior
    place.create(**DEFINITION, overwrite=True)
    with pytest.raises(TraceReplacedError):
        _ = view.mu.values
    with pytest.raises(TraceReplacedError):
        trace.writer(0)


@pytest.mark.parametrize("how", ["removed", "overwritten"])
def test_a_table_of_a_trace_gets_no_row_of_the_one_that_lay_there(tmp_path: Path, how: str) -> None:
    path = tmp_path / "run.zarr"
    trace = make(path, 1.0)
    held, unused = trace.table("steps"), trace.table("later")
    held.append(step=1)
    held.close()
    now = make_again(path, how, 2.0)
    now.table("steps").append(step=5)
    now.close()
    for act in (
        lambda: held.append(step=2),
        lambda: held["step"],
        lambda: len(held),
        lambda: unused.append(step=3),
        lambda: trace.table("another").append(step=4),
    ):
        with pytest.raises(TraceReplacedError):
            act()
    assert now.tables == ("steps",)
    assert now.table("steps")["step"].tolist() == [5]
