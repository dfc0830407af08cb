"""The table of a summary: every scalar, sorted by a click, filtered by name and by badness."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from bokeh.layouts import row
from bokeh.models import (
    CDSView,
    ColumnDataSource,
    CustomJS,
    DataTable,
    HTMLTemplateFormatter,
    IndexFilter,
    Model,
    StringFormatter,
    TableColumn,
    TextInput,
)

from . import words
from .content import Table
from .parts import Parts, text
from .style import INPUT_CSS, TABLE_CSS
from .trace_plots import TracePlots
from .values import SLOTS

_FILTER = """
const wanted = name.value_input.toLowerCase()
const indices = []
source.data.name.forEach((label, row) => {
  const is_shown = which.value == "all" || source.data.problems[row] != ""
  if (is_shown && label.toLowerCase().includes(wanted)) indices.push(row)
})
view.filter.indices = indices
said.text = `<p class="soft">${indices.length} of ${source.data.name.length} scalars</p>`
"""

_GO_TO = """
const row = source.selected.indices[0]
const number = row == null ? -1 : labels.data.name.indexOf(source.data.name[row])
if (number >= 0) select.value = String(slots * Math.floor(number / slots))
"""

# Only numbers come through these.
_NUMBER = '<%= value == null || isNaN(value) ? "-" : isFinite(value) ? {} : value %>'
_WHOLE = _NUMBER.format('Math.floor(value).toLocaleString("en-US")')
_THREE = _NUMBER.format("value.toFixed(3)")
_DIGITS = _NUMBER.format("String(+value.toPrecision(4))")


class TableView(NamedTuple):
    """The table and what filters it."""

    roots: list[Model]
    source: ColumnDataSource


def build_table(table: Table, parts: Parts) -> TableView:
    """Lay out the table, with all scalars in their order."""
    source = parts.source("table")
    columns = [TableColumn(field="name", title="name", width=220, formatter=StringFormatter())]
    columns += [
        TableColumn(
            field=f"number{place}", title=name, width=84,
            formatter=HTMLTemplateFormatter(template=_form(name)),
        )
        for place, name in _rhat_first(table.columns)
    ]  # fmt: skip
    columns.append(TableColumn(field="problems", title="problem", width=110))
    number = len(table.labels)
    view = CDSView(filter=IndexFilter(indices=list(range(number))))
    shown = DataTable(
        source=source, view=view, columns=columns, index_position=None, autosize_mode="none",
        frozen_columns=1, height=min(420, 60 + 25 * number), selectable=True,
        sizing_mode="stretch_width", stylesheets=[TABLE_CSS],
    )  # fmt: skip
    name = TextInput(
        title="Name contains", stylesheets=[INPUT_CSS], max_width=260, sizing_mode="stretch_width"
    )
    which = parts.choice("Which", "table choices", "all")
    said = text(f'<p class="soft">{number} of {number} scalars</p>')
    keep = CustomJS(
        args={"source": source, "view": view, "name": name, "which": which, "said": said},
        code=_FILTER,
    )
    name.js_on_change("value_input", keep)
    which.js_on_change("value", keep)
    source.js_on_change("data", keep)
    heading = words.section("Summary", "Click a column to sort by it, and a row to see its trace.")
    inputs = row(name, which, sizing_mode="stretch_width")
    return TableView([text(heading), inputs, said, shown], source)


def join(view: TableView, plots: TracePlots, parts: Parts) -> None:
    """A row that is clicked turns to the page with its trace."""
    turn = CustomJS(
        args={
            "source": view.source, "labels": parts.source("trace labels"), "select": plots.select,
            "slots": SLOTS,
        },
        code=_GO_TO,
    )  # fmt: skip
    view.source.selected.js_on_change("indices", turn)


def _rhat_first(columns: Iterable[str]) -> list[tuple[int, str]]:
    """The columns with their places: a narrow screen shows the first one beside the name."""
    return sorted(enumerate(columns), key=lambda column: column[1] != "r_hat")


def _form(name: str) -> str:
    if name.startswith("ess_"):
        return _WHOLE
    return _THREE if name == "r_hat" else _DIGITS
