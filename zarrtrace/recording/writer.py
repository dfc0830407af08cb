"""One writer per chain, or per block of chains: draws in, chunks out.

The order of events keeps the promises. A draw goes into the journal's rows; when it completes a
chunk, that chunk is written; then one assignment publishes the count. What is published is
complete, and what is not did not happen: after a kill, and after an interrupt that is caught, at
any moment.
"""

from __future__ import annotations

import enum
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Any, Self

import numpy as np

from ..errors import (
    ChainBusyError,
    ChainFullError,
    DamagedTraceError,
    FinishedError,
    NotResumedError,
    NotWritableError,
    PartlyRecordedError,
    StaleViewError,
    TraceError,
    TraceNotFoundError,
    TraceReplacedError,
)
from ..layout.hierarchy import Hierarchy
from ..layout.layout import IN_STORE, array_path
from ..layout.spans import span_of, written_spans
from ..layout.variables import Variable
from ..messages import counted, warn_caller
from ..reading.rows import RowReader
from ..sampling_state.block import ChainBlock
from ..sampling_state.claim import BEAT_EVERY, Claim
from ..sampling_state.journal import Journal, NoMappingError
from ..sampling_state.journal_format import JOURNAL, has_rows
from ..sampling_state.state_text import write_checkpoint
from . import exit as ending
from .calls import OneCallAtATime
from .flusher import Flusher
from .open_chunks import OpenChunks
from .row_plan import Block, RecordingPlan, Values


class _State(enum.Enum):
    """Whether a writer takes draws. It goes through these in their order, and never back."""

    NOT_RESUMED = "there are draws from before, and the sampler does not know of them yet"
    RECORDING = "it takes draws"
    DISPLACED = "another writer has taken its chain"
    CLOSED = "it has ended"


_RECORDING = _State.RECORDING  # every draw asks for it, and an enum takes its time
_PATIENCE = 10.0  # seconds, for another thread that opens or closes a writer of the same chains


