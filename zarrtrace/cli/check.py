"""`zarrtrace check`: name what is damaged in a trace."""

from __future__ import annotations

import argparse

from ..life import as_json
from ..life.check import checksummed
from ..messages import printable
from ..opening import open
from ..trace import Trace
from .arguments import Commands, json_argument, storage_argument, storage_options


def add_command(commands: Commands) -> None:
    """Add `check` to the parser."""
    check = commands.add_parser(
        "check",
        parents=[storage_argument(), json_argument()],
        help="read all of a trace and name what is damaged",
    )
    check.add_argument("path", metavar="PATH", help="a trace that is on a disk or at a URL")
    check.set_defaults(run_command=_run_command)


def _run_command(parsed: argparse.Namespace) -> int:
    trace = open(parsed.path, storage_options=storage_options(parsed))
    return (print_check if parsed.json else show_check)(trace)


def print_check(trace: Trace) -> int:
    """Print what is damaged for programs; 1 when anything is."""
    found = trace.check()
    path, has_checksums = trace.path, checksummed(trace._layout)
    print(as_json.to_json(as_json.describe_check(path, found, has_checksums)))
    return 1 if found else 0


def show_check(trace: Trace) -> int:
    """Print what is damaged; 1 when anything is."""
    found = trace.check()
    for damage in found:
        print(printable(damage))
    if found:
        path = printable(trace.path)
        wrong = "1 thing is wrong" if len(found) == 1 else f"{len(found)} things are wrong"
        print(f"{wrong}; `zarrtrace repair {path}` fixes what it can")
        return 1
    sure = checksummed(trace._layout)
    print(
        f"{printable(trace.path)}: all is well, every chunk was read"
        + ("" if sure else "; it has no checksums (checksum=True), so a flipped bit may hide")
    )
    return 0
