"""One call shows one moment, in all groups, whatever other processes do meanwhile."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import xarray as xr

import zarrtrace as zt
from zarrtrace.store import remote
from zarrtrace.store.location import Location

if TYPE_CHECKING:
    from conftest import Place
    from scripts import Script

GROUPS = ("posterior", "sample_stats", "log_likelihood")
TUNE, DRAWS = 300, 1500

RECORD = """
    import os
    import sys
    import time

    import zarrtrace as zt

    trace, chain = zt.open(sys.argv[1], "a"), int(sys.argv[2])
    count, end, went_back = 0, trace.tune + trace.draws, 0
    while count < end:
        try:
            writer = trace.writer(chain)
        except zt.errors.ChainBusyError:
            time.sleep(0.01)
            continue
        with writer:
            count, _ = writer.resume()
            # A writer that comes back after these draws continues from its checkpoint before them.
            for number in range(count, min(count + 200, end)):
                # However slow the reader is: it looks in each way before the next 200 draws.
                begun = f"{trace.path}-round-{number // 200}"
                while number % 200 == 0 and not os.path.exists(begun):
                    time.sleep(0.01)
                value = {"x": float(number)}
                writer.record(value, value, log_likelihood=value)
                if number % 200 == 150:
                    writer.checkpoint(number)
                time.sleep(0.002)
            count = writer.recorded
"""

LIVE = """
    import sys
    import time

    import zarrtrace as zt

    def insist(change, *arguments):
        while True:
            try:
                return change(*arguments)
            except (zt.errors.ChainBusyError, zt.errors.IncompleteTraceError):
                time.sleep(0.005)

    trace = zt.open(sys.argv[1], "a")
    insist(trace.split_warmup, 200)
    insist(trace.set_burn_in, 250)
    insist(trace.drop_before, 50)
    insist(trace.split_warmup)
    insist(trace.drop_before, 150)
    while (trace.recorded < trace.tune + trace.draws).any():
        time.sleep(0.01)
    insist(trace.finish)
