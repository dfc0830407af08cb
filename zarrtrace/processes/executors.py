"""The chains of a trace on any executor: threads, a pool of processes, Dask, MPI.

What runs elsewhere cannot be interrupted, but it can be asked: when `run` ends early, a request to
stop in the store reaches the chains wherever they are.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    CancelledError,
    Executor,
    Future,
    ThreadPoolExecutor,
    wait,
)
from contextlib import suppress

from ..errors import StopRequestedError, TraceError
from ..life.stop import cancel_stop, request_stop
from ..recording import exit as ending
from ..trace import Trace
from .attempts import Attempts
from .chains import Block, ChainFunction, first_chain
from .rules import Rule

MakesExecutor = Callable[[], Executor]

_LOOK_EVERY = 0.1  # seconds
_BROKEN = (
    "\nThe executor is broken. Give run() a function that makes one, such as "
    "executor=lambda: ProcessPoolExecutor(4): then it makes another one, and continues.\n"
)
# Dask names them when a worker died too often, or cannot be reached. They derive from nothing that
# says so.
_LOST_WORKER = ("KilledWorker", "CommClosedError")


class Pool:
    """An executor, which can be made again if `run` was told how.

    Parameters
    ----------
    executor : Executor or callable
        It is used, and stays open, or it makes the one that is used and closed at the end.
    """

    def __init__(self, executor: Executor | MakesExecutor) -> None:
        self._make = None if isinstance(executor, Executor) else executor
        self.executor = executor if isinstance(executor, Executor) else executor()

    def replace(self, broken: Executor) -> bool:
        """Make another executor in place of a broken one; False if that cannot be done."""
        if self._make is None:
            return False
        # The chains of one executor all break together, and the first of them replaces it.
        if broken is self.executor:
            broken.shutdown(wait=False, cancel_futures=True)
            self.executor = self._make()
        return True

    def close(self) -> None:
        """Close the executor that was made here."""
        if self._make is not None:
            self.executor.shutdown(cancel_futures=True)


def run_on_executor(
    chain_function: ChainFunction,
    trace: Trace,
    blocks: list[Block],
    executor: Executor | MakesExecutor,
    refresh: Callable[[], None],
    rule: Rule,
    attempts: Attempts,
) -> dict[int, str]:
    """Run chains on an executor; returns why chains failed, by their first chain."""
    pool = Pool(executor)
    waiting = list(blocks)
    running: dict[Future[object], tuple[Block, Executor]] = {}
    failures: dict[int, str] = {}
    try:
        while waiting or running:
            if rule.holds() or _is_preempted_elsewhere(pool.executor):
                _end_elsewhere(trace, running)
                break
            while waiting:
                block = waiting.pop(0)
                future = _submit(pool.executor, chain_function, block, trace)
                running[future] = block, pool.executor
            ended = wait(running, timeout=_LOOK_EVERY, return_when=FIRST_COMPLETED).done
            for future in ended:
                block, used = running.pop(future)
                error = _error_of(future)
                if error is None or isinstance(error, StopRequestedError):
                    continue
                report = "".join(traceback.format_exception(error))
                if not attempts.needs_more(block, report):
                    continue
                has_pool = not isinstance(error, BrokenExecutor) or pool.replace(used)
                if has_pool and _is_lost(error) and attempts.another(block, repr(error)):
                    waiting.append(block)
                else:
                    failures[first_chain(block)] = report if has_pool else report + _BROKEN
            refresh()
    except BaseException:
        _end_elsewhere(trace, running)
        raise
    finally:
        pool.close()
    return failures


def _submit(
    executor: Executor, chain_function: ChainFunction, block: Block, trace: Trace
) -> Future[object]:
    """Submit a chain; a future that has failed if the executor is broken already."""
    try:
        return executor.submit(chain_function, block, trace)
    except BrokenExecutor as error:
        failed: Future[object] = Future()
        failed.set_exception(error)
        return failed


def _error_of(future: Future[object]) -> BaseException | None:
    try:
        return future.exception()
    except CancelledError as error:
        return error


def _is_lost(error: BaseException) -> bool:
    """Whether a chain ended because its worker, or the way to it, is gone."""
    is_lost_worker = type(error).__name__ in _LOST_WORKER
    return is_lost_worker or isinstance(error, BrokenExecutor | CancelledError | ConnectionError)


def _is_preempted_elsewhere(executor: Executor) -> bool:
    """Whether this process is preempted, and the writers are in others, which do not know it."""
    return bool(ending.preempted_by()) and not isinstance(executor, ThreadPoolExecutor)


def _end_elsewhere(trace: Trace, running: dict[Future[object], tuple[Block, Executor]]) -> None:
    """Ask the chains that run to stop, and wait until they have; others do not begin."""
    rest = [future for future in running if not future.cancel()]
    # An existing request says at which draw they end.
    if not rest or trace.stop_request is not None:
        return
    with suppress(TraceError):
        request_stop(trace._hierarchy, None, now=True, reason="zarrtrace.run ends")
        try:
            wait(rest)
        finally:
            cancel_stop(trace._hierarchy)
