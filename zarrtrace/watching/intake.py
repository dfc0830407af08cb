"""What a look reads: the draws that are new since the last one, and nothing twice.

A draw that was taken in is not read again, unless it has to be: after another burn-in, a repair,
or when a chain went back to its checkpoint and drew other draws.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import StaleViewError, TraceReplacedError
from ..layout.hierarchy import Hierarchy
from ..layout.layout import Layout, Lost
from ..reading.moment import Moment
from ..reading.rows import Wanted
from ..sampling_state.block import chain_blocks, read_claims
from ..sampling_state.claim import Claim
from .moments import BlockMoments, shortest_compared
from .pieces import Piece, cut, read_pieces
from .plan import Columns, Plan, make_plan
from .progress import Stats, find_stats

_TRIES = 3  # while chains go back or draws are dropped
_MOST_WITNESS = 2**16  # bytes of a draw


class _Witness(NamedTuple):
    """The last draw that was taken in, of one variable: a chain that drew it again is known by it.

    Attributes
    ----------
    columns : Columns
        Of the variable, which is their first one.
    """

    columns: Columns
    values: NDArray[Any]


class _Began(NamedTuple):
    """What has to stay as it is for moments to be right."""

    identity: str
    burn_in: int
    lost: tuple[Lost, ...]
    chains: tuple[int, ...]


class _DrawnAgainError(Exception):
    """A chain has other draws than those that were taken in."""

    def __init__(self, block: int) -> None:
        super().__init__()
        self.block = block


class Intake:
    """Takes in the draws of one trace.

    Attributes
    ----------
    plan : Plan
        Which scalars are watched.
    moments : BlockMoments
        Their moments.
    stats : Stats
        What the sampler says of the draws.
    damaged : dict of str to str
        Variables that cannot be read, by `group/name`, and why.
    layout : Layout
        With which the draws were begun to be taken in.
    beginnings : int
        How often draws were forgotten: what was computed before is of other draws.

    Parameters
    ----------
    memory : int
        Bytes that moments may take.
    """

    def __init__(self, hierarchy: Hierarchy, memory: int) -> None:
        self._hierarchy = hierarchy
        self._memory = memory
        self.beginnings = 0
        self._begin(hierarchy.layout)

    def _begin(self, layout: Layout) -> None:
        """Forget every draw."""
        self.layout = layout
        self._began = _what_holds(layout)
        self._stat_variables = find_stats(layout)
        beside = [v for name, v in self._stat_variables.items() if name in ("lp", "energy")]
        self.plan: Plan = make_plan(layout, self._memory, beside)
        lp = self._stat_variables.get("lp")
        self._course = 0 if lp is None else self.plan.column_of(lp) or 0
        # Hardly ever the same twice, and read with every look: of few bytes.
        witness = min(self.plan.columns, key=_fitness, default=None)
        is_small = witness and witness.variables[0].bytes_per_draw <= _MOST_WITNESS
        self._witness = witness if is_small else None
        self.moments = BlockMoments(layout.chains, self.plan.scalars, self.plan.dtype)
        self.stats = Stats(layout.chains)
        self.damaged: dict[str, str] = {}
        self._tokens: dict[int, str] = {}
        self._witnesses: dict[int, _Witness] = {}
        self._taken = np.full(layout.blocks, burn_in(layout), np.int64)
        self.beginnings += 1

    def _forget(self, layout: Layout, block: int, claim: Claim | None) -> None:
        """Forget the draws of one block of chains, which are read again."""
        chains = _slice(layout, block)
        self.moments.clear(chains)
        self.stats.clear(chains)
        self._witnesses.pop(block, None)
        self._taken[block] = burn_in(layout)
        if claim is not None:
            self._tokens[block] = claim.token
        self.beginnings += 1

    @property
    def course_column(self) -> int | None:
        """The column whose course is shown: that of lp, or the first one; None if unreadable."""
        if not self.plan.scalars:
            return None
        variable, _ = self.plan.columns_of(self._course).scalar(self._course)
        return None if variable.label in self.damaged else self._course

    def take_in_what_is_new(self) -> tuple[Moment, list[Claim | None]]:
        """Read what is new, at one moment, and return it with the claims of all writers."""
        for _ in range(_TRIES):
            layout = self._hierarchy.layout
            # Before the draws: a writer that comes later is noticed at the next look.
            claims = read_claims(chain_blocks(self._hierarchy.location, layout))
            now = Moment.of(self._hierarchy)
            if self._began != _what_holds(now.layout):
                self._begin(now.layout)
            try:
                self._take_in(now, claims)
                break
            except TraceReplacedError:
                raise
            except _DrawnAgainError as error:
                self._forget(now.layout, error.block, claims[error.block])
            except StaleViewError:
                # Some of what is new may have been taken in, and some not.
                self._begin(now.layout)
        return now, claims

    def _take_in(self, now: Moment, claims: Sequence[Claim | None]) -> None:
        layout, first = now.layout, burn_in(now.layout)
        after_warmup = now.counts[shown_chains(layout)] - first
        shortest = shortest_compared(np.maximum(after_warmup, 0).tolist())
        counts = now.counts[:: layout.chains_per_chunk].tolist()
        for block, count in enumerate(counts):
            if self._may_differ(block, count, claims[block], first):
                raise _DrawnAgainError(block)
            if count > self._taken[block]:
                self.moments.make_room(_slice(layout, block), count - first, shortest)
        damaged = read_pieces(self._hierarchy, self._pieces(layout, counts, claims))
        self.damaged |= damaged
        for block, count in enumerate(counts):
            self._taken[block] = max(count, first)
            self.moments.counts[_slice(layout, block)] = max(count - first, 0)
            claim = claims[block]
            if claim is not None:
                self._tokens[block] = claim.token
        for name, variable in list(self._stat_variables.items()):
            if variable.label in damaged:
                del self._stat_variables[name]
                self.stats.forget(name)

    def _may_differ(self, block: int, count: int, claim: Claim | None, first: int) -> bool:
        """Whether a block may have other draws than those that were taken in.

        Where there is a witness, it says so itself.
        """
        if self._taken[block] <= first:
            return False
        is_unknown = block not in self._witnesses and self._is_new_writer(block, claim)
        return count < self._taken[block] or is_unknown

    def _is_new_writer(self, block: int, claim: Claim | None) -> bool:
        return claim is not None and claim.token != self._tokens.get(block)

    def _pieces(
        self, layout: Layout, counts: list[int], claims: Sequence[Claim | None]
    ) -> Iterator[Piece]:
        """What is new, and before it the last draws that were taken in."""
        for block, witness in self._witnesses.items():
            taken = int(self._taken[block])
            # Without a claim, a writer may have come and gone since.
            is_open = claims[block] is not None and not self._is_new_writer(block, claims[block])
            if counts[block] > taken or not is_open:
                variables = witness.columns.variables[:1]
                check = partial(self._check_witness, witness)
                yield from cut(layout, variables, block, range(taken - 1, taken), check)
        for block, count in enumerate(counts):
            draws = range(int(self._taken[block]), count)
            for columns in self.plan.columns if draws else ():
                take = partial(self._take_moments, layout, columns, count)
                yield from cut(layout, columns.variables, block, draws, take)
            is_warmup = count <= burn_in(layout)
            if is_warmup:
                draws = range(max(count - 1, layout.dropped), count)
            for name, variable in self._stat_variables.items():
                add = partial(self._take_stats, layout, name, is_warmup)
                yield from cut(layout, [variable], block, draws, add)

    def _check_witness(self, witness: _Witness, wanted: Wanted) -> None:
        is_known = wanted.variables[0].label not in self.damaged
        if is_known and not _same(witness.values, wanted.into[0]):
            raise _DrawnAgainError(wanted.block)

    def _take_moments(self, layout: Layout, columns: Columns, count: int, wanted: Wanted) -> None:
        start = wanted.draws.start - burn_in(layout)
        values = columns.values_in(wanted.into)
        self.moments.add(_slice(layout, wanted.block), columns.columns, start, values)
        if columns is self._witness and wanted.draws.stop == count:
            self._witnesses[wanted.block] = _Witness(columns, wanted.into[0][:, -1:].copy())

    def _take_stats(self, layout: Layout, name: str, is_warmup: bool, wanted: Wanted) -> None:
        self.stats.add(name, _slice(layout, wanted.block), wanted.into[0], is_warmup)


def burn_in(layout: Layout) -> int:
    """The first draw that is not warmup; the largest where groups were split apart."""
    group = layout.groups.get("posterior")
    return max(layout.most_warmup if group is None else group.warmup, layout.dropped)


def shown_chains(layout: Layout) -> list[int]:
    """All chains, but for those that a finished trace leaves out."""
    return layout.kept_chains if layout.finished else list(range(layout.chains))


def _what_holds(layout: Layout) -> _Began:
    shown = tuple(shown_chains(layout))
    return _Began(layout.identity, burn_in(layout), layout.lost, shown)


def _slice(layout: Layout, block: int) -> slice:
    chains = layout.chains_of(block)
    return slice(chains.start, chains.stop)


def _fitness(columns: Columns) -> tuple[bool, bool, int]:
    like = columns.variables[0]
    return like.group == "posterior", like.dtype.kind != "f", like.bytes_per_draw


def _same(one: NDArray[Any], other: NDArray[Any]) -> bool:
    return np.array_equal(one, other, equal_nan=one.dtype.kind == "f")
