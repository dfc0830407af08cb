"""A copy of a trace without a journal, made while it is recorded, has right draws or says so."""

from __future__ import annotations

import itertools
import random
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import obstore
import pytest
from conftest import Place
from obstore.store import MemoryStore as Objects
from zarr.buffer.cpu import Buffer
from zarr.storage import MemoryStore, ObjectStore

import zarrtrace as zt
from zarrtrace.errors import TraceError
from zarrtrace.store.location import Location

TOTAL = 19
POSTERIOR: dict[str, zt.Var] = {
    "x": zt.Var(draws_per_chunk=4),
    "n": zt.Var(dtype=int, draws_per_chunk=3),
    "pair": zt.Var(shape=2, draws_per_chunk=1),
    "flag": zt.Var(dtype=bool, draws_per_chunk=TOTAL),
    "word": zt.Var(dtype=str, draws_per_chunk=4),
    "some": zt.Var(shape=zt.UpTo(3), draws_per_chunk=5),
}
NAMES = (*POSTERIOR, "some_length")
Contents = dict[str, bytes]


def values_of(draw: int) -> dict[str, Any]:
    number = 100 + draw
    return {
        "x": number,
        "n": number,
        "pair": [number, -number],
        "flag": number % 2 == 0,
        "word": f"{number}",
        "some": np.full(1 + draw % 3, float(number)),
    }


# Keys and bytes of a store --------------------------------------------------------------------


def contents(place: Place) -> Contents:
    if place.kind == "directory":
        files = (file for file in place.path.rglob("*") if file.is_file())
        return {str(file.relative_to(place.path)): file.read_bytes() for file in files}
    if place.kind == "memory":
        return {key: buffer.to_bytes() for key, buffer in place.store._store_dict.items()}
    objects = place.store.store
    keys = [item["path"] for items in obstore.list(objects) for item in items]
    return {key: bytes(obstore.get(objects, key).bytes()) for key in keys}


def put(kind: str, content: Contents, path: Path) -> Place:
    """A store of a kind with this content, which nobody records."""
    content = {key: data for key, data in content.items() if "/writer/c" not in key}
    if kind == "directory":
        for key, data in content.items():
            (path / key).parent.mkdir(parents=True, exist_ok=True)
            (path / key).write_bytes(data)
        return Place(kind, path)
    if kind == "memory":
        return Place(kind, MemoryStore({k: Buffer.from_bytes(v) for k, v in content.items()}))
    objects = Objects()
    for key, data in content.items():
        obstore.put(objects, key, data)
    return Place(kind, ObjectStore(objects))


# A trace that is recorded ---------------------------------------------------------------------


def record(trace: zt.Trace) -> None:
    """Record a chain with flushes, checkpoints, closed writers and a way back to a checkpoint."""

    def draw_until(writer: zt.ChainWriter, stop: int) -> None:
        for draw in range(writer.recorded, stop):
            writer.record(values_of(draw))

    with trace.writer(0) as writer:
        for stop in (2, 6, 7):
            draw_until(writer, stop)
            writer.flush()
        writer.checkpoint({"after": 7})
        draw_until(writer, 10)
    with trace.writer(0) as writer:
        assert writer.resume() == (7, {"after": 7})
        draw_until(writer, 12)
        writer.checkpoint({"after": 12, "large": "." * 20_000})
        draw_until(writer, 14)
        writer.checkpoint({"after": 14})
    with trace.writer(0) as writer:
        assert writer.resume() == (14, {"after": 14})
        draw_until(writer, TOTAL)


def moments(place: Place, monkeypatch: pytest.MonkeyPatch) -> list[Contents]:
    """What is in the store after each change of it while the trace is recorded."""
    trace = place.create(chains=1, draws=TOTAL, posterior=POSTERIOR, journal=False, flush_every=1e9)
    found = [contents(place)]

    def remembered(name: str) -> Callable[..., Any]:
        change = getattr(Location, name)

        def method(self: Location, *arguments: Any) -> Any:
            result = change(self, *arguments)
            now = contents(place)
            if now != found[-1]:
                found.append(now)
            return result

        return method

    with monkeypatch.context() as patch:
        for name in ("write", "write_again", "write_many", "delete", "delete_many"):
            patch.setattr(Location, name, remembered(name))
        record(trace)
    return found


def require_right_draws(trace: zt.Trace, names: Sequence[str] = NAMES) -> int:
    """The number of draws, all of which are what was recorded."""
    found = trace.get(list(names))
    for name, values in found.items():
        for draw, value in enumerate(values[0]):
            expected = np.asarray(values_of(draw).get(name, 1 + draw % 3))
            value = value[: len(expected)] if name == "some" else value
            assert np.array_equal(value, expected), f"{name}, draw {draw}"
    return len(found[names[0]][0])


