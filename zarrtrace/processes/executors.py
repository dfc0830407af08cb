"""The chains of a trace on any executor: threads, a pool of processes, Dask, MPI, submitit, Parsl.

What runs elsewhere cannot be interrupted, but it can be asked: when `run` ends early, a request to
stop in the store reaches the chains wherever they are.
"""

from __future__ import annotations

import inspect
import time
import traceback
from collections.abc import Callable, Collection
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    CancelledError,
    Executor,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    wait,
)
from contextlib import suppress
from typing import Any, Protocol

import numpy as np

from ..errors import StopRequestedError, TraceError
from ..life.stop import cancel_stop, request_stop
from ..messages import warn_caller
from ..recording import exit as ending
from ..sampling_state.block import chain_blocks, read_claims
from ..sampling_state.claim import Claim
from ..signals import hears_signals
from ..trace import Trace
from .attempts import Attempts
from .chains import Block, ChainFunction, first_chain
from .parcel import Parcel, run_chain
from .rules import Rule


class Submitted(Protocol):
    """What an executor returns for a call: a Future, or a job of submitit."""

    def done(self) -> bool:
        """Whether it has ended."""

    def exception(self) -> BaseException | None:
        """Why it failed; None if it did not."""


class Submits(Protocol):
    """What `run` needs of an executor."""

    def submit(self, function: Callable[..., Any], /, *arguments: Any) -> Submitted:
        """Have a function called elsewhere."""


MakesExecutor = Callable[[], Submits]

_LOOK_EVERY = 0.1  # seconds
_NO_WORKER_AFTER = 30.0  # seconds until it is said that no worker has begun a chain
_BROKEN = (
    "\nThe executor is broken. Give run() a function that makes one, such as "
    "executor=lambda: ProcessPoolExecutor(4): then it makes another one, and continues.\n"
)
# Dask names the first two when a worker died too often, or cannot be reached, submitit the third
# one when a job ended without a result, and Parsl the last two. They derive from nothing that says
# so.
_LOST_WORKER = (
    "KilledWorker", "CommClosedError", "UncompletedJobError", "WorkerLost", "ManagerLost"
)  # fmt: skip


class Pool:
    """An executor, which can be made again if `run` was told how.

    Parameters
    ----------
    executor : object with a method `submit`, or callable
        It is used, and stays open, or it makes the one that is used and closed at the end.
    """

    def __init__(self, executor: Submits | MakesExecutor) -> None:
        self._make: MakesExecutor | None = None
        if hasattr(executor, "submit"):
            self.executor: Submits = executor
        else:
            self._make = executor
            self.executor = executor()

    def replace(self, broken: Submits) -> bool:
        """Make another executor in place of a broken one; False if that cannot be done."""
        if self._make is None:
            return False
        # The chains of one executor all break together, and the first of them replaces it.
        if broken is self.executor:
            _shut_down(broken, wait=False)
            self.executor = self._make()
        return True

    def close(self) -> None:
        """Close the executor that was made here."""
        if self._make is not None:
            _shut_down(self.executor)


def _shut_down(executor: Submits, **how: bool) -> None:
    """Close an executor, and cancel what it has not begun; those of submitit need not be closed."""
    if isinstance(executor, Executor):
        # The executor of Dask does not have this parameter of the standard library.
        if "cancel_futures" in inspect.signature(executor.shutdown).parameters:
            how["cancel_futures"] = True
        executor.shutdown(**how)


def run_on_executor(
    chain_function: ChainFunction,
    trace: Trace,
    blocks: list[Block],
    executor: Submits | MakesExecutor,
    refresh: Callable[[], None],
    rule: Rule,
    attempts: Attempts,
) -> dict[int, str]:
    """Run chains on an executor; returns why chains failed, by their first chain."""
    pool = Pool(executor)
    waiting = list(blocks)
    running: dict[Submitted, tuple[Block, Submits]] = {}
    failures: dict[int, str] = {}
    start = _Start(trace)
    try:
        while waiting or running:
            if rule.holds() or _is_preempted_elsewhere(pool.executor):
                _end_elsewhere(trace, running)
                break
            while waiting:
                block = waiting.pop(0)
                terminates = isinstance(pool.executor, ProcessPoolExecutor)
                parcel = Parcel(chain_function, trace, terminates)
                future = _submit(pool.executor, block, parcel)
                running[future] = block, pool.executor
            for future in _ended(running):
                start.is_over = True
                block, used = running.pop(future)
                error = _error_of(future)
                if error is None or isinstance(error, StopRequestedError):
                    continue
                report = "".join(traceback.format_exception(error))
                if not attempts.needs_more(block, report):
                    continue
                if _is_lost(error) and ending.preempted_by():
                    continue  # it ended by the signal
                has_pool = not isinstance(error, BrokenExecutor) or pool.replace(used)
                if has_pool and _is_lost(error) and attempts.another(block, repr(error)):
                    waiting.append(block)
                else:
                    failures[first_chain(block)] = report if has_pool else report + _BROKEN
            refresh()
            start.watch()
    except BaseException:
        _end_elsewhere(trace, running)
        raise
    finally:
        pool.close()
    return failures


