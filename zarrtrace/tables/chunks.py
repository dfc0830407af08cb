"""Rows ↔ the bytes of a chunk, which hold the number of rows.

A chunk that is not full is written at a flush, and again when it has more rows. A reader of
a copy of the table does not know when it was written, and must not take it for a full one. Blosc
names the compressor in each chunk, and decodes all of them: a chunk that is full is compressed with
LZ4, and any other with Zstandard. In the latter each place after the last row has a mark,
which differs from that row. Readers of Zarr do not see the marks: the array ends before them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..layout.variables import Variable
from ..sampling_state.proof import NOT_RECORDED
from ..store.chunk_codec import ChunkCodec
from .layout import TableLayout

HEADER = 16  # bytes at the beginning of a chunk, which say whether it is full
_ZSTD = 4  # the compressor as Blosc's header has it, in the highest three bits of byte 2


class ColumnCodec:
    """Encodes and decodes the chunks of one column."""

    def __init__(self, layout: TableLayout, column: Variable) -> None:
        encoding = layout.encoding(column)
        self._column = column
        self._says_rows = layout.sealed
        self._full = ChunkCodec(column.dtype, encoding)
        self._partial = ChunkCodec(column.dtype, _with_zstd(encoding)) if layout.sealed else None
        self.fill = self._full.fill
        self.shape = (column.draws_per_chunk, *column.shape)
        self.most = self._full.most_encoded(self.shape)

    def encode(self, rows: np.ndarray[Any, Any], filled: int) -> bytes:
        """The bytes of a chunk whose first `filled` rows, at least one, are recorded."""
        if filled == len(rows) or not rows.size:
            return self._full.encode(rows)
        rows = rows.copy()
        if self._partial is None:
            rows[filled:] = self.fill
            return self._full.encode(rows)
        rows[filled:] = self._mark(rows[filled - 1])
        return self._partial.encode(rows)

    def decode(self, data: memoryview) -> np.ndarray[Any, Any]:
        """The rows of a chunk, with the marks after them; ValueError for other bytes."""
        return self._full.decode(data, self.shape)

    def rows_in(self, data: memoryview) -> int:
        """How many rows a chunk has by its marks; all of them if it cannot be read."""
        if not self.may_have_more(data):
            return len(self)
        try:
            rows = self.decode(data)
        except ValueError:
            return len(self)
        if self._column.is_text:
            marks = (rows == NOT_RECORDED).reshape(len(rows), -1).all(axis=1)
        else:
            raw = np.ascontiguousarray(rows).view(np.uint8).reshape(len(rows), -1)
            marks = (raw == raw[-1]).all(axis=1)
        recorded = np.flatnonzero(~marks)
        return int(recorded[-1]) + 1 if len(recorded) else 0

    def may_have_more(self, header: memoryview | bytes) -> bool:
        """Whether a chunk that begins with these bytes is not full."""
        return self._says_rows and len(header) >= HEADER and header[2] >> 5 == _ZSTD

    def __len__(self) -> int:
        return self.shape[0]

    def _mark(self, last: Any) -> Any:
        """The mark after the last row of a chunk that is not full."""
        if self._column.is_text:
            return NOT_RECORDED
        last = np.asarray(last)
        zeros = np.zeros_like(last)
        if last.tobytes() != zeros.tobytes():
            return zeros
        return np.frombuffer(b"\1" * last.nbytes, last.dtype).reshape(last.shape)


def _with_zstd(encoding: dict[str, Any]) -> dict[str, Any]:
    """The same encoding with another compressor of Blosc."""
    *before, blosc = encoding["codecs"]
    configuration = {**blosc["configuration"], "cname": "zstd"}
    return {**encoding, "codecs": [*before, {**blosc, "configuration": configuration}]}
