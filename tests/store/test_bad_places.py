"""A place that is not a trace, or not ours to write, is named, and nothing there is touched."""

from __future__ import annotations

import copy
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from zarr.storage import LocalStore, MemoryStore, ZipStore

import zarrtrace as zt
from zarrtrace.errors import (
    ChainBusyError,
    ChainsFailedError,
    InvalidInputError,
    NotShareableError,
    NotWritableError,
    TraceError,
    TraceExistsError,
    TraceNotFoundError,
)

GOOD: dict[str, Any] = {"chains": 2, "draws": 3, "posterior": {"x": zt.Var()}}


def files_of(directory: Path) -> dict[str, bytes]:
    """Every file below a directory, or of a file itself, with its content."""
    if directory.is_file():
        return {"": directory.read_bytes()}
    files = [path for path in directory.rglob("*") if path.is_file()]
    return {str(path.relative_to(directory)): path.read_bytes() for path in files}


def recorded_trace(place: Any) -> zt.Trace:
    """A trace with two draws of chain 0."""
    trace: zt.Trace = place.create(**GOOD)
    with trace.writer(0) as writer:
        writer.record_block({"x": [1.0, 2.0]})
    return trace


# Something is there ---------------------------------------------------------------------------


def test_an_existing_trace_is_overwritten_only_when_asked(place: Any) -> None:
    recorded_trace(place)
    with pytest.raises(TraceExistsError, match=r"mode='a'.*overwrite=True") as caught:
        place.create(**GOOD)
    assert isinstance(caught.value, FileExistsError)
    assert place.open().get("x", chains=0).tolist() == [[1.0, 2.0]]
    trace = place.create(**{**GOOD, "posterior": {"y": zt.Var(dtype="int32")}}, overwrite=True)
    assert trace.recorded.tolist() == [0, 0]
    assert list(place.open().posterior) == ["y"]


def test_a_definition_that_is_refused_overwrites_nothing(directory: Any) -> None:
    recorded_trace(directory)
    before = files_of(directory.path)
    for wrong in ({"chains": 0}, {"posterior": {"a/b": zt.Var()}}, {"attrs": {"a": None}}):
        with pytest.raises(InvalidInputError):
            directory.create(**{**GOOD, **wrong}, overwrite=True)
    assert files_of(directory.path) == before


def test_a_trace_that_another_process_records_is_not_overwritten(
    directory: Any, script: Any
) -> None:
    trace = directory.create(**GOOD)
    code = """
        import sys
        import zarrtrace as zt
        with zt.open(sys.argv[1], "a").writer(1) as writer:
            writer.record({"x": 1.0})
            print("ready", flush=True)
            sys.stdin.read()
            writer.record({"x": 2.0})
    """
    process = script.start(code, directory.path)
    assert process.stdout.readline() == "ready\n"
    with pytest.raises(ChainBusyError, match="chain 1") as caught:
        directory.create(**GOOD, overwrite=True)
    assert caught.value.chain == 1
    _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert trace.get("x", chains=1).tolist() == [[1.0, 2.0]]


def foreign_files(path: Path) -> None:
    path.mkdir()
    (path / "thesis.tex").write_text("years of work")


def foreign_group(path: Path) -> None:
    zarr.open_group(str(path), mode="w").create_array("x", data=np.ones(3))


def foreign_sampling_state(path: Path) -> None:
    zarr.open_group(str(path), mode="w").create_group("_sampling_state")


def export_of_a_trace(path: Path) -> None:
    trace = zt.create(None, **GOOD)
    for chain in range(2):
        with trace.writer(chain) as writer:
            writer.record_block({"x": [1.0, 2.0, 3.0]})
    trace.to_datatree().to_zarr(path, consolidated=False)


def file_of_anything(path: Path) -> None:
    path.write_text("not a directory")


@pytest.mark.parametrize(
    "make",
    [foreign_files, foreign_group, foreign_sampling_state, export_of_a_trace, file_of_anything],
)
def test_what_is_not_a_trace_is_never_opened_or_removed(
    directory: Any, make: Callable[[Path], None]
) -> None:
    make(directory.path)
    before = files_of(directory.path)
    for mode in ("r", "a"):
        with pytest.raises(TraceNotFoundError, match=str(directory.path)) as caught:
            directory.open(mode)
        assert isinstance(caught.value, FileNotFoundError)
    for overwrite in (False, True):
        with pytest.raises((TraceExistsError, TraceNotFoundError), match=str(directory.path)):
            directory.create(**GOOD, overwrite=overwrite)
    assert files_of(directory.path) == before


def test_other_keys_of_a_store_are_never_removed() -> None:
    store = MemoryStore()
    zarr.open_group(store, mode="w").create_array("x", data=np.ones(3))
    with pytest.raises(TraceExistsError, match="removes only traces"):
        zt.create(store, **GOOD, overwrite=True)
    assert zarr.open_group(store, mode="r")["x"][...].tolist() == [1.0] * 3


