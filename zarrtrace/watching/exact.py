"""Exact diagnostics of a few scalars: rank-normalised R-hat, bulk and tail ESS, MCSE."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..diagnostics.statistics import compute
from ..layout.hierarchy import Hierarchy
from ..layout.layout import Layout
from ..layout.variables import Variable
from ..reading.rows import Wanted
from .pieces import cut, read_pieces
from .plan import lists_alike


class Exact(NamedTuple):
    """The diagnostics of one scalar, as ArviZ defines them.

    Attributes
    ----------
    mcse : float
        Of the mean, as a part of the standard deviation.
    """

    rhat: float
    ess_bulk: float
    ess_tail: float
    mcse: float


def diagnose(draws: NDArray[np.float64]) -> list[Exact]:
    """The diagnostics of each scalar, from draws of shape (chains, draws, scalars)."""
    names = ("r_hat", "ess_bulk", "ess_tail", "mcse_mean", "sd")
    found = compute(draws, names)
    with np.errstate(invalid="ignore", divide="ignore"):
        mcse = found["mcse_mean"] / found["sd"]
    columns = (found["r_hat"], found["ess_bulk"], found["ess_tail"], mcse)
    return [Exact(*map(float, values)) for values in zip(*columns, strict=True)]


def read_elements(
    hierarchy: Hierarchy,
    layout: Layout,
    elements: list[tuple[Variable, list[int]]],
    chains: tuple[int, ...],
    draws: range,
) -> tuple[NDArray[np.float64], dict[str, str]]:
    """Some elements of variables, in draws that all of these chains have.

    Returns
    -------
    values : numpy.ndarray
        float64, shape (chains, draws, scalars), variable after variable.
    damaged : dict of str to str
        Variables that cannot be read, by `group/name`, and why.

    Raises
    ------
    StaleViewError
        The draws were dropped, or their chain went back to a checkpoint.
    """
    starts = np.cumsum([0, *(len(chosen) for _, chosen in elements)])
    columns = {
        variable.label: (chosen, slice(start, start + len(chosen)))
        for (variable, chosen), start in zip(elements, starts, strict=False)
    }
    values = np.empty((len(chains), len(draws), int(starts[-1])))
    rows = {chain: row for row, chain in enumerate(chains)}

    def take(wanted: Wanted) -> None:
        offset = wanted.draws.start - draws.start
        taken = slice(offset, offset + len(wanted.draws))
        flat: NDArray[Any] = wanted.into.reshape(*wanted.into.shape[:3], -1)
        for variable, read in zip(wanted.variables, flat, strict=True):
            chosen, here = columns[variable.label]
            for place, chain in enumerate(layout.chains_of(wanted.block)):
                if chain in rows:
                    values[rows[chain], taken, here] = read[place][:, chosen]

    blocks = sorted({chain // layout.chains_per_chunk for chain in chains})
    alike = lists_alike((variable for variable, _ in elements), layout.chains_per_chunk)
    piece_of = partial(cut, layout, draws=draws, take=take)
    damaged = read_pieces(
        hierarchy,
        (piece for one in alike for block in blocks for piece in piece_of(one, block)),
    )
    return values, damaged
