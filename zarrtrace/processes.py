"""The chains of a trace, each in a process of its own, or on any executor.

A process is a fresh interpreter that is sent the function by value: nothing depends on how
multiprocessing starts processes, and a script needs no `if __name__ == "__main__"`. If
`fork` is set, it is a fork of this process, which begins at once. One that raises, or is killed,
does not affect the others; one that is killed is started again, and continues from its checkpoint.
When this process dies, all end. Progress is read from the trace, as any reader could do.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, wait
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import cloudpickle

from .diagnostics.goal import Converged
from .errors import (
    ChainsFailedError,
    InvalidInputError,
    NotShareableError,
    StopRequestedError,
)
from .goals.looks import Looks
from .messages import counted, warn_caller
from .recording import exit as ending
from .trace import Trace

Block = int | range
ChainFunction = Callable[[Any, Trace], object]

_LOOK_EVERY = 0.1  # seconds
_ASK_EVERY = 1.0  # seconds between calls of `until`
_PREEMPTION = (signal.SIGUSR1, signal.SIGXCPU)  # the first one is what `run` itself sends
_LONGEST_LINE = 300  # characters of an exception in the common error; the notes have all of it
_START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from zarrtrace.processes import run_chain; run_chain(sys.argv[2])"
)


def run(
    chain_function: ChainFunction,
    trace: Trace,
    *,
    processes: int | None = None,
    executor: Executor | None = None,
    progress: bool = True,
    fork: bool = False,
    retries: int = 2,
    patience: float = 90.0,
    until: Callable[[Trace], bool] | Converged | None = None,
) -> None:
    """Run the chains that are not complete yet, in parallel.

    Parameters
    ----------
    chain_function : callable
        `chain_function(chain, trace)` records one chain: it opens `trace.writer(chain)`,
        calls `writer.resume()`, and records up to `trace.tune + trace.draws` draws. With
        `chains_per_chunk` it is given a range of chains. It may be a lambda, a closure, or
        defined in a notebook.
    trace : Trace
        A trace that is open for writing, and not in memory.
    processes : int, optional
        Chains at the same time; by default as many as this process may use cores.
    executor : concurrent.futures.Executor, optional
        Where to run the chains instead: threads, Dask, MPI. It must be able to send
        `chain_function`.
    progress : bool, default True
        Whether to show a bar for each chain.
    fork : bool, default False
        Whether processes may be forks of this one, which have imported and compiled everything and
        begin at once, instead of fresh interpreters. They are forks if the trace is in a local
        directory and the system can fork. Unsafe if this process runs threads of its own, as
        JAX does.
    retries : int, default 2
        How often a chain is started again, with a warning, when its process was killed: it
        continues from its last checkpoint. A chain that raised is not started again.
    patience : float, default 90
        Seconds that `trace.writer(chain)` waits by default for a
        writer elsewhere that may be dead: a job that was stopped and starts again on another host
        continues.
    until : Converged or callable, optional
        A goal, such as `zarrtrace.Converged(rhat=1.01, ess=400)`: once it is met the chains are
        asked to stop, all at the same draw, as by `Trace.request_stop`. Or a function:
        `until(trace)` says whether the chains have drawn enough. It is called repeatedly in this
        process, once every chain has a draw after its warmup. If it returns True, the chains end as
        by Ctrl-C: their writers close, and all draws are kept. Not for an executor, which cannot
        end what it runs. Needed if the trace has no fixed end, unless chains stop by themselves.

    Raises
    ------
    ChainsFailedError
        Some chains raised or died; raised after the others have ended. All draws are kept.
    InvalidInputError
        The goal cannot be reached by this run, or an argument cannot be used.
    KeyboardInterrupt
        After Ctrl-C, when every chain has closed its writer: all recorded draws are kept, and
        calling `run` again continues from there.

    See Also
    --------
    Trace.writer : The writer of one chain.
    Trace.extend : Allow more draws, for another `run`.

    Notes
    -----
    Any process can end it with `Trace.request_stop`, or `zarrtrace stop PATH`: the chains then end
    at the same draw. The writer of a chain that takes no notice ends it with a
    StopRequestedError, which does not count as a failure. Within `zarrtrace.signals.preemptible` a
    signal reaches the processes too, and `run` returns when their chains have ended. A chain that
    has all its draws does not count as a failure, however its process ended.

    Examples
    --------
    >>> import numpy as np
    >>> import zarrtrace as zt
    >>> def chain(number, trace):
    ...     rng = np.random.default_rng([1, number])
    ...     with trace.writer(number) as writer:
    ...         start, state = writer.resume()
    ...         if state is not None:
    ...             rng.bit_generator.state = state
    ...         for draw in range(start, trace.tune + trace.draws):
    ...             writer.record({"mu": rng.normal()})
    ...             if draw % 100 == 99:
    ...                 writer.checkpoint(rng.bit_generator.state)
    >>> trace = zt.create("run.zarr", chains=2, tune=100, draws=400, posterior={"mu": 0.0})
    >>> zt.run(chain, trace, progress=False)
    >>> trace.recorded
    array([500, 500])

    Chains without a fixed end are run until there is enough:

    >>> def enough(trace):
    ...     return len(trace.posterior.draw) > 2000
    >>> trace = zt.create("longer.zarr", chains=2, draws=None, posterior={"mu": 0.0})
    >>> zt.run(chain, trace, until=enough, progress=False, fork=True)
    >>> bool(trace.recorded.min() > 2000)
    True
    """
    trace._location.require_writable()
    moment = trace._now()
    missing = [block for block in trace.blocks if moment.counts[_first(block)] < moment.end.draws]
    if moment.end.request is not None and not missing:
        warn_caller(
            f"{trace.path} was asked to stop {moment.end.request}, and no chain has to draw more; "
            f"trace.cancel_stop() takes that back, and trace.extend(draws=...) makes room for more"
        )
    rule = _Goal(trace, until) if isinstance(until, Converged) else _Rule(trace, until)
    if not missing or rule.holds():
        return
    is_number = isinstance(retries, int) and not isinstance(retries, bool)
    if not is_number or retries < 0:
        raise InvalidInputError(f"retries must be a whole number from 0, got {retries!r}")
    attempts = _Attempts(trace, retries)
    trace = trace._with_patience(patience)
    with _bars(trace, missing, progress) as refresh:
        if executor is not None:
            if not isinstance(until, Converged | None):
                raise InvalidInputError(
                    "until: an executor cannot end what it runs; let chain_function look at the "
                    "trace now and then and return, or leave out the executor"
                )
            failures = _run_on_executor(chain_function, trace, missing, executor, refresh, rule)
        elif trace._location.in_memory:
            raise NotShareableError(
                "a trace in memory cannot be written by other processes; create it with a path, "
                "or pass executor=concurrent.futures.ThreadPoolExecutor()"
            )
        else:
            # A chain without an end never frees its process for another one.
            least = 1 if trace.has_end else len(missing)
            limit = max(_cores(), least) if processes is None else processes
            if not isinstance(limit, int) or limit < least:
                raise InvalidInputError(
                    f"processes must be a whole number from {least}, got {limit!r}"
                )
            # Connections to a server do not survive a fork.
            forks = fork and trace._location.path is not None and hasattr(os, "fork")
            start = _ForkedProcess if forks else _FreshProcess
            start_chain = partial(start, chain_function, trace)
            failures = _run_on_processes(
                trace, start_chain, missing, limit, refresh, rule, attempts
            )
    rule.close()
    if failures:
        raise _failed(trace, failures, len(missing))


def _cores() -> int:
    """The cores this process may run on: a job of a cluster has fewer than its machine."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _first(block: Block) -> int:
    return block if isinstance(block, int) else block[0]