def test_a_creation_that_was_killed_may_be_overwritten(directory: Any) -> None:
    directory.create(**GOOD)
    # The last thing that `create` writes is the layout in this document.
    document = directory.path / "_sampling_state" / "zarr.json"
    document.write_text('{"zarr_format": 3, "node_type": "group", "attributes": {}}')
    with pytest.raises(TraceNotFoundError):
        directory.open()
    assert directory.create(**GOOD, overwrite=True).recorded.tolist() == [0, 0]


def test_an_empty_directory_is_a_place_for_a_trace(directory: Any) -> None:
    directory.path.mkdir()
    with pytest.raises(TraceNotFoundError, match="is the path right"):
        directory.open()
    assert recorded_trace(directory).recorded.tolist() == [2, 0]


# Nothing is there -----------------------------------------------------------------------------


def test_a_place_where_nothing_is_cannot_be_opened(place: Any) -> None:
    with pytest.raises(TraceNotFoundError):
        place.open()
    with pytest.raises(TraceNotFoundError):
        place.open("a")
    if place.kind == "directory":
        assert not place.path.exists()


@pytest.mark.parametrize("do", [zt.open, lambda url: zt.create(url, **GOOD)])
def test_an_unknown_kind_of_url(do: Any) -> None:
    with pytest.raises(TraceNotFoundError, match=r"nowhere://run\.zarr cannot be opened"):
        do("nowhere://run.zarr")


def test_a_zip_file_is_not_written_to(directory: Any, tmp_path: Path) -> None:
    trace = directory.create(chains=1, draws=1, posterior={"mu": 0.0})
    with trace.writer(0) as writer:
        writer.record({"mu": 1.0})
    trace.finish()
    zipped = shutil.make_archive(str(tmp_path / "run"), "zip", directory.path)
    for place in (zipped, ZipStore(zipped, mode="r")):
        assert zt.open(place).get("mu").tolist() == [[1.0]]
        with pytest.raises(NotWritableError, match="can only be read"):
            zt.open(place, "a")
    with pytest.raises(NotWritableError, match="unpack it"):
        zt.create(zipped, chains=1, draws=1, posterior={"mu": 0.0}, overwrite=True)


