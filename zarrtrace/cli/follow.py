"""`zarrtrace follow`: record text files of draws as they grow."""

from __future__ import annotations

import argparse

from ..adopt.follow import follow
from ..messages import printable
from .arguments import Commands, storage_argument, storage_options
from .info import show_info


def add_command(commands: Commands) -> None:
    """Add `follow` to the parser."""
    following = commands.add_parser(
        "follow",
        parents=[storage_argument()],
        help="record CSV files of CmdStan, or other tables of draws, as they grow",
    )
    following.add_argument(
        "files", metavar="FILE", nargs="+", help="the text file of each chain; it may appear later"
    )
    following.add_argument(
        "out", metavar="OUT", help="where to make the trace; an existing one continues"
    )
    following.add_argument(
        "--once", action="store_true", help="record what is there now, and do not wait for the rest"
    )
    following.set_defaults(run_command=_run_command)


def _run_command(parsed: argparse.Namespace) -> int:
    if not parsed.once:
        print(
            f"recording into {printable(parsed.out)}; Ctrl-C stops, and the same command continues",
            flush=True,
        )
    storage = storage_options(parsed)
    show_info(follow(parsed.files, parsed.out, once=parsed.once, storage_options=storage))
    return 0