def _failed(trace: Trace, failures: dict[int, str], tried: int) -> ChainsFailedError:
    counts = trace.recorded
    lines = [f"{len(failures)} of {tried} chains failed; the draws of all of them are kept:"]
    for chain, report in sorted(failures.items()):
        last = _first_line(report)
        last = last if len(last) <= _LONGEST_LINE else f"{last[:_LONGEST_LINE]} ..."
        lines.append(f"  chain {chain} after {counts[chain]} draws: {last}")
    lines.append("Fix the cause and call run() again: it continues from there.")
    error = ChainsFailedError("\n".join(lines), failures)
    for chain, report in sorted(failures.items()):
        error.add_note(f"\nchain {chain}:\n{report.rstrip()}")
    return error


def _first_line(report: str) -> str:
    """The type of an exception and the first line of its message, in a traceback's text."""
    lines = report.rpartition("Traceback (most recent call last):")[2].strip("\n").splitlines()
    said = [line for line in lines if line and not line.startswith(" ")]
    return said[0] if said else report.strip()


# One process per chain --------------------------------------------------------------------


class _ChainProcess(Protocol):
    """The process of one chain."""

    def poll(self) -> int | None:
        """The exit code, or None while it runs; the negative number of the signal it died of."""

    def wait(self, timeout: float | None = None) -> None:
        """Wait until it has ended, or for some seconds."""

    def preempt(self) -> None:
        """Ask its chain to end with the state to continue from."""

    def terminate(self) -> None:
        """Ask it to end: it closes its writer on the way out."""


