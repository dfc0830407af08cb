"""Ends chains in time when a scheduler says that a job has to end.

Schedulers send a signal before they kill: Slurm the one of `--signal`, at a time limit or when
another job takes the place of this one. Within `preemptible` such a signal asks the writers of this
process to stop, so that a chain ends with its draws and the state to continue from.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import BrokenExecutor
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

from .errors import (
    IncompleteTraceError,
    InvalidInputError,
    StopRequestedError,
    TraceError,
    TraceNotFoundError,
)
from .opening import open as open_trace
from .recording import exit as ending
from .sampling_state.block import chain_blocks, read_claims
from .sampling_state.claim import Claim
from .trace import Trace

__all__ = ["Preemptible", "preemptible"]

_SIGNALS = ("SIGUSR1", "SIGTERM", "SIGXCPU")
_FORWARD_EVERY = 0.5  # seconds: a process may open its writer after the signal
# What ends a run that was asked to end. The signal may have ended processes before they began their
# chains, and those who wait for them are told so by the last three.
_ENDS_OF_A_RUN = (
    StopRequestedError, IncompleteTraceError, BrokenExecutor, ConnectionError, EOFError
)  # fmt: skip
_MORE_TO_DO = 75  # EX_TEMPFAIL of sysexits.h: the same command will succeed later


def preemptible(
    trace: Trace | str | os.PathLike[str],
    *,
    chains: Iterable[int] | None = None,
    signals: Sequence[str] = _SIGNALS,
) -> Preemptible:
    """Let signals end the chains of this process cleanly, within a `with` block.

    After one of the signals `writer.stop_requested` is true for each writer of this process, in
    all threads, and SIGUSR1 is sent to the processes that this one has started and that record the
    trace: those of `zarrtrace.run` and of `multiprocessing`, such as the workers of `pm.sample`. A
    sampler that looks at
    `stop_requested`, as the adapters do, ends at its next draw. For one that does not,
    `record()` raises a StopRequestedError after the next checkpoint, or at once if the writer has
    made none; the block ends there without an error. No draw that was recorded is lost, and the
    same script continues from the last checkpoint. The same happens if the scheduler sends the
    signal to all these processes itself.

    Parameters
    ----------
    trace : Trace, str or path
        The trace that is recorded, or the path of one that may be created within the block, as
        `pm.sample` does.
    chains : iterable of int, optional
        The chains that this process has to complete, as the task of a job array has; by default
        all of them.
    signals : sequence of str, default ("SIGUSR1", "SIGTERM", "SIGXCPU")
        The names of the signals. Handlers that exist already are called too, and are put back
        at the end of the block.

    Returns
    -------
    Preemptible
        A context manager. Its `signal` says which signal came, and its `exit_code` whether there
        is more to do.

    Raises
    ------
    InvalidInputError
        A signal or a chain is not known.
    RuntimeError
        The block is entered in a thread: Python handles signals in the main thread only. Enter it
        there; writers of other threads are told.

    See Also
    --------
    run : Run all chains, each in a process of its own.
    ChainWriter.stop_requested : Whether a chain has to end.
    Trace.request_stop : Ask all chains of a trace to stop, from any process.

    Notes
    -----
    A second SIGTERM ends the process at once, and its writers close on the way. Stored requests to
    stop are not touched: other jobs that record the same trace continue. After a signal the block
    also ends without an error if it raised an IncompleteTraceError, as `pm.sample` does when it was
    ended in its warmup, or a BrokenExecutor, ConnectionError or EOFError, which say that processes
    were ended before they had begun.

    Examples
    --------
    A script that Slurm starts again until it returns 0:

    >>> import os, signal
    >>> import zarrtrace as zt
    >>> trace = zt.create("run.zarr", chains=1, draws=1000, posterior={"mu": 0.0})
    >>> with zt.signals.preemptible(trace) as job, trace.writer(0) as writer:
    ...     start, state = writer.resume()
    ...     while not writer.stop_requested and writer.recorded < writer.total:
    ...         writer.record({"mu": 0.1 * writer.recorded})
    ...         if writer.recorded == 20:
    ...             os.kill(os.getpid(), signal.SIGUSR1)  # here the scheduler does it
    ...     writer.checkpoint({"draws": writer.recorded})
    >>> trace.recorded, job.signal, job.exit_code
    (array([20]), 'SIGUSR1', 75)
    """
    return Preemptible(trace, chains, signals)


class Preemptible:
    """What `preemptible` returns: a context manager that knows whether a signal came.

    See Also
    --------
    preemptible : Makes one.

    Examples
    --------
    >>> import zarrtrace as zt
    >>> trace = zt.create(chains=1, draws=1, posterior={"mu": 0.0})
    >>> with zt.signals.preemptible(trace) as job, trace.writer(0) as writer:
    ...     writer.record({"mu": 0.1})
    >>> job.signal, job.exit_code
    ('', 0)
    """

    def __init__(
        self,
        trace: Trace | str | os.PathLike[str],
        chains: Iterable[int] | None,
        signals: Sequence[str],
    ) -> None:
        self._given = trace
        self._chains = None if chains is None else sorted(set(chains))
        with contextlib.suppress(TraceNotFoundError):
            self._chains_of(self._trace())
        self._numbers = [_number(name) for name in signals]
        self._signal = ""
        self._before: dict[int, Any] = {}
        self._ended = threading.Event()
        self._process = 0

    @property
    def signal(self) -> str:
        """The name of the signal that came, or ""."""
        return self._signal

    @property
    def exit_code(self) -> int:
        """What the process shall return: 0 if the chains are complete, 75 if there is more to do.

        75 is EX_TEMPFAIL in the list of `sysexits.h`. Chains that were asked to stop by
        `Trace.request_stop` are complete when they have the draws that they were asked for.
        """
        try:
            trace = self._trace()
        except TraceNotFoundError:
            return _MORE_TO_DO
        moment = trace._now()
        chains = self._chains_of(trace)
        is_complete = all(moment.counts[chain] >= moment.end.draws for chain in chains)
        return 0 if is_complete else _MORE_TO_DO

    def _trace(self) -> Trace:
        """The trace; one that was given by its path may have been created again meanwhile."""
        return self._given if isinstance(self._given, Trace) else open_trace(self._given)

    def _chains_of(self, trace: Trace) -> Sequence[int]:
        """The chains that this process has to complete."""
        if self._chains is None:
            return range(trace.chains)
        unknown = [chain for chain in self._chains if chain not in range(trace.chains)]
        if unknown:
            raise InvalidInputError(
                f"chains names {unknown[0]!r}, but {trace.path} has the chains 0 to "
                f"{trace.chains - 1}"
            )
        return self._chains

    def __enter__(self) -> Self:
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError(
                "signals can only be handled in the main thread: enter preemptible() there; the "
                "writers of other threads are told"
            )
        self._ended.clear()
        self._process = os.getpid()
        ending.announce_preemption(self._numbers)
        for number in self._numbers:
            self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        for number, handler in self._before.items():
            # None: it was not set from Python, and cannot be put back from there.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._before.clear()
        self._ended.set()
        ending.announce_preemption(())
        ending.end_preemption()
        return bool(self._signal) and isinstance(error, _ENDS_OF_A_RUN)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # a fork has the handlers too
            ending.preempt_child(number, frame)
            return
        is_second = bool(self._signal)
        self._signal = signal.Signals(number).name
        ending.preempt(self._signal)
        if not is_second:
            # The stores of the trace may be in the middle of a call of this thread.
            threading.Thread(target=self._forward, name="zarrtrace signals", daemon=True).start()
        before = self._before.get(number)
        if callable(before) and before is not ending.exit_on_sigterm:
            before(number, frame)
        elif is_second and number == signal.SIGTERM:
            ending.exit_on_sigterm(number, frame)

    def _forward(self) -> None:
        """Tell the processes below this one that record the trace, until the block ends."""
        told: set[str] = set()
        while True:
            with contextlib.suppress(TraceError, OSError):
                trace = self._trace()
                for claim in read_claims(chain_blocks(trace._location, trace._layout)):
                    if claim is not None and claim.token not in told and hears_signals(claim):
                        os.kill(claim.pid, ending.FORWARDED)
                        told.add(claim.token)
            if self._ended.wait(_FORWARD_EVERY):
                return


def hears_signals(claim: Claim) -> bool:
    """Whether the writer of a claim is in a process below this one that a signal asks to end."""
    try:
        return (
            claim.is_visible
            and claim.alive
            and not claim.is_of_this_process
            and claim.is_below(os.getpid())
            and _handles(claim.pid, ending.FORWARDED)
        )
    except OSError:
        return False  # it has ended meanwhile


def _handles(pid: int, number: int) -> bool:
    """Whether a process handles a signal, which would kill it otherwise."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    caught = next(line.split()[1] for line in lines if line.startswith("SigCgt:"))
    return bool(int(caught, 16) >> (number - 1) & 1)


def _number(name: str) -> int:
    try:
        return signal.Signals[name]
    except KeyError:
        known = ", ".join(_SIGNALS)
        raise InvalidInputError(
            f"signals names {name!r}, which is not a signal of this system; the usual ones are "
            f"{known}"
        ) from None
