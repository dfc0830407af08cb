"""Which draws of a finished trace are rounded, what that saves, and what it changes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..diagnostics.convergence import worst_rhat
from ..diagnostics.precision import (
    COMPARED,
    FEWEST,
    MOST_RHAT,
    Precision,
    find_precision,
    stays_exact,
)
from ..diagnostics.progress import Progress
from ..diagnostics.transposed import Room
from ..errors import IncompleteTraceError, InvalidInputError
from ..layout.layout import STATE, Layout, SampledGroup
from ..layout.rounding import Compacted
from ..layout.spans import future_spans, spans
from ..messages import rounded_down
from ..reading.moment import Moment
from ..reading.rows import fill_pieces
from ..store.location import Location
from .staging import Staging

if TYPE_CHECKING:
    import pandas as pd

Planned = Mapping[str, dict[str, Compacted]]  # group → variable → how it is rounded

_COPIED_AT_ONCE = 16  # keys, where they are waited for
_NAMES = {"eti_lower": "q05", "median": "q50", "eti_upper": "q95"}  # in the table


@dataclass(frozen=True)
class Compaction:
    """What `compact` is asked for.

    Attributes
    ----------
    error : float
        The largest quantum, as a part of the smallest Monte Carlo error of an element.
    force : bool
        Whether to round draws whose Monte Carlo error is not known well.
    compare : bool
        Whether to compute what rounding changes.
    """

    error: float
    force: bool
    compare: bool
    memory: float
    scratch: Any
    progress: bool

    def check(self) -> None:
        """Refuse an error that is not one."""
        is_number = isinstance(self.error, int | float | np.number)
        if not is_number or isinstance(self.error, bool) or not 0 < self.error <= 1:
            raise InvalidInputError(
                f"error is a part of a Monte Carlo error, above 0 and at most 1, got {self.error!r}"
            )

    def plan(self, now: Moment) -> list[Precision]:
        """How each variable is to be rounded that can be, and is not yet.

        Raises
        ------
        IncompleteTraceError
            The trace is not finished, or its Monte Carlo errors are not known well.
        """
        if not now.layout.finished:
            raise IncompleteTraceError(
                "the trace is not finished, and only the draws of a finished one are rounded",
                where=str(now),
                remedy="call finish(), or `zarrtrace finish PATH`, first",
            )
        if not self.force:
            _require_agreement(now)
        groups = [group for group in now.layout.groups.values() if _has_draws(now, group)]
        found: list[Precision] = []
        steps = sum(len(group.variables) for group in groups)
        with Progress(steps, shown=self.progress) as bar:
            room = Room(self.memory, self.scratch, bar.say)
            for group in groups:
                precisions = find_precision(
                    now,
                    group.name,
                    float(self.error),
                    room=room,
                    compare=self.compare,
                    force=self.force,
                )
                for one in precisions:
                    if not self.force and group.name == "posterior":
                        _require_known(now, one)
                    found.append(one)
                    bar.advance(1)
        return [one for one in found if self.compare or not self._is_done(one)]

    def _is_done(self, found: Precision) -> bool:
        """Whether a variable was rounded as coarsely, with the same draws."""
        before, planned = found.variable.compacted, found.planned
        if before is None or planned is None:
            return planned is None
        return before.error >= self.error and before.draws == planned.draws


def _has_draws(now: Moment, group: SampledGroup) -> bool:
    """Whether a group has draws after warmup, and a variable that may be rounded."""
    fewest = int(now.counts[now.layout.kept_chains].min())
    return fewest > group.warmup and not all(map(stays_exact, group.variables.values()))


def _require_agreement(now: Moment) -> None:
    """Refuse a trace whose chains do not agree: their errors are not those of one distribution."""
    worst = worst_rhat(now.hierarchy)
    if worst.value > MOST_RHAT:
        raise _unknown(now, f"R-hat of {worst.variable} is {worst.value:.3f}", worst.variable)


def _require_known(now: Moment, found: Precision) -> None:
    """Refuse a variable of the posterior whose Monte Carlo errors are not known well."""
    name = found.variable.name
    if found.r_hat > MOST_RHAT:
        raise _unknown(now, f"R-hat of {name} is {found.r_hat:.3f}", name)
    if found.ess < FEWEST:
        raise _unknown(
            now,
            f"{found.worst} has {rounded_down(found.ess)} effective draws, fewer than {FEWEST}",
            name,
        )


def _unknown(now: Moment, why: str, name: str) -> IncompleteTraceError:
    return IncompleteTraceError(
        f"{why}: the Monte Carlo errors, by which draws are rounded, are not known",
        where=str(now),
        remedy="record more draws, or round by these errors all the same with force=True, or "
        "`zarrtrace compact --force`",
        group="posterior",
        variable=name,
    )


def planned_of(found: Iterable[Precision]) -> dict[str, dict[str, Compacted]]:
    """How variables are rounded, by group and name, without those that stay as they are."""
    planned: dict[str, dict[str, Compacted]] = {}
    for one in found:
        if one.planned is not None:
            planned.setdefault(one.variable.group, {})[one.variable.name] = one.planned
    return planned


def with_compacting(location: Location, layout: Layout, planned: Planned) -> Layout:
    """The layout with which draws begin to be rounded: all their chunks move, as in a split."""
    for name, variables in planned.items():
        group = layout.groups[name]
        layout = layout.with_group(
            replace(
                group,
                moving_to=group.stored_warmup,
                # A store with transactions is never copied during one.
                moving_to_v2_keys=location.takes_any_key and not group.v2_keys,
                compacting=variables,
            )
        )
    return layout


# What it saves ----------------------------------------------------------------------------------


def stored_sizes(now: Moment) -> dict[str, int]:
    """The bytes of the chunks of each sampled variable, warmup included, by `group/variable`."""
    location, sizes = now.location, {}
    for variable in now.layout.variables:
        paths = [span.path for span in spans(now.layout, variable)]
        sizes[variable.label] = sum(_size_below(location, path) for path in paths)
    return sizes


def _size_below(location: Location, path: str) -> int:
    listing = location.listing(path)
    if listing is not None:
        return sum(one.size for key, one in listing.items() if not key.endswith("/zarr.json"))
    keys = [key for key in location.keys(path) if not key.endswith(("/zarr.json", ".partial"))]
    if location.path is not None:
        return sum((location.path / key).stat().st_size for key in keys)
    return sum(len(location.read(key) or b"") for key in keys)


def sizes_if_rounded(now: Moment, planned: Planned) -> dict[str, int]:
    """The bytes that the chunks of the variables would have: they are encoded, and not written."""
    layout = with_compacting(now.location, now.layout, planned)
    staging, sizes = Staging(now.location, layout, now.counts), {}
    for name, variables in planned.items():
        for variable in (layout.groups[name].variables[one] for one in variables):
            cut = [(variable, span) for span in future_spans(layout, variable)]
            sizes[variable.label] = 0
            for piece in staging.pieces(cut):
                fill_pieces(list(piece.parts()), now.location.waits)
                sizes[variable.label] += sum(len(data) for _, data in piece.items())
    return sizes


# What is said -----------------------------------------------------------------------------------


def tabulate(
    now: Moment, found: Iterable[Precision], before: Mapping[str, int], after: Mapping[str, int]
) -> pd.DataFrame:
    """A row for each sampled variable: bytes before and after, its quanta, and what changes."""
    import pandas as pd

    known = {one.variable.label: one for one in found}
    rows = {}
    for variable in now.layout.variables:
        label, one = variable.label, known.get(variable.label)
        planned = one.planned if one is not None else variable.compacted
        quanta = (planned.smallest, planned.largest) if planned else (math.nan, math.nan)
        changes = one.changes if one is not None and one.planned is not None else {}
        rows[label] = {
            "before": before[label],
            "after": after.get(label, before[label]),
            "smallest": quanta[0],
            "largest": quanta[1],
            **{_NAMES.get(name, name): changes.get(name, math.nan) for name in COMPARED},
        }
    return pd.DataFrame.from_dict(rows, orient="index")


# A copy -----------------------------------------------------------------------------------------


def copy_keys(source: Location, target: Location) -> None:
    """Copy every key of a finished trace; what makes it a trace comes last."""
    last = f"{STATE}/zarr.json"
    keys = [key for key in source.keys("") if not key.endswith(".partial")]
    keys.sort(key=lambda key: (key == last, not key.endswith("/zarr.json"), key))
    for start in range(0, len(keys), _COPIED_AT_ONCE):
        together = keys[start : start + _COPIED_AT_ONCE]
        data = zip(together, source.read_many(together), strict=True)
        target.write_many((key, bytes(found)) for key, found in data if found is not None)
    if target.path is not None:
        target.sync_tree("")


def describe_compacted(layout: Layout) -> str:
    """`3 of 4 variables are rounded to 1/16 of their Monte Carlo errors`; "" if none is."""
    variables = [v for v in layout.variables if v.dtype.kind in "fc"]
    rounded = [v.compacted for v in variables if v.compacted is not None]
    if not rounded:
        return ""
    error = max(one.error for one in rounded)
    part = f"1/{1 / error:g}" if (1 / error).is_integer() else f"{error:g}"
    return (
        f"compacted: {len(rounded)} of {len(variables)} floating-point variables are rounded to "
        f"{part} of their Monte Carlo errors"
    )
