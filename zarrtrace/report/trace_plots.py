"""Traces and rank plots: some scalars at a time, those that are named and the worst ones first."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from bokeh.core.properties import value
from bokeh.layouts import column
from bokeh.models import (
    BoxAnnotation,
    ColumnDataSource,
    CustomJS,
    Div,
    Model,
    Range1d,
    Select,
    Span,
)

from ..messages import printable
from . import words
from .content import DrawnScalar, Floats, Traces
from .figures import choice, plain_figure, text
from .style import BAD, LINES, QUIET

SLOTS = 8  # scalars that are drawn at the same time

# Page after page, what is drawn comes from the columns of all scalars.
_TURN = """
const none = (like) => like.map(() => NaN)
slots.forEach(([trace, ranks, title, rank_title, range, rug], slot) => {
  const number = Number(select.value) * slots.length + slot
  const is_shown = number < meta.data.title.length
  const [lines, bins] = [{x: all.data.x}, {x: all_ranks.data.x}]
  for (let line = 0; line < count; line++) {
    lines[`y${line}`] = is_shown ? all.data[`${number}:${line}`] : none(lines.x)
    bins[`y${line}`] = is_shown ? all_ranks.data[`${number}:${line}`] : none(bins.x)
  }
  trace.data = lines
  ranks.data = bins
  title.text = is_shown ? meta.data.title[number] : ""
  rank_title.text = is_shown ? meta.data.name[number] : ""
  if (is_shown) range.setv({start: meta.data.low[number], end: meta.data.high[number]})
  rug.y = {value: is_shown ? meta.data.rug[number] : NaN}
})
"""


class TracePlots(NamedTuple):
    """The traces and the rank plots of a page.

    Attributes
    ----------
    meta : ColumnDataSource
        A row for each scalar: its label, title and scale.
    select : Select
        Which of them are drawn.
    """

    roots: list[Model]
    meta: ColumnDataSource
    select: Select


class _Slot(NamedTuple):
    """A place for a scalar: its trace and its rank plot."""

    trace: ColumnDataSource
    ranks: ColumnDataSource
    title: Div
    rank_title: Div
    y_range: Range1d
    rug: Any
    trace_part: Model
    rank_part: Model


def build_traces(traces: Traces) -> TracePlots:
    """Lay out the traces and the rank plots, and draw the first scalars."""
    meta = ColumnDataSource(_describe(traces.scalars))
    every = ColumnDataSource({"x": traces.x, **_columns([s.lines for s in traces.scalars])})
    bins = max((scalar.ranks.shape[1] for scalar in traces.scalars), default=1)
    ranks = [_rank_lines(scalar, len(traces.lines), bins) for scalar in traces.scalars]
    every_ranks = ColumnDataSource(
        {"x": np.linspace(0, 1, bins + 1, dtype=np.float32), **_columns(ranks)}
    )
    divergences = ColumnDataSource({"x": traces.divergences})
    slots = [
        _make_slot(number, traces, (every, every_ranks, meta, divergences))
        for number in range(min(SLOTS, len(traces.scalars)))
    ]
    select = choice("Show", _pages(traces.scalars), "0")
    turn = CustomJS(
        args={
            "select": select, "all": every, "all_ranks": every_ranks, "meta": meta,
            "slots": [list(slot[:6]) for slot in slots], "count": len(traces.lines),
        },
        code=_TURN,
    )  # fmt: skip
    select.js_on_change("value", turn)
    marks = "Warmup is shaded and left out of the scale."
    if len(traces.divergences):
        marks += " Red marks at the bottom are draws that diverged."
    heading = [text(words.section("Traces", marks) + words.key_to_lines(traces.lines))]
    if len(traces.scalars) > SLOTS:
        heading.append(select)
    of_ranks = words.section(
        "Ranks",
        "Ranks among the draws of all chains. Lines near 1 everywhere say that the chains agree.",
    )
    roots = [
        column(*heading, sizing_mode="stretch_width"),
        *(slot.trace_part for slot in slots),
        text(of_ranks),
        *(slot.rank_part for slot in slots),
    ]
    return TracePlots(roots, meta, select)


def _columns(lines: list[Any]) -> dict[str, Any]:
    return {
        f"{number}:{line}": points
        for number, of_scalar in enumerate(lines)
        for line, points in enumerate(of_scalar)
    }


def _describe(scalars: list[DrawnScalar]) -> dict[str, Any]:
    """What is said of each scalar, and its scale with some room."""
    rooms = [0.06 * (one.high - one.low) or max(1e-9, 0.01 * abs(one.high)) for one in scalars]
    return {
        "label": [printable(one.label) for one in scalars],
        "title": [words.scalar(one) for one in scalars],
        "name": [f'<p class="name">{words.escape(one.label)}</p>' for one in scalars],
        "low": [one.low - 2 * room for one, room in zip(scalars, rooms, strict=True)],
        "high": [one.high + room for one, room in zip(scalars, rooms, strict=True)],
        "rug": [one.low - 1.5 * room for one, room in zip(scalars, rooms, strict=True)],
    }


def _rank_lines(scalar: DrawnScalar, lines: int, bins: int) -> Floats:
    """The steps of each line; the last one is drawn twice to have an end."""
    ranks = scalar.ranks if len(scalar.ranks) else np.full((lines, bins), np.nan)
    return np.concatenate([ranks, ranks[:, -1:]], axis=1).astype(np.float32)


def _pages(scalars: list[DrawnScalar]) -> list[tuple[str, str]]:
    pages = range(0, len(scalars), SLOTS)
    return [
        (
            str(page),
            f"{first + 1} to {min(first + SLOTS, len(scalars))} of {len(scalars)}: "
            f"{words.shortened(scalars[first].label)}, ...",
        )
        for page, first in enumerate(pages)
    ]


def _make_slot(number: int, traces: Traces, sources: tuple[ColumnDataSource, ...]) -> _Slot:
    every, every_ranks, meta, divergences = sources
    lines = range(len(traces.lines))
    trace, ranks = (
        ColumnDataSource(
            {
                "x": source.data["x"],
                **{f"y{line}": source.data[f"{number}:{line}"] for line in lines},
            }
        )
        for source in (every, every_ranks)
    )
    title, name = text(meta.data["title"][number]), text(meta.data["name"][number])
    y_range = Range1d(meta.data["low"][number], meta.data["high"][number])
    plot = plain_figure(170, y_range=y_range)
    plot.x_range.range_padding = 0
    if traces.x.size and traces.burn_in > traces.x[0]:
        plot.add_layout(BoxAnnotation(right=traces.burn_in - 0.5, fill_color=QUIET, fill_alpha=0.2))
    widths = 1.0 if len(traces.lines) <= 4 else 0.7
    for line in lines:
        plot.line(
            "x", f"y{line}", source=trace, line_color=LINES[line % len(LINES)], line_alpha=0.8,
            line_width=widths,
        )  # fmt: skip
    rug = plot.scatter(
        "x", value(meta.data["rug"][number]), source=divergences, marker="dash", angle=np.pi / 2,
        size=9, line_color=BAD,
    )  # fmt: skip
    steps = plain_figure(120)
    for line in lines:
        steps.step("x", f"y{line}", source=ranks, mode="after", line_color=LINES[line % len(LINES)])
    steps.add_layout(Span(location=1, dimension="width", line_color=QUIET, line_dash="dashed"))
    steps.y_range.start = 0
    steps.xaxis.visible = False
    return _Slot(
        trace, ranks, title, name, y_range, rug.glyph,
        column(title, plot, sizing_mode="stretch_width", tags=["half"]),
        column(name, steps, sizing_mode="stretch_width", tags=["quarter"]),
    )  # fmt: skip
