"""FORMAT.md is enough: a reader written from it alone, with numpy and numcodecs, no zarr."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import google_crc32c
import numcodecs
import numpy as np
import pytest

import zarrtrace as zt


class Reader:
    """Reads a local trace at any moment, as "Reading at any moment" in FORMAT.md says."""

    def __init__(self, path: Path) -> None:
        self.path = path
        document = json.loads((path / "_sampling_state/zarr.json").read_text())
        self.layout = json.loads(document["attributes"]["zarrtrace"])
        self.dropped = self.layout.get("dropped", 0)
        assert self.layout["format_version"] == 3
        self.together = self.layout["chains_per_chunk"]

    def count(self, block: int) -> int:
        journal = self.path / f"_sampling_state/journal/c.{block}.0"
        counts = self.path / f"_sampling_state/draw_idx/c.{block}"
        if journal.exists():
            # The journals of these tests were written where they are read.
            return int(np.frombuffer(journal.read_bytes(), "<i8", 8)[1])
        return int(np.frombuffer(counts.read_bytes(), "<i8", 1)[0]) if counts.exists() else 0

    def read(self, group_name: str, name: str, chain: int, draws: range) -> np.ndarray[Any, Any]:
        """Some draws of one chain, numbered from the first one of warmup."""
        group = next(g for g in self.layout["groups"] if g["name"] == group_name)
        variable = next(v for v in group["variables"] if v["name"] == name)
        block, row = divmod(chain, self.together)
        return np.array([self.draw(group, variable, block, draw)[row] for draw in draws])

    def draw(self, group: Any, variable: Any, block: int, draw: int) -> np.ndarray[Any, Any]:
        length = variable["draws_per_chunk"]
        split = variable["name"] in group["moved"]
        now, goal = self.arrays(group, moved=split), self.arrays(group, moved=True)
        forms = [group["v2_keys"], group["moving_to_v2_keys"]]
        key, stop = self.key(now, forms[split], group, variable, block, draw)
        if variable["dtype"] != "str" and group["moving_to"] is None:
            row = self.journal_row(group, variable, block, draw, stop)
            if row is not None:
                return row
        file = self.path / key
        if group["moving_to"] is not None:
            new, _ = self.key(goal, forms[1], group, variable, block, draw)
            places = [self.path / "_sampling_state/split" / new]
            if group["swapping"]:
                places.append(self.path / new)
            elif not split:
                places.insert(0, file)
            file = next(place for place in places if place.exists())
        start = draw - self.start(now, draw)
        return self.decode(variable, self.stored(group, variable), file)[:, start % length]

    def arrays(self, group: Any, moved: bool) -> tuple[int, int]:
        """The draws that the arrays of the warmup group and of the group itself begin with."""
        if moved and group["moving_to"] is not None:
            return self.dropped, group["moving_to"]
        return group.get("stored_first", 0), group["stored_warmup"]

    def start(self, arrays: tuple[int, int], draw: int) -> int:
        first, boundary = arrays
        assert draw >= self.dropped >= first
        return first if draw < boundary else boundary

    def key(
        self, arrays: tuple[int, int], v2: bool, group: Any, variable: Any, block: int, draw: int
    ) -> tuple[str, int]:
        start = self.start(arrays, draw)
        end, prefix = (arrays[1], "warmup_") if draw < arrays[1] else (math.inf, "")
        chunk = (draw - start) // variable["draws_per_chunk"]
        stop = int(min(start + (chunk + 1) * variable["draws_per_chunk"], end))
        tail = ".0" * len(variable["shape"])
        chunk_name = f"{'' if v2 else 'c.'}{block}.{chunk}{tail}"
        return f"{prefix}{group['name']}/{variable['name']}/{chunk_name}", stop

    def stored(self, group: Any, variable: Any) -> str:
        as_int8 = variable["dtype"] == "bool" and not group["name"].startswith("sample_stats")
        return "int8" if as_int8 else str(variable["dtype"])

    def journal_row(
        self, group: Any, variable: Any, block: int, draw: int, stop: int
    ) -> np.ndarray[Any, Any] | None:
        file = self.path / f"_sampling_state/journal/c.{block}.0"
        if not file.exists() or self.count(block) >= stop:
            return None
        data, place = file.read_bytes(), 128
        assert data[:8] == b"zarrtrc3"
        for table in self.tables():
            length = table[0][0][1]["draws_per_chunk"]
            row, found = 0, None
            for part in table:
                for owner, member in part:
                    dtype = np.dtype(self.stored(owner, member)).newbyteorder("<")
                    if (owner, member) == (group, variable):
                        found = row, dtype
                    row += self.together * dtype.itemsize * math.prod(member["shape"])
                row += -row % 8
            if found is not None:
                index = (draw - self.start(self.arrays(group, moved=False), draw)) % length
                first, start = place + index * (row + 16), found[0]
                values, seal = data[first : first + row], data[first + row : first + row + 16]
                checksum = google_crc32c.extend(draw, values)
                assert seal == struct.pack("<qIi", draw, checksum, 0)
                shape = (self.together, *variable["shape"])
                array = np.frombuffer(values, found[1], math.prod(shape), start).reshape(shape)
                return array if self.count(block) < stop else None
            place += -(-length * (row + 16) // 64) * 64
        raise AssertionError

    def tables(self) -> list[list[list[tuple[Any, Any]]]]:
        """The tables: of each its parts, of each part the groups and variables side by side."""
        found: dict[Any, dict[Any, list[tuple[Any, Any]]]] = {}
        for group in self.layout["groups"]:
            for variable in group["variables"]:
                if variable["dtype"] == "str" or variable["draws_per_chunk"] == 1:
                    continue
                number = np.dtype(variable["dtype"]).kind in "iuf"
                packed = number and self.together == 1 and not variable["shape"]
                part = group["name"] if packed else (group["name"], variable["name"])
                begins = group.get("stored_first", 0), group["stored_warmup"]
                table = found.setdefault((variable["draws_per_chunk"], begins), {})
                table.setdefault(part, []).append((group, variable))
        for table in found.values():
            for part in table.values():
                part.sort(key=lambda one: -np.dtype(self.stored(*one)).itemsize)
        return [list(table.values()) for table in found.values()]

    def decode(self, variable: Any, dtype: str, file: Path) -> np.ndarray[Any, Any]:
        data: Any = file.read_bytes()
        codecs = self.layout["encodings"][dtype]["codecs"]
        assert [codec["name"] for codec in codecs[1:]] == ["blosc"]
        data = numcodecs.Blosc().decode(data)
        shape = (self.together, variable["draws_per_chunk"], *variable["shape"])
        if dtype == "str":
            return np.array(numcodecs.VLenUTF8().decode(data)).reshape(shape)
        return np.frombuffer(data, np.dtype(dtype).newbyteorder("<")).reshape(shape)


TUNE, DRAWS = 8, 13
EXPECTED: dict[tuple[str, str], Callable[[int, int], Any]] = {
    ("posterior", "mu"): lambda chain, draw: 100 * chain + draw,
    ("posterior", "theta"): lambda chain, draw: [draw, chain],
    ("posterior", "label"): lambda chain, draw: f"{chain} → {draw}",
    ("posterior", "flag"): lambda chain, draw: draw % 2,
    # Numbers that share a table of the journal, the larger ones first.
    ("posterior", "k"): lambda chain, draw: draw - chain,
    ("posterior", "nu"): lambda chain, draw: draw / 2 + chain,
    ("posterior", "tau"): lambda chain, draw: 1e100 * draw,
    ("sample_stats", "diverging"): lambda chain, draw: draw % 3 == 0,
    ("sample_stats", "at"): lambda chain, draw: np.datetime64(draw, "ms"),
}


def record(directory: Any, chains: int, together: int, draws: int) -> zt.Trace:
    trace: zt.Trace = directory.create(
        chains=chains,
        tune=TUNE,
        draws=DRAWS,
        chains_per_chunk=together,
        draws_per_chunk=4,
        posterior={
            "mu": zt.Var(draws_per_chunk=5),
            "theta": zt.Var(shape=2, dtype="float32"),
            "label": zt.Var(dtype=str),
            "flag": zt.Var(dtype=bool),
            "k": zt.Var(dtype="int16"),
            "nu": zt.Var(dtype="float32"),
            "tau": zt.Var(),
        },
        sample_stats={"diverging": zt.Var(dtype=bool), "at": zt.Var(dtype="datetime64[ms]")},
    )
    for block in trace.blocks:
        writer = trace.writer(block)
        for draw in range(draws):
            values: dict[str, dict[str, Any]] = {"posterior": {}, "sample_stats": {}}
            for (group, name), value in EXPECTED.items():
                of_chains = [value(chain, draw) for chain in writer.chains]
                given = of_chains if together > 1 else of_chains[0]
                boolean = name in ("flag", "diverging")
                plain = not boolean and isinstance(given, int | float)
                values[group][name] = given if plain else np.array(given, bool if boolean else None)
            writer.record(**values)
        writer._release()  # as if killed: nothing is flushed
    return trace


def check(path: Path, chains: range, draws: range) -> None:
    reader = Reader(path)
    for chain in chains:
        assert reader.count(chain // reader.together) == draws.stop
        for (group, name), value in EXPECTED.items():
            found = reader.read(group, name, chain, draws)
            assert found.tolist() == np.array([value(chain, draw) for draw in draws]).tolist()


@pytest.mark.parametrize("draws", [1, 4, 11, TUNE + DRAWS])
@pytest.mark.parametrize(("chains", "together"), [(2, 1), (3, 2)])
def test_the_specification_is_enough_to_read_a_trace_that_is_being_written(
    directory: Any, chains: int, together: int, draws: int
) -> None:
    record(directory, chains, together, draws)
    check(directory.path, range(chains), range(draws))


@pytest.mark.parametrize("warmup", [8, 3])
def test_the_specification_is_enough_to_read_a_split_and_a_finished_trace(
    directory: Any, warmup: int
) -> None:
    trace = record(directory, 3, 2, TUNE + DRAWS)
    trace.split_warmup(warmup)
    check(directory.path, range(3), range(TUNE + DRAWS))
    trace.finish()
    check(directory.path, range(3), range(TUNE + DRAWS))


def test_the_specification_is_enough_to_read_what_a_drop_leaves(directory: Any) -> None:
    trace = record(directory, 3, 2, 17)
    trace.drop_before(6)
    check(directory.path, range(3), range(6, 17))
    trace.split_warmup(12)
    trace.drop_before(7)
    check(directory.path, range(3), range(7, 17))
    trace.finish()
    check(directory.path, range(3), range(7, 17))


@pytest.mark.once("oldest")
@pytest.mark.parametrize(("warmup", "dropped"), [(8, 0), (3, 0), (8, 4), (9, 5), (5, 5)])
def test_the_specification_is_enough_to_read_at_every_step_of_a_split(
    directory: Any, warmup: int, dropped: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace = record(directory, 3, 2, TUNE + DRAWS)
    trace.drop_before(dropped)
    location = type(trace._location)
    steps = 0

    def looked_at(name: str) -> None:
        original = getattr(location, name)

        def step(*args: Any, **kwargs: Any) -> Any:
            nonlocal steps
            check(directory.path, range(2, 3), range(dropped, TUNE + DRAWS, 2))
            steps += 1
            return original(*args, **kwargs)

        monkeypatch.setattr(location, name, step)

    for name in ("write", "share", "move_tree", "delete_tree"):
        looked_at(name)
    trace.split_warmup(warmup)
    monkeypatch.undo()
    check(directory.path, range(3), range(dropped, TUNE + DRAWS))
    assert steps > 20
