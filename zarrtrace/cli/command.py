"""The commands together: their parser, and how a failure is told."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from .. import __version__
from ..errors import TraceError
from ..messages import printable
from . import (
    adopt,
    check,
    compact,
    demo,
    diagnose,
    finish,
    follow,
    info,
    ls,
    pack,
    repair,
    report,
    serve,
    stop,
    summary,
    tensorboard,
    watch,
)

# In the order in which `zarrtrace --help` lists them.
_COMMANDS = (
    demo,
    info,
    summary,
    diagnose,
    report,
    serve,
    ls,
    watch,
    tensorboard,
    stop,
    check,
    repair,
    finish,
    compact,
    pack,
    adopt,
    follow,
)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command, with one subparser for each of its commands.

    A parsed command has an attribute `run_command`, a function that takes what was parsed and
    returns the exit code.
    """
    parser = argparse.ArgumentParser(
        prog="zarrtrace",
        description="Look at the traces of MCMC samplers, check and convert them, or try a demo.",
    )
    parser.add_argument("--version", action="version", version=f"zarrtrace {__version__}")
    parser.add_argument(
        "--traceback", action="store_true", help="show where in the code a failure comes from"
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for module in _COMMANDS:
        module.add_command(commands)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 0 when it did what was asked, 1 with a message when it could not."""
    parsed = build_parser().parse_args(arguments)
    try:
        code: int = parsed.run_command(parsed)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        print("\nzarrtrace: interrupted; every recorded draw is kept", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # Whoever reads the output, such as `head`, has enough; Python flushes again when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if parsed.traceback:
            raise
        print(f"zarrtrace: {_reason(error)}", file=sys.stderr)
        return 1


def _reason(error: Exception) -> str:
    """What went wrong; of an error that is not ours, its type too, on one line."""
    if isinstance(error, TraceError):
        return "\n".join(map(printable, str(error).splitlines()))
    said = " ".join(str(error).split()) or "no reason given"
    hint = "" if isinstance(error, OSError) else "; zarrtrace --traceback ... shows where"
    return printable(f"{type(error).__name__}: {said}{hint}")
