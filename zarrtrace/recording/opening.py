"""Open a writer, and wait for another one elsewhere that may be dead."""

from __future__ import annotations

import time

from ..errors import ChainBusyError
from ..layout.hierarchy import Hierarchy
from ..messages import warn_caller
from ..sampling_state.block import ChainBlock
from ..sampling_state.claim import LOOK_EVERY, STALE_AFTER
from .writer import ChainWriter, ThinningWriter


def open_writer(
    hierarchy: Hierarchy, number: int, *, force: bool = False, patience: float = 0.0
) -> ChainWriter:
    """Open the writer of a block of chains.

    Parameters
    ----------
    number : int
        The block, counted from 0.
    patience : float, default 0
        Seconds to retry while a writer claims the chains that this process cannot see, or whose
        process is stopped.

    Raises
    ------
    ChainBusyError
        The chains are recorded by another writer.
    """
    block = ChainBlock(hierarchy.location, hierarchy.layout, number)
    deadline = time.monotonic() + patience
    told = False
    writer = ThinningWriter if hierarchy.layout.thin > 1 else ChainWriter
    while True:
        try:
            return writer(hierarchy, number, force=force)
        except ChainBusyError:
            left = deadline - time.monotonic()
            claim = block.claim
            is_seen_alive = claim is not None and claim.is_visible and claim.alive
            if left <= 0 or (claim is not None and is_seen_alive and not claim.is_stopped):
                raise
        if not told:
            told = True
            warn_caller(
                f"{block} is claimed by {claim or 'another writer'}; waiting up "
                f"to {patience:.0f} s until that is closed, or silent for {STALE_AFTER:.0f} s"
            )
        time.sleep(min(LOOK_EVERY, left))
