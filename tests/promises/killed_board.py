"""The board on which the processes of a trial say what they have done, and what a trace is like."""

from __future__ import annotations

import mmap
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

import zarrtrace as zt

BLOCKS, LONGEST, ROWS = 3, 160, 400  # at most: writers of a trace, draws of a chain, table rows
NEVER = -1  # no trace, no checkpoint, no group
NOTHING = -2  # is pending
IDLE = "between two calls"
OPERATIONS = (
    IDLE, "create", "overwrite", "open", "writer", "resume", "record", "record_block",
    "checkpoint", "flush", "close", "split_warmup", "set_burn_in", "drop_before", "finish",
    "extend", "repair", "add_group", "update", "remove_group", "append", "append_rows",
    "flush a table", "close a table", "read",
)  # fmt: skip

COUNTED = (
    "whole reads meanwhile",
    "looks that found files of killed processes",
    "refused by plain xarray until finished",
    "looks that found damage to repair",
)

# What one process at a time changes: each has the value it has, and the one it is to get.
SETTLED = ("generation", "burn_in", "dropped", "total", "finished", "group")

Array = np.ndarray[Any, Any]


class Board:
    """Numbers in memory that all processes of a trial share, and that outlive them.

    Each block of chains has the draws that are acknowledged in `recorded`, those that were given to
    a call in `given`, and those that must be there after a kill in `safe`. Each draw has the part
    of the life in which it was recorded in `lives`. A checkpoint is its draws and its part of the
    life; `coming` is the one that is being written.
    """

    def __init__(self) -> None:
        shapes: dict[str, tuple[int, ...]] = {
            "recorded": (BLOCKS,), "given": (BLOCKS,), "safe": (BLOCKS,),
            "lives": (BLOCKS, LONGEST), "checkpoint": (BLOCKS, 2), "coming": (BLOCKS, 2),
            "row_lives": (ROWS,), "rows": (3,), "settled": (len(SETTLED),),
            "pending": (len(SETTLED),), "operation": (BLOCKS + 2,), "counted": (4,),
        }  # fmt: skip
        sizes = {name: int(np.prod(shape)) for name, shape in shapes.items()}
        self._memory = mmap.mmap(-1, 8 * sum(sizes.values()) + 4096)
        start = 0
        for name, shape in shapes.items():
            array = np.frombuffer(self._memory, np.int64, sizes[name], start).reshape(shape)
            setattr(self, name, array)
            start += 8 * sizes[name]
        self._complaint = start
        self.settled[:], self.pending[:] = NEVER, NOTHING
        self.checkpoint[:] = self.coming[:] = NEVER

    recorded: Array
    given: Array
    safe: Array
    lives: Array
    checkpoint: Array
    coming: Array
    row_lives: Array
    rows: Array  # acknowledged, given, safe
    settled: Array
    pending: Array
    operation: Array
    counted: Array  # by what is printed of `COUNTED`

    def value(self, name: str) -> int:
        return int(self.settled[SETTLED.index(name)])

    def possible(self, name: str) -> set[int]:
        """The value that something has, and the one that it may have got before the kill."""
        place = SETTLED.index(name)
        return {int(self.settled[place]), int(self.pending[place])} - {NOTHING}

    def settle(self, name: str, value: int) -> None:
        place = SETTLED.index(name)
        self.settled[place], self.pending[place] = value, NOTHING

    def begin_generation(self, generation: int, plan: Plan) -> None:
        """Write down that there is a new trace without any draws."""
        for array in (self.recorded, self.given, self.safe, self.rows):
            array[:] = 0
        self.checkpoint[:] = self.coming[:] = NEVER
        for name, value in (
            ("burn_in", plan.tune), ("dropped", 0), ("total", plan.tune + plan.draws),
            ("finished", 0), ("group", NEVER), ("generation", generation),
        ):  # fmt: skip
            self.settle(name, value)

    @contextmanager
    def doing(self, slot: int, operation: str, **pending: int) -> Iterator[None]:
        """What happens to the trace in here; without an error it has the pending values then."""
        for name, value in pending.items():
            self.pending[SETTLED.index(name)] = value
        self.operation[slot] = OPERATIONS.index(operation)
        try:
            yield
        except zt.errors.ChainBusyError:
            # It says that nothing was changed.
            for name in pending:
                self.pending[SETTLED.index(name)] = NOTHING
            raise
        finally:
            self.operation[slot] = 0
        for name, value in pending.items():
            self.settle(name, value)

    def done(self, slot: int) -> str:
        return OPERATIONS[self.operation[slot]]

    def complain(self, text: str) -> None:
        if not self._memory[self._complaint]:
            self._memory[self._complaint : self._complaint + 4000] = text.encode()[:3999].ljust(
                4000, b"\0"
            )

    @property
    def complaint(self) -> str:
        return self._memory[self._complaint :].rstrip(b"\0").decode(errors="replace")


