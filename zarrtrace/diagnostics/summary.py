"""The summary of a trace: `az.summary`'s table, of running, ragged and very large traces too."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..errors import DamagedTraceError
from ..messages import warn_caller
from ..reading.batches import batches
from .frame import Style, build_frame
from .progress import Progress
from .selection import Chosen, Selection
from .statistics import Floats, compute
from .transposed import Room, read_in_slabs

if TYPE_CHECKING:
    import pandas as pd

_TOGETHER = 2_000_000  # numbers of small variables that are read and ranked together


def summarise(
    selection: Selection,
    style: Style,
    *,
    skipna: bool = False,
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
            threads=threads,
            done=bar.advance,
        )
    return build_frame(labels, statistics, style)


def compute_statistics(
    selection: Selection, names: list[str], room: Room, **options: Any
) -> dict[str, Floats]:
    """Statistics of all chosen scalars, one after the other; NaN for variables that are damaged.

    `options` are those of `statistics.compute`.
    """
    parts: list[dict[str, Floats]] = []
    damage: list[DamagedTraceError] = []
    draws = len(selection.counts) * selection.length
    most = min(_TOGETHER, room.memory / 64)
    for batch in batches(selection.variables, lambda one: draws * math.prod(one.shape), most):
        try:
            parts.append(_of_batch(selection, batch, names, room, options))
        except DamagedTraceError:
            for chosen in batch:
                try:
                    parts.append(_of_batch(selection, [chosen], names, room, options))
                except DamagedTraceError as error:
                    damage.append(error)
                    parts.append({name: np.full(len(chosen.places), np.nan) for name in names})
    for one in damage:
        warn_caller(f"NaN stands for {one.variable}, whose draws cannot be read: {one}")
    return {name: np.concatenate([part[name] for part in parts]) for name in names}


def _of_batch(
    selection: Selection,
    batch: list[Chosen],
    names: list[str],
    room: Room,
    options: dict[str, Any],
) -> dict[str, Floats]:
    """Statistics of variables that are read together, or of a large one in slabs of scalars."""
    if len(batch) > 1:
        numbers = [values.astype(np.float64, copy=False) for values in selection.read(batch)]
        slabs: Iterable[npt.NDArray[Any]] = [np.concatenate(numbers, axis=2)]
    elif room.holds(selection, batch[0]):
        slabs = selection.read(batch)
    else:
        slabs = read_in_slabs(selection, batch[0], room)
    found = [compute(slab, names, **options) for slab in slabs]
    return {name: np.concatenate([part[name] for part in found]) for name in names}
