"""`zarrtrace stop`: ask a run to stop, so that all chains end at the same draw."""

from __future__ import annotations

import argparse
import time

from ..diagnostics.goal import Converged
from ..goals.looks import Looks
from ..life.description import counts
from ..life.stop import request_stop, said_of_stop
from ..messages import printable
from ..opening import open
from ..trace import Trace
from .arguments import Commands, storage_argument, storage_options

_LOOK_EVERY = 0.2  # seconds


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
    when.add_argument(
        "--until",
        metavar="RULE",
        help="look at the run until this holds at two looks in a row, and stop it then, such as "
        "'rhat<1.01 & ess>400 & mcse(tau)<0.02'",
    )
    stop.add_argument(
        "--var-names", metavar="NAME", nargs="+", help="the variables that the rule is about (all)"
    )
    stop.add_argument(
        "--min-draws",
        metavar="N",
        type=int,
        default=200,
        help="draws after warmup at the first look (%(default)s)",
    )
    stop.add_argument("--reason", metavar="TEXT", default="", help="why, for all who look")
    stop.set_defaults(run_command=_run_command)


def _run_command(parsed: argparse.Namespace) -> int:
    trace = open(parsed.path, "a", storage_options=storage_options(parsed))
    if parsed.until is not None:
        goal = Converged.parse(parsed.until, parsed.var_names, parsed.min_draws)
        return show_looks(trace, goal)
    if parsed.cancel:
        show_cancelled(trace)
    else:
        show_request(trace, parsed.at, parsed.now, parsed.reason)
    return 0


def show_request(trace: Trace, at: int | None, now: bool, reason: str) -> None:
    """Ask a run to stop, and print where it will end."""
    asked = request_stop(trace._hierarchy, at, now=now, reason=reason)
    path, recorded = printable(trace.path), counts(trace._now())
    print(f"{path}: asked to stop {said_of_stop(asked.at, trace.tune)}; recorded {recorded}")
    if not asked.living:
        print("no chain is recorded now, as far as can be seen: those that continue stop there")
    print(f"`zarrtrace stop {path} --cancel` takes it back")


def show_looks(trace: Trace, goal: Converged) -> int:
    """Look at a run until its goal is met, and print each look; 1 where the run ends before."""
    path = printable(trace.path)
    looks = Looks(trace, goal)
    print(f"{path}: stops when {goal}, at two looks in a row; Ctrl-C ends the looks", flush=True)
    try:
        while looks.stops_at is None:
            # The status is that of before the look: a run that has just ended is looked at too.
            status = trace.status
            seen = looks.look()
            if seen is not None:
                print(printable(seen), flush=True)
            elif status in ("complete", "finished"):
                print(f"{path}: the run is {status}, and the goal was not met and confirmed")
                return 1
            time.sleep(_LOOK_EVERY)
    finally:
        looks.close()
    print(f"{path}: asked to stop at draw {looks.stops_at}; recorded {counts(trace._now())}")
    return 0


def show_cancelled(trace: Trace) -> None:
    """Take back a request to stop, and print whether there was one."""
    was_asked = trace.cancel_stop()
    said = "the request to stop is taken back" if was_asked else "it was not asked to stop"
    print(f"{printable(trace.path)}: {said}; recorded {counts(trace._now())}")
