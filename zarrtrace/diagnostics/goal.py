"""What a run has to reach: R-hat, effective sample sizes, errors of the mean."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

import numpy as np

from ..errors import InvalidInputError

_RULE = re.compile(
    r"\s*(?:(r_?hat)\s*<|(ess)\s*>|mcse\(\s*([^()]+?)\s*\)\s*<)\s*([0-9.]+(?:e[+-]?[0-9]+)?)\s*",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Converged:
    """The goal of a run: what has to hold for all its variables before the chains are stopped.

    It is looked at while the chains run, in the exact numbers that ArviZ computes from the same
    draws, and is met when it holds at two looks in a row, the second one with a tenth more draws.
    A single look is too easily lucky. Two chains or more are needed: one alone cannot show that it
    has converged.

    Parameters
    ----------
    rhat : float or None, default 1.01
        The rank-normalised split R-hat of every number has to be below; None for any.
    ess : float or None, default 400
        The effective sample size of bulk and tail of every number has to be above; None for any.
    mcse : mapping of str to float, optional
        For some variables, what the Monte Carlo standard error of the mean has to be below.
    var_names : sequence of str, optional
        The variables of the posterior for which it has to hold; by default all that are numbers.
        Needed if a look at all of them would take long.
    min_draws : int, default 200
        The draws after warmup that every chain has at the first look.

    Raises
    ------
    InvalidInputError
        A number cannot be reached, or nothing is asked for.

    See Also
    --------
    zarrtrace.run : Runs chains until a goal is met.
    Trace.request_stop : Stops a run without a goal.

    Notes
    -----
    Numbers that never change, as constants among the variables, do not count. The walkers of an
    ensemble sampler are not independent chains: for them these numbers say little.

    Examples
    --------
    >>> import zarrtrace as zt
    >>> goal = zt.Converged(rhat=1.01, ess=400, mcse={"tau": 0.02})
    >>> print(goal)
    rhat < 1.01 & ess > 400 & mcse(tau) < 0.02

    `zt.run(chain, trace, until=goal)` stops the chains of a run when it is met.
    """

    rhat: float | None = 1.01
    ess: float | None = 400
    mcse: Mapping[str, float] = field(default_factory=dict)
    var_names: Sequence[str] | None = None
    min_draws: int = 200

    def __post_init__(self) -> None:
        names = [self.var_names] if isinstance(self.var_names, str) else self.var_names
        object.__setattr__(self, "var_names", None if names is None else tuple(names))
        object.__setattr__(self, "mcse", dict(self.mcse))
        limits = {"rhat": (self.rhat, 1.0), "ess": (self.ess, 0.0)}
        limits |= {f"mcse of {name}": (most, 0.0) for name, most in self.mcse.items()}
        for name, (limit, above) in limits.items():
            if limit is not None and not _is_above(limit, above):
                raise InvalidInputError(f"{name} must be a number above {above:g}, got {limit!r}")
        if self.rhat is None and self.ess is None and not self.mcse:
            raise InvalidInputError("a goal asks for something: give rhat, ess or mcse")
        if self.var_names == ():
            raise InvalidInputError(
                "var_names is empty, so the goal is about no variable; leave it out for all"
            )
        whole = isinstance(self.min_draws, int) and not isinstance(self.min_draws, bool)
        if not whole or self.min_draws < 4:
            raise InvalidInputError(f"min_draws must be a number from 4, got {self.min_draws!r}")

    @classmethod
    def parse(cls, text: str, var_names: Sequence[str] | None = None, min_draws: int = 200) -> Self:
        """The goal in a text such as `rhat < 1.01 & ess > 400 & mcse(tau) < 0.02`.

        Parameters
        ----------
        text : str
            Some of these three, joined by `&`.
        var_names : sequence of str, optional
            As for the class.
        min_draws : int, default 200
            As for the class.

        Returns
        -------
        Converged
            The goal.

        Raises
        ------
        InvalidInputError
            It says something else.

        See Also
        --------
        Converged : The goal in numbers.

        Examples
        --------
        >>> import zarrtrace as zt
        >>> zt.Converged.parse("rhat<1.05 & mcse(tau)<0.02").mcse
        {'tau': 0.02}
        """
        rhat = ess = None
        mcse: dict[str, float] = {}
        for part in re.split(r"&+", text):
            match = _RULE.fullmatch(part)
            if match is None:
                raise InvalidInputError(
                    f"{part.strip()!r} is not a goal; write rhat < 1.01, ess > 400 or "
                    f"mcse(name) < 0.02, joined by &"
                )
            limit = float(match[4])
            rhat = limit if match[1] else rhat
            ess = limit if match[2] else ess
            mcse |= {match[3]: limit} if match[3] else {}
        return cls(rhat, ess, mcse, var_names, min_draws)

    def __str__(self) -> str:
        parts = [] if self.rhat is None else [f"rhat < {self.rhat:g}"]
        parts += [] if self.ess is None else [f"ess > {self.ess:g}"]
        parts += [f"mcse({name}) < {most:g}" for name, most in self.mcse.items()]
        of = f" for {', '.join(self.var_names)}" if self.var_names is not None else ""
        return " & ".join(parts) + of


def _is_above(limit: float, above: float) -> bool:
    is_number = isinstance(limit, int | float | np.number) and not isinstance(limit, bool)
    return bool(is_number and math.isfinite(limit) and limit > above)
