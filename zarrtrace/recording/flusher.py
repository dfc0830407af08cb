"""Buffer → chunks: what one writer puts into the store."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping

import numpy as np

from ..errors import TraceNotFoundError
from ..layout.layout import STATE
from ..sampling_state.block import ChainBlock
from .open_chunks import EncodedChunk


class Flusher:
    """Writes the chunks of one block of chains, and how many of its draws are in them."""

    def __init__(self, block: ChainBlock) -> None:
        layout = block.layout
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
        # LocalStore makes the directories it misses: a trace that was removed must not come back.
        if self._location.path is not None and not self._location.exists(f"{STATE}/zarr.json"):
            raise TraceNotFoundError(
                f"there is no trace at {self._location} any more: it was removed while it was "
                f"recorded; what is in memory cannot be flushed"
            )
        if not self._layout.durable:
            self._location.write_many(chunks)
            return
        chunks = list(chunks)
        self._location.write_many(chunks)
        self._location.make_durable(key for key, _ in chunks)

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
