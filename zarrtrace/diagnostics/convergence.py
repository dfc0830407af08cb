"""The worst R-hat of a trace: one number that shows whether its chains agree.

A finished trace stores it, so that a thousand are listed in a second.
"""

from __future__ import annotations

import hashlib
import json
import math
from typing import NamedTuple

import numpy as np

from ..errors import DamagedTraceError
from ..layout.hierarchy import Hierarchy
from ..layout.layout import STATE
from ..layout.variables import Variable
from ..reading.batches import batches
from ..reading.cut import Cut, make_cut
from ..reading.moment import Moment
from ..reading.values import read_values
from ..store.location import Location
from ..store.zarr_json import encode_document, group_document
from .element_names import ElementNames
from .statistics import Floats, compute

KEPT = f"{STATE}/convergence"

_MOST_NUMBERS = 1_000_000  # draws × values that are checked: some tenths of a second
_AT_ONCE = 200_000  # numbers that are read together, in memory several times


class WorstRhat(NamedTuple):
    """The largest R-hat, its variable, and whether every variable was checked."""

    value: float
    variable: str
    complete: bool


def worst_rhat(hierarchy: Hierarchy) -> WorstRhat:
    """The worst R-hat of the posterior: the stored one if it is valid, or computed now.

    It checks real variables in the order of their definition, as long as the draws of all
    together are at most a million numbers (of four chains of 1,000 draws: 250 values).

    Returns
    -------
    WorstRhat
        Its value is NaN with one chain, with fewer than 4 draws after warmup, and where nothing
        varies; values that are NaN or that never change do not count. For a variable whose
        draws vary in size the lengths count.
    """
    return _read_kept(hierarchy.location) or _compute(hierarchy)


def keep(hierarchy: Hierarchy) -> None:
    """Compute the worst R-hat of a finished trace and store it beside its layout.

    It is valid for this layout: after a split, more draws or another burn-in it is not used.
    If draws cannot be read nothing is stored; `check` reports what is damaged.
    """
    try:
        found = _compute(hierarchy)
    except DamagedTraceError:
        return
    content = {**found._asdict(), "value": found.value if math.isfinite(found.value) else None}
    attrs = {"worst_rhat": json.dumps(content), "of_layout": _fingerprint(hierarchy.location)}
    hierarchy.location.write(f"{KEPT}/zarr.json", encode_document(group_document(attrs)))


def _read_kept(location: Location) -> WorstRhat | None:
    data = location.read(f"{KEPT}/zarr.json")
    if data is None:
        return None
    try:
        attrs = json.loads(bytes(data))["attributes"]
        if attrs["of_layout"] != _fingerprint(location):
            return None
        content = json.loads(attrs["worst_rhat"])
        value = math.nan if content["value"] is None else float(content["value"])
        return WorstRhat(value, str(content["variable"]), bool(content["complete"]))
    except (ValueError, KeyError, TypeError):
        return None  # an incomplete one is computed again


def _fingerprint(location: Location) -> str:
    return hashlib.sha256(location.read(f"{STATE}/zarr.json") or b"").hexdigest()


def _compute(hierarchy: Hierarchy) -> WorstRhat:
    now = Moment.of(hierarchy)
    group = now.layout.groups.get("posterior")
    worst = WorstRhat(math.nan, "", True)
    if group is None:
        return worst
    cut = make_cut(now, "posterior")
    if len(cut.chains) < 2:
        return worst
    each = len(cut.chains) * cut.length
    variables = [
        variable
        for variable in group.variables.values()
        # Padding has no R-hat; for draws that vary in size it is computed for the lengths.
        if variable.dtype.kind in "fiub" and each and not group.lengths_of(variable)
    ]
    room, chosen = _MOST_NUMBERS, []
    for variable in variables:
        numbers = each * variable.elements
        if numbers <= room:
            room -= numbers
            chosen.append(variable)
    names = ElementNames(now.location, now.layout)
    for batch in batches(chosen, lambda one: each * one.elements, _AT_ONCE):
        for variable, found in zip(batch, _rhats(cut, batch), strict=True):
            if np.isnan(found).all():
                continue
            index = int(np.nanargmax(found))
            if not found[index] <= worst.value:
                name = names.name(variable, index)
                worst = WorstRhat(float(found[index]), name, True)
    return worst._replace(complete=len(chosen) == len(variables))


def _rhats(cut: Cut, batch: list[Variable]) -> list[Floats]:
    """R-hat of each value of some variables, as a flat array."""
    values = read_values([(cut, variable) for variable in batch], slice(None), flatten=False)
    numbers = [one.reshape(*one.shape[:2], -1).astype(np.float64) for one in values]
    ends = np.cumsum([one.shape[2] for one in numbers])
    found = compute(np.concatenate(numbers, axis=2), ["r_hat"])["r_hat"]
    return np.split(found, ends[:-1])
