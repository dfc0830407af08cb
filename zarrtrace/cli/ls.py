"""`zarrtrace ls`: the runs of a folder, finished or running."""

from __future__ import annotations

import argparse
from typing import Any

from .. import folder
from ..life import as_json, description
from ..messages import counted, printable
from .arguments import Commands, json_argument, storage_argument, storage_options

_MOST_STEPS = 5  # lines that say what to do next


def add_command(commands: Commands) -> None:
    """Add `ls` to the parser."""
    listing = commands.add_parser(
        "ls",
        parents=[storage_argument(), json_argument()],
        help="list the runs of a folder, finished or running",
    )
    listing.add_argument(
        "folder", nargs="?", default=".", help="a directory or URL with traces in it (%(default)s)"
    )
    listing.set_defaults(run_command=_run_command)


def _run_command(parsed: argparse.Namespace) -> int:
    found = folder.open(parsed.folder, storage_options=storage_options(parsed))
    (print_runs if parsed.json else show_runs)(found)
    return 0


def print_runs(found: folder.Runs) -> None:
    """Print the runs of a folder for programs."""
    runs = [as_json.describe_run(run.name, run.describe(), run.settings) for run in found]
    print(as_json.to_json(runs))


def show_runs(found: folder.Runs) -> None:
    """Print a line for each run of a folder."""
    from rich.console import Console
    from rich.text import Text

    descriptions = [(run.name, run.describe()) for run in found]
    rows = [description.RUN_HEADINGS, *map(_run_row, descriptions)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    # In one piece: a table of rich takes longer for a thousand lines than reading the runs.
    text, styles = "", []
    for row in rows:
        for heading, cell, width in zip(description.RUN_HEADINGS, row, widths, strict=True):
            right = heading in ("chains", "draws", "worst R-hat")
            style = description.run_style(heading, cell)
            if style:
                styles.append((style, len(text), len(text) + width))
            text += f"{cell.rjust(width) if right else cell.ljust(width)}  "
        text = text.rstrip() + "\n"
    listed = Text(text, no_wrap=True)
    for style, start, end in styles:
        listed.stylize(style, start, end)
    console = Console()
    console.print(listed, soft_wrap=True, end="")
    if not all(described["rhat_of_all"] for _, described in descriptions):
        console.print("* worst R-hat of the first variables only, up to a million numbers")
    steps = {f"{run['status']}: {run['next']}": run["next"] for _, run in descriptions}
    for line in [line for line, step in steps.items() if step][:_MOST_STEPS]:
        console.print(line, highlight=False, markup=False, emoji=False, soft_wrap=True)
    for name, described in descriptions:
        if described["error"]:
            said = printable(f"{name}: {described['error']}")
            console.print(said, highlight=False, markup=False, emoji=False, soft_wrap=True)
    total = printable(f"{counted(len(found), 'run')} in {found.folder}")
    console.print(total, highlight=False, markup=False, emoji=False, soft_wrap=True)


def _run_row(described: tuple[str, dict[str, Any]]) -> tuple[str, ...]:
    return tuple(map(printable, description.run_row(*described)))
