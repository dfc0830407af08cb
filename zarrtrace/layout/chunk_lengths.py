"""How many draws one chunk of a variable holds."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import replace

from ..store.small_arrays import CHUNK_BYTES
from .variables import Variable

# The buffer of one writer: enough for long chunks, bounded whatever the number of variables.
BUFFER_BYTES = 64 * 2**20
# From this size on, a file for each draw costs less than passing it through the journal.
_LARGE_DRAW = 512 * 2**10
_MOST_CHUNKS = 32
_SHORTEST_CHUNK = 4096


# Chunk lengths --------------------------------------------------------------------------------


def choose_chunk_lengths(
    variables: Iterable[Variable], *, chains_per_chunk: int, tune: int, total: int | None
) -> list[Variable]:
    """Return the variables with `draws_per_chunk` set, chosen by size where the user chose none.

    Files are the bottleneck for scalars (0.2 to 0.6 ms each through zarr-python), memory for
    large vectors: chunks of about 4 MB at most, at most some 32 of them per chain for a small
    variable, a buffer of 64 MiB per writer, and, where it costs little, a length that divides
    `tune`, so that the split moves whole chunks. A draw of 512 KiB or more is a chunk of its own.
    Where no total is declared, a chunk of a small variable has 4,096 draws.
    """
    total = _MOST_CHUNKS * _SHORTEST_CHUNK if total is None else total
    chosen = []
    for variable in variables:
        length = variable.draws_per_chunk
        if not length:
            row = max(1, variable.bytes_per_draw * chains_per_chunk)
            most = 1 if row >= _LARGE_DRAW else CHUNK_BYTES // row
            length = _chunk_length(most, tune, total)
        chosen.append(replace(variable, draws_per_chunk=length))
    needed = sum(v.draws_per_chunk * v.bytes_per_draw * chains_per_chunk for v in chosen)
    if needed > BUFFER_BYTES:
        shrink = BUFFER_BYTES / needed
        chosen = [
            variable
            if original.draws_per_chunk
            else replace(
                variable,
                draws_per_chunk=_chunk_length(
                    max(1, int(variable.draws_per_chunk * shrink)), tune, total
                ),
            )
            for variable, original in zip(chosen, variables, strict=True)
        ]
    return chosen


@functools.cache
def _chunk_length(most: int, tune: int, total: int) -> int:
    most = min(most, total)
    aligned = max((d for d in range(1, min(most, tune) + 1) if tune % d == 0), default=0)
    if aligned * 2 > most or (aligned and -(-total // aligned) <= _MOST_CHUNKS):
        return aligned
    return min(most, max(-(-total // _MOST_CHUNKS), _SHORTEST_CHUNK))
