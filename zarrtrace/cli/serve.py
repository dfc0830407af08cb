"""`zarrtrace serve`: the page of a run, or of a folder of runs, live in a browser."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import TraceNotFoundError
from ..layout.hierarchy import Hierarchy
from ..messages import printable
from ..report.write import require_bokeh
from ..store.locate import locate
from .arguments import Commands, storage_argument, storage_options

if TYPE_CHECKING:
    from ..serving.server import OfFolder, OfTrace

_PORT = 8117


def add_command(commands: Commands) -> None:
    """Add `serve` to the parser."""
    serve = commands.add_parser(
        "serve",
        parents=[storage_argument()],
        help="show the page of a run, or of a folder of runs, live in a browser; Ctrl-C ends it",
    )
    serve.add_argument("path", metavar="PATH", help="a trace or a folder, finished or recorded")
    serve.add_argument(
        "--host",
        metavar="ADDRESS",
        help="an address of this machine, such as 0.0.0.0, where others can look too, with the "
        "token in the address that is printed (this machine alone)",
    )
    serve.add_argument(
        "--port", type=int, default=_PORT, metavar="N", help="0 for any that is free (%(default)s)"
    )
    serve.add_argument(
        "--allow-stop", action="store_true", help="show a button that asks the run to stop"
    )
    serve.set_defaults(run_command=_run_command)


def _run_command(parsed: argparse.Namespace) -> int:
    require_bokeh("a live page")
    from ..serving.server import Served, bind

    shown = what_is_there(parsed)
    served = Served(shown, bind(parsed.host, parsed.port), parsed.host)

    def say_that_it_is_ready() -> None:
        print(f"{printable(parsed.path)}: {served.address} (Ctrl-C ends it)", flush=True)

    served.run(say_that_it_is_ready)
    return 0


def what_is_there(parsed: argparse.Namespace) -> OfTrace | OfFolder:
    """What `serve` shows of a path: a trace, or else a folder, which may have no run yet."""
    from ..serving.server import OfFolder, OfTrace

    options = storage_options(parsed)
    try:
        # `open` would open the only trace of a folder, and others may come.
        _ = Hierarchy(locate(parsed.path, read_only=True, storage_options=options)).layout
    except TraceNotFoundError:
        runs = OfFolder(parsed.path, options, parsed.allow_stop)
        if not runs.has_runs and (Path(parsed.path) / "zarr.json").exists():
            raise  # a Zarr group of somebody else
        return runs
    return OfTrace(parsed.path, options, parsed.allow_stop)
