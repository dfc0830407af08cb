"""One writer at a time holds a place, which is a block of chains or a table.

On one machine the lock on its journal keeps others out; its death frees it. The claim in the store
says who holds the place, and decides where there is no lock; a thread of the process keeps it
fresh. Within one process a new writer replaces an earlier one and continues with its
journal, so that the lock is never free in between.
"""

from __future__ import annotations

import enum
import os
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import ClassVar, Self

from ..errors import (
    ChainBusyError,
    DamagedTraceError,
    NotWritableError,
    StaleViewError,
    TraceError,
    TraceNotFoundError,
)
from ..messages import counted, warn_caller
from ..sampling_state.claim import Claim
from ..sampling_state.journal import Journal
from . import exit as ending
from .calls import OneCallAtATime

# The place belongs to somebody else, or is gone: what waits in memory cannot go anywhere.
_NOT_ITS_OWN = (ChainBusyError, StaleViewError, TraceNotFoundError)


class State(enum.Enum):
    """Whether a writer can write. The states follow each other in this order, never back."""

    NOT_RESUMED = "there are earlier draws, and the sampler does not know of them yet"
    OPEN = "it can write"
    DISPLACED = "another writer replaced it"
    CLOSED = "it is closed"


class Holder(OneCallAtATime, ABC):
    """Lets a writer hold its place, lose it, hand it over and release it.

    A writer is open from the moment its `_state` says so. Before that it has opened `_journal` and
    put its claim into the store.

    Parameters
    ----------
    where : str
        The place, for messages.
    chain : int or None
        Its first chain, if it has chains.
    """

    # What one record is called, and how to get a new writer, for messages.
    _unit: ClassVar[str]
    _another: ClassVar[str]
    _journal: Journal
    _state = State.CLOSED  # until it is open

    def __init__(self, where: str, chain: int | None) -> None:
        super().__init__(where, chain)
        self._process = os.getpid()
        self._claim = Claim.new()
        self._claiming = threading.Lock()  # the heartbeat has a thread of its own
        self._lost_to: Claim | None = None
        self._gave_way = False  # another writer of this process has its place

    # What a place is ----------------------------------------------------------------------

    @abstractmethod
    def _read_claim(self) -> Claim | None:
        """The claim in the store; None if there is none."""

    @abstractmethod
    def _write_claim(self, claim: Claim | None) -> None:
        """Store a claim, or remove it."""

    @abstractmethod
    def _write_out(self) -> None:
        """Write what is buffered in memory."""

    @abstractmethod
    def _write_last(self) -> None:
        """Write what a closing writer leaves behind."""

    @property
    def closed(self) -> bool:
        """Whether the writer is closed, and can no longer write."""
        return self._state is State.CLOSED

    # Taking it ----------------------------------------------------------------------------

    def _find_predecessor(self, claim: Claim | None, patience: float) -> Self | None:
        """The writer of this process that holds the place, if there is one.

        Parameters
        ----------
        claim : Claim or None
            The claim in the store.
        patience : float
            Seconds to wait for another thread that opens or closes such a writer.
        """
        deadline = time.monotonic() + patience
        while claim is not None and claim.is_held:
            writer = ending.writer_with(claim.token)
            if isinstance(writer, type(self)) and not writer.closed:
                return writer
            if time.monotonic() > deadline:
                break
            time.sleep(0.001)
            claim = self._read_claim()
        return None

    def _is_claimed(self) -> bool:
        """Whether the claim in the store belongs to this writer."""
        claim = self._read_claim()
        return claim is not None and claim.token == self._claim.token

    # Keeping it ---------------------------------------------------------------------------

    @property
    def _token(self) -> str:
        return self._claim.token

    def _beat(self) -> None:
        """Show other hosts that this writer is alive."""
        with self._claiming:
            claim = self._read_claim()
            if self._state in (State.DISPLACED, State.CLOSED):
                return
            is_of_another = claim is not None and claim.token != self._claim.token
            if is_of_another or self._journal.is_displaced:
                self._lose_to(claim)
                return
            self._claim = self._claim.beating()
            self._write_claim(self._claim)

    def _look(self) -> None:
        """See what others have changed; nothing that concerns most writers."""

    def _preempt(self, cause: str) -> None:
        """Let the sampler end, because the process has to; nothing that concerns most writers."""

    def _lose_to(self, other: Claim | None) -> None:
        self._lost_to = other
        if not self.closed:
            self._state = State.DISPLACED

    # Giving it over -----------------------------------------------------------------------

    def _give_way(self, successor: Claim) -> Journal:
        """Let another writer of this process continue from here; returns the locked journal.

        Raises
        ------
        ChainBusyError
            A call of this writer is under way, and does not end.
        """
        warn_caller(
            f"{self._where} was open in this process: a new writer replaces it, and the old one "
            f"accepts no more {self._unit}s; what it recorded is kept, "
            f"{counted(self._journal.count, self._unit)} so far"
        )
        with self._stepping_aside(successor):
            if not self._journal.survives:
                self._write_out()
        self._gave_way = True
        self._claim.let_go()
        ending.forget(self)
        return self._journal

    def _withdraw(self) -> None:
        """Close, because this process replaces what it writes to.

        Raises
        ------
        ChainBusyError
            As for `_give_way`.
        """
        with self._stepping_aside(self._claim):
            self._let_go()
        self._gave_way = True

    @contextmanager
    def _stepping_aside(self, successor: Claim) -> Iterator[None]:
        """Stop writing, unless the block fails."""
        before = self._state
        # A heartbeat would put the old claim over the new one.
        with self._claiming:
            self._lost_to, self._state = successor, State.DISPLACED
        try:
            self._require_no_call()
            yield
        except BaseException:
            self._lost_to, self._state = None, before
            raise

    # Giving it up -------------------------------------------------------------------------

    def close(self) -> None:
        """Flush and close the writer; closing it again does nothing.

        Raises
        ------
        NotWritableError
            The store could not be written. Without a journal the writer stays open, so that what
            waits in memory is kept: close it again, or flush it.

        See Also
        --------
        Trace.close : Close all writers of a trace.

        Examples
        --------
        >>> import zarrtrace as zt
        >>> trace = zt.create("run.zarr", chains=1, draws=1000, posterior={"mu": 0.0})
        >>> writer = trace.writer(0)
        >>> writer.record({"mu": 0.1})
        >>> writer.close()
        >>> writer.closed
        True
        """
        if self.closed:
            return
        before = self._state
        try:
            # This comes first, so that no other call begins.
            self._state = State.CLOSED
            self._wait_for_other_threads()
            if not self._gave_way:
                self._write_last()
        except _NOT_ITS_OWN:
            self._let_go()
            raise
        except BaseException as error:
            if self._journal.survives:
                self._let_go()
                raise
            self._state = before
            if isinstance(error, Exception):
                raise self._still_open(error) from error
            raise
        self._let_go()

    def _still_open(self, error: Exception) -> NotWritableError:
        """The error for a close that could not write what waits in memory."""
        why = error.why if isinstance(error, TraceError) else f"{type(error).__name__}: {error}"
        return NotWritableError(
            f"it cannot be closed ({why}): up to {counted(self._journal.count, self._unit)} would "
            f"be lost",
            where=self._where,
            remedy="it stays open and keeps them: remove the cause and call close() again",
            chain=self._first_chain,
        )

    def _release(self) -> None:
        """Close the writer without flushing; the journal stays as it is."""
        if not self.closed:
            self._state = State.CLOSED
            self._let_go()

    def _let_go(self) -> None:
        """Release the place, if no other writer has it already."""
        if self._gave_way:
            return
        try:
            self._give_up_claim()
        finally:
            self._claim.let_go()
            self._journal.close()
            ending.forget(self)

    def _give_up_claim(self) -> None:
        # In a forked child it still belongs to the parent.
        if os.getpid() != self._process:
            return
        # If the trace was removed meanwhile, there is no claim to remove.
        with self._claiming, suppress(TraceNotFoundError):
            if self._is_claimed():
                self._write_claim(None)

    # Refusing -----------------------------------------------------------------------------

    def _require_open(self) -> None:
        """Refuse to write after closing, and in a forked child."""
        if os.getpid() != self._process:
            raise NotWritableError(
                f"this writer belongs to the parent process {self._process}",
                where=self._where,
                remedy=self._another,
                chain=self._first_chain,
            )
        if self.closed:
            raise NotWritableError(
                "this writer is closed",
                where=self._where,
                remedy=self._another,
                chain=self._first_chain,
            )

    def _claim_for_certain(self) -> Claim | None:
        """The claim in the store, or an error if it cannot be read."""
        return self._read_claim()

    def _require_claim(self) -> None:
        """Refuse to write when another writer has replaced this one."""
        try:
            claim = self._claim_for_certain()
        except (StaleViewError, TraceNotFoundError, DamagedTraceError):
            raise
        except TraceError as error:
            raise NotWritableError(
                f"the store does not say whether this writer may still write ({error})",
                where=self._where,
                remedy="nothing is lost: try again when the store answers",
                chain=self._first_chain,
            ) from error
        if claim is not None and claim.token != self._claim.token:
            self._lose_to(claim)
        # Without a lock another writer may have taken it and released it again.
        if self._lost_to is not None or (claim is None and not self._journal.is_in_place):
            raise ChainBusyError(
                f"it was taken over by {self._lost_to or 'another writer, which is closed now'}",
                where=self._where,
                remedy=f"all its {self._unit}s are kept"
                if self._gave_way
                else "what this writer has flushed is kept; the rest belongs to the other",
                chain=self._first_chain,
            )

    # Life ---------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if not self.closed:
            ending.close_forgotten(self)
