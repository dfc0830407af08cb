"""The words that error messages and descriptions share."""

from __future__ import annotations


def chain_label(chains: range) -> str:
    """`chain 3` or `chains 0 to 31`."""
    return f"chain {chains[0]}" if len(chains) == 1 else f"chains {chains[0]} to {chains[-1]}"


def counted(count: int, what: str) -> str:
    """`1 row`, `2 rows`."""
    return f"{count} {what}{'s' * (count != 1)}"


def printable(text: object) -> str:
    """Text of a store for a terminal: what is not printable, such as an escape, is spelled out."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(text))