class _Rule:
    """Calls `until` now and then."""

    def __init__(self, trace: Trace, until: Callable[[Trace], bool] | None) -> None:
        self._trace = trace
        self._until = until
        self._next = 0.0

    def holds(self) -> bool:
        """Whether it is time to call, and the chains have drawn enough."""
        began = time.monotonic()
        if self._until is None or began < self._next:
            return False
        has_draws = self._trace.recorded.min() > self._trace.burn_in
        found = bool(has_draws and self._until(self._trace))
        now = time.monotonic()
        # A slow rule takes at most a tenth of the time.
        self._next = now + max(_ASK_EVERY, 9 * (now - began))
        return found

    def close(self) -> None:
        """Nothing is left to do."""


class _Goal:
    """Looks at a run until its goal is met, and lets its chains end by themselves."""

    def __init__(self, trace: Trace, goal: Converged) -> None:
        self._trace = trace
        self._goal = goal
        self._looks = Looks(trace, goal)

    def holds(self) -> bool:
        """Look if it is time; the run is asked to stop, and its chains are not interrupted."""
        self._looks.look()
        return False

    def close(self) -> None:
        """Say it if the chains have ended before the goal was met."""
        self._looks.close()
        last = self._looks.last
        is_stopped = self._trace._now().end.request is not None or ending.preempted_by()
        if self._looks.stops_at is None and not is_stopped:
            seen = f"at the last look: {last}" if last is not None else "there was no look"
            warn_caller(
                f"the chains of {self._trace.path} ended before the goal {self._goal} was met and "
                f"confirmed; {seen}"
            )


class _Attempts:
    """Says which chains are started again, and which have failed."""

    def __init__(self, trace: Trace, retries: int) -> None:
        self._trace = trace
        self._retries = retries
        self._made: Counter[int] = Counter()

    def needs_more(self, block: Block, report: str) -> bool:
        """Whether draws are missing of a chain whose process ended badly; warns if not."""
        moment = self._trace._now()
        if moment.counts[_first(block)] < moment.end.draws:
            return True
        warn_caller(
            f"{_name(block)} of {self._trace.path} has all its draws, but its process ended badly "
            f"after the last one: {_first_line(report)}"
        )
        return False

    def another(self, block: Block, why: str) -> bool:
        """Whether to start a chain again whose process or worker is gone; warns if so."""
        chain = _first(block)
        if ending.preempted_by() or self._made[chain] >= self._retries:
            return False
        self._made[chain] += 1
        count = counted(int(self._trace.recorded[chain]), "draw")
        warn_caller(
            f"{_name(block)} of {self._trace.path} was lost after {count} ({why}); it is started "
            f"again, {self._made[chain]} of {self._retries} times"
        )
        return True


