"""Draws of a variable ↔ the bytes of a chunk, which show how many draws they hold.

A split and a finish write chunks that are not full, and a run that continues fills them. A copy may
have such a chunk of an earlier moment, and its reader must not take it for the full one. Two things
show the difference. Blosc names the compressor in each chunk and decodes all of them, so that a
chunk that is not full is compressed with another one. And the places after the last draw hold marks
in place of draws: readers of Zarr do not see them, because a finished array ends before them.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..layout.layout import Layout
from ..layout.variables import Variable
from ..store.chunk_codec import ChunkCodec
from .proof import NOT_RECORDED

HEADER = 16  # bytes at the beginning of a chunk, which name its compressor

# Repeated in the places after the last draw: not-a-number in every floating dtype.
_MARK = bytes.fromhex("d3ffdb7fe57ff6ff")
# In place of it where the last draw looks the same.
_OTHER_MARK = bytes(255 - byte for byte in _MARK)
# Without Blosc, integers prove that they are marks by this many bytes.
_PROOF = 4
_DRAWS_AT_FIRST = 16  # that are compared with marks, from the end of a chunk
# As the highest three bits of byte 2 of a header have it.
_LZ4, _ZSTD = 1, 4


class DrawCodec:
    """Encodes and decodes chunks of one dtype, shape (chains, draws, *shape).

    Parameters
    ----------
    encoding : mapping
        As for a `ChunkCodec`.
    is_bool : bool
        Whether the values are 0 or 1.
    shows_draws : bool
        Whether chunks show how many draws they hold: those of older traces do not.
    """

    def __init__(
        self, dtype: np.dtype[Any], encoding: Mapping[str, Any], is_bool: bool, shows_draws: bool
    ) -> None:
        self._codec = ChunkCodec(dtype, dict(encoding))
        self._is_text = isinstance(dtype, np.dtypes.StringDType)
        self._shows_draws = shows_draws
        # No value of these dtypes is a mark.
        self._is_certain = is_bool or dtype.kind in "fc"
        self._compressor: int | None = None
        self._partial = self._codec
        other = _with_other_compressor(encoding)
        if shows_draws and not self._is_text and other is not None:
            self._compressor, other_encoding = other
            self._partial = ChunkCodec(dtype, other_encoding)
        self.fill = self._codec.fill
        self.decode = self._codec.decode
        self.decode_into = self._codec.decode_into
        self.most_encoded = self._codec.most_encoded

    def encode(self, rows: np.ndarray[Any, Any], draws: int, places: int) -> bytes:
        """The bytes of a chunk whose first `draws` draws, at least one, are recorded.

        Parameters
        ----------
        places : int
            The draws that the chunk will have: an array may end within its last chunk.
        """
        if draws == rows.shape[1] or not rows.size:
            return self._codec.encode(rows)
        rows = rows.copy()
        rows[:, draws:] = self.fill
        if draws == places or not self._shows_draws:
            return self._codec.encode(rows)
        if self._is_text:
            rows[:, draws] = NOT_RECORDED
            return self._codec.encode(rows)
        last = _as_bytes(rows[:, draws - 1 : draws])
        looks_marked = (last == _as_bytes(_marks(rows, _MARK, draws - 1, draws))).all()
        mark = _OTHER_MARK if self.names_partial and looks_marked else _MARK
        rows[:, draws:] = _marks(rows, mark, draws, rows.shape[1])
        return self._partial.encode(rows)

    def may_be_partial(self, data: memoryview | bytes) -> bool:
        """Whether a chunk that begins with these bytes may have fewer draws than places."""
        if self._compressor is None:
            return self._shows_draws
        return len(data) >= HEADER and data[2] >> 5 == self._compressor

    @property
    def names_partial(self) -> bool:
        """Whether the header of a chunk shows that it is not full."""
        return self._compressor is not None

    def draws_in(self, rows: np.ndarray[Any, Any]) -> int:
        """How many draws a decoded chunk holds that may have fewer than places."""
        length: int = rows.shape[1]
        if not rows.size:
            return length
        if self._is_text:
            texts = rows.reshape(*rows.shape[:2], -1)[0, :, 0].tolist()
            return texts.index(NOT_RECORDED) if NOT_RECORDED in texts else length
        for mark in (_MARK, _OTHER_MARK):
            # Few chunks end with one, and only these are compared as a whole.
            last_mark = _as_bytes(_marks(rows, mark, length - 1, length))
            if (_as_bytes(rows[:, -1:]) != last_mark).any():
                continue
            draws = _draws_before_marks(rows, mark)
            is_long = rows[:, draws:].nbytes >= _PROOF
            if self.names_partial or (mark == _MARK and (self._is_certain or is_long)):
                return draws
        return length


def _marks(rows: np.ndarray[Any, Any], mark: bytes, start: int, stop: int) -> np.ndarray[Any, Any]:
    """What the draws from `start` to `stop` hold where all are marks, shape (1, draws, *shape)."""
    draw = rows[:1, :1].nbytes
    skipped, size = start * draw % len(mark), (stop - start) * draw
    data = (mark * (2 + size // len(mark)))[skipped : skipped + size]
    return np.frombuffer(data, rows.dtype).reshape(1, stop - start, *rows.shape[2:])


def _draws_before_marks(rows: np.ndarray[Any, Any], mark: bytes) -> int:
    """The number of the draw from which on all bytes are those of marks."""
    start: int = rows.shape[1]
    count = _DRAWS_AT_FIRST
    while start:
        # Most of the chunk is draws, which need not be compared.
        stop, start = start, max(0, start - count)
        differs = _differs_from_marks(rows[:, start:stop], mark, start)
        [recorded] = np.nonzero(differs.any(axis=(0, 2)))
        if recorded.size:
            return start + int(recorded[-1]) + 1
        count *= 2
    return 0


def _differs_from_marks(
    rows: np.ndarray[Any, Any], mark: bytes, start: int
) -> np.ndarray[Any, Any]:
    """Which bytes or words of the draws from `start` on are not those of marks.

    Returns
    -------
    numpy.ndarray of bool
        Shape (chains, draws, bytes or words).
    """
    if rows[:1, :1].nbytes % len(mark) == 0:
        # Every word of a mark is the same, and needs no copy of the chunk.
        words = np.ascontiguousarray(rows).reshape(*rows.shape[:2], -1).view(np.uint64)
        marks = np.frombuffer(mark, np.uint64)
    else:
        words = _as_bytes(rows)
        marks = _as_bytes(_marks(rows, mark, start, start + rows.shape[1]))
    differs: np.ndarray[Any, Any] = words != marks
    return differs


def _as_bytes(rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The bytes of each draw of each chain, shape (chains, draws, bytes)."""
    return np.frombuffer(np.ascontiguousarray(rows).tobytes(), np.uint8).reshape(
        *rows.shape[:2], -1
    )


