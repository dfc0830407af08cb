"""A finished trace that other tools have written to: what they wrote is read, nothing is lost."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr
from conftest import Encoded, Place, open_plainly
from killed_at_a_step import Killed, killed_at, made_again

import zarrtrace as zt
from zarrtrace.errors import DamagedTraceError, SchemaError
from zarrtrace.store.zarr_json import chunk_key

TUNE, DRAWS = 4, 8
TOTAL = TUNE + DRAWS
DAYS = np.array(["2025-01-01", "2025-01-02"], "M8[ns]")

pytestmark = [
    pytest.mark.filterwarnings("ignore:Consolidated metadata is currently not part"),
    pytest.mark.filterwarnings("ignore:Failed to open Zarr store with consolidated"),
    pytest.mark.filterwarnings("ignore:Object at .* is not recognized as a component"),
]


def finished(place: Place, *counts: int, **more: Any) -> zt.Trace:
    """A trace with blank chunks, dates for labels, and chunks that the end of warmup cuts."""
    trace = place.create(
        chains=2,
        tune=TUNE,
        draws=DRAWS,
        draws_per_chunk=3,
        posterior={"x": zt.Var(dims="day"), "n": zt.Var(dtype=int)},
        sample_stats={
            "diverging": zt.Var(dtype=bool),
            "step": zt.Var(),
            "word": zt.Var(dtype=str),
            **more,
        },
        coords={"day": DAYS},
        observed_data={"y": ("day", [0.0, 1.0]), "none": [0, 0]},
    )
    for chain, count in enumerate(counts or (TOTAL, TOTAL)):
        with trace.writer(chain) as writer:
            for draw in range(count):
                number = 100 * chain + draw
                stats = {"diverging": False, "step": np.nan, "word": ""}
                stats |= {name: np.datetime64(number, "h") for name in more}
                writer.record({"x": [number, -number], "n": 0}, stats)
    trace.finish()
    return trace


def check(found: Any, burn_in: int = TUNE, stop: int = TOTAL) -> None:
    """Assert that a trace, or a tree of plain xarray, holds what was recorded."""
    for group, draws in (("posterior", range(burn_in, stop)), ("warmup_posterior", range(burn_in))):
        numbers = 100.0 * np.arange(2)[:, None] + np.array(draws)
        assert np.array_equal(found[group].x.values, np.stack([numbers, -numbers], axis=2))
        assert not found[group].n.values.any()
        assert found[group].n.shape == (2, len(draws))
    stats = found["sample_stats"]
    assert stats.diverging.dtype == bool
    assert not stats.diverging.values.any()
    assert np.isnan(stats.step.values).all()
    assert set(stats.word.values.ravel().tolist()) == {""}
    assert found["observed_data"].none.values.tolist() == [0, 0]


def write_back(place: Place, group: str, **added: Any) -> None:
    """Write a group with further variables, as users of xarray do."""
    dataset = xr.open_dataset(place.store, engine="zarr", group=group).load()
    dataset.assign(added).to_zarr(place.store, group=group, mode="a")


def chunk(place: Place, array: str, *index: int) -> str:
    """The key of a chunk, which depends on the kind of store."""
    layout, group = place.open()._layout, array.partition("/")[0].removeprefix("warmup_")
    return chunk_key(array, index, layout.key_form(layout.groups[group]))


def delete(place: Place, key: str) -> None:
    zt.open(place.store, "a")._location.delete(key)


# Chunks of fill values --------------------------------------------------------------------------


def test_chunks_of_fill_values_that_zarr_deletes_are_not_damage(place: Place) -> None:
    finished(place)
    with suppress(NotImplementedError):
        for group in ("posterior", "warmup_posterior", "sample_stats", "observed_data"):
            write_back(place, group)
    trace = place.open("a")
    location = trace._location
    assert not location.exists(chunk(place, "sample_stats/diverging", 0, 0))
    assert not location.exists(chunk(place, "warmup_posterior/n", 1, 1))
    check(trace)
    assert trace.get("diverging", chains=1).tolist() == [[False] * DRAWS]
    assert trace.check() == []
    assert trace.repair() == []
    assert trace.check() == [], "repair knows them too"
    check(trace)
    # What was there and is not any more is damage, as before.
    delete(place, chunk(place, "posterior/x", 0, 1, 0))
    with pytest.raises(DamagedTraceError, match="it was lost, or another tool"):
        place.open().posterior.x.load()
    assert [damage.draws for damage in place.open().check()] == [range(7, 10)]


@pytest.mark.parametrize("change", ["split", "extend"])
def test_such_a_trace_changes_again(fast_place: Place, change: str) -> None:
    finished(fast_place)
    for group in ("posterior", "warmup_posterior", "sample_stats"):
        write_back(fast_place, group)
    trace = fast_place.open("a")
    if change == "split":
        trace.split_warmup(2)
        check(trace, 2)
        check(open_plainly(fast_place.store), 2)
    else:
        trace.extend(2)
        assert open_plainly(fast_place.store) is None
        assert trace.check() == []
        for chain in range(2):
            with trace.writer(chain) as writer:
                assert writer.resume() == (TOTAL, None)
                for draw in range(TOTAL, TOTAL + 2):
                    number = 100 * chain + draw
                    stats = {"diverging": False, "step": np.nan, "word": ""}
                    writer.record({"x": [number, -number], "n": 0}, stats)
        trace.finish()
        check(trace, stop=TOTAL + 2)
        check(open_plainly(fast_place.store), stop=TOTAL + 2)
    assert trace.check() == []
    assert (trace.posterior.day.values == DAYS).all()


@pytest.mark.once("newest")
def test_killed_while_it_is_split_again_nothing_is_lost(
    fast_place: Place, monkeypatch: pytest.MonkeyPatch, trials: int | None
) -> None:
    finished(fast_place)
    for group in ("posterior", "warmup_posterior"):
        write_back(fast_place, group, twice=lambda group: 2 * group.x)
    write_back(fast_place, "sample_stats")
    make_again = made_again(fast_place)
    with killed_at(10**9, monkeypatch) as done:
        make_again().split_warmup(6)
    for step in np.unique(np.linspace(0, done[0] - 1, trials or 8).astype(int)):
        trace = make_again()
        with pytest.raises(Killed), killed_at(int(step), monkeypatch):
            trace.split_warmup(6)
        reader = fast_place.open()
        check(reader, reader.burn_in)
        again = fast_place.open("a")
        check(again, again.burn_in)
        assert again.check() == []
        again.split_warmup(6)
        for found in (again, open_plainly(fast_place.store)):
            check(found, 6)
            for group in ("posterior", "warmup_posterior"):
                assert np.array_equal(found[group].twice, 2 * found[group].x)
        assert again.check() == []


@pytest.mark.once("newest")
def test_killed_between_two_renames_the_labels_are_read(
    directory: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished(directory)
    write_back(directory, "posterior", twice=lambda group: 2 * group.x)
    make_again = made_again(directory)
    with killed_at(100, monkeypatch, ["move_tree"]) as done:
        make_again().split_warmup(6)
    assert done[0] == 8, "four groups, each of which makes room for another"
    for step in range(done[0]):
        with pytest.raises(Killed), killed_at(step, monkeypatch, ["move_tree"]):
            make_again().split_warmup(6)
        trace = directory.open()
        check(trace, trace.burn_in)
        assert (trace.posterior.day.values == DAYS).all()
        assert [damage.why for damage in trace.check()] == ["a split or a finish was interrupted"]


# Labels -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["M8[ns]", "m8[s]"])
def test_labels_that_are_times_stay_these_times(fast_place: Place, kind: str) -> None:
    labels = np.array([20_000, 20_001], kind)
    trace = fast_place.create(
        chains=1, tune=1, draws=2, posterior={"x": zt.Var(dims="t")}, coords={"t": labels},
        observed_data={"y": ("t", [1.0, 2.0]), "when": ("t", labels)},
    )  # fmt: skip
    with trace.writer(0) as writer:
        writer.record_block({"x": np.ones((3, 2))})
    trace.finish()
    for group in ("posterior", "warmup_posterior", "observed_data"):
        write_back(fast_place, group)
    trace = fast_place.open("a")
    for _ in range(2):
        for group in ("posterior", "warmup_posterior", "observed_data"):
            found = trace[group].t
            assert found.dtype == labels.dtype
            assert (found.values == labels).all()
        assert (trace.observed_data.when.values == labels).all()
        assert trace.check() == []
        # Stored as they were, from then on.
        trace.split_warmup(0)
        trace.split_warmup(1)


def test_other_labels_that_another_tool_gave_are_shown(fast_place: Place) -> None:
    finished(fast_place)
    dataset = xr.open_dataset(fast_place.store, engine="zarr", group="posterior").load()
    later = DAYS + np.timedelta64(365, "D")
    for name in fast_place.open()._location.keys("posterior/day"):
        delete(fast_place, name)
    day = xr.Dataset(coords={"day": later})
    day.to_zarr(fast_place.store, group="posterior", mode="a")
    trace = fast_place.open("a")
    assert (trace.posterior.day.values == later).all()
    assert (trace.warmup_posterior.day.values == DAYS).all()
    assert trace.check() == []
    trace.split_warmup(2)
    assert (trace.posterior.day.values == later).all()
    assert dataset.sizes["draw"] == DRAWS


def test_times_that_another_tool_stores_as_zarrtrace_does_are_kept(fast_place: Place) -> None:
    finished(fast_place)
    later = DAYS + np.timedelta64(365, "D")
    group = zarr.open_group(fast_place.store, mode="a", path="posterior")
    day = group.create_array(
        "day", shape=(2,), dtype="M8[ns]", dimension_names=["day"], overwrite=True
    )
    day[:] = later
    trace = fast_place.open("a")
    assert (trace.posterior.day.values == later).all()
    trace.split_warmup(2)
    assert (trace.posterior.day.values == later).all()
    assert trace.check() == []


@pytest.mark.once("newest")
def test_killed_while_labels_are_stored_again_they_are_what_they_were(
    memory: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished(memory)
    later = DAYS + np.timedelta64(365, "D")
    for name in memory.open()._location.keys("posterior/day"):
        delete(memory, name)
    xr.Dataset(coords={"day": later}).to_zarr(memory.store, group="posterior", mode="a")
    make_again = made_again(memory)
    with killed_at(10**9, monkeypatch) as done:
        make_again().split_warmup(2)
    for step in range(min(done[0], 30)):
        trace = make_again()
        with pytest.raises(Killed), killed_at(step, monkeypatch):
            trace.split_warmup(2)
        assert (memory.open().posterior.day.values == later).all()
    assert done[0] > 30


# Variables and groups ---------------------------------------------------------------------------


def test_variables_that_were_added_are_shown(place: Place) -> None:
    finished(place)
    with suppress(NotImplementedError):
        write_back(
            place,
            "posterior",
            twice=lambda group: 2 * group.x,
            mean=lambda group: group.x.mean(("chain", "draw")),
            rank=lambda group: group.n.astype("int16") + 7,
        )
    trace = place.open()
    assert list(trace.posterior.data_vars) == ["x", "n", "mean", "rank", "twice"]
    assert np.array_equal(trace.posterior.twice, 2 * trace.posterior.x)
    assert trace.posterior["rank"].dtype == "int16"
    assert np.array_equal(trace.to_datatree()["posterior"].twice, 2 * trace.posterior.x)
    assert np.array_equal(trace.get("twice"), 2 * trace.get("x"))
    flat = trace.get(["x", "twice"], flatten=True, draws=slice(2, None), chains=[1])
    assert np.array_equal(flat["twice"], 2 * flat["x"])
    assert trace.get("mean").shape == (2,)
    only = trace.dataset("posterior", chains=[1])
    assert np.array_equal(only.twice, 2 * only.x)
    assert trace.check() == []


def test_a_split_keeps_what_was_added(fast_place: Place) -> None:
    finished(fast_place)
    write_back(
        fast_place,
        "posterior",
        twice=lambda group: 2 * group.x,
        rank=lambda group: group.n + 7,
        mean=lambda group: group.x.mean(("chain", "draw")),
        day_of=lambda group: group.n.astype("M8[s]") + np.timedelta64(9, "D"),
    )
    trace = fast_place.open("a")
    trace.split_warmup(2)
    for found in (trace, open_plainly(fast_place.store)):
        posterior = found["posterior"]
        check(found, 2)
        assert np.array_equal(posterior.twice[:, 2:], 2 * posterior.x[:, 2:])
        assert np.isnan(posterior.twice[:, :2]).all()
        assert posterior.twice.attrs["missing_draws"] == ["draws 0 to 1"]
        assert posterior["rank"].dtype == float
        assert np.array_equal(posterior["rank"][:, 2:], np.full((2, 8), 7))
        assert np.isnat(posterior.day_of[:, :2]).all()
        assert posterior["mean"].shape == (2,)
        assert "twice" not in found["warmup_posterior"]
    assert trace.check() == []
    trace.split_warmup(6)
    for found in (trace, open_plainly(fast_place.store)):
        check(found, 6)
        assert np.array_equal(found["posterior"].twice, 2 * found["posterior"].x)
        warmup = found["warmup_posterior"]
        assert np.array_equal(warmup.twice[:, 4:], 2 * warmup.x[:, 4:])
        assert np.isnan(warmup.twice[:, :4]).all()
        assert "missing_draws" not in found["posterior"].twice.attrs
        assert warmup.twice.attrs["missing_draws"] == ["draws 0 to 3"]
    assert trace.check() == []


def test_an_extension_says_what_would_be_too_short(fast_place: Place) -> None:
    finished(fast_place)
    write_back(fast_place, "posterior", twice=lambda group: 2 * group.x)
    trace = fast_place.open("a")
    with pytest.raises(SchemaError, match="added posterior/twice, which would lack the draws"):
        trace.extend(3)
    assert trace.finished
    check(fast_place.open())
    check(open_plainly(fast_place.store))


def test_groups_that_were_added_are_shown(fast_place: Place) -> None:
    finished(fast_place)
    mine = xr.Dataset({"z": ("k", [1.0, 0.0])}, {"k": [0, 1]})
    mine.to_zarr(fast_place.store, group="mine", mode="w")
    write_back(fast_place, "observed_data", more=lambda group: group.y + 1)
    trace = fast_place.open("a")
    assert trace.groups[:4] == ("posterior", "sample_stats", "observed_data", "mine")
    assert trace["mine"].z.values.tolist() == trace.mine.z.values.tolist() == [1.0, 0.0]
    assert trace.observed_data.more.values.tolist() == [1.0, 2.0]
    assert "mine" in trace.to_datatree()
    assert "mine" in repr(trace)
    assert "mine" in trace._repr_html_()
    assert trace.check() == []
    trace.split_warmup(2)
    assert trace["mine"].z.values.tolist() == [1.0, 0.0]
    plain = open_plainly(fast_place.store)
    assert plain is not None
    assert plain["mine"].z.values.tolist() == [1.0, 0.0]
    assert plain["observed_data"].more.values.tolist() == [1.0, 2.0]


# Arrays that are stored in another way ----------------------------------------------------------


def as_float32(group: xr.Dataset) -> xr.Dataset:
    return group.assign(x=group.x.astype("float32"))


def as_float_with_missing(group: xr.Dataset) -> xr.Dataset:
    return group.assign(n=group.n.where(group.draw > 2))


def as_it_was(group: xr.Dataset) -> xr.Dataset:
    return group


@pytest.mark.parametrize("change", [as_float32, as_float_with_missing, as_it_was])
@pytest.mark.parametrize("key", ["/", "."])
def test_a_group_written_again_is_read_as_it_is(
    fast_place: Place, change: Callable[[xr.Dataset], xr.Dataset], key: str
) -> None:
    finished(fast_place)
    dataset = change(xr.open_dataset(fast_place.store, engine="zarr", group="posterior").load())
    for name in dataset.variables:
        dataset[name].encoding = {}
    with zarr.config.set({"array.v3_default_chunk_key_encoding.separator": key}):
        dataset.to_zarr(fast_place.store, group="posterior", mode="w")
    trace = fast_place.open("a")
    for found in (trace.posterior, trace.to_datatree()["posterior"].to_dataset()):
        xr.testing.assert_equal(found.load(), dataset)
        assert found.x.dtype == dataset.x.dtype
    for name in ("x", "n"):
        values = trace.get(name, chains=1, draws=slice(1, 7, 2))
        assert np.array_equal(values, dataset[name][1:, 1:7:2], equal_nan=True)
    xr.testing.assert_equal(trace.dataset("posterior", chunks={}).load(), dataset)
    assert trace.check() == []
    assert trace.repair() == []
    xr.testing.assert_equal(trace.posterior.load(), dataset)
    # What does not fit the trace any more can be read and not changed.
    for act in (lambda: trace.split_warmup(2), lambda: trace.extend(2)):
        with pytest.raises(SchemaError, match=r"stored posterior/[xn] in its own way"):
            act()
    assert fast_place.open().finished
    xr.testing.assert_equal(fast_place.open().posterior.load(), dataset)


def test_attributes_that_another_tool_gave_are_shown(fast_place: Place) -> None:
    finished(fast_place)
    zarr.open_group(fast_place.store, mode="a")["posterior/x"].attrs["units"] = "m"
    trace = fast_place.open()
    assert trace.posterior.x.attrs == {"units": "m"}
    check(trace)
    assert trace.check() == []
    # It is still known which of its chunks were there.
    key = chunk(fast_place, "posterior/x", 0, 1, 0)
    delete(fast_place, key)
    with pytest.raises(DamagedTraceError, match=rf"{re.escape(key)} is missing"):
        fast_place.open().posterior.x.load()


def test_a_document_that_is_damaged_is_not_taken_for_the_work_of_a_tool(directory: Place) -> None:
    finished(directory)
    file = directory.path / "posterior" / "x" / "zarr.json"
    before = file.read_bytes()
    # A single bit.
    file.write_bytes(before.replace(b'"separator": "."', b'"separator": "/"'))
    assert file.read_bytes() != before
    trace = directory.open("a")
    check(trace)
    assert [damage.path for damage in trace.check()] == ["posterior/x/zarr.json"]
    assert any("written again" in line for line in trace.repair())
    assert json.loads(file.read_bytes()) == json.loads(before)


# What Zarr overwrites unasked -------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*unequal length:RuntimeWarning")
def test_draws_after_the_shortest_chain_are_never_blank(fast_place: Place) -> None:
    finished(fast_place, TOTAL, TOTAL - 1)
    trace = fast_place.open()
    assert trace.get("x", chains=0).shape == (1, DRAWS, 2)
    write_back(fast_place, "posterior")
    trace = fast_place.open("a")
    assert np.array_equal(trace.get("x")[:, :, 0], 100 * np.arange(2)[:, None] + range(4, 11))
    with pytest.raises(DamagedTraceError, match="after the end of the shortest chain"):
        trace.get("x", chains=0)
    assert any("overwritten" in str(damage) for damage in trace.check())
    with pytest.raises(DamagedTraceError, match="has overwritten draws"):
        trace.extend(2)
    assert fast_place.open().finished


def test_draws_that_are_times_are_never_numbers_of_hours(fast_place: Place) -> None:
    finished(fast_place, when=zt.Var(dtype="M8[s]"))
    expected = fast_place.open().sample_stats.when.values
    assert expected[1, 0] == np.datetime64(104, "h")
    write_back(fast_place, "sample_stats")
    with pytest.raises(DamagedTraceError, match="numbers for times"):
        fast_place.open().sample_stats.when.load()
    check(fast_place.open())


def test_a_whole_tree_is_written_back(directory: Place, encoded: Encoded) -> None:
    encoded.groups["sample_stats"].pop("when")
    encoded.fill(encoded.create(directory, chains=2, tune=4, draws=7)).finish()
    tree = xr.open_datatree(directory.path, engine="zarr").load()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tree.to_zarr(directory.path, mode="a")
    trace = directory.open("a")
    encoded.check_split(trace, 4, 11)
    assert trace.check() == []
    trace.split_warmup(6)
    encoded.check_split(trace, 6, 11)
    encoded.check_split(open_plainly(directory.path), 6, 11)


def test_text_that_is_blank_up_to_where_the_chains_stopped(directory: Place) -> None:
    finished(directory, TOTAL - 1, TOTAL - 1)
    write_back(directory, "sample_stats")
    assert not directory.open()._location.exists("sample_stats/word/0.2")
    check(directory.open(), stop=TOTAL - 1)
    assert directory.open().check() == []
    trace = directory.open("a")
    trace.split_warmup(2)
    check(trace, 2, TOTAL - 1)
    assert trace.check() == []
