"""A writer leaves its place to another one or keeps it: in a process, in containers, elsewhere."""

from __future__ import annotations

import functools
import gc
import os
import platform
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Place
from scripts import Script

import zarrtrace as zt
from zarrtrace.errors import ChainBusyError, NotWritableError, TraceReplacedError
from zarrtrace.recording.exit import open_writers
from zarrtrace.sampling_state import claim as claims
from zarrtrace.sampling_state.claim import Claim

DEFINITION: dict[str, Any] = {
    "chains": 1,
    "draws": 40,
    "posterior": {"mu": zt.Var(draws_per_chunk=10)},
}


def record(writer: zt.ChainWriter, stop: int) -> None:
    for i in range(writer.recorded, stop):
        writer.record({"mu": float(i)})


def assert_draws(trace: zt.Trace, stop: int) -> None:
    assert trace.recorded.tolist() == [stop]
    assert trace.get("mu").tolist() == [[float(i) for i in range(stop)]]


# In one process -------------------------------------------------------------------------------


def test_a_writer_that_nobody_holds_is_closed(fast_place: Place) -> None:
    for other in open_writers():  # of tests before this one, which would keep the thread
        other.close()
    trace = fast_place.create(**DEFINITION)
    writer = trace.writer(0)
    record(writer, 15)
    del writer
    assert trace._block(0).claim is None
    assert_draws(trace, 15)
    # Python also lists threads that were interrupted before they began.
    running = {thread.name for thread in threading.enumerate() if thread.is_alive()}
    assert "zarrtrace heartbeat" not in running
    with trace.writer(0) as other:
        assert other.resume() == (15, None)


def test_a_writer_among_the_garbage_is_closed(fast_place: Place) -> None:
    trace = fast_place.create(**DEFINITION)
    cycle: list[Any] = [trace.writer(0)]
    record(cycle[0], 15)
    cycle.append(cycle)
    del cycle
    gc.collect()
    assert trace._block(0).claim is None
    assert_draws(trace, 15)


def test_a_writer_that_was_opened_again_takes_the_place_of_the_first(place: Place) -> None:
    trace = place.create(**DEFINITION)
    first = trace.writer(0)
    record(first, 15)
    with pytest.warns(RuntimeWarning, match="a new writer replaces it.*15 draws") as warned:
        second = place.open("a").writer(0)
    assert [warning.filename for warning in warned] == [__file__]
    assert second.resume() == (15, None)
    record(second, 25)
    for attempt in (
        lambda: record(first, 30),
        lambda: first.record_block({"mu": np.zeros(2)}),
        lambda: first.checkpoint({"state": 1}),
        first.resume,
        first.flush,
    ):
        with pytest.raises(ChainBusyError, match=r"it was taken over.*its draws are kept"):
            attempt()
    first._beat()
    first.close()
    record(second, 40)
    second.close()
    assert_draws(trace, 40)
    assert trace._block(0).claim is None
    assert trace.check() == []


def test_a_place_that_is_passed_on_is_never_free(directory: Place, script: Script) -> None:
    trace = directory.create(**DEFINITION)
    held = trace.writer(0)
    rival = script.start(
        """
        import sys, time
        import zarrtrace as zt
        trace = zt.open(sys.argv[1], "a")
        print("ready", flush=True)
        while True:
            try:
                trace.writer(0)
            except zt.errors.ChainBusyError:
                continue
            break
        """,
        directory.path,
    )
    try:
        assert rival.stdout is not None
        rival.stdout.readline()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            for _ in range(200):
                held = trace.writer(0)
        assert rival.poll() is None
        assert not held.closed
    finally:
        rival.kill()
        rival.communicate()
    held.close()


@pytest.mark.parametrize("journal", [True, False])
@pytest.mark.parametrize("held", [True, False])
def test_a_cell_that_failed_is_run_again(tmp_path: Path, journal: bool, held: bool) -> None:
    errors = []

    def cell() -> None:
        trace = zt.create(tmp_path / "run.zarr", **DEFINITION, journal=journal, overwrite=True)
        writer = trace.writer(0)
        record(writer, 15)
        raise ZeroDivisionError

    for number in range(3):
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            with pytest.raises(ZeroDivisionError) as caught:
                cell()
        if held:
            errors.append(caught.value)  # as IPython does, and with it the writer
        del caught
        gc.collect()
        assert len(warned) == (1 if held and number else 0)
    trace = zt.open(tmp_path / "run.zarr", "a")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        writer = trace.writer(0)
    assert writer.resume() == (15, None)
    writer.close()
    assert_draws(trace, 15)