def readable(place: Place, names: Sequence[str] = NAMES) -> int | None:
    """The draws of a copy; None if it says that something is missing."""
    try:
        with place.open() as trace:
            return require_right_draws(trace, names)
    except TraceError:
        return None


def go_on(place: Place) -> None:
    """Record what is left, and assert that every draw is right."""
    trace = place.open("a")
    with trace.writer(0) as writer:
        start, state = writer.resume()
        assert state is None or state["after"] == start
        for draw in range(start, TOTAL):
            writer.record(values_of(draw))
    assert require_right_draws(trace) == TOTAL
    assert trace.check() == []
    trace.finish()
    assert require_right_draws(place.open()) == TOTAL


@pytest.mark.once("newest")
def test_a_kill_loses_no_flushed_draw_and_a_copy_has_right_ones_or_says_so(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = moments(place, monkeypatch)

    def read(
        name: str, copy: Mapping[str, bytes | None], names: Sequence[str] = NAMES
    ) -> int | None:
        there = {key: data for key, data in copy.items() if data is not None}
        return readable(put(place.kind, there, tmp_path / f"{name}.zarr"), names)

    # Each moment, as a kill leaves it. The chain goes back once, to draw 7.
    counts = [read(f"moment-{number}", moment) for number, moment in enumerate(found)]
    for before, after in itertools.pairwise(counts):
        assert before is not None
        assert after is not None
        assert after >= before or after == 7
    assert (counts[0], counts[-1]) == (0, TOTAL)
    for number in range(3, len(found), 11):
        go_on(put(place.kind, found[number], tmp_path / f"go-on-{number}.zarr"))

    chance = random.Random(1)
    whole = 0
    for trial in range(60):
        last = chance.randrange(len(found))
        first = max(0, last - chance.choice([2, 10, 1000]))
        some = found[first : last + 1]
        # The keys are listed before, or are all there ever were.
        keys = sorted(some[0] if trial % 2 else {key for moment in some for key in moment})
        mixed = {key: chance.choice(some).get(key) for key in keys}
        if trial % 3:  # a count that is later than most chunks
            counters = [key for key in keys if "draw_idx" in key or "flushed" in key]
            mixed |= {key: some[-1].get(key) for key in counters}
        whole += read(f"mixed-{trial}", mixed, [chance.choice(NAMES)]) is not None

        # Most tools copy in the order of the keys: the rows, and then the chunks before these.
        known = [count or 0 for count in counts[first : last + 1]]
        if known == sorted(known):
            steps = sorted(chance.choices(range(len(some)), k=len(keys)))
            in_order = {key: some[step].get(key) for key, step in zip(keys, steps, strict=True)}
            count = read(f"in-order-{trial}", in_order)
            assert count is not None
            assert count >= known[0]
    assert whole > 15, "some copies have all that is needed"


@pytest.mark.once("newest")
def test_a_view_keeps_its_moment_while_the_last_rows_are_replaced(place: Place) -> None:
    trace = place.create(
        chains=1, draws=20, posterior={"x": zt.Var(draws_per_chunk=4)}, journal=False
    )
    with trace.writer(0) as writer:
        writer.record_block({"x": np.arange(6.0)})
        writer.checkpoint("after 6")
        view = place.open().posterior
        for stop in (7, 11):
            writer.record_block({"x": np.arange(writer.recorded, stop)})
            writer.flush()
            assert view.x.values.tolist() == [list(range(6))]
        later = place.open().posterior
    with trace.writer(0) as writer:
        assert writer.resume() == (6, "after 6")
        assert view.x.values.tolist() == [list(range(6))]
        with pytest.raises(zt.errors.StaleViewError):
            _ = later.x.values


def test_a_copy_without_the_journals_beside_it_has_what_was_flushed(
    directory: Place, tmp_path: Path
) -> None:
    trace = directory.create(
        chains=1, draws=20, posterior={"x": zt.Var(draws_per_chunk=4)}, journal=tmp_path
    )
    writer = trace.writer(0)
    writer.record_block({"x": np.arange(6.0)})
    writer.checkpoint("after 6")
    writer.flush()
    writer.record({"x": 6})
    copy = tmp_path / "copy.zarr"
    shutil.copytree(directory.path, copy)
    writer._release()
    for file in tmp_path.glob("*-journal/*"):
        file.unlink()
    with zt.open(copy, "a") as found:
        assert found.get("x").tolist() == [list(range(6))]
        with found.writer(0) as another:
            assert another.resume() == (6, "after 6")
            another.record({"x": 6})
        assert found.get("x").tolist() == [list(range(7))]
