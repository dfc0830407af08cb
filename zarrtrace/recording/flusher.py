"""Buffer → chunks: what one writer stores."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping

from ..errors import TraceNotFoundError, TraceReplacedError
from ..layout.hierarchy import Hierarchy
from ..layout.layout import IN_STORE, chunks_among
from ..layout.spans import spans, written_spans
from ..sampling_state.block import ChainBlock
from ..sampling_state.flushed import Series, flushed_item
from ..sampling_state.journal import Journal
from ..sampling_state.journal_format import JOURNAL
from ..store.large_blocks import reuse_large_blocks
from .open_chunks import EncodedChunk, OpenChunks

# Publishing full chunks takes at most a part of the time: one divided by this number.
_PUBLISHING_IS_ONE_IN = 10


class Flusher:
    """Writes the chunks of one block of chains, and the number of draws in them."""

    def __init__(self, hierarchy: Hierarchy, block: ChainBlock) -> None:
        layout = block.layout
        self._hierarchy = hierarchy
        self._location = block.location
        self._layout = layout
        self._block = block
        largest = max(v.draws_per_chunk * v.bytes_per_draw for v in layout.variables)
        reuse_large_blocks(layout.chains_per_chunk * largest)
        self._since = time.time()
        started = block.read("sampling_start_time")
        self._start_is_written = started is not None
        self._started = float(started) if started is not None else self._since
        self._spent = float(block.read("sampling_time") or 0.0)
        self._published: int | None = None
        self._series: Series | None = None
        self._put: tuple[int, str | None] | None = None  # the count and checkpoint in the store
        self._publish_after = 0.0  # of the clock that only goes forward

    # Chunks and counts --------------------------------------------------------------------

    def write(self, chunks: Iterable[EncodedChunk]) -> None:
        """Write chunks; in a local store, check first that the trace is still this one."""
        if self._location.path is not None:
            self.require_own_trace()
        self.put(chunks)

    def put(self, chunks: Iterable[EncodedChunk]) -> None:
        """Write chunks, one after the other where the store is local."""
        if not self._layout.durable:
            self._location.write_many(chunks)
            return
        chunks = list(chunks)
        self._location.write_many(chunks)
        self._location.make_durable(key for key, _ in chunks)

    def require_own_trace(self) -> None:
        """Refuse to write where the trace was removed or replaced by another one.

        LocalStore makes missing directories: a trace that was removed must not come
        back.
        """
        try:
            _ = self._hierarchy.layout
        except TraceReplacedError as error:
            error.chain = self._block.chains[0]
            raise
        except TraceNotFoundError:
            raise TraceNotFoundError(
                "the trace was removed while it was recorded",
                where=str(self._location),
                remedy="what is in memory cannot be flushed",
                chain=self._block.chains[0],
            ) from None

    def publish(self, count: int) -> None:
        """Store how many draws are in chunks, where plain Zarr readers find it."""
        if count != self._published:
            self._write_values({"draw_idx": count})
            self._published = count

    def publish_whole(self, journal: Journal) -> None:
        """Publish the draws of a journal when all of them are in full chunks.

        In a directory this takes at most a tenth of the time: ext4 flushes a file that replaces
        another one, which may take longer than writing a large chunk. The next flush publishes
        what is left out.
        """
        begin = time.monotonic()
        if self._location.path is not None and begin < self._publish_after:
            return
        if self.puts_rows(journal):
            self._put_rows(journal)
        else:
            self.publish(journal.count)
        self._publish_after = begin + _PUBLISHING_IS_ONE_IN * (time.monotonic() - begin)

    def write_times(self) -> None:
        """Store when sampling began, and how long writers of these chains were open."""
        now = time.time()
        self._spent += now - self._since
        self._since = now
        values = {"sampling_time": self._spent}
        if not self._start_is_written:
            values["sampling_start_time"] = self._started
        self._write_values(values)
        self._start_is_written = True

    def write_checkpoint(self, text: str) -> None:
        """Store a checkpoint as a file of its own."""
        self.require_own_trace()
        key = self._block.write("state", text)
        if self._layout.durable:
            self._location.make_durable([key])

    def forget_checkpoint(self, journal: Journal) -> None:
        """Put the rows into the store without the checkpoint that one in a file has replaced."""
        # Rows that a journal elsewhere holds are put with the text of their draws, at a flush.
        if self.puts_rows(journal) and not journal.survives:
            self._put_rows(journal)

    def _write_values(self, values: Mapping[str, float]) -> None:
        keys = [self._block.write(name, value) for name, value in values.items()]
        if self._layout.durable:
            self._location.make_durable(keys)

    # What is buffered ---------------------------------------------------------------------

    def write_out(self, journal: Journal, chunks: OpenChunks) -> None:
        """Write what is buffered, so that readers on other machines find it."""
        if self.keeps_rows:
            if self.syncs:
                journal.make_durable()
            if self.puts_rows(journal):
                self.write(chunks.partial(journal.count, text_only=True))
                chunks.seal_texts(journal.count, journal.chunk_seals)
                self._put_rows(journal)
            self.publish(chunks.whole_draws(journal.count))
        else:
            self.store_rows(journal, chunks)
        self.write_times()
        if not self.puts_rows(journal):
            self._write_kept_checkpoint(journal)

    def store_rows(self, journal: Journal, chunks: OpenChunks) -> None:
        """Write the chunks that are not full, so that every draw is in a chunk."""
        # Full chunks were written when they became full, and may no longer be in the buffer.
        self.write(chunks.partial(journal.count))
        if self._layout.durable:
            journal.make_durable()
        self.publish(journal.count)
        self._write_kept_checkpoint(journal)

    def _write_kept_checkpoint(self, journal: Journal) -> None:
        checkpoint = journal.read_checkpoint()
        if checkpoint is not None:
            # finish() removes the journal, so the checkpoint is kept in the array too.
            self.write_checkpoint(checkpoint)

    @property
    def syncs(self) -> bool:
        """Whether a flush syncs the journal: for power loss, or for other machines."""
        in_store = self._layout.journal == IN_STORE
        return self._layout.durable or (in_store and bool(self._location.network))

    @property
    def keeps_rows(self) -> bool:
        """Whether rows are in chunks only when these are full.

        In a copy of a trace every existing chunk must be full. Versions 1 and 2 had others.
        """
        return self._layout.sealed

    def puts_rows(self, journal: Journal) -> bool:
        """Whether a flush puts the rows into the store, which has no journal that holds them.

        A journal that is stored elsewhere than the trace is not copied with it.
        """
        return self.keeps_rows and not (journal.survives and self._layout.journal == IN_STORE)

    def _put_rows(self, journal: Journal) -> None:
        """Put the rows of chunks that are not full into the store, if they have changed."""
        now = journal.count, journal.read_checkpoint()
        if self._series is None or self._series.journal is not journal:
            key, document = flushed_item(self._layout)
            # It is missing where the system was expected to map files, and could not.
            if self._location.path is not None and not self._location.exists(key):
                self._location.write(key, document)
            self._series = Series(self._block, journal)
        elif now == self._put:
            return
        self._put = None
        self.put([(self._block.key("flushed"), self._series.encode())])
        self._put = now

    def leave_whole_chunks(self, journal: Journal, chunks: OpenChunks, stop: int) -> None:
        """Remove the chunks that hold draws from the count on, up to draw `stop`.

        The chunk that is being filled may have been written before a split, and others before the
        chain went back. Their draws are in the journal now, or will be drawn again.
        """
        count, key = journal.count, f"{JOURNAL}/c.{self._block.number}.0"
        chunks.seal_texts(count, journal.chunk_seals)
        if self.puts_rows(journal):
            key = self._block.key("flushed")
            self._put_rows(journal)
        self.publish(chunks.whole_draws(count))
        self.write(chunks.partial(count, text_only=True))
        stale = list(self._keys_from(count, stop))
        if not self._location.waits:
            stale = [key for key in stale if self._location.exists(key)]
        if stale:
            self._location.make_durable([key])
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


def end_of_chunks(block: ChainBlock) -> int:
    """The draw after the last one that an existing chunk may hold."""
    layout = block.layout
    groups = [path for group in layout.groups.values() for path in group.paths]
    chunks = chunks_among(key for path in groups for key in block.location.keys(path))
    ends = [
        span.chunk(chunk.number, variable.draws_per_chunk).draws.stop
        for variable in layout.variables
        for span in spans(layout, variable)
        for chunk in chunks.get(span.path, ())
    ]
    return max(ends, default=0)
