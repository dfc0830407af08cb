"""The draws of a variable in parts, so that every chunk is read once and few are in memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..layout.spans import span_of, spans
from ..layout.variables import Variable
from ..reading.cut import Cut, make_cut
from ..reading.values import read_values
from .selection import Chosen, Selection


class Part(NamedTuple):
    """Some chosen draws of one chosen chain.

    Attributes
    ----------
    chain, first : int
        The positions of the chain and of the first of these draws among the chosen ones.
    values : numpy.ndarray
        Shape (draws, scalars).
    """

    chain: int
    first: int
    values: npt.NDArray[Any]


def read_parts(selection: Selection, chosen: Chosen, most: float) -> Iterator[Part]:
    """All chosen draws of a variable: whole chunks of one block of chains after the other.

    Parameters
    ----------
    most : float
        The bytes that are read together, or one chunk if that is larger.
    """
    cut = make_cut(selection.now, selection.group)
    variable = cut.group.variables[chosen.name]
    per_block = cut.layout.chains_per_chunk
    blocks: dict[int, list[int]] = {}
    for target, position in enumerate(selection.chains.tolist()):
        blocks.setdefault(cut.chains[position] // per_block, []).append(target)
    for targets in blocks.values():
        positions = [int(selection.chains[target]) for target in targets]
        part = replace(
            cut,
            chains=tuple(cut.chains[position] for position in positions),
            counts=tuple(cut.counts[position] for position in positions),
        )
        of_draw = per_block * int(np.prod(chosen.shape)) * chosen.dtype.itemsize
        for draws in _whole_chunks(part, variable, max(1, int(most / of_draw))):
            first, stop = np.searchsorted(selection.draws, [draws.start, draws.stop]).tolist()
            if first == stop:
                continue
            [values] = read_values([(part, variable)], slice(draws.start, draws.stop), False)
            picked = chosen.pick(values)
            if stop - first < len(draws):
                picked = picked[:, selection.draws[first:stop] - draws.start]
            for target, one in zip(targets, picked, strict=True):
                yield Part(target, first, one)


def _whole_chunks(cut: Cut, variable: Variable, most: int) -> Iterator[range]:
    """Ranges of draws that end where a chunk ends, of some `most` draws or one chunk each."""
    start, stop = 0, 0
    while stop < cut.length:
        draw = cut.start + stop
        place = span_of(spans(cut.layout, variable), draw).place(draw, variable.draws_per_chunk)
        end = min(place.draws.stop - cut.start, cut.length)
        if stop > start and end - start > most:
            yield range(start, stop)
            start = stop
        stop = end
    yield range(start, stop)
