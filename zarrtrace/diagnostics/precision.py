"""How finely the draws of a variable have to be stored: a part of their Monte Carlo errors."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..layout.rounding import EXACT, Compacted, Exponents, pack_exponents, round_to
from ..layout.variables import Variable
from ..reading.moment import Moment
from .selection import Chosen, Selection
from .statistics import ARVIZ_0, Floats, compute
from .summary import of_batch, read_together
from .transposed import Room

ERRORS = ("mcse_mean", "mcse_q05", "mcse_median", "mcse_q95")
_SIZES = ("ess_mean", "ess_q05", "ess_median", "ess_q95")
# What a dry run compares, and the error in whose units it does; R-hat and ESS have none.
COMPARED = {
    "mean": "mcse_mean",
    "sd": "mcse_sd",
    "eti_lower": "mcse_q05",
    "median": "mcse_median",
    "eti_upper": "mcse_q95",
    "ess_bulk": "ess_bulk",
    "ess_tail": "ess_tail",
    "r_hat": "",
}
_OF_COMPARED = [*COMPARED, "mcse_sd"]
_TAILS = 0.9  # between the quantiles at 5 % and 95 %

FEWEST = 100  # effective draws from which on an error is known
MOST_RHAT = 1.05
# Draws of these groups are exponents: an absolute change is a relative one of a weight.
_OF_LOGARITHMS = ("log_likelihood", "log_prior")
_LOG_EXPONENT = -6
# Unnormalised densities, from which weights are computed.
_LOG_DENSITIES = ("lp", "lp__", "logp", "lp_approx__", "log_p__", "log_g__", "log_weights")


class Precision(NamedTuple):
    """How a variable is to be rounded, and what that changes.

    Attributes
    ----------
    planned : Compacted or None
        None where no element can be rounded.
    ess, r_hat : float
        The worst effective sample size of an element that varies, and the worst split R-hat.
    worst : str
        The element with the worst effective sample size.
    changes : dict of str to float
        The largest change of an element for each name in `COMPARED`; empty if it was not asked for.
    """

    variable: Variable
    planned: Compacted | None
    ess: float
    r_hat: float
    worst: str
    changes: dict[str, float]


def stays_exact(variable: Variable) -> bool:
    """Whether the draws of a variable are never rounded."""
    is_density = variable.group.startswith("sample_stats") and variable.name in _LOG_DENSITIES
    return variable.dtype.kind not in "fc" or is_density or not variable.elements


def find_precision(
    now: Moment, group: str, error: float, *, room: Room, compare: bool, force: bool
) -> Iterator[Precision]:
    """How the variables of a group can be rounded, one after the other.

    Parameters
    ----------
    error : float
        The quantum as a part of the smallest Monte Carlo error of an element, at most.
    compare : bool
        Whether to compute what rounding changes.
    force : bool
        Whether to round elements whose error is not known well.
    """
    selection = Selection(now, group, kinds="fc")
    chosen = [
        one for one in selection.variables if (v := selection.sampled(one)) and not stays_exact(v)
    ]
    exponent = _LOG_EXPONENT if group in _OF_LOGARITHMS else None
    of_slab = partial(_of_slab, error=error, most=exponent, compare=compare, force=force)
    draws = int(now.counts[now.layout.kept_chains].min())
    is_real = [[one for one in chosen if one.dtype.kind == kind] for kind in "fc"]
    for alike in is_real:
        for batch in read_together(selection, alike, room):
            found = of_batch(selection, batch, room, of_slab)
            first = 0
            for one in batch:
                variable = now.layout.groups[group].variables[one.name]
                stop = first + len(one.places) * (2 if one.dtype.kind == "c" else 1)
                part = {name: values[..., first:stop] for name, values in found.items()}
                yield _precision(variable, one, part, error, draws)
                first = stop


def _precision(
    variable: Variable, chosen: Chosen, found: dict[str, Floats], error: float, draws: int
) -> Precision:
    """What was computed of the elements of one variable, put together."""
    exponents: Exponents = found.pop("exponent").astype(np.int16)
    errors = np.stack([found.pop(name) for name in ERRORS])
    ess, r_hat = found.pop("ess"), found.pop("r_hat_split")
    is_rounded = exponents != EXACT
    worst = int(np.nanargmin(ess)) if not np.isnan(ess).all() else 0
    planned = None
    if is_rounded.any():
        powers = exponents[is_rounded]
        planned = Compacted(
            error=error,
            draws=draws,
            smallest=math.ldexp(1.0, int(powers.min())),
            largest=math.ldexp(1.0, int(powers.max())),
            monte_carlo_errors=tuple(errors[:, is_rounded].min(axis=1).tolist()),
            exponents=pack_exponents(exponents),
        )
        planned = _merged(variable, planned)
    return Precision(
        variable,
        planned,
        float(ess[worst]),
        float(np.nanmax(r_hat)) if not np.isnan(r_hat).all() else math.nan,
        chosen.labels[worst // (len(ess) // len(chosen.labels))],
        {name: float(np.nanmax(values, initial=0.0)) for name, values in found.items()},
    )


def _merged(variable: Variable, planned: Compacted) -> Compacted:
    """What will be true of all draws: some may have been rounded more before."""
    least, error = variable.rounded_to, planned.error
    smallest, largest = planned.smallest, planned.largest
    if variable.compacted is not None:
        error = max(error, variable.compacted.error)
        smallest = max(smallest, variable.compacted.smallest)
        largest = max(largest, variable.compacted.largest)
    return planned._replace(error=error, smallest=max(smallest, least), largest=max(largest, least))


def _of_slab(
    slab: npt.NDArray[Any], *, error: float, most: int | None, compare: bool, force: bool
) -> dict[str, Floats]:
    """Exponents, errors and changes of some scalars, given as (chains, draws, scalars)."""
    if slab.dtype.kind == "c":
        real = np.dtype(f"f{slab.dtype.itemsize // 2}")
        slab = np.ascontiguousarray(slab).view(real)
    draws = slab.astype(np.float64, copy=False)
    scales = _scales(draws)
    with np.errstate(all="ignore"):
        scaled = np.ldexp(draws, -scales)
    names = [*ERRORS, *_SIZES]
    found = compute(scaled, names, rules=ARVIZ_0)
    chains, count, scalars = scaled.shape
    # One chain is compared with itself.
    halves = scaled if chains > 1 else scaled[:, : count // 2 * 2].reshape(2, -1, scalars)
    r_hat = compute(halves, ["r_hat_split"], rules=ARVIZ_0)["r_hat_split"]
    errors = np.stack([found[name] for name in ERRORS])
    ess = np.minimum(np.stack([found[name] for name in _SIZES]).min(axis=0), chains * count)
    smallest = errors.min(axis=0)
    is_known = (smallest > 0) & np.isfinite(errors).all(axis=0) & np.isfinite(ess)
    ess = np.where(is_known, ess, np.nan)
    is_rounded = is_known if force else is_known & (ess >= FEWEST) & ~(r_hat > MOST_RHAT)
    exponents = np.frexp(np.where(is_rounded, smallest * error, 1))[1] - 1 + scales
    exponents = np.clip(exponents, -1074, 1023)
    if most is not None:
        exponents = np.minimum(exponents, most)
    exponents = np.where(is_rounded, exponents, EXACT)
    with np.errstate(all="ignore"):
        said = {name: np.ldexp(found[name], scales) for name in ERRORS}
    result = {**said, "exponent": exponents.astype(np.float64), "ess": ess, "r_hat_split": r_hat}
    if compare:
        relative = np.where(is_rounded, exponents - scales, EXACT)
        result |= _changes(scaled, round_to(scaled, relative), found, is_rounded)
    return result


def _scales(draws: Floats) -> npt.NDArray[np.int32]:
    """For each scalar the exponent of the range of its draws, which becomes about 1 by it.

    So nothing overflows, and nothing that varies counts as constant because it is small.
    """
    with np.errstate(all="ignore"):
        spread = draws.max(axis=(0, 1)) / 2 - draws.min(axis=(0, 1)) / 2
    is_known = np.isfinite(spread) & (spread > 0)
    return np.frexp(np.where(is_known, spread, 1.0))[1]


def _changes(
    before: Floats, after: Floats, found: dict[str, Floats], is_rounded: npt.NDArray[np.bool_]
) -> dict[str, Floats]:
    """How much rounding changes each statistic of each scalar, in units of its error."""
    old = {**found, **compute(before, _OF_COMPARED, prob=_TAILS, rules=ARVIZ_0)}
    new = compute(after, _OF_COMPARED, prob=_TAILS, rules=ARVIZ_0)
    changes = {}
    with np.errstate(all="ignore"):
        for name, unit in COMPARED.items():
            change = np.abs(new[name] - old[name]) / (old[unit] if unit else 1.0)
            changes[name] = np.where(is_rounded, change, 0.0)
    return changes
