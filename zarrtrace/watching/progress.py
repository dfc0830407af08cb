"""How far each chain is, whether its writer is alive, and what its sampler said last."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..layout.layout import NO_END, Layout
from ..layout.variables import Variable
from ..life.stat_names import arviz_names
from ..messages import chain_label
from ..reading.moment import Moment
from ..sampling_state.block import ChainBlock
from ..sampling_state.claim import STALE_AFTER, Claim
from .plan import is_real

Phase = Literal["waiting", "warmup", "sampling", "done"]
Writer = Literal["none", "alive", "silent", "dead", "closed"]

RATE_OVER = 60.0  # seconds
_OPENS_IN = 0.2  # seconds, a writer of another thread
_SILENT_AFTER = STALE_AFTER / 2  # two missed heartbeats
STATS = ("diverging", "step_size", "tree_depth", "acceptance_rate", "lp", "energy")


@dataclass(frozen=True)
class ChainLook:
    """What one look shows of the chains of one writer.

    Attributes
    ----------
    chains : range
        The chains: one, or a block.
    phase : str
        `waiting`, `warmup`, `sampling` or `done`.
    writer : str
        `none` before the first draw and after the last, `alive`, `silent` (two heartbeats are
        missing, and nobody knows yet), `dead`, or `closed` before the chain has all its draws.
    draws, planned : int
        Recorded draws, warmup included, and those at which the chain ends: declared, or where it
        was asked to stop; `planned` is None where there is no such number.
    rate : float or None
        Draws a second over the last minute; None at the first look, and when it is done.
    idle : float or None
        Seconds since a draw was last seen to come; None where none has come since the first look.
    divergences : int or None
        After warmup, of all its chains; None where the sampler says nothing of them.
    step_size, tree_depth, lp : float or None
        At the last draw, the mean of its chains.
    acceptance : float or None
        The mean after warmup; in warmup that of the last draw.
    host : str
        Where its last writer is or was; "" where unknown.
    pid : int or None
        The process.
    resume : str
        The line that continues the chain, where its writer is dead, silent or closed.
    course : tuple of float
        The means of lp, or of what is shown instead, in 16 equal parts of the draws after warmup;
        empty where there is none.
    """

    chains: range
    phase: Phase
    writer: Writer
    draws: int
    planned: int | None
    rate: float | None
    idle: float | None
    divergences: int | None
    step_size: float | None
    tree_depth: float | None
    acceptance: float | None
    lp: float | None
    host: str
    pid: int | None
    resume: str
    course: tuple[float, ...] = ()

    @property
    def label(self) -> str:
        """`chain 3` or `chains 0 to 31`."""
        return chain_label(self.chains)

    @property
    def has_ended(self) -> bool:
        """Whether its writer ended before the chain had all its draws."""
        return self.writer in ("dead", "closed")


@dataclass
class Stats:
    """What the sampler says of the draws, by the names of ArviZ, summed up for each chain."""

    chains: int
    last: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    sums: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    counts: dict[str, NDArray[np.int64]] = field(default_factory=dict)

    def clear(self, chains: slice) -> None:
        """Forget what was said of some chains."""
        for name in self.last:
            self.last[name][chains] = np.nan
            self.sums[name][chains] = 0
            self.counts[name][chains] = 0

    def add(self, name: str, chains: slice, values: NDArray[Any], is_warmup: bool) -> None:
        """Take in some draws, shape (chains, draws)."""
        if name not in self.last:
            self.last[name] = np.full(self.chains, np.nan)
            self.sums[name] = np.zeros(self.chains)
            self.counts[name] = np.zeros(self.chains, np.int64)
        self.last[name][chains] = values[:, -1]
        if not is_warmup:
            self.sums[name][chains] += values.sum(axis=1, dtype=np.float64)
            self.counts[name][chains] += values.shape[1]

    def forget(self, name: str) -> None:
        """Forget what was said under a name, because it can no longer be read."""
        for kept in (self.last, self.sums, self.counts):
            kept.pop(name, None)

    def last_of(self, name: str, chains: slice) -> float | None:
        """The last value, the mean of some chains; None where there is none."""
        return _number(self.last[name][chains].mean()) if name in self.last else None

    def mean_of(self, name: str, chains: slice) -> float | None:
        """The mean after warmup, or the last value in warmup."""
        if name not in self.last or not self.counts[name][chains].all():
            return self.last_of(name, chains)
        return _number((self.sums[name][chains] / self.counts[name][chains]).mean())

    def sum_of(self, name: str, chains: slice) -> int | None:
        """The sum after warmup of some chains; None where the sampler does not say it."""
        return int(self.sums[name][chains].sum()) if name in self.last else None


def find_stats(layout: Layout) -> dict[str, Variable]:
    """The statistics that are shown, by the names of ArviZ."""
    group = layout.groups.get("sample_stats")
    if group is None:
        return {}
    scalars = {name: v for name, v in group.variables.items() if not v.shape and is_real(v)}
    known = {ours: scalars[name] for name, ours in arviz_names(scalars).items()}
    return {name: known[name] for name in STATS if name in known}


class Progress:
    """How far the chains are, as seen look after look."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, NDArray[np.int64]]] = deque()
        self._changed: dict[int, float] = {}
        self._claims: dict[int, Claim] = {}
        self._beats: dict[str, tuple[float, float]] = {}

    def look(
        self, now: Moment, claims: list[Claim | None], stats: Stats, burn_in: int
    ) -> list[ChainLook]:
        """One look at each block of chains.

        Parameters
        ----------
        claims : list of Claim or None
            Those of all blocks, read before the moment.
        """
        clock, layout = time.monotonic(), now.layout
        end = now.end.draws
        planned = end or layout.total
        rates = self._rates(clock, now.counts)
        found = []
        for number in range(layout.blocks):
            block = ChainBlock(now.location, layout, number)
            first = block.chains.start
            chains = slice(first, block.chains.stop)
            draws = int(now.counts[first])
            claim = claims[number]
            # Asked to stop at draw 0, a chain is done when its writer has closed.
            is_open = end == 0 and claim is not None and claim.seems_alive
            is_done = layout.closed or (draws >= end and not is_open)
            if claim is not None:
                self._claims[number] = claim
            last = self._claims.get(number)
            writer = "none" if is_done else self._writer(block, claim, draws, clock)
            changed = self._changed.get(first)
            found.append(
                ChainLook(
                    chains=block.chains,
                    phase=_phase(draws, burn_in, is_done),
                    writer=writer,
                    draws=draws,
                    planned=None if planned >= NO_END else planned,
                    rate=None if rates is None or is_done else float(rates[first]),
                    idle=None if changed is None else clock - changed,
                    divergences=stats.sum_of("diverging", chains),
                    step_size=stats.last_of("step_size", chains),
                    tree_depth=stats.last_of("tree_depth", chains),
                    acceptance=stats.mean_of("acceptance_rate", chains),
                    lp=stats.last_of("lp", chains),
                    host=last.host if last else "",
                    pid=last.pid if last else None,
                    resume=_resume(block) if writer in ("dead", "silent", "closed") else "",
                )
            )
        return found

    def _writer(self, block: ChainBlock, claim: Claim | None, draws: int, clock: float) -> Writer:
        """Whether the writer of a block that has draws to come is alive."""
        if claim is None:
            return "closed" if draws else "none"
        if _is_dead(block, claim):
            # It may have ended well since its claim was read: then the next look says so.
            return "dead" if _is_still_dead(block, claim) else "alive"
        if claim.is_of_this_process:
            return "alive"
        beat, since = self._beats.get(claim.token, (None, clock))
        if beat != claim.beat:
            since = clock
            self._beats[claim.token] = claim.beat, clock
        missed = clock - since > _SILENT_AFTER or time.time() - claim.beat > STALE_AFTER
        return "silent" if missed else "alive"

    def _rates(self, clock: float, counts: NDArray[np.int64]) -> NDArray[np.float64] | None:
        """Draws a second of each chain over the last minute; None at the first look."""
        if self._seen and self._seen[-1][1].shape == counts.shape:
            for number in np.flatnonzero(counts != self._seen[-1][1]).tolist():
                self._changed[number] = clock
        self._seen.append((clock, counts))
        while len(self._seen) > 2 and self._seen[1][0] <= clock - RATE_OVER:
            self._seen.popleft()
        began, before = self._seen[0]
        if clock <= began or before.shape != counts.shape:
            return None
        rates: NDArray[np.float64] = np.maximum(counts - before, 0) / (clock - began)
        return rates


def seconds_since(block: ChainBlock, name: str) -> float | None:
    """Seconds since a value of a block was written, to be shown: no clock is asked by a file."""
    written = block.location.written_at(block.key(name))
    return None if written is None else max(0.0, time.time() - written)


def _is_dead(block: ChainBlock, claim: Claim) -> bool:
    return not claim.alive or claim.is_of_the_past(seconds_since(block, "writer"))


def _is_still_dead(block: ChainBlock, claim: Claim) -> bool:
    """Whether a writer that seems dead has left its claim, and did not just open or close it."""
    if claim.is_of_this_process:
        time.sleep(_OPENS_IN)
    again = block.claim
    return again is not None and again.token == claim.token and _is_dead(block, again)


def _phase(draws: int, burn_in: int, is_done: bool) -> Phase:
    if is_done:
        return "done"
    if not draws:
        return "waiting"
    return "warmup" if draws < burn_in else "sampling"


def _resume(block: ChainBlock) -> str:
    chains = block.chains
    given = str(chains[0]) if block.layout.chains_per_chunk == 1 else str(chains)
    return f"zarrtrace.open({str(block.location)!r}, 'a').writer({given}).resume()"


def _number(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None
