"""Decompression that takes no more memory than it is told.

The header of a compressed chunk has its size, and the decoder trusts it: one flipped bit there
allocates gigabytes. This module checks that number first.
"""

from __future__ import annotations

import zlib
from typing import Any

import numcodecs
import numpy as np

_BLOSC_HEADER = 16  # bytes; 4 to 7 are the length of what is decoded, 12 to 15 of what is encoded
# One instance decodes data written with any settings.
_BLOSC = numcodecs.Blosc()
_ZSTD = numcodecs.Zstd()
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_ZSTD_BLOCK = 2**17  # bytes that a block holds at most

Data = memoryview | bytes


def blosc(data: Data, most: int, into: np.ndarray[Any, Any] | None = None) -> Any:
    """Decode a Blosc chunk, into an array if one is passed; ValueError for more than `most` bytes.

    Blosc trusts the length in the header and would read past the end of truncated data.
    """
    if len(data) < _BLOSC_HEADER or int.from_bytes(data[12:16], "little") != len(data):
        raise ValueError("its length differs from the one in its header")
    _require_at_most(int.from_bytes(data[4:8], "little"), most)
    return _BLOSC.decode(data, into)


def zstd(data: Data, most: int) -> Any:
    """Decode frames of Zstandard; ValueError for more than `most` bytes."""
    _require_at_most(_zstd_length(data), most)
    return _ZSTD.decode(data)


def gzip(data: Data, most: int) -> bytes:
    """Decode the members of a gzip file; ValueError for more than `most` bytes."""
    found = b""
    rest = bytes(data)
    while rest or not found:
        member = zlib.decompressobj(wbits=31)
        found += member.decompress(rest, most - len(found) + 1)
        _require_at_most(len(found), most)
        if not member.eof:
            raise ValueError("it ends too early")
        rest = member.unused_data.lstrip(b"\0")  # a file may be padded
    return found


def _require_at_most(length: int, most: int) -> None:
    if length > most:
        raise ValueError(f"its header says {length:,} bytes, at most {most:,} are expected")


def _zstd_length(data: Data) -> int:
    """The decoded size of Zstandard frames by their headers, or the most where they have none."""
    length, start = 0, 0
    while start < len(data):
        if bytes(data[start : start + 4]) != _ZSTD_MAGIC:
            raise ValueError("it is not a frame of Zstandard")
        descriptor = data[start + 4] if start + 4 < len(data) else 0
        single = descriptor >> 5 & 1
        start += 5 + (not single) + (0, 1, 2, 4)[descriptor & 3]
        size_bytes = (single, 2, 4, 8)[descriptor >> 6]
        said = int.from_bytes(data[start : start + size_bytes], "little")
        said += 256 * (size_bytes == 2)
        start += size_bytes
        held, last = 0, False
        while not last:
            if start + 3 > len(data):
                raise ValueError("it ends too early")
            header = int.from_bytes(data[start : start + 3], "little")
            last, kind, size = bool(header & 1), header >> 1 & 3, header >> 3
            # Stored as it is, one byte repeated, or compressed.
            held += _ZSTD_BLOCK if kind == 2 else size
            start += 3 + (1 if kind == 1 else size)
        start += 4 * (descriptor >> 2 & 1)  # a checksum
        length += max(said, 0) if size_bytes else held
    return length
