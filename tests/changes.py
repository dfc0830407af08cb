"""Every change of a trace, to be made while something goes wrong; and what has to be right then."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import xarray as xr
import zarr

import zarrtrace as zt

TUNE, DRAWS = 6, 9
TOTAL = TUNE + DRAWS
DEFINITION: dict[str, Any] = {
    "chains": 2,
    "chains_per_chunk": 2,
    "tune": TUNE,
    "draws": DRAWS,
    "posterior": {"mu": zt.Var(draws_per_chunk=3), "word": zt.Var(dtype=str, draws_per_chunk=5)},
    "sample_stats": {"n": zt.Var(dtype=int, draws_per_chunk=4)},
    "observed_data": {"y": [1.0, 2.0]},
}
GROUPS = {"posterior": ("mu", "word"), "sample_stats": ("n",)}


def values(start: int, stop: int) -> dict[str, Any]:
    numbers = np.stack([np.arange(start, stop), np.arange(100 + start, 100 + stop)])
    return {"mu": numbers + 0.5, "word": numbers.astype(str), "n": numbers + 1}


def record(path: Path, start: int, stop: int) -> None:
    with zt.open(path, "a").writer(range(2)) as writer:
        writer.resume()
        given = values(start, stop)
        writer.record_block({name: given[name] for name in GROUPS["posterior"]}, {"n": given["n"]})
        # As if killed: the last draws are in the journal alone.
        writer._release()


def recorded(path: Path) -> None:
    zt.create(path, **DEFINITION)
    record(path, 0, TOTAL)


def finished(path: Path) -> None:
    recorded(path)
    zt.open(path, "a").finish()


def with_group(path: Path) -> None:
    recorded(path)
    zt.open(path, "a").add_group("predictions", {"z": [1, 2, 3]})


def finished_with_group(path: Path) -> None:
    with_group(path)
    zt.open(path, "a").finish()


def damaged(path: Path) -> None:
    recorded(path)
    (path / "sample_stats/zarr.json").write_text("nothing")
    (path / "_sampling_state/sampling_time/c.0").write_bytes(b"nothing")
    (path / "posterior/mu/c.0.9.partial").write_bytes(b"half")


State: TypeAlias = tuple[int, int, bool, int, int, tuple[int, ...], bool]


def after(
    dropped: int = 0, warmup: int = TUNE, end: bool = False, count: int = TOTAL, room: int = TOTAL,
    group: tuple[int, ...] = (), compacted: bool = False,
) -> State:  # fmt: skip
    """The first draws that are gone, the others that are warmup, whether the trace is finished, how
    many draws there are, how many there may be, what a group that was added has, and whether draws
    are rounded."""
    return dropped, warmup, end, count, room, group, compacted


def on_trace(name: str, *arguments: Any, **options: Any) -> Callable[[Path], object]:
    def act(path: Path) -> None:
        getattr(zt.open(path, "a"), name)(*arguments, **options)

    return act


def create(path: Path, **options: Any) -> None:
    zt.create(path, **DEFINITION, **options)


def overwrite(path: Path) -> None:
    create(path, overwrite=True)


def adopt(path: Path) -> None:
    zt.from_datatree(path, path, overwrite=True)


def nothing(path: Path) -> None:
    pass


# What is there before, what is done, and the state afterwards.
CHANGES: dict[str, tuple[Callable[[Path], None], Callable[[Path], object], State]] = {
    "split": (recorded, on_trace("split_warmup"), after()),
    "split elsewhere": (recorded, on_trace("split_warmup", 4), after(warmup=4)),
    "split again": (finished, on_trace("split_warmup", 3), after(warmup=3, end=True)),
    "finish": (recorded, on_trace("finish"), after(end=True)),
    "extend": (recorded, on_trace("extend", 2), after(room=TOTAL + 2)),
    "extend again": (finished, on_trace("extend", 2), after(room=TOTAL + 2)),
    "drop": (recorded, on_trace("drop_before", 7), after(dropped=7, warmup=7)),
    "drop again": (finished, on_trace("drop_before", 4), after(dropped=4, end=True)),
    "burn in": (recorded, on_trace("set_burn_in", 8), after(warmup=8)),
    "group": (recorded, on_trace("add_group", "predictions", {"z": [1, 2]}), after(group=(1, 2))),
    "group again": (
        with_group,
        on_trace("add_group", "predictions", {"z": [4]}, overwrite=True),
        after(group=(4,)),
    ),
    "group at the end": (
        finished_with_group,
        on_trace("add_group", "predictions", {"z": [4]}, overwrite=True),
        after(end=True, group=(4,)),
    ),
    # The draws are multiples of the quantum already.
    "compact": (finished, on_trace("compact", force=True), after(end=True, compacted=True)),
    "no group": (finished_with_group, on_trace("remove_group", "predictions"), after(end=True)),
    "repair": (damaged, on_trace("repair"), after()),
    "create": (nothing, create, after(count=0)),
    "overwrite": (recorded, overwrite, after(count=0)),
    "adopt": (finished, adopt, after(end=True)),
}


def state(path: Path) -> State | None:
    """The state of a trace, every draw of which is right; None if there is none."""
    try:
        trace = zt.open(path)
    except zt.errors.TraceNotFoundError:
        return None
    [count, other] = trace.recorded.tolist()
    assert other == count
    for group, names in GROUPS.items():
        for prefix, start, stop in (
            ("warmup_", trace.dropped, min(trace.burn_in, count)),
            ("", trace.burn_in, count),
        ):
            expected = values(start, stop)
            for name in names if start < stop else ():
                found = trace.get(name, group=prefix + group)
                assert found.tolist() == expected[name].tolist(), f"{prefix}{group}/{name}"
                if trace.finished:
                    plain = zarr.open_array(path / f"{prefix}{group}/{name}", mode="r")
                    assert np.asarray(plain[:]).tolist() == expected[name].tolist()
    room = trace.tune + trace.draws
    added: tuple[int, ...] = ()
    if "predictions" in trace.groups:
        added = tuple(trace.predictions.z.values.tolist())
    if trace.finished and not trace._layout.replacing:
        with xr.open_datatree(path, engine="zarr") as tree:
            plain = tree["predictions/z"].values.tolist() if "predictions" in tree else []
            assert tuple(plain) == added
    compacted = trace._layout.groups["posterior"].variables["mu"].compacted is not None
    return trace.dropped, trace.burn_in, trace.finished, count, room, added, compacted


# What is made once to be copied does not change.
state_of = functools.cache(state)


def try_disturbed(
    change: str, prepared: Path, path: Path, disturbed: AbstractContextManager[object]
) -> bool:
    """Make a change that is disturbed, and again; whether it was given up the first time."""
    prepare, act, expected = CHANGES[change]
    begin(prepared, path)
    before = expected if prepare is damaged else state_of(prepared)
    error: BaseException | None = None
    try:
        with disturbed:
            act(path)
    except (zt.TraceError, KeyboardInterrupt) as caught:
        # Its frames hold what they had open.
        error = caught.with_traceback(None)
        error.__context__ = None
    if isinstance(error, zt.TraceError):
        # What happened, where, and what to do.
        assert str(path.parent) in str(error), repr(error)
        assert ";" in str(error), repr(error)
    found = None
    if prepare is not damaged:
        found = state(path)
        assert found in ([expected] if error is None else between(before, expected))
    if error is not None and (before == expected or found != expected):
        act(path)
        found = None
    assert (found or state(path)) == expected
    trace = zt.open(path, "a")
    # A file that was half-written stays until the trace is finished.
    assert [str(damage) for damage in trace.check() if not damage.path.endswith(".partial")] == []
    count, room = int(trace.recorded[0]), trace.tune + trace.draws
    if count < room:
        record(path, count, room)
    trace.finish()
    ended = state(path)
    assert ended is not None
    assert ended[2:5] == (True, room, room)
    assert [file for file in path.rglob("*") if is_left_over(file)] == []
    # What could not be removed beside the trace goes with the next one.
    overwrite(path)
    assert list(path.parent.iterdir()) == [path]
    return error is not None


def between(before: State | None, expected: State) -> list[State | None]:
    """What a change that failed may leave; a finished trace may have to be finished again."""
    states = [before, expected]
    if before is not None and before[2]:
        states += [(*found[:2], False, *found[3:]) for found in (before, expected)]
    return states


def begin(prepared: Path, path: Path) -> None:
    shutil.rmtree(path.parent, ignore_errors=True)
    path.parent.mkdir()
    if prepared.exists():
        shutil.copytree(prepared, path)


def is_left_over(file: Path) -> bool:
    return file.name.endswith(".partial") or file.name in ("split", "replacement", "_groups")
