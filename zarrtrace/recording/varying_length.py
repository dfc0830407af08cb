"""Draws of a varying size go into rows of a fixed one: padded values, and their length beside."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..layout.layout import Layout
from ..sampling_state.journal import Journal
from ..store.dtypes import fill_value
from .open_chunks import OpenChunks
from .row_plan import Array, Block, RecordingPlan, Target, Values


def plan_recording(
    layout: Layout, chains: range, journal: Journal, open_chunks: OpenChunks
) -> RecordingPlan:
    """Where the values of a draw go, also of variables whose draws vary in size."""
    varying = any(
        group.lengths_of(variable)
        for group in layout.groups.values()
        for variable in group.variables.values()
    )
    plan = VaryingLengthPlan if varying else RecordingPlan
    return plan(layout, chains, journal, open_chunks)


class VaryingLengthPlan(RecordingPlan):
    """A plan for traces that have a variable whose draws vary in size.

    One value is given for such a variable; it becomes two before it goes into the rows.
    """

    def __init__(
        self, layout: Layout, chains: range, journal: Journal, open_chunks: OpenChunks
    ) -> None:
        super().__init__(layout, chains, journal, open_chunks)
        self._levels = ("chain",) if layout.chains_per_chunk > 1 else ()
        self._varying: dict[str, list[VaryingTarget]] = {}
        for group in layout.groups.values():
            targets = {target.name: target for target in self._targets[group.name]}
            for name, variable in group.variables.items():
                lengths = group.lengths_of(variable)
                if lengths is not None:
                    varying = VaryingTarget(targets[name], lengths.name)
                    self._varying.setdefault(group.name, []).append(varying)

    def put(self, given: Mapping[str, Values], count: int) -> None:
        """Put the values of draw `count` into the buffer, padded where they vary in size."""
        super().put(self._padded(given, self._levels, count), count)

    def check_block(self, given: Mapping[str, Values], count: int) -> Block:
        """The values of several draws, padded where they vary in size."""
        return super().check_block(self._padded(given, (*self._levels, "draw"), count), count)

    def _padded(
        self, given: Mapping[str, Values], levels: tuple[str, ...], count: int
    ) -> Mapping[str, Values]:
        """The given values, with two of a fixed shape for each one that varies in size."""
        padded = dict(given)
        for group, targets in self._varying.items():
            values = given.get(group)
            # Anything else the plan refuses.
            if isinstance(values, Mapping):
                found = dict(values)
                for target in targets:
                    found.update(target.padded(values, levels, self._chains, count))
                padded[group] = found
        return padded


class VaryingTarget:
    """How the values of one variable whose draws vary in size are padded.

    Parameters
    ----------
    target : Target
        Where the padded values go.
    lengths : str
        The name of the variable that has their lengths.
    """

    def __init__(self, target: Target, lengths: str) -> None:
        self._target = target
        self._lengths = lengths
        self._shape = target.variable.shape
        self._fill = fill_value(target.dtype)

    def padded(
        self, values: Values, levels: tuple[str, ...], chains: range, draw: int
    ) -> dict[str, Any]:
        """The values of a fixed shape, and their lengths, by the names of the variables.

        Parameters
        ----------
        levels : tuple of str
            What the axes before those of one draw are: "chain" and "draw", or one, or none.
        """
        name = self._target.name
        if name not in values:
            # The plan misses the values alone.
            return {self._lengths: 0}
        if self._lengths in values:
            lengths = values[self._lengths]
            return {name: self._blanked(values[name], lengths, chains, draw)}
        rows, lengths = self._stacked(values[name], levels, chains, draw)
        return {name: rows, self._lengths: lengths}

    def _stacked(
        self, value: Any, levels: tuple[str, ...], chains: range, draw: int
    ) -> tuple[Array, Any]:
        """The rows and the lengths of a value, or of lists of values level by level."""
        if not levels:
            return self._row(value, chains, draw)
        is_list = isinstance(value, list | tuple)
        if not is_list and not (isinstance(value, np.ndarray) and value.dtype == object):
            raise self._target.refuse(
                f"an array does not show the length of each {levels[0]}; give a list of arrays, "
                f"or give the lengths as {self._lengths!r} with an array padded to {self._shape}",
                chains,
                draw,
            )
        rows, lengths = [], []
        for number, item in enumerate(value):
            if levels[0] == "draw":
                found = self._stacked(item, levels[1:], chains, draw + number)
            else:
                found = self._stacked(item, levels[1:], chains[number : number + 1] or chains, draw)
            rows.append(found[0])
            lengths.append(found[1])
        if not rows:
            empty = np.empty((0, *self._shape), self._target.dtype)
            return empty, np.empty(0, np.int64)
        if len({len(found) for found in rows}) > 1:
            draws = ", ".join(str(len(found)) for found in rows)
            raise self._target.refuse(
                f"the chains have {draws} draws; give the same number for each", chains, draw
            )
        return np.stack(rows), np.stack(lengths)

    def _row(self, value: Any, chains: range, draw: int) -> tuple[Array, int]:
        """The value of one draw of one chain, padded, and its length."""
        most, *inner = self._shape
        array = self._target.as_array(value, chains, draw)
        if array.shape == (0,):
            # An empty list has neither a shape nor a dtype.
            array = np.empty((0, *inner), self._target.dtype)
        if array.ndim != len(self._shape) or array.shape[1:] != (*inner,):
            needed = ", ".join(map(str, (f"up to {most}", *inner)))
            raise self._target.refuse(
                f"the value has shape {array.shape}, expected ({needed})", chains, draw
            )
        if len(array) > most:
            raise self._target.refuse(
                f"the value has length {len(array)}, but at most {most} is declared; declare it "
                f"with zarrtrace.UpTo(...) of a larger number",
                chains,
                draw,
            )
        row = np.full(self._shape, self._fill, self._target.dtype)
        row[: len(array)] = self._target.cast(array, chains, draw)
        return row, len(array)

    def _blanked(self, value: Any, lengths: Any, chains: range, draw: int) -> Any:
        """A padded array, with the fill value in all places after the lengths."""
        numbers = np.asarray(lengths)
        array = self._target.as_array(value, chains, draw)
        if numbers.dtype.kind not in "iu" or array.shape != (*numbers.shape, *self._shape):
            # The plan refuses one of the two, and says which shape or dtype is needed.
            return value
        most = self._shape[0]
        if numbers.size and not (numbers.min() >= 0 and numbers.max() <= most):
            raise self._target.refuse(
                f"{self._lengths!r} has lengths from {numbers.min()} to {numbers.max()}; "
                f"they must be from 0 to {most}",
                chains,
                draw,
            )
        blank = np.arange(most) >= numbers[..., np.newaxis]
        rows = np.array(self._target.cast(array, chains, draw))
        rows[blank] = self._fill
        return rows