"""


@pytest.fixture
def running(directory: Place, script: Script) -> Any:
    """A trace that two processes record, going back now and then, while a third changes it."""
    directory.create(
        chains=2,
        tune=TUNE,
        draws=DRAWS,
        draws_per_chunk=64,
        **{group: {"x": zt.Var()} for group in GROUPS},
    )
    # What looking imports takes seconds, in which the processes would have done half of their work.
    directory.open().to_inferencedata()
    started = [
        script.start(RECORD, directory.path, 0),
        script.start(RECORD, directory.path, 1),
        script.start(LIVE, directory.path),
    ]
    yield directory.open()
    for process in started:
        process.kill()
        process.communicate()


def look_until_finished(trace: zt.Trace, ways: list[Callable[[], Any]]) -> list[set[int]]:
    """Read a trace again and again in each way in turn; return the lengths that each way saw."""
    seen: list[set[int]] = [set() for _ in ways]
    for number in itertools.count():
        if trace.finished:
            break
        if number % len(ways) == 0:
            Path(f"{trace.path}-round-{number // len(ways)}").touch()
        look, lengths = ways[number % len(ways)], seen[number % len(ways)]
        found = look()
        sizes = {group: found[group].sizes["draw"] for group in GROUPS}
        assert len(set(sizes.values())) == 1, sizes
        warmups = {found[f"warmup_{g}"].sizes["draw"] for g in GROUPS if f"warmup_{g}" in found}
        assert len(warmups) <= 1
        lengths.add(sizes["posterior"])
        try:
            values = [found[group].x.values for group in GROUPS]
        except zt.TraceError as error:
            if "ask the trace for it again" not in str(error):
                raise
            continue
        first = trace.tune if not values[0].size else values[0][0, 0]
        expected = np.broadcast_to(first + np.arange(sizes["posterior"]), values[0].shape)
        for group in values:
            np.testing.assert_array_equal(group, expected)
    return seen


@pytest.mark.once("oldest")
@pytest.mark.filterwarnings("ignore:.* has no draw of chain:RuntimeWarning")
def test_all_groups_have_the_same_draws_while_others_record_go_back_split_drop_and_finish(
    running: zt.Trace,
) -> None:
    def at_once() -> Any:
        with running.at_once() as now:
            return {group: now[group] for group in now.groups}

    def get() -> Any:
        with running.at_once() as now:
            try:
                found = {group: now.get("x", group=group) for group in GROUPS}
            except zt.TraceError as error:
                if "ask the trace for it again" not in str(error):
                    raise
                found = {group: np.empty((2, 0)) for group in GROUPS}
        return {g: xr.Dataset({"x": (("chain", "draw"), x)}) for g, x in found.items()}

    ways = [
        lambda: running.to_datatree(save_warmup=True),
        lambda: running.to_inferencedata(save_warmup=True),
        lambda: xr.open_datatree(running.path, engine="zarrtrace"),
        at_once,
        get,
    ]
    for lengths in look_until_finished(running, ways):
        assert len(lengths) > 4
    for look in ways:
        assert look()["posterior"].sizes["draw"] > DRAWS


def test_a_moment_is_held_until_its_draws_are_gone(directory: Place) -> None:
    trace = directory.create(chains=2, draws=50, posterior={"x": zt.Var()}, draws_per_chunk=8)
    with trace.writer(0) as first, trace.writer(1) as second:
        for number in range(20):
            first.record({"x": number})
            second.record({"x": number})
            if number == 9:
                first.checkpoint("ten draws")
        now = trace.at_once()
        assert now.recorded.tolist() == [20, 20]
        for number in range(20, 30):
            first.record({"x": number})
            second.record({"x": number})
        assert now.recorded.tolist() == [20, 20]
        assert now.posterior.x.shape == now.to_datatree()["posterior/x"].shape == (2, 20)
        assert now.get("x").shape == (2, 20)
        assert trace.get("x").shape == (2, 30)
    assert "posterior" in now
    assert now.groups == ("posterior",)
    with trace.writer(0) as first:
        assert first.resume() == (10, "ten draws")
        with pytest.raises(zt.TraceError, match="went back to its checkpoint at draw 10"):
            now.posterior.x.load()
        with pytest.raises(zt.TraceError, match="went back to its checkpoint at draw 10"):
            now.get("x")
    trace.drop_before(5)
    with pytest.raises(zt.TraceError, match="before 5 were dropped"):
        now.get("x", chains=1)


def test_several_variables_are_read_together(fast_place: Place) -> None:
    trace = fast_place.create(
        chains=3,
        tune=2,
        draws=20,
        chains_per_chunk=2,
        draws_per_chunk=4,
        posterior={"a": zt.Var(), "b": zt.Var(shape=3, dtype="int16"), "word": zt.Var(dtype=str)},
        sample_stats={"lp": zt.Var()},
    )
    for block in trace.blocks:
        assert isinstance(block, range)
        with trace.writer(block) as writer:
            for number in range(15):
                a = np.arange(len(block)) + number
                b = np.repeat(a[:, None], 3, 1)
                writer.record({"a": a, "b": b, "word": a.astype(str)}, {"lp": -a})
    found = trace.get(["b", "lp", "word"], draws=slice(1, None, 2))
    assert list(found) == ["b", "lp", "word"]
    for name, values in found.items():
        alone = trace.get(name, draws=slice(1, None, 2))
        np.testing.assert_array_equal(values, alone)
        assert values.dtype == alone.dtype
    flat = trace.get(("a", "b"), chains=[2, 0], flatten=True)
    np.testing.assert_array_equal(flat["a"], trace.get("a", chains=[2, 0], flatten=True))
    assert flat["b"].shape == (2 * 13, 3)
    with pytest.raises(zt.errors.TraceError, match="no sampled variable 'c'"):
        trace.get(["a", "c"])
    assert trace.get([]) == {}


@pytest.mark.once("oldest")
@pytest.mark.parametrize("chains_per_chunk", [1, 2])
@pytest.mark.parametrize("draws", [slice(None), slice(-3, None), slice(5, 13, 3), slice(10, 2, -2)])
def test_any_variables_in_any_order_are_read_together_while_they_are_recorded(
    fast_place: Place, chains_per_chunk: int, draws: slice
) -> None:
    kinds = {
        "f8": zt.Var(),
        "f4": zt.Var(dtype="float32"),
        "i8": zt.Var(dtype="int64"),
        "i1": zt.Var(dtype="int8"),
        "flag": zt.Var(dtype=bool),
        "pair": zt.Var(shape=2),
        "long": zt.Var(draws_per_chunk=7),
    }
    trace = fast_place.create(
        chains=3,
        tune=2,
        draws=20,
        draws_per_chunk=4,
        chains_per_chunk=chains_per_chunk,
        posterior={f"{kind}_{i}": var for i in range(5) for kind, var in kinds.items()},
        sample_stats={f"stat_{i}": zt.Var() for i in range(5)},
    )
    variables = trace._layout.variables
    expected = {}
    for number, variable in enumerate(variables):
        values = 100.0 * number + 30 * np.arange(3)[:, None] + np.arange(15)
        values = values[..., *[None] * len(variable.shape)] + np.zeros(variable.shape)
        expected[variable.name] = (values % 120).astype(variable.declared)
    writers = [trace.writer(block) for block in trace.blocks]
    for writer, block in zip(writers, trace.blocks, strict=True):
        drawn: dict[str, dict[str, Any]] = {"posterior": {}, "sample_stats": {}}
        for variable in variables:
            drawn[variable.group][variable.name] = expected[variable.name][block]
        writer.record_block(**drawn)
        if trace._location.path is None:
            writer.flush()
    order = np.random.default_rng(1)
    for size in (len(expected), 20, 3):
        names = [str(name) for name in order.permutation(list(expected))[:size]]
        found = trace.get(names, draws=draws)
        assert list(found) == names
        for name in names:
            np.testing.assert_array_equal(found[name], expected[name][:, 2:][:, draws], name)
    for writer in writers:
        writer.close()


# What looking costs, counted --------------------------------------------------------------------


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The keys that an object store was asked for."""
    from zarr.storage import ObjectStore

    keys: list[str] = []

    def count(owner: Any, name: str) -> None:
        original = getattr(owner, name)

        def counted(store: Any, key: str, *arguments: Any, **options: Any) -> Any:
            keys.append(key)
            return original(store, key, *arguments, **options)

        monkeypatch.setattr(owner, name, counted)

    for method in ("get", "exists", "list_dir", "list_prefix"):
        count(ObjectStore, method)
    count(remote, "listing")
    return keys


