"""Groups that are given whole are replaced, removed and taken from results, each at one moment."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from conftest import Place, open_plainly
from killed_at_a_step import Killed, killed_at, made_again
from scripts import Script

import zarrtrace as zt
from zarrtrace.errors import (
    GroupNotFoundError,
    InvalidInputError,
    NotWritableError,
    SchemaError,
    StaleViewError,
    TraceExistsError,
    TraceNotFoundError,
)
from zarrtrace.reading import given_group
from zarrtrace.store.location import Location

NAME = "predictions"


def version(number: int) -> xr.Dataset:
    """A group in which everything says which one it is: values, shapes, labels and times."""
    times = np.datetime64("2026-01-01", "s") + np.full(3, number).astype("timedelta64[s]")
    return xr.Dataset(
        {
            "y": (("chain", "draw", "k"), np.full((1, 2 + number % 3, 3), float(number))),
            "z": ("k", np.full(3, number)),
            f"only_{number}": 1,
        },
        {"k": ["a", "b", str(number)], "when": ("k", times)},
    )


def number_of(group: xr.Dataset) -> int:
    """Which version a group is; it is nothing but that."""
    number = int(group.z.values[0])
    xr.testing.assert_identical(
        group.load().drop_attrs().drop_vars(("chain", "draw")), version(number)
    )
    return number


def sampled(place: Place, finished: bool) -> zt.Trace:
    trace = place.create(chains=1, draws=2, posterior={"x": zt.Var()}, observed_data={"n": 1})
    with trace.writer(0) as writer:
        writer.record_block({"x": np.zeros(2)})
    if finished:
        trace.finish()
    trace.add_group(NAME, version(1))
    return trace


# One at a time --------------------------------------------------------------------------------


@pytest.mark.parametrize("finished", [False, True])
def test_a_group_is_replaced_and_removed(place: Place, finished: bool) -> None:
    trace = sampled(place, finished)
    held = trace[NAME]
    trace.add_group(NAME, version(2), overwrite=True)
    assert number_of(trace[NAME]) == number_of(place.open()[NAME]) == 2
    # What was opened before is on a disk still what it was.
    if place.kind == "directory":
        assert number_of(held) == 1
    else:
        with pytest.raises(StaleViewError, match=r"ask the trace for it again"):
            held.load()
    del held
    # Times that another tool sees are those of the new one.
    plain = open_plainly(place.store)
    assert plain is None or number_of(plain[NAME].to_dataset()) == 2
    assert (plain is not None) == finished
    trace.remove_group(NAME)
    assert NAME not in trace.groups
    plain = open_plainly(place.store)
    assert plain is None or list(plain.children) == ["posterior", "observed_data"]
    trace.add_group(NAME, version(3))
    assert number_of(place.open()[NAME]) == 3
    assert trace.check() == []
    assert not trace._location.keys("_groups")


def test_a_group_is_replaced_by_what_is_computed_from_it(fast_place: Place) -> None:
    trace = sampled(fast_place, finished=True)
    trace.add_group(NAME, trace[NAME].map(lambda array: array * 2), overwrite=True)
    assert trace[NAME].y.values.tolist() == [[[2.0] * 3] * 3]
    assert trace[NAME].k.values.tolist() == ["a", "b", "1"]


def test_what_is_not_given_whole_stays(memory: Place) -> None:
    trace = sampled(memory, finished=False)
    with pytest.raises(InvalidInputError, match="'posterior' is sampled, and holds draws"):
        trace.remove_group("posterior")
    with pytest.raises(InvalidInputError, match="'posterior' is sampled"):
        trace.add_group("posterior", {"x": 1.0}, overwrite=True)
    with pytest.raises(GroupNotFoundError, match=f"those given whole are observed_data, {NAME}"):
        trace.remove_group("prior")
    with pytest.raises(TraceExistsError, match="pass overwrite=True to replace it"):
        trace.add_group(NAME, version(2))
    with pytest.raises(SchemaError, match="no variables"):
        trace.add_group(NAME, {}, overwrite=True)
    with pytest.raises(NotWritableError):
        memory.open().remove_group(NAME)
    assert number_of(trace[NAME]) == 1


@pytest.mark.filterwarnings("ignore:Consolidated metadata")
def test_a_group_of_another_tool_is_replaced_and_removed_too(directory: Place) -> None:
    trace = sampled(directory, finished=True)
    written = xr.Dataset({"z": ("n", [5])})
    written.to_zarr(directory.path, group="theirs", mode="a")
    assert "theirs" in trace.groups
    with pytest.raises(TraceExistsError):
        trace.add_group("theirs", version(6))
    trace.add_group("theirs", version(6), overwrite=True)
    assert number_of(trace["theirs"]) == 6
    written.to_zarr(directory.path, group="others", mode="a")
    trace.remove_group("others")
    assert not (directory.path / "others").exists()


def test_a_snapshot_of_what_was_replaced_says_so(directory: Place) -> None:
    trace = sampled(directory, finished=False)
    before = trace.at_once()
    trace.add_group(NAME, version(2), overwrite=True)
    with pytest.raises(StaleViewError, match="was replaced or removed since"):
        before[NAME]


@pytest.mark.once("newest")
def test_many_views_do_not_use_up_the_descriptors(
    directory: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(given_group, "_MOST_HELD", 3)
    trace = sampled(directory, finished=False)
    views = [trace[NAME] for _ in range(6)]
    links = Path("/proc/self/fd").iterdir()
    places = [os.readlink(link) for link in links if link.is_symlink()]
    assert places.count(str(directory.path / NAME)) == 3
    trace.add_group(NAME, version(2), overwrite=True)
    # The last of them keep the files for all.
    assert number_of(views[0]) == number_of(views[-1]) == 1
    old = trace[NAME]
    others = [trace.observed_data for _ in range(3)]
    trace.remove_group(NAME)
    with pytest.raises(StaleViewError):
        old.load()
    assert [view.n.item() for view in others] == [1, 1, 1]


# Killed, and read by others -------------------------------------------------------------------


def replace_group(trace: zt.Trace) -> None:
    trace.add_group(NAME, version(2), overwrite=True)


def remove_group(trace: zt.Trace) -> None:
    trace.remove_group(NAME)


# What is there of a group without its document.
@pytest.mark.filterwarnings(f"ignore:Object at {NAME} is not recognized")
@pytest.mark.once("oldest")
@pytest.mark.parametrize("act", [replace_group, remove_group])
def test_killed_anywhere_there_is_the_old_one_or_the_new_one(
    place: Place,
    act: Callable[[zt.Trace], None],
    monkeypatch: pytest.MonkeyPatch,
    trials: int | None,
) -> None:
    sampled(place, finished=True)
    after = 2 if act is replace_group else None
    make_again = made_again(place)
    with killed_at(10**9, monkeypatch) as done:
        act(make_again())
    found = set()
    for step in np.unique(np.linspace(0, done[0] - 1, trials or 12).astype(int)):
        trace = make_again()
        with pytest.raises(Killed), killed_at(int(step), monkeypatch):
            act(trace)
        reader = place.open()
        now = number_of(reader[NAME]) if NAME in reader else None
        assert now in (1, after)
        found.add(now)
        plain = open_plainly(place.store)
        assert plain is not None
        # Where nothing can be renamed, another tool does not see it for a moment.
        there = number_of(plain[NAME].to_dataset()) if NAME in plain else None
        assert there in ((1, after) if place.kind == "directory" else (1, after, None))
        again = place.open("a")
        plain = open_plainly(place.store)
        assert plain is not None
        assert (number_of(plain[NAME].to_dataset()) if NAME in plain else None) == now
        assert again.check() == []
        again.add_group(NAME, version(4), overwrite=True)
        assert not again._location.keys("_groups")
    assert found == {1, after}


@pytest.mark.once("oldest")
def test_killed_where_two_directories_cannot_change_places_at_once(
    directory: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Location, "exchange_trees", lambda *arguments: False)
    sampled(directory, finished=True)
    make_again = made_again(directory)
    with killed_at(10**9, monkeypatch, ["write", "move_tree", "delete_tree"]) as done:
        replace_group(make_again())
    for step in range(done[0]):
        trace = make_again()
        with (
            pytest.raises(Killed),
            killed_at(step, monkeypatch, ["write", "move_tree", "delete_tree"]),
        ):
            replace_group(trace)
        now = number_of(directory.open()[NAME])
        directory.open("a")
        with xr.open_datatree(directory.path, engine="zarr") as plain:
            assert number_of(plain[NAME].to_dataset()) == now


@pytest.mark.once("oldest")
def test_files_beside_the_groups_that_go_do_not_hold_up_a_trace(directory: Place) -> None:
    """One of them is what a process leaves that is killed while it writes the document there."""
    sampled(directory, finished=False)
    aside = directory.path / "_groups"
    aside.mkdir(exist_ok=True)
    partial, foreign = aside / f"zarr.json.{'0' * 32}.partial", aside / ".DS_Store"
    partial.write_bytes(b"{")
    foreign.write_bytes(b"")
    for number in (2, 3):
        directory.open("a").add_group(NAME, version(number), overwrite=True)
        assert number_of(directory.open("a")[NAME]) == number
    assert not partial.exists()
    assert foreign.exists()


READER = """
    import sys
    from test_given_groups import NAME, number_of
    import zarrtrace as zt

    trace, seen = zt.open(sys.argv[1]), []
    print("ready", flush=True)
    while not seen or seen[-1] < 25:
        groups = [trace[NAME], zt.open(sys.argv[1]).to_datatree()[NAME].to_dataset()]
        seen += map(number_of, groups)
        print(*seen[-2:], flush=True)
