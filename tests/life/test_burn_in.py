"""The burn-in is a number every reader honours; what is dropped is gone, and nothing else is."""

from __future__ import annotations

import errno
import json
import re
import threading
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import pytest
import xarray as xr
from conftest import Encoded, Place
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from killed_at_a_step import Killed, killed_at, made_again
from scripts import Script
from zarr.storage import MemoryStore

import zarrtrace as zt
from zarrtrace.errors import DamagedTraceError, IncompleteTraceError, InvalidInputError, TraceError
from zarrtrace.sampling_state.arrays import state_key

pytestmark = pytest.mark.filterwarnings("ignore:.*(unequal length|has no draw of):RuntimeWarning")

TUNE, DRAWS = 12, 18
TOTAL = TUNE + DRAWS


def new(place: Any, encoded: Encoded, **definition: Any) -> zt.Trace:
    return encoded.create(place, **{"chains": 2, "tune": TUNE, "draws": DRAWS, **definition})


def filled(place: Any, encoded: Encoded, **definition: Any) -> zt.Trace:
    return encoded.fill(new(place, encoded, **definition))


def check(trace: Any, encoded: Encoded, dropped: int, burn_in: int, stop: int = TOTAL) -> None:
    """Every reader sees the draws from the dropped ones to the burn-in, and those from there on.

    `trace` is a Trace, or a DataTree that plain xarray opened.
    """
    for name in ("posterior", "sample_stats"):
        encoded.check(trace[name], burn_in, max(stop, burn_in))
        assert (f"warmup_{name}" in trace) == (dropped < burn_in)
        if dropped < burn_in:
            encoded.check(trace[f"warmup_{name}"], dropped, min(burn_in, stop))
    if isinstance(trace, zt.Trace):
        assert (trace.dropped, trace.burn_in) == (dropped, burn_in)
        found = trace.get("mu", draws=slice(1, None, 2))[1]
        assert found.tolist() == list(range(1_000_000 + burn_in + 1, 1_000_000 + stop, 2))


def files(path: Path) -> dict[str, int]:
    """The chunks of the sampled variables, and which file on the disk each is."""
    return {
        str(file.relative_to(path)): file.stat().st_ino
        for file in path.rglob("*.*")
        if file.parent.name in ("mu", "theta", "word", "lp", "late", "when")
        and file.name != "zarr.json"
    }


# A burn-in ------------------------------------------------------------------------------------


def test_every_reader_honours_a_burn_in(fast_place: Place, encoded: Encoded) -> None:
    trace = filled(fast_place, encoded)
    assert trace.burn_in == TUNE
    for burn_in in (17, 5, 0, TOTAL, 20):
        trace.set_burn_in(burn_in)
        reader = fast_place.open()
        check(reader, encoded, 0, burn_in)
        assert reader.posterior.attrs["tuning_steps"] == burn_in
        tree = reader.to_datatree(save_warmup=True)
        assert tree["posterior"].sizes["draw"] == TOTAL - burn_in


def test_a_burn_in_moves_nothing(directory: Place, encoded: Encoded) -> None:
    trace = filled(directory, encoded)
    before = files(directory.path)
    trace.set_burn_in(20)
    assert files(directory.path) == before
    tree = xr.open_datatree(directory.path, engine="zarrtrace")
    encoded.check(tree["posterior"], 20, TOTAL)
    trace.split_warmup()
    assert sum(name.startswith("warmup_posterior/mu/") for name in files(directory.path)) == 10
    check(trace, encoded, 0, 20)
    before = files(directory.path)
    trace.set_burn_in(3)
    assert files(directory.path) == before
    check(trace, encoded, 0, 3)


def test_a_burn_in_may_be_ahead_of_the_draws_and_moves_while_chains_are_recorded(
    fast_place: Place, encoded: Encoded
) -> None:
    trace = new(fast_place, encoded)
    trace.set_burn_in(15)
    with trace.writer(0) as first, trace.writer(1) as second:
        for stop in (4, 16, 23):
            for chain, writer in enumerate((first, second)):
                encoded.record(writer, chain, stop)
                writer.flush()
            for burn_in in (15, stop, stop + 3):
                trace.set_burn_in(burn_in)
                check(fast_place.open(), encoded, 0, burn_in, stop)
    encoded.fill(trace)
    check(fast_place.open(), encoded, 0, 26)
    trace.finish()
    check(fast_place.open(), encoded, 0, 26)


