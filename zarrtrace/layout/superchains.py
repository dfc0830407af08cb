"""Superchains: groups of chains that start at the same point, for nested R-hat.

A trace declares them in the attribute `superchains` of its groups: a list with the number of the
superchain of each chain.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import InvalidInputError
from ..messages import counted

ATTRIBUTE = "superchains"


def check_superchains(superchains: Sequence[int], chains: int) -> list[int]:
    """Return the number of the superchain of each chain.

    Raises
    ------
    InvalidInputError
        They are not whole numbers, one for each chain, of two or more superchains of equal size.
    """
    remedy = "give the number of its superchain for each chain, such as [0, 0, 1, 1]"
    try:
        numbers = np.asarray(superchains)
    except ValueError:  # lists of several lengths
        numbers = np.asarray(None)
    if numbers.ndim != 1 or numbers.dtype.kind not in "iu":
        raise InvalidInputError(
            f"superchains must be whole numbers, got {superchains!r}", remedy=remedy
        )
    if len(numbers) != chains:
        raise InvalidInputError(
            f"superchains has {len(numbers)} numbers for {chains} chains", remedy=remedy
        )
    if not are_equal(numbers.tolist()):
        sizes = sorted(Counter(numbers.tolist()).items())
        shown = ", ".join(f"{counted(size, 'chain')} in {number}" for number, size in sizes[:5])
        raise InvalidInputError(
            f"superchains must be two or more with as many chains in each, got {shown}",
            remedy=remedy,
        )
    return list(map(int, numbers))


def superchain_attrs(superchains: Sequence[int] | None, chains: int) -> dict[str, list[int]]:
    """The attribute that declares superchains; none for None."""
    return {} if superchains is None else {ATTRIBUTE: check_superchains(superchains, chains)}


def declared_superchains(attrs: Mapping[str, Any], chains: int) -> list[int] | None:
    """What attributes declare; None if that is nothing, or something else by this name."""
    try:
        return check_superchains(attrs[ATTRIBUTE], chains)
    except (KeyError, InvalidInputError):
        return None


def are_equal(superchains: list[int]) -> bool:
    """Whether there are two or more superchains with as many chains in each."""
    sizes = Counter(superchains)
    return len(sizes) > 1 and len(set(sizes.values())) == 1
