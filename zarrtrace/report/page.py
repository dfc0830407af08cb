"""The page, laid out once: a report has its data in it, a live page is filled again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from bokeh.models import Model, Select

from .content import Content
from .figures import distributions, energy, over_draws, pairs
from .parts import Parts
from .table_view import build_table, join
from .trace_plots import build_traces
from .values import Value


class Page(NamedTuple):
    """The models of a page.

    Attributes
    ----------
    roots : list of Model
        The parts, in their order; the tags of a part are its classes.
    places : dict of str to list of tuple
        By the name of a value the models and their properties that have it.
    of_traces : Select or None
        The choice of the scalars whose traces are drawn.
    of_pairs : list of Select
        The choices of the scalars that are drawn as pairs: x and y, or none.
    """

    roots: list[Model]
    places: dict[str, list[tuple[Model, str]]]
    of_traces: Select | None
    of_pairs: list[Select]


def lay_out(content: Content, values: Mapping[str, Value]) -> Page:
    """Lay out a page with the values of a content.

    A run that is over begins with its table, one that is recorded with its traces.
    """
    parts = Parts(values)
    of_table: list[Model] = []
    of_traces: list[Model] = []
    select: Select | None = None
    if content.table is not None:
        view = build_table(content.table, parts)
        of_table = [*view.roots, *distributions(parts, content.bounds)]
    if content.traces is not None:
        plots = build_traces(content.traces, parts)
        of_traces, select = plots.roots, plots.select
        if content.table is not None:
            join(view, plots, parts)
    chains = [parts.text("chains")]
    results = (
        [*of_table, *of_traces, *chains] if content.is_over else [*chains, *of_traces, *of_table]
    )
    of_pairs, choices = pairs(parts)
    roots = [
        parts.text("heading"),
        parts.text("verdict"),
        *results,
        *over_draws(parts, content.bounds),
        *energy(parts),
        *of_pairs,
        parts.text("facts"),
    ]
    if "provenance" in values:
        roots.append(parts.text("provenance"))
    return Page(roots, parts.places, select, choices)


def build_report(content: Content, values: Mapping[str, Value]) -> Page:
    """The page of a report: whatever can be chosen is in it."""
    from .offline import with_all_pairs, with_all_traces

    page = lay_out(content, values)
    if content.traces is not None:
        with_all_traces(page, content.traces)
    if content.pairs is not None:
        with_all_pairs(page, content.pairs)
    return page