def test_what_was_set_is_what_split_and_finish_move(directory: Place, encoded: Encoded) -> None:
    trace = filled(directory, encoded)
    trace.set_burn_in(17)
    trace.finish()
    for burn_in in (17, 20, 0, 8):
        # A finished trace is right for other readers, whatever the burn-in.
        trace.set_burn_in(burn_in)
        assert trace.finished
        check(zt.open(directory.path), encoded, 0, burn_in)
        check(xr.open_datatree(directory.path, engine="zarr"), encoded, 0, burn_in)


def test_a_view_keeps_the_burn_in_it_was_made_with(fast_place: Place, encoded: Encoded) -> None:
    trace = filled(fast_place, encoded)
    held = trace.posterior
    trace.set_burn_in(20)
    encoded.check(held, TUNE, TOTAL)


def test_bad_numbers_say_why(fast_place: Place, encoded: Encoded) -> None:
    trace = encoded.fill(new(fast_place, encoded), 20, 9)
    for wrong in (-1, TOTAL + 1, 2.5, "3", True, None):
        with pytest.raises(InvalidInputError, match="has 30"):
            trace.set_burn_in(wrong)  # type: ignore[arg-type]
        with pytest.raises(InvalidInputError, match="has 30"):
            trace.drop_before(wrong)  # type: ignore[arg-type]
    with pytest.raises(IncompleteTraceError, match=r"chain 1 .* 9 draws, fewer than the 10"):
        trace.drop_before(10)
    # Chain 1 has draws of warmup alone, and is left out after it.
    encoded.check(trace["posterior"], TUNE, 20, chains=[0])
    encoded.check(trace["warmup_posterior"], 0, 9)
    trace.drop_before(8)
    for change in (trace.set_burn_in, trace.split_warmup):
        with pytest.raises(InvalidInputError, match=r"first 8 of each chain .* were dropped"):
            change(7)
    trace.set_burn_in(8)
    trace.finish()
    with pytest.raises(InvalidInputError, match=r"first 8 of each chain .* were dropped"):
        trace.set_burn_in(7)
    for change in (trace.set_burn_in, trace.drop_before):
        with pytest.raises(IncompleteTraceError, match="chain 1 "):
            change(10)
    check(trace, encoded, 8, 8, 9)
    with pytest.raises(zt.errors.NotWritableError):
        fast_place.open().drop_before(9)


@pytest.mark.once("oldest")
def test_a_chain_opens_while_another_process_moves_the_burn_in(
    directory: Place, encoded: Encoded
) -> None:
    trace = new(directory, encoded)
    stop = threading.Event()

    def move() -> None:
        mover, draws = directory.open("a"), 0
        while not stop.is_set():
            draws = (draws + 1) % TOTAL
            mover.set_burn_in(draws)

    thread = threading.Thread(target=move)
    thread.start()
    try:
        for draws in range(1, TOTAL + 1):
            encoded.fill(trace, draws)
    finally:
        stop.set()
        thread.join()
    trace.set_burn_in(4)
    check(trace, encoded, 0, 4)


# Dropped draws --------------------------------------------------------------------------------


def test_what_is_left_after_a_drop_is_read_and_nothing_else(
    fast_place: Place, encoded: Encoded
) -> None:
    trace = filled(fast_place, encoded)
    trace.set_burn_in(5)
    for draw, dropped, burn_in in ((3, 3, 5), (7, 7, 7), (2, 7, 7), (20, 20, 20)):
        trace.drop_before(draw)
        reader = fast_place.open()
        check(reader, encoded, dropped, burn_in)
        assert reader.recorded.tolist() == [TOTAL, TOTAL]
        assert reader.check() == []
    trace.set_burn_in(23)
    check(fast_place.open(), encoded, 20, 23)
    trace.finish()
    check(fast_place.open(), encoded, 20, 23)


def test_the_same_on_an_object_store(objects: Place, encoded: Encoded) -> None:
    trace = filled(objects, encoded, chains_per_chunk=2, draws=8)
    trace.set_burn_in(17)
    trace.drop_before(9)
    check(objects.open(), encoded, 9, 17, 20)
    assert len([key for key in trace._location.keys("posterior/mu") if "/mu/c" in key]) == 3
    trace.finish()
    check(objects.open(), encoded, 9, 17, 20)


