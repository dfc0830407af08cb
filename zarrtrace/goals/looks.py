"""Looks at a run until its goal is met: when to look, what is recorded of it, when to stop."""

from __future__ import annotations

import time

import numpy as np

from ..diagnostics.goal import Converged
from ..errors import InvalidInputError
from ..layout.variables import Var
from ..life.stop import request_stop
from ..messages import warn_caller
from ..reading.moment import Moment
from ..trace import Trace
from .converged import APART, GoalLook, count_draws, look, require_possible

TABLE = "looks"
_COLUMNS = {
    "time": Var(dtype="float64"),
    "draws": Var(dtype="int64"),
    "rhat": Var(dtype="float64"),
    "rhat_of": Var(dtype=str),
    "ess": Var(dtype="float64"),
    "ess_of": Var(dtype=str),
    "mcse": Var(dtype="float64"),
    "mcse_of": Var(dtype=str),
    "holds": Var(dtype=bool),
    "rule": Var(dtype=str),
}
_ASK_EVERY = 1.0  # seconds between questions whether there are enough draws for a look
_HOW = "the length was chosen by looking at the draws (arXiv:1303.0238, arXiv:1512.07713)"


class Looks:
    """Looks at a run now and then, and asks it to stop once its goal is met.

    Each look has a tenth more draws than the one before, at least. The goal is met when it holds at
    two looks in a row. Every look is a row of the table `looks` of the trace.

    Parameters
    ----------
    trace : Trace
        A trace that is open for writing.
    goal : Converged
        What has to hold.

    Attributes
    ----------
    last : GoalLook or None
        The last look.
    stops_at : int or None
        Where the run was asked to stop, once the goal was met.

    Raises
    ------
    InvalidInputError
        The run cannot reach the goal; said before anything runs.
    """

    def __init__(self, trace: Trace, goal: Converged) -> None:
        trace._location.require_writable()
        require_possible(goal, trace._now())
        self._trace = trace
        self._goal = goal
        self._next_draws = goal.min_draws
        self._next_time = 0.0
        self._done = 0
        self._told = False
        self.last: GoalLook | None = None
        self.stops_at: int | None = None

    def look(self) -> GoalLook | None:
        """Look, if it is time and there are enough draws; None if not."""
        began = time.monotonic()
        if self.stops_at is not None or began < self._next_time:
            return None
        moment = self._trace._now()
        seen = None
        if count_draws(moment) >= self._next_draws:
            seen = self._look(moment)
        # A slow look takes at most a tenth of the time.
        now = time.monotonic()
        self._next_time = now + max(_ASK_EVERY, 9 * (now - began))
        return seen

    def _look(self, moment: Moment) -> GoalLook:
        before, seen = self.last, look(self._goal, moment)
        self.last = seen
        self._done += 1
        self._next_draws = int(np.ceil(seen.draws * APART))
        self._record(seen)
        if seen.has_nan and not self._told:
            self._told = True
            warn_caller(
                f"{seen.has_nan} has draws that are NaN, so the goal {self._goal} cannot be met; "
                f"name the other variables with var_names=[...]"
            )
        if before is not None and before.holds and seen.holds and moment.end.request is None:
            self._stop(before, seen)
        return seen

    def _stop(self, first: GoalLook, second: GoalLook) -> None:
        rule = str(self._goal)
        goal: dict[str, str | int | float] = {
            "stopping_rule": rule,
            "stopping_looks": self._done,
            "stopping_rule_held_at": first.draws,
            "stopping_rule_confirmed_at": second.draws,
            "stopping_length": _HOW,
        }
        reason = f"{rule} held after {first.draws} and {second.draws} draws"
        try:
            asked = request_stop(self._trace._hierarchy, None, reason=reason, goal=goal, most=APART)
        except InvalidInputError:
            return  # the chains have ended meanwhile, or do so before they would hear of it
        self.stops_at = asked.at

    def _record(self, seen: GoalLook) -> None:
        row = {name: value for name, value in seen._asdict().items() if name in _COLUMNS}
        table = self._trace.table(TABLE, _COLUMNS, flush_every=0)
        table.append(time=time.time(), rule=str(self._goal), **row)

    def close(self) -> None:
        """Let other processes look."""
        if self._done:
            self._trace.table(TABLE).close()
