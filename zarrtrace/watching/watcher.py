"""The watcher of one trace: each look reads what is new, and says how the run does.

It holds no lock and writes nothing. Split R-hat of all scalars follows from moments; exact values
of a few of them are read and computed now and then.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import replace
from functools import partial

import numpy as np

from ..diagnostics.element_names import ElementNames
from ..diagnostics.goal import Converged
from ..errors import StaleViewError, TraceReplacedError, VariableNotFoundError
from ..layout.hierarchy import Hierarchy
from ..layout.layout import Layout
from ..layout.variables import Variable
from ..life.status import find_status
from ..messages import counted, list_chains
from ..reading.moment import Moment
from ..sampling_state.block import chain_blocks
from .exact import Asked, Computed, Exact, in_thread
from .forecast import Reached, time_left, time_to_goal
from .intake import Intake, burn_in, shown_chains
from .look import LOOKS, Look, WatchedValue
from .moments import SplitRhat
from .progress import ChainLook, Progress, seconds_since

MEMORY = 10**9  # bytes of moments
WORST = 20  # scalars by split R-hat that are computed exactly
COURSE_PARTS = 16  # of the draws, each with its mean
_MOST_NAMED = 100  # scalars of each variable that is named
_SHARE = 9  # times as long as they took passes until exact values are computed again
_MOST_EXACT = 2**29  # bytes that are read for exact values
_MOST_NOTES = 5  # about damage


class Watcher:
    """Looks at one trace again and again.

    Parameters
    ----------
    var_names : sequence of str
        Variables whose scalars are always in the watch list.
    memory : int
        Bytes that moments may take; above that the largest variables are watched in part.
    goal : Converged
        What R-hat and ESS of the watch list shall reach, to say how long that takes.

    Raises
    ------
    VariableNotFoundError
        The posterior has no such variable.
    """

    def __init__(
        self,
        hierarchy: Hierarchy,
        *,
        var_names: Sequence[str] = (),
        memory: int = MEMORY,
        goal: Converged | None = None,
    ) -> None:
        self._hierarchy = hierarchy
        self._var_names = tuple(var_names)
        self._memory = memory
        self._intake = Intake(hierarchy, memory)
        self._goal = goal or Converged()
        self._progress = Progress()
        _require_variables(hierarchy.layout, self._var_names, str(hierarchy))
        self._forget_rhat()

    def _forget_rhat(self) -> None:
        self._rhat = SplitRhat(np.full(self._intake.plan.scalars, np.nan), 0, ())
        self._names = ElementNames(self._hierarchy.location, self._intake.layout)
        self._history: dict[int, deque[float]] = {}
        self._exact: dict[int, Exact] = {}
        self._exact_draws = 0
        self._computing: Future[Computed] | None = None
        self._exact_after = 0.0
        self._columns = self._watch_list()
        self._reached: deque[Reached] = deque(maxlen=5)

    # A look -------------------------------------------------------------------------------

    def look(self) -> Look:
        """Read what is new, and say how the run does.

        Raises
        ------
        TraceNotFoundError
            There is no trace any more.
        TraceReplacedError
            Another trace lies at its place.
        """
        before = self._intake.beginnings
        now, claims = self._intake.take_in_what_is_new()
        if self._intake.beginnings != before:
            self._forget_rhat()
        layout = now.layout
        chains = self._progress.look(now, claims, self._intake.stats, burn_in(layout))
        column = self._intake.course_column
        if column is not None:
            chains = [self._with_course(chain, column) for chain in chains]
        self._update_rhat(shown_chains(layout))
        self._update_exact(layout, all(chain.phase == "done" for chain in chains))
        values = sorted(map(self._value_of, self._columns), key=lambda value: -value.worst_rhat)
        worst = max((v.worst_rhat for v in values), default=-np.inf)
        return Look(
            path=str(now),
            time=time.time(),
            status=find_status(now, claims).word,
            chains=chains,
            course_of="" if column is None else self._name_of(column),
            burn_in=burn_in(layout),
            rhat_draws=self._rhat.draws,
            rhat_chains=self._rhat.chains,
            exact_draws=self._exact_draws,
            worst_rhat=worst if worst > -np.inf else np.nan,
            watched=self._intake.plan.scalars,
            of_scalars=self._intake.plan.of_scalars,
            values=values,
            notes=tuple(self._notes(now)),
            time_left=time_left(chains),
            time_to_goal=time_to_goal(self._goal, self._reached, chains, worst),
            only_flushed=not layout.finished and (now.is_elsewhere or not layout.journal),
            flushed=_seconds_since_flush(now),
        )

    # The watch list -----------------------------------------------------------------------

    def _update_rhat(self, chains: list[int]) -> None:
        """Compute split R-hat, where there are more draws that all chains have."""
        if self._intake.moments.comparable(chains) != self._rhat[1:]:
            self._rhat = self._intake.moments.split_rhat(chains)
            for columns in self._intake.plan.columns:
                for number, variable in enumerate(columns.variables):
                    if variable.label in self._intake.damaged:
                        first = columns.columns.start + number * columns.each
                        self._rhat.values[first : first + columns.each] = np.nan
            self._columns = self._watch_list()
            for column in self._columns:
                looks = self._history.setdefault(column, deque(maxlen=LOOKS))
                looks.append(float(self._rhat.values[column]))

    def _watch_list(self) -> list[int]:
        """The columns of lp, energy and the variables that are named, and the worst ones."""
        values = self._rhat.values
        chosen: dict[int, None] = {}
        for columns in self._intake.plan.columns:
            for number, variable in enumerate(columns.variables):
                is_stat = variable.group != "posterior"
                if is_stat or variable.name in self._var_names:
                    start = columns.columns.start + number * columns.each
                    chosen |= dict.fromkeys(range(start, start + min(columns.each, _MOST_NAMED)))
        ranks = np.where(np.isnan(values), -np.inf, values)
        worst = np.arange(len(values))
        if len(values) > WORST:
            worst = np.argpartition(-ranks, WORST)[:WORST]
        return list(chosen | dict.fromkeys(worst[np.argsort(-ranks[worst])].tolist()))

    def _update_exact(self, layout: Layout, is_last: bool) -> None:
        """Have exact values computed, when enough time has passed since the last time.

        The look waits for the first ones, and for those of all draws at the end.
        """
        is_awaited = is_last or not self._exact
        if self._computing is not None and (is_awaited or self._computing.done()):
            self._take_over(self._computing)
        chains, first = self._rhat.chains, burn_in(layout)
        draws = range(first, first + self._intake.moments.common(chains))
        is_due = is_awaited or time.perf_counter() >= self._exact_after
        is_new = self._rhat.draws and len(draws) != self._exact_draws
        if self._computing is None and is_due and is_new:
            asked = Asked(self._elements(len(draws) * len(chains)), chains, draws)
            self._computing = in_thread(partial(asked.compute, self._hierarchy, layout))
            if is_awaited:
                self._take_over(self._computing)

    def _take_over(self, computing: Future[Computed]) -> None:
        self._computing = None
        try:
            found = computing.result()
        except TraceReplacedError:
            raise
        except StaleViewError:
            return
        self._intake.damaged |= found.damaged
        self._exact = dict(zip(found.columns, found.values, strict=True))
        self._exact_draws = found.draws
        self._exact_after = found.ended + _SHARE * found.seconds
        sizes = [min(one.ess_bulk, one.ess_tail) for one in found.values]
        self._reached.append(Reached(found.draws, min((s for s in sizes if s > 0), default=0.0)))

    def _elements(self, each: int) -> list[tuple[Variable, list[int], list[int]]]:
        """The elements of the watch list by variable, and the columns that they are.

        Variables that would take too long to read are left out.
        """
        chosen: dict[str, tuple[Variable, list[int], list[int]]] = {}
        room = _MOST_EXACT
        for column in self._columns:
            variable, element = self._intake.plan.columns_of(column).scalar(column)
            size = each * variable.bytes_per_draw
            if variable.label not in chosen:
                if size > room or variable.label in self._intake.damaged:
                    continue
                room -= size
                chosen[variable.label] = variable, [], []
            chosen[variable.label][1].append(element)
            chosen[variable.label][2].append(column)
        return list(chosen.values())

    def _with_course(self, chain: ChainLook, column: int) -> ChainLook:
        chains = slice(chain.chains.start, chain.chains.stop)
        means = self._intake.moments.course(chains, column, COURSE_PARTS)
        return replace(chain, course=tuple(means.tolist()))

    def _name_of(self, column: int) -> str:
        variable, element = self._intake.plan.columns_of(column).scalar(column)
        return self._names.name(variable, element)

    def _value_of(self, column: int) -> WatchedValue:
        return WatchedValue(
            name=self._name_of(column),
            split_rhat=float(self._rhat.values[column]),
            exact=self._exact.get(column),
            rhats=tuple(self._history.get(column, ())),
        )

    def _notes(self, now: Moment) -> Iterator[str]:
        plan, layout = self._intake.plan, now.layout
        if now.end.request is not None:
            yield f"the run was asked to stop {now.end.request}"
        if plan.scalars < plan.of_scalars:
            yield (
                f"{plan.scalars:,} of {plan.of_scalars:,} scalars are watched, a random part of "
                f"the largest variables: their moments would need more than "
                f"{self._memory / 1e6:,.0f} MB"
            )
        if plan.left_out:
            yield f"no R-hat for values that are not real numbers: {_listed(plan.left_out)}"
        shown = shown_chains(layout)
        short = [chain for chain in shown if chain not in self._rhat.chains]
        if self._rhat.draws and short:
            yield f"R-hat is without {list_chains(short)}: too few draws beside the others"
        if len(shown) == 1:
            yield "one chain alone has no R-hat to trust: run two or more"
        yield from list(self._intake.damaged.values())[:_MOST_NOTES]
        if len(self._intake.damaged) > _MOST_NOTES:
            yield f"{counted(len(self._intake.damaged), 'variable')} in all cannot be read"


def _listed(names: Sequence[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")


def _require_variables(layout: Layout, names: Sequence[str], where: str) -> None:
    group = layout.groups.get("posterior")
    known = list(group.variables) if group is not None else []
    for name in names:
        if name not in known:
            raise VariableNotFoundError(
                f"the posterior of {where} has no variable {name!r}",
                remedy=f"it has {_listed(known, 20)}",
                group="posterior",
                variable=name,
            )


def _seconds_since_flush(now: Moment) -> float | None:
    blocks = chain_blocks(now.location, now.layout)
    ages = [seconds_since(block, name) for block in blocks for name in ("draw_idx", "flushed")]
    return min((age for age in ages if age is not None), default=None)
