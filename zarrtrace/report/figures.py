"""Figures as all parts of a page have them, and those that stand alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from bokeh.layouts import column
from bokeh.models import (
    ColumnDataSource,
    CustomJS,
    Div,
    HoverTool,
    Model,
    Select,
    Span,
)
from bokeh.plotting import figure

from ..messages import printable
from . import words
from .content import Content, Energy, Floats, OverDraws, Pairs, Table
from .style import BAD, GOOD, INPUT_CSS, QUIET, TEXT_CSS

_PAIR = "shown.data = {...shown.data, x: all.data[x.value], y: all.data[y.value]}"


def text(html: str, *tags: str) -> Div:
    """Words of a page."""
    return Div(
        text=html,
        disable_math=True,
        sizing_mode="stretch_width",
        stylesheets=[TEXT_CSS],
        tags=list(tags),
    )


def choice(title: str, options: Sequence[tuple[str, str]], value: str) -> Select:
    """A list to choose from."""
    return Select(
        title=title, options=list(options), value=value, stylesheets=[INPUT_CSS], max_width=420,
        sizing_mode="stretch_width",
    )  # fmt: skip


def plain_figure(height: int, tools: str = "", **options: Any) -> Any:
    """A figure whose colours are seen on white and on black."""
    plot = figure(
        height=height,
        sizing_mode="stretch_width",
        min_width=140,
        tools=tools,
        background_fill_alpha=0,
        border_fill_alpha=0,
        outline_line_color=None,
        **options,
    )
    if not tools:
        plot.toolbar_location = None
    plot.toolbar.logo = None
    plot.toolbar.autohide = True
    plot.axis.axis_line_color = plot.axis.major_tick_line_color = QUIET
    plot.axis.minor_tick_line_color = None
    plot.axis.major_label_text_color = plot.axis.axis_label_text_color = QUIET
    plot.axis.axis_label_text_font_style = "normal"
    plot.grid.grid_line_color = QUIET
    plot.grid.grid_line_alpha = 0.2
    return plot


def with_title(title: str, plot: Model, *tags: str) -> Model:
    """A figure below its title."""
    return column(text(title), plot, sizing_mode="stretch_width", tags=list(tags))


# How all scalars do ------------------------------------------------------------------------------


def distributions(table: Table, bounds: dict[str, float]) -> list[Model]:
    """How R-hat and ESS of all scalars are distributed."""
    ess = np.fmin(table.columns["ess_bulk"], table.columns["ess_tail"])
    shown = (("R-hat", table.columns["r_hat"], "rhat"), ("ESS", ess, "ess"))
    parts = []
    for name, values, check in shown:
        finite = values[np.isfinite(values)]
        if not finite.size:
            continue
        title = f"<p>{name} of {len(finite):,} scalars</p>"
        parts.append(with_title(title, _histogram(finite, bounds.get(check)), "half"))
    return parts


def _histogram(values: Floats, bound: float | None) -> Any:
    plot = plain_figure(150)
    low, high = float(values.min()), float(values.max())
    if bound is not None:
        low, high = min(low, bound), max(high, bound)
    counts, edges = np.histogram(values, bins=min(40, 10 + len(values)), range=(low, high))
    plot.quad(
        top=counts.tolist(), bottom=0, left=edges[:-1].tolist(), right=edges[1:].tolist(),
        fill_color=GOOD, line_color=None, fill_alpha=0.8,
    )  # fmt: skip
    if bound is not None:
        plot.add_layout(_bound(bound, "height"))
    plot.y_range.start = 0
    return plot


def _bound(place: float, dimension: str) -> Span:
    return Span(location=place, dimension=dimension, line_color=BAD, line_dash="dashed")


def over_draws(over: OverDraws | None, bounds: dict[str, float]) -> list[Model]:
    """R-hat and ESS of more and more draws."""
    if over is None:
        return []
    parts: list[Model] = [text(words.section("R-hat and ESS over draws", words.over_draws(over)))]
    for name, values, check in (("R-hat", over.rhat, "rhat"), ("ESS", over.ess, "ess")):
        plot = plain_figure(260, "box_zoom,reset", x_axis_label="draws of each chain after warmup")
        source = ColumnDataSource(
            {
                "x": [over.draws for _ in over.labels],
                "y": [values[:, number].tolist() for number in range(len(over.labels))],
                "label": list(map(printable, over.labels)),
                "colour": [BAD if is_bad else GOOD for is_bad in over.is_bad],
            }
        )
        lines = plot.multi_line("x", "y", source=source, line_color="colour", line_alpha=0.75)
        plot.add_tools(HoverTool(tooltips=[("", "@label")], renderers=[lines]))
        if check in bounds:
            plot.add_layout(_bound(bounds[check], "width"))
        parts.append(with_title(f"<p>{name}</p>", plot, "half"))
    return parts


# What the sampler says ---------------------------------------------------------------------------


def energy(content: Content) -> list[Model]:
    """How energies are distributed, and how they change."""
    found = content.energy
    if found is None:
        return [text(words.section("Energy", content.no_energy))]
    says = (
        "Blue: the energies, around their mean. Red: how they change from one draw to the next. "
        "Where red is much narrower, the sampler does not reach all energies."
    )
    return [text(words.section("Energy", says)), with_title("", _energies(found), "half")]


def _energies(found: Energy) -> Any:
    plot = plain_figure(220)
    for heights, colour in ((found.marginal, GOOD), (found.transitions, BAD)):
        centres = found.centres.tolist()
        plot.varea(centres, heights.tolist(), 0, fill_color=colour, fill_alpha=0.25)
        plot.line(centres, heights.tolist(), line_color=colour)
    plot.y_range.start = 0
    plot.yaxis.visible = False
    return plot


def pairs(content: Content) -> list[Model]:
    """Draws in parameter space, with those that diverged."""
    found = content.pairs
    title = "Divergences in parameter space"
    if found is None:
        return [text(words.section(title, words.escape(content.no_pairs)))]
    return [text(words.section(title, words.escape(found.says))), _scatter(found)]


def _scatter(found: Pairs) -> Model:
    data = {str(number): values for number, values in enumerate(found.values)}
    every = ColumnDataSource(data)
    first, second = "0", str(min(1, len(found.labels) - 1))
    shown = ColumnDataSource(
        {
            "x": data[first],
            "y": data[second],
            "colour": np.where(found.is_diverging, BAD, GOOD).tolist(),
            "alpha": np.where(found.is_diverging, 0.9, 0.3).astype(np.float32),
            "size": np.where(found.is_diverging, 6, 4).astype(np.float32),
        }
    )
    plot = plain_figure(420, "box_zoom,reset")
    plot.scatter(
        "x", "y", source=shown, color="colour", alpha="alpha", size="size", line_color=None
    )
    options = [(str(number), printable(label)) for number, label in enumerate(found.labels)]
    x, y = choice("x", options, first), choice("y", options, second)
    turn = CustomJS(args={"shown": shown, "all": every, "x": x, "y": y}, code=_PAIR)
    for one in (x, y):
        one.js_on_change("value", turn)
    return column(x, y, plot, sizing_mode="stretch_width", tags=["half"])
