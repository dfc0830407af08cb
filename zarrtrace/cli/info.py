"""`zarrtrace info`: one trace, finished or running."""

from __future__ import annotations

import argparse
from typing import Literal

from ..life import as_json, description
from ..messages import printable
from ..opening import open
from ..trace import Trace
from .arguments import Commands, json_argument, storage_argument, storage_options


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
    console = Console(markup=False, emoji=False)
    console.print(Text(printable(trace.path), "bold"))
    for line in description.headlines(now):
        console.print(printable(line), soft_wrap=True)
    longest = int(now.counts.max())
    total = longest if now.layout.draws is None else now.layout.total
    if not now.layout.finished and now.counts.any() and trace.chains <= 32:
        bars = Table.grid(padding=(0, 1))
        for chain, count in enumerate(now.counts.tolist()):
            bars.add_row(
                f"chain {chain}",
                ProgressBar(total, count, width=40),
                description.progress(now, count),
            )
        console.print(bars)
    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in ("group", "variable", "dtype", "draws", "draws in a chunk"):
        justify: Literal["left", "right"] = "right" if heading.startswith("draws") else "left"
        table.add_column(heading, justify=justify, no_wrap=heading in ("group", "variable"))
    for row in description.rows(now, trace._beside()):
        table.add_row(*(Text(printable(cell)) for cell in row))
    console.print(table)
    for key, value in description.facts(now):
        console.print(printable(f"{key}: {value}"), highlight=False)