def test_a_writer_of_an_overwritten_trace_takes_no_more_draws(fast_place: Place) -> None:
    old = fast_place.create(**DEFINITION).writer(0)
    record(old, 15)
    with pytest.warns(RuntimeWarning, match="is being overwritten"):
        trace = fast_place.create(**DEFINITION, overwrite=True)
    with trace.writer(0) as new:
        record(new, 25)
        for attempt in (lambda: record(old, 40), old.flush, old.resume):
            with pytest.raises(TraceReplacedError):
                attempt()
        old.close()
        record(new, 30)
    assert_draws(trace, 30)


@pytest.mark.parametrize("change", ["split_warmup", "finish", "repair"])
def test_a_change_of_the_trace_does_not_take_the_place_of_a_writer(
    fast_place: Place, change: str
) -> None:
    trace = fast_place.create(**DEFINITION)
    with trace.writer(0) as writer:
        record(writer, 15)
        with pytest.raises(ChainBusyError, match=r"trace\.close\(\)"):
            getattr(trace, change)()
        record(writer, 20)
    assert_draws(trace, 20)


def test_a_forked_child_does_not_take_the_place_of_its_parents_writer(
    directory: Place, script: Script
) -> None:
    trace = directory.create(**DEFINITION)
    code = """
        import os, sys, warnings
        import zarrtrace as zt
        trace = zt.open(sys.argv[1], "a")
        writer = trace.writer(0)
        writer.record({"mu": 0.0})
        warnings.simplefilter("ignore", DeprecationWarning)  # a fork beside another thread
        child = os.fork()
        if child == 0:
            try:
                trace.writer(0)
            except zt.errors.ChainBusyError as error:
                os._exit(0 if f"process {os.getppid()} " in str(error) else 1)
            os._exit(2)
        assert os.waitpid(child, 0)[1] == 0
        writer.record({"mu": 1.0})
        writer.close()
    """
    script.run(code, directory.path)
    assert_draws(trace, 2)


def test_a_table_that_is_opened_again_takes_the_place_of_the_first(fast_place: Place) -> None:
    trace = fast_place.create(**DEFINITION)
    first = trace.table("notes", {"n": int, "text": str})
    first.append(n=0, text="a")
    again = fast_place.open("a").table("notes")
    with pytest.warns(RuntimeWarning, match="a new writer replaces it.*1 row"):
        again.append(n=1, text="b")
    with pytest.raises(ChainBusyError, match=r"was taken over by.*all its rows are kept"):
        first.append(n=2, text="c")
    first.close()
    again.append(n=2, text="c")
    again.close()
    assert fast_place.open().table("notes")["text"].tolist() == ["a", "b", "c"]


# One call at a time ---------------------------------------------------------------------------


class Meanwhile:
    """A value of a draw; something else happens while it is recorded."""

    def __init__(self, value: float, action: Callable[[], object]) -> None:
        self.value = value
        self.action = action

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray[Any, Any]:
        self.action()
        return np.asarray(self.value, dtype)


def in_another_thread(action: Callable[[], object]) -> list[BaseException | None]:
    """What an action raises in a thread of its own."""
    raised: list[BaseException | None] = []

    def run() -> None:
        try:
            action()
        except BaseException as error:
            raised.append(error)
        else:
            raised.append(None)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return raised


@pytest.mark.parametrize("where", ["this thread", "another thread"])
@pytest.mark.parametrize("outer", ["record", "record_block"])
def test_a_call_during_another_one_is_refused(fast_place: Place, where: str, outer: str) -> None:
    trace = fast_place.create(**DEFINITION)
    writer = trace.writer(0)
    record(writer, 9)
    attempts = [
        lambda: writer.record({"mu": -1.0}),
        lambda: writer.record_block({"mu": np.full(2, -1.0)}),
        lambda: writer.checkpoint({"state": 1}),
        writer.resume,
        writer.flush,
    ]
    refused = []

    def meanwhile() -> None:
        for attempt in attempts:
            if where == "another thread":
                refused.extend(in_another_thread(attempt))
                continue
            with pytest.raises(ChainBusyError) as caught:
                attempt()
            refused.append(caught.value)

    value = Meanwhile(9.0, meanwhile)
    if outer == "record":
        writer.record({"mu": value})
    else:
        value.value = [9.0, 10.0]  # type: ignore[assignment]
        writer.record_block({"mu": value})
    assert len(refused) >= len(attempts)
    for error in refused:
        assert isinstance(error, ChainBusyError)
        assert f"another call of this writer is under way in {where}" in str(error)
        assert error.chain == 0
    record(writer, 40)
    writer.close()
    assert_draws(trace, 40)


