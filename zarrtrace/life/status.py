"""The status of a trace: one word, since when, and what to do next."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

import numpy as np

from ..layout.layout import STATE
from ..reading.moment import Moment
from ..sampling_state.block import chain_blocks, read_claims
from ..sampling_state.claim import Claim
from ..sampling_state.request import StopRequest

_GOES_ON = ("sampling", "stopped")


class Status(NamedTuple):
    """The status of a trace.

    Attributes
    ----------
    word : str
        `new`, `sampling`, `stopped`, `complete` or `finished`.
    since : float or None
        Since when, in seconds since the epoch; None where unknown.
    request : StopRequest or None
        The request that a complete trace has fulfilled: it has fewer draws than were declared.
    """

    word: str
    since: float | None
    request: StopRequest | None = None

    def __str__(self) -> str:
        since = time_label(self.since)
        if self.request is not None:
            return f"{self.word}, stopped {'at its goal' if self.request.goal else 'on request'}"
        # The time is shown for a run that continues, not for one with all its draws.
        return f"{self.word} since {since}" if since and self.word in _GOES_ON else self.word


def find_status(now: Moment, claims: Sequence[Claim | None] | None = None) -> Status:
    """The status of a trace, as far as this process can tell at once.

    A writer on another machine counts as alive while its last heartbeat is younger than a minute,
    by the clocks of both.

    Parameters
    ----------
    claims : sequence of Claim or None, optional
        Those of all blocks of chains; by default they are read.
    """
    if now.layout.finished:
        return Status("finished", now.location.written_at(f"{STATE}/zarr.json"))
    blocks = chain_blocks(now.location, now.layout)
    claims = read_claims(blocks) if claims is None else claims
    living = [claim.since for claim in claims if claim is not None and claim.seems_alive]
    is_declared = bool((now.counts == now.layout.total).all())
    # To read a request takes a request to the store: of a run without draws, or with all, none.
    may_be_stopped = bool(now.counts.any()) and not is_declared
    is_stopped = may_be_stopped and has_all_draws(now) and not (living and now.end.draws == 0)
    is_complete = is_declared or is_stopped
    if living and not is_complete:
        return Status("sampling", min(living))
    if not now.counts.any():
        return Status("new", parse_time(now.layout.created_at))
    # A killed writer has left its claim, and a closed one has removed it.
    ends = [
        now.location.written_at(block.key("writer")) if claim is None else claim.beat
        for block, claim in zip(blocks, claims, strict=True)
    ]
    since = max((end for end in ends if end is not None), default=None)
    word = "complete" if is_complete else "stopped"
    return Status(word, since, now.end.request if is_stopped else None)


def has_all_draws(now: Moment) -> bool:
    """Whether each chain has all its draws: those declared, or those it was asked to stop at."""
    return bool((now.counts[now.layout.kept_chains] >= now.end.draws).all())


def next_step(now: Moment, word: str) -> str:
    """What to do next with a trace whose status is `word`; "" if there is nothing to do."""
    layout = now.layout
    if layout.splitting or (layout.closed and not layout.finished):
        return "zarrtrace.open(path, mode='a') completes what was interrupted"
    if word == "new":
        return "trace.writer(chain) records a chain, and zarrtrace.run(function, trace) runs all"
    if word == "stopped":
        return f"run the sampler again to continue, or {_finish(now)} ends the run with what it has"
    return "trace.finish() makes a trace that any Zarr reader opens" if word == "complete" else ""


def _finish(now: Moment) -> str:
    """The call that finishes a trace, without the chains that would prevent it."""
    begun = np.flatnonzero(now.counts > now.layout.most_warmup).tolist()
    if len(begun) == now.layout.chains or not begun:
        return "trace.finish()"
    return f"trace.finish(chains={begun})" if len(begun) < 9 else "trace.finish(chains=[...])"


def time_label(time: float | None) -> str:
    """`2026-11-26 14:03`, on the clock of this machine; "" for none."""
    try:
        return "" if time is None else f"{datetime.fromtimestamp(time):%Y-%m-%d %H:%M}"
    except (ValueError, OverflowError, OSError):
        return ""


def parse_time(when: str) -> float | None:
    """The time in a document in seconds since the epoch; None if it cannot be read."""
    try:
        return datetime.fromisoformat(when).timestamp()
    except (ValueError, OverflowError, OSError):
        return None