def test_a_look_asks_an_object_store_once_for_each_thing(objects: Place, asked: list[str]) -> None:
    trace = objects.create(
        chains=3,
        tune=10,
        draws=40,
        posterior={f"v{number}": zt.Var() for number in range(20)},
        sample_stats={"lp": zt.Var()},
    )

    def record(draws: int) -> None:
        drawn = {f"v{number}": np.arange(float(draws)) for number in range(20)}
        for chain in range(3):
            with trace.writer(chain) as writer:
                writer.resume()
                writer.record_block(drawn, {"lp": np.arange(float(draws))})

    def count(look: Callable[[], object]) -> int:
        asked.clear()
        look()
        return len(asked)

    def once(look: Callable[[], object]) -> int:
        assert count(look) == len(set(asked))
        return len(asked)

    def tree() -> None:
        trace.to_datatree(save_warmup=True)

    record(30)
    assert once(lambda: repr(trace)) == 3 + 2 * 3, "layout, tables, request, each count and claim"
    assert once(tree) == 1 + 3
    assert count(lambda: objects.open().posterior) == 2 + 3, "the layout once more, to open it"
    record(20)
    assert once(tree) == 1 + 2 * 3, "a count and a time of each writer"
    trace.finish()
    assert once(lambda: repr(trace)) == 3, "the layout, the tables, and groups of other tools"
    arrays = 2 * (2 + 20) + 2 * (2 + 1)
    assert once(tree) == 1 + 4 + arrays, "what other tools have written: lists, and documents"
    assert once(tree) == 1, "the layout tells the counts and the time"
    assert once(lambda: trace.posterior) == 1
    trace.extend(20)
    assert trace.recorded.tolist() == [50] * 3
    record(10)
    assert trace.recorded.tolist() == [60] * 3
    assert once(tree) == 1 + 3


