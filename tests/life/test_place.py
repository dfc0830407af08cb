"""A new trace at its place: whole or not at all, and the old one there until it is."""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Place
from killed_at_a_step import Killed, killed_at, put_back_at

import zarrtrace as zt
from zarrtrace.errors import ChainBusyError, InvalidInputError, NotWritableError, TraceExistsError
from zarrtrace.life import place
from zarrtrace.store.location import Location

GOOD: dict[str, Any] = {"chains": 1, "draws": 3, "posterior": {"x": zt.Var()}}


def record(trace: zt.Trace, value: float) -> zt.Trace:
    with trace.writer(0) as writer:
        writer.record_block({"x": np.full(3, value)})
    return trace


def beside(path: Path) -> list[str]:
    return [name for name in os.listdir(path.parent) if name.endswith(".building")]


# Killed ---------------------------------------------------------------------------------------

_KILLS = """
import os, sys, time, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # a fork beside zarr's own thread
import numpy as np
import zarrtrace as zt

folder, operation = sys.argv[1:]
path = f"{folder}/run.zarr"
definition = dict(chains=1, draws=3, posterior={"x": zt.Var()})

def old():
    with zt.create(path, **definition, overwrite=True).writer(0) as writer:
        writer.record_block({"x": np.ones(3)})
    if operation == "adopt":
        zt.open(path, "a").finish()
    # The system says in ticks of 10 ms which process began before the trace.
    time.sleep(0.02)

def do():
    if operation == "adopt":
        zt.from_datatree(path, path, overwrite=True)
    else:
        zt.create(path, **definition, overwrite=operation == "overwrite")

def killed_at(step):
    child = os.fork()
    if child == 0:
        done = 0
        def hook(event, arguments):
            nonlocal done
            writes = event in ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link") or (
                event == "open" and isinstance(arguments[2], int) and arguments[2] & os.O_CREAT)
            if writes and folder in str(arguments[0]):
                if done == step:
                    os._exit(9)
                done += 1
        sys.addaudithook(hook)
        do()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

steps = range(0, 10**6, 1 if operation != "adopt" else 11)
for step in steps:
    if operation != "create":
        old()
    code = killed_at(step)
    assert code in (0, 9), code
    if operation == "create":
        try:
            found = zt.open(path)
        except zt.errors.TraceNotFoundError:
            assert code == 9
        else:
            assert found.recorded.tolist() == [0]
    else:
        found = zt.open(path)
        kept = found.recorded.tolist() == [3] and found.get("x").tolist() == [[1.0] * 3]
        assert kept or (operation == "overwrite" and found.recorded.tolist() == [0]), found.recorded
        damages = [str(damage) for damage in found.check()]
        assert all(".partial" in damage for damage in damages), damages
    again = zt.create(path, **definition, overwrite=True)
    with again.writer(0) as writer:
        writer.record_block({"x": np.zeros(3)})
    assert again.get("x").tolist() == [[0.0] * 3]
    assert os.listdir(folder) == ["run.zarr"], os.listdir(folder)
    if operation == "create":
        import shutil
        shutil.rmtree(path)
    if code == 0:
        print(step)
        break
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.once("newest")
@pytest.mark.parametrize("operation", ["create", "overwrite", "adopt"])
def test_killed_at_each_step_it_is_the_old_trace_or_the_new_one(
    tmp_path: Path, script: Any, operation: str
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    assert int(script.run(_KILLS, folder, operation, timeout=600)) > 20


def test_what_a_killed_process_wrote_in_place_is_not_an_obstacle(tmp_path: Path) -> None:
    path = tmp_path / "run.zarr"
    for stop in range(1, 4):
        path.mkdir()  # an empty directory is filled where it is
        made = []

        class Killed(BaseException):
            pass

        def die(*_: Any, made: list[int] = made, stop: int = stop) -> None:
            made.append(1)
            if len(made) == stop:
                raise Killed

        with pytest.MonkeyPatch.context() as patch:
            real = zt.store.location.write_file
            patch.setattr(zt.store.location, "write_file", lambda *a, real=real: (die(), real(*a)))
            with pytest.raises(Killed):
                zt.create(path, **GOOD)
        assert record(zt.create(path, **GOOD), 1.0).recorded.tolist() == [3]
        shutil.rmtree(path)


# At once --------------------------------------------------------------------------------------

_RANKS = """
import multiprocessing, sys
import zarrtrace as zt