def test_a_drop_removes_whole_chunks_and_writes_none(directory: Place, encoded: Encoded) -> None:
    trace = filled(directory, encoded)
    before = files(directory.path)
    trace.drop_before(14)
    lengths = {"mu": 4, "theta": 3, "word": 5, "lp": 5, "late": 2, "when": 7}
    kept = {
        name: file
        for name, file in before.items()
        for variable, chunk in [(name.split("/")[1], int(name.split(".")[2]))]
        if (chunk + 1) * lengths[variable] > 14
    }
    assert files(directory.path) == kept
    assert len(kept) < len(before) - 30


@pytest.mark.parametrize("length", [5, 7])
def test_a_finish_after_a_drop_links_what_it_can(directory: Place, length: int) -> None:
    trace = directory.create(
        chains=1, tune=20, draws=30, posterior={"mu": zt.Var(draws_per_chunk=length)}
    )
    with trace.writer(0) as writer:
        writer.record_block({"mu": np.arange(50.0)})
    before = files(directory.path)
    trace.drop_before(10)
    trace.finish()
    after = files(directory.path)
    tree = xr.open_datatree(directory.path, engine="zarr")
    assert tree["warmup_posterior/mu"].values.tolist() == [list(range(10, 20))]
    assert tree["posterior/mu"].values.tolist() == [list(range(20, 50))]
    assert tree["posterior"].attrs["tuning_steps"] == 20
    assert tree["posterior"].attrs["draws_dropped"] == 10
    if length == 5:
        assert set(after.values()) == set(before.values()) & set(after.values())
        assert len(after) == 8
    # The burn-in is where it was: the posterior's chunks are linked, whatever the warmup's are.
    held = {file for name, file in after.items() if name.startswith("posterior")}
    trace.drop_before(12)
    again = files(directory.path)
    assert {file for name, file in again.items() if name.startswith("posterior")} == held
    tree = xr.open_datatree(directory.path, engine="zarr")
    assert tree["warmup_posterior/mu"].values.tolist() == [list(range(12, 20))]
    trace.drop_before(20)
    tree = xr.open_datatree(directory.path, engine="zarr")
    assert list(tree.children) == ["posterior"]
    assert tree["posterior/mu"].values.tolist() == [list(range(20, 50))]
    assert set(files(directory.path).values()) == held


@pytest.mark.parametrize("split", [None, 9, 20])
def test_other_readers_find_a_finished_trace_right(
    directory: Place, encoded: Encoded, split: int | None
) -> None:
    trace = filled(directory, encoded)
    if split is not None:
        trace.split_warmup(split)
    trace.drop_before(7)
    burn_in = trace.burn_in
    trace.finish()
    for draw in (7, 8, 13, 21):
        trace.drop_before(draw)
        burn_in = max(draw, burn_in)
        assert trace.finished
        check(zt.open(directory.path), encoded, draw, burn_in)
        check(xr.open_datatree(directory.path, engine="zarr"), encoded, draw, burn_in)
        assert trace.check() == []
    trace.split_warmup(25)
    check(xr.open_datatree(directory.path, engine="zarr"), encoded, 21, 25)


def test_a_drop_while_chains_are_recorded(fast_place: Place, encoded: Encoded) -> None:
    trace = new(fast_place, encoded, chains=4, chains_per_chunk=2, draws=38)
    with trace.writer(range(2)) as first, trace.writer(range(2, 4)) as second:
        for stop in (9, 23, 31, 44, 50):
            for block, writer in ((range(2), first), (range(2, 4), second)):
                encoded.record(writer, block, stop)
                writer.flush()
            for draw in (stop - 5, stop):
                trace.drop_before(draw)
                check(fast_place.open(), encoded, draw, max(draw, TUNE), stop)
            if stop < trace.tune + trace.draws:
                with pytest.raises(IncompleteTraceError):
                    trace.drop_before(stop + 1)
    assert trace.recorded.tolist() == [50] * 4
    trace.extend(9)
    encoded.fill(trace)
    check(fast_place.open(), encoded, 50, 50, 59)
    trace.finish()
    check(fast_place.open(), encoded, 50, 50, 59)


