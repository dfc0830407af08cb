"""The verdict on a run: whether its draws can be trusted, by the checks of `arviz.diagnose`.

The numbers and thresholds are ArviZ's, on every ArviZ. What is added is where the trouble is, and
what to do next.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import TraceError
from ..messages import counted, list_chains, rounded_down
from ..reading.moment import Moment
from .frame import choose_style
from .progress import Progress
from .selection import Coords, Filter, Selection, warn_of_left_out
from .statistics import ARVIZ_0, Floats, Rules, arviz_is_1
from .summary import compute_statistics
from .transposed import Room

Bools = npt.NDArray[np.bool_]

STATISTICS = ["ess_bulk", "ess_tail", "r_hat", "r_hat_tail"]  # of each scalar

_MOST_SCALARS = 2_000  # that are searched for where divergences lie
_MOST_NAMED = 5  # in a sentence
_CHANCE = 0.05  # that divergences all over the place are said to lie somewhere


@dataclass(frozen=True)
class Finding:
    """What one check found.

    Attributes
    ----------
    check : str
        `divergent`, `treedepth`, `bfmi`, `ess` or `rhat`, as `arviz.diagnose` calls them.
    good : bool or None
        None where it could not be checked.
    says : str
        What was found, and where.
    next : str
        What to do next; "" where nothing has to be done.
    data : dict
        The numbers, with ArviZ's names, and `values` of the scalars that are bad.
    """

    check: str
    good: bool | None
    says: str
    next: str
    data: dict[str, Any]


@dataclass(frozen=True)
class Verdict:
    """Whether the draws can be trusted, as returned by `Trace.diagnose`.

    It is true if the draws are good, and its text is what `zarrtrace diagnose` prints.

    Attributes
    ----------
    path : str
        Where the trace is.
    group : str
        The group whose draws were checked.
    chains, draws : int
        How many of them.
    findings : list of Finding
        One for each check.
    """

    path: str
    group: str
    chains: int
    draws: int
    findings: list[Finding]

    @property
    def problems(self) -> list[Finding]:
        """The checks that failed: `arviz.diagnose` has errors where there are any."""
        return [finding for finding in self.findings if finding.good is False]

    @property
    def good(self) -> bool:
        """Whether no check failed, and R-hat and ESS could be computed.

        What only some samplers record, such as divergences, need not be there. One chain, or
        three draws, are not good.
        """
        return not self.problems and bool(self["ess"].good and self["rhat"].good)

    def __bool__(self) -> bool:
        return self.good

    def __getitem__(self, check: str) -> Finding:
        return next(finding for finding in self.findings if finding.check == check)

    def as_dict(self) -> dict[str, Any]:
        """All of it as a dictionary that JSON can hold."""
        return {**asdict(self), "good": self.good}

    def __str__(self) -> str:
        size = f"{counted(self.chains, 'chain')} of {counted(self.draws, 'draw')}"
        word = "nobody can say yet whether they are good"
        if self.good or self.problems:
            word = f"{counted(len(self.problems), 'problem')} found" if self.problems else "good"
        lines = [f"{self.path}: {size}, {word}"]
        for finding in self.findings:
            mark = {True: "good", False: "BAD ", None: "-   "}[finding.good]
            lines.append(f"  {mark}  {finding.says}")
            if finding.next:
                lines.append(f"        next: {finding.next}")
        return "\n".join(lines)

    __repr__ = __str__


def diagnose(
    now: Moment,
    group: str = "posterior",
    var_names: str | Sequence[str] | None = None,
    filter_vars: Filter | None = None,
    coords: Coords | None = None,
    *,
    rhat_max: float = 1.01,
    ess_min_ratio: float = 0.001,
    ess_threshold: float | None = None,
    bfmi_threshold: float = 0.3,
    memory: float = 1e9,
    scratch: str | os.PathLike[str] | None = None,
    threads: int = 1,
    progress: bool = True,
    statistics: Mapping[str, Floats] | None = None,
) -> Verdict:
    """The verdict on a group of a trace; `statistics` are those of its scalars, where known."""
    selection = Selection(now, group, var_names, filter_vars, coords)
    warn_of_left_out(selection)
    of_sampler = _SamplerStats(now, group.replace("posterior", "sample_stats"))
    if statistics is None:
        with Progress(selection.size, shown=progress) as bar:
            room = Room(memory, scratch, bar.say)
            statistics = compute_statistics(
                selection,
                STATISTICS,
                room,
                rules=verdict_rules(),
                threads=threads,
                done=bar.advance,
            )
    scalars = _Scalars(selection, statistics)
    total = selection.length * len(selection.counts)
    threshold = 100 * len(selection.counts) if ess_threshold is None else int(ess_threshold)
    findings = [
        _check_divergences(of_sampler, selection, total),
        _check_tree_depth(of_sampler, total),
        _check_energy(of_sampler, bfmi_threshold),
        _check_ess(scalars, total, ess_min_ratio, threshold, selection),
        _check_rhat(scalars, rhat_max, selection),
    ]
    chains, draws = selection.shape
    return Verdict(str(now), group, chains, draws, findings)


class _SamplerStats:
    """Statistics of the sampler, for all chains and draws."""

    def __init__(self, now: Moment, group: str) -> None:
        self._now, self.group = now, group

    def read(self, name: str) -> npt.NDArray[Any] | None:
        """One of them, shape (chains, draws); None where it was not recorded or has no draws."""
        if not self._now.has_group(self.group):
            return None
        try:
            selection = Selection(self._now, self.group, [name])
            [values] = selection.read(selection.variables)
        except TraceError:
            return None
        return values[:, :, 0] if values.shape[2] == 1 else None


def verdict_rules() -> Rules:
    """The rules of the functions that `arviz.diagnose` calls."""
    return choose_style("all", None, None, "none").rules if arviz_is_1() else ARVIZ_0


class _Scalars:
    """R-hat and ESS of the chosen scalars."""

    def __init__(self, selection: Selection, statistics: Mapping[str, Floats]) -> None:
        self.labels = [label for chosen in selection.variables for label in chosen.labels]
        self.names = [chosen.name for chosen in selection.variables for _ in chosen.labels]
        self.statistics = statistics

    def variables(self, is_bad: Bools) -> list[str]:
        """The variables that have a bad scalar, in their order."""
        return list(dict.fromkeys(np.array(self.names, dtype=object)[is_bad].tolist()))

    def values(self, is_bad: Bools, statistic: Floats) -> dict[str, float]:
        """The bad scalars and their values."""
        places = np.flatnonzero(is_bad)
        return {self.labels[place]: float(statistic[place]) for place in places}


def _check_divergences(stats: _SamplerStats, selection: Selection, total: int) -> Finding:
    diverging = stats.read("diverging")
    if diverging is None:
        return _not_recorded("divergent", "divergences", "diverging", stats)
    is_diverging = diverging.astype(bool)
    number = int(is_diverging.sum())
    data: dict[str, Any] = {
        "n_divergent": number,
        "pct": 100 * number / total,
        "total_samples": total,
    }
    if not number:
        return Finding("divergent", True, "there are no divergences", "", data)
    says = f"{number} of {total} transitions ({data['pct']:.2g} %) ended with a divergence"
    place = _find_place(selection, is_diverging)
    advice = (
        "raise the target acceptance rate (target_accept, adapt_delta) towards 1; if divergences "
        "remain, give the model another parameterisation"
    )
    if place is not None:
        says += f"; {place.sentence(number)}"
        advice += f", first of {place.label}"
        data["where"] = asdict(place)
    return Finding("divergent", False, says, advice, data)


def _check_tree_depth(stats: _SamplerStats, total: int) -> Finding:
    reached = stats.read("reached_max_treedepth")
    if reached is None:
        return _not_recorded("treedepth", "tree depth", "reached_max_treedepth", stats)
    number = int(reached.astype(bool).sum())
    data = {"n_max": number, "pct": 100 * number / total, "total_samples": total}
    if not number:
        says = "no transition reached the maximum tree depth"
        return Finding("treedepth", True, says, "", data)
    says = f"{number} of {total} transitions ({data['pct']:.2g} %) reached the maximum tree depth"
    advice = (
        "allow deeper trees (max_treedepth); if there are many, give the model a parameterisation "
        "whose variables have similar scales"
    )
    return Finding("treedepth", False, says, advice, data)


_NO_SCALAR = "cannot be computed: no variable has an element"


def _check_energy(stats: _SamplerStats, threshold: float) -> Finding:
    energy = stats.read("energy")
    if energy is None:
        return _not_recorded("bfmi", "E-BFMI", "energy", stats)
    with np.errstate(invalid="ignore", divide="ignore"):
        values = bfmi(energy)
    failed = np.flatnonzero(values < threshold).tolist()
    data = {"bfmi_values": values.tolist(), "failed_chains": failed, "threshold": threshold}
    if np.isnan(values).all():
        return Finding("bfmi", None, "E-BFMI cannot be computed from so few draws", "", data)
    if not failed:
        says = f"E-BFMI is {np.nanmin(values):.2f} or more in every chain"
        return Finding("bfmi", True, says, "", data)
    says = (
        f"E-BFMI of {list_chains(failed)} is below {threshold:g}, {np.nanmin(values):.2f} at "
        "worst: the sampler does not reach all energies"
    )
    advice = "give the model another parameterisation, first of scales with heavy tails"
    return Finding("bfmi", False, says, advice, data)


def bfmi(energy: npt.NDArray[Any]) -> Floats:
    """The estimated Bayesian fraction of missing information of each chain."""
    if energy.shape[1] < 4:
        return np.full(len(energy), np.nan)
    changes = np.square(np.diff(energy, axis=1)).mean(axis=1)
    result: Floats = changes / energy.var(axis=1, ddof=1)
    return result


def _check_ess(
    scalars: _Scalars, total: int, ratio: float, threshold: int, selection: Selection
) -> Finding:
    bulk, tail = scalars.statistics["ess_bulk"], scalars.statistics["ess_tail"]
    smaller = np.minimum(bulk, tail)
    too_small, is_below = smaller / total < ratio, bulk < threshold
    data = {
        "bad_params": scalars.variables(too_small),
        "below_threshold": scalars.variables(is_below),
        "threshold": threshold,
        "threshold_ratio": ratio,
        "total_samples": total,
        "values": scalars.values(too_small | is_below, bulk),
    }
    number = int((too_small | is_below).sum())
    if np.isnan(bulk).all():
        if not bulk.size:
            return Finding("ess", None, f"effective sample sizes {_NO_SCALAR}", "", data)
        says = (
            "effective sample sizes cannot be computed: a chain has fewer than 4 draws, or draws "
            "that are not finite"
        )
        return Finding("ess", None, says, "record more draws", data)
    if not number:
        says = f"every effective sample size is {rounded_down(np.nanmin(bulk))} or more in the bulk"
        if np.isnan(bulk).any():
            number = int(np.isnan(bulk).sum())
            says += f"; {_of_scalars(number, len(bulk))} draws that are not finite"
        return Finding("ess", True, says, "", data)
    worst = int(np.nanargmin(bulk))
    says = (
        f"{_of_scalars(number, len(bulk))} an effective sample size below {threshold}, "
        f"{scalars.labels[worst]} the smallest, {rounded_down(bulk[worst])}"
    )
    if too_small.any():
        says += f"; of {int(too_small.sum())} it is less than {ratio:g} of the draws"
    more = math.ceil(selection.length * max(0.0, threshold / max(bulk[worst], 1) - 1) / 100) * 100
    advice = (
        f"record some {more} more draws a chain (trace.extend({more}), then resume)"
        if 0 < more <= 20 * selection.length
        else "give the model a parameterisation that mixes faster; more draws alone will not do"
    )
    return Finding("ess", False, says, advice, data)


def _check_rhat(scalars: _Scalars, most: float, selection: Selection) -> Finding:
    rank, folded = scalars.statistics["r_hat"], scalars.statistics["r_hat_tail"]
    values = np.maximum(rank, folded)
    is_bad = values > most
    data: dict[str, Any] = {
        "bad_params": scalars.variables(is_bad),
        "threshold": most,
        "values": scalars.values(is_bad, values),
    }
    if np.isnan(values).all():
        if selection.shape[0] < 2:
            says = "R-hat cannot be computed from one chain, so nothing says that it has converged"
            return Finding("rhat", None, says, "record a second chain, better four", data)
        if not values.size:
            return Finding("rhat", None, f"R-hat {_NO_SCALAR}", "", data)
        says = (
            "R-hat cannot be computed: too few draws, or draws that are not finite or never change"
        )
        return Finding("rhat", None, says, "", data)
    worst = int(np.nanargmax(values))
    if not is_bad.any():
        says = f"every R-hat is {values[worst]:.3f} or less"
        if np.isnan(values).any():
            says += f"; {_of_scalars(int(np.isnan(values).sum()), len(values))} none"
        return Finding("rhat", True, says, "", data)
    named = list(data["values"])
    says = (
        f"{_of_scalars(len(named), len(values))} an R-hat above {most:g}: the chains do not agree; "
        f"{scalars.labels[worst]} has the largest, {values[worst]:.3f}"
    )
    others = [label for label in named if label != scalars.labels[worst]][:_MOST_NAMED]
    if others:
        says += f", others are {', '.join(others)}" + ("" if len(named) <= 6 else ", ...")
    advice = (
        "look at the traces of these: chains that still move need more warmup or more draws, "
        "chains that stay apart found different modes"
    )
    return Finding("rhat", False, says, advice, data)


def _of_scalars(number: int, total: int) -> str:
    have = "has" if number == 1 else "have"
    return f"{number} of {counted(total, 'scalar')} {have}"


def _not_recorded(check: str, what: str, name: str, stats: _SamplerStats) -> Finding:
    says = f"{what} cannot be checked: {stats.group}/{name} was not recorded"
    return Finding(check, None, says, "", {})


# Where divergences lie ----------------------------------------------------------------------------


@dataclass(frozen=True)
class _Place:
    """Draws of a scalar below, or above, a bound, where most divergences are.

    Attributes
    ----------
    divergences : int
        How many of them are there.
    share : float
        Which share of all draws lies in the same place.
    """

    label: str
    is_below: bool
    bound: float
    divergences: int
    share: float

    def sentence(self, number: int) -> str:
        """For example `12 of 14 divergences have tau < 0.1, as 8 % of all draws have`."""
        sign = "<" if self.is_below else ">"
        return (
            f"{self.divergences} of {counted(number, 'divergence')} have {self.label} {sign} "
            f"{self.bound:g}, as {100 * self.share:.2g} % of all draws have"
        )


def _find_place(selection: Selection, is_diverging: Bools) -> _Place | None:
    """Where divergences lie closest together, as long as it is not by chance."""
    chosen = is_diverging[np.ix_(selection.chains, selection.draws)].ravel()
    number = int(chosen.sum())
    if number < 2 or number == len(chosen):
        return None
    searched = 0
    best: tuple[float, str, bool, Floats] | None = None
    for label, draws in _columns(selection):
        searched += 1
        for is_below in (True, False):
            excess = _excess(draws if is_below else -draws, chosen)
            if best is None or excess > best[0]:
                best = excess, label, is_below, draws
    # Dvoretzky, Kiefer and Wolfowitz, for each scalar and side.
    if best is None or best[0] < math.sqrt(math.log(2 * searched / _CHANCE) / (2 * number)):
        return None
    _, label, is_below, draws = best
    bound = _bound(draws if is_below else -draws, chosen)
    inside = draws < bound if is_below else -draws < bound
    bound = bound if is_below else -bound
    return _Place(label, is_below, bound, int(inside[chosen].sum()), float(inside.mean()))


def _columns(selection: Selection) -> Iterator[tuple[str, Floats]]:
    """The first scalars and all their draws, of small variables."""
    room = _MOST_SCALARS
    for chosen in selection.variables:
        if math.prod(chosen.shape) > room:
            continue
        room -= math.prod(chosen.shape)
        try:
            [values] = selection.read([chosen])
        except TraceError:
            continue
        for number, label in enumerate(chosen.labels):
            draws = values[:, :, number].ravel().astype(np.float64)
            if np.isfinite(draws).all():
                yield label, draws


def _excess(draws: Floats, chosen: Bools) -> float:
    """By how much the share of chosen draws below a bound exceeds that of all, at most."""
    return float(_excesses(draws, chosen).max())


def _excesses(draws: Floats, chosen: Bools) -> Floats:
    """The same for the bounds just above each chosen draw, in ascending order."""
    inside = np.sort(draws[chosen])
    below = np.searchsorted(np.sort(draws), inside, side="right") / len(draws)
    excesses: Floats = np.arange(1, len(inside) + 1) / len(inside) - below
    return excesses


def _bound(draws: Floats, chosen: Bools) -> float:
    """The bound with the greatest excess, rounded up to two digits."""
    inside = np.sort(draws[chosen])
    last = float(inside[_excesses(draws, chosen).argmax()])
    step = 10.0 ** (math.floor(math.log10(abs(last))) - 1) if last else 0.1 * draws.std()
    bound = math.ceil(last / step) * step
    return bound if bound > last else bound + step
