"""When a run has enough draws: a function of the user, or a goal."""

from __future__ import annotations

import time
from collections.abc import Callable

from ..diagnostics.goal import Converged
from ..goals.looks import Looks
from ..messages import warn_caller
from ..recording import exit as ending
from ..trace import Trace

_ASK_EVERY = 1.0  # seconds between calls of `until`


class FunctionRule:
    """Calls `until` now and then."""

    def __init__(self, trace: Trace, until: Callable[[Trace], bool] | None) -> None:
        self._trace = trace
        self._until = until
        self._next = 0.0

    def holds(self) -> bool:
        """Whether it is time to call, and the chains have drawn enough."""
        began = time.monotonic()
        if self._until is None or began < self._next:
            return False
        has_draws = self._trace.recorded.min() > self._trace.burn_in
        found = bool(has_draws and self._until(self._trace))
        now = time.monotonic()
        # A slow rule takes at most a tenth of the time.
        self._next = now + max(_ASK_EVERY, 9 * (now - began))
        return found

    def close(self) -> None:
        """Nothing is left to do."""


class GoalRule:
    """Looks at a run until its goal is met, and lets its chains end by themselves."""

    def __init__(self, trace: Trace, goal: Converged) -> None:
        self._trace = trace
        self._goal = goal
        self._looks = Looks(trace, goal)

    def holds(self) -> bool:
        """Look if it is time; the run is asked to stop, and its chains are not interrupted."""
        self._looks.look()
        return False

    def close(self) -> None:
        """Say it if the chains have ended before the goal was met."""
        self._looks.close()
        last = self._looks.last
        is_stopped = self._trace._now().end.request is not None or ending.preempted_by()
        if self._looks.stops_at is None and not is_stopped:
            seen = f"at the last look: {last}" if last is not None else "there was no look"
            warn_caller(
                f"the chains of {self._trace.path} ended before the goal {self._goal} was met and "
                f"confirmed; {seen}"
            )


Rule = FunctionRule | GoalRule
