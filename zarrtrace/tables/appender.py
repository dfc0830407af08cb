"""Only one process at a time may append to a table."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ..errors import ChainBusyError
from ..sampling_state.claim import STALE_AFTER, Claim, watch
from ..store.location import Location

_PATIENCE = 10.0  # seconds that another process may take to make, open or close the same table


@contextmanager
def alone(location: Location) -> Iterator[None]:
    """Lock out other processes that would make, open, close or repair this table."""
    location.require_writable()
    if location.path is not None:
        location.path.mkdir(parents=True, exist_ok=True)
    with location.alone(_PATIENCE) as alone:
        if not alone:
            raise ChainBusyError(
                f"{location} is being made, opened or repaired by another process; try again"
            )
        yield


def require_free(
    location: Location, read_claim: Callable[[], Claim | None], key: str = "zarr.json"
) -> None:
    """Refuse a table that a living process appends to.

    A process that this one cannot see is watched until it is clear whether it is alive.

    Parameters
    ----------
    read_claim : callable
        Reads the claim.
    key : str, default "zarr.json"
        The key of the claim.

    Raises
    ------
    ChainBusyError
        It names the host, the process and the age of that writer.
    """
    claim = read_claim()
    if claim is None or claim.is_of_the_past(location.age(key)):
        return
    living = watch(read_claim)
    if living is not None:
        raise busy(location, living)


def busy(location: Location, claim: Claim | None) -> ChainBusyError:
    """The error for a table that has a writer already."""
    who = "another process" if claim is None else str(claim)
    remedy = "close() the table there, or end that process"
    if claim is not None and not claim.is_visible:
        remedy += f"; if it is gone, wait until it is silent for {STALE_AFTER:.0f} s"
    return ChainBusyError(f"{location} has a writer already: {who}; {remedy}")
