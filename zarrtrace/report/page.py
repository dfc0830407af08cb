"""The page, laid out once: a report is this page with its data in it."""

from __future__ import annotations

from bokeh.models import Model

from . import words
from .content import Content
from .figures import distributions, energy, over_draws, pairs, text
from .table_view import build_table, join
from .trace_plots import build_traces


def build_page(content: Content) -> list[Model]:
    """The parts of a page, in their order; the tags of a part are its classes.

    A run that is over begins with its table, one that is recorded with its traces.
    """
    of_table: list[Model] = []
    of_traces: list[Model] = []
    if content.table is not None:
        view = build_table(content.table)
        of_table = [*view.roots, *distributions(content.table, content.bounds)]
    if content.traces is not None:
        plots = build_traces(content.traces)
        of_traces = plots.roots
        if content.table is not None:
            join(view, plots)
    chains = [text(words.section("Chains") + words.chains(content.chains))]
    results = (
        [*of_table, *of_traces, *chains] if content.is_over else [*chains, *of_traces, *of_table]
    )
    parts = [
        text(words.heading(content)),
        text(words.verdict(content)),
        *results,
        *over_draws(content.over_draws, content.bounds),
        *energy(content),
        *pairs(content),
        text(words.section("Run") + words.facts(content.facts)),
    ]
    if content.provenance:
        said = words.section("Provenance", "What was run, as it was stored last.")
        parts.append(text(said + words.facts(content.provenance)))
    return parts
