"""A cut: which draws of which chains one view shows, fixed at one moment."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ..errors import ChainError, GroupNotFoundError, InvalidInputError, VariableNotFoundError
from ..layout.hierarchy import Hierarchy
from ..layout.layout import Layout, SampledGroup
from ..messages import chain_label, list_chains, warn_caller
from .moment import Moment

Align = Literal["cut", "pad"]

READ_ELSEWHERE = "read away from where it is recorded: shows the proven draws, there may be more"
# The traces for which the warning about chains left out was given.
_TOLD: weakref.WeakSet[Hierarchy] = weakref.WeakSet()


@dataclass(frozen=True)
class Cut:
    """Which draws of which chains of one group a view shows.

    Attributes
    ----------
    start : int
        The first draw of the group, counted from the start of the chain.
    counts : tuple of int
        Draws of the group in each chain.
    length : int
        Draws of every chain in the view.
    left_out : tuple of int
        The chains it does not show because they have no draw of the group; empty if the chains
        were chosen.
    """

    moment: Moment
    group: SampledGroup
    name: str
    chains: tuple[int, ...]
    start: int
    counts: tuple[int, ...]
    length: int
    left_out: tuple[int, ...]

    @property
    def layout(self) -> Layout:
        """The layout of its moment."""
        return self.moment.layout

    @property
    def padded(self) -> bool:
        """Whether a chain is shorter than the view."""
        return any(count < self.length for count in self.counts)


def make_cut(
    moment: Moment,
    name: str,
    align: Align = "cut",
    chains: tuple[int, ...] | None = None,
) -> Cut:
    """The existing draws of a sampled group, or of its warmup (`warmup_` and its name).

    Without `chains`, those of the chains that have any; of all chains where none has.
    """
    if align not in ("cut", "pad"):
        raise InvalidInputError(f"align is 'cut' or 'pad', got {align!r}")
    layout = moment.layout
    group = layout.groups[name.removeprefix("warmup_")]
    counts = moment.counts
    if name == group.name:
        start, counts = group.warmup, np.maximum(counts - group.warmup, 0)
    else:
        start = layout.dropped
        counts = np.maximum(np.minimum(counts, group.warmup) - start, 0)
    left_out: tuple[int, ...] = ()
    if chains is None:
        is_shown = np.zeros(layout.chains, bool)
        is_shown[layout.kept_chains if layout.finished else slice(None)] = True
        if counts[is_shown].any():
            is_shown &= counts > 0
        chains = tuple(np.flatnonzero(is_shown).tolist())
        left_out = tuple(np.flatnonzero(~is_shown).tolist())
    counts = counts[list(chains)]
    length = int(counts.min() if align == "cut" else counts.max())
    return Cut(
        moment=moment,
        group=group,
        name=name,
        chains=chains,
        start=start,
        counts=tuple(map(int, counts)),
        length=length,
        left_out=left_out,
    )


def say_left_out(cuts: Iterable[Cut | None]) -> None:
    """Warn about the chains that views leave out, once for each trace that is opened."""
    for cut in cuts:
        if cut is None or cut.layout.finished or cut.moment.hierarchy in _TOLD:
            continue
        if cut.left_out:
            _TOLD.add(cut.moment.hierarchy)
            warn_caller(
                f"{cut.name} of {cut.moment} has no draw of {list_chains(cut.left_out)}: views "
                f"show the other chains; they show all with chains=range({cut.layout.chains})"
            )


def choose_chains(
    layout: Layout, chains: int | Iterable[int] | None, where: str
) -> tuple[int, ...] | None:
    """The chosen chains; None for all that have draws."""
    if chains is None:
        return None
    chosen = (chains,) if isinstance(chains, int | np.integer) else tuple(chains)
    for chain in chosen:
        if not isinstance(chain, int | np.integer) or not 0 <= chain < layout.chains:
            known = chain_label(range(layout.chains))
            raise ChainError(f"{where} has {known}, not {chain!r}")
    if not chosen or len(set(chosen)) != len(chosen):
        raise ChainError(f"chains={list(chosen)}: pass distinct chains, at least one")
    return tuple(map(int, chosen))


def find_groups(layout: Layout, names: Iterable[str], group: str | None, where: str) -> list[str]:
    """The group each variable is in: the given one, or the first that has it."""
    candidates = [group] if group is not None else layout.group_names
    sampled = []
    for candidate in candidates:
        found = layout.groups.get(candidate.removeprefix("warmup_"))
        if found is None and candidate not in layout.data_groups:
            raise GroupNotFoundError(
                f"{where} has no group {candidate!r}",
                remedy=f"it has {', '.join(layout.group_names)}",
                group=candidate,
            )
        if found is not None:
            sampled.append((candidate, found.variables))
    groups = []
    for name in names:
        for candidate, variables in sampled:
            if name in variables:
                groups.append(candidate)
                break
        else:
            here = f"group {group!r} of {where}" if group is not None else where
            known = [v.label for v in layout.variables]
            raise VariableNotFoundError(
                f"{here} has no sampled variable {name!r}",
                remedy=f"it has {', '.join(known)}",
                group=group,
                variable=name,
            )
    return groups


def sampling_attrs(moment: Moment) -> dict[str, Any]:
    """`sampling_time` in seconds, of the slowest chain, unless the user has set it.

    It is missing until all draws are recorded or the trace is finished: it would grow, and
    reading it takes a request per writer. Also `recorded_elsewhere`, if there may be more draws
    than the proven ones.
    """
    attrs = {"recorded_elsewhere": READ_ELSEWHERE} if moment.is_elsewhere else {}
    complete = moment.layout.closed or bool((moment.counts == moment.layout.total).all())
    if not complete or "sampling_time" in moment.layout.attrs or not moment.sampling_time:
        return attrs
    return {**attrs, "sampling_time": moment.sampling_time}


def alignment_attrs(counts: np.ndarray[Any, Any], length: int) -> dict[str, Any]:
    """What a reader should know about chains of unequal length."""
    how = "cut to the shortest chain" if length == counts.min() else "padded to the longest chain"
    return {"draws_recorded": counts.tolist(), "alignment": how}
