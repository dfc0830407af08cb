"""The feed of a report: everything that a page shows, read once, at one moment."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from ..diagnostics.frame import Style, choose_style
from ..diagnostics.progress import Progress as ProgressBar
from ..diagnostics.selection import Selection, warn_of_left_out
from ..diagnostics.statistics import Floats
from ..diagnostics.summary import compute_statistics
from ..diagnostics.transposed import Room
from ..diagnostics.verdict import STATISTICS, Verdict, diagnose, verdict_rules
from ..errors import StaleViewError, TraceError
from ..layout.layout import TABLES
from ..life.description import facts, headlines
from ..messages import counted, printable
from ..reading.moment import Moment
from ..sampling_state.block import chain_blocks, read_claims
from ..tables import provenance
from ..tables.table import Table as StoredTable
from ..watching.intake import burn_in
from ..watching.progress import Progress
from .content import Content, Table, Traces
from .drawing import Drawer, Drawing, Place

WORST = 50  # scalars that are drawn beside those that are named
_MOST_NAMED = 100
_MOST_ODD = 10  # scalars of which a note says what is odd


def gather(
    now: Moment,
    var_names: Sequence[str] = (),
    *,
    memory: float = 1e9,
    scratch: str | os.PathLike[str] | None = None,
    threads: int = 1,
    progress: bool = True,
    order: Sequence[str] = (),
) -> Content:
    """Read what a page shows of a trace, and compute what the summary and the verdict say.

    Parameters
    ----------
    var_names : sequence of str
        Variables whose scalars are always drawn.
    order : sequence of str
        Scalars that keep this order among those that are drawn, before all others.

    Raises
    ------
    VariableNotFoundError
        The posterior has no such variable.
    """
    selection: Selection | None = None
    table, verdict, why_not = None, None, ""
    with _said() as notes:
        try:
            selection = Selection(now)
            if var_names:
                Selection(now, var_names=list(var_names))
            warn_of_left_out(selection)
            style = choose_style("all", None, None, "none")
            with ProgressBar(selection.size, shown=progress) as bar:
                room = Room(memory, scratch, bar.say)
                options = {"prob": style.prob, "threads": threads, "done": bar.advance}
                statistics, of_verdict = _compute(selection, style, room, options)
            verdict = diagnose(now, statistics=of_verdict)
            labels = [label for chosen in selection.variables for label in chosen.labels]
            columns = {column: statistics[name] for column, name in style.columns.items()}
            table = Table(labels, columns, _problems(labels, verdict))
        except StaleViewError:
            raise
        except TraceError as error:
            if var_names and error.kind == "variable-not-found":
                raise
            why_not = str(error)
            selection = _of_warmup(now)
    drawer = Drawer(now)
    first = "" if verdict is None else verdict["divergent"].data.get("where", {}).get("label", "")
    places = list(_places(selection, table, var_names, first)) if selection is not None else []
    keep = {label: number for number, label in enumerate(order)}
    places.sort(key=lambda place: keep.get(place.label, len(keep)))
    drawn = drawer.draw(places) if places and drawer.shown.chains else Drawing(None, None, None)
    claims = read_claims(chain_blocks(now.location, now.layout))
    notes += [one for one in drawer.damaged.values() if not any(one in note for note in notes)]
    notes += _odd_draws(drawn.traces, set(drawer.damaged.values()))
    of_trace = f" of {now}"  # which is named above
    return Content(
        title=printable(now),
        headlines=[printable(line) for line in headlines(now)],
        findings=[] if verdict is None else verdict.findings,
        verdict=why_not.replace(of_trace, "") if verdict is None else _in_a_word(verdict),
        is_good=None if verdict is None else _is_good(verdict),
        notes=[note.replace(of_trace, "") for note in notes],
        facts=[("path", str(now)), *facts(now)],
        provenance=_provenance(now),
        chains=Progress().look(now, claims, drawer.stats(), burn_in(now.layout)),
        is_over=now.layout.finished or bool((now.counts >= now.end.draws).all()),
        table=table,
        traces=drawn.traces,
        over_draws=drawn.over_draws,
        energy=drawer.energy(),
        pairs=drawn.pairs,
        no_energy="The sampler has recorded no energy that could be drawn.",
        no_pairs=(
            "There are no draws after warmup yet."
            if drawer.says_diverging()
            else "The sampler has not recorded which draws diverged."
        ),
        bounds=_bounds(verdict),
    )


def _compute(
    selection: Selection, style: Style, room: Room, options: dict[str, Any]
) -> tuple[dict[str, Floats], dict[str, Floats]]:
    """The statistics of the summary, and those of the verdict, together where they are the same."""
    names = list(dict.fromkeys([*style.columns.values(), *STATISTICS]))
    found = compute_statistics(selection, names, room, rules=style.rules, **options)
    # In ArviZ 0.x they differ where the middle one of an odd number of draws is in no half.
    if verdict_rules() == style.rules or selection.shape[1] % 2 == 0:
        return found, found
    rules = verdict_rules()
    return found, compute_statistics(selection, STATISTICS, room, rules=rules, **options)


@contextmanager
def _said() -> Iterator[list[str]]:
    """What the summary and the verdict warn of, each once, as notes of the page."""
    notes: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield notes
    for warning in caught:
        said = str(warning.message)
        if issubclass(warning.category, RuntimeWarning):
            notes += [said] if said not in notes else []
        else:
            warnings.warn_explicit(
                warning.message, warning.category, warning.filename, warning.lineno
            )


def _odd_draws(traces: Traces | None, said: set[str]) -> list[str]:
    """What is odd about the draws of the scalars that are drawn, and not said yet."""
    scalars = [] if traces is None else traces.scalars
    odd = [f"{one.label}: {one.note}" for one in scalars if one.note and one.note not in said]
    more = len(odd) - _MOST_ODD
    return odd if more <= 0 else [*odd[:_MOST_ODD], f"{more} more are like these"]


def _of_warmup(now: Moment) -> Selection | None:
    """The variables of warmup, where there are no other draws."""
    try:
        return Selection(now, "warmup_posterior")
    except TraceError:
        return None


def _in_a_word(verdict: Verdict) -> str:
    size = f"{counted(verdict.chains, 'chain')} of {counted(verdict.draws, 'draw')}"
    if verdict.problems:
        return f"{size}: {counted(len(verdict.problems), 'problem')}"
    return f"{size}: good" if verdict.good else f"{size}: nobody can say yet whether they are good"


def _is_good(verdict: Verdict) -> bool | None:
    return verdict.good if verdict.good or verdict.problems else None


def _problems(labels: Sequence[Any], verdict: Verdict) -> list[str]:
    """What the verdict says of each scalar."""
    bad = {name: verdict[check].data.get("values", {}) for check, name in _CHECKS.items()}
    return [
        ", ".join(name for name, values in bad.items() if str(label) in values) for label in labels
    ]


_CHECKS = {"rhat": "R-hat", "ess": "ESS"}


def _bounds(verdict: Verdict | None) -> dict[str, float]:
    """The thresholds of the verdict, by check."""
    if verdict is None:
        return {}
    return {
        check: float(verdict[check].data["threshold"])
        for check in _CHECKS
        if "threshold" in verdict[check].data
    }


def _places(
    selection: Selection, table: Table | None, var_names: Sequence[str], first: str
) -> Iterator[Place]:
    """The scalars that are drawn: those that are named, the first one, then the worst ones."""
    variables = [
        (chosen, variable)
        for chosen in selection.variables
        if (variable := selection.sampled(chosen)) is not None
    ]
    named: list[Place] = []
    others: list[Place] = []
    row = {} if table is None else {label: number for number, label in enumerate(table.labels)}
    for chosen, variable in variables:
        most = _MOST_NAMED if chosen.name in var_names else 0
        scalars = zip(chosen.places.tolist(), chosen.labels, strict=True)
        for number, (element, label) in enumerate(scalars):
            place = Place(label, variable, element)
            if table is not None and label in row:
                place = _with_numbers(place, table, row[label])
            (named if number < most else others).append(place)
    yield from named
    others.sort(key=lambda place: (place.label == first, *_badness(place)), reverse=True)
    yield from others[:WORST]


def _with_numbers(place: Place, table: Table, row: int) -> Place:
    def at(name: str) -> float:
        return float(table.columns[name][row]) if name in table.columns else float("nan")

    return place._replace(
        rhat=at("r_hat"),
        ess_bulk=at("ess_bulk"),
        ess_tail=at("ess_tail"),
        is_bad=bool(table.problems[row]),
    )


def _badness(place: Place) -> tuple[bool, float, float]:
    """A larger one is worse; one without numbers is not bad."""
    rhat = -np.inf if np.isnan(place.rhat) else place.rhat
    ess = min(place.ess_bulk, place.ess_tail)
    return place.is_bad, rhat, -np.inf if np.isnan(ess) else -ess


def _provenance(now: Moment) -> list[tuple[str, str]]:
    """What was run, as it was stored last."""
    location = now.location.below(f"{TABLES}/{provenance.TABLE}")
    if not location.exists("zarr.json"):
        return []
    try:
        found = provenance.last(StoredTable(location), provenance.COLUMNS)
    except TraceError as error:
        return [("provenance", str(error))]
    packages = found.pop("packages", None)
    rows = [(name, _as_text(value)) for name, value in found.items() if value not in ("", None)]
    if isinstance(packages, dict):
        rows.append(("packages", ", ".join(f"{key} {packages[key]}" for key in packages)))
    return rows


def _as_text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else str(value)
