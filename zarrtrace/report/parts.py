"""The parts of a page that are filled with values, and figures as all of them have them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bokeh.layouts import column
from bokeh.models import ColumnDataSource, Div, Model, Range1d, Select
from bokeh.plotting import figure

from .style import INPUT_CSS, QUIET, TEXT_CSS
from .values import Value


class Parts:
    """Makes the models of a page, with values in them, and knows where each value is.

    Attributes
    ----------
    places : dict of str to list of tuple
        By the name of a value the models and their properties that have it.
    """

    def __init__(self, values: Mapping[str, Value]) -> None:
        self.values = values
        self.places: dict[str, list[tuple[Model, str]]] = {}

    def __contains__(self, name: str) -> bool:
        return name in self.values

    def _keep(self, name: str, model: Model, of: str) -> Value:
        self.places.setdefault(name, []).append((model, of))
        return self.values[name]

    def text(self, name: str, *tags: str) -> Div:
        """Words."""
        part = text("", *tags)
        part.text = self._keep(name, part, "text")
        return part

    def source(self, name: str) -> ColumnDataSource:
        """What is drawn."""
        source = ColumnDataSource()
        source.data = self._keep(name, source, "data")
        return source

    def range(self, low: str, high: str) -> Range1d:
        """The scale of an axis."""
        scale = Range1d()
        scale.start = self._keep(low, scale, "start")
        scale.end = self._keep(high, scale, "end")
        return scale

    def choice(self, title: str, options: str, value: str, name: str = "") -> Select:
        """A list to choose from, which is found by its name."""
        select = choice(title, [], value)
        select.name = name or None
        select.options = self._keep(options, select, "options")
        return select


def text(html: str, *tags: str) -> Div:
    """Words that stay as they are."""
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


def below(title: Model, plots: Sequence[Model], *tags: str) -> Model:
    """Figures below their title."""
    return column(title, *plots, sizing_mode="stretch_width", tags=list(tags))
