"""The overview of a folder of runs: a line for each, which leads to its page."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from bokeh.layouts import column, row
from bokeh.models import (
    CDSView,
    Column,
    ColumnDataSource,
    CustomJS,
    CustomJSFilter,
    DataTable,
    HTMLTemplateFormatter,
    TableColumn,
    TextInput,
)

from ..folder.run import NOTHING
from ..life.description import run_row, run_style
from ..life.status import time_label
from ..messages import counted, printable
from ..report.parts import choice, text
from ..report.style import INPUT_CSS, TABLE_CSS
from ..report.words import escape
from ..watching.lines import duration, number
from .folder_look import GONE, WAITING, FolderLook, FolderLooks, RunLook

_MOST_PROBLEMS = 20  # that are listed below the table
_SHORT = 200  # characters of a problem in the table
_LONG_AGO = 86_400.0  # seconds, after which a date says more

# Names and words come from a store: `<%- %>` escapes them.
_WORDS = '<bdi title="<%- value %>"><%- value %></bdi>'
_LINK = f'<a href="<%- address %>" style="color:inherit">{_WORDS}</a>'
_BAD = '<span style="color:<%- {} ? "var(--bad)" : "inherit" %>"><%- {} %></span>'

_KEEP = """
const wanted = name.value_input.toLowerCase()
const flags = source.data[which.value]
return source.data.name.map(
  (label, row) => label.toLowerCase().includes(wanted) && (flags == null || flags[row]))
