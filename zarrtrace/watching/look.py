"""What one look at a run shows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .exact import Exact
from .forecast import TimeLeft
from .progress import ChainLook

LOOKS = 24  # of which the R-hat is kept


@dataclass(frozen=True)
class WatchedValue:
    """One scalar of the watch list.

    Attributes
    ----------
    name : str
        Such as `theta[3, 0]`.
    split_rhat : float
        Of the draws that the look is of; NaN where there is none.
    exact : Exact or None
        The exact values as they were computed last; None where that was not possible yet.
    rhats : tuple of float
        Split R-hat at the last looks, the newest last.
    """

    name: str
    split_rhat: float
    exact: Exact | None
    rhats: tuple[float, ...]

    @property
    def worst_rhat(self) -> float:
        """The exact R-hat, or split R-hat until there is one; -inf where there is neither."""
        rhat = self.split_rhat if self.exact is None else self.exact.rhat
        return -np.inf if np.isnan(rhat) else rhat


@dataclass(frozen=True)
class Look:
    """What one look at a trace shows.

    Attributes
    ----------
    path : str
        Where the trace is.
    time : float
        When it was made, in seconds since the epoch.
    status : str
        That of the trace: `new`, `sampling`, `stopped`, `complete` or `finished`.
    chains : list of ChainLook
        One for each writer.
    course_of : str
        The scalar whose course is shown: lp, or the first one of the posterior; "" for none.
    burn_in : int
        Draws at the start of each chain that are left out of R-hat.
    rhat_draws : int
        How many draws of each chain split R-hat is of; 0 where there is none.
    rhat_chains : tuple of int
        Of which chains.
    exact_draws : int
        How many draws of each chain the exact values are of.
    worst_rhat : float
        The largest R-hat of the watch list; NaN where there is none.
    watched, of_scalars : int
        How many scalars are watched, of how many.
    values : list of WatchedValue
        The watch list: lp, energy, the named ones, and the worst ones by split R-hat.
    notes : tuple of str
        What could not be read or watched, in words.
    time_left : float or None
        Seconds until the slowest chain has its draws; None where unknown.
    time_to_goal : TimeLeft or None
        Seconds until the goal is met, as a range; None where it cannot be said.
    only_flushed : bool
        Whether draws are seen only when they are flushed: from another machine, and where there
        is no journal.
    flushed : float or None
        Seconds since the last flush; None where the store has no clock.
    """

    path: str
    time: float
    status: str
    chains: list[ChainLook]
    course_of: str
    burn_in: int
    rhat_draws: int
    rhat_chains: tuple[int, ...]
    exact_draws: int
    worst_rhat: float
    watched: int
    of_scalars: int
    values: list[WatchedValue]
    notes: tuple[str, ...]
    time_left: float | None
    time_to_goal: TimeLeft | None
    only_flushed: bool
    flushed: float | None

    @property
    def is_over(self) -> bool:
        """Whether all draws are recorded."""
        return self.status in ("finished", "complete")

    @property
    def dead(self) -> list[ChainLook]:
        """The chains whose writer died before they had all their draws."""
        return [chain for chain in self.chains if chain.writer == "dead"]

    @property
    def is_dead(self) -> bool:
        """Whether a chain died, and no other one is recorded any more."""
        return bool(self.dead) and not any(
            chain.writer in ("alive", "silent") for chain in self.chains
        )


@dataclass(frozen=True)
class Gone:
    """A look at a trace that cannot be read.

    Attributes
    ----------
    reason : str
        Why, in words.
    seconds : float
        For how long.
    """

    path: str
    time: float
    reason: str
    seconds: float
