"""Promise 4: writers in as many processes as you like, one reader or many, and nobody waits."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from conftest import Encoded, Place
from scripts import FreshScript, Script

import zarrtrace as zt
from zarrtrace.errors import InvalidInputError

CHAIN = """
import os, signal, sys, time
import numpy as np
import zarrtrace as zt

def chain(index, trace):
    with trace.writer(index) as writer:
        start, _ = writer.resume()
        for i in range(start, trace.tune + trace.draws):
            writer.record({"mu": 1000 * index + i, "nu": [i, -i]})
"""


def create(place: Place, **more: Any) -> zt.Trace:
    return place.create(
        **{"chains": 3, "tune": 10, "draws": 50}
        | {
            "posterior": {
                "mu": zt.Var(draws_per_chunk=7),
                "nu": zt.Var(shape=2, draws_per_chunk=20),
            }
        }
        | more
    )


def is_complete(trace: zt.Trace) -> bool:
    total = trace.tune + trace.draws
    wanted = 1000 * np.arange(trace.chains)[:, None] + np.arange(trace.tune, total)
    return bool(
        (trace.recorded == total).all()
        and np.array_equal(trace.get("mu"), wanted)
        and np.array_equal(trace.get("nu")[:, :, 0], wanted % 1000)
    )


def chain(index: int, trace: zt.Trace) -> None:
    with trace.writer(index) as writer:
        start, _ = writer.resume()
        for i in range(start, trace.tune + trace.draws):
            writer.record({"mu": 1000 * index + i, "nu": [i, -i]})


@pytest.mark.parametrize(
    "method",
    [
        "fork",
        pytest.param("forkserver", marks=pytest.mark.once("newest")),
        pytest.param("spawn", marks=pytest.mark.once("oldest")),
    ],
)
def test_multiprocessing(directory: Place, fresh_script: FreshScript, method: str) -> None:
    trace = create(directory, chains=2)
    code = (
        CHAIN
        + f"""
if __name__ == "__main__":
    import multiprocessing
    context = multiprocessing.get_context({method!r})
    trace = zt.open(sys.argv[1], "a")
    processes = [context.Process(target=chain, args=(i, trace)) for i in range(trace.chains)]
    for process in processes: process.start()
    for process in processes: process.join()
    assert [process.exitcode for process in processes] == [0, 0]
"""
    )
    fresh_script.run(code, directory.path)
    assert is_complete(trace)


def test_threads(place: Place) -> None:
    trace = create(place)
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda index: chain(index, trace), range(3)))
    assert is_complete(trace)


def test_a_trace_is_sent_as_its_address(directory: Place) -> None:
    trace = create(directory, chains=1, tune=0, draws=3)
    sent = pickle.dumps(trace)
    assert len(sent) < 1000
    chain(0, pickle.loads(sent))
    assert is_complete(trace)


# zarrtrace.run --------------------------------------------------------------------------------

# From Python 3.12 on, forks are warned of.
on_both_kinds_of_processes = pytest.mark.parametrize(
    "fork",
    [
        pytest.param(False, id="fresh", marks=pytest.mark.once("oldest")),
        pytest.param(True, id="forked", marks=pytest.mark.once("newest")),
    ],
)


@on_both_kinds_of_processes
def test_run_takes_closures_and_runs_only_what_is_missing(directory: Place, fork: bool) -> None:
    trace = create(directory)
    chain(1, trace)
    seen = directory.path.parent / "seen"
    seen.mkdir()

    def remembered(index: int, trace: zt.Trace) -> None:
        (seen / str(index)).touch()
        with trace.writer(index) as writer:
            start, _ = writer.resume()
            for i in range(start, trace.tune + trace.draws):
                writer.record({"mu": 1000 * index + i, "nu": [i, -i]})

    zt.run(remembered, trace, progress=False, fork=fork)
    assert is_complete(trace)
    assert sorted(file.name for file in seen.iterdir()) == ["0", "2"]
    for file in seen.iterdir():
        file.unlink()
    zt.run(remembered, trace, progress=False, fork=fork)
    assert not list(seen.iterdir())


def test_a_script_needs_no_main_guard(directory: Place, fresh_script: FreshScript) -> None:
    trace = create(directory)
    code = (
        CHAIN
        + """