class _Start:
    """Says it if no worker begins a chain for some time; `run` keeps waiting for one."""

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        self._recorded = trace.recorded
        self._tell_at = time.monotonic() + _NO_WORKER_AFTER
        self.is_over = False

    def watch(self) -> None:
        """Look once, when it is time."""
        if self.is_over or time.monotonic() < self._tell_at:
            return
        self.is_over = True
        moment = self._trace._now()
        if np.array_equal(moment.counts, self._recorded) and not any(_claims(self._trace)):
            warn_caller(
                f"no worker has begun a chain of {self._trace.path} for {_NO_WORKER_AFTER:.0f} s: "
                f"does the executor have workers, and are they free? run() waits for them until "
                f"it is interrupted"
            )


def _claims(trace: Trace, numbers: Collection[int] | None = None) -> list[Claim | None]:
    """The claims on some blocks, by default on all of them."""
    blocks = chain_blocks(trace._location, trace._layout)
    return read_claims(block for block in blocks if numbers is None or block.number in numbers)


def _submit(executor: Submits, block: Block, parcel: Parcel) -> Submitted:
    """Submit a chain; a future that has failed if the executor is broken already."""
    try:
        return executor.submit(run_chain, block, parcel)
    except BrokenExecutor as error:
        failed: Future[object] = Future()
        failed.set_exception(error)
        return failed


def _ended(running: Collection[Submitted], timeout: float = _LOOK_EVERY) -> list[Submitted]:
    """Those that have ended, or that end in the next moment."""
    futures = [future for future in running if isinstance(future, Future)]
    if len(futures) == len(running):
        wait(futures, timeout=timeout, return_when=FIRST_COMPLETED)
    else:
        time.sleep(timeout)
    return [future for future in running if future.done()]


def _error_of(future: Submitted) -> BaseException | None:
    try:
        return future.exception()
    except CancelledError as error:
        return error


def _is_lost(error: BaseException) -> bool:
    """Whether a chain ended because its worker, or the way to it, is gone."""
    is_lost_worker = type(error).__name__ in _LOST_WORKER
    return is_lost_worker or isinstance(error, BrokenExecutor | CancelledError | ConnectionError)


def _is_preempted_elsewhere(executor: Submits) -> bool:
    """Whether this process is preempted, and the writers are in others, which do not know it."""
    return bool(ending.preempted_by()) and not isinstance(executor, ThreadPoolExecutor)


def _end_elsewhere(trace: Trace, running: dict[Submitted, tuple[Block, Submits]]) -> None:
    """Ask the chains that run to stop, and wait until they have; others do not begin."""
    # An existing request says at which draw they end.
    if not running or trace.stop_request is not None:
        for future in running:
            _cancel(future)
        return
    begun = {trace.blocks.index(block) for block, _ in running.values()}
    is_requested = False
    try:
        while True:
            claims = [claim for claim in _claims(trace, begun) if claim and claim.alive]
            # A signal ends them with the state to continue from, and does not reach all of them.
            if not is_requested and not (ending.preempted_by() and all(map(hears_signals, claims))):
                is_requested = True
                with suppress(TraceError):
                    request_stop(trace._hierarchy, None, now=True, reason="zarrtrace.run ends")
            for future in running:
                _cancel(future)
            remaining = [future for future in running if not future.done()]
            # Dask forgets a call that was cancelled, and the worker continues.
            if not remaining and not claims:
                return
            _ended(remaining) if remaining else time.sleep(_LOOK_EVERY)
    finally:
        if is_requested:
            with suppress(TraceError):
                cancel_stop(trace._hierarchy)


def _cancel(future: Submitted) -> None:
    """Cancel what has not begun, where that can be done: a job of submitit would be killed."""
    if isinstance(future, Future):
        with suppress(NotImplementedError):  # Parsl begins it, and it ends at once
            future.cancel()
