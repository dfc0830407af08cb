"""The feed of a live page: one thread looks at a trace, for all browsers."""

from __future__ import annotations

import time
from collections.abc import Hashable, Mapping
from dataclasses import replace
from threading import Event
from typing import Any

import numpy as np

from ..errors import TraceError
from ..layout.hierarchy import Hierarchy
from ..messages import printable
from ..reading.moment import Moment
from ..report.content import Content
from ..report.embedded import Embedded
from ..report.finished import gather
from ..report.page import lay_out
from ..report.values import Value, View, values_of
from ..watching.follow import Seen, Watched
from ..watching.lines import duration, how_far, how_well, time_words
from ..watching.look import Gone, Look
from ..watching.watcher import Watcher
from .repeated import Repeated

Values = Mapping[str, Value]


class Shown:
    """What a page shows at one moment; the values of a view are made once for all browsers.

    Attributes
    ----------
    structure : hashable
        What the page is laid out for: one with another structure has to be laid out again.
    """

    def __init__(self, content: Content, before: Shown | None) -> None:
        self.content = content
        self._before = {} if before is None else before.views
        self.views: dict[View, Values] = {}
        values = self.values(View())
        self.structure = _structure(content, values)
        if before is not None and before.structure == self.structure:
            self._embedded: Embedded = before._embedded
        else:
            self._embedded = Embedded(lay_out(content, values))

    def values(self, view: View) -> Values:
        """The values of a view; one that has not changed is the same object as before."""
        if view not in self.views:
            old = self._before.get(view, {})
            self.views[view] = {
                name: old[name] if name in old and _same(old[name], value) else value
                for name, value in values_of(self.content, view).items()
            }
        return self.views[view]

    @property
    def places(self) -> dict[str, list[list[str]]]:
        """Where the values are in the page."""
        return self._embedded.places

    def page(self) -> dict[str, str]:
        """What the template of the page has, with the values of now."""
        return self._embedded.variables(self.values(View()))


class Live:
    """One trace that is looked at, and what a page shows of it.

    Attributes
    ----------
    shown : Shown or None
        None before it could be read for the first time.
    problem : str
        Why it could not be read; "" where it could.
    has_looked : Event
        Whether `shown` or `problem` says something.
    """

    def __init__(self, hierarchy: Hierarchy) -> None:
        self.hierarchy = hierarchy
        self.shown: Shown | None = None
        self.problem = ""
        self.has_looked = Event()
        self.looks = Repeated(self.look, self.fail)
        self._watched = Watched(hierarchy, Watcher)
        self._gathered: Content | None = None
        self._gathered_of: Hashable = None
        self._ranked_at = 0  # draws of all chains
        self._next = 0.0

    def look(self) -> None:
        """Look once."""
        seen = self._watched.look()
        # Nobody has to wait for what nobody sees.
        if isinstance(seen, Look) and (self.looks.listeners or self._gathered is None):
            self._gather(seen)
        if self._gathered is not None:
            self.shown = Shown(_with_look(self._gathered, seen, self.problem), self.shown)
        elif isinstance(seen, Gone):
            self.problem = seen.reason
        if self.shown is not None or self.problem:
            self.has_looked.set()

    def fail(self, reason: str) -> None:
        """Say that a look has failed, in a way that nobody has foreseen."""
        said = f"The run cannot be looked at: {reason}"
        if self.shown is None:
            self.problem = said
        else:
            lines = [said, "What was read last is shown."]
            self.shown = Shown(replace(self.shown.content, headlines=lines), self.shown)
        self.has_looked.set()

    def _gather(self, look: Look) -> None:
        """Read what is drawn, if there is more of it, in half of the time at most."""
        state = look.status, *(chain.draws for chain in look.chains)
        began = time.monotonic()
        if state == self._gathered_of or (began < self._next and not look.is_over):
            return
        draws = sum(chain.draws for chain in look.chains)
        # Scalars keep their places while somebody looks at them, until there are twice the draws.
        is_ranked_again = draws >= 2 * self._ranked_at
        traces = None if self._gathered is None else self._gathered.traces
        order = [] if traces is None or is_ranked_again else [one.label for one in traces.scalars]
        try:
            now = Moment.of(Hierarchy(self.hierarchy.location))
            self._gathered = gather(now, order=order, progress=False)
        except (TraceError, OSError) as error:
            self.problem = str(error)
        else:
            self.problem = ""
            self._gathered_of = state
            self._ranked_at = draws if is_ranked_again else self._ranked_at
        ended = time.monotonic()
        self._next = ended + (ended - began)


def _with_look(content: Content, seen: Seen, problem: str) -> Content:
    """The content with what a look says, in the words and numbers of `zarrtrace watch`."""
    if isinstance(seen, Gone):
        since = "" if seen.seconds < 1 else f" for {duration(seen.seconds)}"
        said = f"The run cannot be read{since}: {seen.reason}"
        return replace(content, headlines=[said, "What was read last is shown until it is back."])
    words = [f"{seen.status}, {how_far(seen)}"]
    if seen.rhat_draws and seen.values:
        words.append(how_well(seen))
    if time_words(seen):
        words.append(time_words(seen))
    notes = [*content.notes, *(note for note in seen.notes if note not in content.notes)]
    if problem:
        notes.append(printable(problem))
    headlines = ["; ".join(words), *content.headlines[1:]]
    return replace(content, headlines=headlines, chains=seen.chains, notes=notes)


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        is_float = one.dtype.kind == other.dtype.kind == "f"
        return one.dtype == other.dtype and np.array_equal(one, other, equal_nan=is_float)
    return type(one) is type(other) and bool(one == other)


def _structure(content: Content, values: Values) -> Hashable:
    """What a page is laid out for."""
    columns = tuple(
        (name, tuple(value) if isinstance(value, Mapping) else None)
        for name, value in values.items()
    )
    rows = () if content.table is None else tuple(content.table.labels)
    traces = content.traces
    of_traces = None if traces is None else (traces.burn_in, traces.x.size > 0, len(traces.scalars))
    return content.is_over, columns, rows, of_traces, tuple(content.bounds.items())
