"""Buffer → chunks: what one writer puts into the store."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from ..errors import TraceNotFoundError
from ..layout.layout import STATE
from ..layout.spans import ChunkPlace, span_of, written_spans
from ..layout.variables import Variable
from ..sampling_state.block import ChainBlock
from ..store.chunk_codec import ChunkCodec

Rows = Mapping[str, np.ndarray[Any, Any]]


class Flusher:
    """Writes the chunks of one block of chains, and how many draws of it are in them.

    Rows are those of a writer's buffer, by `group/variable`: of each variable the chunk that the
    draw before the count lies in.
    """

    def __init__(self, block: ChainBlock) -> None:
        layout = block.layout
        self._location = block.location
        self._layout = layout
        self._block = block
        self._codecs = {
            variable.label: ChunkCodec(variable.dtype, layout.encoding(variable.dtype))
            for variable in layout.variables
        }
        self._spans = {
            variable.label: written_spans(layout, variable) for variable in layout.variables
        }
        # glibc maps and unmaps what is larger than any block it saw freed, and half of the time of
        # encoding a large chunk would go to the pages of its bytes. Let it see one.
        largest = max(v.draws_per_chunk * v.bytes_per_draw for v in layout.variables)
        np.empty(layout.chains_per_chunk * largest + 4096, np.uint8)
        self._since = time.time()
        started = block.read("sampling_start_time")
        self._start_is_written = started is not None
        self._started = float(started) if started is not None else self._since
        self._spent = float(block.read("sampling_time") or 0.0)

    def _last_chunk(self, variable: Variable, count: int) -> ChunkPlace:
        """The chunk that the draw before the count lies in."""
        span = span_of(self._spans[variable.label], count - 1)
        return span.place(count - 1, variable.draws_per_chunk)

    def write_full(self, rows: Rows, count: int) -> bool:
        """Write the chunks whose last draw is the one before the count.

        Their rows are in the buffer only until the next draw is. True when no variable is left
        with a chunk that is partly filled.
        """
        items = []
        for variable in self._layout.variables:
            place = self._last_chunk(variable, count)
            if count == place.draws.stop:
                items.append((variable, place, self._filled(variable, rows, len(place.draws))))
        self._write(items)
        return len(items) == len(self._layout.variables)

    def write_partial(self, rows: Rows, count: int, *, text_only: bool = False) -> None:
        """Write the chunks that are partly filled."""
        items = []
        for variable in self._layout.variables if count else []:
            place = self._last_chunk(variable, count)
            if count < place.draws.stop and (variable.is_text or not text_only):
                filled = self._filled(variable, rows, count - place.draws.start)
                items.append((variable, place, filled))
        self._write(items)

    def _filled(self, variable: Variable, rows: Rows, length: int) -> np.ndarray[Any, Any]:
        """The rows of a variable, with the fill value after the first `length`."""
        held = rows[variable.label]
        if length < variable.draws_per_chunk:
            held = held.copy()
            held[:, length:] = self._codecs[variable.label].fill
        return held

    def _write(self, items: Iterable[tuple[Variable, ChunkPlace, np.ndarray[Any, Any]]]) -> None:
        # LocalStore makes the directories it misses: a trace that was removed must not come back.
        if self._location.path is not None and not self._location.exists(f"{STATE}/zarr.json"):
            raise TraceNotFoundError(
                f"there is no trace at {self._location} any more: it was removed while it was "
                f"recorded; what is in memory cannot be flushed"
            )
        # What was dropped before a chain went back to it is drawn again, for nobody.
        items = (item for item in items if not item[1].span.gone)
        encoded = (
            (
                place.key(variable, self._block.number),
                self._codecs[variable.label].encode(rows),
            )
            for variable, place, rows in items
        )
        if not self._layout.durable:
            self._location.write_many(encoded)
            return
        chunks = list(encoded)
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
