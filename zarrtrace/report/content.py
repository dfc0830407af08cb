"""What a page shows of a run, whoever gathers it: a report once, or a live page look after look."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..diagnostics.verdict import Finding
from ..messages import printable
from ..watching.progress import ChainLook

Array = NDArray[Any]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class DrawnScalar:
    """One scalar that is drawn.

    Attributes
    ----------
    label : str
        Such as `theta[Choate]`.
    rhat, ess_bulk, ess_tail : float
        Of all its draws, as the table has them.
    is_bad : bool
        Whether the verdict names it.
    low, high : float
        The scale: of draws after warmup.
    note : str
        What is to be known of its draws, such as that some are not finite; "" for nothing.
    lines : list of numpy.ndarray
        The points of each line of its trace.
    ranks : numpy.ndarray
        Shape (lines, bins): how often ranks of a line are in a bin, relative to equal chains.
    """

    label: str
    rhat: float
    ess_bulk: float
    ess_tail: float
    is_bad: bool
    low: float
    high: float
    note: str
    lines: list[Array]
    ranks: Floats


@dataclass(frozen=True)
class Traces:
    """The traces of some scalars, of all chains.

    Attributes
    ----------
    x : numpy.ndarray
        The draws where points are, counted from the start of a chain.
    lines : list of str
        What each line is of: `chain 0`, or `chains 0 to 3`.
    burn_in : int
        The first draw after warmup.
    divergences : numpy.ndarray
        The draws after warmup where a chain diverged, as in `x`.
    """

    x: Array
    lines: list[str]
    burn_in: int
    divergences: Array
    scalars: list[DrawnScalar]

    @property
    def labels(self) -> list[str]:
        """The labels of the scalars, as a page has them."""
        return [printable(scalar.label) for scalar in self.scalars]


@dataclass(frozen=True)
class OverDraws:
    """R-hat and ESS of the first draws of all chains.

    Attributes
    ----------
    draws : list of int
        How many draws of each chain.
    rhat, ess : numpy.ndarray
        Shape (len(draws), scalars); the smaller ESS of bulk and tail.
    """

    labels: list[str]
    draws: list[int]
    rhat: Floats
    ess: Floats
    is_bad: list[bool]


@dataclass(frozen=True)
class Energy:
    """How energies are distributed, and how they change from one draw to the next."""

    centres: Floats
    marginal: Floats
    transitions: Floats


@dataclass(frozen=True)
class Pairs:
    """Draws in parameter space: all that diverged, as many as there is room for, and others.

    Attributes
    ----------
    values : numpy.ndarray
        Shape (scalars, points).
    is_diverging : numpy.ndarray
        bool, shape (points,).
    says : str
        How many points of how many draws these are.
    """

    labels: list[str]
    values: Array
    is_diverging: NDArray[np.bool_]
    says: str


@dataclass(frozen=True)
class Table:
    """The table of a summary.

    Attributes
    ----------
    columns : dict of str to numpy.ndarray
        The numbers of all scalars, as `Trace.summary` returns them.
    problems : list of str
        What the verdict says of each scalar: "", `R-hat`, `ESS` or both.
    """

    labels: list[str]
    columns: dict[str, Floats]
    problems: list[str]


@dataclass(frozen=True)
class Content:
    """What a page shows; None and empty where there is nothing to show.

    Attributes
    ----------
    headlines : list of str
        The state of the run, and what to do next.
    findings : list of Finding
        The checks of the verdict.
    verdict : str
        The verdict in a few words, or why there is none.
    is_good : bool or None
        None where nobody can say.
    notes : list of str
        What could not be read or is left out.
    facts, provenance : list of tuple of str
        Names and values.
    is_over : bool
        Whether the run has all its draws: then the table comes first, and the traces before.
    """

    title: str
    headlines: list[str]
    findings: list[Finding]
    verdict: str
    is_good: bool | None
    notes: list[str]
    facts: list[tuple[str, str]]
    provenance: list[tuple[str, str]]
    chains: list[ChainLook]
    is_over: bool
    table: Table | None = None
    traces: Traces | None = None
    over_draws: OverDraws | None = None
    energy: Energy | None = None
    pairs: Pairs | None = None
    no_energy: str = ""
    no_pairs: str = ""
    bounds: dict[str, float] = field(default_factory=dict)
