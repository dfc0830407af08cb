"""`zarrtrace finish`: finish a trace with the draws that it has."""

from __future__ import annotations

import argparse

from ..life import change
from ..life.finish import describe_unequal
from ..messages import counted, printable
from ..opening import open
from ..trace import Trace
from .arguments import Commands, storage_argument, storage_options


def add_command(commands: Commands) -> None:
    """Add `finish` to the parser."""
    finish = commands.add_parser(
        "finish",
        parents=[storage_argument()],
        help="finish a trace with the draws that it has, so that any Zarr reader opens it",
    )
    finish.add_argument("path", metavar="PATH", help="a trace to which no chain is being recorded")
    finish.add_argument(
        "--chains", metavar="N", type=int, nargs="+", help="leave out all chains but these"
    )
    finish.set_defaults(run_command=_run_command)


def _run_command(parsed: argparse.Namespace) -> int:
    show_finish(open(parsed.path, "a", storage_options=storage_options(parsed)), parsed.chains)
    return 0


def show_finish(trace: Trace, chains: list[int] | None) -> None:
    """Finish a trace, and print which draws other readers find in it."""
    before = trace._layout
    change.finish(trace._hierarchy, chains)
    now = trace._now()
    after = (now.counts - trace.burn_in)[now.layout.kept_chains]
    is_as_before = before.finished and before.left_out == now.layout.left_out
    print(
        f"{printable(trace.path)} {'was already' if is_as_before else 'is'} finished: "
        f"{counted(len(after), 'chain')} of {counted(int(after.min()), 'draw')} after "
        f"{trace.burn_in - trace.dropped} of warmup"
    )
    unequal = describe_unequal(now)
    if unequal:
        print(printable(unequal))
