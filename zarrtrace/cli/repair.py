"""`zarrtrace repair`: fix a damaged trace."""

from __future__ import annotations

import argparse

from ..messages import printable
from ..opening import open
from .arguments import Commands, storage_argument, storage_options


def add_command(commands: Commands) -> None:
    """Add `repair` to the parser."""
    repair = commands.add_parser(
        "repair",
        parents=[storage_argument()],
        help="fix a damaged trace, keep what can be kept, say what was lost",
    )
    repair.add_argument("path", metavar="PATH", help="a trace to which no chain is being recorded")
    repair.set_defaults(run_command=_run_command)


def _run_command(parsed: argparse.Namespace) -> int:
    trace = open(parsed.path, "a", storage_options=storage_options(parsed))
    for line in trace.repair() or ["nothing to fix"]:
        print(printable(line))
    return 0
