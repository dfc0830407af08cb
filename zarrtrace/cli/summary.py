"""`zarrtrace summary`: the table of what the draws say, and how far they can be trusted."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from ..diagnostics.frame import KINDS, to_rows
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

if TYPE_CHECKING:
    import pandas as pd


def add_command(commands: Commands) -> None:
    """Add `summary` to the parser."""
    summary = commands.add_parser(
        "summary",
        parents=[storage_argument(), json_argument(), selection_argument()],
        help="print the table of arviz.summary, of a trace that is finished or running",
    )
    summary.add_argument("path", metavar="PATH", help="a trace")
    summary.add_argument(
        "--kind",
        choices=KINDS,
        default="all",
        help="the columns of ArviZ (%(default)s); mc_diagnostics needs ArviZ 1.x; moments is what "
        "one pass over the draws tells in bounded memory, without a file",
    )
    summary.add_argument(
        "--prob", type=float, metavar="P", help="the probability of the interval (as in ArviZ)"
    )
    summary.set_defaults(run_command=_run_command)


def _run_command(parsed: argparse.Namespace) -> int:
    trace = open(parsed.path, storage_options=storage_options(parsed))
    with said_on_standard_error():
        frame = trace.summary(
            kind=parsed.kind,
            ci_prob=parsed.prob,
            round_to="none" if parsed.json else "auto",
            **selection_options(parsed),
        )
    if parsed.json:
        content: dict[str, Any] = {"path": trace.path, "group": parsed.group, **frame.attrs}
        print(as_json.to_json({**content, "scalars": to_rows(frame)}))
    else:
        show_frame(frame)
        if "explanation" in frame.attrs:
            print(f"{frame.attrs['explanation']}.")
    return 0


def show_frame(frame: pd.DataFrame) -> None:
    """Print a table with all its rows and columns."""
    import pandas as pd

    # A frame of ArviZ 1.x formats each cell again when it is printed, which takes seconds for
    # thousands of rows.
    formats = getattr(frame, "_fmt_map", None)
    shown = pd.DataFrame(formats).reindex(frame.index) if formats else pd.DataFrame(frame)
    print(shown.rename(index=printable).to_string())
