"""What is drawn of some scalars: their draws are read, thinned, ranked, and looked at in parts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..diagnostics.statistics import compute
from ..layout.layout import Layout
from ..layout.variables import Variable
from ..messages import chain_label, counted
from ..reading.batches import batches
from ..reading.moment import Moment
from ..watching.exact import read_elements
from ..watching.intake import burn_in, shown_chains
from ..watching.progress import Stats, find_stats
from .content import DrawnScalar, Energy, OverDraws, Pairs, Traces
from .thinning import Thinning

_BINS = 20
_POINTS = 1000  # of a scatter plot, of draws that diverged and of others
_MOST_PAIRED = 16  # scalars
_MOST_OVER_DRAWS = 20  # scalars
_PARTS = 12  # of the draws, for R-hat over draws
_MOST_NUMBERS = 5_000_000  # above which there are fewer parts
_ROOM = 2**28  # bytes of draws that are in memory together

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


class Place(NamedTuple):
    """A scalar that is to be drawn: where it is, and what the table says of it."""

    label: str
    variable: Variable
    element: int
    rhat: float = math.nan
    ess_bulk: float = math.nan
    ess_tail: float = math.nan
    is_bad: bool = False


class Drawing(NamedTuple):
    """What was drawn of some scalars."""

    traces: Traces | None
    over_draws: OverDraws | None
    pairs: Pairs | None


class Shown(NamedTuple):
    """Which draws are drawn.

    Attributes
    ----------
    chains : list of int
        Those that have draws.
    draws : range
        Those of the longest chain, counted from its start.
    begun : list of int
        The places in `chains` of those that have draws after warmup.
    common : range
        Those after warmup that all of these have.
    """

    chains: list[int]
    counts: list[int]
    draws: range
    begun: list[int]
    common: range

    @classmethod
    def of(cls, now: Moment) -> Shown:
        """All draws of a moment."""
        layout = now.layout
        first, dropped = burn_in(layout), layout.dropped
        chains = [chain for chain in shown_chains(layout) if now.counts[chain] > dropped]
        counts = [int(now.counts[chain]) for chain in chains]
        begun = [row for row, count in enumerate(counts) if count > first]
        return cls(
            chains,
            counts,
            range(dropped, max(counts, default=dropped)),
            begun,
            range(first, min((counts[row] for row in begun), default=first)),
        )

    def of_all(self, values: NDArray[Any]) -> NDArray[Any]:
        """The draws that all chains have after warmup, of chains that have any."""
        start = self.draws.start
        return values[self.begun][:, self.common.start - start : self.common.stop - start]


def read_scalars(
    now: Moment, places: Sequence[tuple[Variable, int]], shown: Shown
) -> tuple[Floats, dict[str, str]]:
    """Some scalars with all their draws, shape (chains, draws, scalars); NaN where there is none.

    Returns
    -------
    values : numpy.ndarray
        In the order of `places`.
    damaged : dict of str to str
        Variables that cannot be read, by `group/name`, and why.
    """
    values = np.full((len(shown.chains), len(shown.draws), len(places)), np.nan)
    elements: dict[str, tuple[Variable, list[int]]] = {}
    order: dict[str, list[int]] = {}
    for number, (variable, element) in enumerate(places):
        elements.setdefault(variable.label, (variable, []))[1].append(element)
        order.setdefault(variable.label, []).append(number)
    columns = [number for numbers in order.values() for number in numbers]
    damaged: dict[str, str] = {}
    for count in sorted(set(shown.counts)):
        rows = [row for row, other in enumerate(shown.counts) if other == count]
        read, found = read_elements(
            now.hierarchy,
            now.layout,
            list(elements.values()),
            tuple(shown.chains[row] for row in rows),
            range(shown.draws.start, count),
        )
        values[np.ix_(rows, range(count - shown.draws.start), columns)] = read
        damaged |= found
    return values, damaged


class Drawer:
    """Draws scalars of a trace at one moment.

    Attributes
    ----------
    shown : Shown
        Which draws.
    damaged : dict of str to str
        Variables that could not be read, and why.
    """

    def __init__(self, now: Moment) -> None:
        self._now = now
        self.shown = Shown.of(now)
        self._first = burn_in(now.layout)
        self._thinning = Thinning(self.shown.draws, self.shown.chains)
        self.damaged: dict[str, str] = {}
        self._stats = self._read_stats(now.layout)

    def _read_stats(self, layout: Layout) -> dict[str, Floats]:
        """What the sampler says, by ArviZ's names, shape (chains, draws)."""
        found = find_stats(layout) if self.shown.chains else {}
        places = [(variable, 0) for variable in found.values()]
        if not places:
            return {}
        values, self.damaged = read_scalars(self._now, places, self.shown)
        return {
            name: values[:, :, number]
            for number, (name, variable) in enumerate(found.items())
            if variable.label not in self.damaged
        }

    def stats(self) -> Stats:
        """What the sampler says, as a look at a run has it."""
        layout = self._now.layout
        summed = Stats(layout.chains)
        for name, values in self._stats.items():
            for row, chain in enumerate(self.shown.chains):
                count = self.shown.counts[row] - self.shown.draws.start
                after = max(0, self._first - self.shown.draws.start)
                is_warmup = count <= after
                drawn = values[row : row + 1, (count - 1 if is_warmup else after) : count]
                summed.add(name, slice(chain, chain + 1), drawn, is_warmup)
        return summed

    # Scalars ------------------------------------------------------------------------------------

    def draw(self, places: Sequence[Place]) -> Drawing:
        """Traces and ranks of some scalars; of the first ones R-hat over draws, and pairs."""
        scalars: list[DrawnScalar] = []
        paired: list[Floats] = []
        over: list[tuple[Floats, Floats]] = []
        parts = self._parts(min(_MOST_OVER_DRAWS, len(places)))
        for batch in self._batches(places):
            values, damaged = read_scalars(self._now, [place[1:3] for place in batch], self.shown)
            self.damaged |= damaged
            compared: list[Floats] = []
            for number, place in enumerate(batch):
                reason = damaged.get(place.variable.label, "")
                if reason:
                    values[:, :, number] = np.nan
                common = self.shown.of_all(values[:, :, number])
                scalars.append(self._scalar(place, values[:, :, number], common, reason))
                if len(paired) < _MOST_PAIRED:
                    paired.append(common.ravel())
                if parts and len(scalars) <= _MOST_OVER_DRAWS:
                    compared.append(common)
            if compared:
                over.append(_over_draws(np.stack(compared, axis=2), parts))
        traces = Traces(
            x=self._thinning.x,
            lines=[_line_label(chains) for chains in self._thinning.lines],
            burn_in=self._first,
            divergences=self._thinning.columns_with(self._diverging()),
            scalars=scalars,
        )
        return Drawing(traces, _joined(places, parts, over), self._pairs(places, paired))

    def _pairs(self, places: Sequence[Place], paired: list[Floats]) -> Pairs | None:
        """Draws in parameter space: some, and those that diverged, and all extremes."""
        is_diverging = self.shown.of_all(self._diverging()).ravel()
        if "diverging" not in self._stats or not is_diverging.size:
            return None
        chosen = [_some(np.flatnonzero(is_diverging == kind), _POINTS) for kind in (False, True)]
        extremes = [_extremes(values) for values in paired]
        points = np.unique(np.concatenate([*chosen, *extremes]))
        number = int(is_diverging.sum())
        says = f"{counted(number, 'divergence')} among {counted(is_diverging.size, 'draw')}"
        if number > _POINTS:
            says += f", {_POINTS} of them are drawn"
        says += f"; {int((~is_diverging[points]).sum())} other draws, all extremes among them"
        return Pairs(
            labels=[place.label for place in places[: len(paired)]],
            values=np.array([values[points] for values in paired]),
            is_diverging=is_diverging[points],
            says=says,
        )

    def _batches(self, places: Sequence[Place]) -> Iterator[list[Place]]:
        """Those that are read together: small variables with others, in the same order."""
        size = 8 * len(self.shown.chains) * max(1, len(self.shown.draws))
        return batches(places, lambda place: size, _ROOM)

    def _scalar(self, place: Place, draws: Floats, common: Floats, reason: str) -> DrawnScalar:
        recorded = draws[:, max(0, self._first - self.shown.draws.start) :]
        with np.errstate(invalid="ignore"):
            scaled = recorded[np.isfinite(recorded)]
            if not scaled.size:
                scaled = draws[np.isfinite(draws)]
        low, high = (float(scaled.min()), float(scaled.max())) if scaled.size else (0.0, 1.0)
        is_constant = low == high and scaled.size > 1
        # A float64 does not tell all integers apart.
        is_coarse = place.variable.dtype.kind in "iu" and max(-low, high) >= 2**53
        note = reason or _note(draws, self.shown, is_constant, is_coarse)
        return DrawnScalar(
            label=place.label,
            rhat=place.rhat,
            ess_bulk=place.ess_bulk,
            ess_tail=place.ess_tail,
            is_bad=place.is_bad,
            low=low,
            high=high,
            note=note,
            lines=self._thinning.lines_of(draws),
            ranks=_ranks(common, self._groups_after_warmup()),
        )

    def _groups_after_warmup(self) -> list[list[int]]:
        """The chains of each line, as rows of the draws that all have after warmup."""
        row_of = {row: number for number, row in enumerate(self.shown.begun)}
        groups = self._thinning.groups
        return [[row_of[row] for row in group if row in row_of] for group in groups]

    def _parts(self, scalars: int) -> list[int]:
        """Of how many draws R-hat is computed: all of them last."""
        length = len(self.shown.common)
        if length < 8 or not scalars:
            return []
        if scalars * len(self.shown.chains) * length <= _MOST_NUMBERS:
            return sorted({max(4, length * part // _PARTS) for part in range(1, _PARTS + 1)})
        return sorted(length // 2**half for half in range(6) if length // 2**half >= 4)

    # What the sampler says ----------------------------------------------------------------------

    def _diverging(self) -> Bools:
        """Which draws after warmup diverged, of all chains and draws."""
        shape = (len(self.shown.chains), len(self.shown.draws))
        values = self._stats.get("diverging", np.zeros(shape))
        is_diverging: Bools = np.nan_to_num(values).astype(bool)
        is_diverging[:, : max(0, self._first - self.shown.draws.start)] = False
        return is_diverging

    def energy(self) -> Energy | None:
        """The distribution of energies; None where the sampler says nothing of them."""
        energy = self._stats.get("energy")
        if energy is None:
            return None
        energy = self.shown.of_all(energy)
        if energy.shape[1] < 4 or not np.isfinite(energy).all():
            return None
        marginal = (energy - energy.mean()).ravel()
        transitions = np.diff(energy, axis=1).ravel()
        edges = np.histogram_bin_edges(np.concatenate([marginal, transitions]), bins=60)
        counts = [np.histogram(one, edges, density=True)[0] for one in (marginal, transitions)]
        return Energy((edges[:-1] + edges[1:]) / 2, counts[0], counts[1])

    def says_diverging(self) -> bool:
        """Whether the sampler says which draws diverged."""
        return "diverging" in self._stats


def _line_label(chains: list[int]) -> str:
    return chain_label(range(chains[0], chains[-1] + 1))


def _note(draws: Floats, shown: Shown, is_constant: bool, is_coarse: bool) -> str:
    """What a trace alone does not show."""
    recorded = sum(shown.counts) - shown.draws.start * len(shown.counts)
    finite = int(np.isfinite(draws).sum())
    if recorded and not finite:
        return "no draw is a finite number"
    if finite < recorded:
        return f"{recorded - finite:,} of {recorded:,} draws are NaN or infinite"
    if is_coarse:
        return "integers beyond 2**53 are drawn, and compared, as the nearest float64"
    return "every draw is the same" if is_constant else ""


def _ranks(draws: Floats, groups: Iterable[list[int]]) -> Floats:
    """How often ranks among all draws are in each bin, relative to chains that are all alike."""
    if not draws.size or np.isnan(draws).any() or draws.min() == draws.max():
        return np.empty((0, _BINS))
    ordered = np.sort(draws, axis=None)
    # Equal draws share the mean of their ranks.
    ranks = np.searchsorted(ordered, draws, "left") + np.searchsorted(ordered, draws, "right")
    bins = np.minimum(ranks * _BINS // (2 * draws.size), _BINS - 1)
    numbers = [np.bincount(bins[group].ravel(), minlength=_BINS) for group in groups]
    return np.array([one * _BINS / max(1, one.sum()) for one in numbers])


def _joined(
    places: Sequence[Place], parts: list[int], over: list[tuple[Floats, Floats]]
) -> OverDraws | None:
    if not over:
        return None
    rhat, ess = (np.concatenate(numbers, axis=1) for numbers in zip(*over, strict=True))
    drawn = places[: rhat.shape[1]]
    return OverDraws(
        [place.label for place in drawn], parts, rhat, ess, [place.is_bad for place in drawn]
    )


def _over_draws(common: Floats, parts: list[int]) -> tuple[Floats, Floats]:
    """R-hat and ESS of the first draws of some scalars, each of shape (parts, scalars)."""
    found = [compute(common[:, :part], ["r_hat", "ess_bulk", "ess_tail"]) for part in parts]
    rhat = np.array([one["r_hat"] for one in found])
    ess = np.array([np.minimum(one["ess_bulk"], one["ess_tail"]) for one in found])
    return rhat, ess


def _extremes(values: Floats) -> NDArray[np.intp]:
    if not np.isfinite(values).any():
        return np.empty(0, np.intp)
    finite = np.where(np.isfinite(values), values, np.nan)
    return np.array([np.nanargmin(finite), np.nanargmax(finite)])


def _some(places: NDArray[np.intp], most: int) -> NDArray[np.intp]:
    """Places at equal distances, not more than `most` of them."""
    if len(places) <= most:
        return places
    return places[np.linspace(0, len(places) - 1, most).astype(np.intp)]
