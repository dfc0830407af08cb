"""Whether a run has reached its goal: the exact numbers of all variables that it is about."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from ..diagnostics.element_names import ElementNames
from ..diagnostics.goal import Converged
from ..diagnostics.statistics import compute
from ..errors import InvalidInputError, VariableNotFoundError
from ..layout.variables import Variable
from ..messages import counted, rounded_down, warn_caller
from ..reading.batches import batches
from ..reading.cut import make_cut
from ..reading.moment import Moment
from ..reading.values import read_values

APART = 1.1  # a look that confirms has a tenth more draws than the one before, or more still
_MOST_NUMBERS = 1_000_000  # that a goal which names no variables may have to look at
_AT_ONCE = 1_000_000  # numbers that are read together


class GoalLook(NamedTuple):
    """What one look at a run has shown: the worst number of each kind, and whose it is.

    Attributes
    ----------
    draws : int
        The draws after warmup of each chain that were looked at.
    rhat, rhat_of : float, str
        The largest R-hat; NaN where nothing varies.
    ess, ess_of : float, str
        The smallest effective sample size, of bulk and tail.
    mcse, mcse_of : float, str
        The largest error of a mean, as a share of what the goal allows; NaN where it allows any.
    holds : bool
        Whether the goal holds for these draws.
    has_nan : str
        A variable with draws that are NaN, for which no goal can hold; "" for none.
    """

    draws: int
    rhat: float
    rhat_of: str
    ess: float
    ess_of: str
    mcse: float
    mcse_of: str
    holds: bool
    has_nan: str

    def __str__(self) -> str:
        said = [f"{counted(self.draws, 'draw')} a chain"]
        said += [f"R-hat {self.rhat:.4f} of {self.rhat_of}"] if self.rhat_of else []
        said += [f"ESS {rounded_down(self.ess)} of {self.ess_of}"] if self.ess_of else []
        said += [f"MCSE {self.mcse:.2f} of the allowed for {self.mcse_of}"] if self.mcse_of else []
        return ", ".join(said) + (": the goal holds" if self.holds else "")


# Can it be met? -------------------------------------------------------------------------------


def require_possible(goal: Converged, moment: Moment) -> None:
    """Refuse a goal that this run cannot reach, before anything runs.

    Raises
    ------
    VariableNotFoundError
        It names a variable that the posterior does not have.
    InvalidInputError
        It is about no variable that has these numbers, or about too many, or the run has one chain,
        or ends before it can be confirmed.
    """
    layout = moment.layout
    if layout.chains < 2:
        raise InvalidInputError(
            "one chain alone cannot show that it has converged",
            where=str(moment),
            remedy="run two chains or more, or give a function as until",
        )
    variables = _variables(goal, moment)
    scalars = sum(variable.elements for variable in variables)
    numbers = scalars * layout.chains * goal.min_draws
    if goal.var_names is None and numbers > _MOST_NUMBERS:
        raise InvalidInputError(
            f"the first look at the goal would take {numbers:,} numbers, of {scalars:,} values a "
            f"draw",
            where=str(moment),
            remedy="name the variables that matter: var_names=[...]",
        )
    if layout.draws is None:
        return
    draws = layout.total - _warmup(moment)
    if draws < math.ceil(goal.min_draws * APART):
        raise InvalidInputError(
            f"the goal needs a look at {goal.min_draws} draws after warmup and one at "
            f"{math.ceil(goal.min_draws * APART)}, but the chains end with {max(draws, 0)}",
            where=str(moment),
            remedy="lower min_draws, or make room for more with trace.extend(draws=...)",
        )
    if goal.ess is not None and draws * layout.chains <= goal.ess:
        warn_caller(
            f"the goal asks for more than {goal.ess:g} effective draws, and the chains of {moment} "
            f"have {draws * layout.chains} in all: it can hardly be met before they end"
        )


def _warmup(moment: Moment) -> int:
    return moment.layout.groups["posterior"].warmup


def _variables(goal: Converged, moment: Moment) -> list[Variable]:
    """The variables that the goal is about."""
    group = moment.layout.groups.get("posterior")
    if group is None:
        raise InvalidInputError("there is no posterior, which a goal is about", where=str(moment))
    usable = {
        name: variable
        for name, variable in group.variables.items()
        if variable.dtype.kind in "fiub"
        and not group.lengths_of(variable)
        and 0 not in variable.shape
    }
    named = [*(goal.var_names or ()), *goal.mcse]
    for name in named:
        if name not in group.variables:
            raise VariableNotFoundError(
                f"the goal names {name!r}, which the posterior does not have",
                where=str(moment),
                remedy=f"it has {', '.join(group.variables)}",
                group="posterior",
                variable=name,
            )
        if name not in usable:
            raise InvalidInputError(
                f"the goal names {name!r}, which has no R-hat: its draws are "
                f"{group.variables[name].declared}, or of a varying size",
                where=str(moment),
                remedy=f"these have one: {', '.join(usable) or 'none'}",
                group="posterior",
                variable=name,
            )
    chosen = usable if goal.var_names is None else dict.fromkeys(named)
    if not chosen:
        raise InvalidInputError(
            "no variable of the posterior is a real number, so a goal has nothing to look at",
            where=str(moment),
        )
    return [usable[name] for name in chosen]


# A look ---------------------------------------------------------------------------------------


def count_draws(moment: Moment) -> int:
    """The draws after warmup of the shortest chain."""
    return max(int(moment.counts.min()) - _warmup(moment), 0)


def look(goal: Converged, moment: Moment) -> GoalLook:
    """The exact numbers of all variables of the goal, for the draws that all chains have."""
    cut = make_cut(moment, "posterior", chains=tuple(range(moment.layout.chains)))
    worst = {"rhat": (-math.inf, ""), "ess": (-math.inf, ""), "mcse": (-math.inf, "")}
    has_nan = ""
    elements = ElementNames(moment.location, moment.layout)

    def note(kind: str, badness: np.ndarray, variable: Variable, varies: np.ndarray) -> None:
        badness = np.where(np.isnan(badness), np.inf, badness)[varies]
        if badness.size and badness.max() > worst[kind][0]:
            place = int(np.flatnonzero(varies)[badness.argmax()])
            worst[kind] = float(badness.max()), elements.name(variable, place)

    each = len(cut.chains) * cut.length
    for batch in batches(_variables(goal, moment), lambda one: each * one.elements, _AT_ONCE):
        values = read_values([(cut, variable) for variable in batch], slice(None), flatten=False)
        for variable, draws in zip(batch, values, strict=True):
            flat = draws.reshape(*draws.shape[:2], -1)
            names = ["r_hat", "ess_bulk", "ess_tail"]
            names += ["mcse_mean"] if variable.name in goal.mcse else []
            found = compute(flat, names)
            varies = (flat != flat[:1, :1]).any(axis=(0, 1))
            if flat.dtype.kind == "f" and not has_nan and np.isnan(flat).any():
                has_nan = variable.name
            if goal.var_names is None or variable.name in goal.var_names:
                note("rhat", found["r_hat"], variable, varies)
                smaller = np.minimum(found["ess_bulk"], found["ess_tail"])
                note("ess", -smaller, variable, varies)
            if variable.name in goal.mcse:
                note("mcse", found["mcse_mean"] / goal.mcse[variable.name], variable, varies)
    (rhat, rhat_of), (ess, ess_of), (mcse, mcse_of) = worst.values()
    holds = bool(
        (goal.rhat is None or rhat < goal.rhat)
        and (goal.ess is None or -ess > goal.ess)
        and mcse < 1
        and any(of for _, of in worst.values())
    )
    numbers = [number if of else math.nan for number, of in worst.values()]
    return GoalLook(
        cut.length, numbers[0], rhat_of, -numbers[1], ess_of, numbers[2], mcse_of, holds, has_nan
    )
