"""One writer per chain, or per block of chains: draws in, chunks out.

The order of events keeps the promises. A draw goes into the journal's rows; when it completes a
chunk, that chunk is written; then one assignment publishes the count. A published draw is
complete, and any other one was not recorded: after a kill, or a caught interrupt, at
any moment.
"""

from __future__ import annotations

import time
from contextlib import suppress
from itertools import chain
from typing import Any

from ..errors import (
    ChainBusyError,
    ChainFullError,
    DamagedTraceError,
    FinishedError,
    NotResumedError,
    NotWritableError,
    PartlyRecordedError,
    StopRequestedError,
    TraceError,
    TraceNotFoundError,
    TraceReplacedError,
)
from ..layout.hierarchy import Hierarchy
from ..messages import counted
from ..sampling_state.block import ChainBlock
from ..sampling_state.claim import Claim
from ..sampling_state.last_checkpoint import drop_checkpoint_after
from ..sampling_state.request import End, read_end
from ..sampling_state.state_text import write_checkpoint
from . import exit as ending
from .chain_journal import open_journal, require_standing, rows_in_memory
from .flusher import Flusher, end_of_chunks
from .going_back import last_checkpoint, went_back
from .holder import Holder, State
from .open_chunks import OpenChunks
from .row_plan import Block, Values, gather_groups
from .varying_length import plan_recording

_OPEN = State.OPEN  # every draw reads it, and access to an enum is slow
_PATIENCE = 10.0  # seconds to wait for a thread that opens or closes a writer of the same chains