def rank(path, number, gate, said, options):
    gate.wait()
    try:
        trace = zt.create(path, chains=4, draws=20, posterior={"x": zt.Var()}, **options)
        with trace.writer(number) as writer:
            for i in range(20):
                writer.record({"x": float(i)})
        said.put((number, "recorded"))
    except zt.errors.TraceError as error:
        said.put((number, type(error).__name__))
    except BaseException as error:
        said.put((number, f"bare {type(error).__name__}: {error}"))

if __name__ == "__main__":
    import warnings
    warnings.simplefilter("ignore", DeprecationWarning)
    context = multiprocessing.get_context("fork")
    for options in ({}, {"overwrite": True}, {"if_exists": "open"}):
        for number in range(6):
            path = f"{sys.argv[1]}/{number}{''.join(options)}.zarr"
            if number % 2 and "overwrite" in options:
                zt.create(path, chains=1, draws=2, posterior={"y": zt.Var()})
            said, gate = context.Queue(), context.Barrier(4)
            ranks = [context.Process(target=rank, args=(path, i, gate, said, options))
                     for i in range(4)]
            for process in ranks:
                process.start()
            found = dict(said.get(timeout=120) for _ in ranks)
            for process in ranks:
                process.join()
            recorded = zt.open(path).recorded
            told = sorted(found.values())
            if "if_exists" in options:
                assert told == ["recorded"] * 4, told
            assert set(told) <= {"recorded", "TraceExistsError", "ChainBusyError"}, told
            assert "recorded" in told
            for i, what in found.items():
                assert recorded[i] == 20 * (what == "recorded"), (found, recorded)
    print("well")
"""


@pytest.mark.once("oldest")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_processes_that_all_create_are_told_or_join(tmp_path: Path, script: Any) -> None:
    assert script.run(_RANKS, tmp_path) == "well\n"


_LATE = """
import os
late = False
go_on, tell = os.pipe()
os.register_at_fork(after_in_child=lambda: late and os.read(go_on, 1))  # before zarrtrace's own
import sys, warnings
import zarrtrace as zt
warnings.simplefilter("ignore", DeprecationWarning)

def rank():
    process = os.fork()
    if process == 0:
        try:
            trace = zt.create(
                sys.argv[1], chains=1, draws=1, posterior={"x": zt.Var()}, overwrite=True
            )
            with trace.writer(0) as writer:
                writer.record({"x": 1.0})
            os._exit(1)
        except zt.errors.TraceExistsError:
            os._exit(2)
    return process

late = True
slow = rank()
late = False
ended = []
for process in (rank(), slow):
    ended.append(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]))
    os.write(tell, b"!")
print(ended, zt.open(sys.argv[1]).recorded)
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="Linux tells when it began")
@pytest.mark.once("newest")
def test_a_process_that_begins_slowly_overwrites_no_trace_of_its_job(
    tmp_path: Path, fresh_script: Any
) -> None:
    """On a machine with much to do, it first runs when another one has made the trace."""
    assert fresh_script.run(_LATE, tmp_path / "run.zarr") == "[1, 2] [1]\n"


def test_a_trace_of_the_same_definition_is_opened(fast_place: Any) -> None:
    record(fast_place.create(**GOOD), 2.0)
    assert fast_place.create(**GOOD, if_exists="open").get("x").tolist() == [[2.0] * 3]
    others = ({"draws": 4}, {"chains": 2}, {"posterior": {"x": zt.Var(shape=2)}}, {"tune": 1})
    for other in others:
        with pytest.raises(TraceExistsError, match="has other"):
            fast_place.create(**{**GOOD, **other}, if_exists="open")
    with pytest.raises(InvalidInputError, match="if_exists"):
        fast_place.create(**GOOD, if_exists="open", overwrite=True)
    with pytest.raises(InvalidInputError, match="if_exists"):
        fast_place.create(**GOOD, if_exists="w")


# Two at once, where nothing is locked -----------------------------------------------------------

_CHANGES = ("create", "write", "write_many", "delete", "delete_many", "delete_tree")


@contextmanager
def meanwhile(step: int, act: Callable[[], object]) -> Iterator[list[int]]:
    """Do something before the step-th change of a store; yields how many there were."""
    done = [0]

    def acting(real: Any) -> Any:
        def method(*arguments: Any, **options: Any) -> Any:
            done[0] += 1
            if done[0] == step:
                done[0] += 10**6  # what is done in between is not counted
                act()
                done[0] -= 10**6
            return real(*arguments, **options)

        return method

    with pytest.MonkeyPatch.context() as patch:
        for name in _CHANGES:
            patch.setattr(Location, name, acting(getattr(Location, name)))
        yield done


def killed(*_: Any) -> None:
    raise Killed


