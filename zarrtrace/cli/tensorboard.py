"""`zarrtrace tensorboard`: follow a run in TensorBoard."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from ..errors import InvalidInputError
from ..layout.hierarchy import Hierarchy
from ..opening import open
from ..watching.follow import Seen, Watched, follow
from ..watching.lines import print_text
from ..watching.tensorboard import ScalarWriter
from ..watching.watcher import Watcher
from .arguments import Commands, seconds, storage_argument, storage_options


def add_command(commands: Commands) -> None:
    """Add `tensorboard` to the parser."""
    tensorboard = commands.add_parser(
        "tensorboard",
        parents=[storage_argument()],
        help="write lp, step size, divergences, R-hat and ESS of a run for TensorBoard while it "
        "runs; ends like watch",
    )
    tensorboard.add_argument("path", metavar="PATH", help="a trace that is recorded")
    tensorboard.add_argument(
        "logdir", metavar="LOGDIR", help="the directory for TensorBoard, one for each trace"
    )
    tensorboard.add_argument(
        "--every",
        type=seconds,
        default=30,
        metavar="SECONDS",
        help="seconds from one look to the next (%(default)s)",
    )
    tensorboard.add_argument("--once", action="store_true", help="look once, and end")
    tensorboard.add_argument(
        "--var",
        action="append",
        default=[],
        metavar="NAME",
        help="a variable that is always written; may be given several times",
    )
    tensorboard.set_defaults(run_command=_run_command)


def _run_command(parsed: argparse.Namespace) -> int:
    if Path(parsed.logdir).resolve().is_relative_to(Path(parsed.path).resolve()):
        raise InvalidInputError(
            f"{parsed.logdir} is in the trace", remedy="choose a directory beside it"
        )
    trace = open(parsed.path, storage_options=storage_options(parsed))

    def make_watcher(hierarchy: Hierarchy) -> Watcher:
        return Watcher(hierarchy, var_names=parsed.var)

    watched = Watched(trace._hierarchy, make_watcher)
    with ScalarWriter(parsed.logdir) as scalars:

        def show(seen: Sequence[Seen]) -> None:
            scalars.show(seen)
            print_text(seen)

        return follow([watched], show, every=parsed.every, once=parsed.once)
