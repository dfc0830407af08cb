"""`zarrtrace compact`: round the draws of a finished trace to a part of their errors."""

from __future__ import annotations

import argparse
import math
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..diagnostics.transposed import size_label
from ..errors import InvalidInputError
from ..layout.rounding import power_label
from ..life import as_json
from ..messages import printable
from ..opening import open
from .arguments import Commands, json_argument, storage_argument, storage_options

if TYPE_CHECKING:
    import pandas as pd

_CHANGES = ("mean", "sd", "q05", "q50", "q95", "ess_bulk", "ess_tail", "r_hat")


def add_command(commands: Commands) -> None:
    """Add `compact` to the parser."""
    compact = commands.add_parser(
        "compact",
        parents=[storage_argument(), json_argument()],
        help="round the draws of a finished trace to a part of their Monte Carlo errors",
    )
    compact.add_argument("path", metavar="PATH", help="a finished trace")
    compact.add_argument(
        "--dry-run",
        action="store_true",
        help="only print what it would save, and what would change in units of the errors",
    )
    compact.add_argument(
        "--keep",
        metavar="COPY",
        nargs="?",
        const="",
        help="copy the trace with all its bits first (to PATH without its ending, and -exact.zarr)",
    )
    compact.add_argument(
        "--error",
        type=_fraction,
        default=1 / 16,
        metavar="PART",
        help="the largest rounding as a part of the smallest Monte Carlo error (1/16)",
    )
    compact.add_argument(
        "--force",
        action="store_true",
        help="also if R-hat exceeds 1.05, or there are fewer than 100 effective draws",
    )
    compact.set_defaults(run_command=_run_command)


def _fraction(text: str) -> float:
    try:
        return float(Fraction(text))
    except (ValueError, ZeroDivisionError):
        raise argparse.ArgumentTypeError(f"give a part such as 1/16, got {text!r}") from None


def _run_command(parsed: argparse.Namespace) -> int:
    mode: Literal["r", "a"] = "r" if parsed.dry_run else "a"
    trace = open(parsed.path, mode, storage_options=storage_options(parsed))
    keep = _place_beside(parsed.path) if parsed.keep == "" else parsed.keep
    if not parsed.dry_run and not parsed.json:
        print(
            "Rounded bits are gone for good"
            + (f": the trace is copied to {printable(keep)} first." if keep else ", and there is "
               "no way back. --keep writes a copy first."),
            flush=True,
        )  # fmt: skip
    table = trace.compact(error=parsed.error, dry_run=parsed.dry_run, keep=keep, force=parsed.force)
    if parsed.json:
        rows = {str(name): row.to_dict() for name, row in table.iterrows()}
        content: dict[str, Any] = {"path": trace.path, "dry_run": parsed.dry_run}
        print(as_json.to_json({**content, "error": parsed.error, "variables": rows}))
        return 0
    _show(table, parsed.dry_run)
    before, after = int(table.before.sum()), int(table.after.sum())
    verb = "would take" if parsed.dry_run else "takes"
    print(
        f"{printable(trace.path)} {verb} {size_label(after)} in place of {size_label(before)} for "
        f"its draws: {before / max(after, 1):.1f} times smaller"
    )
    return 0


def _place_beside(path: str) -> str:
    """Where a copy with all bits goes by default: `run-exact.zarr` for `run.zarr`."""
    if "://" in path:
        raise InvalidInputError("a copy of a trace at a URL needs a place", remedy="--keep COPY")
    place = Path(path).absolute()
    return str(place.with_name(f"{place.stem}-exact.zarr"))


def _show(table: pd.DataFrame, is_dry_run: bool) -> None:
    """Print a row for each variable."""
    import pandas as pd

    shown = pd.DataFrame(index=[printable(name) for name in table.index])
    shown["before"] = [size_label(size) for size in table.before]
    shown["after"] = [size_label(size) for size in table.after]
    shown["rounded to"] = [
        _quanta(*pair) for pair in zip(table.smallest, table.largest, strict=True)
    ]
    if is_dry_run:
        for name in _CHANGES:
            as_part = name.startswith("ess")
            shown[name] = [
                "" if math.isnan(value) else f"{100 * value:.2g} %" if as_part else f"{value:.2g}"
                for value in table[name]
            ]
    print(shown.to_string())
    if is_dry_run:
        print(
            "mean to q95: the largest change of an element, in units of its Monte Carlo error; "
            "ess: in percent; r_hat: as it is"
        )


def _quanta(smallest: float, largest: float) -> str:
    """`2^-9`, `2^-9 to 2^-3`, or `exact`."""
    if math.isnan(smallest):
        return "exact"
    powers = dict.fromkeys(map(power_label, (smallest, largest)))
    return " to ".join(powers)
