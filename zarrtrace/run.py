"""The chains of a trace on processes of their own, or on any executor.

Here each chain has a process: one that raises, or is killed, takes no other with it. Progress
is read from the trace, as anyone could read it.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, wait
from contextlib import contextmanager
from multiprocessing import connection
from multiprocessing.context import BaseContext
from typing import Any

import cloudpickle

from .errors import ChainsFailedError, InvalidInputError, NotShareableError
from .trace import Trace

Block = int | range
ChainFunction = Callable[[Any, Trace], object]

_REFRESH = 0.2  # seconds between two looks at the trace


def run(
    chain_function: ChainFunction,
    trace: Trace,
    *,
    processes: int | None = None,
    start_method: str | None = None,
    executor: Executor | None = None,
    progress: bool = True,
) -> None:
    """Run the chains that are not complete yet, side by side.

    Parameters
    ----------
    chain_function : callable
        `chain_function(chain, trace)` records one chain: it opens `trace.writer(chain)`, asks
        `writer.resume()` where to begin, and records up to `trace.tune + trace.draws` draws. With
        `chains_per_chunk` it is given a range of chains. May be defined in a notebook.
    trace : Trace
        Open for writing, and not in memory.
    processes : int, optional
        Chains at the same time; as many as there are cores by default.
    start_method : "fork", "forkserver" or "spawn", optional
        As in `multiprocessing`, whose default it has.
    executor : concurrent.futures.Executor, optional
        Where to run the chains instead: a thread pool, Dask, MPI. It must be able to send
        `chain_function`.
    progress : bool, default True
        Whether to show a bar for each chain.

    Raises
    ------
    ChainsFailedError
        Some chains raised or died, after the others have ended. Their draws are kept too.
    KeyboardInterrupt
        After Ctrl-C, when every chain has closed its writer: all recorded draws are kept, and
        calling `run` again goes on from there.
    """
    trace._location.require_writable()
    total = trace.tune + trace.draws
    counts = trace.recorded
    missing = [
        block
        for block in trace.blocks
        if counts[block if isinstance(block, int) else block[0]] < total
    ]
    if not missing:
        return
    with _bars(trace, missing, progress):
        if executor is not None:
            failures = _run_on_executor(chain_function, trace, missing, executor)
        else:
            if trace._location.in_memory:
                raise NotShareableError(
                    "a trace in memory cannot be written by other processes; create it with a "
                    "path, or pass executor=concurrent.futures.ThreadPoolExecutor()"
                )
            limit = processes if processes is not None else os.cpu_count() or 1
            if not isinstance(limit, int) or limit < 1:
                raise InvalidInputError(f"processes is a whole number from 1, got {processes!r}")
            context = multiprocessing.get_context(start_method)
            failures = _run_on_processes(chain_function, trace, missing, limit, context)
    if failures:
        raise _failed(trace, failures, len(missing))


def _first(block: Block) -> int:
    return block if isinstance(block, int) else block[0]


def _failed(trace: Trace, failures: dict[int, str], tried: int) -> ChainsFailedError:
    lines = [f"{len(failures)} of {tried} chains failed; the draws of all of them are kept:"]
    for chain, report in sorted(failures.items()):
        lines.append(
            f"  chain {chain} after {trace.recorded[chain]} draws: "
            f"{report.strip().splitlines()[-1]}"
        )
    lines.append("Their tracebacks follow. Mend the cause and call run() again to go on.")
    error = ChainsFailedError("\n".join(lines), failures)
    for chain, report in sorted(failures.items()):
        error.add_note(f"\nchain {chain}:\n{report.rstrip()}")
    return error


# One process per chain --------------------------------------------------------------------


def _run_on_processes(
    chain_function: ChainFunction,
    trace: Trace,
    blocks: list[Block],
    limit: int,
    context: BaseContext,
) -> dict[int, str]:
    # cloudpickle: functions of a notebook, which plain pickle cannot send.
    payload = cloudpickle.dumps((chain_function, trace))
    waiting = list(reversed(blocks))
    running: dict[Any, tuple[Block, Any, connection.Connection]] = {}
    failures: dict[int, str] = {}
    try:
        while waiting or running:
            while waiting and len(running) < limit:
                block = waiting.pop()
                receiver, sender = context.Pipe(duplex=False)
                process = context.Process(  # type: ignore[attr-defined]
                    target=_chain_process,
                    args=(payload, block, sender),
                    name=f"zarrtrace chain {_first(block)}",
                )
                process.start()
                sender.close()
                running[process.sentinel] = block, process, receiver
            for sentinel in connection.wait(list(running)):
                block, process, receiver = running.pop(sentinel)
                process.join()
                report = _report(process, receiver)
                if report is not None:
                    failures[_first(block)] = report
    except BaseException:
        _stop(running)
        raise
    return failures


def _report(process: Any, receiver: connection.Connection) -> str | None:
    """The traceback a process has sent, or how it died without sending one."""
    try:
        with receiver:
            report: str | None = receiver.recv()
            return report
    except EOFError:
        code = process.exitcode
        if code is not None and code < 0:
            return f"killed by {signal.Signals(-code).name}"
        return f"the process ended with exit code {code}"


def _stop(running: dict[Any, tuple[Block, Any, connection.Connection]]) -> None:
    """Ask every chain to end; each closes its writer on the way out."""
    for _, process, _ in running.values():
        process.terminate()
    for _, process, receiver in running.values():
        process.join()
        receiver.close()


def _chain_process(payload: bytes, block: Block, sender: connection.Connection) -> None:
    # Ctrl-C reaches the whole process group, and the parent decides: it sends SIGTERM once, which
    # ends the chain as Ctrl-C would.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _interrupt)
    report = None
    try:
        chain_function, trace = cloudpickle.loads(payload)
        chain_function(block, trace)
    except KeyboardInterrupt:
        report = "KeyboardInterrupt"
    except BaseException:
        report = traceback.format_exc()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with sender:
        sender.send(report)


def _interrupt(number: int, frame: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt


# Any executor -----------------------------------------------------------------------------


def _run_on_executor(
    chain_function: ChainFunction, trace: Trace, blocks: list[Block], executor: Executor
) -> dict[int, str]:
    futures: dict[Future[object], Block] = {
        executor.submit(chain_function, block, trace): block for block in blocks
    }
    try:
        # Not as_completed: Dask's futures and MPI's are waited for in the same way.
        wait(futures)
    except BaseException:
        for future in futures:
            future.cancel()
        raise
    failures = {}
    for future, block in futures.items():
        error = future.exception()
        if error is not None:
            failures[_first(block)] = "".join(traceback.format_exception(error))
    return failures


# Progress ---------------------------------------------------------------------------------


@contextmanager
def _bars(trace: Trace, blocks: list[Block], shown: bool) -> Iterator[None]:
    """A bar for each chain, moved by a thread that reads the trace."""
    if not shown:
        yield
        return
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    display = Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TextColumn("{task.fields[phase]:<8}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    total = trace.tune + trace.draws
    tasks = {
        _first(block): display.add_task(_name(block), total=total, phase="waiting")
        for block in blocks
    }

    def refresh() -> None:
        counts = trace.recorded
        for chain, task in tasks.items():
            count = int(counts[chain])
            phase = "warmup" if count < trace.tune else "sampling"
            phase = "done" if count == total else "waiting" if not count else phase
            display.update(task, completed=count, phase=phase)

    done = threading.Event()

    def follow() -> None:
        while not done.wait(_REFRESH):
            refresh()

    follower = threading.Thread(target=follow, name="zarrtrace progress", daemon=True)
    with display:
        follower.start()
        try:
            yield
        finally:
            done.set()
            follower.join()
            refresh()


def _name(block: Block) -> str:
    return f"chain {block}" if isinstance(block, int) else f"chains {block[0]}-{block[-1]}"
