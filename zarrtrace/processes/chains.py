"""What the modules of this package call a chain, and its names in messages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..trace import Trace

Block = int | range
ChainFunction = Callable[[Any, Trace], object]


def first_chain(block: Block) -> int:
    """The chain that stands for its block."""
    return block if isinstance(block, int) else block[0]


def block_name(block: Block) -> str:
    """`chain 3` or `chains 0-31`."""
    return f"chain {block}" if isinstance(block, int) else f"chains {block[0]}-{block[-1]}"


def first_line(report: str) -> str:
    """The type of an exception and the first line of its message, in a traceback's text."""
    lines = report.rpartition("Traceback (most recent call last):")[2].strip("\n").splitlines()
    said = [line for line in lines if line and not line.startswith(" ")]
    return said[0] if said else report.strip()
