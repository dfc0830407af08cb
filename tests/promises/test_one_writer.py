"""One writer per chain: a second is refused, a dead one is replaced, a child corrupts nothing."""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import sys
import threading
import time
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Place
from scripts import FreshScript, Script

import zarrtrace as zt
from zarrtrace.recording import exit as ending
from zarrtrace.sampling_state import claim as claims
from zarrtrace.sampling_state.claim import Claim

DEFINITION: dict[str, Any] = {
    "chains": 2,
    "draws": 50,
    "posterior": {"mu": zt.Var(draws_per_chunk=10)},
}


# Opens the writer of chain 0.
WITH_WRITER = """
import os, signal, sys, time, warnings
import zarrtrace as zt
writer = zt.open(sys.argv[1], "a").writer(0)
writer.resume()
"""


def test_another_process_is_refused_and_one_that_was_killed_is_not_asked(
    directory: Place, script: Script
) -> None:
    trace = directory.create(**DEFINITION)
    code = """
writer.record({"mu": 7})
print("ready", flush=True)
time.sleep(60)
"""
    child = script.start(WITH_WRITER + code, directory.path)
    try:
        assert child.stdout.readline() == "ready\n"
        with pytest.raises(zt.errors.ChainBusyError, match=f"process {child.pid} on"):
            trace.writer(0)
        with pytest.raises(zt.errors.ChainBusyError):
            trace.writer(0, force=True)
        with pytest.raises(zt.errors.ChainBusyError):
            trace.split_warmup(0)
        with pytest.raises(zt.errors.ChainBusyError):
            trace.finish()
    finally:
        child.kill()
        child.communicate()
    with trace.writer(0) as writer:
        assert writer.resume() == (1, None)
    assert trace.recorded.tolist() == [1, 0]
    assert trace.get("mu", chains=0).tolist() == [[7.0]]


def far_away(**changed: Any) -> Claim:
    """The claim of a writer on another host."""
    own = Claim.new()
    elsewhere = replace(own, host="elsewhere", boot="of elsewhere", token=uuid.uuid4().hex)
    return replace(elsewhere, **changed)


@pytest.mark.once("oldest")
@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"host": platform.node(), "pid": 2**31 - 1},  # two machines may have one name
        {"beat": 0.0},  # its clock is decades behind
        {"beat": 1e11, "since": 1e11},
        {"boot": "", "pid_namespace": ""},  # of an earlier version
    ],
)
def test_a_writer_elsewhere_keeps_its_place_until_it_was_seen_to_be_silent(
    fast_place: Place, monkeypatch: pytest.MonkeyPatch, changed: dict[str, Any]
) -> None:
    trace = fast_place.create(**DEFINITION)
    claim = far_away(**changed)
    trace._block(0).write_claim(claim)
    for _ in range(2):
        with pytest.raises(zt.errors.ChainBusyError, match=r"patience=90.*force=True"):
            trace.writer(0)
    monkeypatch.setattr(claims, "STALE_AFTER", 0.0)
    trace.writer(0).close()
    monkeypatch.undo()
    trace._block(0).write_claim(replace(claim, token="other"))
    trace.writer(0, force=True).close()
    assert trace._block(0).claim is None


def test_a_dead_process_on_this_host_has_no_claim(fast_place: Place) -> None:
    trace = fast_place.create(**DEFINITION)
    own = Claim.new()
    recycled = replace(own, token="old", process_start=own.process_start - 1)
    trace._block(0).write_claim(recycled)
    trace.writer(0).close()


def test_a_writer_whose_place_was_taken_stops_before_it_harms(fast_place: Place) -> None:
    trace = fast_place.create(**DEFINITION)
    writer = trace.writer(0)
    writer.record({"mu": 1})
    writer.flush()
    trace._block(0).write_claim(far_away())
    with pytest.raises(zt.errors.ChainBusyError, match="it was taken over by process"):
        writer.flush()
    with pytest.raises(zt.errors.ChainBusyError):
        writer.record({"mu": 2})
    writer._release()
    held = trace._block(0).claim
    assert held is not None
    assert held.host == "elsewhere"


