"""A signal of a scheduler ends the chains of a process with the state to continue from."""

from __future__ import annotations

import os
import signal
import threading
import time
from concurrent.futures import BrokenExecutor, ThreadPoolExecutor

import numpy as np
import pytest
from conftest import Place
from scripts import FreshScript, Script

import zarrtrace as zt
from zarrtrace.errors import IncompleteTraceError, InvalidInputError, StopRequestedError
from zarrtrace.signals import preemptible


def create(place: Place, draws: int = 100) -> zt.Trace:
    return place.create(chains=2, draws=draws, posterior={"x": zt.Var(draws_per_chunk=20)})


def send(number: int) -> None:
    """Send this process a signal, which has been handled when this returns."""
    os.kill(os.getpid(), number)
    time.sleep(0)


def record(writer: zt.ChainWriter, checkpoint_every: int, signal_at: int) -> None:
    """Record without looking whether the process is asked to end."""
    start, _ = writer.resume()
    for draw in range(start, 100):
        writer.record({"x": draw})
        if draw + 1 == signal_at:
            send(signal.SIGUSR1)
        if (draw + 1) % checkpoint_every == 0:
            writer.checkpoint({"draw": draw})


@pytest.mark.parametrize(
    ("checkpoint_every", "ends_at"),
    [
        pytest.param(10, 30, id="after the next checkpoint"),
        pytest.param(1000, 23, id="at once without checkpoints"),
    ],
)
def test_a_loop_that_does_not_look_ends(place: Place, checkpoint_every: int, ends_at: int) -> None:
    trace = create(place)
    with preemptible(trace, chains=[0]) as job, trace.writer(0) as writer:
        assert not writer.stop_requested
        record(writer, checkpoint_every, signal_at=23)
    assert (job.signal, job.exit_code) == ("SIGUSR1", 75)
    assert trace.recorded.tolist() == [ends_at, 0]
    assert trace.stop_request is None
    with preemptible(trace, chains=[0]) as job, trace.writer(0) as writer:
        record(writer, checkpoint_every, signal_at=0)
    assert (job.signal, job.exit_code) == ("", 0)
    assert np.array_equal(trace.dataset("posterior", chains=range(1)).x[0], np.arange(100))


def test_a_loop_that_looks_ends_at_its_next_draw(place: Place) -> None:
    trace = create(place)
    with preemptible(trace), trace.writer(0) as writer:
        writer.record({"x": 0.0})
        writer.checkpoint({})
        send(signal.SIGXCPU)
        assert writer.stop_requested
        writer.record({"x": 1.0})  # it may have begun a draw
        writer.checkpoint({"draws": 2})
        with pytest.raises(StopRequestedError, match="end by SIGXCPU; all its 2 draws are kept"):
            writer.record({"x": 2.0})
    assert trace.last_checkpoint(0) == (2, {"draws": 2})


def test_a_loop_that_looks_keeps_its_state_though_it_has_kept_none_before(place: Place) -> None:
    trace = create(place)
    with preemptible(trace), trace.writer(0) as writer:
        writer.resume()
        while not writer.stop_requested:
            if writer.recorded == 3:
                send(signal.SIGUSR1)  # in the middle of a draw
            writer.record({"x": writer.recorded})
        writer.checkpoint({"draws": writer.recorded})
    assert trace.last_checkpoint(0) == (4, {"draws": 4})


def test_a_writer_that_is_opened_after_the_signal_ends_too(place: Place) -> None:
    trace = create(place)
    with preemptible(trace):
        send(signal.SIGUSR1)
        with trace.writer(0) as writer:
            assert writer.stop_requested
            with pytest.raises(StopRequestedError):
                writer.record({"x": 0.0})
    with trace.writer(0) as writer:
        assert not writer.stop_requested
        writer.record({"x": 0.0})


def test_writers_of_other_threads_are_told(place: Place) -> None:
    trace = create(place)
    began = threading.Barrier(3)

    def chain(index: int) -> int:
        with trace.writer(index) as writer:
            began.wait()
            while not writer.stop_requested:
                time.sleep(0.001)
        return int(trace.recorded[index])

    with preemptible(trace) as job, ThreadPoolExecutor(2) as pool:
        recorded = [pool.submit(chain, index) for index in range(2)]
        began.wait()
        send(signal.SIGUSR1)
        assert [future.result() for future in recorded] == [0, 0]
    assert job.exit_code == 75


