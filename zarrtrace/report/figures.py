"""The figures of a page that stand alone."""

from __future__ import annotations

from typing import Any

from bokeh.layouts import column
from bokeh.models import HoverTool, Model, Select, Span

from .parts import Parts, below, plain_figure, text
from .style import BAD, GOOD

_CHECKS = {"R-hat": "rhat", "ESS": "ess"}


def distributions(parts: Parts, bounds: dict[str, float]) -> list[Model]:
    """How R-hat and ESS of all scalars are distributed."""
    return [
        below(parts.text(f"{name} of all says"), [_histogram(parts, name, bounds)], "half")
        for name in _CHECKS
        if f"{name} of all" in parts
    ]


def _histogram(parts: Parts, name: str, bounds: dict[str, float]) -> Any:
    plot = plain_figure(150)
    plot.quad(
        top="top", bottom=0, left="left", right="right", source=parts.source(f"{name} of all"),
        fill_color=GOOD, line_color=None, fill_alpha=0.8,
    )  # fmt: skip
    if _CHECKS[name] in bounds:
        plot.add_layout(_bound(bounds[_CHECKS[name]], "height"))
    plot.y_range.start = 0
    return plot


def _bound(place: float, dimension: str) -> Span:
    return Span(location=place, dimension=dimension, line_color=BAD, line_dash="dashed")


def over_draws(parts: Parts, bounds: dict[str, float]) -> list[Model]:
    """R-hat and ESS of more and more draws."""
    if "over draws" not in parts:
        return []
    found: list[Model] = [parts.text("over draws")]
    for name, check in _CHECKS.items():
        plot = plain_figure(260, "box_zoom,reset", x_axis_label="draws of each chain after warmup")
        source = parts.source(f"{name} over draws")
        lines = plot.multi_line("x", "y", source=source, line_color="colour", line_alpha=0.75)
        plot.add_tools(HoverTool(tooltips=[("", "@label")], renderers=[lines]))
        if check in bounds:
            plot.add_layout(_bound(bounds[check], "width"))
        what = "The smaller ESS of bulk and tails" if name == "ESS" else name
        found.append(below(text(f"<p>{what}</p>"), [plot], "half"))
    return found


def energy(parts: Parts) -> list[Model]:
    """How energies are distributed, and how they change."""
    says = parts.text("energy")
    if "energies" not in parts:
        return [says]
    plot = plain_figure(220)
    source = parts.source("energies")
    for heights, colour in (("marginal", GOOD), ("transitions", BAD)):
        plot.varea("x", heights, 0, source=source, fill_color=colour, fill_alpha=0.25)
        plot.line("x", heights, source=source, line_color=colour)
    plot.y_range.start = 0
    plot.yaxis.visible = False
    return [says, below(text(""), [plot], "half")]


def pairs(parts: Parts) -> tuple[list[Model], list[Select]]:
    """Draws in parameter space, with those that diverged, and the choices of x and y."""
    says = parts.text("pairs")
    if "points" not in parts:
        return [says], []
    plot = plain_figure(420, "box_zoom,reset")
    plot.scatter(
        "x", "y", source=parts.source("points"), color="colour", alpha="alpha", size="size",
        line_color=None,
    )  # fmt: skip
    options = parts.values["pair choices"]
    second = str(min(1, len(options) - 1)) if isinstance(options, list) else "0"
    choices = [
        parts.choice(name, "pair choices", value, name=name)
        for name, value in (("x", "0"), ("y", second))
    ]
    drawn = column(*choices, plot, sizing_mode="stretch_width", tags=["half"])
    return [says, drawn], choices
