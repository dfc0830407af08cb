"""The split: at any draw, again and again, killed anywhere, in little memory, and nothing lost."""

from __future__ import annotations

import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Encoded, Place, open_plainly
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from killed_at_a_step import Killed, killed_at, made_again
from zarr.storage import MemoryStore

import zarrtrace as zt
from zarrtrace.sampling_state.arrays import state_key

TUNE, DRAWS = 12, 18


def filled(place: Any, encoded: Encoded, **definition: Any) -> zt.Trace:
    definition = {"chains": 2, "tune": TUNE, "draws": DRAWS} | definition
    return encoded.fill(encoded.create(place, **definition))


@pytest.mark.parametrize("at", [0, 1, 12, 17, 30])
def test_a_split_at_any_draw(fast_place: Place, encoded: Encoded, at: int) -> None:
    trace = filled(fast_place, encoded)
    trace.split_warmup(at)
    encoded.check_split(fast_place.open(), at, TUNE + DRAWS)


def test_a_split_on_an_object_store(objects: Place, encoded: Encoded) -> None:
    trace = filled(objects, encoded, chains_per_chunk=2, draws=8)
    trace.split_warmup(17)
    encoded.check_split(objects.open(), 17, TUNE + 8)


@pytest.mark.once("oldest")
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    boundaries=st.lists(st.integers(0, TUNE + DRAWS), min_size=1, max_size=4),
    together=st.integers(1, 3),
)
def test_a_split_again_and_again(encoded: Encoded, boundaries: list[int], together: int) -> None:
    trace = filled(MemoryStore(), encoded, chains=3, chains_per_chunk=together)
    for at in boundaries:
        trace.split_warmup(at)
        encoded.check_split(trace, at, TUNE + DRAWS)


def test_one_group_alone(fast_place: Place, encoded: Encoded) -> None:
    trace = filled(fast_place, encoded)
    trace.split_warmup(5, groups="posterior")
    encoded.check(trace.posterior, 5, TUNE + DRAWS)
    encoded.check(trace.sample_stats, TUNE, TUNE + DRAWS)
    trace.split_warmup(7, groups=["sample_stats"])
    encoded.check(trace.warmup_sample_stats, 0, 7)
    encoded.check(trace.warmup_posterior, 0, 5)


def test_whole_chunks_are_linked_not_copied(directory: Place) -> None:
    trace = directory.create(
        chains=1, tune=20, draws=30, posterior={"mu": zt.Var(draws_per_chunk=10)}
    )
    with trace.writer(0) as writer:
        writer.record_block({"mu": np.arange(50.0)})
    before = {
        name: (directory.path / "posterior" / "mu" / name).stat().st_ino
        for name in ("c.0.0", "c.0.1", "c.0.2", "c.0.3", "c.0.4")
    }
    trace.split_warmup()
    warmup = directory.path / "warmup_posterior" / "mu"
    after = directory.path / "posterior" / "mu"
    assert [(warmup / f"0.{i}").stat().st_ino for i in range(2)] == list(before.values())[:2]
    assert [(after / f"0.{i}").stat().st_ino for i in range(3)] == list(before.values())[2:]
    assert not (after / "0.3").exists()
    assert not (directory.path / "_sampling_state" / "split").exists()


def test_recording_continues_after_a_split(fast_place: Place, encoded: Encoded) -> None:
    trace = encoded.create(fast_place, chains=2, tune=TUNE, draws=DRAWS)
    encoded.fill(trace, 17, 14)
    trace.split_warmup()
    encoded.check(trace.dataset("posterior", chains=0), TUNE, 17, chains=[0])
    encoded.fill(trace)
    encoded.check_split(trace, TUNE, TUNE + DRAWS)
    trace.finish()
    encoded.check_split(fast_place.open(), TUNE, TUNE + DRAWS)


def test_a_split_waits_for_no_writer_and_needs_the_draws(
    fast_place: Place, encoded: Encoded
) -> None:
    trace = encoded.create(fast_place, chains=2, tune=TUNE, draws=DRAWS)
    encoded.fill(trace, 20, 9)
    with pytest.raises(zt.errors.IncompleteTraceError, match=r"chain 1 .* has recorded 9 draws"):
        trace.split_warmup()
    with trace.writer(1), pytest.raises(zt.errors.ChainBusyError):
        trace.split_warmup(5)
    for wrong in (-1, 31, 2.5, "3"):
        with pytest.raises(zt.errors.InvalidInputError, match="cannot be warmup"):
            trace.split_warmup(wrong)  # type: ignore[arg-type]
    with pytest.raises(zt.errors.InvalidInputError, match="no sampled group 'nothing'"):
        trace.split_warmup(groups="nothing")
    trace.split_warmup(9)
    encoded.check(trace.warmup_posterior, 0, 9)


