"""How long a run will take: until it has its draws, and until it reaches a goal."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

from ..diagnostics.goal import Converged
from .progress import ChainLook

_ERROR = 0.2  # of an estimate of the effective sample size, at least


class TimeLeft(NamedTuple):
    """A time in seconds, as a range."""

    least: float
    most: float


class Reached(NamedTuple):
    """What exact values said: the draws of each chain, and the smallest ESS of the watch list."""

    draws: int
    ess: float


def time_left(chains: Iterable[ChainLook]) -> float | None:
    """Seconds until the slowest chain has its draws.

    None where that cannot be said: a chain has no planned end, has not begun, or has no writer.
    """
    seconds = 0.0
    for chain in chains:
        if chain.phase == "done":
            continue
        if chain.planned is None or not chain.rate or chain.has_ended:
            return None
        seconds = max(seconds, (chain.planned - chain.draws) / chain.rate)
    return seconds


def time_to_goal(
    goal: Converged, reached: Iterable[Reached], chains: Iterable[ChainLook], worst_rhat: float
) -> TimeLeft | None:
    """Seconds until R-hat and the smallest ESS reach the goal, by the draws that it took so far.

    The range is that of the ESS per draw at the last looks, and never smaller than the error of
    one estimate. None where the chains disagree, so that there is no ESS to count on, and where
    one of them records no draws.
    """
    chains = list(chains)
    known = [one for one in reached if one.ess > 0 and one.draws > 0]
    rates = [chain.rate for chain in chains if chain.phase != "done" and chain.rate]
    is_stuck = any(chain.has_ended for chain in chains)
    if not known or not rates or is_stuck or not worst_rhat < 1.1:
        return None
    draws, ess = known[-1]
    least_ess = goal.ess or 0.0
    most_rhat = math.inf if goal.rhat is None else goal.rhat
    if ess > least_ess and worst_rhat < most_rhat:
        return TimeLeft(0.0, 0.0)
    per_draw = [one.ess / one.draws for one in known]
    best, worst = max(per_draw) * (1 + _ERROR), min(per_draw) * (1 - _ERROR)
    slowest = min(rates)
    # R-hat - 1 falls as the number of draws rises.
    for_rhat = draws * (worst_rhat - 1) / (most_rhat - 1) if worst_rhat > most_rhat else 0.0
    least = max(least_ess / best, for_rhat) - draws
    most = max(least_ess / worst, for_rhat) - draws
    if not math.isfinite(most):
        return None
    return TimeLeft(max(0.0, least) / slowest, max(0.0, most) / slowest)