trace = zt.open(sys.argv[1], "a")
zt.run(chain, trace)
print(trace.recorded.tolist())
"""
    )
    printed = fresh_script.run(code, directory.path)
    assert printed.count("60/60 done") == 3
    assert printed.rstrip().endswith("[60, 60, 60]")
    assert is_complete(trace)


@on_both_kinds_of_processes
def test_a_chain_that_raises_is_reported_and_the_others_continue(
    directory: Place, fork: bool
) -> None:
    trace = create(directory)

    def fragile(index: int, trace: zt.Trace) -> None:
        with trace.writer(index) as writer:
            start, _ = writer.resume()
            for i in range(start, trace.tune + trace.draws):
                if index == 1 and i == 23:
                    raise ArithmeticError("the step size is zero")
                if index == 2 and i == 31:
                    os.kill(os.getpid(), signal.SIGKILL)
                writer.record({"mu": 1000 * index + i, "nu": [i, -i]})

    with pytest.raises(zt.errors.ChainsFailedError) as caught:
        zt.run(fragile, trace, progress=False, fork=fork, retries=0)
    error = caught.value
    assert sorted(error.failures) == [1, 2]
    assert "2 of 3 chains failed" in str(error)
    assert "chain 1 after 23 draws: ArithmeticError: the step size is zero" in str(error)
    assert "chain 2 after 31 draws: killed by SIGKILL" in str(error)
    assert "in fragile" in error.failures[1]
    assert any("Traceback" in note for note in error.__notes__)
    assert trace.recorded.tolist() == [60, 23, 31]
    zt.run(chain, trace, progress=False, fork=True)
    assert is_complete(trace)


@pytest.mark.once("newest")
def test_chains_without_an_end_run_until_a_rule_says_stop(directory: Place) -> None:
    # More chains than a small machine has cores: all of them run at once.
    trace = directory.create(chains=3, tune=4, draws=None, posterior={"x": zt.Var()})
    asked: list[int] = []

    def enough(trace: zt.Trace) -> bool:
        asked.append(trace.posterior.sizes["draw"])
        return asked[-1] >= 20

    def chain(index: Any, trace: zt.Trace) -> None:
        with trace.writer(index) as writer:
            for draw in range(trace.tune + trace.draws):
                time.sleep(0.001)
                writer.record({"x": float(draw)})

    zt.run(chain, trace, until=enough, progress=False, fork=True)
    assert trace.status == "stopped"
    assert asked[-1] >= 20
    shortest = int(trace.recorded.min())
    assert trace.get("x").tolist() == [[*range(4, shortest)]] * 3
    # It asks before it starts anything.
    zt.run(chain, trace, until=enough, progress=False)
    assert len(asked) >= 2
    with pytest.raises(InvalidInputError, match="processes must be a whole number from 3, got 2"):
        zt.run(chain, trace, processes=2, progress=False)


@pytest.mark.once("newest")
def test_blocks_of_chains(directory: Place) -> None:
    trace = create(directory, chains=5, chains_per_chunk=2, tune=0)

    def block(chains: range, trace: zt.Trace) -> None:
        with trace.writer(chains) as writer:
            numbers = 1000 * np.array(chains)
            for i in range(trace.draws):
                writer.record({"mu": numbers + i, "nu": [[i, -i]] * len(chains)})

    zt.run(block, trace, progress=False)
    assert is_complete(trace)


def test_an_executor(directory: Place) -> None:
    import multiprocessing

    trace = create(directory)
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        with pytest.raises(zt.errors.ChainsFailedError) as caught:
            zt.run(_not_there, trace, executor=pool, progress=False)
        assert sorted(caught.value.failures) == [0, 1, 2]
    with ThreadPoolExecutor(2) as threads:
        zt.run(chain, trace, executor=threads, progress=False)
    assert is_complete(trace)


def _not_there(index: int, trace: zt.Trace) -> None:
    raise LookupError(f"chain {index}")


ENDLESS = """
import os, sys, time
import zarrtrace as zt

def chain(index, trace):
    with trace.writer(index) as writer:
        start, _ = writer.resume()
        for i in range(start, trace.tune + trace.draws):
            writer.record({"mu": 1000 * index + i, "nu": [i, -i]})
            if len(sys.argv) < 3:
                time.sleep(0.01)