"""


@pytest.mark.once("oldest")
@pytest.mark.parametrize("finished", [False, True])
def test_a_reader_elsewhere_sees_one_of_them(
    directory: Place, script: Script, finished: bool
) -> None:
    trace = sampled(directory, finished)
    reader = script.start(READER, directory.path)
    assert reader.stdout.readline() == "ready\n"
    seen: list[int] = []
    for number in range(2, 26):
        trace.add_group(NAME, version(number), overwrite=True)
        # However slow the reader is, it sees some of them.
        while number % 8 == 0 and number not in seen:
            line = reader.stdout.readline()
            assert line, reader.communicate()
            seen += map(int, line.split())
    output, errors = reader.communicate()
    assert reader.returncode == 0, errors
    seen += map(int, output.split())
    assert seen == sorted(seen)


# From results ---------------------------------------------------------------------------------


def result() -> xr.DataTree:
    other = zt.create(None, chains=1, tune=1, draws=2, posterior={"x": zt.Var()})
    with other.writer(0) as writer:
        writer.record_block({"x": np.ones(3)})
    data = {"posterior": other.posterior, "warmup_posterior": other.warmup_posterior}
    matrix = xr.Dataset({"n": 2}, {"metric": (("i", "j"), np.eye(2))})
    return xr.DataTree.from_dict({**data, NAME: version(2), "observed_data": matrix})


@pytest.mark.parametrize("form", ["tree", "InferenceData", "netCDF"])
def test_update_takes_what_the_trace_lacks(fast_place: Place, tmp_path: Path, form: str) -> None:
    trace = sampled(fast_place, finished=True)
    trace.remove_group(NAME)
    given: Any = result()
    if form == "netCDF":
        given.to_netcdf(tmp_path / "result.nc", engine="h5netcdf")
        given = tmp_path / "result.nc"
    elif form == "InferenceData":
        az = pytest.importorskip("arviz", "0.20")
        given = az.InferenceData.from_datatree(given) if az.__version__ < "1" else given
    assert trace.update(given) == [NAME]
    assert trace.update(given) == []
    assert trace[NAME].z.values.tolist() == [2, 2, 2]
    assert trace.observed_data.n == 1
    assert trace.update(given, overwrite=True) == [NAME, "observed_data"]
    assert trace.observed_data.n == 2
    assert trace.observed_data.metric.values.tolist() == [[1, 0], [0, 1]]
    assert trace.posterior.x.values.tolist() == [[0, 0]]


def test_what_is_not_a_result_is_refused(memory: Place, tmp_path: Path) -> None:
    trace = sampled(memory, finished=False)
    with pytest.raises(TraceNotFoundError, match="nothing at"):
        trace.update(tmp_path / "result.nc")
    (tmp_path / "result.nc").write_text("nothing")
    with pytest.raises(InvalidInputError, match="not a netCDF"):
        trace.update(tmp_path / "result.nc")
    with pytest.raises(InvalidInputError, match="give a DataTree"):
        trace.update(3)