def test_the_heartbeat_keeps_the_claim_fresh_and_notices_a_successor(
    memory: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    # One thread beats for all writers of a process: that of another test must not be there.
    for other in ending.open_writers():
        other._release()
    monkeypatch.setattr("zarrtrace.recording.exit.BEAT_EVERY", 0.02)
    trace = memory.create(**DEFINITION)
    writer = trace.writer(0)
    first = trace._block(0).claim
    assert first is not None

    def eventually(condition: Any) -> bool:
        for _ in range(6000):
            if condition():
                return True
            time.sleep(0.01)
        return False

    def is_fresher() -> bool:
        now = trace._block(0).claim
        return now is not None and now.beat > first.beat

    assert eventually(is_fresher)
    trace._block(0).write_claim(far_away())
    assert eventually(lambda: writer._lost_to is not None)
    with pytest.raises(zt.errors.ChainBusyError, match="was taken over by"):
        writer.record({"mu": 1})
    writer._release()


def test_a_text_that_is_not_a_claim_is_ignored(memory: Place) -> None:
    trace = memory.create(**DEFINITION)
    for text in ("no json", "[]", "{}", json.dumps({"host": 1, "pid": "x"}), "null"):
        trace._block(0).write("writer", text)
        trace.writer(0).close()


def test_a_forked_child_does_not_hold_the_chain_of_a_dead_parent(
    directory: Place, script: Script
) -> None:
    trace = directory.create(**DEFINITION)
    code = """
writer.record({"mu": 1})
warnings.simplefilter("ignore", DeprecationWarning)  # a fork beside the thread of the heartbeat
child = os.fork()
if child == 0:
    # Who waits for what is printed does not wait for the child.
    os.close(1)
    os.close(2)
    time.sleep(60)
    os._exit(0)
print(child, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    printed, _ = script.start(WITH_WRITER + code, directory.path).communicate()
    child = int(printed)
    try:
        with trace.writer(0) as writer:
            assert writer.resume() == (1, None)
    finally:
        os.kill(child, signal.SIGKILL)


# How a process ends ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ending", "code"),
    [
        ("sys.exit(3)", 3),
        ("raise RuntimeError('the sampler broke')", 1),
        ("os.kill(os.getpid(), signal.SIGTERM); time.sleep(30)", 143),
        ("os.kill(os.getpid(), signal.SIGINT); time.sleep(30)", -signal.SIGINT),
        ("pass", 0),
    ],
)
def test_however_the_interpreter_ends_all_recorded_draws_are_kept(
    tmp_path: Path, fresh_script: FreshScript, ending: str, code: int
) -> None:
    traces = [
        zt.create(tmp_path / name, **DEFINITION, journal=journal)
        for name, journal in (("mapped.zarr", True), ("in_memory.zarr", False))
    ]
    process = fresh_script.start(
        """
        import os, signal, sys, time
        import zarrtrace as zt
        writers = [zt.open(path, "a").writer(0) for path in sys.argv[1:3]]
        for i in range(17):
            for writer in writers:
                writer.record({"mu": i})
        exec(sys.argv[3])
        """,
        *(trace.path for trace in traces),
        ending,
    )
    _, errors = process.communicate(timeout=300)
    assert process.returncode == code, errors
    for trace in traces:
        assert zt.open(trace.path).recorded.tolist() == [17, 0]
        assert trace.get("mu", chains=0)[0].tolist() == list(range(17))
        assert trace._block(0).claim is None
    assert not list(tmp_path.rglob("*.partial"))


def test_a_child_of_multiprocessing_closes_its_writers_too(
    directory: Place, tmp_path: Path
) -> None:
    trace = directory.create(**DEFINITION, journal=False)
    program = tmp_path / "program.py"
    program.write_text(
        "import multiprocessing, sys\n"
        "import zarrtrace as zt\n"
        "def child(trace):\n"
        "    writer = trace.writer(0)\n"
        "    for i in range(5): writer.record({'mu': i})\n"
        "if __name__ == '__main__':\n"
        "    trace = zt.open(sys.argv[1], 'a')\n"
        "    for method in ('fork', 'spawn'):\n"
        "        process = multiprocessing.get_context(method).Process(\n"
        "            target=child if method == 'fork' else other, args=(trace,))\n"
        "        process.start(); process.join()\n"
        "        assert process.exitcode == 0\n".replace(
            "if __name__",
            "def other(trace):\n"
            "    writer = trace.writer(1)\n"
            "    for i in range(5): writer.record({'mu': i})\n"
            "if __name__",
        )
    )
    subprocess.run([sys.executable, str(program), str(directory.path)], check=True, timeout=300)
    assert trace.recorded.tolist() == [5, 5]


def test_the_handlers_and_threads_are_gone_with_the_last_writer(memory: Place) -> None:
    before = signal.getsignal(signal.SIGTERM)
    threads = {thread.name for thread in threading.enumerate()}
    trace = memory.create(**DEFINITION)
    with trace.writer(0), trace.writer(1):
        assert "zarrtrace heartbeat" in {thread.name for thread in threading.enumerate()}
    assert signal.getsignal(signal.SIGTERM) is before
    assert "zarrtrace heartbeat" not in {thread.name for thread in threading.enumerate()} - threads


def test_a_handler_of_the_users_own_is_left_alone(memory: Place) -> None:
    def own(number: int, frame: Any) -> None:
        pass

    before = signal.signal(signal.SIGTERM, own)
    try:
        trace = memory.create(**DEFINITION)
        with trace.writer(0):
            assert signal.getsignal(signal.SIGTERM) is own
        assert signal.getsignal(signal.SIGTERM) is own
    finally:
        signal.signal(signal.SIGTERM, before)


def test_threads_record_side_by_side(fast_place: Place) -> None:
    trace = fast_place.create(**DEFINITION | {"chains": 6})

    def chain(index: int) -> None:
        with trace.writer(index) as writer:
            for i in range(50):
                writer.record({"mu": index * 100 + i})

    threads = [threading.Thread(target=chain, args=(index,)) for index in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = np.arange(6)[:, None] * 100 + np.arange(50)
    assert np.array_equal(trace.get("mu"), expected)


SLEEPER = """
import sys, time
import zarrtrace as zt

trace = zt.open(sys.argv[1], "a")
try:
    with trace.writer(0) as writer:
        while True:
            writer.record({"mu": writer.recorded})
            time.sleep(0.01)
except zt.errors.ChainBusyError as error:
    print(error)
"""


@pytest.mark.once("newest")
def test_a_writer_that_sleeps_is_taken_over_and_ends_when_it_wakes_up(
    directory: Place, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace = directory.create(chains=1, draws=5000, posterior={"mu": zt.Var(draws_per_chunk=20)})
    process = script.start(SLEEPER, directory.path)
    while trace.recorded[0] < 25:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGSTOP)
    try:
        while not (claim := trace._block(0).claim) or not claim.is_stopped:
            time.sleep(0.01)
        view, series = trace.at_once(), trace._now().series
        monkeypatch.setattr(claims, "STALE_AFTER", 0.5)
        with pytest.warns(RuntimeWarning, match="waiting up to 60 s"):
            writer = trace.writer(0, patience=60)
        with writer:
            start, _ = writer.resume()
            assert start >= 25
            for _ in range(50):
                writer.record({"mu": -1})
            # The copy of the journal has the same draws, so views of them hold.
            assert trace._now().series == series
            assert view.get("mu")[0].tolist() == [*range(start)]
    finally:
        process.send_signal(signal.SIGCONT)
    said, _ = process.communicate()
    assert "it was taken over by" in said
    assert trace.recorded.tolist() == [start + 50]
    assert trace.get("mu")[0].tolist() == [*range(start), *[-1] * 50]
    assert not list(directory.path.rglob("*.partial"))