trace = zt.open(os.environ["TRACE"], "a")
zt.run(chain, trace, progress=False, fork="FORK" in os.environ)
"""


def start_endless(
    directory: Place, fresh_script: FreshScript, fork: bool, monkeypatch: pytest.MonkeyPatch
) -> subprocess.Popen[str]:
    monkeypatch.setenv("TRACE", str(directory.path))
    if fork:
        monkeypatch.setenv("FORK", "1")
    return fresh_script.start(ENDLESS, start_new_session=True)


@on_both_kinds_of_processes
@pytest.mark.parametrize("whole_group", [True, False])
def test_ctrl_c_keeps_every_draw_and_leaves_no_process(
    directory: Place,
    fresh_script: FreshScript,
    whole_group: bool,
    fork: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trace = create(directory, chains=2, draws=5000)
    process = start_endless(directory, fresh_script, fork, monkeypatch)
    wait_for(lambda: (trace.recorded > 5).all())
    (os.killpg if whole_group else os.kill)(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=300)
    assert "KeyboardInterrupt" in errors
    counts = trace.recorded
    assert (counts > 5).all()
    for index in range(2):
        with trace.writer(index) as writer:
            assert writer.resume() == (counts[index], None)
    kept = int(counts.min())
    assert trace.dataset("warmup_posterior").mu.values[1].tolist() == [
        1000 + i for i in range(min(kept, 10))
    ]
    assert not processes_of(process.pid)


@on_both_kinds_of_processes
def test_the_chains_end_with_the_parent(
    directory: Place, fresh_script: FreshScript, fork: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace = create(directory, chains=2, draws=5000)
    process = start_endless(directory, fresh_script, fork, monkeypatch)
    wait_for(lambda: (trace.recorded > 5).all())
    process.kill()
    process.communicate(timeout=300)
    wait_for(lambda: not processes_of(process.pid))
    trace.writer(0).close()


@pytest.mark.once("newest")
def test_where_a_store_is_not_local_processes_are_fresh_interpreters(bucket: Place) -> None:
    """A fork would hang: what speaks to a server has threads."""
    trace = create(bucket, chains=1)
    here = os.getpid()

    def chain_of_a_fresh_interpreter(index: int, trace: zt.Trace) -> None:
        assert os.getppid() == here
        assert sys.argv[0] == "-c"
        chain(index, trace)

    zt.run(chain_of_a_fresh_interpreter, trace, progress=False, fork=True)
    assert is_complete(trace)


def processes_of(group: int) -> list[str]:
    done = subprocess.run(["ps", "-eo", "pgid=,stat=,pid="], capture_output=True, text=True)
    rows = [line.split() for line in done.stdout.splitlines()]
    return [pid for pgid, state, pid in rows if int(pgid) == group and "Z" not in state]


def wait_for(condition: Any) -> None:
    for _ in range(6000):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("it did not happen")


# Reading meanwhile ----------------------------------------------------------------------------


@pytest.mark.once("newest")
def test_a_third_process_reads_without_pause_while_two_write(
    directory: Place, script: Script, encoded: Encoded
) -> None:
    trace = encoded.create(directory, chains=2, tune=40, draws=160)
    writer = """
import sys
import zarrtrace as zt
from conftest import Encoded
trace, index = zt.open(sys.argv[1], "a"), int(sys.argv[2])
with trace.writer(index) as writer:
    for i in range(200):
        if i % 20 == 0:
            sys.stdin.readline()
        writer.record(**Encoded().draw(index, i))
"""
    writers = [script.start(writer, directory.path, index) for index in range(2)]
    asked, previous, seen = [0, 0], np.zeros(2, int), set()
    while any(process.poll() is None for process in writers):
        for index, process in enumerate(writers):
            # However fast they are: once 20 draws were seen, 20 more are recorded meanwhile.
            if previous[index] == asked[index] < 200:
                process.stdin.write("\n")
                process.stdin.flush()
                asked[index] += 20
        reader = zt.open(directory.path)
        before = reader.recorded
        assert (before >= previous).all()
        for group, first in (("warmup_posterior", 0), ("posterior", 40), ("sample_stats", 40)):
            for index in range(2):
                cut = reader.dataset(group, chains=index)
                encoded.check(cut, first, first + cut.sizes["draw"], chains=[index])
                least = min(max(before[index] - first, 0), 40 if first == 0 else 160)
                assert cut.sizes["draw"] >= least
        previous = before
        seen.add(int(before.sum()))
    assert [process.wait() for process in writers] == [0, 0]
    for process in writers:
        process.communicate()
    assert len(seen) >= 10
    trace.finish()
    encoded.check_split(zt.open(directory.path), 40, 200)


@pytest.mark.once("newest")
def test_a_reader_is_not_disturbed_by_a_split_and_a_finish(
    directory: Place, script: Script, encoded: Encoded
) -> None:
    encoded.fill(encoded.create(directory, chains=2, tune=100, draws=50))
    code = """
import sys
import zarrtrace as zt
trace = zt.open(sys.argv[1], "a")
for at in (20, 100, 35, 100):
    sys.stdin.readline()
    trace.split_warmup(at)
sys.stdin.readline()
trace.finish()
"""
    process = script.start(code, directory.path)
    held = zt.open(directory.path).posterior
    polls = 0
    while process.poll() is None:
        if polls < 5:
            # However fast it is: it does each of these things during another look, or later.
            process.stdin.write("\n")
            process.stdin.flush()
        reader = zt.open(directory.path)
        cut = reader.dataset("posterior")
        start = cut.attrs["tuning_steps"]
        assert start in (20, 35, 100)
        encoded.check(cut, start, 150)
        polls += 1
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    assert polls > 4
    encoded.check(held, 100, 150)