def test_a_view_from_before_never_reads_a_fill_value(fast_place: Place, encoded: Encoded) -> None:
    trace = filled(fast_place, encoded)
    held = trace.posterior
    trace.drop_before(15)
    encoded.check(held.isel(draw=slice(3, None)).assign_coords(draw=range(15)), 15, TOTAL)
    for name in held.data_vars:
        # Some of the draws before it are in existing chunks.
        with pytest.raises(TraceError, match=r"before 15 were dropped since .*ask the trace"):
            _ = held[name].isel(draw=2).values


# Going on -------------------------------------------------------------------------------------


@pytest.mark.once("newest")
@pytest.mark.parametrize("moved", ["nothing", "split", "finish", "split at the drop"])
@pytest.mark.parametrize("at", [4, 10, 13])
def test_a_chain_goes_back_to_a_checkpoint_before_what_was_dropped(
    fast_place: Place, encoded: Encoded, moved: str, at: int
) -> None:
    trace = new(fast_place, encoded)
    encoded.fill(trace, 0, 25)
    with trace.writer(0) as writer:
        encoded.record(writer, 0, at)
        writer.checkpoint({"draws": at})
        for draw in range(at, 24):
            writer.record(**encoded.draw(0, draw))
    trace.drop_before(14)
    burn_in = 14
    if moved == "finish":
        trace.finish()
        trace.extend(1)
    elif moved == "split":
        burn_in = 17
        trace.split_warmup(burn_in)
    elif moved == "split at the drop":
        trace.split_warmup()
    with trace.writer(0) as writer:
        assert writer.resume() == (at, {"draws": at})
        assert trace.recorded.tolist() == [at, 25]
        for draw in range(at, 22):
            writer.record(**encoded.draw(0, draw))
            if draw in (11, 14, 18):
                writer.flush()
                trace.drop_before(3)  # what a chain draws again is removed again
            if draw == 16:
                stop = int(trace.recorded[0])
                encoded.check(trace.dataset("posterior", chains=0), burn_in, max(stop, burn_in),
                              chains=[0])  # fmt: skip
                encoded.check(trace.dataset("posterior", chains=1), burn_in, 25, chains=[1])
    with trace.writer(0) as writer:
        assert writer.resume() == (at, {"draws": at})
        for draw in range(at, 23):
            writer.record(**encoded.draw(0, draw))
        writer.checkpoint({"draws": 23})
    assert trace.check() == []
    check(fast_place.open(), encoded, 14, burn_in, 23)
    trace.finish()
    check(fast_place.open(), encoded, 14, burn_in, 23)


def test_more_draws_after_a_drop(fast_place: Place, encoded: Encoded) -> None:
    trace = filled(fast_place, encoded)
    trace.drop_before(13)
    trace.finish()
    for total in (33, 41):
        trace.extend(total - trace.tune - trace.draws)
        encoded.fill(trace)
        trace.drop_before(total - 15)
        check(fast_place.open(), encoded, total - 15, total - 15, total)
        trace.finish()
        check(fast_place.open(), encoded, total - 15, total - 15, total)


# Killed ---------------------------------------------------------------------------------------


