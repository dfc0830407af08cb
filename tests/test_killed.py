"""A split or a finish that is killed anywhere: nothing is lost, and the next one completes it.

A script splits a trace in a child process, over and over; an audit hook kills that child with
SIGKILL just before its first change to a file, then before its second, and so on, until it is
through. After each kill another child reads the trace, completes it, and reads it again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import Script

SCRIPT = """
import os, shutil, signal, sys, traceback
from itertools import count
from pathlib import Path

import dask.array  # what xarray would import in each child anew
import xarray as xr
import xarray.backends.zarr
from zarr.storage import LocalStore, WrapperStore

import zarrtrace as zt
import zarrtrace.view
from conftest import Encoded

kind, scenario = sys.argv[1:]
prepared, path = Path("prepared.zarr"), Path("run.zarr")
encoded = Encoded()
encoded.groups = {"posterior": encoded.groups["posterior"]}

# What is done to a trace of 4 + 8 draws before, what may be killed, where the warmup ends.
BEFORE, KILLED, OLD, NEW, STOP = {
    "split": ([], lambda trace: trace.split_warmup(), 4, 4, 12),
    "unaligned split": ([], lambda trace: trace.split_warmup(7), 4, 7, 10),
    "split again": ([zt.Trace.split_warmup], lambda trace: trace.split_warmup(6), 4, 6, 11),
    "split undone": ([zt.Trace.split_warmup], lambda trace: trace.split_warmup(0), 4, 0, 11),
    "finish": ([], zt.Trace.finish, 4, 4, 10),
    "finish after a split": ([zt.Trace.split_warmup], zt.Trace.finish, 4, 4, 12),
    "split of a finished trace": ([zt.Trace.finish], lambda trace: trace.split_warmup(8), 4, 8, 10),
}[scenario]


def store(place):
    # Without a path, keys cannot be renamed, only copied.
    return place if kind == "directory" else WrapperStore(LocalStore(place))


def forked(work):
    child = os.fork()
    if not child:
        try:
            work()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def prepare():
    trace = encoded.create(store(prepared), chains=2, tune=4, draws=8, observed_data={"y": 1.0})
    encoded.fill(trace, 12, STOP)
    for step in BEFORE:
        step(trace)


def kill_before(change):
    changes = count(1)

    def hook(event, arguments):
        if event == "open":
            changed = arguments[2] & (os.O_WRONLY | os.O_RDWR)
        else:
            changed = event in ("os.rename", "os.remove", "os.rmdir", "os.link", "os.mkdir")
        if changed and "run.zarr" in str(arguments[0]) and next(changes) == change:
            os.kill(os.getpid(), signal.SIGKILL)

    trace = zt.open(store(path), "a")
    sys.addaudithook(hook)
    KILLED(trace)


def check(trace, *allowed):
    posterior = trace.posterior
    at = posterior.attrs["tuning_steps"]
    assert at in allowed, (at, allowed)
    encoded.check(posterior, at, STOP)
    assert ("warmup_posterior" in trace) == bool(at)
    if at:
        encoded.check(trace["warmup_posterior"], 0, at)
    for chain in range(2):
        alone = zt.open(store(path)).dataset("posterior", chains=chain)
        encoded.check(alone, at, (12, STOP)[chain], chains=[chain])


def check_all():
    check(zt.open(store(path)), OLD, NEW)
    trace = zt.open(store(path), "a")
    check(trace, OLD, NEW)
    if trace.finished:
        check(xr.open_datatree(path, engine="zarr"), OLD, NEW)
    KILLED(trace)
    check(trace, NEW)
    trace.finish()
    check(trace, NEW)
    check(zt.open(store(path)), NEW)
    check(xr.open_datatree(path, engine="zarr"), NEW)
    left = [str(file) for file in path.rglob("*") if "split" in str(file) or "journal" in str(file)]
    assert not left, left


assert forked(prepare) == 0
for change in count(1):
    shutil.rmtree(path, ignore_errors=True)
    shutil.copytree(prepared, path)
    code = forked(lambda: kill_before(change))
    assert code in (0, -signal.SIGKILL), code
    assert forked(check_all) == 0, f"killed before change {change}"
    if code == 0:
        print(change)
        break
"""

SCENARIOS = [
    "split",
    "unaligned split",
    "split again",
    "split undone",
    "finish",
    "finish after a split",
    "split of a finished trace",
]


@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.parametrize("kind", ["directory", "copies"])
def test_killed_anywhere_nothing_is_lost(script: Script, kind: str, scenario: str) -> None:
    assert int(script.run(SCRIPT, kind, scenario)) > 10
