"""Exact diagnostics of a few scalars: rank-normalised R-hat, bulk and tail ESS, MCSE.

Their draws are read from the first one on, each time. This is done beside the looks, in a thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from threading import Thread
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..diagnostics.statistics import compute
from ..layout.hierarchy import Hierarchy
from ..layout.layout import Layout
from ..layout.superchains import are_equal, declared_superchains
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
    rhat_nested : float
        NaN for chains without superchains.
    """

    rhat: float
    ess_bulk: float
    ess_tail: float
    mcse: float
    rhat_nested: float


class Computed(NamedTuple):
    """The diagnostics of some scalars, for the first draws of some chains.

    Attributes
    ----------
    columns : list of int
        The scalars.
    draws : int
        The draws of each chain.
    damaged : dict of str to str
        Variables that cannot be read, by `group/name`, and why: they are without values.
    ended, seconds : float
        When this was computed, by `time.perf_counter`, and how long it took.
    """

    columns: list[int]
    values: list[Exact]
    draws: int
    damaged: dict[str, str]
    ended: float
    seconds: float


class Asked(NamedTuple):
    """Scalars whose diagnostics are asked for.

    Attributes
    ----------
    elements : list of tuple
        Variables, the elements of a draw of each, and the columns of these.
    chains, draws : tuple of int, range
        Of which draws, which all of these chains have.
    """

    elements: list[tuple[Variable, list[int], list[int]]]
    chains: tuple[int, ...]
    draws: range

    def compute(self, hierarchy: Hierarchy, layout: Layout) -> Computed:
        """Read the draws and compute the diagnostics.

        Raises
        ------
        StaleViewError
            The draws were dropped, or their chain went back to a checkpoint.
        """
        began = time.perf_counter()
        elements = [(variable, chosen) for variable, chosen, _ in self.elements]
        values, damaged = read_elements(hierarchy, layout, elements, self.chains, self.draws)
        places = [(v.label, column) for v, _, columns in self.elements for column in columns]
        known = [number for number, (label, _) in enumerate(places) if label not in damaged]
        columns = [places[number][1] for number in known]
        found = diagnose(values[:, :, known], self._superchains(layout))
        ended = time.perf_counter()
        return Computed(columns, found, len(self.draws), damaged, ended, ended - began)

    def _superchains(self, layout: Layout) -> list[int]:
        """The declared superchains of the chains; none if they are not equally many of each."""
        declared = declared_superchains(layout.attrs, layout.chains)
        chosen = [declared[chain] for chain in self.chains] if declared else []
        return chosen if are_equal(chosen) else []


def in_thread(function: Callable[[], Computed]) -> Future[Computed]:
    """Call a function in a thread of its own, which does not keep the process from ending."""
    future: Future[Computed] = Future()

    def call() -> None:
        try:
            future.set_result(function())
        except BaseException as error:
            future.set_exception(error)

    Thread(target=call, name="zarrtrace exact values", daemon=True).start()
    return future


def diagnose(draws: NDArray[np.float64], superchains: list[int]) -> list[Exact]:
    """The diagnostics of each scalar, from draws of shape (chains, draws, scalars)."""
    names = ("r_hat", "ess_bulk", "ess_tail", "mcse_mean", "sd", "r_hat_nested")
    found = compute(draws, names, superchains=superchains)
    with np.errstate(invalid="ignore", divide="ignore"):
        mcse = found["mcse_mean"] / found["sd"]
    columns = (found["r_hat"], found["ess_bulk"], found["ess_tail"], mcse, found["r_hat_nested"])
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
