"""Words that error messages and descriptions share, and warnings that name the caller's line."""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Collection
from types import FrameType

_PACKAGE = __name__.partition(".")[0]


def warn_caller(message: str) -> None:
    """Warn, and name the line that called into this package."""
    level = 1
    frame: FrameType | None = sys._getframe()
    while frame is not None and _is_between(frame.f_globals.get("__name__", "")):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, RuntimeWarning, stacklevel=level)


def _is_between(module: str) -> bool:
    return module.partition(".")[0] in (_PACKAGE, "contextlib")


def counted(count: int, what: str) -> str:
    """`1 row`, `2 rows`."""
    return f"{count} {what}{'s' * (count != 1)}"


def rounded_down(number: float | None) -> str:
    """`399` for 399.6, so that a number just below a goal does not look as if it reached it.

    ArviZ rounds effective sample sizes down as well. `-` for NaN and none.
    """
    if number is None or not math.isfinite(number):
        return "-"
    return str(math.floor(number))


def printable(text: object) -> str:
    """Text of a store for a terminal: characters that are not printable are escaped."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(text))


def range_label(what: str, numbers: range) -> str:
    """`draw 5`, `draws 5 to 9` or `no draws`; the last number is part of the range."""
    if not numbers:
        return f"no {what}s"
    if len(numbers) == 1:
        return f"{what} {numbers[0]}"
    return f"{what}s {numbers[0]} to {numbers[-1]}"


def list_chains(chains: Collection[int]) -> str:
    """`chain 3`, `chains 0, 2 and 5`, or `100 chains, from 0 to 120` when there are many."""
    *first, last = chains
    if len(first) > 9:
        return f"{len(chains)} chains, from {first[0]} to {last}"
    return f"chains {', '.join(map(str, first))} and {last}" if first else f"chain {last}"


def chain_label(chains: range) -> str:
    """`chain 3` or `chains 0 to 31`."""
    return range_label("chain", chains)