@pytest.mark.parametrize("content", [b"no zip at all", None], ids=["no zip", "another zip"])
def test_a_zip_file_that_is_not_a_trace_is_not_opened(
    tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "run.zip"
    if content is None:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a.txt", "b")
    else:
        path.write_bytes(content)
    with pytest.raises(TraceNotFoundError, match="is the path right"):
        zt.open(path)


@pytest.mark.parametrize("mode", ["w", "r+", "x", "", None, 1])
def test_a_mode_is_r_or_a(directory: Any, mode: Any) -> None:
    recorded_trace(directory)
    with pytest.raises(InvalidInputError, match=r"mode is 'r' or 'a', got .*zarrtrace.create"):
        directory.open(mode)


@pytest.mark.parametrize("store", [5, 1.5, b"run.zarr", ["run.zarr"]], ids=repr)
def test_a_trace_lives_in_a_path_or_a_store(store: Any) -> None:
    for make in (lambda: zt.open(store), lambda: zt.create(store, **GOOD)):
        with pytest.raises(InvalidInputError, match="the place of a trace is a path"):
            make()


def test_storage_options_go_with_a_url(directory: Any) -> None:
    options = {"key": "secret"}
    for store in (directory.path, MemoryStore()):
        with pytest.raises(InvalidInputError, match="storage_options is only for a URL"):
            zt.create(store, **GOOD, storage_options=options)


@pytest.mark.parametrize("kind", [LocalStore, MemoryStore])
def test_a_store_that_is_read_only_is_not_written(tmp_path: Path, kind: Any) -> None:
    store = LocalStore(tmp_path / "run.zarr") if kind is LocalStore else MemoryStore()
    zt.create(store, **GOOD)
    locked = store.with_read_only(True)
    assert zt.open(locked).recorded.tolist() == [0, 0]
    with pytest.raises(NotWritableError, match="mode='r'"):
        zt.open(locked, "a")
    with pytest.raises(NotWritableError):
        zt.create(locked, **GOOD, overwrite=True)


# Other processes ------------------------------------------------------------------------------

_SCRIPT = """
import os, sys, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # a fork beside zarr's own thread
import zarrtrace as zt
from zarrtrace.errors import TraceError

def attempt(do):
    try:
        do()
    except TraceError as error:
        print(type(error).__name__, error.chain, error, flush=True)
    else:
        print("no error", flush=True)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_cannot_write_what_is_its_parents(tmp_path: Path, script: Any) -> None:
    body = """
definition = dict(chains=2, draws=3, posterior={"x": zt.Var()})
memory = zt.create(None, **definition)
local = zt.create(sys.argv[1], **definition)
writers = [memory.writer(0), local.writer(0)]
for writer in writers:
    writer.record({"x": 1.0})
child = os.fork()
if child == 0:
    attempt(lambda: memory.writer(1))
    for writer in writers:
        attempt(lambda: writer.record({"x": 9.0}))
        attempt(writer.flush)
    attempt(lambda: local.writer(0))
    os._exit(0)
os.waitpid(child, 0)
for writer in writers:
    writer.record({"x": 2.0})
    writer.close()
print(memory.get("x", chains=0).tolist(), local.get("x", chains=0).tolist())
"""
    lines = script.run(_SCRIPT + body, tmp_path / "run.zarr").splitlines()
    assert lines[0].startswith("NotShareableError None this is a forked copy of a trace in memory")
    assert len(lines) == 7
    for line in lines[1:5]:
        assert line.startswith("NotWritableError 0 chain 0 ")
        assert "belongs to the parent process" in line
    assert lines[5].startswith("ChainBusyError 0 chain 0")
    assert lines[6] == "[[1.0, 2.0]] [[1.0, 2.0]]"


def test_a_trace_in_memory_is_not_sent_to_other_processes(memory: Any) -> None:
    trace = recorded_trace(memory)
    with pytest.raises(NotShareableError, match=r"create it with a path .*or use threads"):
        pickle.dumps(trace)
    with pytest.raises(NotShareableError, match="create it with a path"):
        copy.deepcopy(trace)
    with pytest.raises(NotShareableError, match="ThreadPoolExecutor"):
        zt.run(print, trace, progress=False)
    with pytest.raises(InvalidInputError, match="opened by the Trace that create returned"):
        zt.open(None)

    def chain(number: int, trace: zt.Trace) -> None:
        with trace.writer(number) as writer:
            for i in range(writer.resume()[0], 3):
                writer.record({"x": i + 1.0})

    with ThreadPoolExecutor(1) as executor:
        zt.run(chain, trace, executor=executor, progress=False)
    assert trace.get("x").tolist() == [[1.0, 2.0, 3.0]] * 2


# The errors themselves ------------------------------------------------------------------------


def every_error(base: type[TraceError] = TraceError) -> list[type[TraceError]]:
    return [base, *(found for child in base.__subclasses__() for found in every_error(child))]


@pytest.mark.parametrize("kind", every_error())
def test_an_error_comes_back_from_another_process_with_its_place(kind: type[TraceError]) -> None:
    error = kind("what happened", **({} if kind is ChainsFailedError else PLACE))
    error.add_note("a note")
    found = pickle.loads(pickle.dumps(error))
    assert type(found) is kind
    assert (str(found), found.__notes__) == ("what happened", ["a note"])
    for name, value in PLACE.items():
        assert getattr(found, name) == (None if kind is ChainsFailedError else value)


PLACE: dict[str, Any] = {"group": "posterior", "variable": "mu", "chain": 3, "draw": 17}


def test_the_failures_of_chains_come_back_too() -> None:
    error = pickle.loads(pickle.dumps(ChainsFailedError("two failed", {0: "why", 2: "how"})))
    assert (str(error), error.failures) == ("two failed", {0: "why", 2: "how"})


# Traces inside --------------------------------------------------------------------------------


def finished_trace(path: Path) -> None:
    trace = zt.create(path, chains=1, draws=2, posterior={"x": zt.Var()})
    with trace.writer(0) as writer:
        writer.record_block({"x": [0.0, 1.0]})
    trace.finish()


@pytest.mark.once("newest")
@pytest.mark.parametrize("name", ["run.zarr", "group/run.zarr"])
def test_a_directory_or_a_zip_that_holds_one_trace_opens_as_that(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "folder"
    finished_trace(folder / name)
    archive = shutil.make_archive(str(tmp_path / "archive"), "zip", folder)
    for place in (folder, archive):
        assert zt.open(place).get("x").tolist() == [[0.0, 1.0]]
    assert zt.open(folder).path == str(folder / name)
    # To write on, the trace is named.
    with pytest.raises(TraceNotFoundError, match=f"holds 1 trace: {name}; add"):
        zt.open(folder, "a")


@pytest.mark.once("newest")
def test_a_directory_that_holds_several_traces_says_which(tmp_path: Path) -> None:
    for number in range(12):
        finished_trace(tmp_path / f"run_{number:02}.zarr")
    (tmp_path / "notes.txt").write_text("nothing")
    says = r"holds 12 traces: run_00\.zarr, run_01.*, run_09\.zarr, \.\.\.; add one"
    with pytest.raises(TraceNotFoundError, match=says):
        zt.open(tmp_path)
