"""The chains of a trace, each in a process of its own.

A process is a fresh interpreter that is sent the function by value: nothing depends on how
multiprocessing starts processes, and a script needs no `if __name__ == "__main__"`. If
`fork` is set, it is a fork of this process, which begins at once. One that raises, or is killed,
does not affect the others; one that is killed is started again, and continues from its checkpoint.
When this process dies, all end. A signal of a scheduler, which may reach all of them at once, ends
each chain with the state to continue from.
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
_START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from zarrtrace.processes.one_per_chain import run_chain; run_chain(*sys.argv[2:])"
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
                        elif not (is_lost and ending.preempted_by()):
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


class _EndsByPipe:
    """A process that ends when it is sent a byte, or when this process and its pipe are gone.

    SIGTERM may come from a scheduler, and ends a chain in another way.
    """

    def __init__(self) -> None:
        self._end, self._pipe = os.pipe()

    def terminate(self) -> None:
        """Ask it to end: it closes its writer on the way out."""
        with suppress(BrokenPipeError):  # it has ended
            os.write(self._pipe, b"e")

    def __del__(self) -> None:
        os.close(self._pipe)


class FreshProcess(_EndsByPipe):
    """A fresh interpreter, which is sent its task by its standard input."""

    def __init__(
        self, chain_function: ChainFunction, trace: Trace, block: Block, report_file: Path
    ) -> None:
        super().__init__()
        payload = cloudpickle.dumps((chain_function, block, trace))
        arguments = [json.dumps(sys.path), str(report_file), str(self._end)]
        with _preemption_held_back():
            self._process = subprocess.Popen(
                [sys.executable, "-c", _START, *arguments],
                stdin=subprocess.PIPE,
                pass_fds=[self._end],
            )
        os.close(self._end)
        assert self._process.stdin is not None
        # A process that has ended already is known by its exit code.
        with suppress(BrokenPipeError), self._process.stdin as task:
            task.write(payload)

    def poll(self) -> int | None:
        """The exit code, or None while it runs."""
        return self._process.poll()

    def wait(self, timeout: float | None = None) -> None:
        """Wait until it has ended, or for some seconds."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout)

    def preempt(self) -> None:
        """Ask its chain to end with the state to continue from."""
        self._process.send_signal(ending.FORWARDED)


class ForkedProcess(_EndsByPipe):
    """A fork of this process."""

    def __init__(
        self, chain_function: ChainFunction, trace: Trace, block: Block, report_file: Path
    ) -> None:
        super().__init__()

        def run_in_fork() -> None:
            os.close(self._pipe)
            _run_chain(lambda: (chain_function, block, trace), report_file, self._end)

        self._process = multiprocessing.get_context("fork").Process(target=run_in_fork)
        with _preemption_held_back():
            self._process.start()
        os.close(self._end)

    def poll(self) -> int | None:
        """The exit code, or None while it runs."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> None:
        """Wait until it has ended, or for some seconds."""
        self._process.join(timeout)

    def preempt(self) -> None:
        """Ask its chain to end with the state to continue from."""
        if self._process.exitcode is None and self._process.pid is not None:
            os.kill(self._process.pid, ending.FORWARDED)


def _preemption() -> set[int]:
    """The signals that ask the chain of a process to end, of a scheduler and of `run` itself."""
    return {ending.FORWARDED, signal.SIGXCPU} | ending.preemption_signals()


@contextmanager
def _preemption_held_back() -> Iterator[None]:
    """Let signals wait that a new process could not handle yet: it begins with them blocked."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _preemption())
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def run_chain(report_file: str, end: str) -> None:
    """Run one chain in this process, which `run` has started: it reads its task from stdin."""
    payload = sys.stdin.buffer.read()
    _run_chain(lambda: cloudpickle.loads(payload), Path(report_file), int(end))


def _run_chain(
    task: Callable[[], tuple[ChainFunction, Block, Trace]], report_file: Path, end: int
) -> None:
    """Run one chain in this process, and store what it raises.

    `end` is a pipe that says when the chain has to end, and that ends when the parent does.
    """
    # Ctrl-C reaches the whole process group, and the parent decides: it ends the chain by the pipe.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _interrupt)
    for number in _preemption():
        signal.signal(number, _preempt)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _preemption())
    report = ""
    try:
        threading.Thread(target=_interrupt_at, args=(end,), daemon=True).start()
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
    if number == signal.SIGTERM:
        if _has_to_end.is_set():
            _interrupt(number, frame)
        # A second one ends the process at once, as within `preemptible`.
        signal.signal(signal.SIGTERM, _interrupt)
    ending.preempt(signal.Signals(number).name)


_has_to_end = threading.Event()


def _interrupt_at(end: int) -> None:
    """End the chain as Ctrl-C would, when the parent says so or has ended."""
    os.read(end, 1)
    _has_to_end.set()
    os.kill(os.getpid(), signal.SIGTERM)