def test_another_process_that_splits_is_waited_for_by_nobody(
    directory: Place, encoded: Encoded
) -> None:
    trace = filled(directory, encoded)
    with trace._location.alone() as alone:
        assert alone
        with pytest.raises(zt.errors.ChainBusyError, match="another process"):
            zt.open(directory.path, "a").finish()
    trace.finish()


# Killed anywhere ------------------------------------------------------------------------------


def prepared(fast_place: Place, encoded: Encoded, life: str) -> Callable[[], zt.Trace]:
    """Makes a trace as it is before the step that will be killed, again and again."""
    trace = filled(fast_place, encoded)
    if life == "split again":
        trace.split_warmup(7)
    if life == "split of a finished trace":
        trace.finish()
    return made_again(fast_place)


def act(trace: zt.Trace, life: str, at: int) -> None:
    trace.split_warmup(at)
    if life == "finish":
        trace.finish()


@pytest.mark.once("oldest")
@pytest.mark.parametrize(
    ("store", "life", "at"),
    [
        ("directory", "split", 12),
        ("directory", "split again", 5),
        ("directory", "finish", 12),
        ("directory", "split of a finished trace", 6),
        ("memory", "finish", 5),
        ("memory", "split again", 12),
        ("objects", "finish", 12),
        ("objects", "split again", 5),
    ],
)
def test_killed_anywhere_nothing_is_lost(
    request: pytest.FixtureRequest,
    encoded: Encoded,
    store: str,
    life: str,
    at: int,
    trials: int | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fast_place: Place = request.getfixturevalue(store)
    before = {"split again": 7}.get(life, TUNE)
    make_again = prepared(fast_place, encoded, life)
    counted = make_again()
    with killed_at(10**9, monkeypatch) as done:
        act(counted, life, at)
    # A few of all steps, or as many as the command line asks for.
    chosen = np.linspace(0, done[0] - 1, trials or 7).astype(int) + at % 5
    if store == "objects" and trials is None:
        # Objects are slow: half of the largest batches, and what comes first and last.
        chosen = np.array([0, *np.argsort(done[1:])[-2:], done[0] - 1])
    for step in np.unique(np.minimum(chosen, done[0] - 1)):
        trace = make_again()
        held = trace.dataset("posterior").drop_vars("draw")
        with pytest.raises(Killed), killed_at(int(step), monkeypatch):
            act(trace, life, at)
        for chain in range(trace.chains):
            # A process that was killed does not live; this one does.
            trace._location.delete(state_key(trace._layout, "writer", chain))
        reader = fast_place.open()
        boundary = reader.posterior.attrs["tuning_steps"]
        assert boundary in (before, at)
        encoded.check_split(reader, boundary, TUNE + DRAWS)
        # A view from before reads what it showed.
        encoded.check(held.assign_coords(draw=np.arange(held.sizes["draw"])), before, TUNE + DRAWS)
        # Where nothing can be renamed, a group may be away while it is replaced.
        for consolidated in (None, False) if fast_place.kind == "directory" else ():
            plain = open_plainly(fast_place.store, consolidated=consolidated)
            assert plain is not None or not reader.finished
            if plain is not None:
                encoded.check_split(plain, boundary, TUNE + DRAWS)
        again = fast_place.open("a")
        act(again, life, at)
        encoded.check_split(again, at, TUNE + DRAWS)
        assert again.check() == []
        assert not again._location.keys("_sampling_state/split")


# Power loss ------------------------------------------------------------------------------------


@pytest.mark.parametrize("durability", ["process", "disk"])
@pytest.mark.parametrize("at", [12, 5])
def test_the_new_is_on_the_disk_before_the_old_goes(
    directory: Place, encoded: Encoded, durability: str, at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Chunks with their names, the layout that says where they are, and what journals held."""
    trace = filled(directory, encoded, durability=durability)
    path, on_disk, gone = directory.path, set(), []
    fsync, replace, link, unlink = os.fsync, os.replace, os.link, os.unlink

    def forget(target: Any, *files: Any) -> None:
        for file in (Path(target).parent, *files):
            on_disk.discard(os.stat(file).st_ino)

    def synced(descriptor: int) -> None:
        fsync(descriptor)
        on_disk.add(os.fstat(descriptor).st_ino)

    def replaced(source: Any, target: Any) -> None:
        if Path(source) in (path / "posterior", path / "sample_stats"):
            gone.append(Path(source).name)
            require_on_disk(path / "_sampling_state", path / "_sampling_state/zarr.json")
            staged = path / "_sampling_state/split"
            require_on_disk(*(f for f in staged.rglob("*") if "_old" not in f.parts))
        forget(target, *([source] if str(source).endswith(".partial") else []))
        replace(source, target)

    def linked(source: Any, target: Any) -> None:
        forget(target)
        link(source, target)

    def unlinked(file: Any, **options: Any) -> None:
        if "/journal/c." in str(file):
            gone.append("journal")
            counts = [path / f"_sampling_state/draw_idx/c.{chain}" for chain in range(2)]
            groups = [path / "posterior", path / "sample_stats"]
            require_on_disk(path, *counts, *groups, *(f for g in groups for f in g.rglob("*")))
        unlink(file, **options)

    def require_on_disk(*files: Path) -> None:
        assert [file for file in files if os.stat(file).st_ino not in on_disk] == []

    for name, watched in (
        ("fsync", synced), ("replace", replaced), ("link", linked), ("unlink", unlinked),
    ):  # fmt: skip
        monkeypatch.setattr(os, name, watched)
    trace.split_warmup(at)
    assert {"posterior", "sample_stats", "journal"} <= set(gone)


def test_a_finish_that_moves_nothing_puts_the_draws_on_the_disk(
    directory: Place, encoded: Encoded, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace = filled(directory, encoded, tune=0)
    on_disk, unlink, fsync = set(), Path.unlink, os.fsync
    last = [*directory.path.glob("posterior/*/c.?.5*"), *directory.path.glob("*/draw_idx/c.*")]
    missing = []

    def synced(descriptor: int) -> None:
        fsync(descriptor)
        on_disk.add(os.readlink(f"/proc/self/fd/{descriptor}"))

    def unlinked(file: Path, **options: Any) -> None:
        if file.parent.name == "journal":
            missing.append({str(file) for file in last} - on_disk)
        unlink(file, **options)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "unlink", unlinked)
    trace.finish()
    assert len(last) == 4
    assert missing == [set(), set()]


def test_memory_stays_flat(tmp_path: Path) -> None:
    definition = {"chains": 1, "tune": 333, "draws": 667, "compressors": None}
    variable = zt.Var(shape=5_000, draws_per_chunk=20)
    trace = zt.create(tmp_path / "run.zarr", **definition, posterior={"x": variable})
    drawn = np.random.default_rng(0).normal(size=(1000, 5_000))
    with trace.writer(0) as writer:
        writer.record_block({"x": drawn})
    # What Python and numpy hold of it: the size of a process depends on its allocator.
    tracemalloc.start()
    try:
        trace.finish()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 6 * drawn[:20].nbytes, "of 50 chunks, which the split cuts"
    assert np.array_equal(trace.posterior.x[0], drawn[333:])


def test_a_writer_that_is_refused_during_a_split_leaves_no_rows_of_before(
    directory: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its rows would be those of other chunks than the trace has after the split."""
    trace = directory.create(chains=1, tune=6, draws=20, posterior={"x": 0.0}, draws_per_chunk=4)
    with trace.writer(0) as writer:
        for number in range(17):
            writer.record({"x": float(number)})
    refused = []
    move_tree = type(trace._location).move_tree

    def try_to_record(*arguments: Any) -> None:
        with pytest.raises(zt.errors.ChainBusyError, match="being split"):
            directory.open("a").writer(0)
        refused.append(arguments)
        move_tree(*arguments)

    monkeypatch.setattr(type(trace._location), "move_tree", try_to_record)
    trace.split_warmup()
    assert refused
    assert trace.get("x").tolist() == [[float(number) for number in range(6, 17)]]
    with directory.open("a").writer(0) as writer:
        assert writer.resume() == (17, None)
        writer.record({"x": 17.0})
    assert trace.get("x").tolist() == [[float(number) for number in range(6, 18)]]


def test_a_split_after_all_draws_of_a_chain_were_dropped(tmp_path: Path) -> None:
    trace = zt.create(tmp_path / "run.zarr", chains=2, draws=20, posterior={"mu": zt.Var()})
    for chain, stop in enumerate((9, 4)):
        with trace.writer(chain) as writer:
            for draw in range(stop):
                writer.record({"mu": 100.0 * chain + draw})
    trace.drop_before(4)
    trace.split_warmup(4)
    assert trace.recorded.tolist() == [9, 4]
    with trace.writer(1) as writer:
        for draw in range(writer.resume()[0], 9):
            writer.record({"mu": 100.0 + draw})
    trace.finish()
    assert trace.get("mu").tolist() == [
        [100.0 * chain + d for d in range(4, 9)] for chain in (0, 1)
    ]
