"""The worst R-hat of a trace: one number that shows whether its chains agree.

Rank-normalised split R-hat, the larger one of bulk and tail, as in ArviZ; all values of a
variable at once. A finished trace stores it, so that a thousand are listed in a second.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
from collections.abc import Iterator
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np

from ..errors import DamagedTraceError
from ..layout.hierarchy import Hierarchy
from ..layout.layout import STATE
from ..layout.variables import Variable
from ..store.location import Location
from ..store.zarr_json import encode_document, group_document
from .cut import Cut, make_cut
from .moment import Moment
from .values import read_values

KEPT = f"{STATE}/convergence"

_MOST_NUMBERS = 1_000_000  # draws × values that are checked: some tenths of a second
_AT_ONCE = 200_000  # numbers that are ranked together, in memory several times


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
        numbers = each * math.prod(variable.shape)
        if numbers <= room:
            room -= numbers
            chosen.append(variable)
    for batch in _batches(chosen, each):
        for variable, found in zip(batch, _rhats(cut, batch), strict=True):
            if np.isnan(found).all():
                continue
            index = int(np.nanargmax(found))
            if not found[index] <= worst.value:
                worst = WorstRhat(float(found[index]), _label(variable, index), True)
    return worst._replace(complete=len(chosen) == len(variables))


def _batches(variables: list[Variable], each: int) -> Iterator[list[Variable]]:
    """Variables that are read and ranked together, with `each` numbers per value."""
    batch: list[Variable] = []
    numbers = 0
    for variable in variables:
        size = each * math.prod(variable.shape)
        if batch and numbers + size > _AT_ONCE:
            yield batch
            batch, numbers = [], 0
        batch.append(variable)
        numbers += size
    if batch:
        yield batch


def _rhats(cut: Cut, batch: list[Variable]) -> list[np.ndarray[Any, np.dtype[np.float64]]]:
    """R-hat of each value of some variables, as a flat array."""
    values = read_values([(cut, variable) for variable in batch], slice(None), flatten=False)
    numbers = [one.reshape(*one.shape[:2], -1).astype(np.float64) for one in values]
    ends = np.cumsum([one.shape[2] for one in numbers])
    return np.split(rhat(np.concatenate(numbers, axis=2)), ends[:-1])


def _label(variable: Variable, index: int) -> str:
    if not variable.shape:
        return variable.name
    place = ", ".join(map(str, np.unravel_index(index, variable.shape)))
    return f"{variable.name}[{place}]"


def rhat(draws: np.ndarray[Any, Any]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Rank-normalised split R-hat of each value.

    Parameters
    ----------
    draws : numpy.ndarray
        Real numbers, shape (chains, draws, *shape).

    Returns
    -------
    numpy.ndarray
        float64, shape `shape`: the larger one of bulk and tail, as `arviz.rhat`; NaN where a draw
        is NaN or all are the same, with one chain, and with fewer than 4 draws.
    """
    chains, count, *shape = draws.shape
    if chains < 2 or count < 4:
        return np.full(shape, np.nan)
    values = draws.reshape(chains, count, -1)
    found = np.empty(values.shape[2])
    step = max(1, _AT_ONCE // (chains * count))
    for start in range(0, len(found), step):
        found[start : start + step] = _rhat_of(values[:, :, start : start + step])
    return found.reshape(shape)


def _rhat_of(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    chains, count, size = values.shape
    half = count // 2
    # Both halves of each chain, without the middle one of an odd number of draws.
    halves = np.concatenate([values[:, :half], values[:, count - half :]])
    numbers = np.ascontiguousarray(halves.reshape(2 * chains * half, size).T, dtype=np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        bulk = _split_rhat(_normal_scores(numbers), half)
        folded = np.abs(numbers - np.median(numbers, axis=1, keepdims=True))
        tail = _split_rhat(_normal_scores(folded), half)
    worse: np.ndarray[Any, Any] = np.maximum(bulk, tail)
    worse[np.isnan(numbers).any(axis=1)] = np.nan
    return worse


def _split_rhat(scores: np.ndarray[Any, Any], half: int) -> np.ndarray[Any, Any]:
    """R-hat of each row, which has half chains of `half` draws one after the other."""
    chains = scores.reshape(len(scores), -1, half)
    between = half * chains.mean(axis=2).var(axis=1, ddof=1)
    within = chains.var(axis=2, ddof=1).mean(axis=1)
    found: np.ndarray[Any, Any] = np.sqrt((between / within + half - 1) / half)
    return found


def _normal_scores(numbers: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Each row's ranks, equal numbers sharing their mean rank, as quantiles of a normal."""
    count = numbers.shape[1]
    order = np.argsort(numbers, axis=1)
    ascending = np.take_along_axis(numbers, order, axis=1)
    place = np.arange(count)
    new = np.ones(numbers.shape, dtype=bool)
    new[:, 1:] = ascending[:, 1:] != ascending[:, :-1]
    first = np.maximum.accumulate(np.where(new, place, 0), axis=1)
    last = np.ones(numbers.shape, dtype=bool)
    last[:, :-1] = new[:, 1:]
    ends = np.where(last, place, count)[:, ::-1]
    final = np.minimum.accumulate(ends, axis=1)[:, ::-1]
    scores = np.empty(numbers.shape)
    np.put_along_axis(scores, order, _quantiles(count)[first + final], axis=1)
    return scores


@functools.lru_cache(maxsize=8)
def _quantiles(count: int) -> np.ndarray[Any, Any]:
    """Normal quantiles of the ranks 1, 1.5, 2, ..., `count`, as Blom places them."""
    quantile = NormalDist().inv_cdf
    ranks = np.arange(2, 2 * count + 1) / 2
    return np.array([quantile(p) for p in ((ranks - 0.375) / (count + 0.25)).tolist()])
