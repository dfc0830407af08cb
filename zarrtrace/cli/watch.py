"""`zarrtrace watch`: see a run while it runs."""

from __future__ import annotations

import argparse
import sys

from ..diagnostics.goal import Converged
from ..layout.hierarchy import Hierarchy
from ..opening import open
from ..watching.follow import Watched, follow
from ..watching.lines import print_json, print_text
from ..watching.screen import Screen
from ..watching.watcher import MEMORY, Watcher
from .arguments import Commands, json_argument, seconds, storage_argument, storage_options

_EVERY = 2.0  # seconds, on a screen
_EVERY_LINE = 60.0


def add_command(commands: Commands) -> None:
    """Add `watch` to the parser."""
    watch = commands.add_parser(
        "watch",
        parents=[storage_argument(), json_argument()],
        help="see how a run does while it runs; ends with 0 when all draws are recorded, 3 when a "
        "chain died and no other runs, 4 when the store went away",
    )
    watch.add_argument("path", metavar="PATH", nargs="+", help="traces that are recorded")
    watch.add_argument(
        "--plain", action="store_true", help="print a line each time, for the log of a batch job"
    )
    watch.add_argument(
        "--every",
        type=seconds,
        metavar="SECONDS",
        help="seconds from one look to the next: 2, and 60 with --plain or --json",
    )
    watch.add_argument("--once", action="store_true", help="look once, print it, and end")
    watch.add_argument(
        "--var",
        action="append",
        default=[],
        metavar="NAME",
        help="a variable that is always shown; may be given several times",
    )
    watch.add_argument(
        "--rhat",
        type=float,
        default=Converged.rhat,
        help="the goal for the worst R-hat (%(default)s)",
    )
    watch.add_argument(
        "--ess",
        type=float,
        default=Converged.ess,
        help="the goal for the smallest ESS (%(default)s)",
    )
    watch.add_argument(
        "--memory",
        type=_bytes,
        default=MEMORY,
        metavar="MB",
        help="megabytes for the moments of all scalars; above that some are watched (1000)",
    )
    watch.add_argument(
        "--on-finish",
        default="",
        metavar="COMMAND",
        help="a command for the shell when all draws are recorded, with JSON on standard input",
    )
    watch.add_argument(
        "--on-death", default="", metavar="COMMAND", help="the same when a chain has died"
    )
    watch.set_defaults(run_command=_run_command)


def _run_command(parsed: argparse.Namespace) -> int:
    storage = storage_options(parsed)
    goal = Converged(parsed.rhat, parsed.ess)

    def make_watcher(hierarchy: Hierarchy) -> Watcher:
        return Watcher(hierarchy, var_names=parsed.var, memory=parsed.memory, goal=goal)

    traces = [open(path, storage_options=storage) for path in parsed.path]
    watched = [Watched(trace._hierarchy, make_watcher) for trace in traces]
    is_screen = not parsed.json and not parsed.plain and (sys.stdout.isatty() or parsed.once)
    every = parsed.every or (_EVERY if is_screen else _EVERY_LINE)
    options = {"every": every, "once": parsed.once}
    commands = {"on_finish": parsed.on_finish, "on_death": parsed.on_death}
    if is_screen:
        with Screen(live=not parsed.once) as screen:
            return follow(watched, screen.show, **options, **commands)
    return follow(watched, print_json if parsed.json else print_text, **options, **commands)


def _bytes(text: str) -> int:
    megabytes = float(text)
    if not 0 < megabytes < float("inf"):
        raise argparse.ArgumentTypeError(f"give megabytes above 0, got {text!r}")
    return int(megabytes * 1e6)