class ChainWriter(OneCallAtATime):
    """Records the draws of one chain, or of one block of chains that are drawn together.

    Made by `Trace.writer`. A context manager: leaving it closes the writer, after an exception
    and Ctrl-C too. In a local directory a draw is safe from `kill -9` once `record()` has
    returned; elsewhere it is once it has been flushed: when its chunk is full and every 10
    seconds. A writer belongs to the process, and at any moment to one thread of it: a call while
    another one is under way is refused. One that nobody holds any more closes itself.

    Attributes
    ----------
    chains : range
        The chains this writer records.
    """

    def __init__(self, hierarchy: Hierarchy, number: int, *, force: bool = False) -> None:
        self._state = _State.CLOSED  # until it is open
        location, layout = hierarchy.location, hierarchy.layout
        location.require_writable()
        # Its layout as it was: of what changes while chains write, nothing concerns a writer.
        self._block = block = ChainBlock(location, layout, number)
        self.chains = block.chains
        super().__init__(str(block), self.chains[0])
        if layout.closed:
            raise FinishedError(
                f"{location} is finished and takes no more draws; "
                f"extend(draws=...) makes room for more",
                chain=self.chains[0],
            )
        self._location = location
        self._hierarchy = hierarchy
        self._layout = layout
        self._process = os.getpid()
        self._claim = Claim.new()
        self._claiming = threading.Lock()  # the heartbeat writes from a thread of its own
        self._lost_to: Claim | None = None
        self._gave_way = False  # its place was taken in this process, and it has nothing to end
        self._require_standing()
        predecessor = self._find_predecessor()
        if predecessor is None:
            self._journal = self._open_journal(force)
        else:
            self._journal = predecessor._give_way(self._claim)
        try:
            self._claim.hold()
            block.write_claim(self._claim)
            # Nobody moves an array while a chain is claimed: from here on they stand still.
            if hierarchy.layout.paused:
                raise ChainBusyError(
                    f"{location} is being split, extended, finished or overwritten just now; "
                    f"try again when that is done",
                    chain=self.chains[0],
                )
            try:
                self._require_standing()
            except ChainBusyError:
                # Its rows are those of other chunks than the trace has now, which have all draws.
                self._journal.remove()
                raise
            if not self._journal.locked and self._holder() != self._claim.token:
                raise block.busy(block.claim)
            self._total = layout.total
            self._memory = self._rows_in_memory()
            self._has_text = any(variable.is_text for variable in layout.variables)
            self._flusher = Flusher(hierarchy, block)
            self._next_flush = time.monotonic() + layout.flush_every
            self._state = _State.NOT_RESUMED if self._count else _State.RECORDING
            self._lay_out()
            if self._journal.is_elsewhere:
                block.drop_checkpoint_after(self._count)
                self._leave_whole_chunks(layout.total)
            elif self._keeps_rows and self._count:
                self._leave_whole_chunks(self._count)
            ending.register(self, BEAT_EVERY)
        except BaseException:
            self._state = _State.CLOSED
            self._let_go()
            raise

    # Opening ------------------------------------------------------------------------------

    def _require_standing(self) -> None:
        """Refuse to record while arrays are moved: rows are laid out for where they are."""
        current = self._hierarchy.layout
        still = current.arrays == self._layout.arrays and current.total == self._layout.total
        if not still or current.splitting or current.closed:
            raise ChainBusyError(
                f"{self._location} is being split, extended or finished just now; "
                f"try again when that is done",
                chain=self.chains[0],
            )

    def _find_predecessor(self) -> ChainWriter | None:
        """The writer that has these chains open in this process, if there is one."""
        deadline = time.monotonic() + _PATIENCE
        while (claim := self._block.claim) is not None and claim.is_held:
            writer = ending.writer_with(claim.token)
            if isinstance(writer, ChainWriter) and not writer.closed:
                return writer
            # Another thread opens it, or closes it.
            if time.monotonic() > deadline:
                break
            time.sleep(0.001)
        return None

    def _open_journal(self, force: bool) -> Journal:
        location, layout, block = self._location, self._layout, self._block
        path = block.journal_file
        if path is None:
            return self._open_memory(force)
        try:
            journal = Journal.for_writing(layout, path, self._fill, block)
        except BlockingIOError:
            raise block.busy(block.claim) from None
        except NoMappingError:
            if path.exists():
                raise NotWritableError(
                    f"{path}: the draws in this journal cannot be taken over here, where files "
                    f"are not mapped; open the trace with mode='a' on the disk it comes from, and "
                    f"flush or finish it there",
                    chain=self.chains[0],
                ) from None
            return self._open_memory(force)
        try:
            block.require_unclaimed(has_lock=journal.locked, force=force)
            if block.claim is not None:
                # Of a writer that was killed: what it was writing at that moment is of no use.
                for variable in layout.variables:
                    array = array_path(variable.group, variable)
                    if layout.separator == "/":
                        location.remove_partial_files(f"{array}/c/{block.number}")
                    else:
                        location.remove_partial_files(array, prefix=f"c.{block.number}.")
        except BaseException:
            journal.close()
            raise
        return journal

    def _open_memory(self, force: bool) -> Journal:
        """Rows in memory, where they cannot be mapped."""
        self._block.require_unclaimed(has_lock=False, force=force)
        journal = Journal.in_memory(self._layout)
        self._fill(journal)
        return journal

    def _fill(self, journal: Journal) -> None:
        """Give a new journal its count and the rows of the chunks that are partly filled."""
        count = int(self._block.read("draw_idx") or 0)
        for variable in self._layout.variables:
            if has_rows(self._layout, variable):
                self._load_rows(variable, count, journal.rows_of(variable))
        journal.seal_rows(count)
        journal.count = count
        # Before any reader sees it.
        self._require_standing()

    def _rows_in_memory(self) -> dict[str, np.ndarray[Any, Any]]:
        """The rows of variables that have none in the journal."""
        rows: dict[str, np.ndarray[Any, Any]] = {}
        for variable in self._layout.variables:
            if not has_rows(self._layout, variable):
                shape = self._layout.chunk_shape(variable)
                rows[variable.label] = np.zeros(shape, variable.dtype)
                self._load_rows(variable, self._count, rows[variable.label])
        return rows

    def _load_rows(self, variable: Variable, count: int, rows: np.ndarray[Any, Any]) -> None:
        """Load the rows of the chunk that holds draw `count`, as far as they are recorded."""
        span = span_of(written_spans(self._layout, variable), count)
        place = span.place(count, variable.draws_per_chunk)
        filled = count - place.draws.start
        if not filled or span.gone:
            return
        try:
            rows[:, :filled] = RowReader(self._block, variable).chunk(place)[:, :filled]
        except DamagedTraceError:
            # Its chunk was removed: nobody will ever read these draws.
            if count > self._hierarchy.layout.dropped:
                raise

    def _lay_out(self) -> None:
        """Lay out where `record()` puts its values and when chunks are full."""
        count = self._count
        self._counter = self._journal.counter
        rows = {**self._journal.rows, **self._memory}
        self._chunks = OpenChunks(self._block, rows, count)
        self._plan = RecordingPlan(self._layout, self.chains, self._journal, self._chunks)
        self._seals = self._journal.seals(count)
        self._boundary = min(self._chunks.next_end(count), self._total)

    # Recording ----------------------------------------------------------------------------

    @property
    def recorded(self) -> int:
        """Draws recorded so far, warmup included."""
        return self._count

    @property
    def _count(self) -> int:
        """The published count. There is no other one that could differ from it."""
        return self._journal.count

    @property
    def closed(self) -> bool:
        """Whether it takes no more draws."""
        return self._state is _State.CLOSED

    def resume(self, like: Any = None) -> tuple[int, Any]:
        """Go on where this chain stopped: at its last checkpoint, or after its last draw.

        Draws after the checkpoint are dropped: the sampler will draw them again. A chain that has
        all its draws is never shortened.

        Parameters
        ----------
        like : optional
            A state of the same structure, whose NamedTuples and dataclasses the state shall have;
            without it their fields come as dictionaries.

        Returns
        -------
        draws : int
            How many are kept, warmup included: the next `record()` adds to them.
        state : object or None
            What `checkpoint()` was given after that many draws; None when there was none.

        Raises
        ------
        DamagedTraceError
            The checkpoint cannot be read, or belongs to a draw that is not there.
        """
        with self._only_call():
            self._require_open()
            if self._state is _State.DISPLACED:
                self._require_claim()
            draws, state = self._read_checkpoint(like)
            if draws < self._count:
                self._go_back(draws)
            with self._claiming:
                if self._state is _State.NOT_RESUMED:
                    self._state = _State.RECORDING
            return self._count, state

    def checkpoint(self, state: Any) -> None:
        """Keep the sampler's state together with the draws recorded so far, atomically.

        After a kill there is this checkpoint or the one before, never half of one, and the draw
        it belongs to is there.

        Parameters
        ----------
        state
            Nested dictionaries, lists, tuples, NamedTuples and dataclasses of numbers, strings,
            bytes, None, bools and arrays. Kept bit for bit, without pickle.

        Raises
        ------
        InvalidInputError
            Something in it cannot be stored; the checkpoint before stays.
        """
        with self._only_call():
            self._require_recording()
            text = write_checkpoint(self._count, state)
            if self._journal.keep_checkpoint(text):
                return
            if not self._journal.survives:
                self._flush()
            elif self._layout.durable:
                self._journal.make_durable()
            self._write_checkpoint(text)
            self._journal.drop_checkpoint()

    def _write_checkpoint(self, text: str) -> None:
        self._flusher.require_own_trace()
        key = self._block.write("state", text)
        if self._layout.durable:
            self._location.make_durable([key])

    def _read_checkpoint(self, like: Any) -> tuple[int, Any]:
        """The draw to go on from, and the state there."""
        found = self._block.last_checkpoint(like)
        if found is None:
            return self._count, None
        draws, state = found
        chain_is_full = self._count == self._total
        if chain_is_full and draws != self._count:
            return self._count, None
        if draws > self._count:
            raise DamagedTraceError(
                f"its checkpoint belongs to draw {draws}, but the chain has {self._count}",
                where=str(self._block),
                remedy="`zarrtrace repair` drops it, and the chain continues without a state",
                chain=self.chains[0],
                draw=draws,
            )
        return draws, state

    def _go_back(self, draws: int) -> None:
        """Drop the draws from `draws` on."""
        count, chunks = self._count, self._chunks

        def load(variable: Variable, target: np.ndarray[Any, Any]) -> None:
            span = span_of(written_spans(self._layout, variable), draws)
            # The chunk that is being filled is in the buffer, every other one in the store.
            if count in span.place(draws, variable.draws_per_chunk).draws:
                target[...] = chunks.chunk(variable).rows
            else:
                self._load_rows(variable, draws, target)

        checkpoint = self._journal.read_checkpoint()

        def fill(journal: Journal) -> None:
            for variable in self._layout.variables:
                if has_rows(self._layout, variable):
                    load(variable, journal.rows_of(variable))
            journal.seal_rows(draws)
            if checkpoint is not None:
                journal.keep_checkpoint(checkpoint)
            journal.count = draws

        self._journal = self._journal.replaced(self._layout, fill)
        for variable in self._layout.variables:
            if not has_rows(self._layout, variable):
                load(variable, self._memory[variable.label])
        self._lay_out()
        if self._keeps_rows:
            self._leave_whole_chunks(count)
        else:
            self._flusher.publish(draws)

    def record(
        self, posterior: Values | None = None, sample_stats: Values | None = None, **groups: Values
    ) -> None:
        """Record one draw: a value for every variable of every sampled group.

        Parameters
        ----------
        posterior, sample_stats, **groups : mapping of str to value
            Values shaped as their variables; a writer for a block of chains takes a leading
            chain axis as well. Numbers, lists, NumPy arrays, and what has `__array__`.

        Raises
        ------
        DrawError
            A variable is missing or unknown, or a value has another shape or would lose
            something in its dtype. Nothing of the draw is kept and the writer goes on.
        ChainFullError
            The chain has its tune + draws draws.
        ChainBusyError
            Another writer has taken the chain, or another call of this one is under way: of
            another thread, or the one that a signal handler interrupted.
        NotWritableError
            The store could not be written. Nothing of the draw is kept: give it again.
        """
        if self._state is not _RECORDING:
            self._require_recording()
        while self._in_call:
            self._overlap()
        try:
            self._in_call = True
            count = self._counter[0]
            if count >= self._boundary:
                self._require_room(1)
                self._begin_chunks(count)
            self._plan.put(_given(posterior, sample_stats, groups), count)
            self._advance(count + 1)
        finally:
            self._in_call = False

    def record_block(
        self, posterior: Values | None = None, sample_stats: Values | None = None, **groups: Values
    ) -> None:
        """Record several draws at once.

        Parameters
        ----------
        posterior, sample_stats, **groups : mapping of str to array
            Values with a leading draw axis, (draws, *shape); for a block of chains with the chain
            axis before it as everywhere in ArviZ, (chains, draws, *shape).

        Raises
        ------
        DrawError, ChainFullError, ChainBusyError
            As `record()`; nothing of the block is kept.
        PartlyRecordedError
            The store could not be written after some draws of the block were recorded. Its `kept`
            says how many: record the rest.
        NotWritableError
            The store could not be written, and nothing of the block is kept.
        """
        with self._only_call():
            self._require_recording()
            given = _given(posterior, sample_stats, groups)
            block = self._plan.check_block(given, self._count)
            self._require_room(block.draws)
            begin = self._count
            try:
                self._record_parts(block, begin)
            except (NotWritableError, DamagedTraceError, OSError) as error:
                kept = self._count - begin
                if not kept or isinstance(error, TraceNotFoundError):
                    raise
                raise PartlyRecordedError(
                    f"the first {kept} of the {block.draws} draws of a block are recorded, then "
                    f"recording failed ({error})",
                    where=str(self._block),
                    remedy=f"remove the cause and record the rest of the block, from its draw "
                    f"{kept} on",
                    chain=self.chains[0],
                    draw=begin + kept,
                    kept=kept,
                ) from error

    def _record_parts(self, block: Block, count: int) -> None:
        """Record a block up to each end of a chunk in turn."""
        done = 0
        while done < block.draws:
            if count >= self._boundary:
                self._begin_chunks(count)
            step = min(block.draws - done, self._boundary - count)
            self._plan.put_block(block, done, step, count)
            done += step
            count += step
            self._advance(count)

    def _advance(self, count: int) -> None:
        """Publish the draws below `count`. Whatever stops this early stops it between two steps."""
        if not self._journal.survives and time.monotonic() > self._next_flush:
            # The draws before this one: should that fail, this one was not accepted.
            self._flush()
        # 1. What these draws complete is written.
        if count == self._boundary:
            if not self._journal.locked:
                self._require_recording()
                self._require_claim()
            self._flusher.write(self._chunks.full(count))
        if self._has_text and self._journal.survives:
            self._flusher.write(self._chunks.partial(count, text_only=True))
        # 2. Their rows prove themselves, for readers who cannot believe the count.
        for draw in range(self._counter[0], count):
            for seal in self._seals:
                seal.put(draw)
        # 3. One assignment publishes them, if the writer was not closed or displaced meanwhile.
        if self._state is not _RECORDING:
            self._require_recording()
        self._counter[0] = count
        # 4. Only now may draws go into the rows of the chunks that are full. These are recorded, so
        # a failure is not theirs: the next call meets it again before it records anything.
        if count == self._boundary:
            with suppress(TraceError, OSError):
                self._begin_chunks(count)

    def _begin_chunks(self, count: int) -> None:
        """Turn to the chunks that draw `count` goes into, where some were full before it.

        When this was interrupted, the next draw finds the boundary where it was, and does it
        again before it uses a row.
        """
        if self._layout.durable:
            # Before rows are used again: the count on the disk must not lie before them.
            self._journal.make_durable()
        if self._chunks.all_full(count) and (count == self._total or not self._journal.survives):
            self._flusher.publish(count)
        if count == self._total:
            return
        if self._chunks.at_end_of_array(count):
            # From one array to the next: a chain that went back before a split.
            self._lay_out()
        else:
            self._boundary = min(self._chunks.next_end(count), self._total)

    # Writing ------------------------------------------------------------------------------

    def flush(self) -> None:
        """Write what is buffered to the store, so that readers on other machines find it.

        Not needed in a local directory: there each draw is safe already, and is read from the
        journal until its chunk is full.
        """
        with self._only_call():
            self._require_open()
            self._flush()

    def _flush(self) -> None:
        self._require_claim()
        self._write_out()

    def _write_out(self) -> None:
        if self._keeps_rows:
            if self._layout.durable:
                self._journal.make_durable()
            self._flusher.publish(self._chunks.whole_draws(self._count))
        else:
            self._store_rows()
        self._flusher.write_times()
        checkpoint = self._journal.read_checkpoint()
        if checkpoint is not None:
            # The journal is not there for ever.
            self._write_checkpoint(checkpoint)
        self._next_flush = time.monotonic() + self._layout.flush_every

    def _store_rows(self) -> None:
        """Write the chunks that are not full, so that every draw is in a chunk."""
        # Full chunks were written when they became full, and may have left the buffer since.
        self._flusher.write(self._chunks.partial(self._count))
        if self._layout.durable:
            self._journal.make_durable()
        self._flusher.publish(self._count)

    @property
    def _keeps_rows(self) -> bool:
        """Whether rows stay in the journal until their chunk is full.

        In a copy of a trace a chunk that is there must be a full one. A journal that lies elsewhere
        than the trace is not copied with it.
        """
        in_store = self._layout.sealed and self._layout.journal == IN_STORE
        return in_store and self._journal.survives

    def _leave_whole_chunks(self, stop: int) -> None:
        """Remove the chunks that hold draws from the count on, up to draw `stop`.

        The one that is being filled may have been written before a split, and others before the
        chain went back. Their draws are in the journal now, or will be drawn again.
        """
        count = self._count
        self._flusher.publish(self._chunks.whole_draws(count))
        self._flusher.write(self._chunks.partial(count, text_only=True))
        stale = [key for key in self._keys_from(count, stop) if self._location.exists(key)]
        if stale:
            self._location.make_durable([f"{JOURNAL}/c.{self._block.number}.0"])
            self._location.delete_many(stale)

    def _keys_from(self, count: int, stop: int) -> Iterator[str]:
        """The keys of all chunks but those of text with draws from the count to `stop`."""
        for variable in self._layout.variables:
            for span in [] if variable.is_text else written_spans(self._layout, variable):
                draw = span.stop if span.gone else max(span.start, count)
                while draw < min(span.stop, stop + 1):
                    place = span.place(draw, variable.draws_per_chunk)
                    yield place.key(variable, self._block.number)
                    draw = place.draws.stop

    def close(self) -> None:
        """Flush and end the writer; closing it again does nothing."""
        if self.closed:
            return
        try:
            # First, so that no other call begins.
            self._state = _State.CLOSED
            self._wait_for_other_threads()
            if not self._gave_way:
                self._flush()
        finally:
            self._let_go()

    def _release(self) -> None:
        """End the writer without flushing; what the journal holds stays there."""
        if not self.closed:
            self._state = _State.CLOSED
            self._let_go()

    def _let_go(self) -> None:
        """Let others record these chains, if they do not do so already."""
        if self._gave_way:
            return
        try:
            self._give_up_claim()
        finally:
            self._claim.let_go()
            self._journal.close()
            ending.forget(self)

    def _give_up_claim(self) -> None:
        # In a forked child it goes on being the parent's.
        if os.getpid() != self._process:
            return
        with self._claiming:
            if self._holder() == self._claim.token:
                self._block.write_claim(None)

    def __del__(self) -> None:
        if not self.closed:
            ending.close_forgotten(self)

    # Giving way ---------------------------------------------------------------------------

    def _give_way(self, successor: Claim) -> Journal:
        """Let another writer of this process record from here on; returns the locked journal.

        Raises
        ------
        ChainBusyError
            A call of this writer is under way, and does not end.
        """
        warn_caller(
            f"{self._block} was open in this process: a new writer takes the place of that one, "
            f"which takes no more draws; what it has recorded is kept, "
            f"{counted(self._count, 'draw')} so far"
        )
        with self._stepping_aside(successor):
            if not self._journal.survives:
                self._write_out()
        self._gave_way = True
        self._claim.let_go()
        ending.forget(self)
        return self._journal

    def _withdraw(self) -> None:
        """End, because this process puts another trace in the place of the one it belongs to.

        Raises
        ------
        ChainBusyError
            As `_give_way`.
        """
        with self._stepping_aside(self._claim):
            self._let_go()
        self._gave_way = True

    @contextmanager
    def _stepping_aside(self, successor: Claim) -> Iterator[None]:
        """Take no more draws, unless the block fails."""
        before = self._state
        # A heartbeat would put the old claim over the new one.
        with self._claiming:
            self._lost_to, self._state = successor, _State.DISPLACED
        try:
            self._require_no_call()
            yield
        except BaseException:
            self._lost_to, self._state = None, before
            raise

    # The claim ----------------------------------------------------------------------------

    def _beat(self) -> None:
        """Show other hosts that this writer lives."""
        # That the trace was removed or replaced is the recording thread's to report.
        with self._claiming, suppress(TraceNotFoundError, TraceReplacedError):
            self._flusher.require_own_trace()
            claim = self._block.claim
            if self._state in (_State.DISPLACED, _State.CLOSED):
                return
            if claim is not None and claim.token != self._claim.token:
                self._lose_to(claim)
                return
            self._claim = self._claim.beating()
            self._block.write_claim(self._claim)

    def _lose_to(self, other: Claim) -> None:
        self._lost_to = other
        if not self.closed:
            self._state = _State.DISPLACED

    @property
    def _token(self) -> str:
        return self._claim.token

    def _holder(self) -> str | None:
        claim = self._block.claim
        return None if claim is None else claim.token

    # Refusing -----------------------------------------------------------------------------

    def _require_open(self) -> None:
        if os.getpid() != self._process:
            raise NotWritableError(
                f"this writer belongs to the parent process {self._process}",
                where=str(self._block),
                remedy="open another chain here with trace.writer(...)",
                chain=self.chains[0],
            )
        if self.closed:
            raise NotWritableError(
                "this writer is closed",
                where=str(self._block),
                remedy="ask the trace for another",
                chain=self.chains[0],
            )

    def _require_claim(self) -> None:
        """Refuse to write when another writer has taken this chain, or another trace its place."""
        try:
            self._flusher.require_own_trace()
            claim = self._block.claim
            if claim is None and not self._journal.locked:
                # Nobody's, unless it could not be read: then that is the error.
                claim = Claim.from_text(self._block.read("writer") or "")
        except (StaleViewError, TraceNotFoundError, DamagedTraceError):
            raise
        except TraceError as error:
            raise NotWritableError(
                f"the store does not say whether this writer may still write ({error})",
                where=str(self._block),
                remedy="nothing is lost: try again when the store answers",
                chain=self.chains[0],
            ) from error
        if claim is not None and claim.token != self._claim.token:
            self._lose_to(claim)
        # Without a lock it may have been taken, and given up again.
        if self._lost_to is not None or (claim is None and not self._journal.locked):
            raise ChainBusyError(
                f"its place was taken by {self._lost_to or 'another writer, which has ended'}",
                where=str(self._block),
                remedy="all its draws are kept"
                if self._gave_way
                else "what this writer has flushed is kept, the rest belongs to the other",
                chain=self.chains[0],
            )

    def _require_recording(self) -> None:
        self._require_open()
        if self._state is _State.DISPLACED:
            self._require_claim()
        if self._state is _State.NOT_RESUMED:
            raise NotResumedError(
                f"the chain has {counted(self._count, 'draw')} from before",
                where=str(self._block),
                remedy="call writer.resume() and continue after them, or create the trace again",
                chain=self.chains[0],
                draw=self._count,
            )

    def _require_room(self, draws: int) -> None:
        if self._count + draws > self._total:
            left = self._total - self._count
            raise ChainFullError(
                f"{self._block}: {draws} more draw{'s' * (draws > 1)} after {self._count}, but "
                f"tune + draws is {self._total}; record {left} at most, or create the trace with "
                f"more draws",
                chain=self.chains[0],
                draw=self._total,
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

    def __repr__(self) -> str:
        state = "closed" if self.closed else f"{self._count} of {self._total} draws"
        return f"<zarrtrace.ChainWriter {self._block}: {state}>"

    def __reduce__(self) -> Any:
        raise TypeError(
            "a writer stays in the process that opened it; send the Trace, and call "
            "trace.writer(chain) there"
        )


ChainWriter._calls = frozenset(
    call.__code__
    for call in (
        ChainWriter.record,
        ChainWriter.record_block,
        ChainWriter.checkpoint,
        ChainWriter.resume,
        ChainWriter.flush,
    )
)


def _given(
    posterior: Values | None, sample_stats: Values | None, groups: dict[str, Values]
) -> dict[str, Values]:
    if posterior is not None:
        groups["posterior"] = posterior
    if sample_stats is not None:
        groups["sample_stats"] = sample_stats
    return groups
