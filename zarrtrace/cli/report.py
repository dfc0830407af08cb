"""`zarrtrace report`: one page that shows a run, and opens offline."""

from __future__ import annotations

import argparse

from ..messages import printable
from ..opening import open
from .arguments import (
    Commands,
    room_arguments,
    said_on_standard_error,
    storage_argument,
    storage_options,
)


def add_command(commands: Commands) -> None:
    """Add `report` to the parser."""
    report = commands.add_parser(
        "report",
        parents=[storage_argument(), room_arguments()],
        help="write one HTML page that shows a run, finished or running, and opens offline",
    )
    report.add_argument("path", metavar="PATH", help="a trace")
    report.add_argument(
        "-o", "--output", metavar="FILE", default="report.html", help="the page (%(default)s)"
    )
    report.add_argument("--overwrite", action="store_true", help="replace an existing file")
    report.add_argument(
        "--var-names", nargs="+", metavar="NAME", help="variables that are drawn first"
    )
    report.set_defaults(run_command=_run_command)


def _run_command(parsed: argparse.Namespace) -> int:
    trace = open(parsed.path, storage_options=storage_options(parsed))
    with said_on_standard_error():
        file = trace.report(
            parsed.output,
            parsed.var_names,
            overwrite=parsed.overwrite,
            memory=parsed.memory,
            scratch=parsed.scratch,
            threads=parsed.threads,
        )
    print(f"{printable(file)}: {file.stat().st_size / 1e6:.1f} MB")
    return 0
