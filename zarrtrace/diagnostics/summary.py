"""The summary of a trace: `az.summary`'s table, of running, ragged and very large traces too."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..errors import DamagedTraceError
from ..messages import warn_caller
from ..reading.batches import batches
from .frame import Style, build_frame
from .moments import NAMES as MOMENTS
from .moments import compute_in_one_pass
from .parts import Part, read_parts
from .progress import Progress
from .selection import Chosen, Selection
from .statistics import Floats, compute
from .transposed import Room, read_in_slabs

if TYPE_CHECKING:
    import pandas as pd

OfSlab = Callable[[npt.NDArray[Any]], dict[str, Floats]]

_TOGETHER = 2_000_000  # numbers of small variables that are read and ranked together
_PARTS = 8  # of the memory, one of which is for what is read at once in one pass


def summarise(
    selection: Selection,
    style: Style,
    *,
    skipna: bool = False,
    superchains: Sequence[int] = (),
    memory: float = 1e9,
    scratch: str | os.PathLike[str] | None = None,
    threads: int = 1,
    progress: bool = True,
) -> pd.DataFrame:
    """The table of a selection, in a style."""
    labels = [label for chosen in selection.variables for label in chosen.labels]
    names = list(dict.fromkeys(style.columns.values()))
    with Progress(len(labels), shown=progress) as bar:
        statistics = compute_statistics(
            selection,
            names,
            Room(memory, scratch, bar.say),
            prob=style.prob,
            skipna=skipna,
            rules=style.rules,
            superchains=superchains,
            threads=threads,
            done=bar.advance,
        )
    return build_frame(labels, statistics, style)


def summarise_in_one_pass(
    selection: Selection,
    style: Style,
    *,
    skipna: bool = False,
    memory: float = 1e9,
    progress: bool = True,
) -> pd.DataFrame:
    """The table of what is computed while every draw is read once, in a style."""
    labels = [label for chosen in selection.variables for label in chosen.labels]
    with Progress(len(labels), shown=progress) as bar:
        room = Room(memory, None, bar.say)

        def compute_batch(batch: list[Chosen]) -> dict[str, Floats]:
            scalars = sum(len(chosen.places) for chosen in batch)
            return compute_in_one_pass(
                _parts_of_batch(selection, batch, room),
                (*selection.shape, scalars),
                chains_together=selection.now.layout.chains_per_chunk,
                memory=memory,
                prob=style.prob,
                skipna=skipna,
                done=lambda part: bar.advance(part * scalars),
            )

        statistics = _of_batches(selection, MOMENTS, room, compute_batch)
    return build_frame(labels, statistics, style)


def compute_statistics(
    selection: Selection, names: list[str], room: Room, **options: Any
) -> dict[str, Floats]:
    """Statistics of all chosen scalars, one after the other; NaN for variables that are damaged.

    `options` are those of `statistics.compute`.
    """
    of_slab = partial(compute, names=names, **options)
    compute_batch = partial(of_batch, selection, room=room, of_slab=of_slab)
    return _of_batches(selection, names, room, compute_batch)


def _of_batches(
    selection: Selection,
    names: Sequence[str],
    room: Room,
    compute_batch: Callable[[list[Chosen]], dict[str, Floats]],
) -> dict[str, Floats]:
    """Statistics of variables, small ones of which are read together; NaN for damaged ones."""
    parts: list[dict[str, Floats]] = []
    damage: list[DamagedTraceError] = []
    for batch in read_together(selection, selection.variables, room):
        try:
            parts.append(compute_batch(batch))
        except DamagedTraceError:
            for chosen in batch:
                try:
                    parts.append(compute_batch([chosen]))
                except DamagedTraceError as error:
                    damage.append(error)
                    parts.append({name: np.full(len(chosen.places), np.nan) for name in names})
    for one in damage:
        warn_caller(f"NaN stands for {one.variable}, whose draws cannot be read: {one}")
    return {name: np.concatenate([part[name] for part in parts]) for name in names}


def read_together(
    selection: Selection, variables: list[Chosen], room: Room
) -> Iterator[list[Chosen]]:
    """Some variables in lists, each of which is read at once."""
    draws = len(selection.counts) * selection.length
    most = min(_TOGETHER, room.memory / 64)
    return batches(variables, lambda one: draws * math.prod(one.shape), most)


def of_batch(
    selection: Selection, batch: list[Chosen], room: Room, of_slab: OfSlab
) -> dict[str, Floats]:
    """Statistics of variables that are read together, or of a large one in slabs of scalars.

    Parameters
    ----------
    of_slab : callable
        Takes draws of shape (chains, draws, scalars), and returns a statistic of each scalar by
        name, with the scalars last.
    """
    found = [of_slab(slab) for slab in _slabs(selection, batch, room)]
    return {name: np.concatenate([part[name] for part in found], axis=-1) for name in found[0]}


def _slabs(selection: Selection, batch: list[Chosen], room: Room) -> Iterable[npt.NDArray[Any]]:
    """All draws of variables that are read together, or of a large one in slabs of scalars."""
    if len(batch) > 1 or room.holds(selection, batch[0]):
        return [_read_batch(selection, batch)]
    return read_in_slabs(selection, batch[0], room)


def _parts_of_batch(selection: Selection, batch: list[Chosen], room: Room) -> Iterable[Part]:
    """Some draws after the other, of variables that are read together, or of a large one."""
    if len(batch) > 1 or room.holds(selection, batch[0]):
        return [Part(chain, 0, one) for chain, one in enumerate(_read_batch(selection, batch))]
    return read_parts(selection, batch[0], room.memory / _PARTS)


def _read_batch(selection: Selection, batch: list[Chosen]) -> npt.NDArray[Any]:
    """The draws of some variables, or of one in its own dtype: (chains, draws, scalars)."""
    values = selection.read(batch)
    if len(values) == 1:
        return values[0]
    return np.concatenate([one.astype(np.float64, copy=False) for one in values], axis=2)
