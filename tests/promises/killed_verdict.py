"""Whether a trace is what the board of `killed_board.py` says, after a kill and at the end."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from killed_board import NEVER, Array, Board, Plan, checkpoint_state
from outcomes import TrialFailed
from zarr.errors import MetadataValidationError

import zarrtrace as zt

GROUPS = ("posterior", "sample_stats")


def judge(path: Path, seed: int, board: Board, *, settle: bool, in_xarray: bool) -> None:
    """Raise an error if something acknowledged is not there, or anything else is wrong.

    With `settle` the trace is opened for writing first, which completes what was interrupted, and
    what is seen is written on the board as what there is.
    """
    try:
        trace = zt.open(path, "a" if settle else "r")
    except zt.errors.TraceNotFoundError:
        if board.value("generation") != NEVER:
            raise
        board.settle("generation", NEVER)
        return
    generation = generation_of(path)
    require("generation", generation, board)
    if generation != board.value("generation"):
        board.begin_generation(generation, Plan(seed, generation))
    plan = Plan(seed, generation)
    seen = {
        "burn_in": trace.burn_in, "dropped": trace.dropped, "total": trace.tune + trace.draws,
        "finished": int(trace.finished), "group": group_version(trace, plan),
    }  # fmt: skip
    for what, value in seen.items():
        if what == "finished" and not settle:
            continue  # until it is opened for writing, it may be about to be finished
        require(what, value, board)
    counts = require_draws(trace, plan, board, in_xarray=in_xarray)
    checkpoints = [require_checkpoint(trace, plan, board, block) for block in range(plan.blocks)]
    rows = require_rows(trace, plan, board)
    if settle:
        for what, value in seen.items():
            board.settle(what, value)
        for block, count in enumerate(counts):
            board.recorded[block] = board.given[block] = board.safe[block] = count
            board.checkpoint[block], board.coming[block] = checkpoints[block], NEVER
        board.rows[:] = rows
        require_nothing_wrong(trace, board)
        if in_xarray:
            require_draws(trace, plan, board, in_xarray=True)
            require_plain(path, trace, plan, board)


def generation_of(path: Path) -> int:
    document = json.loads((path / "posterior" / "zarr.json").read_bytes())
    return int(document["attributes"]["generation"])


def require(what: str, value: int, board: Board) -> None:
    if value not in board.possible(what):
        raise TrialFailed("wrong", f"{what} is {value}, not one of {board.possible(what)}")


def same(found: Any, expected: Array) -> bool:
    found = np.asarray(found)
    if found.shape != expected.shape:
        return False
    if expected.dtype.kind in "OUT":
        return bool(found.tolist() == expected.tolist())
    return bool(found.dtype == expected.dtype and np.array_equal(found, expected))


def values_of(
    now: zt.Snapshot | zt.Trace, group: str, chains: range, names: Iterable[str], *, in_xarray: bool
) -> dict[str, Array]:
    """The values of the variables of a group, as NumPy arrays or by way of xarray."""
    if in_xarray:
        dataset = now.dataset(group, chains=list(chains))
        return {str(name): array.values for name, array in dataset.data_vars.items()}
    return now.get(list(names), group=group, chains=list(chains))


def require_draws(trace: zt.Trace, plan: Plan, board: Board, *, in_xarray: bool) -> list[int]:
    """Every draw is there with its value, and belongs to the group that it has to."""
    counts = trace.recorded.tolist()
    for block in range(plan.blocks):
        chains = plan.members(block)
        if len({counts[chain] for chain in chains}) > 1:
            raise TrialFailed("wrong", f"the chains of a block have {counts} draws")
        count, safe, given = counts[chains[0]], int(board.safe[block]), int(board.given[block])
        if count < safe:
            raise TrialFailed("lost", f"block {block}: {safe} draws are safe, {count} are there")
        if count > given:
            raise TrialFailed("wrong", f"block {block}: {given} draws given, {count} are there")
        burn_in, dropped = trace.burn_in, trace.dropped
        for kind in GROUPS:
            spans = {f"warmup_{kind}": (dropped, min(burn_in, count)), kind: (burn_in, count)}
            for group, (first, stop) in spans.items():
                if stop <= first:
                    continue
                wanted = plan.values(chains, first, board.lives[block, first:stop])[kind]
                found = values_of(trace, group, chains, wanted, in_xarray=in_xarray)
                if sorted(found) != sorted(wanted):
                    raise TrialFailed("lost", f"{group} has {sorted(found)}")
                for name, expected in wanted.items():
                    if not same(found[name], expected):
                        why = f"{group}/{name}, block {block}: {found[name]} is not {expected}"
                        raise TrialFailed("wrong", why)
    return [counts[plan.members(block)[0]] for block in range(plan.blocks)]


def require_checkpoint(trace: zt.Trace, plan: Plan, board: Board, block: int) -> tuple[int, int]:
    """The last checkpoint, or the one that was being written, is there; returns it."""
    chains = plan.members(block)
    draws, state = trace.last_checkpoint(chains if plan.together > 1 else chains[0])
    found = (NEVER, NEVER) if state is None else (draws, state["life"])
    possible = {tuple(board.checkpoint[block].tolist()), tuple(board.coming[block].tolist())}
    if board.checkpoint[block, 0] != NEVER:
        possible.discard((NEVER, NEVER))
    if found not in possible:
        kind = "lost" if state is None else "wrong"
        raise TrialFailed(kind, f"the checkpoint is {found}, not one of {possible}")
    if state is not None:
        expected = checkpoint_state(*found)
        if draws > trace.recorded[chains[0]] or not np.array_equal(
            state["position"], expected["position"]
        ):
            raise TrialFailed("wrong", f"the checkpoint {found} has the state {state}")
    return found


def group_version(trace: zt.Trace, plan: Plan) -> int:
    """The version of the group that is replaced now and then; its values must be those of one."""
    if "observed_data" not in trace.groups:
        return NEVER
    found = trace["observed_data"]
    version = int(found["z"].values[0])
    if not same(found["y"].values, plan.group(version)["y"].values):
        raise TrialFailed("wrong", f"observed_data has {found['y'].values} in version {version}")
    return version


def require_rows(trace: zt.Trace, plan: Plan, board: Board) -> int:
    if "notes" not in trace.tables:
        if board.rows[2]:
            raise TrialFailed("lost", f"there is no table, and {board.rows[2]} rows were appended")
        return 0
    table = trace.table("notes")
    count = len(table)
    if count < board.rows[2]:
        raise TrialFailed("lost", f"{board.rows[2]} rows are safe, {count} are there")
    if count > board.rows[1]:
        raise TrialFailed("wrong", f"{board.rows[1]} rows were given, {count} are there")
    for name, expected in plan.rows(board.row_lives[:count]).items() if count else ():
        if not same(table[name], expected):
            raise TrialFailed("wrong", f"column {name}: {table[name]} is not {expected}")
    return count


def require_nothing_wrong(trace: zt.Trace, board: Board) -> None:
    found = trace.check()
    if found:
        left_behind = all(damage.path.endswith(".partial") for damage in found)
        board.counted[1 if left_behind else 3] += 1
        trace.repair()
        if found := trace.check():
            raise TrialFailed("unreadable", f"after a repair: {', '.join(map(str, found))}")


def require_plain(path: Path, trace: zt.Trace, plan: Plan, board: Board) -> None:
    """Plain xarray refuses the trace until it is finished; then it has the same draws."""
    try:
        tree = xr.open_datatree(path, engine="zarr")
    except MetadataValidationError as error:
        if trace.finished or "zarrtrace_unfinished" not in str(error):
            raise
        board.counted[2] += 1
        return
    if not trace.finished:
        raise TrialFailed("wrong", "plain xarray reads a trace that is not finished")
    burn_in, stop = trace.burn_in, min(trace.recorded.tolist())
    for block in range(plan.blocks):
        chains = plan.members(block)
        for kind, wanted in plan.values(chains, burn_in, board.lives[block, burn_in:stop]).items():
            for name, expected in wanted.items():
                found = tree[kind][name].sel(chain=list(chains)).values
                if not same(found, expected):
                    why = f"plain xarray, {kind}/{name}: {found} is not {expected}"
                    raise TrialFailed("wrong", why)


def read_meanwhile(path: Path, seed: int, board: Board, seconds: float) -> None:
    """Read the trace again and again, while chains are recorded: each draw must be of one piece.

    The first variable says in which part of the life a draw was recorded; the others must agree.
    """
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            trace = zt.open(path)
            plan = Plan(seed, generation_of(path))
            now = trace.at_once()
            for kind, chains, group in groups_with_draws(now, plan):
                mu = now.get("mu", group=group.replace(kind, "posterior"), chains=list(chains))
                if not mu.size:
                    continue
                first, lives = int(mu[0, 0] % 1e4), (mu[0] % 1e9 // 1e6).astype(int)
                wanted = plan.values(chains, first, lives)[kind]
                found = values_of(now, group, chains, wanted, in_xarray=False)
                for name, expected in wanted.items():
                    if not same(found[name], expected):
                        why = f"read meanwhile, {group}/{name}: {found[name]} is not {expected}"
                        raise TrialFailed("wrong", why)
            board.counted[0] += 1
        except zt.errors.StaleViewError:
            pass  # a chain went back to its checkpoint, or draws were dropped


def groups_with_draws(now: zt.Snapshot, plan: Plan) -> Iterator[tuple[str, range, str]]:
    for block in range(plan.blocks):
        chains = plan.members(block)
        for kind in GROUPS:
            for group in (kind, f"warmup_{kind}"):
                if group in now.groups and now.recorded[chains[0]]:
                    yield kind, chains, group
