"""One chain of a PyMC run, to which PyMC passes each draw in the process that draws it."""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from multiprocessing.util import Finalize
from types import SimpleNamespace
from typing import Any

from zarr.storage import MemoryStore

import zarrtrace as zt
from zarrtrace.errors import DrawError, StopRequestedError

from .bases import ChainBase
from .model import StoredValues
from .stats import Statistics
from .steps import keeps_state, state_of
from .worker import Worker, end_after, worker_that_calls

_CHECKPOINT_SHARE = 0.05  # of the time, at most
_LOOK_EVERY = 0.2  # seconds


class ZarrChain(ChainBase):
    """One chain of a `ZarrTrace`, in which PyMC records its draws.

    A draw whose `record` has returned survives `kill -9` in a local directory. The chain can be
    sent to another process before its first draw.

    Attributes
    ----------
    chain : int
        The number of the chain.
    varnames : list of str
        The variables it stores.

    See Also
    --------
    ZarrTrace : The trace of all chains.
    """

    def __init__(
        self,
        trace: zt.Trace,
        chain: int,
        names: tuple[list[str], list[str]],
        values: StoredValues,
        statistics: Statistics,
        checkpoint_every: float,
    ) -> None:
        self.chain = chain
        self.varnames = [*names[0], *names[1]]
        self._values = values
        # PyMC reads the store: the main process records a trace in memory.
        in_memory = trace.path == "memory"
        self._posterior = SimpleNamespace(store=MemoryStore() if in_memory else None)
        self._trace = trace
        self._names = names
        self._statistics = statistics
        self._step: Any = None
        self._writer: zt.ChainWriter | None = None
        # Only a worker that watches its parent has a lock: the chain is sent to other processes.
        self._recording: AbstractContextManager[Any] = nullcontext()
        self._draws_itself = False  # whether the chain is drawn in this process
        self._in_worker = False  # whether that is a process of `pm.sample`
        self._worker: Worker | None = None  # the object of PyMC that draws the chain there
        self._checkpoint_every = checkpoint_every
        self._next_checkpoint = 0.0

    def __len__(self) -> int:
        """Draws recorded, warmup included."""
        return int(self._trace.recorded[self.chain])

    def link_stepper(self, step_method: Any) -> None:
        """Keep the state of this step method with the draws, from now on.

        Parameters
        ----------
        step_method : step method
            The one that draws this chain.

        See Also
        --------
        resume : Continue from the state.
        """
        self._step = step_method if keeps_state(step_method) else None
        self._draws_itself = True
        # PyMC does not close the chain of a worker process. This runs when the worker ends, after
        # Ctrl-C too, however it was started; its priority puts it before the writer's own closing.
        Finalize(self, self.close, exitpriority=11)
        self._in_worker = multiprocessing.current_process().name == f"worker_chain_{self.chain}"
        if self._in_worker:
            planned = self._trace.tune + self._trace.draws
            self._worker = worker_that_calls(sys._getframe(1), planned)
        if self._in_worker and multiprocessing.get_start_method() == "fork":
            self._recording = threading.RLock()
            threading.Thread(target=self._end_with_parent, daemon=True).start()

    def go_on(self, writer: zt.ChainWriter, step_method: Any) -> None:
        """Record with this writer, whose `resume` has been called, and this step method.

        Parameters
        ----------
        writer : zarrtrace.ChainWriter
            The writer of this chain.
        step_method : step method
            The one that will draw.

        See Also
        --------
        resume : Continue a run.
        """
        self._writer = writer
        self._step = step_method
        self._next_checkpoint = time.monotonic() + self._checkpoint_every

    def record(
        self, draw: Mapping[str, Any], stats: Sequence[Mapping[str, Any]], *, in_warmup: bool
    ) -> None:
        """Record a draw and, now and then, the state of the step method with it.

        Parameters
        ----------
        draw : mapping of str to numpy.ndarray
            The unconstrained point.
        stats : sequence of mappings
            The statistics of each step method.
        in_warmup : bool
            Not used: the first `tune` draws are the warmup.

        Raises
        ------
        DrawError
            A value has another shape or dtype than at the start of the run; the draw is not kept.

        See Also
        --------
        zarrtrace.ChainWriter.record : What stores the draw.
        """
        with self._recording:
            try:
                ends, unrecorded = self.record_draw(draw, stats), 0
            except StopRequestedError:
                if self._in_worker and self._worker is None:
                    raise
                ends, unrecorded = True, 1
            if ends and self._writer is not None:
                self._end_here(self._writer, unrecorded)

    def _end_here(self, writer: zt.ChainWriter, unrecorded: int) -> None:
        """End the chain, which was asked to stop and has its draws.

        In a process of `pm.sample` it ends as if no more draws had been planned. Where that is not
        possible the next draw raises, which ends the run with an error that says why. Elsewhere
        PyMC ends a chain, and keeps what it has, by a KeyboardInterrupt.
        """
        if self._worker is not None:
            end_after(self._worker, writer.recorded + unrecorded)
        elif not self._in_worker:
            # In memory the main process records all chains: the last one ends all.
            is_last = bool((self._trace.recorded >= writer.total).all())
            if self._draws_itself or is_last:
                raise KeyboardInterrupt

    def record_draw(self, draw: Mapping[str, Any], stats: Sequence[Mapping[str, Any]]) -> bool:
        """Record a draw as `record` does; StopRequestedError after those it was asked to stop at.

        Parameters
        ----------
        draw : mapping of str to numpy.ndarray
            The unconstrained point.
        stats : sequence of mappings
            The statistics of each step method.

        Returns
        -------
        bool
            Whether the chain was asked to end here: its state is kept.

        See Also
        --------
        ZarrChain.record : What PyMC calls.
        """
        writer = self._writer
        if writer is None:
            writer = self._writer = self._trace.writer(self.chain, patience=90)
        constrained, unconstrained = self._names
        values = self._values(draw)
        groups = {"posterior": dict(zip(constrained, values, strict=False))}
        if unconstrained:
            values = values[len(constrained) :]
            groups["unconstrained_posterior"] = dict(zip(unconstrained, values, strict=True))
        if self._statistics.columns:
            groups["sample_stats"] = self._statistics.of(stats)
        try:
            writer.record(**groups)
        except DrawError as error:
            if error.group != "sample_stats":
                raise
            # A statistic of another dtype than declared, which the default trace converts.
            groups["sample_stats"] = self._statistics.converted(groups["sample_stats"])
            writer.record(**groups)
        ends = writer.stop_requested
        if self._step is not None:
            now = time.monotonic()
            if now >= self._next_checkpoint or ends or writer.recorded == writer.total:
                writer.checkpoint({"point": dict(draw), "steps": state_of(self._step)})
                after = time.monotonic()
                pause = max(self._checkpoint_every, (after - now) / _CHECKPOINT_SHARE)
                self._next_checkpoint = after + pause
        return ends

    def record_sampling_state(self, step: Any = None) -> None:
        """Do nothing: `record` keeps the state together with the draw it belongs to.

        PyMC also calls this after Ctrl-C in the middle of a step: such a state belongs to no draw.

        Parameters
        ----------
        step : step method, optional
            Not used.

        See Also
        --------
        ZarrChain.record : What keeps the state.
        """

    def store_sampling_state(self, sampling_state: Any) -> None:
        """Do nothing, as `record_sampling_state`.

        Parameters
        ----------
        sampling_state : object
            Not used.

        See Also
        --------
        ZarrChain.record : What keeps the state.
        """

    def flush(self) -> None:
        """Write what is buffered; not needed for safety in a local directory.

        See Also
        --------
        zarrtrace.ChainWriter.flush : What writes the draws.
        """
        with self._recording:
            if self._writer is not None:
                self._writer.flush()

    def close(self) -> None:
        """Flush and release the chain.

        See Also
        --------
        zarrtrace.ChainWriter.close : What releases the chain.
        """
        with self._recording:
            writer, self._writer = self._writer, None
            if writer is not None:
                writer.close()

    def _end_with_parent(self) -> None:
        """End this forked worker between two draws when the process that forked it is gone.

        It would wait for it for ever, since it holds a copy of the other end of its own pipe, and
        keep its chain from `resume`; other workers find their pipe closed. A signal does not help:
        it may be ignored, as SIGINT is in a shell script's background jobs, and after an exception
        PyMC's worker waits for its parent again.
        """
        parent = multiprocessing.parent_process()
        assert parent is not None
        while os.getppid() == parent.pid:
            time.sleep(_LOOK_EVERY)
        with self._recording:
            try:
                self.close()
            finally:
                os._exit(1)