def _run_on_processes(
    trace: Trace,
    start: Callable[[Block, Path], _ChainProcess],
    blocks: list[Block],
    limit: int,
    refresh: Callable[[], None],
    rule: _Rule | _Goal,
    attempts: _Attempts,
) -> dict[int, str]:
    waiting = list(reversed(blocks))
    running: dict[Block, _ChainProcess] = {}
    failures: dict[int, str] = {}
    with tempfile.TemporaryDirectory(prefix="zarrtrace-") as folder:
        try:
            while (waiting or running) and not rule.holds():
                if ending.preempted_by():
                    waiting.clear()
                    for process in running.values():
                        process.preempt()
                while waiting and len(running) < limit:
                    block = waiting.pop()
                    if _has_to_stop(trace, block):
                        continue
                    report_file = Path(folder) / f"chain-{_first(block)}.txt"
                    running[block] = start(block, report_file)
                if running:
                    next(iter(running.values())).wait(_LOOK_EVERY)
                for block, process in list(running.items()):
                    exit_code = process.poll()
                    if exit_code is not None:
                        del running[block]
                        report_file = Path(folder) / f"chain-{_first(block)}.txt"
                        report = _report(exit_code, report_file)
                        if not report or not attempts.needs_more(block, report):
                            continue
                        is_lost = not report_file.exists()
                        if is_lost and attempts.another(block, report):
                            waiting.insert(0, block)
                        else:
                            failures[_first(block)] = report
                refresh()
        finally:
            for process in running.values():
                process.terminate()
            for process in running.values():
                process.wait()
    return failures


def _has_to_stop(trace: Trace, block: Block) -> bool:
    """Whether a chain that has not begun shall not begin: it was asked to stop before."""
    moment = trace._now()
    return moment.end.request is not None and moment.counts[_first(block)] >= moment.end.draws


def _report(exit_code: int, report_file: Path) -> str:
    """The traceback of a process, or how it died without leaving one; "" when it succeeded."""
    if report_file.exists():
        return report_file.read_text()
    if exit_code < 0:
        return f"killed by {signal.Signals(-exit_code).name}"
    return f"the process ended with exit code {exit_code}"


class _FreshProcess:
    """A fresh interpreter; its standard input stays open as long as this process lives."""

    def __init__(
        self, chain_function: ChainFunction, trace: Trace, block: Block, report_file: Path
    ) -> None:
        payload = cloudpickle.dumps((chain_function, block, trace))
        command = [sys.executable, "-c", _START, json.dumps(sys.path), str(report_file)]
        with _preemption_held_back():
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE)
        assert self._process.stdin is not None
        self._input = self._process.stdin
        # A process that has ended already is known by its exit code.
        with suppress(BrokenPipeError):
            self._input.write(len(payload).to_bytes(8, "little") + payload)
            self._input.flush()

    def poll(self) -> int | None:
        exit_code = self._process.poll()
        if exit_code is not None:
            self._input.close()
        return exit_code

    def wait(self, timeout: float | None = None) -> None:
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout)
            self._input.close()

    def preempt(self) -> None:
        self._process.send_signal(_PREEMPTION[0])

    def terminate(self) -> None:
        self._process.terminate()


class _ForkedProcess:
    """A fork of this process; a pipe stays open as long as this process lives."""

    def __init__(
        self, chain_function: ChainFunction, trace: Trace, block: Block, report_file: Path
    ) -> None:
        parent_lives, self._pipe = os.pipe()

        def run_in_fork() -> None:
            os.close(self._pipe)
            _run_chain(lambda: (chain_function, block, trace), report_file, parent_lives)

        self._process = multiprocessing.get_context("fork").Process(target=run_in_fork)
        with _preemption_held_back():
            self._process.start()
        os.close(parent_lives)

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> None:
        self._process.join(timeout)

    def preempt(self) -> None:
        if self._process.exitcode is None and self._process.pid is not None:
            os.kill(self._process.pid, _PREEMPTION[0])

    def terminate(self) -> None:
        self._process.terminate()

    def __del__(self) -> None:
        os.close(self._pipe)