"""


class _Cell(NamedTuple):
    """A column of the table: by which field it is sorted, and how it is shown."""

    field: str
    title: str
    width: int
    template: str


# The first four are seen without scrolling where there are 400 pixels.
_CELLS = (
    _Cell("name", "name", 135, _LINK),
    _Cell("status", "status", 75, _BAD.format("is_lost", "value")),
    _Cell("rhat", "worst R-hat", 82, _BAD.format("is_apart", "rhat_label")),
    _Cell("rate", "draws/s", 70, "<%- rate_label %>"),
    _Cell("recorded", "draws", 130, "<%- draws %>"),
    _Cell("heard", "last heard of", 135, "<%- heard_label %>"),
    _Cell("chains", "chains", 65, "<%- chains_label %>"),
    _Cell("model", "model", 130, _WORDS),
    _Cell("problem", "problem", 485, _WORDS),
)


class Overview:
    """The overview of a folder, for any number of browsers.

    Parameters
    ----------
    folder : str or Path
        A directory or URL.
    address_of : callable
        The address of the page of a run, by its name.
    storage_options : mapping, optional
        Options for its file system.

    Raises
    ------
    TraceNotFoundError
        There is no such folder, or it is a trace itself.
    """

    def __init__(
        self,
        folder: str | Path,
        address_of: Callable[[str], str],
        storage_options: Mapping[str, Any] | None = None,
    ) -> None:
        self._address_of = address_of
        self._looks = FolderLooks(folder, storage_options)
        self._show(FolderLook(str(folder), (), "", ()))

    def _show(self, look: FolderLook) -> None:
        self._look = look
        # One object, replaced at once: browsers are filled by another thread.
        self._shown = _Shown(look, self._address_of)

    def refresh(self) -> None:
        """Take one look at the folder; `fill` then shows it in every browser."""
        self._show(self._looks.look())

    def fail(self, reason: str) -> None:
        """Say that a look has failed, in a way that nobody has foreseen."""
        self._show(replace(self._look, error=reason))

    @property
    def names(self) -> tuple[str, ...]:
        """The runs of the folder."""
        return tuple(run.name for run in self._look.runs)

    def path_of(self, name: str) -> str | None:
        """Where a run of the folder is; None where it has no such run."""
        return self._looks.path_of(name)

    def layout(self) -> Column:
        """The models of the overview, for one session of a browser."""
        shown = self._shown
        source = ColumnDataSource(shown.columns, name="runs")
        name = TextInput(
            title="Name contains", stylesheets=[INPUT_CSS], max_width=260,
            sizing_mode="stretch_width",
        )  # fmt: skip
        options = [("all", "all"), ("is_sampling", "sampling"), ("is_bad", "with a problem")]
        which = choice("Which", options, "all")
        keep = CustomJSFilter(args={"name": name, "which": which}, code=_KEEP)
        again = CustomJS(args={"source": source}, code="source.change.emit()")
        name.js_on_change("value_input", again)
        which.js_on_change("value", again)
        table = DataTable(
            source=source, view=CDSView(filter=keep), index_position=None, autosize_mode="none",
            columns=[
                TableColumn(
                    field=cell.field, title=cell.title, width=cell.width,
                    formatter=HTMLTemplateFormatter(template=cell.template),
                )
                for cell in _CELLS
            ],
            frozen_columns=1, selectable=False, sizing_mode="stretch_width",
            stylesheets=[TABLE_CSS], name="table",
        )  # fmt: skip
        heading, problems = text(shown.heading), text(shown.problems)
        heading.name, problems.name = "heading", "problems"
        _fit(table, shown)
        inputs = row(name, which, sizing_mode="stretch_width")
        return column(heading, inputs, table, problems, sizing_mode="stretch_width")

    def fill(self, layout: Column) -> None:
        """Show the last look in the models of a session; only what has changed is sent."""
        shown = self._shown
        for name, html in (("heading", shown.heading), ("problems", shown.problems)):
            part: Any = layout.select_one({"name": name})
            if part.text != html:
                part.text = html
        table: Any = layout.select_one({"name": "table"})
        _fit(table, shown)
        source = table.source
        if source.data["name"] != shown.columns["name"]:
            source.data = shown.columns
            return
        changes = {
            field: _changes(source.data[field], values) for field, values in shown.columns.items()
        }
        source.patch({field: cells for field, cells in changes.items() if cells})


class _Shown:
    """A look in the form in which it is shown.

    Attributes
    ----------
    columns : dict of str to list
        Of the table; flags and numbers to sort by, too.
    heading, problems : str
        What is said above and below the table, as HTML.
    """

    def __init__(self, look: FolderLook, address_of: Callable[[str], str]) -> None:
        fields = _fields(RunLook("", NOTHING, None, None, ""), "")
        rows = [_fields(run, address_of(run.name)) for run in look.runs]
        self.columns: dict[str, list[Any]] = {name: [one[name] for one in rows] for name in fields}
        self.heading = _heading(look)
        self.problems = _problems(look)


def _fields(run: RunLook, address: str) -> dict[str, Any]:
    """What the table has of one run; -1 where there is no number, to come last among the worst."""
    described = run.described
    status, rhat = described["status"], described["worst_rhat"]
    _, model, _, _, chains, draws, rhat_label, _ = map(printable, run_row(run.name, described))
    is_lost = status in ("damaged", GONE)
    is_apart = bool(run_style("worst R-hat", rhat_label))
    return {
        "name": printable(run.name),
        "address": address,
        "status": status,
        "recorded": described["recorded"],
        "draws": "" if status == WAITING else draws,
        "rhat": -1.0 if math.isnan(rhat) else rhat,
        "rhat_label": "" if status == WAITING else rhat_label,
        "rate": -1.0 if run.rate is None else run.rate,
        "rate_label": number(run.rate, 1) if status == "sampling" else "",
        "heard": -1.0 if run.heard is None else run.heard,
        "heard_label": _ago(run),
        "chains": described["chains"],
        "chains_label": "" if status == WAITING else chains,
        "model": model,
        "problem": printable(run.problem)[:_SHORT],
        "is_lost": is_lost,
        "is_apart": is_apart,
        "is_bad": is_lost or is_apart or bool(run.problem),
        "is_sampling": status == "sampling",
    }


def _ago(run: RunLook) -> str:
    """`7 s ago` of a run that is recorded, and the date of any other."""
    if run.heard is None:
        return ""
    age = max(0.0, time.time() - run.heard)
    if run.described["status"] == "sampling" and age < _LONG_AGO:
        return f"{duration(age)} ago"
    return time_label(run.heard)


def _fit(table: DataTable, shown: _Shown) -> None:
    """Make the table as high as its rows need, up to a page."""
    rows = len(shown.columns["name"])
    table.update(height=min(700, 60 + 25 * rows), visible=rows > 0)


def _changes(before: Sequence[Any], after: Sequence[Any]) -> list[tuple[int, Any]]:
    pairs = zip(before, after, strict=True)
    return [(place, new) for place, (old, new) in enumerate(pairs) if new != old]


# Above and below the table -----------------------------------------------------------------------


def _heading(look: FolderLook) -> str:
    name = look.folder.rstrip("/").rpartition("/")[2] or look.folder
    return f"<h1>{escape(name)}</h1>{''.join(_lines(look))}"


def _lines(look: FolderLook) -> Iterator[str]:
    if look.error:
        yield f'<p class="bad">The folder cannot be read: {escape(look.error)}</p>'
        if look.runs:
            yield '<p class="soft">The runs are shown as they were seen last.</p>'
    numbers = Counter(run.described["status"] for run in look.runs)
    if numbers:
        said = ", ".join(f"{count:,} {status}" for status, count in numbers.most_common())
        yield f"<p>{escape(counted(len(look.runs), 'run'))}: {escape(said)}</p>"
    elif not look.error:
        yield "<p>There is no run in this folder yet. One appears here when it is created.</p>"
    if not all(run.described["rhat_of_all"] for run in look.runs):
        yield (
            '<p class="soft">* worst R-hat of the first variables only, up to a million numbers</p>'
        )
    yield from (f'<p class="soft">{escape(note)}</p>' for note in look.notes)


def _problems(look: FolderLook) -> str:
    bad = [run for run in look.runs if run.problem]
    listed = "".join(
        f'<li class="bad"><bdi><b>{escape(run.name)}</b></bdi>: {escape(run.problem)}</li>'
        for run in bad[:_MOST_PROBLEMS]
    )
    more = len(bad) - _MOST_PROBLEMS
    return f"<ul>{listed}</ul>" + (f'<p class="soft">and {more:,} more</p>' if more > 0 else "")
