"""Buffer → chunks: what one writer puts into the store."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping

import numpy as np

from ..errors import TraceNotFoundError, TraceReplacedError
from ..layout.hierarchy import Hierarchy
from ..sampling_state.block import ChainBlock
from .open_chunks import EncodedChunk


class Flusher:
    """Writes the chunks of one block of chains, and how many of its draws are in them."""

    def __init__(self, hierarchy: Hierarchy, block: ChainBlock) -> None:
        layout = block.layout
        self._hierarchy = hierarchy
        self._location = block.location
        self._layout = layout
        self._block = block
        # glibc maps and unmaps what is larger than any block it saw freed, and half of the time of
        # encoding a large chunk would go to the pages of its bytes. Let it see one.
        largest = max(v.draws_per_chunk * v.bytes_per_draw for v in layout.variables)
        np.empty(layout.chains_per_chunk * largest + 4096, np.uint8)
        self._since = time.time()
        started = block.read("sampling_start_time")
        self._start_is_written = started is not None
        self._started = float(started) if started is not None else self._since
        self._spent = float(block.read("sampling_time") or 0.0)

    def write(self, chunks: Iterable[EncodedChunk]) -> None:
        """Write chunks, one after the other where the store is local."""
        if self._location.path is not None:
            self.require_own_trace()
        if not self._layout.durable:
            self._location.write_many(chunks)
            return
        chunks = list(chunks)
        self._location.write_many(chunks)
        self._location.make_durable(key for key, _ in chunks)

    def require_own_trace(self) -> None:
        """Refuse to write where the trace is gone, or another one has taken its place.

        LocalStore makes the directories that it misses: a trace that was removed must not come
        back.
        """
        try:
            _ = self._hierarchy.layout
        except TraceReplacedError as error:
            error.chain = self._block.chains[0]
            raise
        except TraceNotFoundError:
            raise TraceNotFoundError(
                "there is no trace any more: it was removed while it was recorded",
                where=str(self._location),
                remedy="what is in memory cannot be flushed",
                chain=self._block.chains[0],
            ) from None

    def publish(self, count: int) -> None:
        """Put the count where plain Zarr readers find it."""
        self._write_values({"draw_idx": count})

    def write_times(self) -> None:
        """Put down when sampling began, and how long writers of these chains were open."""
        now = time.time()
        self._spent += now - self._since
        self._since = now
        values = {"sampling_time": self._spent}
        if not self._start_is_written:
            values["sampling_start_time"] = self._started
        self._write_values(values)
        self._start_is_written = True

    def _write_values(self, values: Mapping[str, float]) -> None:
        keys = [self._block.write(name, value) for name, value in values.items()]
        if self._layout.durable:
            self._location.make_durable(keys)
