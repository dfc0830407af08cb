"""Disks that lack something, and processes that have few descriptors: recording continues."""

from __future__ import annotations

import errno
import fcntl
import gc
import itertools
import mmap
import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scripts import Script

import zarrtrace as zt
from zarrtrace.errors import ChainBusyError, NotWritableError, TraceError
from zarrtrace.layout.hierarchy import Hierarchy
from zarrtrace.layout.layout import Layout
from zarrtrace.sampling_state import journal_file, journal_header
from zarrtrace.store.location import Location

GOOD: dict[str, Any] = {"chains": 2, "draws": 6, "tune": 2, "posterior": {"x": zt.Var()}}
NO_LOCKS = [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL, errno.EPERM, 524]


def failing(number: int) -> Callable[..., Any]:
    def call(*_: Any, **__: Any) -> Any:
        raise OSError(number, os.strerror(number))

    return call


@pytest.fixture(autouse=True)
def warn_again() -> None:
    journal_file._warn_once.cache_clear()


def descriptors() -> int:
    gc.collect()  # what earlier tests left must not be closed in between
    return len(os.listdir("/proc/self/fd"))


def record_all(trace: zt.Trace) -> None:
    for chain in range(2):
        with trace.writer(chain) as writer:
            for draw in range(8):
                writer.record({"x": 10.0 * chain + draw})
                if draw == 3:
                    writer.checkpoint({"draw": draw})


def check(trace: zt.Trace) -> None:
    assert trace.recorded.tolist() == [8, 8]
    assert trace.get("x").tolist() == [[2.0, 3, 4, 5, 6, 7], [12.0, 13, 14, 15, 16, 17]]
    assert not trace.check()


@pytest.mark.once("newest")
@pytest.mark.parametrize("number", NO_LOCKS)
def test_without_locks_it_records_and_says_once_what_that_costs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: Script, number: int
) -> None:
    monkeypatch.setattr(fcntl, "flock", failing(number))
    trace = zt.create(tmp_path / "run.zarr", **GOOD)
    before = descriptors()
    with pytest.warns(RuntimeWarning, match="has no locks") as caught:
        record_all(trace)
    assert len(caught) == 1
    assert descriptors() == before
    check(trace)
    with trace.writer(0):
        said = script.run(
            """
            import fcntl, sys, warnings
            import zarrtrace as zt

            def missing(*_):
                raise OSError(int(sys.argv[2]), "missing")

            fcntl.flock = missing
            warnings.simplefilter("ignore")
            try:
                zt.open(sys.argv[1], "a").writer(0)
            except zt.errors.ChainBusyError as error:
                print(error)
            """,
            trace.path,
            number,
        )
    assert f"by process {os.getpid()} on" in said
    trace.finish()
    check(trace)
    with zt.create(tmp_path / "run.zarr", **GOOD, overwrite=True).writer(0) as writer:
        writer.record({"x": 1.0})


@pytest.mark.filterwarnings("ignore:.*has no locks")
@pytest.mark.parametrize("locks", [True, False])
def test_a_full_chunk_asks_once_whose_trace_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, locks: bool
) -> None:
    if not locks:
        monkeypatch.setattr(fcntl, "flock", failing(errno.ENOLCK))
    posterior = {"x": zt.Var(draws_per_chunk=3)}
    trace = zt.create(tmp_path / "run.zarr", chains=1, draws=9, posterior=posterior)
    asked, stamp = [], Location.stamp

    def counting(location: Location, key: str) -> Any:
        asked.append(key)
        return stamp(location, key)

    with trace.writer(0) as writer:
        writer.record({"x": 0.0})
        writer.record({"x": 1.0})
        monkeypatch.setattr(Location, "stamp", counting)
        writer.record({"x": 2.0})
        assert asked == ["_sampling_state/zarr.json"]


@pytest.mark.once("newest")
@pytest.mark.parametrize("number", [errno.ENODEV, errno.EINVAL])
def test_without_mappings_draws_wait_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    trace = zt.create(tmp_path / "run.zarr", **GOOD)
    before = descriptors()
    monkeypatch.setattr(mmap, "mmap", failing(number))
    with pytest.warns(RuntimeWarning, match="cannot map files") as caught:
        record_all(trace)
    assert len(caught) == 1
    assert descriptors() == before
    check(trace)
    with trace.writer(0) as writer:
        assert writer.resume()[0] == 8
        with pytest.raises(ChainBusyError):
            trace.finish()
    trace.finish()
    check(trace)
    assert not list((tmp_path / "run.zarr").rglob("*.partial"))


