"""`zarrtrace pack`: write a finished trace to one .zip file."""

from __future__ import annotations

import argparse

from ..messages import printable
from ..opening import open
from .arguments import Commands, storage_argument, storage_options


def add_command(commands: Commands) -> None:
    """Add `pack` to the parser."""
    pack = commands.add_parser(
        "pack", parents=[storage_argument()], help="write a finished trace to one .zip file"
    )
    pack.add_argument("path", metavar="PATH", help="a finished trace")
    pack.add_argument("out", metavar="OUT", nargs="?", help="the file (PATH.zip)")
    pack.set_defaults(run_command=_run_command)


def _run_command(parsed: argparse.Namespace) -> int:
    trace = open(parsed.path, storage_options=storage_options(parsed))
    print(printable(trace.pack(parsed.out)))
    return 0