def run_in_threads(loop: Callable[[int], None], numbers: Iterable[int]) -> None:
    """Call a function in a thread for each number, and switch between them as often as possible."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=loop, args=(number,)) for number in numbers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)


def test_two_threads_lose_no_draw_that_was_accepted(directory: Place) -> None:
    trace = directory.create(**DEFINITION | {"draws": 4000})
    writer = trace.writer(0)
    accepted: list[list[float]] = [[], []]

    def loop(thread: int) -> None:
        for i in range(2000):
            try:
                writer.record({"mu": thread * 1e6 + i})
            except ChainBusyError:
                continue
            accepted[thread].append(thread * 1e6 + i)

    run_in_threads(loop, (0, 1))
    writer.close()
    values = trace.get("mu")[0]
    assert sorted(values.tolist()) == sorted(accepted[0] + accepted[1])
    assert values[values < 1e6].tolist() == accepted[0]


def test_a_signal_handler_loses_no_draw_that_was_accepted(directory: Place) -> None:
    trace = directory.create(**DEFINITION | {"draws": 8000})
    writer = trace.writer(0)
    accepted: list[float] = []

    def handle(*_: Any) -> None:
        try:
            writer.record({"mu": -1.0})
        except ChainBusyError:
            return
        accepted.append(-1.0)

    before = signal.signal(signal.SIGALRM, handle)
    signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
    try:
        for i in range(1000):
            writer.record({"mu": float(i)})
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    writer.close()
    values = trace.get("mu")[0]
    assert len(values) == 1000 + len(accepted)
    assert values[values >= 0].tolist() == list(range(1000))


def test_a_writer_that_is_closed_during_a_call_keeps_nothing_of_it(fast_place: Place) -> None:
    trace = fast_place.create(**DEFINITION)
    writer = trace.writer(0)
    record(writer, 9)
    with pytest.raises(NotWritableError, match="is closed"):
        writer.record({"mu": Meanwhile(9.0, writer.close)})
    assert_draws(trace, 9)
    with trace.writer(0) as other:
        other.resume()
        record(other, 20)
    assert_draws(trace, 20)


def test_a_call_in_this_thread_keeps_its_writer(fast_place: Place) -> None:
    trace = fast_place.create(**DEFINITION)
    writer = trace.writer(0)
    record(writer, 9)

    def take() -> None:
        with (
            pytest.warns(RuntimeWarning),
            pytest.raises(ChainBusyError, match="under way in this thread"),
        ):
            trace.writer(0)

    writer.record({"mu": Meanwhile(9.0, take)})
    record(writer, 40)
    writer.close()
    assert_draws(trace, 40)


@pytest.mark.filterwarnings("ignore:.*a new writer replaces:RuntimeWarning")
def test_a_writer_that_is_opened_again_waits_for_the_call_of_another_thread(
    fast_place: Place,
) -> None:
    trace = fast_place.create(**DEFINITION)
    first = trace.writer(0)
    record(first, 9)
    opened: list[zt.ChainWriter] = []
    thread = threading.Thread(target=lambda: opened.append(trace.writer(0)))

    def start() -> None:
        thread.start()
        while first._state is not type(first._state).DISPLACED:
            time.sleep(0.001)

    with pytest.raises(ChainBusyError):
        first.record({"mu": Meanwhile(-1.0, start)})
    thread.join()
    with opened[0] as second:
        assert second.resume() == (9, None)
        record(second, 40)
    assert_draws(trace, 40)


def test_threads_append_to_a_table_one_after_the_other(fast_place: Place) -> None:
    trace = fast_place.create(**DEFINITION)
    notes = trace.table("notes", {"n": int, "text": str})
    notes.append(n=0, text="")
    read: list[int] = []

    def loop(thread: int) -> None:
        for i in range(50):
            notes.append(n=1000 * thread + i, text=str(thread))
            read.append(len(notes["n"]))

    run_in_threads(loop, (1, 2, 3))
    assert len(read) == 150
    numbers = notes["n"]
    assert sorted(numbers[1:].tolist()) == [1000 * t + i for t in (1, 2, 3) for i in range(50)]
    assert [str(n // 1000) for n in numbers[1:]] == notes["text"][1:].tolist()

    def again() -> None:
        with pytest.raises(ChainBusyError, match="under way in this thread"):
            notes.append(n=-1, text="")

    notes.append(n=Meanwhile(7, again), text="x")
    assert notes["n"][-1] == 7
    notes.close()


# In another container -------------------------------------------------------------------------


@functools.cache
def container(*options: str) -> list[str]:
    """The command that starts a process in its own pid namespace; [] where the machine has none."""
    for user in ([], ["--user", "--map-root-user"]):
        command = ["unshare", *user, *options, "--pid", "--fork", "--mount-proc"]
        try:
            if subprocess.run([*command, "true"], capture_output=True).returncode == 0:
                return command
        except FileNotFoundError:
            break
    return []


# Where the machine makes no containers, the process says that it is in one.
IN_A_CONTAINER = f"""
import sys, os, platform, time
import zarrtrace as zt
from zarrtrace.sampling_state import claim as claims
if not {bool(container())}:
    claims._pid_namespace = lambda: "pid:[1]"
