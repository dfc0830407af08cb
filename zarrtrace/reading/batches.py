"""Batches of what is read together, because one read of many costs less than many reads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")


def batches(
    items: Iterable[Item], size: Callable[[Item], int], most: float
) -> Iterator[list[Item]]:
    """Yield the items in order, in lists whose sizes sum to `most` at most.

    An item that is larger is in a list of its own.
    """
    batch: list[Item] = []
    filled = 0
    for item in items:
        needed = size(item)
        if batch and filled + needed > most:
            yield batch
            batch, filled = [], 0
        batch.append(item)
        filled += needed
    if batch:
        yield batch
