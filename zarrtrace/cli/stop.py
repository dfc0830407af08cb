"""`zarrtrace stop`: ask a run to stop, so that all chains end at the same draw."""

from __future__ import annotations

import argparse

from ..life.description import counts
from ..life.stop import request_stop
from ..messages import counted, printable
from ..opening import open
from ..trace import Trace
from .arguments import Commands, storage_argument, storage_options


def add_command(commands: Commands) -> None:
    """Add `stop` to the parser."""
    stop = commands.add_parser(
        "stop",
        parents=[storage_argument()],
        help="ask a run to stop, so that all chains end at the same draw",
    )
    stop.add_argument("path", metavar="PATH", help="a trace that is recorded, here or elsewhere")
    when = stop.add_mutually_exclusive_group()
    when.add_argument("--at", metavar="N", type=int, help="the draw, warmup included")
    when.add_argument(
        "--now", action="store_true", help="each chain at once, with the draws that it has"
    )
    when.add_argument("--cancel", action="store_true", help="take the request back")
    stop.add_argument("--reason", metavar="TEXT", default="", help="why, for all who look")
    stop.set_defaults(run_command=_run_command)


def _run_command(parsed: argparse.Namespace) -> int:
    trace = open(parsed.path, "a", storage_options=storage_options(parsed))
    if parsed.cancel:
        show_cancelled(trace)
    else:
        show_request(trace, parsed.at, parsed.now, parsed.reason)
    return 0


def show_request(trace: Trace, at: int | None, now: bool, reason: str) -> None:
    """Ask a run to stop, and print where it will end."""
    asked = request_stop(trace._hierarchy, at, now=now, reason=reason)
    path, recorded = printable(trace.path), counts(trace._now())
    after = counted(max(asked.at - trace.tune, 0), "draw")
    where = f"at draw {asked.at}, {after} after the warmup" if asked.at else "at once"
    print(f"{path}: asked to stop {where}; recorded {recorded}")
    if not asked.living:
        print("no chain is recorded now, as far as can be seen: those that continue stop there")
    print(f"`zarrtrace stop {path} --cancel` takes it back")


def show_cancelled(trace: Trace) -> None:
    """Take back a request to stop, and print whether there was one."""
    was_asked = trace.cancel_stop()
    said = "the request to stop is taken back" if was_asked else "it was not asked to stop"
    print(f"{printable(trace.path)}: {said}; recorded {counts(trace._now())}")