class ChainWriter(Holder):
    """A writer that records the draws of one chain, or of a block of chains drawn together.

    Made by `Trace.writer`. A context manager: leaving it closes the writer, after an exception
    and Ctrl-C too. In a local directory a draw survives `kill -9` once `record()` has
    returned; elsewhere once it has been flushed: when its chunk is full, and every 10
    seconds. Use a writer in the process that opened it, in one thread at a time: a call while
    another one is under way is refused. A writer without references closes itself.

    Attributes
    ----------
    chains : range
        The chains this writer records.

    See Also
    --------
    Trace.writer : Open the writer of a chain.
    run : Run all chains, each in a process of its own.

    Examples
    --------
    >>> import zarrtrace as zt
    >>> trace = zt.create("run.zarr", chains=1, draws=1000, posterior={"mu": 0.0})
    >>> with trace.writer(0) as writer:
    ...     start, state = writer.resume()
    ...     for draw in range(start, 5):
    ...         writer.record({"mu": 0.1 * draw})
    >>> start, trace.recorded
    (0, array([5]))
    """

    _unit = "draw"
    _another = "open another one with trace.writer(...)"
    _heeds_requests = True  # whether it ends where it is asked to stop
    _preempted_by = ""  # what asks the process to end
    _checkpoints = 0  # those that were read or kept
    _looked_at = -1  # the draws there were when the sampler last looked at `stop_requested`
    _may_end = False  # whether a preempted chain has kept the state to continue from

    def __init__(self, hierarchy: Hierarchy, number: int, *, force: bool = False) -> None:
        location, layout = hierarchy.location, hierarchy.layout
        # A snapshot is enough: nothing that can change during recording affects a writer.
        self._block = block = ChainBlock(location, layout, number)
        self.chains = block.chains
        super().__init__(str(block), self.chains[0])
        location.require_writable()
        if layout.closed:
            raise FinishedError(
                f"{location} is finished and takes no more draws; "
                f"extend(draws=...) makes room for more",
                chain=self.chains[0],
            )
        self._location = location
        self._hierarchy = hierarchy
        self._layout = layout
        require_standing(hierarchy, block)
        predecessor = self._find_predecessor(block.claim, _PATIENCE)
        if predecessor is None:
            self._journal = open_journal(hierarchy, block, force)
        else:
            self._journal = predecessor._give_way(self._claim)
        try:
            self._claim.hold()
            self._write_claim(self._claim)
            self._require_place()
            self._boundary = layout.total
            self._ends_at(read_end(location, layout))
            self._skipped_after = (0, 0)
            self._memory = rows_in_memory(hierarchy, block, self._count)
            self._writes_text = self._journal.survives and any(
                variable.is_text for variable in layout.variables
            )
            self._flusher = Flusher(hierarchy, block)
            # On a network file system readers elsewhere find what is flushed.
            self._flushes = bool(not self._journal.survives or location.network)
            self._next_flush = time.monotonic() + layout.flush_every
            self._state = State.NOT_RESUMED if self._count else State.OPEN
            self._lay_out()
            if self._count and self._flusher.puts_rows(self._journal):
                drop_checkpoint_after(block, self._count)
            if self._journal.is_elsewhere:
                drop_checkpoint_after(block, self._count)
                self._flusher.leave_whole_chunks(self._journal, self._chunks, end_of_chunks(block))
            elif (self._count or location.network) and self._flusher.keeps_rows:
                self._flusher.leave_whole_chunks(self._journal, self._chunks, self._count)
            ending.register(self)
        except BaseException:
            self._state = State.CLOSED
            self._let_go()
            raise

    # Opening ------------------------------------------------------------------------------

    def _require_place(self) -> None:
        """Refuse to open, after the claim is stored, while the trace is changed.

        No process moves an array while a chain is claimed: from here on they stay in place.
        """
        if self._hierarchy.layout.paused:
            raise ChainBusyError(
                f"{self._location} is being split, extended, finished or overwritten now; "
                f"try again afterwards",
                chain=self.chains[0],
            )
        try:
            require_standing(self._hierarchy, self._block)
        except ChainBusyError:
            # Its rows belong to older chunks; all their draws are in the chunks that exist now.
            self._journal.remove()
            raise
        if not self._journal.locked and not self._is_claimed():
            raise self._block.busy(self._block.claim)

    def _lay_out(self) -> None:
        """Lay out where `record()` puts its values and when chunks are full."""
        count = self._count
        self._counter = self._journal.counter
        rows = {**self._journal.rows, **self._memory}
        self._chunks = OpenChunks(self._block, rows, count)
        self._plan = plan_recording(self._layout, self.chains, self._journal, self._chunks)
        self._seals = self._journal.seals(count)
        self._set_boundary(min(self._chunks.next_end(count), self._total))

    def _set_boundary(self, count: int) -> None:
        """Set at how many draws chunks are full, or the chain."""
        self._boundary = count
        # Another thread may have found news since: `record()` shall look at them.
        has_news = self._found is not self._end or self._preempted_by
        self._look_at = 0 if has_news else count

    # Recording ----------------------------------------------------------------------------

    @property
    def recorded(self) -> int:
        """Draws recorded so far, warmup included."""
        return self._count

    @property
    def given(self) -> int:
        """Draws given so far that count, warmup included: `recorded`, unless the trace thins.

        With `thin` it is `thin * recorded`, and the draws after these that were not kept.

        Examples
        --------
        >>> import zarrtrace as zt
        >>> trace = zt.create(chains=1, draws=100, thin=2, posterior={"mu": 0.0})
        >>> with trace.writer(0) as writer:
        ...     for mu in (0.1, 0.2, 0.3):
        ...         writer.record({"mu": mu})
        ...     print(writer.given, writer.recorded)
        3 1
        """
        return self._count * self._layout.thin + self._skipped

    @property
    def _skipped(self) -> int:
        """The draws given since the last one that was kept."""
        # Together with the count, so that no interrupt comes between the two.
        count, skipped = self._skipped_after
        return skipped if count == self._count else 0

    @property
    def _count(self) -> int:
        """The published count. No other count could differ from it."""
        return self._journal.count

    @property
    def total(self) -> int:
        """The draws at which the chain ends, warmup included: declared, or fewer if it shall stop.

        In the numbers of `recorded`. What other processes change is seen within a second on a
        disk, elsewhere at the next flush.
        """
        return self._found.of_chain(self._count)

    @property
    def stop_requested(self) -> bool:
        """Whether the chain was asked to stop and has the draws that it was asked for.

        Let the sampler end then: all its draws are kept, and `record()` refuses more with a
        StopRequestedError. See `Trace.request_stop`. Also true once the process is preempted, as
        `zarrtrace.signals` explains: `record()` then accepts draws up to the next checkpoint.
        """
        self._looked_at = self._count
        if self._preempted_by:
            return True
        end = self._found
        return end.request is not None and self._count >= end.draws

    def resume(self, like: Any = None) -> tuple[int, Any]:
        """Continue where this chain stopped: return how many draws it has, and the state after.

        It continues at the last checkpoint, or after the last draw where there is none. Draws after
        the checkpoint are dropped: the sampler will draw them again. A chain that has all its draws
        is never shortened. If dropping them fails or is interrupted, the writer is closed; resume
        with another one.

        Parameters
        ----------
        like : object, optional
            A state of the same structure, whose NamedTuples and dataclasses the result gets;
            without it their fields come as dictionaries.

        Returns
        -------
        draws : int
            Number of draws kept, warmup included: the next `record()` adds to them. Where the trace
            thins, how many the writer was given, as `given` says. Without a checkpoint those count
            up to the last one that was kept.
        state : object or None
            The state given to `checkpoint()` after that many draws; None without a checkpoint.

        Raises
        ------
        DamagedTraceError
            The checkpoint cannot be read, or belongs to a draw that does not exist.

        See Also
        --------
        ChainWriter.checkpoint : Keep the state to continue from.
        Trace.last_checkpoint : Read the state without a writer.

        Examples
        --------
        >>> import numpy as np
        >>> import zarrtrace as zt
        >>> trace = zt.create("run.zarr", chains=1, draws=1000, posterior={"x": 0.0})
        >>> rng = np.random.default_rng(1)
        >>> with trace.writer(0) as writer:
        ...     for draw in range(10):
        ...         writer.record({"x": rng.normal()})
        ...     writer.checkpoint({"rng": rng.bit_generator.state})
        ...     writer.record({"x": rng.normal()})

        Later, in another process, the draw after the checkpoint is drawn again:

        >>> rng = np.random.default_rng()
        >>> with trace.writer(0) as writer:
        ...     start, state = writer.resume()
        ...     rng.bit_generator.state = state["rng"]
        ...     writer.record({"x": rng.normal()})
        >>> start
        10
        """
        with self._only_call():
            self._require_open()
            if self._state is State.DISPLACED:
                self._require_claim()
            self._ends_at(read_end(self._location, self._hierarchy.layout))
            is_full = self._count == self._total
            checkpoint = last_checkpoint(self._block, self._count, is_full, like)
            if checkpoint is not None:
                if checkpoint.draws < self._count:
                    self._go_back(checkpoint.draws)
                self._skipped_after = (checkpoint.draws, checkpoint.skipped)
                self._checkpoints += 1
            with self._claiming:
                if self._state is State.NOT_RESUMED:
                    self._state = State.OPEN
            return self.given, None if checkpoint is None else checkpoint.state

    def checkpoint(self, state: Any) -> None:
        """Keep the sampler's state together with the draws recorded so far, atomically.

        After a kill this checkpoint or the previous one is complete, and the draw
        it belongs to exists.

        Parameters
        ----------
        state : object
            Nested dictionaries, lists, tuples, NamedTuples and dataclasses of numbers, strings,
            bytes, None, bools and arrays. They are kept bit for bit, without pickle.

        Raises
        ------
        InvalidInputError
            Something in it cannot be stored; the previous checkpoint stays.

        See Also
        --------
        ChainWriter.resume : Continue from the checkpoint.

        Examples
        --------
        >>> import numpy as np
        >>> import zarrtrace as zt
        >>> trace = zt.create("run.zarr", chains=1, draws=1000, posterior={"x": np.zeros(2)})
        >>> with trace.writer(0) as writer:
        ...     writer.record({"x": [0.1, 0.2]})
        ...     writer.checkpoint({"position": np.array([0.1, 0.2]), "step_size": 0.5})
        >>> with trace.writer(0) as writer:
        ...     writer.resume()
        (1, {'position': array([0.1, 0.2]), 'step_size': 0.5})
        """
        with self._only_call():
            self._require_recording()
            text = write_checkpoint(self._count, state, self._skipped)
            kept = self._journal.keep_checkpoint(text)
            if self._flushes:
                self._flush()
            elif not kept and self._layout.durable:
                self._journal.make_durable()
            if not kept:
                if self._journal.survives and not self._journal.is_in_place:
                    self._require_claim()
                self._flusher.write_checkpoint(text)
                self._journal.drop_checkpoint()
                self._flusher.forget_checkpoint(self._journal)
            self._checkpoints += 1
            self._may_end = bool(self._preempted_by)

    def _go_back(self, draws: int) -> None:
        """Drop the draws from `draws` on."""
        count = self._count
        try:
            self._journal, self._memory = went_back(
                self._hierarchy, self._block, self._journal, self._chunks, draws
            )
            self._lay_out()
            if self._flusher.keeps_rows:
                self._flusher.leave_whole_chunks(self._journal, self._chunks, count)
            else:
                self._flusher.publish(draws)
        except BaseException:
            # Its rows may belong to another count by now, and must not be written.
            self._release()
            raise

    def record(
        self, posterior: Values | None = None, sample_stats: Values | None = None, **groups: Values
    ) -> None:
        """Record one draw: a value for every variable of every sampled group.

        Where the trace thins, only every `thin`-th draw is kept; those between are checked as well.

        Parameters
        ----------
        posterior, sample_stats, **groups : mapping of str to value
            Values shaped as their variables; a writer for a block of chains takes a leading
            chain axis as well. Numbers, lists, NumPy arrays, and what has `__array__`. For a
            variable that was declared with `zarrtrace.UpTo`, an array of any length up to the
            bound, and for a block of chains a list of such arrays; or an array padded to the
            bound, if the lengths are given as the variable `<name>_length`.

        Raises
        ------
        DrawError
            A variable is missing or unknown, or a value has another shape or would lose
            something in its dtype. Nothing of the draw is kept, and the writer continues.
        ChainFullError
            The chain has all its tune + draws draws.
        StopRequestedError
            The chain has all the draws that it was asked to stop at; it is a ChainFullError.
        ChainBusyError
            Another writer has taken the chain, or another call of this writer is under way: in
            another thread, or interrupted by this signal handler.
        NotWritableError
            The store could not be written. Nothing of the draw is kept: record it again.

        See Also
        --------
        ChainWriter.record_block : Record several draws at once.

        Examples
        --------
        >>> import zarrtrace as zt
        >>> trace = zt.create(
        ...     "run.zarr",
        ...     chains=1,
        ...     draws=1000,
        ...     posterior={"mu": 0.0, "theta": zt.Var(shape=2)},
        ...     sample_stats={"lp": 0.0},
        ...     log_likelihood={"y": zt.Var(shape=3)},
        ... )
        >>> with trace.writer(0) as writer:
        ...     writer.record(
        ...         posterior={"mu": 0.1, "theta": [0.2, 0.3]},
        ...         sample_stats={"lp": -1.5},
        ...         log_likelihood={"y": [-0.5, -0.6, -0.4]},
        ...     )
        >>> trace.get("theta")
        array([[[0.2, 0.3]]])
        """
        if self._state is not _OPEN:
            self._require_recording()
        while self._in_call:
            self._overlap()
        try:
            self._in_call = True
            count = self._counter[0]
            if count >= self._look_at:
                self._require_room(1)
                if count >= self._boundary:
                    self._begin_chunks(count)
                self._set_boundary(self._boundary)
            self._plan.put(gather_groups(posterior, sample_stats, groups), count)
            self._accept(count + 1)
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
            axis before it as everywhere in ArviZ, (chains, draws, *shape). For a variable
            declared with `zarrtrace.UpTo`, a list of arrays, and for a block of chains a list of
            such lists; or a padded array and its lengths, as in `record()`.

        Raises
        ------
        DrawError, ChainFullError, ChainBusyError
            As `record()`; nothing of the block is kept.
        PartlyRecordedError
            The store could not be written after some draws of the block were recorded. Its `kept`
            is their number: record the rest.
        NotWritableError
            The store could not be written, and nothing of the block is kept.

        See Also
        --------
        ChainWriter.record : Record one draw.

        Examples
        --------
        >>> import numpy as np
        >>> import zarrtrace as zt
        >>> trace = zt.create("run.zarr", chains=1, draws=1000, posterior={"theta": np.zeros(2)})
        >>> with trace.writer(0) as writer:
        ...     writer.record_block({"theta": np.arange(6.0).reshape(3, 2)})
        >>> trace.get("theta").shape
        (1, 3, 2)

        The walkers of an ensemble are a block of chains:

        >>> walkers = zt.create(chains=8, draws=1000, chains_per_chunk=8, posterior={"mu": 0.0})
        >>> with walkers.writer(range(8)) as writer:
        ...     writer.record_block({"mu": np.zeros((8, 100))})
        >>> walkers.get("mu").shape
        (8, 100)
        """
        with self._only_call():
            self._require_recording()
            given = gather_groups(posterior, sample_stats, groups)
            block = self._plan.check_block(given, self._count)
            thin, skipped, begin = self._layout.thin, self._skipped, self.given
            self._require_room(-(-(skipped + block.draws) // thin))
            try:
                self._record_parts(block.every(thin, thin - 1 - skipped), self._count)
                self._skipped_after = (self._count, (skipped + block.draws) % thin)
            except (NotWritableError, DamagedTraceError, OSError) as error:
                kept = self.given - begin
                if not kept or isinstance(error, TraceNotFoundError):
                    raise
                raise PartlyRecordedError(
                    f"the first {kept} of the {block.draws} draws of a block are recorded, then "
                    f"recording failed ({error})",
                    where=str(self._block),
                    remedy=f"remove the cause and record the rest of the block, from its draw "
                    f"{kept} on",
                    chain=self.chains[0],
                    draw=self._count,
                    kept=kept,
                ) from error

    def _record_parts(self, block: Block, count: int) -> None:
        """Record a block in parts, each up to the end of a chunk."""
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
        """Publish the draws below `count`. A failure stops it between two steps."""
        if self._flushes and time.monotonic() > self._next_flush:
            # This concerns the draws before this one: if it fails, this one was not accepted.
            self._flush()
        # 1. The chunks that these draws complete are written.
        if count == self._boundary:
            self._write_full(count)
        if self._writes_text:
            if not self._journal.is_in_place:
                self._require_claim()
            self._flusher.write(self._chunks.partial(count, text_only=True))
            self._chunks.seal_texts(count, self._journal.chunk_seals)
        # 2. Their rows get seals, for readers who cannot trust the count.
        for draw in range(self._counter[0], count):
            for seal in self._seals:
                seal.put(draw)
        # 3. One assignment publishes them, if the writer was not closed or displaced meanwhile.
        if self._state is not _OPEN:
            self._require_recording()
        self._counter[0] = count
        # 4. Only now may draws go into the rows of the chunks that are full. These are recorded, so
        # a failure does not concern them: the next call tries again before it records anything.
        if count == self._boundary:
            with suppress(TraceError, OSError):
                self._begin_chunks(count)

    # What `record()` does with a draw that was checked.
    _accept = _advance

    def _write_full(self, count: int) -> None:
        """Write the chunks that the draws below the count complete."""
        chunks = self._chunks.full(count, self._journal.chunk_seals)
        if count == self._total and not self._flusher.keeps_rows:
            chunks = chain(chunks, self._chunks.partial(count))
        if self._journal.is_in_place:
            self._flusher.write(chunks)
            return
        # Without a lock, or after a stop, another writer may hold these chains by now.
        self._require_recording()
        self._require_claim()
        self._flusher.put(chunks)

    def _begin_chunks(self, count: int) -> None:
        """Move on to the chunks of draw `count`, if some were full before it.

        If this is interrupted, the next draw finds the boundary unchanged, and does it
        again before it uses a row.
        """
        if self._flusher.syncs:
            # This comes before rows are used again: the count on the disk must not lie before them.
            self._journal.make_durable()
        if self._journal.is_displaced:
            self._require_claim()
        if count == self._total:
            if self._flushes or self._flusher.puts_rows(self._journal):
                self._flush()
            elif not self._flusher.keeps_rows:
                self._flusher.publish(count)
            return
        if self._chunks.all_full(count) and not self._journal.survives:
            self._flusher.publish_whole(self._journal)
        if self._chunks.at_end_of_array(count):
            # From one array to the next: a chain that went back before a split.
            self._lay_out()
        else:
            self._set_boundary(min(self._chunks.next_end(count), self._total))

    # Writing ------------------------------------------------------------------------------

    def flush(self) -> None:
        """Write what is buffered to the store, so that readers on other machines find it.

        Not needed in a local directory: there each draw is safe already, and is read from the
        journal until its chunk is full.

        See Also
        --------
        ChainWriter.close : Flush and close.

        Examples
        --------
        >>> from zarr.storage import MemoryStore
        >>> import zarrtrace as zt
        >>> store = MemoryStore()
        >>> trace = zt.create(store, chains=1, draws=1000, posterior={"mu": 0.0})
        >>> with trace.writer(0) as writer:
        ...     writer.record({"mu": 0.1})
        ...     print(zt.open(store).recorded)
        ...     writer.flush()
        ...     print(zt.open(store).recorded)
        [0]
        [1]
        """
        with self._only_call():
            self._require_open()
            self._flush()

    def _flush(self) -> None:
        self._require_claim()
        self._write_out()

    def _write_out(self) -> None:
        self._flusher.write_out(self._journal, self._chunks)
        if self._location.path is None:
            with suppress(TraceError, OSError):
                self._look_for_news()
        self._next_flush = time.monotonic() + self._layout.flush_every

    def _write_last(self) -> None:
        self._flush()

    def _store_rows(self) -> None:
        """Write the chunks that are not full: nobody will record before they are moved."""
        self._flusher.store_rows(self._journal, self._chunks)

    # The claim ----------------------------------------------------------------------------

    def _read_claim(self) -> Claim | None:
        return self._block.claim

    def _write_claim(self, claim: Claim | None) -> None:
        self._block.write_claim(claim)

    def _beat(self) -> None:
        # The recording thread reports that the trace was removed or replaced.
        with suppress(TraceNotFoundError, TraceReplacedError):
            self._flusher.require_own_trace()
            super()._beat()

    def _claim_for_certain(self) -> Claim | None:
        self._flusher.require_own_trace()
        claim = self._block.claim
        if claim is None and not self._journal.locked:
            # There is no claim, unless it could not be read, which is raised here.
            claim = Claim.from_text(self._block.read("writer") or "")
        return claim

    def _require_recording(self) -> None:
        self._require_open()
        if self._state is State.DISPLACED:
            self._require_claim()
        if self._state is State.NOT_RESUMED:
            raise NotResumedError(
                f"the chain has {counted(self._count, 'draw')} from an earlier writer",
                where=str(self._block),
                remedy="call writer.resume() and continue after them, or create the trace again",
                chain=self.chains[0],
                draw=self._count,
            )

    # Its end ------------------------------------------------------------------------------

    def _look(self) -> None:
        if self._journal.is_displaced and not self.closed:
            # This process was stopped for so long that another writer has taken its place.
            self._lose_to(self._block.claim)
            return
        # Elsewhere a look is a request: it comes with each flush.
        if self._location.path is not None:
            self._look_for_news()

    def _look_for_news(self) -> None:
        """See whether the run was extended or asked to stop; another thread may record."""
        found = read_end(self._location, self._hierarchy.layout)
        is_new = found != self._end and self._heeds_requests
        self._found = found if is_new else self._end
        if is_new:
            self._look_at = 0

    def _preempt(self, cause: str) -> None:
        """Let the chain end after its next checkpoint; at once where it makes none.

        A sampler that looks at `stop_requested` before each draw may be in the middle of one, and
        makes its checkpoint after that.
        """
        looks = self._looked_at == self._count
        self._may_end = self._may_end or not (self._checkpoints or looks)
        self._preempted_by = cause
        self._look_at = 0

    def _ends_at(self, end: End) -> None:
        """Let the chain end there; only the thread that records calls this."""
        if not self._heeds_requests:
            end = end._replace(request=None)
        self._found = self._end = end
        self._total = end.of_chain(self._count)
        self._set_boundary(min(self._boundary, self._total))

    def _require_room(self, draws: int) -> None:
        """Refuse draws after the end of the chain.

        A block that begins before the draw of a request is recorded whole: the state of the
        sampler is the one after it.
        """
        count = self._count
        if self._may_end:
            raise self._stopped(
                f"the process was asked to end by {self._preempted_by}",
                "end the sampler; the same script continues from the last checkpoint",
            )
        if self._found is not self._end or count + draws > self._total:
            # The trace may have been extended meanwhile, or asked to stop.
            self._ends_at(read_end(self._location, self._hierarchy.layout))
            if count < self._total < count + draws <= self._end.declared:
                self._total = count + draws
        if count + draws <= self._total:
            return
        if self._end.request is not None and count + draws <= self._end.declared:
            raise self._stopped(
                f"the run was asked to stop {self._end.request}",
                "end the sampler, or take the request back with trace.cancel_stop()",
            )
        raise ChainFullError(
            f"{counted(draws, 'more draw')} after {count}, but tune + draws is {self._total}",
            where=str(self._block),
            remedy=f"record at most {self._total - count}, or make room with "
            f"trace.extend(draws=...), even while this writer is open",
            chain=self.chains[0],
            draw=self._total,
        )

    def _stopped(self, why: str, what_next: str) -> StopRequestedError:
        """The error that ends a loop which does not look whether its chain has to end."""
        count = self._count
        return StopRequestedError(
            why,
            where=str(self._block),
            remedy=f"all its {counted(count, 'draw')} are kept: {what_next}",
            chain=self.chains[0],
            draw=count,
        )

    # Life ---------------------------------------------------------------------------------

    def __repr__(self) -> str:
        end = "" if self._layout.draws is None else f" of {self._total}"
        state = "closed" if self.closed else f"{self._count}{end} draws"
        return f"<zarrtrace.ChainWriter {self._block}: {state}>"

    def __reduce__(self) -> Any:
        raise TypeError(
            "a writer cannot leave the process that opened it; send the Trace, and call "
            "trace.writer(chain) there"
        )


class ThinningWriter(ChainWriter):
    """The writer of a trace that keeps every `thin`-th of the draws it is given."""

    def _accept(self, count: int) -> None:
        """Publish the draw if it is one to keep; otherwise the next one takes its rows."""
        skipped = self._skipped + 1
        if skipped == self._layout.thin:
            self._advance(count)
        else:
            self._skipped_after = (count - 1, skipped)


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
