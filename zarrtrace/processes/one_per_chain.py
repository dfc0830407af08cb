"""The chains of a trace, each in a process of its own.

A process is a fresh interpreter that is sent the function by value: nothing depends on how
multiprocessing starts processes, and a script needs no `if __name__ == "__main__"`. If
`fork` is set, it is a fork of this process, which begins at once. One that raises, or is killed,
does not affect the others; one that is killed is started again, and continues from its checkpoint.
When this process dies, all end.
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
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Protocol

import cloudpickle

from ..errors import StopRequestedError
from ..recording import exit as ending
from ..trace import Trace
from .attempts import Attempts
from .chains import Block, ChainFunction, first_chain
from .rules import Rule

_LOOK_EVERY = 0.1  # seconds
_PREEMPTION = (signal.SIGUSR1, signal.SIGXCPU)  # the first one is what `run` itself sends
_START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from zarrtrace.processes.one_per_chain import run_chain; run_chain(sys.argv[2])"
)


class ChainProcess(Protocol):
    """The process of one chain."""

    def poll(self) -> int | None:
        """The exit code, or None while it runs; the negative number of the signal it died of."""

    def wait(self, timeout: float | None = None) -> None:
        """Wait until it has ended, or for some seconds."""

    def preempt(self) -> None:
        """Ask its chain to end with the state to continue from."""

    def terminate(self) -> None:
        """Ask it to end: it closes its writer on the way out."""


def run_on_processes(
    trace: Trace,
    start: Callable[[Block, Path], ChainProcess],
    blocks: list[Block],
    limit: int,
    refresh: Callable[[], None],
    rule: Rule,
    attempts: Attempts,
) -> dict[int, str]:
    """Run chains in processes; returns why chains failed, by their first chain.

    Parameters
    ----------
    start : callable
        Starts the process of a chain, which writes why it failed into the file that it is given.
    limit : int
        How many processes run at the same time.
    """
    waiting = list(reversed(blocks))
    running: dict[Block, ChainProcess] = {}
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
                    report_file = Path(folder) / f"chain-{first_chain(block)}.txt"
                    running[block] = start(block, report_file)
                if running:
                    next(iter(running.values())).wait(_LOOK_EVERY)
                for block, process in list(running.items()):
                    exit_code = process.poll()
                    if exit_code is not None:
                        del running[block]
                        report_file = Path(folder) / f"chain-{first_chain(block)}.txt"
                        report = _report(exit_code, report_file)
                        if not report or not attempts.needs_more(block, report):
                            continue
                        is_lost = not report_file.exists()
                        if is_lost and attempts.another(block, report):
                            waiting.insert(0, block)
                        else:
                            failures[first_chain(block)] = report
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
    return moment.end.request is not None and moment.counts[first_chain(block)] >= moment.end.draws


def _report(exit_code: int, report_file: Path) -> str:
    """The traceback of a process, or how it died without leaving one; "" when it succeeded."""
    if report_file.exists():
        return report_file.read_text()
    if exit_code < 0:
        return f"killed by {signal.Signals(-exit_code).name}"
    return f"the process ended with exit code {exit_code}"


class FreshProcess:
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
        """The exit code, or None while it runs."""
        exit_code = self._process.poll()
        if exit_code is not None:
            self._input.close()
        return exit_code

    def wait(self, timeout: float | None = None) -> None:
        """Wait until it has ended, or for some seconds."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout)
            self._input.close()

    def preempt(self) -> None:
        """Ask its chain to end with the state to continue from."""
        self._process.send_signal(_PREEMPTION[0])

    def terminate(self) -> None:
        """Ask it to end: it closes its writer on the way out."""
        self._process.terminate()


class ForkedProcess:
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
        """The exit code, or None while it runs."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> None:
        """Wait until it has ended, or for some seconds."""
        self._process.join(timeout)

    def preempt(self) -> None:
        """Ask its chain to end with the state to continue from."""
        if self._process.exitcode is None and self._process.pid is not None:
            os.kill(self._process.pid, _PREEMPTION[0])

    def terminate(self) -> None:
        """Ask it to end: it closes its writer on the way out."""
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