@pytest.mark.once("oldest")
@pytest.mark.parametrize("life", ["drop", "drop when finished", "finish", "finish without links"])
def test_killed_anywhere_there_is_before_or_after(
    fast_place: Place,
    encoded: Encoded,
    life: str,
    trials: int | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if life == "finish without links":
        # As on a file system that has none: a chunk is then renamed into its new place.
        monkeypatch.setattr("zarrtrace.store.directory.os.link", raise_no_links)

    trace = filled(fast_place, encoded, journal=life != "finish without links")
    trace.drop_before(3)
    if life == "drop when finished":
        trace.finish()
    elif life.startswith("finish"):
        trace.drop_before(10)
        trace.set_burn_in(20)
    make_again = made_again(fast_place)

    def act(trace: zt.Trace) -> None:
        if life.startswith("drop"):
            trace.drop_before(14)
        else:
            trace.finish()

    expected = (14, 14) if life.startswith("drop") else (10, 20)
    with killed_at(10**9, monkeypatch) as done:
        act(trace)
    for step in np.unique(np.linspace(0, done[0] - 1, trials or 5).astype(int)):
        trace = make_again()
        with pytest.raises(Killed), killed_at(int(step), monkeypatch):
            act(trace)
        for chain in range(trace.chains):
            trace._location.delete(state_key(trace._layout, "writer", chain))
        reader = fast_place.open()
        found = reader.dropped, reader.burn_in
        assert found in ((3, TUNE), expected)
        check(reader, encoded, *found)
        again = fast_place.open("a")
        check(again, encoded, *found)
        assert again.check() == []
        act(again)
        check(again, encoded, *expected)
        if life == "drop":
            keys = again._location.keys("posterior/mu")
            chunks = {int(re.split("[./]", key)[-1]) for key in keys if not key.endswith(".json")}
            assert min(chunks) == 3  # of draws 12 to 15
            again.finish()
        assert again.check() == []
        assert not again._location.keys("_sampling_state/split")
        if fast_place.kind == "directory":
            check(xr.open_datatree(fast_place.path, engine="zarr"), encoded, *expected)


def raise_no_links(*arguments: Any) -> None:
    raise OSError(errno.EPERM, "no links here")


@pytest.mark.once("oldest")
def test_a_drop_in_a_process_that_is_really_killed(
    script: Script, tmp_path: Path, trials: int | None
) -> None:
    code = """
    import os, random, select, shutil, signal, sys, time
    import numpy as np
    import xarray as xr
    import zarrtrace as zt

    folder, trials = sys.argv[1], int(sys.argv[2])
    kinds = ("running", "split", "finished")
    TOTAL, DROPPED = 200, 111

    # Forked while there are no threads: each waits for its turn to drop and be killed.
    children = []
    for _ in range(len(kinds) + trials):
        ready, go = os.pipe()
        child = os.fork()
        if child == 0:
            for _, other in children:
                os.close(other)
            os.close(go)
            if os.read(ready, 1):
                zt.open(f"{folder}/trial", "a").drop_before(DROPPED)
            os._exit(0)
        os.close(ready)
        children.append((child, go))

    base = 1e4 * np.arange(2)[:, None] + np.arange(TOTAL)
    drawn = {"x": base, "y": np.stack([base, -base], 2), "word": base.astype(str)}

    def make(kind):
        trace = zt.create(f"{folder}/{kind}", chains=2, chains_per_chunk=2, tune=50, draws=150,
                          posterior={"x": zt.Var(draws_per_chunk=2),
                                     "y": zt.Var(shape=2, draws_per_chunk=3),
                                     "word": zt.Var(dtype=str, draws_per_chunk=50)})
        with trace.writer(range(2)) as writer:
            writer.record_block(drawn)
        if kind == "split":
            trace.split_warmup()
        if kind == "finished":
            trace.finish()

    def same(found, start, stop):
        return all(np.array_equal(found[name].values, drawn[name][:, start:stop]) for name in drawn)

    def verify(trace):
        assert same(trace.posterior, trace.burn_in, TOTAL)
        assert ("warmup_posterior" in trace) == (trace.dropped < trace.burn_in)
        if trace.dropped < trace.burn_in:
            assert same(trace.warmup_posterior, trace.dropped, trace.burn_in)

    for kind in kinds:
        make(kind)
    chooser = random.Random(3)
    path, typical, seen = f"{folder}/trial", {}, {"before": 0, "after": 0, "too late": 0}
    for trial, (child, go) in enumerate(children):
        kind = kinds[trial % 3]
        shutil.copytree(f"{folder}/{kind}", path)
        began = time.perf_counter()
        os.write(go, b"!")
        if trial >= len(kinds):
            ended = select.poll()
            ended.register(go, 0)  # an error, when nobody reads any more
            ended.poll(1000 * chooser.uniform(0, typical[kind] * 1.1))
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if os.WIFEXITED(status):
            # The machine may have become faster since the first time.
            typical[kind] = time.perf_counter() - began
        trace = zt.open(path)
        assert trace.dropped in (0, DROPPED), trace.dropped
        if trial >= len(kinds):
            when = "after" if trace.dropped else "before"
            seen["too late" if os.WIFEXITED(status) else when] += 1
        verify(trace)
        trace = zt.open(path, "a")
        verify(trace)
        trace.drop_before(DROPPED)
        verify(trace)
        # A document half-written by a process that was killed is all there may be, until finish.
        assert all(damage.path.endswith(".partial") for damage in trace.check()), trace.check()
        if kind == "running":
            left = [name for name in os.listdir(f"{path}/posterior/x") if name[0] == "c"]
            assert len(left) == (TOTAL - DROPPED + 1) // 2, left
        trace.finish()
        assert kind == "finished" or trace.check() == []
        with xr.open_datatree(path, engine="zarr") as tree:
            assert list(tree.children) == ["posterior"]
            assert same(tree["posterior"], DROPPED, TOTAL)
        shutil.rmtree(path)
    print(seen)
    assert seen["before"] + seen["after"]
    """
    script.run(code, tmp_path, trials or 12, timeout=600)


# Anything, in any order -----------------------------------------------------------------------

commands = st.one_of(
    st.tuples(st.just("record"), st.integers(0, TOTAL), st.integers(0, TOTAL)),
    st.tuples(st.sampled_from(["burn in", "drop", "split"]), st.integers(0, TOTAL)),
    st.tuples(st.sampled_from(["finish", "reopen", "repair"])),
)


@pytest.mark.once("oldest")
@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    life=st.lists(commands, min_size=1, max_size=8),
    together=st.integers(1, 2),
    final=st.integers(0, TOTAL - 1),
)
def test_any_life_reads_as_the_same_life_in_numpy(
    encoded: Encoded, life: list[tuple[Any, ...]], together: int, final: int
) -> None:
    store = MemoryStore()
    trace = new(store, encoded, chains_per_chunk=together)
    counts, dropped, burn_in, finished = np.zeros(2, int), 0, TUNE, False
    for command, *numbers in [*life, ("record", TOTAL, TOTAL), ("drop", final), ("finish",)]:
        least = counts.min()
        if command == "record" and not finished:
            wanted = numbers if together == 1 else numbers[:1]
            encoded.fill(trace, *wanted)
            counts = np.maximum(counts, wanted)
        elif command == "burn in" and (not finished or numbers[0] <= least):
            if numbers[0] >= dropped:
                burn_in = numbers[0]
                trace.set_burn_in(burn_in)
        elif command == "drop" and numbers[0] <= least:
            trace.drop_before(numbers[0])
            dropped = max(dropped, numbers[0])
            burn_in = max(burn_in, dropped)
        elif command == "split" and dropped <= numbers[0] <= least:
            burn_in = numbers[0]
            trace.split_warmup(burn_in)
        elif command == "finish" and burn_in < least:
            trace.finish()
            finished = True
        elif command == "reopen":
            trace = zt.open(store, "a")
        elif command == "repair":
            assert trace.repair() == []
        reader = zt.open(store)
        assert (reader.dropped, reader.burn_in, reader.finished) == (dropped, burn_in, finished)
        for chain, count in enumerate(counts):
            found = reader.dataset("posterior", chains=chain)
            encoded.check(found, burn_in, max(count, burn_in), chains=[chain])
            if dropped < burn_in:
                found = reader.dataset("warmup_sample_stats", chains=chain)
                encoded.check(found, dropped, max(dropped, min(count, burn_in)), chains=[chain])
            else:
                assert "warmup_sample_stats" not in reader
        if finished:
            for name in ("posterior", "warmup_posterior"):
                if name in reader:
                    plain = xr.open_zarr(store, group=name)
                    first, stop = (burn_in, counts.min()) if name == "posterior" else (
                        dropped, burn_in)  # fmt: skip
                    encoded.check(plain, first, stop)


