"""The table of a summary: every scalar, sorted by a click, filtered by name and by badness."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
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

from ..messages import printable
from . import words
from .content import Table
from .figures import choice, text
from .style import INPUT_CSS, TABLE_CSS
from .trace_plots import SLOTS, TracePlots

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
const number = row == null ? -1 : meta.data.label.indexOf(source.data.name[row])
if (number >= 0) select.value = String(Math.floor(number / slots))
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


def build_table(table: Table) -> TableView:
    """Lay out the table, with all scalars in their order."""
    fields = {f"number{place}": name for place, name in enumerate(table.columns)}
    source = ColumnDataSource(
        {
            "name": list(map(printable, table.labels)),
            "problems": table.problems,
            **{field: _short(table.columns[name]) for field, name in fields.items()},
        }
    )
    columns = [TableColumn(field="name", title="name", width=220, formatter=StringFormatter())]
    columns += [
        TableColumn(
            field=field, title=name, width=84, formatter=HTMLTemplateFormatter(template=_form(name))
        )
        for field, name in fields.items()
    ]
    columns.append(TableColumn(field="problems", title="problem", width=110))
    view = CDSView(filter=IndexFilter(indices=list(range(len(table.labels)))))
    shown = DataTable(
        source=source, view=view, columns=columns, index_position=None, autosize_mode="none",
        frozen_columns=1, height=min(420, 60 + 25 * len(table.labels)), selectable=True,
        sizing_mode="stretch_width", stylesheets=[TABLE_CSS],
    )  # fmt: skip
    number = len(table.labels)
    bad = sum(map(bool, table.problems))
    name = TextInput(
        title="Name contains", stylesheets=[INPUT_CSS], max_width=260, sizing_mode="stretch_width"
    )
    which = choice("Which", [("all", f"all {number:,}"), ("bad", f"{bad:,} with a problem")], "all")
    said = text(f'<p class="soft">{number} of {number} scalars</p>')
    keep = CustomJS(
        args={"source": source, "view": view, "name": name, "which": which, "said": said},
        code=_FILTER,
    )
    name.js_on_change("value_input", keep)
    which.js_on_change("value", keep)
    heading = words.section("Summary", "Click a column to sort by it, and a row to see its trace.")
    inputs = row(name, which, sizing_mode="stretch_width")
    return TableView([text(heading), inputs, said, shown], source)


def join(view: TableView, plots: TracePlots) -> None:
    """A row that is clicked turns to the page with its trace."""
    turn = CustomJS(
        args={"source": view.source, "meta": plots.meta, "select": plots.select, "slots": SLOTS},
        code=_GO_TO,
    )
    view.source.selected.js_on_change("indices", turn)


def _short(numbers: np.ndarray) -> np.ndarray:
    """The numbers as float32, which has more digits than are shown, where they have room."""
    with np.errstate(over="ignore"):
        short = numbers.astype(np.float32)
    return short if np.array_equal(np.isfinite(short), np.isfinite(numbers)) else numbers


def _form(name: str) -> str:
    if name.startswith("ess_"):
        return _WHOLE
    return _THREE if name == "r_hat" else _DIGITS