@pytest.mark.once("newest")
@pytest.mark.parametrize("start", ["unfinished", "replacement", "trace"])
def test_one_of_two_replaces_what_both_found(
    objects: Place, start: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The other process stands still, since it is the same one.
    monkeypatch.setattr(place, "_PATIENCE", 0.1)
    options = {} if start == "unfinished" else {"overwrite": True}
    if start != "unfinished":
        record(objects.create(**GOOD), 1.0)
    with pytest.MonkeyPatch.context() as patch:
        if start == "unfinished":
            # The first creator dies half-way.
            with pytest.raises(Killed), killed_at(3, patch):
                objects.create(**GOOD)
        elif start == "replacement":
            # It dies when the new trace is built in the store, and the old one is to be removed.
            tree = objects.open().to_datatree().load()
            patch.setattr(place, "_remove_others", killed)
            with pytest.raises(Killed):
                zt.from_datatree(tree, objects.store, overwrite=True)
    put_back = put_back_at(objects)
    made: list[float] = []

    def create(value: float, step: int | None = None) -> bool:
        """Create it and record, unless another process makes it; whether a step was reached."""
        with meanwhile(step or 0, lambda: create(2.0)) as done:
            try:
                trace = objects.create(**GOOD, **options)
            except (TraceExistsError, ChainBusyError):
                return done[0] >= (step or 0)
        record(trace, value)
        made.append(value)
        return done[0] >= (step or 0)

    winners = set()
    for step in itertools.count(1, 3):
        put_back()
        made.clear()
        if not create(3.0, step):
            break
        # One is told, or finds the trace that the other one has made, and overwrites that.
        assert len(made) <= 1 + (start == "replacement"), (step, made)
        assert objects.open().get("x").tolist() == [made[-1:] * 3], step
        assert not objects.open().check()
        winners.add(made[-1])
    assert winners == ({3.0} if start == "replacement" else {2.0, 3.0})


# Links ----------------------------------------------------------------------------------------


def test_a_link_to_a_trace_is_followed_and_stays(tmp_path: Path) -> None:
    real, link = tmp_path / "scratch" / "run.zarr", tmp_path / "run.zarr"
    record(zt.create(real, **GOOD), 1.0)
    link.symlink_to(real)
    assert zt.create(link, **GOOD, overwrite=True).recorded.tolist() == [0]
    assert link.is_symlink()
    assert zt.open(real).recorded.tolist() == [0]
    record(zt.open(link, "a"), 5.0).finish()
    trace = zt.from_datatree(link, link, overwrite=True)
    assert link.is_symlink()
    assert trace.get("x").tolist() == zt.open(real).get("x").tolist() == [[5.0] * 3]
    assert not beside(real)
    assert not beside(link)
    shutil.rmtree(real)
    assert zt.create(link, **GOOD).recorded.tolist() == [0]
    assert link.is_symlink()


@pytest.mark.parametrize("what", ["split_warmup", "finish", "drop_before", "repair", "overwrite"])
def test_a_link_inside_a_trace_leads_nobody_to_another_one(tmp_path: Path, what: str) -> None:
    paths = [tmp_path / "a.zarr", tmp_path / "b.zarr"]
    definition: dict[str, Any] = {
        "chains": 1, "draws": 10, "tune": 4,
        "posterior": {"mu": zt.Var(draws_per_chunk=3), "b": zt.Var()},
    }  # fmt: skip
    for path in paths:
        with zt.create(path, **definition).writer(0) as writer:
            writer.record_block({"mu": np.arange(14.0), "b": np.ones(14)})
    theirs, ours = paths
    (theirs / "posterior/mu/c.0.0.0123.partial").write_bytes(b"")
    shutil.rmtree(ours / "posterior/mu")
    (ours / "posterior/mu").symlink_to(theirs / "posterior/mu")
    before = {file: file.read_bytes() for file in theirs.rglob("*") if file.is_file()}
    if what == "overwrite":
        zt.create(ours, **GOOD, overwrite=True)
    else:
        call = getattr(zt.open(ours, "a"), what)
        with pytest.raises(NotWritableError, match="posterior/mu is a link to"):
            call(*([6] if what == "drop_before" else []))
        assert zt.open(ours).get("b").shape == (1, 10)
    assert {file: file.read_bytes() for file in theirs.rglob("*") if file.is_file()} == before


def test_a_heartbeat_does_not_bring_a_removed_trace_back(directory: Any) -> None:
    writer = directory.create(**GOOD).writer(0)
    shutil.rmtree(directory.path)
    writer._beat()
    assert not directory.path.exists()
    assert record(directory.create(**GOOD), 3.0).recorded.tolist() == [3]
    writer._release()
