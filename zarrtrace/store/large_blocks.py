"""Memory for large chunks, which is used again for the next ones."""

from __future__ import annotations

import functools

import numpy as np

_BLOCKS = 4  # a chunk, its stored bytes, and what other codecs make in between
_MOST = 2**25 - 2**16  # bytes; glibc takes no notice of larger ones


@functools.lru_cache(maxsize=64)
def reuse_large_blocks(size: int) -> None:
    """Let glibc keep freed blocks of this many bytes for the next ones.

    It maps and unmaps blocks that are larger than any it saw freed, and the system gets what is
    free at the end of its heap beyond twice their size. The page faults would take half of the time
    of encoding or decoding a large chunk. So a larger block is freed here, which is never used.
    """
    np.empty(min(_BLOCKS * size, _MOST), np.uint8)