# Damage ---------------------------------------------------------------------------------------


def test_damage_in_what_was_dropped_is_none(directory: Place, encoded: Encoded) -> None:
    trace = filled(directory, encoded)
    chunk = directory.path / "posterior" / "mu" / "c.0.0"
    held = chunk.read_bytes()
    (directory.path / "posterior" / "mu" / "c.1.3").write_bytes(b"no chunk")
    trace.drop_before(9)
    assert [damage.draws for damage in trace.check()] == [range(12, 16)]
    # As a drop that was killed leaves it.
    chunk.write_bytes(held[:-1])
    done = trace.repair()
    assert any("posterior/mu/c.0.0: removed, its draws were dropped" in line for line in done)
    assert not chunk.exists()
    assert np.isnan(trace.get("mu", chains=1)[0, :4]).all()
    trace.drop_before(14)
    assert trace.check() == []
    trace.finish()
    found = xr.open_datatree(directory.path, engine="zarr")["posterior/mu"]
    assert np.isnan(found.values).sum() == 2
    assert found.attrs["lost_draws"] == ["chain 1: draws 12 to 15"]
    encoded.check(trace.dataset("posterior", chains=0), 14, TOTAL, chains=[0])


def test_a_lost_count_is_found_above_what_was_dropped(directory: Place, encoded: Encoded) -> None:
    trace = encoded.fill(new(directory, encoded, journal=False), 23)
    trace.drop_before(19)
    flushed = directory.path / state_key(trace._layout, "flushed", 1)
    data = bytearray(flushed.read_bytes())
    data[40] ^= 1
    flushed.write_bytes(data)
    with pytest.raises(DamagedTraceError):
        _ = trace.recorded
    done = trace.repair()
    assert any("chain 1 has 20 draws, by its chunks" in line for line in done), done
    check(trace, encoded, 19, 19, 20)


