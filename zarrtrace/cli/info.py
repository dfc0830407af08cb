"""`zarrtrace info`: one trace, finished or running."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Literal

from ..life import as_json, description
from ..messages import printable
from ..opening import open
from ..trace import Trace
from .arguments import Commands, json_argument, storage_argument, storage_options

_HEADINGS = ("variable", "dtype", "draws in a chunk")
_JUSTIFIED: tuple[Literal["left", "right"], ...] = ("left", "left", "right")
_WIDTH_OF_CHUNK = len("draws in")  # the heading has two lines
_MARGIN = 2


def add_command(commands: Commands) -> None:
    """Add `info` to the parser."""
    info = commands.add_parser(
        "info",
        parents=[storage_argument(), json_argument()],
        help="show a trace, finished or running",
    )
    info.add_argument("path", metavar="PATH", help="a trace: run.zarr, a URL, or a finished .zip")
    info.set_defaults(run_command=_run_command)


def _run_command(parsed: argparse.Namespace) -> int:
    trace = open(parsed.path, storage_options=storage_options(parsed))
    (print_info if parsed.json else show_info)(trace)
    return 0


def print_info(trace: Trace) -> None:
    """Print a trace for programs."""
    print(as_json.to_json(as_json.describe_trace(trace._now(), trace._beside())))


def show_info(trace: Trace) -> None:
    """Print a trace as a person wants to see it."""
    from rich.console import Console
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    now = trace._now()
    console = Console(markup=False, emoji=False, highlight=False)

    def show(text: str, style: str = "") -> None:
        # In a terminal lines break between words, and in a pipe they do not break.
        console.print(Text(printable(text), style), soft_wrap=not console.is_terminal)

    console.print(Text(printable(trace.path), "bold"), soft_wrap=True)
    for line in description.headlines(now):
        show(line)
    longest = int(now.counts.max())
    total = longest if now.layout.draws is None else now.layout.total
    if not now.layout.finished and now.counts.any() and trace.chains <= 32:
        bars = Table.grid(padding=(0, 1))
        bars.add_column(no_wrap=True)
        bars.add_column(max_width=40)
        bars.add_column(no_wrap=True)
        for chain, count in enumerate(now.counts.tolist()):
            progress = description.progress(now, count)
            bars.add_row(f"chain {chain}", ProgressBar(total, count), progress)
        console.print(bars)
    groups = description.describe_groups(now, trace._beside())
    cells = [_HEADINGS, *(cells for group in groups for cells in group.variables)]
    widths = [max(len(printable(cell)) for cell in column) for column in zip(*cells, strict=True)]
    rest = console.width - widths[1] - _WIDTH_OF_CHUNK - 3 * _MARGIN
    widths = [min(widths[0], max(10, rest)), widths[1], _WIDTH_OF_CHUNK]

    def show_variables(rows: Sequence[tuple[str, ...]], style: str = "") -> None:
        table = Table.grid(padding=(0, 0, 0, _MARGIN), pad_edge=True)
        for width, justify in zip(widths, _JUSTIFIED, strict=True):
            table.add_column(
                width=_MARGIN + width, justify=justify, vertical="bottom", overflow="fold"
            )
        for row in rows:
            table.add_row(*(Text(printable(cell), style) for cell in row))
        console.print(table)

    show_variables([_HEADINGS], "bold")
    for group in groups:
        show(group.title, "bold")
        if group.variables:
            show_variables(group.variables)
    for key, value in description.facts(now):
        show(f"{key}: {description.short_fact(value, 2 * console.width - len(key))}")