def test_handlers_that_existed_are_called_and_put_back(place: Place) -> None:
    called: list[int] = []

    def handler(number: int, frame: object) -> None:
        called.append(number)

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        with preemptible(create(place)):
            send(signal.SIGUSR1)
        assert called == [signal.SIGUSR1]
        assert signal.getsignal(signal.SIGUSR1) is handler
        assert signal.getsignal(signal.SIGXCPU) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_a_second_sigterm_ends_the_process(place: Place) -> None:
    trace = create(place)
    with preemptible(trace) as job, trace.writer(0) as writer:
        writer.record({"x": 0.0})
        send(signal.SIGTERM)
        assert job.signal == "SIGTERM"
        with pytest.raises(SystemExit, match="143"):
            send(signal.SIGTERM)
    assert trace.recorded.tolist() == [1, 0]


def test_other_errors_leave_the_block(place: Place) -> None:
    def fail() -> None:
        with preemptible(create(place)):
            send(signal.SIGUSR1)
            raise ArithmeticError

    with pytest.raises(ArithmeticError):
        fail()


@pytest.mark.parametrize("error", [IncompleteTraceError("no draws"), EOFError(), BrokenExecutor()])
def test_what_a_sampler_raises_because_it_was_ended_does_not_leave_the_block(
    memory: Place, error: Exception
) -> None:
    trace = create(memory)
    with preemptible(trace) as job:
        send(signal.SIGUSR1)
        raise error
    assert job.exit_code == 75
    with pytest.raises(type(error)), preemptible(trace):
        raise error


def test_a_trace_that_is_created_within_the_block_is_given_by_its_path(directory: Place) -> None:
    with preemptible(directory.path, chains=[0]) as job:
        assert job.exit_code == 75
        with create(directory).writer(0) as writer:
            record(writer, 10, signal_at=0)
    assert job.exit_code == 0
    with pytest.raises(InvalidInputError, match=r"chains names 7, but .* has the chains 0 to 1"):
        preemptible(str(directory.path), chains=[7])


def test_a_request_to_stop_counts_as_complete(place: Place) -> None:
    trace = create(place)
    for index in range(2):
        with trace.writer(index) as writer:
            writer.record_block({"x": np.zeros(20)})
    assert preemptible(trace).exit_code == 75
    with pytest.warns(RuntimeWarning, match="no chain"):
        trace.request_stop(20)
    assert preemptible(trace).exit_code == 0


def test_what_cannot_be_handled_is_refused(place: Place) -> None:
    trace = create(place)
    with pytest.raises(InvalidInputError, match="signals names 'SIGNONE'"):
        preemptible(trace, signals=["SIGNONE"])
    with pytest.raises(InvalidInputError, match=r"chains names 7, but .* has the chains 0 to 1"):
        preemptible(trace, chains=[0, 7])
    with ThreadPoolExecutor(1) as pool:
        entering = pool.submit(preemptible(trace).__enter__)
        assert isinstance(entering.exception(), RuntimeError)


RUN = """
import multiprocessing, os, sys, time
from concurrent.futures import ProcessPoolExecutor
import numpy as np
import zarrtrace as zt

def chain(index, trace):
    rng = np.random.default_rng(index)
    with trace.writer(index) as writer:
        start, state = writer.resume()
        if state is not None:
            rng.bit_generator.state = state
        for draw in range(start, trace.draws):
            writer.record({"x": rng.normal()})
            time.sleep(0.02)
            if draw % 10 == 9:
                writer.checkpoint(rng.bit_generator.state)

if __name__ == "__main__":
    trace = zt.open(sys.argv[1], "a")
    executor = None
    if sys.argv[2].startswith("pool"):
        context = multiprocessing.get_context(sys.argv[2].split()[-1])
        executor = lambda: ProcessPoolExecutor(3, mp_context=context)
    elif sys.argv[2] == "loky":
        from loky import get_reusable_executor
        executor = lambda: get_reusable_executor(2)
    with zt.signals.preemptible(trace) as job:
        print("ready", flush=True)
        zt.run(chain, trace, progress=False, fork=sys.argv[2] == "forked", executor=executor)
    sys.exit(job.exit_code)
"""
ENDLESS = 10**6  # draws: no chain has all of them before the signal comes


