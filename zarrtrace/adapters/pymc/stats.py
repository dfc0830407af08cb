"""The statistics of PyMC's step methods as sample_stats, under the names ArviZ knows.

Step methods of the same kind share a column, as in the default trace: `accepted` of three
Metropolis steps has shape (3,).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pymc.stats.convergence import SamplerWarning, WarningType
from pymc.step_methods.compound import flatten_steps

import zarrtrace as zt
from zarrtrace.adopt import arviz_names

# The group `warmup_sample_stats` shows which draws are warmup.
_LEFT_OUT = ("tune", "in_warmup")
_NO_WARNING = {"warning_kind": 0, "warning_level": 0, "warning_step": -1}


class Statistics:
    """The columns of sample_stats, and how to fill them from the statistics of one draw.

    Attributes
    ----------
    columns : dict of str to zarrtrace.Var
        Each statistic under ArviZ's name. A `SamplerWarning` is three columns: `warning_kind`
        (the number of its `WarningType`, 0 for none, named by the attributes `flag_values` and
        `flag_meanings`), `warning_level` (that of logging) and `warning_step`. Statistics that
        are Python objects are stored as their text.
    """

    def __init__(self, step: Any) -> None:
        self.columns: dict[str, zt.Var] = {}
        # For each column, the positions of the steps that report it, and its value otherwise.
        self._sources: dict[str, tuple[str, list[int], Any]] = {}
        self._warns: list[int] = []
        found: dict[str, list[tuple[int, np.dtype[Any], tuple[int, ...]]]] = {}
        for place, method in enumerate(flatten_steps(step)):
            for name, (dtype, shape) in method.stats_dtypes_shapes.items():
                if dtype is SamplerWarning:
                    self._warns.append(place)
                elif name not in _LEFT_OUT:
                    kind, size = _stored_as(np.dtype(dtype), shape)
                    found.setdefault(name, []).append((place, kind, size))
        names = arviz_names(found)
        for name, sources in found.items():
            self._add(name, names[name], sources)
        if self._warns:
            self.columns |= _warning_columns(len(self._warns))

    def _add(
        self, name: str, column: str, sources: list[tuple[int, np.dtype[Any], tuple[int, ...]]]
    ) -> None:
        places = [place for place, _, _ in sources]
        kinds = [kind for _, kind, _ in sources]
        text = any(kind.kind == "T" for kind in kinds)
        dtype = np.dtypes.StringDType() if text else np.result_type(*kinds)
        shape = sources[0][2]
        whole = shape if len(places) == 1 else (len(places), *shape)
        self.columns[column] = zt.Var(shape=whole, dtype=dtype)
        missing = "" if text else np.nan if dtype.kind == "f" else 0
        value = np.full(shape, missing, dtype)[()] if shape or not text else missing
        self._sources[column] = (name, places, value)

    def of(self, stats: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """The columns of one draw; NaN, 0 or "" for a statistic that a step did not report.

        Parameters
        ----------
        stats : sequence of mappings
            The result of `step()`, one mapping for each step method.
        """
        values = {
            column: stats[places[0]].get(name, missing)
            if len(places) == 1
            else [stats[place].get(name, missing) for place in places]
            for column, (name, places, missing) in self._sources.items()
        }
        if self._warns:
            values |= self._warning_values(stats)
        return values

    def converted(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The same with every value in the dtype of its column, as NumPy assigns it."""
        return {
            column: str(values[column])
            if self.columns[column].dtype == np.dtypes.StringDType()
            else np.asarray(values[column]).astype(self.columns[column].dtype)
            for column in self.columns
        }

    def _warning_values(self, stats: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        warnings = [stats[place].get("warning") for place in self._warns]
        if len(warnings) == 1:
            return _warning_as_numbers(warnings[0])
        each = [_warning_as_numbers(warning) for warning in warnings]
        return {column: [numbers[column] for numbers in each] for column in _NO_WARNING}


def _stored_as(dtype: np.dtype[Any], shape: Any) -> tuple[np.dtype[Any], tuple[int, ...]]:
    """The dtype and shape of a statistic; text where PyMC specifies neither."""
    if dtype.kind == "O" or (shape and None in shape):
        return np.dtypes.StringDType(), ()
    return dtype, tuple(shape or ())


def _warning_columns(steps: int) -> dict[str, zt.Var]:
    kinds = list(WarningType)
    flags = {
        "flag_values": [0, *(kind.value for kind in kinds)],
        "flag_meanings": " ".join(["none", *(kind.name for kind in kinds)]),
    }
    shape = () if steps == 1 else (steps,)
    return {
        "warning_kind": zt.Var(shape=shape, dtype="int8", attrs=flags),
        "warning_level": zt.Var(shape=shape, dtype="int8"),
        "warning_step": zt.Var(shape=shape, dtype="int64"),
    }


def _warning_as_numbers(warning: Any) -> dict[str, int]:
    if warning is None:
        return _NO_WARNING
    level = getattr(logging, {"warn": "WARNING"}.get(warning.level, warning.level.upper()), 0)
    step = -1 if warning.step is None else int(warning.step)
    return {"warning_kind": warning.kind.value, "warning_level": level, "warning_step": step}
