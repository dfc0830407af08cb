"""Who may append to a table: one process at a time."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import ChainBusyError
from ..sampling_state.claim import STALE_AFTER, Claim
from ..store.location import Location

_PATIENCE = 10.0  # seconds that another process may take to make, open or close the same table


@contextmanager
def alone(location: Location) -> Iterator[None]:
    """Hold off other processes that would make, open, close or repair this table."""
    location.require_writable()
    if location.path is not None:
        location.path.mkdir(parents=True, exist_ok=True)
    with location.alone(_PATIENCE) as alone:
        if not alone:
            raise ChainBusyError(
                f"{location} is being made, opened or repaired by another process; try again"
            )
        yield


def require_free(location: Location, claim: Claim | None) -> None:
    """Refuse a table that a living process appends to."""
    if claim is not None and claim.alive:
        raise busy(location, claim)


def busy(location: Location, claim: Claim | None) -> ChainBusyError:
    """The error for a table that has a writer already."""
    who = "another process" if claim is None else str(claim)
    remedy = "close() the table there, or end that process"
    if claim is not None and claim.host != platform.node():
        remedy += f"; if it is gone, wait until it is silent for {STALE_AFTER:.0f} s"
    return ChainBusyError(f"{location} has a writer already: {who}; {remedy}")