@contextmanager
def _preemption_held_back() -> Iterator[None]:
    """Let signals wait that a new process could not handle yet: it begins with them blocked."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _PREEMPTION)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def run_chain(report_file: str) -> None:
    """Run one chain in this process, which `run` has started: it reads its task from stdin."""
    length = int.from_bytes(sys.stdin.buffer.read(8), "little")
    payload = sys.stdin.buffer.read(length)
    _run_chain(lambda: cloudpickle.loads(payload), Path(report_file), 0)


def _run_chain(
    task: Callable[[], tuple[ChainFunction, Block, Trace]], report_file: Path, parent_lives: int
) -> None:
    """Run one chain in this process, and store what it raises.

    `parent_lives` is a pipe that ends when the parent does.
    """
    # Ctrl-C reaches the whole process group, and the parent decides: it sends SIGTERM once, which
    # ends the chain as Ctrl-C would.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _interrupt)
    for number in _PREEMPTION:
        signal.signal(number, _preempt)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _PREEMPTION)
    report = ""
    try:
        threading.Thread(target=_end_with_parent, args=(parent_lives,), daemon=True).start()
        chain_function, block, trace = task()
        with suppress(StopRequestedError):
            chain_function(block, trace)
    except KeyboardInterrupt:
        report = "KeyboardInterrupt"
    except BaseException:
        report = traceback.format_exc()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    report_file.write_text(report)


def _interrupt(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt


def _preempt(number: int, frame: FrameType | None) -> None:
    ending.preempt(signal.Signals(number).name)


def _end_with_parent(parent_lives: int) -> None:
    # The parent never writes again: the read returns when the parent ends.
    os.read(parent_lives, 1)
    os.kill(os.getpid(), signal.SIGTERM)


# Any executor -----------------------------------------------------------------------------


def _run_on_executor(
    chain_function: ChainFunction,
    trace: Trace,
    blocks: list[Block],
    executor: Executor,
    refresh: Callable[[], None],
    rule: _Rule | _Goal,
) -> dict[int, str]:
    futures: dict[Future[object], Block] = {
        executor.submit(chain_function, block, trace): block for block in blocks
    }
    try:
        while wait(futures, timeout=_LOOK_EVERY).not_done:
            rule.holds()
            refresh()
    except BaseException:
        for future in futures:
            future.cancel()
        raise
    failures = {}
    for future, block in futures.items():
        error = future.exception()
        if error is not None and not isinstance(error, StopRequestedError):
            failures[_first(block)] = "".join(traceback.format_exception(error))
    return failures


# Progress ---------------------------------------------------------------------------------


@contextmanager
def _bars(trace: Trace, blocks: list[Block], shown: bool) -> Iterator[Callable[[], None]]:
    """A bar for each chain; yields a function that updates them."""
    if not shown:
        yield lambda: None
        return
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    total = trace.tune + trace.draws if trace.has_end else None
    display = Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TextColumn("{task.fields[phase]:<8}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        # There is no extra thread: this one looks at the trace and draws the bars.
        auto_refresh=False,
    )
    tasks = {
        _first(block): display.add_task(_name(block), start=False, total=total, phase="waiting")
        for block in blocks
    }

    def refresh() -> None:
        now = trace._now()
        for chain, task in tasks.items():
            count = int(now.counts[chain])
            if count and not display.tasks[task].started:
                display.start_task(task)
            phase = "warmup" if count < trace.tune else "sampling"
            phase = "done" if 0 < now.end.draws <= count else "waiting" if not count else phase
            # A chain that was asked to stop has a shorter way; one that has no end, none.
            way = now.end.of_chain(count) if now.end.request is not None else total
            display.update(task, completed=count, total=way, phase=phase)
        display.refresh()

    with display:
        try:
            yield refresh
        finally:
            refresh()


def _name(block: Block) -> str:
    return f"chain {block}" if isinstance(block, int) else f"chains {block[0]}-{block[-1]}"
