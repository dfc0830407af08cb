"""Copies that are made while a trace changes: look for a wrong value in what they hold.

    python tests/promises/harness_histories.py --trials 2000

Each history is a run with its changes: splits, finishes, extensions, drops, data groups, tables,
and arrays that plain xarray has added. It is carried out once, and its files are remembered after
every change of a file. A trial then puts a copy together of which each file is of a moment of its
own, and of a journal each piece: that is what `cp -r` or a backup may find. No time passes, so
thousands of copies take minutes. Each value in a copy must be the right one, or reading it is an
error of zarrtrace; a copy of a single moment has everything; a run that continues in a copy ends
with all draws, or with such an error. For each history it prints how many copies there were, how
many values were read, and how many trials found something wrong.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import threading
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

sys.path.insert(0, str(Path(__file__).parents[1]))
from outcomes import Outcomes, TrialFailed

import zarrtrace as zt
from zarrtrace.store.location import Location

CHAINS, TUNE, DRAWS = 2, 5, 13
TOTAL = TUNE + DRAWS
COMPRESSORS: list[dict[str, Any]] = [{}, {}, {"compressors": None}, {"checksum": True}]

# Many values are the fill value of their dtype, so that a chunk may hold nothing else.
VALUES: dict[str, dict[str, Callable[[int, int], Any]]] = {
    "posterior": {
        "x": lambda chain, draw: np.nan if draw % 7 == 6 else 1000.0 * chain + draw + 0.5,
        "n": lambda chain, draw: (chain + draw) % 5,
        "pair": lambda chain, draw: [draw + 1, chain + 1],
        "word": lambda chain, draw: f"{chain} {draw}" * (draw % 3),
        "some": lambda chain, draw: np.full(draw % 4, draw + 100.0 * chain),
    },
    "sample_stats": {
        "lp": lambda chain, draw: -draw - 1000.0 * chain - 1,
        "diverging": lambda chain, draw: draw % 9 == 8,
    },
}
VARIABLES: dict[str, dict[str, Any]] = {
    "posterior": {
        "x": {},
        "n": {"dtype": "int8"},
        "pair": {"dtype": int, "shape": 2},
        "word": {"dtype": str},
        "some": {"shape": zt.UpTo(3)},
    },
    "sample_stats": {"lp": {"dtype": "float32"}, "diverging": {"dtype": bool}},
}
GROUPS = ("posterior", "warmup_posterior", "sample_stats", "warmup_sample_stats")
Files = dict[str, bytes]
# From which draw on a chain has values of which version: each time that it went back, others.
Attempt = tuple[tuple[int, int], ...]
ONLY_ATTEMPT: Attempt = ((0, 0),)


def version_of(attempt: Attempt, draw: int) -> int:
    """The version of the values of a draw."""
    return next(version for first, version in reversed(attempt) if first <= draw)


def after_going_back(attempt: Attempt, first: int, version: int) -> Attempt:
    """The attempt of a chain that draws again from `first` on."""
    return (*(part for part in attempt if part[0] < first), (first, version))


def of_added(chain: int, draw: int) -> float:
    """The value of an array that another tool has added to the posterior."""
    return np.nan if draw % 6 == 5 else 2.0 * draw + 10_000 * chain


def values_of(chains: range, draw: int, version: int = 0) -> dict[str, dict[str, Any]]:
    def of(name: str, value: Callable[[int, int], Any]) -> Any:
        each = [value(chain, draw + 31 * version) for chain in chains]
        if len(chains) == 1:
            return each[0]
        return each if name == "some" else np.array(each)

    return {g: {name: of(name, value) for name, value in vs.items()} for g, vs in VALUES.items()}


# A history ------------------------------------------------------------------------------------


@dataclass
class History:
    """A run with its changes, and all files of its directory at every moment."""

    path: Path
    chooser: random.Random
    options: dict[str, Any] = field(default_factory=dict)
    moments: list[Files] = field(default_factory=list)
    counts: list[list[int] | None] = field(default_factory=list)
    # What each chain has drawn, attempt after attempt; only where it draws other values again.
    attempts: dict[int, list[Attempt]] = field(
        default_factory=lambda: {chain: [ONLY_ATTEMPT] for chain in range(CHAINS)}
    )
    draws_others: bool = False
    _known: dict[tuple[Any, ...], bytes] = field(default_factory=dict)

    def create(self) -> None:
        def var(options: dict[str, Any]) -> zt.Var:
            return zt.Var(draws_per_chunk=self.chooser.choice([1, 2, 3, 4, 5, 7, 30]), **options)

        variables = {
            group: {name: var(options) for name, options in each.items()}
            for group, each in VARIABLES.items()
        }
        zt.create(
            self.path,
            chains=CHAINS,
            chains_per_chunk=self.chooser.choice([1, 1, 2]),
            tune=TUNE,
            draws=DRAWS,
            observed_data={"y": [0.0, 1.0, 2.0]},
            **{**self.chooser.choice(COMPRESSORS), **self.options},
            **variables,
        )
        self.remember()

    def trace(self) -> zt.Trace:
        return zt.open(self.path, "a")

    def remember(self) -> None:
        """Remember all files as they are now, if any has changed."""
        found: Files = {}
        for folder, _, files in os.walk(self.path):
            for file in files:
                path = f"{folder}/{file}"
                name, status = path[len(str(self.path)) + 1 :], os.stat(path)
                identity = (name, status.st_ino, status.st_mtime_ns, status.st_size)
                # A file that is mapped changes without a new time.
                if "journal/" in name or identity not in self._known:
                    self._known[identity] = Path(path).read_bytes()
                found[name] = self._known[identity]
        if not self.moments or found != self.moments[-1]:
            self.moments.append(found)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Remember the files after every change that is made to the store."""
        names = ("write", "write_again", "create", "delete", "move_tree", "exchange_trees",
                 "delete_tree", "share", "write_many", "delete_many", "share_many")  # fmt: skip
        real = {name: getattr(Location, name) for name in names}
        own = threading.get_ident()

        def watching(name: str) -> Callable[..., Any]:
            def method(location: Location, *arguments: Any, **options: Any) -> Any:
                if threading.get_ident() != own or location.path != self.path:
                    return real[name](location, *arguments, **options)
                if not name.endswith("_many"):
                    result = real[name](location, *arguments, **options)
                    self.remember()
                    return result
                for item in arguments[0]:
                    real[name](location, [item])
                    self.remember()
                return None

            return method

        for name in names:
            setattr(Location, name, watching(name))
        try:
            yield
        finally:
            for name, method in real.items():
                setattr(Location, name, method)

    # What happens in it -----------------------------------------------------------------------

    def record(self, stop: int, *, close: bool = True, checkpoint: bool = True) -> None:
        """Record each chain up to a number of draws, or less."""
        trace = self.trace()
        for block in range(-(-CHAINS // trace._layout.chains_per_chunk)):
            chains = trace._block(block).chains
            writer = trace.writer(chains if len(chains) > 1 else chains[0])
            before = writer.recorded
            start, _ = writer.resume()
            self.remember()
            if self.draws_others and start < before:
                for chain in chains:
                    version = len(self.attempts[chain])
                    again = after_going_back(self.attempts[chain][-1], start, version)
                    self.attempts[chain].append(again)
            now = self.attempts[chains[0]][-1]
            # Chains are of unequal length, but only a little.
            for draw in range(start, stop - (block if stop < trace.tune + trace.draws else 0)):
                writer.record(**values_of(chains, draw, version_of(now, draw)))
                self.remember()
                if checkpoint and draw % 4 == 3:
                    writer.checkpoint({"draw": draw + 1})
                if self.chooser.random() < 0.15:
                    writer.flush()
            if close:
                writer.close()
            else:
                writer._release()
            self.remember()

    def do(self, name: str, *arguments: Any, **options: Any) -> None:
        getattr(self.trace(), name)(*arguments, **options)
        self.remember()

    def fail(self, name: str, *arguments: Any) -> None:
        try:
            self.do(name, *arguments)
        except zt.TraceError:
            self.remember()
        else:
            raise AssertionError(f"{name} was to fail")

    def add(self, name: str = "twice") -> None:
        """Add an array to the posterior as users of xarray do."""
        plain = xr.open_dataset(self.path, engine="zarr", group="posterior").load()
        first = self.trace().burn_in
        values = np.array([
            [of_added(chain, first + draw) for draw in range(plain.sizes["draw"])]
            for chain in range(plain.sizes["chain"])
        ])  # fmt: skip
        added = xr.Dataset({name: (("chain", "draw"), values)})
        encoding = {name: {"chunks": (1, 4)}}
        added.to_zarr(self.path, group="posterior", mode="a", encoding=encoding)
        self.remember()

    def table(self, start: int, stop: int) -> None:
        with self.trace().table("steps", {"step": zt.Var(dtype=int, draws_per_chunk=4)}) as table:
            for row in range(start, stop):
                table.append(step=row + 1)
                self.remember()
                if row % 3 == 2:
                    table.flush()
                    self.remember()


def recorded(history: History) -> None:
    history.create()
    history.record(7, close=False)
    history.record(12)
    history.record(TOTAL)


def went_back(history: History) -> None:
    history.draws_others = True
    history.create()
    history.record(7, close=False)
    history.record(11, close=False)
    history.record(15, close=False)
    history.record(TOTAL)


def went_back_between_splits(history: History) -> None:
    history.draws_others = True
    history.create()
    history.record(10, close=False)
    history.record(11, close=False)
    history.do("split_warmup", 4)
    history.record(14, close=False)
    history.do("split_warmup", 6)
    history.record(15, close=False)
    history.record(TOTAL)
    history.do("finish")


def split(history: History) -> None:
    history.create()
    history.record(11)
    history.do("split_warmup", 5)
    history.record(TOTAL)
    history.do("finish")


def split_often(history: History) -> None:
    history.create()
    history.record(9, close=False)
    history.do("split_warmup", 4)
    history.record(14)
    history.do("split_warmup", 6)
    history.record(TOTAL)
    history.do("finish")


def refused(history: History) -> None:
    history.create()
    history.record(9)
    history.fail("split_warmup", 12)
    history.record(14, close=False)
    history.fail("split_warmup", 17)
    history.record(TOTAL)
    history.do("finish")


def finished(history: History) -> None:
    history.create()
    history.record(TOTAL)
    history.do("finish")
    history.do("split_warmup", 3)
    history.do("split_warmup", 8)


def extended(history: History) -> None:
    history.create()
    history.record(TOTAL)
    history.do("finish")
    history.do("extend", 6)
    history.record(TOTAL + 6)
    history.do("finish")


def extended_often(history: History) -> None:
    history.create()
    history.record(TOTAL)
    history.do("finish")
    for stop in (TOTAL + 1, TOTAL + 3):
        history.do("extend", stop - TOTAL)
        history.record(stop)
        history.do("finish")


def dropped(history: History) -> None:
    history.create()
    history.record(13)
    history.do("drop_before", 4)
    history.record(TOTAL)
    history.do("drop_before", 6)
    history.do("finish")
    history.do("drop_before", 9)


def repaired(history: History) -> None:
    history.create()
    history.record(10, close=False)
    history.do("repair")
    history.record(13, close=False)
    history.do("split_warmup", 5)
    history.do("repair")
    history.record(TOTAL, close=False)
    history.do("finish")
    history.do("repair")


def without_journal(history: History) -> None:
    history.options = {"journal": False, "flush_every": 1e9}
    history.create()
    history.record(9)
    history.do("split_warmup", 4)
    history.record(TOTAL)
    history.do("finish")
    history.do("extend", 4)
    history.record(TOTAL + 4)
    history.do("finish")


def added(history: History) -> None:
    history.create()
    history.record(TOTAL)
    history.do("finish")
    history.add()
    history.do("split_warmup", 3)


def added_twice(history: History) -> None:
    history.create()
    history.record(TOTAL)
    history.do("finish")
    history.add()
    history.do("split_warmup", 3)
    history.add("other")
    history.do("split_warmup", 8)


def tables(history: History) -> None:
    history.create()
    history.record(9)
    history.table(0, 7)
    history.record(TOTAL)
    history.do("finish")
    history.table(7, 15)


def given(history: History) -> None:
    history.create()
    history.do("add_group", "constant_data", {"k": [1.0, 0.0]})
    history.record(9)
    history.do("add_group", "constant_data", {"k": [5.0, 6.0]}, overwrite=True)
    history.record(TOTAL)
    history.do("finish")
    history.do("add_group", "constant_data", {"k": [0.0, 9.0, 0.0]}, overwrite=True)
    given = xr.DataTree.from_dict({"constant_data": xr.Dataset({"k": ("i", [7.0])})})
    history.do("update", given, overwrite=True)
    history.do("remove_group", "constant_data")


GIVEN = {"k": ([1.0, 0.0], [5.0, 6.0], [0.0, 9.0, 0.0], [7.0]), "y": ([0.0, 1.0, 2.0],)}
HISTORIES: dict[str, Callable[[History], None]] = {
    "recorded": recorded,
    "went back": went_back,
    "went back between splits": went_back_between_splits,
    "split": split,
    "split often": split_often,
    "a refused split": refused,
    "finished": finished,
    "extended": extended,
    "extended often": extended_often,
    "dropped": dropped,
    "repaired": repaired,
    "without a journal": without_journal,
    "added": added,
    "added twice": added_twice,
    "tables": tables,
    "data groups": given,
}


# A copy ---------------------------------------------------------------------------------------

SERIES = slice(96, 112)  # in the header of a journal


def put_together(history: History, chooser: random.Random, target: Path) -> bool:
    """Make a copy of files of different moments; returns whether they are of one moment."""
    last = chooser.randrange(len(history.moments))
    first = max(0, last - chooser.choice([0, 2, 5, 20, 60, 200]))
    window = history.moments[first : last + 1]
    if (few := chooser.choice([0, 2, 2, 3])) and len(window) > few:
        window = [window[i] for i in sorted(chooser.sample(range(len(window)), few))]
    names = sorted({name for files in window for name in files})
    how = chooser.choice(["any", "groups", "documents", "listed", "few", "few", "array"])
    arrays = sorted({name.rpartition("/")[0] for name in names})
    early = set(chooser.sample(arrays, min(len(arrays), 2)))
    chosen: dict[Any, int] = {}
    if how == "listed":
        # Files are copied one after the other, directory by directory in any order.
        tops = sorted({name.split("/")[0] for name in names})
        order = {top: chooser.random() for top in tops}
        names.sort(key=lambda name: order[name.split("/")[0]])
        times = iter(sorted(chooser.choices(range(len(window)), k=len(names))))
    for name in names:
        if how == "listed":
            moment = next(times)
        elif how == "any":
            moment = chooser.randrange(len(window))
        elif how == "few":
            moment = 0 if chooser.random() < 0.1 else -1
        elif how == "array":
            moment = 0 if name.rpartition("/")[0] in early and "zarr.json" not in name else -1
        else:
            part = name.split("/")[0] if how == "groups" else name.rpartition("/")[0]
            moment = chosen.setdefault(
                (part, name.endswith("zarr.json")), chooser.randrange(len(window))
            )
        data = window[moment].get(name)
        if data is None or "/writer/c" in name:
            continue
        if "journal/c." in name and chooser.random() < 0.5:
            # A journal that replaces another one is another file, and nobody reads half of each.
            others = [d for files in window if (d := files.get(name)) and d[SERIES] == data[SERIES]]
            data = mixed(others, chooser)
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (target / name).write_bytes(data)
    return all(files is window[0] for files in window)


def mixed(versions: list[bytes], chooser: random.Random) -> bytes:
    """A mapped file that is copied while it changes."""
    piece = chooser.choice([8, 512, 4096])
    few = chooser.sample(versions, min(len(versions), 2))
    length = len(versions[0])
    return b"".join(chooser.choice(few)[start : start + piece] for start in range(0, length, piece))


def same(got: Any, expected: Any) -> bool:
    got, expected = np.asarray(got), np.asarray(expected)
    if got.dtype.kind in "fc":
        return bool(np.array_equal(got, expected.astype(got.dtype), equal_nan=True))
    return got.tolist() == expected.tolist()


def matching(
    found: Any, group: str, name: str, chain: int, first: int, attempts: list[Attempt]
) -> list[Attempt]:
    """The attempts of a chain that have drawn these values of a variable."""
    return [
        attempt
        for attempt in attempts
        if all(
            same(*expectation(got, group, name, chain, first + number, attempt))
            for number, got in enumerate(found)
        )
    ]


def expectation(
    got: Any, group: str, name: str, chain: int, draw: int, attempt: Attempt
) -> tuple[Any, Any]:
    """What was read of one draw, and what an attempt has drawn."""
    if name in ("twice", "other"):
        return got, of_added(chain, draw)
    draw += 31 * version_of(attempt, draw)
    if name == "some_length":
        return got, draw % 4
    expected = VALUES[group.removeprefix("warmup_")][name](chain, draw)
    return (got[: len(expected)], expected) if name == "some" else (got, expected)


def check(path: Path, seen: Counter[str], whole: bool, attempts: dict[int, list[Attempt]]) -> None:
    """Assert that all that can be read of a copy is right, and of a whole one everything.

    All values of a chain are of one of its attempts.
    """
    of_chain = dict(attempts)

    @contextmanager
    def refusing() -> Iterator[None]:
        try:
            yield
        except zt.TraceError as error:
            seen["refusals"] += 1
            if whole:
                raise TrialFailed("unreadable", f"{type(error).__name__}: {error}") from error

    with refusing(), zt.open(path) as trace:
        first = {"": trace.burn_in, "warmup_": trace.dropped}
        for group in GROUPS:
            prefix = "warmup_" if group.startswith("warmup_") else ""
            for chain in range(CHAINS):
                for name, found in read(trace, group, chain, refusing).items():
                    left = matching(found, group, name, chain, first[prefix], of_chain[chain])
                    if not left:
                        raise TrialFailed("wrong", f"{path}: {group}/{name}, {chain}: {found}")
                    of_chain[chain] = left
                    seen["values"] += len(found)
        for group in ("posterior", "warmup_posterior"):
            for name in ("twice", "other"):
                if not trace.finished or not (path / group / name).exists():
                    continue
                with refusing():
                    data = trace.dataset(group)
                    prefix = "warmup_" if group.startswith("warmup_") else ""
                    if name in data:
                        require_added(data[name], group, first[prefix], str(path))
                        seen["values"] += data[name].size
        with refusing():
            for group, name in (("observed_data", "y"), ("constant_data", "k")):
                if group in trace.groups:
                    values = trace.dataset(group)[name].values.tolist()
                    seen["values"] += 1
                    if values not in GIVEN[name]:
                        raise TrialFailed("wrong", f"{path}: {group}/{name} is {values}")
        with refusing():
            if "steps" in trace.tables:
                rows = trace.table("steps")["step"].tolist()
                seen["values"] += len(rows)
                if rows != list(range(1, len(rows) + 1)):
                    raise TrialFailed("wrong", f"{path}: steps are {rows}")


def read(trace: zt.Trace, group: str, chain: int, refusing: Callable[[], Any]) -> dict[str, Any]:
    """The draws of each variable of a group that can be read."""
    names = list(VALUES[group.removeprefix("warmup_")])
    found: dict[str, Any] = {}
    try:
        found = trace.get(names, group=group, chains=chain)
    except zt.TraceError:
        for name in names:
            with refusing():
                found[name] = trace.get(name, group=group, chains=chain)
    return {name: values[0] for name, values in found.items()}


def require_added(found: xr.DataArray, group: str, first: int, where: str) -> None:
    """Assert that an array of another tool has its draws, or says which it has not."""
    missing: set[int] = set()
    for text in found.attrs.get("missing_draws", ()):
        numbers = [int(word) for word in text.replace(",", "").split() if word.isdigit()]
        missing |= set(range(numbers[0], numbers[-1] + 1))
    for chain, values in zip(found.chain.values.tolist(), found.values, strict=True):
        for number, got in enumerate(values.tolist()):
            draw = first + number
            if number in missing:
                assert np.isnan(got), f"{where}: {found.name} has draw {draw}, and says it has not"
            else:
                if not same(got, of_added(chain, draw)):
                    raise TrialFailed("wrong", f"{where}: {found.name}, {chain}, {draw}: {got}")


def go_on(path: Path, seen: Counter[str], attempts: dict[int, list[Attempt]]) -> None:
    """Record what is left in a copy and finish it; all draws are right, or it is an error."""
    try:
        with zt.open(path, "a") as trace:
            if trace._layout.closed:
                trace.finish()
            else:
                for number in range(len(trace.blocks)):
                    chains = trace._block(number).chains
                    which = chains if len(chains) > 1 else chains[0]
                    with trace.writer(which, force=True) as writer:
                        start, _ = writer.resume()
                        version = max(len(attempts[chain]) for chain in chains)
                        if version == 1:
                            version = 0
                        for chain in chains if version else ():
                            attempts[chain] = [
                                after_going_back(attempt, start, version)
                                for attempt in attempts[chain]
                            ]
                        for draw in range(start, trace.tune + trace.draws):
                            writer.record(**values_of(chains, draw, version))
                trace.finish()
                if {*trace.recorded.tolist()} != {trace.tune + trace.draws}:
                    raise TrialFailed("lost", f"{path} has {trace.recorded} draws")
    except zt.TraceError:
        seen["refused runs"] += 1
        return
    seen["continued runs"] += 1
    check(path, seen, whole=False, attempts=attempts)


def trial(history: History, number: int, seen: Counter[str]) -> None:
    """Put one copy together, read it, and sometimes continue in it."""
    chooser = random.Random(number)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy.zarr"
        whole = put_together(history, chooser, copy)
        if not copy.exists():
            return
        seen.update({"copies": 1, "torn copies": not whole})
        check(copy, seen, whole, history.attempts)
        if chooser.random() < 0.1:
            go_on(copy, seen, dict(history.attempts))


def carried_out(name: str, folder: Path, seed: int) -> History:
    history = History(folder / f"{name.replace(' ', '_')}-{seed}.zarr", random.Random(seed))
    with history.watched():
        HISTORIES[name](history)
    return history


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--trials", type=int, default=200, help="copies of each history")
    parser.add_argument("--each", type=int, default=100, help="copies of one run of a history")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--history", choices=HISTORIES, action="append")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    everything = Outcomes()
    for name in options.history or HISTORIES:
        outcomes = Outcomes()
        for seed in range(options.seed, options.seed + options.trials, options.each):
            with tempfile.TemporaryDirectory() as folder:
                history = carried_out(name, Path(folder), seed)
                for number in range(seed, seed + min(options.each, options.trials)):
                    with outcomes.trial(number):
                        trial(history, number, outcomes.seen)
        print(f"{name}: {outcomes}", flush=True)
        everything.trials += outcomes.trials
        everything.seen.update(outcomes.seen)
        everything.ended.update(outcomes.ended)
    print(everything)
    return everything.exit_code


if __name__ == "__main__":
    sys.exit(main())
