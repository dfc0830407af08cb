"""What can be chosen in a report, and how it is drawn then: it is all in the file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from bokeh.models import ColumnDataSource, CustomJS

from . import words
from .content import Pairs, Traces
from .values import SLOTS, rank_lines, scale

if TYPE_CHECKING:
    from .page import Page

# What is drawn comes from the columns of all scalars.
_TURN = """
const none = (like) => like.map(() => NaN)
slots.forEach(([trace, ranks, rug, title, name, range], slot) => {
  const number = Number(select.value) + slot
  const is_shown = number < meta.data.title.length
  const [lines, bins] = [{x: all.data.x}, {x: all_ranks.data.x}]
  for (let line = 0; line < count; line++) {
    lines[`y${line}`] = is_shown ? all.data[`${number}:${line}`] : none(lines.x)
    bins[`y${line}`] = is_shown ? all_ranks.data[`${number}:${line}`] : none(bins.x)
  }
  trace.data = lines
  ranks.data = bins
  rug.data = {x: rug.data.x, y: rug.data.x.map(() => is_shown ? meta.data.rug[number] : NaN)}
  title.text = is_shown ? meta.data.title[number] : ""
  name.text = is_shown ? meta.data.name[number] : ""
  if (is_shown) range.setv({start: meta.data.low[number], end: meta.data.high[number]})
})
"""

_PAIR = "shown.data = {...shown.data, x: all.data[x.value], y: all.data[y.value]}"


def with_all_traces(page: Page, traces: Traces) -> None:
    """Put the traces and ranks of all scalars into a page, to be chosen from."""
    if page.of_traces is None or len(traces.scalars) <= SLOTS:
        return
    bins = max((scalar.ranks.shape[1] for scalar in traces.scalars), default=1)
    ranks = [rank_lines(scalar, len(traces.lines), bins) for scalar in traces.scalars]
    x = np.linspace(0, 1, bins + 1, dtype=np.float32)
    scales = [scale(scalar) for scalar in traces.scalars]
    meta = {
        "title": list(map(words.scalar, traces.scalars)),
        "name": list(map(words.name_of, traces.scalars)),
        **{
            name: [one[place] for one in scales]
            for place, name in enumerate(("low", "high", "rug"))
        },
    }
    filled = ("trace", "ranks", "rug", "title", "name", "low")
    slots = [[page.places[f"{part} {slot}"][0][0] for part in filled] for slot in range(SLOTS)]
    turn = CustomJS(
        args={
            "select": page.of_traces,
            "all": ColumnDataSource({"x": traces.x, **_columns([s.lines for s in traces.scalars])}),
            "all_ranks": ColumnDataSource({"x": x, **_columns(ranks)}),
            "meta": ColumnDataSource(meta),
            "slots": slots,
            "count": len(traces.lines),
        },
        code=_TURN,
    )
    page.of_traces.js_on_change("value", turn)


def _columns(lines: list[Any]) -> dict[str, Any]:
    return {
        f"{number}:{line}": points
        for number, of_scalar in enumerate(lines)
        for line, points in enumerate(of_scalar)
    }


def with_all_pairs(page: Page, found: Pairs) -> None:
    """Put the points of all scalars into a page, to be chosen from."""
    [(shown, _)] = page.places["points"]
    x, y = page.of_pairs
    every = ColumnDataSource({str(number): values for number, values in enumerate(found.values)})
    turn = CustomJS(args={"shown": shown, "all": every, "x": x, "y": y}, code=_PAIR)
    for choice in page.of_pairs:
        choice.js_on_change("value", turn)