@functools.lru_cache(maxsize=64)
def _draw_codec(layout: Layout, dtype: np.dtype[Any], is_rounded: bool, is_bool: bool) -> DrawCodec:
    return DrawCodec(dtype, layout.encoding_of(dtype, is_rounded), is_bool, layout.sealed)


def draw_codec(layout: Layout, variable: Variable) -> DrawCodec:
    """The codec for the chunks of a variable."""
    is_bool = variable.declared.kind == "b"
    return _draw_codec(layout, variable.dtype, variable.is_rounded, is_bool)


def _with_other_compressor(encoding: Mapping[str, Any]) -> tuple[int, dict[str, Any]] | None:
    """The same codecs with another compressor of Blosc, and its number; None without Blosc."""
    codecs = list(encoding["codecs"])
    # A checksum comes after the bytes of Blosc.
    at = len(codecs) - (2 if codecs[-1]["name"] == "crc32c" else 1)
    if at < 1 or codecs[at]["name"] != "blosc":
        return None
    configuration = codecs[at]["configuration"]
    name, number = ("lz4", _LZ4) if configuration["cname"] == "zstd" else ("zstd", _ZSTD)
    codecs[at] = {**codecs[at], "configuration": {**configuration, "cname": name}}
    return number, {**encoding, "codecs": codecs}