path = sys.argv[1]
claims.STALE_AFTER, claims.LOOK_EVERY = 20.0, 0.02
"""
DEFINED = "chains=1, draws=40, posterior={'mu': zt.Var(draws_per_chunk=10)}"


def run_in_container(code: str, path: Path, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*container(*options), sys.executable, "-c", IN_A_CONTAINER + code, str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def quick_heart(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("zarrtrace.recording.exit.BEAT_EVERY", 0.05)
    return


@pytest.mark.once("oldest")
@pytest.mark.parametrize("journal", [True, False])
@pytest.mark.parametrize("options", [(), ("--uts",)])
@pytest.mark.usefixtures("quick_heart")
def test_a_container_does_not_take_the_place_of_a_living_writer(
    directory: Place, journal: bool, options: tuple[str, ...]
) -> None:
    trace = directory.create(**DEFINITION, journal=journal)
    time.sleep(0.02)  # the system says in ticks of 10 ms which process began before the trace
    with trace.writer(0) as writer:
        record(writer, 15)
        second = run_in_container(
            f"""
if {bool(options)} and {bool(container())}:
    import socket; socket.sethostname("another")
for name, take in (
    ("writer", lambda: zt.open(path, "a").writer(0)),
    ("split", lambda: zt.open(path, "a").split_warmup()),
    ("finish", lambda: zt.open(path, "a").finish()),
    ("repair", lambda: zt.open(path, "a").repair()),
    ("overwrite", lambda: zt.create(path, {DEFINED}, overwrite=True)),
):
    try:
        take()
    except zt.errors.ChainBusyError as error:
        print(name, "refused" if "process {os.getpid()} on" in str(error) else error)
    else:
        print(name, "allowed")
""",
            directory.path,
            *options,
        )
        said, told = second.communicate(timeout=300)
        assert said.splitlines() == [
            f"{name} refused" for name in ("writer", "split", "finish", "repair", "overwrite")
        ], told
        record(writer, 40)
    assert_draws(trace, 40)


@pytest.mark.once("oldest")
@pytest.mark.parametrize("journal", [True, False])
def test_the_place_of_a_writer_that_died_in_a_container_is_free(
    directory: Place, monkeypatch: pytest.MonkeyPatch, journal: bool
) -> None:
    trace = directory.create(**DEFINITION, journal=journal)
    code = """
