"""Chains on executors: what is lost is started again, and what runs is asked to stop."""

from __future__ import annotations

import multiprocessing
import signal
import time
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from cluster_chains import record
from conftest import Place
from scripts import Script

import zarrtrace as zt
from zarrtrace.errors import ChainsFailedError


def create(place: Place, **more: Any) -> zt.Trace:
    variables = {"x": zt.Var(draws_per_chunk=20)}
    return place.create(**{"chains": 3, "draws": 60, "posterior": variables} | more)


def killed_once(index: int, trace: zt.Trace) -> None:
    record(index, trace, killed_at=25 if index == 1 and not trace.recorded[1] else -1)


def expected(draws: int) -> list[Any]:
    return [np.random.default_rng(index).normal(size=draws) for index in range(3)]


def processes() -> Executor:
    return ProcessPoolExecutor(3, mp_context=multiprocessing.get_context("forkserver"))


@pytest.mark.filterwarnings("ignore:.*has all its draws:RuntimeWarning")
def test_a_pool_that_broke_is_made_again(directory: Place) -> None:
    trace = create(directory)
    with pytest.warns(RuntimeWarning, match="BrokenProcessPool.*is started again") as warned:
        zt.run(killed_once, trace, executor=processes, progress=False)
    assert any(str(warning.message).startswith("chain 1 ") for warning in warned)
    assert np.array_equal(trace.get("x"), expected(60))


@pytest.mark.filterwarnings("ignore:.*has all its draws:RuntimeWarning")
def test_a_pool_that_cannot_be_made_again_is_named(directory: Place) -> None:
    trace = create(directory)
    with processes() as pool, pytest.raises(ChainsFailedError) as caught:
        zt.run(killed_once, trace, executor=pool, progress=False)
    assert 1 in caught.value.failures
    assert "executor=lambda: ProcessPoolExecutor(4)" in caught.value.failures[1]
    assert trace.recorded[1] == 25


@pytest.mark.once("newest")
@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_processes_may_start_in_any_way(directory: Place, method: str) -> None:
    trace = create(directory)
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context(method)) as pool:
        zt.run(record, trace, executor=pool, progress=False)
    assert np.array_equal(trace.get("x"), expected(60))


class Forgetful(Executor):
    """Loses the connection to each worker once."""

    def __init__(self, pool: Executor) -> None:
        self._pool = pool
        self._lost: set[int] = set()

    def submit(self, function: Any, *arguments: Any, **named: Any) -> Future[Any]:
        if arguments[0] in self._lost:
            return self._pool.submit(function, *arguments, **named)
        self._lost.add(arguments[0])
        lost: Future[Any] = Future()
        lost.set_exception(ConnectionResetError("the worker is gone"))
        return lost


def test_after_a_lost_connection_a_chain_is_started_again(place: Place) -> None:
    trace = create(place)
    with (
        ThreadPoolExecutor(3) as pool,
        pytest.warns(RuntimeWarning, match="the worker is gone") as warned,
    ):
        zt.run(record, trace, executor=Forgetful(pool), progress=False)
    assert len(warned) == 3
    assert np.array_equal(trace.get("x"), expected(60))


def slowly(index: int, trace: zt.Trace) -> None:
    record(index, trace, pause=0.01)


def test_a_function_ends_chains_on_an_executor(directory: Place) -> None:
    trace = create(directory, draws=None)
    with processes() as pool:
        zt.run(
            until_told,
            trace,
            executor=pool,
            until=lambda trace: bool(trace.recorded.min() > 20),
            progress=False,
        )
    assert trace.stop_request is None
    assert trace.status == "stopped"
    shortest = int(trace.recorded.min())
    assert shortest > 20
    assert np.array_equal(trace.get("x"), expected(shortest))


def until_told(index: int, trace: zt.Trace) -> None:
    rng = np.random.default_rng(index)
    with trace.writer(index) as writer:
        while not writer.stop_requested:
            writer.record({"x": rng.normal()})
            time.sleep(0.01)


CTRL_C = """
import multiprocessing, sys
from concurrent.futures import ProcessPoolExecutor
from test_executors import slowly
import zarrtrace as zt

if __name__ == "__main__":
    trace = zt.open(sys.argv[1], "a")
    with ProcessPoolExecutor(3, mp_context=multiprocessing.get_context("forkserver")) as pool:
        try:
            zt.run(slowly, trace, executor=pool, progress=False)
        except KeyboardInterrupt:
            print(trace.stop_request, trace.status)
"""


def test_ctrl_c_ends_chains_on_an_executor(directory: Place, script: Script) -> None:
    trace = create(directory, draws=5000)
    process = script.start(CTRL_C, directory.path)
    while trace.recorded.min() < 15:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)  # to the process that called run, and to no other one
    said, errors = process.communicate()
    assert (said, errors) == ("None stopped\n", "")
    recorded = trace.recorded
    assert recorded.max() < 5000
    assert np.array_equal(trace.get("x"), expected(int(recorded.min())))