def test_a_chunk_that_is_missing_and_was_not_dropped_is_damage(
    directory: Place, encoded: Encoded
) -> None:
    trace = filled(directory, encoded)
    trace.drop_before(14)
    (directory.path / "posterior" / "mu" / "c.0.3").unlink()
    with pytest.raises(DamagedTraceError, match=r"draws 12 to 15: .*missing"):
        _ = trace.posterior.mu.values
    assert [damage.draws for damage in trace.check()] == [range(14, 16)]


# What it says, and what it takes --------------------------------------------------------------


def test_a_trace_of_before_there_were_drops(directory: Place, encoded: Encoded) -> None:
    trace = filled(directory, encoded)
    trace.split_warmup(9)
    document = json.loads((directory.path / "_sampling_state/zarr.json").read_text())
    layout = json.loads(document["attributes"]["zarrtrace"])
    layout["format_version"] = 1
    del layout["dropped"]
    for group in layout["groups"]:
        del group["stored_first"]
    text = json.dumps(layout)
    document["attributes"] = {
        "zarrtrace": text, "zarrtrace_crc32c": google_crc32c.value(text.encode())
    }  # fmt: skip
    (directory.path / "_sampling_state/zarr.json").write_text(json.dumps(document))
    old = directory.open("a")
    check(old, encoded, 0, 9)
    old.drop_before(5)
    check(directory.open(), encoded, 5, 9)
    document = json.loads((directory.path / "_sampling_state/zarr.json").read_text())
    # What would misplace its draws refuses it.
    assert json.loads(document["attributes"]["zarrtrace"])["format_version"] == 2


def test_a_trace_says_what_it_dropped(
    directory: Place, encoded: Encoded, capsys: pytest.CaptureFixture[str]
) -> None:
    from zarrtrace.cli import main

    trace = filled(directory, encoded)
    assert "dropped" not in repr(trace)
    trace.drop_before(9)
    assert "recorded 30 of 30 each, 9 dropped" in repr(trace)
    assert "3 draws, not split yet" in repr(trace)
    assert "9 dropped" in trace._repr_html_()
    assert main(["info", str(directory.path)]) == 0
    assert "9 dropped" in capsys.readouterr().out
    trace.finish()
    assert "3 draws, split" in repr(trace)


def test_a_drop_removes_one_file_for_each_chunk_and_reads_none_of_them(
    script: Script, tmp_path: Path
) -> None:
    # Python tells a hook of each file that is opened, listed, renamed or removed.
    code = """
    import collections, sys, tracemalloc
    import numpy as np
    import zarrtrace as zt

    trace = zt.create(sys.argv[1], chains=1, draws=500, compressors=None,
                      posterior={"x": zt.Var(shape=5000, draws_per_chunk=1)})
    with trace.writer(0) as writer:
        writer.record_block({"x": np.ones((500, 5000))})
    seen = []
    sys.addaudithook(lambda event, args: seen.append((event, args)) if event in EVENTS else None)
    EVENTS = {"open", "os.remove", "os.rename", "os.link", "os.listdir", "os.scandir"}
    tracemalloc.start()
    trace.drop_before(500)
    peak = tracemalloc.get_traced_memory()[1]
    EVENTS = ()
    chunks = [event for event, (path, *_) in seen if "posterior/x/c." in str(path)]
    print(collections.Counter(chunks)["os.remove"], len(chunks), len(seen), peak)
    """
    removed, of_chunks, all_events, peak = map(int, script.run(code, tmp_path / "run.zarr").split())
    assert removed == of_chunks == 500
    assert all_events < 500 + 50
    # Less than 25 of the 500 draws of 40 kB: names of files, and no draws.
    assert peak < 1e6
    assert not list((tmp_path / "run.zarr/posterior/x").glob("c.*"))
