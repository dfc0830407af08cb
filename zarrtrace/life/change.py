"""Changes to a whole trace: each one locks out other processes that would change it too."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ChainBusyError, IncompleteTraceError, InvalidInputError
from ..layout.hierarchy import Hierarchy
from ..layout.layout import STAGING, Layout
from ..messages import warn_caller
from ..reading.moment import Moment
from ..recording.chain_journal import store_last_rows
from ..recording.writer import ChainWriter
from ..sampling_state.block import (
    ChainBlock,
    chain_blocks,
    read_claims,
    require_free,
    watch_until_free,
)
from ..sampling_state.counts import recorded
from ..sampling_state.request import remove_request
from . import burn_in, create, foreign_groups, place, split
from .add_group import add_data_group, remove_data_group
from .carry import require_ours
from .compact import (
    Compaction,
    copy_keys,
    planned_of,
    sizes_if_rounded,
    stored_sizes,
    tabulate,
    with_compacting,
)
from .finish import (
    carry_out,
    complete,
    describe_unequal,
    require_draws,
    take_back,
    with_chains,
)
from .given_groups import is_there, settle_groups
from .repair import repair
from .status import find_status

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

    from ..store.location import Location


@contextmanager
def alone(hierarchy: Hierarchy) -> Iterator[Layout]:
    """Lock out other processes that would change the hierarchy; yields its layout.

    Raises
    ------
    ChainBusyError
        Another process is changing it.
    """
    hierarchy.location.require_writable()
    with hierarchy.location.alone() as is_alone:
        if not is_alone:
            raise ChainBusyError(
                f"{hierarchy} is being split, finished or extended by another process; "
                f"try again afterwards"
            )
        layout = place.stay(hierarchy)
        yield settle_groups(hierarchy) if layout.replacing else layout


def split_warmup(
    hierarchy: Hierarchy, n: int | None = None, groups: Iterable[str] | None = None
) -> None:
    """Move the first draws of each chain to the `warmup_` groups."""
    with alone(hierarchy) as layout:
        _split(hierarchy, layout, lambda now: split.plan_split(now, n, groups))


def set_burn_in(hierarchy: Hierarchy, draws: int) -> None:
    """Count the first draws of each chain as warmup, and move them in a finished trace."""
    location = hierarchy.location
    with alone(hierarchy) as layout:
        layout = complete(hierarchy, layout)
        if layout.finished:
            _split(hierarchy, layout, lambda now: split.plan_split(now, draws))
        else:
            hierarchy.change(burn_in.with_burn_in(location, layout, draws))


def drop_before(hierarchy: Hierarchy, draw: int) -> None:
    """Drop the draws before this one, and remove the chunks that hold no other draws."""
    location = hierarchy.location
    with alone(hierarchy) as layout:
        before = complete(hierarchy, layout)
        warn_of_journals_elsewhere(location, before)
        layout = burn_in.without_draws(location, before, draw)
        if layout.finished:
            _split(hierarchy, before, lambda now: split.plan_split(replace(now, layout=layout)))
        else:
            hierarchy.change(layout)
        burn_in.delete_dropped(hierarchy)


def extend(hierarchy: Hierarchy, draws: int | None) -> None:
    """Make room for more draws in every chain, also while they are recorded."""
    is_number = isinstance(draws, int | np.integer) and not isinstance(draws, bool)
    if draws is not None and (not is_number or draws < 1):
        raise InvalidInputError(f"draws must be a whole number from 1, or None, got {draws!r}")

    def longer(now: Moment) -> Layout:
        layout = now.layout
        declared = _drawn(now) if is_stopped(now) else layout.draws
        if declared is None:
            declared = _drawn(now)
        more = None if draws is None else declared + int(draws)
        extended = replace(layout, draws=more, left_out=(), closed=False, finished=False)
        # This comes before the layout lets writers in: they have no other place for their rows.
        create.make_journals(hierarchy.location, extended)
        return extended

    with alone(hierarchy) as layout:
        if complete(hierarchy, layout).finished:
            _change_while_nobody_writes(hierarchy, hierarchy.layout, longer)
        else:
            # Nothing moves, and writers that are full read the layout again.
            hierarchy.change(longer(Moment.of(hierarchy)))
        # It is void by now, unless as many draws are declared as before.
        remove_request(hierarchy.location)


def is_stopped(now: Moment) -> bool:
    """Whether the chains have ended where they were asked to stop, before their declared end."""
    return now.end.request is not None and find_status(now).request is not None


def _drawn(now: Moment) -> int:
    """The draws after warmup of the longest chain."""
    return max(int(now.counts.max()) - now.layout.tune, 0)


def finish(hierarchy: Hierarchy, chains: int | Iterable[int] | None = None) -> str:
    """Split, trim and close a trace; a trace finished with these chains stays as it is.

    Returns
    -------
    str
        What other readers do not see of the chains; "" if they see all, or nothing was done.
    """
    chains = chains if chains is None or isinstance(chains, int) else tuple(chains)

    def close(now: Moment) -> Layout:
        now = replace(now, layout=with_chains(now, chains))
        require_draws(now)
        layout = replace(split.plan_split(now), closed=True, finished=False)
        if now.end.request is None or not is_stopped(now):
            return layout
        # From now on these are the draws of the run, which an extension continues.
        draws = None if layout.draws is None else _drawn(now)
        return replace(layout, draws=draws, attrs={**layout.attrs, **now.end.request.attrs})

    with alone(hierarchy):
        layout = settle_groups(hierarchy)
        if layout.finished:
            wanted = with_chains(Moment.of(hierarchy), chains) if chains is not None else layout
            if wanted.left_out == layout.left_out:
                return ""
        carry_out(_change_while_nobody_writes(hierarchy, layout, close))
        remove_request(hierarchy.location)
        return describe_unequal(Moment.of(hierarchy))


def compact(
    hierarchy: Hierarchy, compaction: Compaction, keep: Location | None = None
) -> pd.DataFrame:
    """Round the draws of a finished trace; returns what that has saved for each variable."""
    compaction.check()
    with alone(hierarchy) as layout:
        complete(hierarchy, layout)
        before = Moment.of(hierarchy)
        found, sizes = compaction.plan(before), stored_sizes(before)
        planned = planned_of(found)
        if keep is not None:
            place.settle(keep, "error", partial(copy_keys, hierarchy.location))
        if planned:
            _split(
                hierarchy,
                before.layout,
                lambda now: with_compacting(now.location, now.layout, planned),
            )
        now = Moment.of(hierarchy)
        return tabulate(now, found, sizes, stored_sizes(now))


def preview_compaction(hierarchy: Hierarchy, compaction: Compaction) -> pd.DataFrame:
    """What `compact` would save and change, for each variable; nothing is written."""
    compaction.check()
    now = Moment.of(hierarchy)
    found = compaction.plan(now)
    return tabulate(now, found, stored_sizes(now), sizes_if_rounded(now, planned_of(found)))


def add_group(
    hierarchy: Hierarchy,
    name: str,
    data: create.Definition | xr.Dataset,
    overwrite: bool = False,
) -> None:
    """Add a group that is given whole, or put it in the place of another one."""
    with alone(hierarchy):
        add_data_group(hierarchy, name, data, overwrite)


def remove_group(hierarchy: Hierarchy, name: str) -> None:
    """Remove a group that was given whole."""
    with alone(hierarchy):
        remove_data_group(hierarchy, name)


def update(hierarchy: Hierarchy, results: Any, overwrite: bool) -> list[str]:
    """Add, or replace, the groups of a result that are not sampled; returns their names."""
    hierarchy.location.require_writable()
    if isinstance(results, str | os.PathLike):
        with closing(foreign_groups.open_netcdf(Path(results))) as opened:
            return update(hierarchy, opened, overwrite)
    taken = []
    for name, data in foreign_groups.datasets(results).items():
        layout = hierarchy.layout
        is_kept = not overwrite and is_there(hierarchy.location, layout, name)
        if is_kept or name.startswith("warmup_") or name in layout.groups:
            continue
        tidy = foreign_groups.tidy(name, data)
        tidy = foreign_groups.set_apart(tidy, tidy.data_vars)
        if tidy.data_vars:
            add_group(hierarchy, name, foreign_groups.in_pieces(tidy), overwrite)
            taken.append(name)
    return taken


def repair_trace(hierarchy: Hierarchy) -> list[str]:
    """Fix what `check` finds, while no chain is recorded; returns what was done."""
    replacing = hierarchy.layout.replacing
    with alone(hierarchy) as layout:
        done = [f"{group}: the change that was interrupted is done" for group in replacing]
        watch_until_free(chain_blocks(hierarchy.location, layout))
        warn_of_journals_elsewhere(hierarchy.location, layout)
        done += repair(hierarchy)
        settle_groups(hierarchy)
        return done


def warn_of_journals_elsewhere(location: Location, layout: Layout) -> None:
    """Say which chains may have later draws in a journal on another machine."""
    blocks = chain_blocks(location, layout)
    for block, claim in zip(blocks, read_claims(blocks), strict=True):
        # A writer that is alive flushes its draws by itself.
        if claim is not None and not claim.seems_alive and block.may_be_elsewhere(claim):
            warn_caller(f"{block} was {block.describe_elsewhere(claim)}")


def _require_journals(blocks: list[ChainBlock], following: Layout) -> None:
    """Refuse to move or close draws while later ones may be in a journal on another machine.

    Once the arrays have changed, nobody can read its rows. Chains that are left out may lose them.
    """
    for block, claim in zip(blocks, read_claims(blocks), strict=True):
        if claim is None or not block.may_be_elsewhere(claim):
            continue
        if block.number in following.left_out:
            warn_caller(
                f"{block} was {block.describe_elsewhere(claim)}; they are left out for good"
            )
            continue
        chains = block.chains if len(block.chains) > 1 else block.chains[0]
        raise IncompleteTraceError(
            f"it was {block.describe_elsewhere(claim)}",
            where=str(block),
            remedy=f"do this on {claim.host}; if the journal is gone, trace.writer({chains}, "
            f"patience=90).close() on this machine gives these draws up",
            chain=block.chains[0],
        )


def _split(hierarchy: Hierarchy, layout: Layout, plan: Callable[[Moment], Layout]) -> None:
    """Move draws as planned; a finished trace is finished again afterwards."""

    def begin(now: Moment) -> Layout:
        planned = plan(now)
        return replace(planned, finished=now.layout.finished and not planned.splitting)

    carry_out(_change_while_nobody_writes(hierarchy, layout, begin))


def _change_while_nobody_writes(
    hierarchy: Hierarchy, layout: Layout, change: Callable[[Moment], Layout]
) -> Moment:
    """Replace the layout while no chain can write and every draw is in its chunk."""
    # Rows that are only in a journal are written to their chunks.
    split.require_no_links(hierarchy.location, layout)
    layout = complete(hierarchy, layout)
    blocks = chain_blocks(hierarchy.location, layout)
    watch_until_free(blocks)
    # One at a time: a process may have too few descriptors to hold all journals.
    for block in blocks:
        path = block.journal_file
        if path is None or not path.exists():
            continue
        claim = block.claim
        if claim is not None and claim.is_held:
            # Another thread has just opened a writer, which would give way to this one.
            raise block.busy(claim)
        writer = ChainWriter(hierarchy, block.number)
        try:
            writer.flush()
            writer._store_rows()
        finally:
            writer._release()
    # Until it is certain that no process writes, arrays stay and journals are read: a writer
    # may have opened since, recorded draws that no chunk has, and closed.
    hierarchy.change(replace(layout, paused=True))
    try:
        # A writer that opened meanwhile has seen the layout and closed, or is seen here.
        require_free(blocks)
        for block in blocks:
            if not block.is_flushed:
                raise block.busy(block.claim)
        now = Moment(hierarchy, layout, recorded(hierarchy.location, layout))
        following = change(now)
        if layout.finished and not following.finished:
            changing = [] if following.total == layout.total else ["draw"]
            if following.left_out != layout.left_out:
                changing = ["chain", "draw"]
            require_ours(hierarchy.location, layout, changing)
        if following.splitting or following.closed:
            _require_journals(blocks, following)
            for block in blocks:
                store_last_rows(hierarchy, block)
        if following.splitting and hierarchy.location.renames:
            # Files that a killed process with an earlier version may have left.
            hierarchy.location.delete_tree(STAGING)
    except BaseException:
        hierarchy.change(layout)
        raise
    if layout.finished and not following.finished:
        take_back(hierarchy)
    hierarchy.change(following)
    return replace(now, layout=following)
