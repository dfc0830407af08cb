"""`zarrtrace diagnose`: whether the draws can be trusted, for people, scripts and CI."""

from __future__ import annotations

import argparse

from ..life import as_json
from ..messages import printable
from ..opening import open
from .arguments import (
    Commands,
    json_argument,
    said_on_standard_error,
    selection_argument,
    selection_options,
    storage_argument,
    storage_options,
)


def add_command(commands: Commands) -> None:
    """Add `diagnose` to the parser."""
    diagnose = commands.add_parser(
        "diagnose",
        parents=[storage_argument(), json_argument(), selection_argument()],
        help="say whether the draws can be trusted, and what to do next; exit code 1 if not",
    )
    diagnose.add_argument("path", metavar="PATH", help="a trace, finished or running")
    diagnose.set_defaults(run_command=_run_command)


def _run_command(parsed: argparse.Namespace) -> int:
    trace = open(parsed.path, storage_options=storage_options(parsed))
    with said_on_standard_error():
        verdict = trace.diagnose(**selection_options(parsed))
    if parsed.json:
        print(as_json.to_json(verdict.as_dict()))
    else:
        print("\n".join(map(printable, str(verdict).splitlines())))
    return 0 if verdict.good else 1