def complete(trace: zt.Trace, script: Script, kind: str) -> None:
    """Let the chains continue to one length, and compare their draws with uninterrupted ones."""
    draws = int(trace.recorded.max()) + 30
    with pytest.warns(RuntimeWarning, match="no chain"):
        trace.request_stop(draws)
    script.run(RUN, trace.path, kind)
    assert np.array_equal(
        trace.get("x"), [np.random.default_rng(i).normal(size=draws) for i in range(2)]
    )


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param("fresh", marks=pytest.mark.once("oldest")),
        pytest.param("forked", marks=pytest.mark.once("newest")),
    ],
)
def test_run_passes_the_signal_on_to_its_processes(
    directory: Place, script: Script, kind: str
) -> None:
    trace = create(directory, ENDLESS)
    process = script.start(RUN, directory.path, kind)
    while trace.recorded.min() < 15:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGUSR1)
    assert process.communicate() == ("ready\n", "")
    assert process.returncode == 75
    recorded = trace.recorded
    assert (recorded % 10 == 0).all()
    assert ENDLESS > recorded.max() >= recorded.min() > 15
    complete(trace, script, kind)


@pytest.mark.parametrize(
    ("kind", "number"),
    [
        pytest.param("fresh", signal.SIGTERM, marks=pytest.mark.once("oldest")),
        pytest.param("forked", signal.SIGTERM, marks=pytest.mark.once("newest")),
        pytest.param("pool of fork", signal.SIGTERM, marks=pytest.mark.once("oldest")),
        pytest.param("pool of spawn", signal.SIGXCPU, marks=pytest.mark.once("newest")),
        pytest.param("loky", signal.SIGTERM, marks=pytest.mark.once("newest")),
    ],
)
def test_a_signal_to_all_processes_of_a_job_ends_each_chain_with_its_state(
    directory: Place, fresh_script: FreshScript, script: Script, kind: str, number: int
) -> None:
    trace = create(directory, ENDLESS)
    process = fresh_script.start(RUN, directory.path, kind, start_new_session=True)
    while trace.recorded.min() < 15:
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    os.killpg(process.pid, number)
    said, errors = process.communicate(timeout=60)
    assert (said, process.returncode) == ("ready\n", 75), errors
    recorded = trace.recorded
    assert (recorded % 10 == 0).all(), errors
    assert ENDLESS > recorded.max() >= recorded.min() > 15
    complete(trace, script, "forked")


CHILDREN = """
import multiprocessing, sys, time
import zarrtrace as zt

def chain(index, trace):
    with trace.writer(index) as writer:
        writer.resume()
        while not writer.stop_requested:
            writer.record({"x": writer.recorded})
            writer.checkpoint(writer.recorded)
            time.sleep(0.01)

if __name__ == "__main__":
    trace = zt.open(sys.argv[1], "a")
    context = multiprocessing.get_context(sys.argv[2])
    with zt.signals.preemptible(trace) as job:
        children = [context.Process(target=chain, args=(i, trace)) for i in range(2)]
        for child in children:
            child.start()
        for child in children:
            child.join()
    print(job.signal, [child.exitcode for child in children])
"""


@pytest.mark.parametrize(
    "method",
    [
        pytest.param("fork", marks=pytest.mark.once("oldest")),
        pytest.param("spawn", marks=pytest.mark.once("newest")),
    ],
)
def test_processes_that_record_are_told_however_they_were_started(
    directory: Place, fresh_script: FreshScript, method: str
) -> None:
    trace = directory.create(chains=2, draws=10**6, posterior={"x": 0.0})
    process = fresh_script.start(CHILDREN, directory.path, method)
    while trace.recorded.min() < 5:
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.send_signal(signal.SIGUSR1)
    began = time.monotonic()
    while any(trace._block(number).claim for number in range(2)):
        assert time.monotonic() < began + 60
        time.sleep(0.01)
    assert process.communicate(timeout=60)[0] == "SIGUSR1 [0, 0]\n"
    for number, count in enumerate(trace.recorded):
        assert trace.last_checkpoint(number) == (count, count)
