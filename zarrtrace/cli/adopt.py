"""`zarrtrace adopt`: make a trace from the result of another library."""

from __future__ import annotations

import argparse

from ..adopt.from_datatree import from_datatree
from .arguments import Commands, storage_argument, storage_options
from .info import show_info


def add_command(commands: Commands) -> None:
    """Add `adopt` to the parser."""
    adopt = commands.add_parser(
        "adopt",
        parents=[storage_argument()],
        help="make a trace from the result of another library",
    )
    adopt.add_argument(
        "path",
        metavar="PATH",
        nargs="+",
        help="netCDF of ArviZ, Zarr of nutpie or others, HDF5 of emcee, CSV of CmdStan or their "
        "directory, or other tables of draws; pass the files of all chains",
    )
    adopt.add_argument("out", metavar="OUT", help="where to make the trace")
    adopt.set_defaults(run_command=_run_command)


def _run_command(parsed: argparse.Namespace) -> int:
    paths = parsed.path
    result = paths[0] if len(paths) == 1 else paths
    show_info(from_datatree(result, parsed.out, storage_options=storage_options(parsed)))
    return 0