def test_many_variables_are_read_by_one_look_at_the_layout_and_at_each_journal(
    directory: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    from zarrtrace.layout.hierarchy import Hierarchy
    from zarrtrace.sampling_state.journal import Journal

    names = [f"v{number}" for number in range(30)]
    trace = directory.create(chains=2, draws=50, posterior={name: zt.Var() for name in names})
    writers = [trace.writer(chain) for chain in range(2)]
    for writer in writers:
        writer.record_block({name: np.arange(20.0) for name in names})
    looks = []
    layout = Hierarchy.layout.fget
    for_reading = Journal.for_reading.__func__  # type: ignore[attr-defined]
    rows_of = Journal.rows_of
    assert layout is not None

    def count_layout(hierarchy: Hierarchy) -> Any:
        looks.append("layout")
        return layout(hierarchy)

    def count_journal(kind: Any, *arguments: Any) -> Any:
        looks.append("journal")
        return for_reading(kind, *arguments)

    def count_rows(journal: Journal, variable: Any) -> Any:
        looks.append("rows")
        return rows_of(journal, variable)

    monkeypatch.setattr(Hierarchy, "layout", property(count_layout))
    monkeypatch.setattr(Journal, "rows_of", count_rows)
    monkeypatch.setattr(Journal, "for_reading", classmethod(count_journal))
    found = trace.get(names, draws=slice(-5, None))
    assert looks.count("layout") == 3, "for the moment, before reading, and after it"
    assert looks.count("journal") == 2
    assert looks.count("rows") == 2, "those of all variables at once"
    assert all(values.tolist() == [[15.0, 16.0, 17.0, 18.0, 19.0]] * 2 for values in found.values())
    for writer in writers:
        writer.close()


def test_many_variables_of_a_new_trace_do_not_read_its_layout_each(
    directory: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each reads the others' part of it too, so that all would take quadratic time."""
    trace = directory.create(
        chains=1, draws=1, posterior={f"v{number}": 0.0 for number in range(50)}
    )
    with trace.writer(0) as writer:
        writer.record({f"v{number}": float(number) for number in range(50)})
    trace.finish()
    made = (directory.path / "_sampling_state" / "zarr.json").stat().st_ctime
    monkeypatch.setattr("zarrtrace.store.directory.time.time", lambda: made + 0.2)
    reads: list[str] = []
    read = Location.read

    def counted(location: Location, key: str, *most: int) -> memoryview | None:
        reads.append(key)
        return read(location, key, *most)

    monkeypatch.setattr(Location, "read", counted)
    found = directory.open().posterior.load()
    assert [float(found[f"v{number}"][0, 0]) for number in range(50)] == list(range(50))
    assert reads.count("_sampling_state/zarr.json") <= 2


def test_a_layout_that_is_the_same_file_is_not_read_again(directory: Place) -> None:
    trace = directory.create(chains=1, tune=10, draws=10, posterior={"x": zt.Var()})
    path = directory.path / "_sampling_state" / "zarr.json"
    location = trace._location
    made = path.stat().st_ctime
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("zarrtrace.store.directory.time.time", lambda: made)
        assert location.stamp("_sampling_state/zarr.json") is None, "it is too young"
    with pytest.MonkeyPatch.context() as patch:
        later = made + 3
        patch.setattr("zarrtrace.store.directory.time.time", lambda: later)
        assert trace.burn_in == 10
        patch.setattr(type(location), "read", lambda *arguments: pytest.fail("it was read"))
        assert trace.burn_in == 10
    other = directory.open("a")
    other.set_burn_in(5)
    os.utime(path, ns=(0, 0))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("zarrtrace.store.directory.time.time", lambda: later + 3)
        assert trace.burn_in == 5
