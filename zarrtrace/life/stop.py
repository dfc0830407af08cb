"""Ask a run to stop at a draw, from any process, and take that back."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from ..errors import FinishedError, InvalidInputError
from ..layout.hierarchy import Hierarchy
from ..layout.layout import Layout
from ..layout.spans import span_of, written_spans
from ..layout.variables import Variable
from ..messages import counted
from ..reading.moment import Moment
from ..recording.exit import open_writers
from ..recording.writer import ChainWriter
from ..sampling_state.block import chain_blocks, read_claims
from ..sampling_state.request import StopRequest, remove_request, write_request
from .change import alone
from .status import has_all_draws

_LOOK = 0.25  # seconds between two looks at a run, which show how fast it is
_LATEST = 2.0  # seconds after which every writer on the same disk has seen a request


class Asked(NamedTuple):
    """What became of a request.

    Attributes
    ----------
    at : int
        The draws at which chains end, warmup included; 0 for at once.
    living : int
        The chains that are recorded now, as far as this process can tell.
    """

    at: int
    living: int


def request_stop(
    hierarchy: Hierarchy,
    at: int | None,
    *,
    now: bool = False,
    reason: str = "",
    goal: Mapping[str, str | int | float] | None = None,
    most: float = math.inf,
) -> Asked:
    """Ask all chains to stop at a draw; `Trace.request_stop` says how it is chosen.

    Parameters
    ----------
    goal : mapping, optional
        Attributes that say by which rule the length was chosen.
    most : float, optional
        How many times the draws of the longest chain the end of a chunk may be away; otherwise the
        chains stop where all will have heard of it.
    """
    with alone(hierarchy) as layout:
        moment = Moment.of(hierarchy)
        if layout.closed:
            raise FinishedError(
                "the run is finished, so there is nothing to stop",
                where=str(hierarchy),
                remedy="nothing records here",
            )
        if has_all_draws(moment):
            raise InvalidInputError(
                f"all chains have the {counted(moment.end.draws, 'draw')} that they shall have, so "
                f"there is nothing to stop",
                where=str(hierarchy),
                remedy="trace.finish() ends the run",
            )
        _require_draw(hierarchy, layout, at, now, reason)
        living = _count_living(moment)
        if now:
            at = 0
        elif at is None:
            at = _next_common_end(moment, bool(living), most)
        request = StopRequest.by_this_process(layout, int(at), reason, goal or {})
        write_request(hierarchy.location, request)
    _tell_writers(moment)
    return Asked(request.at, living)


def said_of_stop(at: int, tune: int) -> str:
    """Where a run ends that was asked to stop: `at draw 600, 100 draws after the warmup`."""
    return (
        f"at draw {at}, {counted(max(at - tune, 0), 'draw')} after the warmup" if at else "at once"
    )


def cancel_stop(hierarchy: Hierarchy) -> bool:
    """Take a request back; False when there is none."""
    with alone(hierarchy):
        moment = Moment.of(hierarchy)
        is_asked = moment.end.request is not None
        remove_request(hierarchy.location)
    _tell_writers(moment)
    return is_asked


def _tell_writers(moment: Moment) -> None:
    """Let the writers of this process look at once: others do so now and then."""
    for writer in _writers(moment):
        writer._look_for_news()


def _require_draw(
    hierarchy: Hierarchy, layout: Layout, at: int | None, now: bool, reason: str
) -> None:
    if not isinstance(reason, str):
        raise InvalidInputError(f"reason must be text, got {reason!r}")
    if now and at is not None:
        raise InvalidInputError(f"at={at!r} and now=True exclude each other: give one of them")
    is_number = isinstance(at, int | np.integer) and not isinstance(at, bool)
    if at is not None and (not is_number or at < 1):
        raise InvalidInputError(
            f"at must be a number of draws from 1, warmup included, got {at!r}; now=True stops at "
            f"once"
        )
    if at is not None and at >= layout.total:
        raise InvalidInputError(
            f"the chains of {hierarchy} end at draw {layout.total} anyway, and at={at} is not "
            f"before it"
        )


def _count_living(moment: Moment) -> int:
    blocks = chain_blocks(moment.location, moment.layout)
    claims = read_claims(blocks)
    return sum(
        len(block.chains)
        for block, claim in zip(blocks, claims, strict=True)
        if claim is not None and claim.seems_alive
    )


def _next_common_end(moment: Moment, is_recorded: bool, most: float) -> int:
    """The next end of a chunk that no chain will have passed when it hears of the request.

    It is the end of the longest chunks that end in time.
    """
    layout = moment.layout
    first = _most_draws(moment) + (_draws_before_heard(moment) if is_recorded else 0)
    ends = [(v.draws_per_chunk, _end_of_chunk(layout, v, first)) for v in layout.variables]
    last = min(layout.total - 1, most * first)
    in_time = [(length, end) for length, end in ends if end <= last]
    if in_time:
        return max(in_time)[1]
    if first < layout.total:
        return max(first, 1)
    raise InvalidInputError(
        f"the chains of {moment} end at draw {layout.total} before they would hear of it",
        remedy="wait for the end, or give now=True",
    )


def _end_of_chunk(layout: Layout, variable: Variable, draw: int) -> int:
    """The first number of draws from this one on that fills all begun chunks of a variable."""
    before = max(draw - 1, 0)
    span = span_of(written_spans(layout, variable), before)
    return span.place(before, variable.draws_per_chunk).draws.stop


def _draws_before_heard(moment: Moment) -> int:
    """How many draws the fastest chain records until all writers know of a request."""
    location, layout = moment.location, moment.layout
    blocks = chain_blocks(location, layout)
    living = [claim for claim in read_claims(blocks) if claim is not None and claim.seems_alive]
    # Writers of this process are told at once; others on a disk look each second.
    if location.path is not None or all(claim.is_held for claim in living):
        before = _most_draws(moment)
        time.sleep(_LOOK)
        drawn = _most_draws(Moment.of(moment.hierarchy)) - before
        return math.ceil(drawn * _LATEST / _LOOK)
    counts = moment.counts[:: layout.chains_per_chunk].tolist()
    speeds: list[float] = [
        count / max(float(block.read("sampling_time") or 0.0), 1.0)
        for block, count in zip(blocks, counts, strict=True)
    ]
    # They have drawn since their last flush, and look at the next one.
    return math.ceil(max(speeds) * 2 * layout.flush_every)


def _most_draws(moment: Moment) -> int:
    """The draws of the longest chain, with those that writers of this process have in memory."""
    counts: list[int] = [*moment.counts.tolist(), *(one.recorded for one in _writers(moment))]
    return max(counts)


def _writers(moment: Moment) -> list[ChainWriter]:
    """The open writers of this trace in this process."""
    chain_writers = [writer for writer in open_writers() if isinstance(writer, ChainWriter)]
    return [one for one in chain_writers if one._layout.identity == moment.layout.identity]
