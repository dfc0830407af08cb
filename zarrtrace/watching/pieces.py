"""Read draws in pieces of bounded memory that end where chunks end, so that each is read once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import DamagedTraceError
from ..layout.hierarchy import Hierarchy
from ..layout.layout import Layout
from ..layout.spans import span_of, spans
from ..layout.variables import Variable
from ..reading.batches import batches
from ..reading.rows import Wanted, read_rows

_TOGETHER = 64 * 2**20  # bytes that are read together


class Piece(NamedTuple):
    """Draws to read, and what is done with them."""

    wanted: Wanted
    take: Callable[[Wanted], None]


def cut(
    layout: Layout,
    variables: list[Variable],
    block: int,
    draws: range,
    take: Callable[[Wanted], None],
) -> Iterator[Piece]:
    """Cut the draws of similar variables in a block of chains into pieces, in order."""
    like, chains = variables[0], len(layout.chains_of(block))
    each = max(1, like.bytes_per_draw * len(variables) * chains)
    start = draws.start
    while start < draws.stop:
        chunk = span_of(spans(layout, like), start).place(start, like.draws_per_chunk).draws
        further = max(0, _TOGETHER // each - len(chunk)) // like.draws_per_chunk
        stop = min(chunk.stop + further * like.draws_per_chunk, draws.stop)
        shape = (len(variables), chains, stop - start, *like.shape)
        into: NDArray[Any] = np.empty(shape, like.dtype)
        yield Piece(Wanted(variables, block, range(start, stop), into), take)
        start = stop


def read_pieces(hierarchy: Hierarchy, pieces: Iterable[Piece]) -> dict[str, str]:
    """Read pieces, as many at once as there is memory for, and hand on what was read, in order.

    Returns
    -------
    dict of str to str
        Variables that cannot be read, by `group/name`, and why; zeros are handed on for them.

    Raises
    ------
    StaleViewError
        The draws were dropped, or their chain went back to a checkpoint.
    """
    damaged: dict[str, str] = {}
    for batch in batches(pieces, lambda piece: piece.wanted.into.nbytes, _TOGETHER):
        try:
            read_rows(hierarchy, [piece.wanted for piece in batch])
        except DamagedTraceError:
            for piece in batch:
                damaged |= _read_one_by_one(hierarchy, piece.wanted)
        for piece in batch:
            piece.take(piece.wanted)
    return damaged


def _read_one_by_one(hierarchy: Hierarchy, wanted: Wanted) -> dict[str, str]:
    damaged = {}
    for number, variable in enumerate(wanted.variables):
        into = wanted.into[number : number + 1]
        try:
            read_rows(hierarchy, [Wanted([variable], wanted.block, wanted.draws, into)])
        except DamagedTraceError as error:
            damaged[variable.label] = str(error)
            into[...] = 0
    return damaged