writer = zt.open(path, "a").writer(0)
for i in range(15): writer.record({"mu": float(i)})
writer.flush()
os._exit(9)  # the first process of a container cannot kill itself
"""
    run_in_container(code, directory.path).communicate(timeout=300)
    if container():
        claim = trace._block(0).claim
        assert claim is not None
        assert not claim.is_visible
    if journal:
        # The lock is free.
        writer = trace.writer(0)
    else:
        monkeypatch.setattr(claims, "STALE_AFTER", 0.5)
        monkeypatch.setattr(claims, "LOOK_EVERY", 0.05)
        with pytest.raises(ChainBusyError):
            trace.writer(0)
        # As if this process saw it for the first time, however long ago that was.
        claims._seen.clear()
        with pytest.warns(RuntimeWarning, match="waiting up to 90 s"):
            writer = trace.writer(0, patience=90)
    assert writer.resume() == (15, None)
    record(writer, 40)
    writer.close()
    trace.finish()
    assert_draws(trace, 40)


# Elsewhere ------------------------------------------------------------------------------------


def far_away(**changed: Any) -> Claim:
    """The claim of a writer on another machine with the name of this one."""
    return replace(Claim.new(), boot="of elsewhere", **changed)


@pytest.mark.once("oldest")
@pytest.mark.parametrize("change", ["split_warmup", "finish", "repair", "overwrite"])
def test_a_change_watches_a_writer_elsewhere(
    fast_place: Place, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    trace = fast_place.create(**DEFINITION)
    with trace.writer(0) as writer:
        record(writer, 15)
    monkeypatch.setattr(claims, "LOOK_EVERY", 0.01)
    stop = threading.Event()

    first = far_away()
    trace._block(0).write_claim(first)

    def beat() -> None:
        claim = first
        while not stop.wait(0.001):
            claim = replace(claim, beat=claim.beat + 1)
            trace._block(0).write_claim(claim)

    def act() -> object:
        if change == "overwrite":
            return fast_place.create(**DEFINITION, overwrite=True)
        return getattr(trace, change)()

    heart = threading.Thread(target=beat)
    heart.start()
    try:
        with (
            pytest.warns(RuntimeWarning, match="whether a writer is alive"),
            pytest.raises(ChainBusyError, match=f"on {platform.node()}"),
        ):
            act()
    finally:
        stop.set()
        heart.join()
    assert_draws(trace, 15)
    monkeypatch.setattr(claims, "STALE_AFTER", 0.05)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        act()
    assert fast_place.open().recorded.tolist() == [0 if change == "overwrite" else 15]


@pytest.mark.once("oldest")
@pytest.mark.parametrize(
    ("changed", "minutes", "free"),
    [
        ({"host": "elsewhere"}, 9, False),
        ({"host": "elsewhere"}, 11, True),
        # The machine of this name is this one, before it was started again, or another one.
        ({}, 9, "after the start"),
        ({}, 11, True),
    ],
)
def test_a_claim_from_long_ago_by_the_clock_of_the_store_is_void(
    directory: Place,
    monkeypatch: pytest.MonkeyPatch,
    changed: dict[str, Any],
    minutes: float,
    free: bool | str,
) -> None:
    trace = directory.create(**DEFINITION)
    claim = far_away(**changed)
    for started in (5, 60):
        monkeypatch.setattr(claims, "_uptime", lambda started=started: started * 60)
        trace._block(0).write_claim(replace(claim, token=f"started {started}"))
        file = directory.path / trace._block(0).key("writer")
        then = os.stat(file).st_mtime - 60 * minutes
        os.utime(file, (then, then))
        if free is True or (free == "after the start" and started == 5):
            trace.writer(0).close()
        else:
            with pytest.raises(ChainBusyError):
                trace.writer(0)
    assert not list(directory.path.rglob("*.partial"))


@pytest.mark.once("oldest")
def test_a_chain_of_a_run_waits_for_a_writer_elsewhere(directory: Place) -> None:
    trace = directory.create(**DEFINITION)
    with trace.writer(0) as writer:
        record(writer, 15)
    trace._block(0).write_claim(far_away())

    def chain(index: Any, trace: zt.Trace) -> None:
        from zarrtrace.sampling_state import claim

        claim.STALE_AFTER, claim.LOOK_EVERY = 0.3, 0.05
        with trace.writer(index) as writer:
            start, _ = writer.resume()
            for i in range(start, trace.draws):
                writer.record({"mu": float(i)})

    with pytest.raises(zt.errors.ChainsFailedError, match="is being recorded by"):
        zt.run(chain, trace, progress=False, patience=0)
    assert_draws(trace, 15)
    zt.run(chain, trace, progress=False)
    assert_draws(trace, 40)


def test_a_writer_that_was_displaced_and_forgotten_writes_no_chunk(memory: Place) -> None:
    trace = memory.create(**DEFINITION)
    old = trace.writer(0)
    record(old, 5)
    old.flush()
    # Another one took its place, recorded, and is gone.
    trace._block(0).write_claim(None)
    with pytest.raises(ChainBusyError, match="another writer, which is closed now"):
        record(old, 40)
    assert old.recorded == 9
    old._release()
    assert_draws(trace, 5)


def test_a_process_that_is_dead_but_not_waited_for_has_no_claim(directory: Place) -> None:
    trace = directory.create(**DEFINITION, journal=False)
    program = """if True:
        import os, sys
        import zarrtrace as zt
        writer = zt.open(sys.argv[1], "a").writer(0)
        writer.record({"mu": 0.0})
        writer.flush()
        os.kill(os.getpid(), 9)
    """
    child = subprocess.Popen([sys.executable, "-c", program, str(directory.path)])
    try:
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        with trace.writer(0) as writer:
            assert writer.resume() == (1, None)
    finally:
        child.wait()


@pytest.mark.parametrize("patience", [-1, float("nan"), "90", True])
def test_patience_is_a_number_of_seconds(memory: Place, patience: Any) -> None:
    trace = memory.create(**DEFINITION)
    with pytest.raises(zt.errors.InvalidInputError, match="patience must be a number of seconds"):
        trace.writer(0, patience=patience)