def test_a_journal_that_cannot_be_mapped_here_keeps_its_draws(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace = zt.create(tmp_path / "run.zarr", **GOOD)
    writer = trace.writer(0)
    writer.record({"x": 1.0})
    writer._release()
    with monkeypatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        patch.setattr(mmap, "mmap", failing(errno.ENODEV))
        with pytest.raises(NotWritableError, match="on its original disk"):
            trace.writer(0)
    with trace.writer(0) as writer:
        assert writer.resume()[0] == 1


@pytest.mark.once("newest")
@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK])
@pytest.mark.parametrize("renames", ["with flags", "plainly"])
def test_without_hard_links_it_records_and_splits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, renames: str
) -> None:
    monkeypatch.setattr(os, "link", failing(number))
    if renames == "plainly":
        monkeypatch.setattr("zarrtrace.store.local.rename_with", lambda *_: False)
        monkeypatch.setattr("zarrtrace.store.beside.rename_with", lambda *_: False)
    trace = zt.create(tmp_path / "run.zarr", **GOOD)
    record_all(trace)
    trace.finish()
    check(trace)
    trace = zt.create(tmp_path / "run.zarr", **GOOD, overwrite=True)
    record_all(trace)
    check(trace)
    assert os.listdir(tmp_path) == ["run.zarr"]


def test_without_reserved_room_it_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "posix_fallocate", failing(errno.EOPNOTSUPP))
    trace = zt.create(tmp_path / "run.zarr", **GOOD)
    record_all(trace)
    check(trace)


def steps(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Lets the first call that opening a writer makes fail, then the second, and so on."""
    for step in itertools.count():
        called: list[str] = []
        with monkeypatch.context() as patch:
            for owner, name in (
                (Location, "read"), (Location, "_put"), (mmap, "mmap"), (fcntl, "flock"),
                (os, "fstat"), (os, "pwrite"), (journal_header, "boot_id"),
            ):  # fmt: skip
                found = getattr(owner, name)

                def call(
                    *arguments: Any,
                    real: Any = found,
                    name: str = name,
                    called: list[str] = called,
                    step: int = step,
                    **options: Any,
                ) -> Any:
                    called.append(name)
                    if len(called) == step + 1:
                        raise OSError(errno.EIO, "Input/output error")
                    return real(*arguments, **options)

                patch.setattr(owner, name, call)
            yield patch
        if len(called) <= step:
            assert step > 5
            return


@pytest.mark.once("newest")
@pytest.mark.parametrize("has_journal", [False, True])
def test_an_error_while_a_writer_is_opened_leaves_the_chain_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_journal: bool
) -> None:
    path = tmp_path / "run.zarr"
    trace = zt.create(path, **GOOD)
    with trace.writer(0) as writer:
        writer.record({"x": 1.0})
    if not has_journal:
        next(path.rglob("journal/c.0.0")).unlink()
    gc.collect()
    before = descriptors()
    for patch in steps(monkeypatch):
        try:
            writer = trace.writer(0)
        except (OSError, TraceError) as error:
            held = error  # as a notebook keeps it, and with it all its frames
            patch.undo()
            trace.writer(0)._release()
            assert "Input/output error" in str(held)
            del held
        else:
            patch.undo()
            writer._release()
        if not has_journal:
            next(path.rglob("journal/c.0.0")).unlink()
    gc.collect()  # a mapping keeps a descriptor, though no lock, as long as an error keeps it
    assert descriptors() == before


@pytest.mark.once("newest")
def test_few_descriptors_are_enough_for_many_chains(tmp_path: Path, script: Any) -> None:
    code = """
import os, resource, sys
import zarrtrace as zt
trace = zt.create(sys.argv[1], chains=80, draws=4, posterior={"x": zt.Var()})
def record(*values):
    for chain in range(80):
        with trace.writer(chain) as writer:
            writer.resume()
            for value in values:
                writer.record({"x": value})
record(0.0, 1.0, 2.0, 3.0)
resource.setrlimit(resource.RLIMIT_NOFILE, (60, 60))
before = len(os.listdir("/proc/self/fd"))
trace.extend(1)
record(4.0)
trace.split_warmup(1)
trace.finish()
assert len(os.listdir("/proc/self/fd")) == before
trace.drop_before(2)
print(trace.get("x").tolist() == [[2.0, 3.0, 4.0]] * 80, trace.check())
"""
    assert script.run(code, tmp_path / "run.zarr") == "True []\n"


def test_a_chain_that_is_recorded_is_seen_before_the_arrays_are_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace = zt.create(tmp_path / "run.zarr", **GOOD)
    record_all(trace)
    real = Hierarchy.change
    writers = []

    def change(self: Hierarchy, layout: Layout) -> None:
        # Another writer opens when all were flushed, before the layout is changed.
        if not writers:
            writers.append(zt.open(trace.path, "a").writer(1))
        real(self, layout)

    monkeypatch.setattr(Hierarchy, "change", change)
    with pytest.raises(ChainBusyError, match="chain 1"):
        trace.split_warmup()
    writers.pop().close()
    assert trace.split_groups == ()
    assert np.array_equal(trace.get("x", chains=0)[0], np.arange(2.0, 8.0))
