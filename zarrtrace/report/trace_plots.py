"""Traces and rank plots: some scalars at a time, those that are named and the worst ones first."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from bokeh.layouts import column
from bokeh.models import BoxAnnotation, Line, Model, Scatter, Select, Span, Step

from . import words
from .content import Traces
from .parts import Parts, below, plain_figure, text
from .style import BAD, LINES, QUIET
from .values import SLOTS


class TracePlots(NamedTuple):
    """The traces and the rank plots of a page.

    Attributes
    ----------
    select : Select
        Which scalar is drawn first, as text.
    """

    roots: list[Model]
    select: Select


def build_traces(traces: Traces, parts: Parts) -> TracePlots:
    """Lay out the traces and the rank plots."""
    slots = range(min(SLOTS, len(traces.scalars)))
    select = parts.choice("Show", "trace choices", "0", name="first")
    heading: list[Model] = [parts.text("traces")]
    if len(traces.scalars) > SLOTS:
        heading.append(select)
    of_ranks = words.section(
        "Ranks",
        "Ranks among the draws of all chains. Lines near 1 everywhere say that the chains agree.",
    )
    roots = [
        column(*heading, sizing_mode="stretch_width"),
        *(_trace(slot, traces, parts) for slot in slots),
        text(of_ranks),
        *(_ranks(slot, traces, parts) for slot in slots),
    ]
    return TracePlots(roots, select)


def _trace(slot: int, traces: Traces, parts: Parts) -> Model:
    plot = plain_figure(170, y_range=parts.range(f"low {slot}", f"high {slot}"))
    plot.x_range.range_padding = 0
    if traces.x.size and traces.burn_in > traces.x[0]:
        plot.add_layout(BoxAnnotation(right=traces.burn_in - 0.5, fill_color=QUIET, fill_alpha=0.2))
    lines, source = range(len(traces.lines)), parts.source(f"trace {slot}")
    width = 1.0 if len(lines) <= 4 else 0.7
    for line in lines:
        drawn = Line(
            x="x", y=f"y{line}", line_color=LINES[line % len(LINES)], line_alpha=0.8,
            line_width=width,
        )  # fmt: skip
        plot.add_glyph(source, drawn)
    rug = Scatter(x="x", y="y", marker="dash", angle=np.pi / 2, size=9, line_color=BAD)
    plot.add_glyph(parts.source(f"rug {slot}"), rug)
    return below(parts.text(f"title {slot}"), [plot], "half")


def _ranks(slot: int, traces: Traces, parts: Parts) -> Model:
    plot, source = plain_figure(120), parts.source(f"ranks {slot}")
    for line in range(len(traces.lines)):
        colour = LINES[line % len(LINES)]
        plot.add_glyph(source, Step(x="x", y=f"y{line}", mode="after", line_color=colour))
    plot.add_layout(Span(location=1, dimension="width", line_color=QUIET, line_dash="dashed"))
    plot.y_range.start = 0
    plot.xaxis.visible = False
    return below(parts.text(f"name {slot}"), [plot], "quarter")
