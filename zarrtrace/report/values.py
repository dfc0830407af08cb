"""What a page shows, as plain values by the name of the part that shows them.

A page is laid out with these values in it; a live page fills its parts with newer ones.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..messages import counted, printable
from . import words
from .content import Content, DrawnScalar, Energy, Floats, OverDraws, Pairs, Table, Traces
from .style import BAD, GOOD

SLOTS = 8  # scalars that are drawn at the same time

# Text as HTML, options of a choice, a number, or the columns of a source of data.
Value = str | float | list[tuple[str, str]] | dict[str, Any]


class View(NamedTuple):
    """What somebody has chosen to look at.

    Attributes
    ----------
    first : int
        The first scalar whose trace is drawn.
    x, y : int
        The scalars that are drawn as pairs.
    """

    first: int = 0
    x: int = 0
    y: int = 1


def values_of(content: Content, view: View) -> dict[str, Value]:
    """Everything that a page shows, by the names of its parts."""
    values: dict[str, Value] = {
        "heading": words.heading(content),
        "verdict": words.verdict(content),
        "chains": words.section("Chains") + words.chains(content.chains),
        "facts": words.section("Run") + words.facts(content.facts),
    }
    if content.provenance:
        said = words.section("Provenance", "What was run, as it was stored last.")
        values["provenance"] = said + words.facts(content.provenance)
    if content.table is not None:
        values |= _table(content.table, content.bounds)
    if content.traces is not None:
        values |= _traces(content.traces, view.first)
    if content.over_draws is not None:
        values |= _over_draws(content.over_draws)
    values |= _energy(content.energy, content.no_energy)
    values |= _pairs(content.pairs, content.no_pairs, view)
    return values


def _table(table: Table, bounds: dict[str, float]) -> dict[str, Value]:
    number, bad = len(table.labels), sum(map(bool, table.problems))
    values: dict[str, Value] = {
        "table": {
            "name": list(map(printable, table.labels)),
            "problems": table.problems,
            **{f"number{place}": _short(one) for place, one in enumerate(table.columns.values())},
        },
        "table choices": [("all", f"all {number:,}"), ("bad", f"{bad:,} with a problem")],
    }
    ess = np.fmin(table.columns["ess_bulk"], table.columns["ess_tail"])
    for name, what, all_of_them, check in (
        ("R-hat", "R-hat", table.columns["r_hat"], "rhat"),
        ("ESS", "The smaller ESS of bulk and tails", ess, "ess"),
    ):
        finite = all_of_them[np.isfinite(all_of_them)]
        if finite.size:
            values[f"{name} of all"] = _histogram(finite, bounds.get(check))
            values[f"{name} of all says"] = f"<p>{what}, of {counted(len(finite), 'scalar')}</p>"
    return values


def _short(numbers: NDArray[Any]) -> NDArray[Any]:
    """The numbers as float32, which has more digits than are shown, where they have room."""
    with np.errstate(over="ignore"):
        short = numbers.astype(np.float32)
    return short if np.array_equal(np.isfinite(short), np.isfinite(numbers)) else numbers


def _histogram(values: Floats, bound: float | None) -> dict[str, Any]:
    low, high = float(values.min()), float(values.max())
    if bound is not None:
        low, high = min(low, bound), max(high, bound)
    counts, edges = np.histogram(values, bins=min(40, 10 + len(values)), range=(low, high))
    return {"top": counts.tolist(), "left": edges[:-1].tolist(), "right": edges[1:].tolist()}


# Traces -----------------------------------------------------------------------------------------


def _traces(traces: Traces, first: int) -> dict[str, Value]:
    marks = "Warmup is shaded and left out of the scale."
    if len(traces.divergences):
        marks += " Red marks at the bottom are draws that diverged."
    values: dict[str, Value] = {
        "traces": words.section("Traces", marks) + words.key_to_lines(traces.lines),
        "trace choices": _choices_of_traces(traces.scalars),
        "trace labels": {"name": traces.labels},
    }
    for slot in range(min(SLOTS, len(traces.scalars))):
        number = first + slot
        scalar = traces.scalars[number] if number < len(traces.scalars) else None
        values |= {f"{name} {slot}": one for name, one in _slot(traces, scalar).items()}
    return values


def _slot(traces: Traces, scalar: DrawnScalar | None) -> dict[str, Value]:
    """The trace of one scalar; nothing where there are no more of them."""
    lines = range(len(traces.lines))
    if scalar is None:
        gap = np.full(len(traces.x), np.nan, np.float32)
        steps: Floats = np.full((len(lines), 2), np.nan)
        points, low, high, rug, title, name = [gap for _ in lines], 0.0, 1.0, np.nan, "", ""
    else:
        points, steps = scalar.lines, rank_lines(scalar, len(lines))
        low, high, rug = scale(scalar)
        title, name = words.scalar(scalar), words.name_of(scalar)
    return {
        "trace": {"x": traces.x, **{f"y{line}": points[line] for line in lines}},
        "ranks": {
            "x": np.linspace(0, 1, steps.shape[1], dtype=np.float32),
            **{f"y{line}": steps[line] for line in lines},
        },
        "rug": {
            "x": traces.divergences,
            "y": np.full(len(traces.divergences), rug),
        },
        "title": title,
        "name": name,
        "low": low,
        "high": high,
    }


def scale(scalar: DrawnScalar) -> tuple[float, float, float]:
    """The lowest and the highest of a plot, with some room, and where the red marks are."""
    room = 0.06 * (scalar.high - scalar.low) or max(1e-9, 0.01 * abs(scalar.high))
    return scalar.low - 2 * room, scalar.high + room, scalar.low - 1.5 * room


def rank_lines(scalar: DrawnScalar, lines: int, bins: int = 1) -> Floats:
    """The steps of each line; the last one is drawn twice to have an end."""
    ranks = scalar.ranks if len(scalar.ranks) else np.full((lines, bins), np.nan)
    return np.concatenate([ranks, ranks[:, -1:]], axis=1).astype(np.float32)


def _choices_of_traces(scalars: list[DrawnScalar]) -> list[tuple[str, str]]:
    return [
        (
            str(first),
            f"{first + 1} to {min(first + SLOTS, len(scalars))} of {len(scalars)}: "
            f"{words.shortened(scalars[first].label)}, ...",
        )
        for first in range(0, len(scalars), SLOTS)
    ]


# What is drawn of all draws ---------------------------------------------------------------------


def _over_draws(over: OverDraws) -> dict[str, Value]:
    says = words.section("R-hat and ESS over draws", words.over_draws(over))
    values: dict[str, Value] = {"over draws": says}
    for name, numbers in (("R-hat", over.rhat), ("ESS", over.ess)):
        values[f"{name} over draws"] = {
            "x": [over.draws for _ in over.labels],
            "y": [numbers[:, number].tolist() for number in range(len(over.labels))],
            "label": list(map(printable, over.labels)),
            "colour": [BAD if is_bad else GOOD for is_bad in over.is_bad],
        }
    return values


def _energy(found: Energy | None, why_not: str) -> dict[str, Value]:
    if found is None:
        return {"energy": words.section("Energy", why_not)}
    says = (
        "Blue: the energies, around their mean. Red: how they change from one draw to the next. "
        "Where red is much narrower, the sampler does not reach all energies."
    )
    drawn = {
        "x": found.centres.tolist(),
        "marginal": found.marginal.tolist(),
        "transitions": found.transitions.tolist(),
    }
    return {"energy": words.section("Energy", says), "energies": drawn}


def _pairs(found: Pairs | None, why_not: str, view: View) -> dict[str, Value]:
    title = "Divergences in parameter space"
    if found is None:
        return {"pairs": words.section(title, words.escape(why_not))}
    last = len(found.labels) - 1
    return {
        "pairs": words.section(title, words.escape(found.says)),
        "pair choices": [(str(place), printable(one)) for place, one in enumerate(found.labels)],
        "points": {
            "x": found.values[min(view.x, last)],
            "y": found.values[min(view.y, last)],
            "colour": np.where(found.is_diverging, BAD, GOOD).tolist(),
            "alpha": np.where(found.is_diverging, 0.9, 0.3).astype(np.float32),
            "size": np.where(found.is_diverging, 6, 4).astype(np.float32),
        },
    }
