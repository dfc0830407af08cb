"""The words that error messages and descriptions share."""

from __future__ import annotations


def counted(count: int, what: str) -> str:
    """`1 row`, `2 rows`."""
    return f"{count} {what}{'s' * (count != 1)}"


def printable(text: object) -> str:
    """Text of a store for a terminal: what is not printable, such as an escape, is spelled out."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(text))


def range_label(what: str, numbers: range) -> str:
    """`draw 5`, `draws 5 to 9` or `no draws`; the last number is part of the range."""
    if not numbers:
        return f"no {what}s"
    if len(numbers) == 1:
        return f"{what} {numbers[0]}"
    return f"{what}s {numbers[0]} to {numbers[-1]}"


def chain_label(chains: range) -> str:
    """`chain 3` or `chains 0 to 31`."""
    return range_label("chain", chains)