class Plan:
    """How a trace is laid out, chosen by the number of the trial and of the trace in it."""

    def __init__(self, seed: int, generation: int) -> None:
        chooser = random.Random(f"{seed} plan {generation}")
        self.seed, self.generation = seed, generation
        self.together = chooser.choice([1, 1, 2])
        self.blocks = chooser.choice([1, 2, 3])
        self.chains = self.blocks * self.together
        self.tune, self.draws = chooser.choice([0, 6, 12]), chooser.randrange(15, 40)
        self.journal = chooser.random() < 0.75
        self.durability = chooser.choice(["process", "process", "process", "disk"])
        self.checksum = chooser.random() < 0.3
        self.lengths = [chooser.choice([1, 3, 4, 6, 7, 20, 60]) for _ in range(6)]
        self.has_times = chooser.random() < 0.3
        self.has_text = chooser.random() < 0.7
        self.table_waits = chooser.choice([0.0, 1e9])
        self.table_text = chooser.random() < 0.5

    def create(self, path: Path, *, overwrite: bool) -> zt.Trace:
        length = iter(self.lengths)
        posterior = {
            "mu": zt.Var(draws_per_chunk=next(length)),
            "theta": zt.Var(shape=3, draws_per_chunk=next(length)),
            "steps": zt.Var(dtype="int32", draws_per_chunk=next(length)),
        }
        if self.has_text:
            posterior["label"] = zt.Var(dtype=str, draws_per_chunk=next(length))
        if self.has_times:
            posterior["at"] = zt.Var(dtype="datetime64[ns]", draws_per_chunk=next(length))
        return zt.create(
            path,
            chains=self.chains,
            chains_per_chunk=self.together,
            tune=self.tune,
            draws=self.draws,
            posterior=posterior,
            sample_stats={"lp": zt.Var(), "diverging": zt.Var(dtype=bool)},
            attrs={"generation": self.generation},
            journal=self.journal,
            flush_every=1e9,
            durability=self.durability,  # type: ignore[arg-type]
            checksum=self.checksum,
            overwrite=overwrite,
        )

    def members(self, block: int) -> range:
        return range(block * self.together, (block + 1) * self.together)

    def values(self, chains: Sequence[int] | Array, first: int, lives: Array) -> dict[str, Any]:
        """What is in each variable, (chains, draws, ...): for each group, in the given lives."""
        chain = np.asarray(chains)[:, None]
        draw = np.arange(first, first + len(lives))[None, :]
        mu = 1e9 * self.generation + 1e6 * lives[None, :] + 1e4 * chain + draw + 0.5
        posterior = {
            "mu": mu,
            "theta": np.stack([mu, mu + 0.25, -mu], -1),
            "steps": (1000 * chain + draw + 1 + 10000 * lives[None, :]).astype("int32"),
        }
        if self.has_text:
            posterior["label"] = np.array(
                [["at " + f"{x:.2f} " * (int(x) % 3 + 1) for x in row] for row in mu], object
            )
        if self.has_times:
            posterior["at"] = mu.astype("int64").astype("datetime64[ns]")
        stats = {"lp": -mu, "diverging": (mu.astype("int64") + draw) % 3 == 0}
        return {"posterior": posterior, "sample_stats": stats}

    def rows(self, lives: Array, first: int = 0) -> dict[str, Array]:
        row = np.arange(first, first + len(lives))
        number = 1e6 * self.generation + 1e3 * lives + row
        columns: dict[str, Array] = {"number": row, "value": np.stack([number, -number], 1)}
        if self.table_text:
            columns["text"] = np.array([f"row {x}" * (int(x) % 2 + 1) for x in number], object)
        return columns

    def group(self, version: int) -> xr.Dataset:
        size = 3 + version % 4
        return xr.Dataset({"y": ("i", np.full(size, 0.5 + version)), "z": ("k", [version])})


def checkpoint_state(draw: int, life: int) -> dict[str, Any]:
    return {"draw": draw, "life": life, "position": np.full(3, draw + 0.5)}
