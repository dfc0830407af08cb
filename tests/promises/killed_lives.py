"""The life of one trace in many processes, and the board on which they say what they have done.

A process is forked for each part of a life: it opens the trace, does some things to it, each of
which it writes on the board before and after, and is killed on the way. `killed_verdict.py` reads
the board and the trace and tells whether they agree. `harness_kill.py` does the killing.
"""

from __future__ import annotations

import mmap
import random
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from outcomes import TrialFailed

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
            "pending": (len(SETTLED),), "operation": (BLOCKS + 2,), "counted": (3,),
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
    counted: Array  # whole reads meanwhile, looks that found damage, traces refused as unfinished

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


class Actor:
    """One process of a life: what it does to the trace, until it is killed or has done it."""

    def __init__(
        self, path: Path, board: Board, seed: str, slot: int, life: int, stop: Callable[[int], None]
    ) -> None:
        self.path, self.board, self.slot, self.life = path, board, slot, life
        self.chooser, self.seed = random.Random(seed), int(seed.split()[0])
        self._stop, self._steps = stop, 0

    @contextmanager
    def doing(self, operation: str, **pending: int) -> Iterator[None]:
        self._stop(self._steps)
        self._steps += 1
        with self.board.doing(self.slot, operation, **pending):
            yield

    @property
    def plan(self) -> Plan:
        return Plan(self.seed, self.board.value("generation"))

    # A chain ----------------------------------------------------------------------------------

    def record_chain(self, block: int, steps: int, *, alone: bool) -> None:
        """Take up one block of chains, and record some draws of it."""
        board, plan, chooser = self.board, self.plan, self.chooser
        chains = plan.members(block)
        with self.doing("open"):
            trace = zt.open(self.path, "a")
        with self.doing("writer"):
            writer = trace.writer(chains if plan.together > 1 else chains[0])
        self._resume(writer, block, alone=alone)
        for _ in range(steps):
            choice = chooser.random()
            room = min(writer.total, LONGEST) - writer.recorded
            if choice < 0.12:
                with self.doing("checkpoint"):
                    board.coming[block] = writer.recorded, self.life
                    writer.checkpoint(checkpoint_state(writer.recorded, self.life))
                    board.safe[block] = writer.recorded
                    board.checkpoint[block] = writer.recorded, self.life
                    board.coming[block] = NEVER
            elif choice < 0.17:
                with self.doing("flush"):
                    writer.flush()
                    board.safe[block] = writer.recorded
            elif choice < 0.2:
                with self.doing("close"):
                    writer.close()
                    board.safe[block] = board.recorded[block]
                with self.doing("writer"):
                    writer = trace.writer(chains if plan.together > 1 else chains[0])
                self._resume(writer, block, alone=alone)
            elif room:
                many = min(room, chooser.randrange(2, 15)) if choice < 0.35 else 0
                self._record(writer, block, many)
        if chooser.random() < 0.6:
            with self.doing("close"):
                writer.close()
                board.safe[block] = board.recorded[block]

    def _resume(self, writer: zt.ChainWriter, block: int, *, alone: bool) -> None:
        board = self.board
        before, checkpoint = int(board.recorded[block]), board.checkpoint[block].tolist()
        is_full = before == writer.total and alone
        with self.doing("resume"):
            if checkpoint[0] != NEVER and not is_full:
                board.safe[block] = min(board.safe[block], checkpoint[0])
            start, state = writer.resume()
            goes_back = checkpoint[0] != NEVER and not is_full
            expected = {checkpoint[0]} if goes_back else {before}
            if start not in expected | (set() if alone else {before}):
                raise TrialFailed("lost", f"resumed at {start}, not {expected}")
            if state is not None and state["draw"] != start:
                raise TrialFailed("wrong", f"resumed at {start} with the state {state}")
            board.recorded[block] = board.given[block] = start
            board.safe[block] = start

    def _record(self, writer: zt.ChainWriter, block: int, many: int) -> None:
        """Record one draw, or a block of several."""
        board, plan, start = self.board, self.plan, writer.recorded
        lives = np.full(max(many, 1), self.life)
        values = plan.values(writer.chains, start, lives)
        with self.doing("record_block" if many else "record"):
            board.lives[block, start : start + len(lives)] = self.life
            board.given[block] = start + len(lives)
            if many:
                writer.record_block(**{
                    group: {n: a if plan.together > 1 else a[0] for n, a in arrays.items()}
                    for group, arrays in values.items()
                })  # fmt: skip
            else:
                writer.record(**{
                    group: {
                        n: a[:, 0] if plan.together > 1 else a[0, 0] for n, a in arrays.items()
                    }
                    for group, arrays in values.items()
                })  # fmt: skip
            board.recorded[block] = start + len(lives)
            if plan.journal:
                board.safe[block] = start + len(lives)

    # The trace --------------------------------------------------------------------------------

    def keep_house(self, steps: int, *, alone: bool) -> None:
        """Do things to the trace as a whole; not alone, only those that disturb no writer."""
        board = self.board
        if board.value("generation") == NEVER:
            plan = Plan(self.seed, 0)
            with self.doing("create", generation=0):
                plan.create(self.path, overwrite=self.chooser.random() < 0.5)
            board.begin_generation(0, plan)
        with self.doing("open"):
            trace = zt.open(self.path, "a")
        for _ in range(steps):
            try:
                trace = self._keep(trace, alone=alone)
            except zt.errors.ChainBusyError:
                if alone:
                    raise
            except zt.errors.IncompleteTraceError:
                # A chain has gone back to its checkpoint meanwhile.
                if alone:
                    raise
                board.pending[:] = NOTHING

    def _keep(self, trace: zt.Trace, *, alone: bool) -> zt.Trace:
        board, chooser = self.board, self.chooser
        counts = trace.recorded.tolist()
        shortest, burn_in, dropped = min(counts), board.value("burn_in"), board.value("dropped")
        total, finished = board.value("total"), board.value("finished")
        choices = ["extend", "group", "group", "table", "table", "table"]
        if shortest >= dropped:
            choices += ["burn_in", "drop"]
        if alone:
            choices += ["repair", "overwrite", "split"]
            choices += ["finish"] * 3 if shortest > burn_in else []
            choices += ["extend"] * 2 if finished else []
        choice = chooser.choice(choices)
        some = chooser.randrange(dropped, max(min(shortest, dropped + 25), dropped) + 1)
        if choice == "extend" and total < LONGEST - 20:
            more = chooser.randrange(1, 15)
            with self.doing("extend", total=total + more, finished=0):
                trace.extend(more)
        elif choice == "burn_in" and (not finished or some < shortest):
            with self.doing("set_burn_in", burn_in=some):
                trace.set_burn_in(some)
        elif choice == "drop" and (not finished or some < shortest) and chooser.random() < 0.4:
            with self.doing("drop_before", dropped=some, burn_in=max(some, burn_in)):
                trace.drop_before(some)
        elif (
            choice == "split" and dropped <= some <= shortest and (not finished or some < shortest)
        ):
            with self.doing("split_warmup", burn_in=some):
                trace.split_warmup(some)
        elif choice == "finish":
            with self.doing("finish", finished=1):
                trace.finish()
        elif choice == "repair":
            with self.doing("repair"):
                trace.repair()
        elif choice == "overwrite" and chooser.random() < 0.5:
            generation = board.value("generation") + 1
            plan = Plan(self.seed, generation)
            with self.doing("overwrite", generation=generation):
                trace = plan.create(self.path, overwrite=True)
            board.begin_generation(generation, plan)
        elif choice == "group":
            self._change_group(trace)
        elif choice == "table":
            self._append(trace)
        return trace

    def _change_group(self, trace: zt.Trace) -> None:
        there, how = self.board.value("group"), self.chooser.random()
        if there != NEVER and how < 0.25:
            with self.doing("remove_group", group=NEVER):
                trace.remove_group("observed_data")
            return
        data = self.plan.group(self.life)
        if how < 0.6:
            with self.doing("add_group", group=self.life):
                trace.add_group("observed_data", data, overwrite=True)
        else:
            result = xr.DataTree.from_dict({"observed_data": data})
            with self.doing("update", group=self.life):
                trace.update(result, overwrite=True)

    def _append(self, trace: zt.Trace) -> None:
        board, plan, chooser = self.board, self.plan, self.chooser
        declared: dict[str, Any] = {"number": int, "value": zt.Var(shape=2)}
        if plan.table_text:
            declared["text"] = str
        waits = plan.table_text and plan.table_waits > 0
        table = trace.table("notes", declared, flush_every=plan.table_waits)
        for _ in range(chooser.randrange(1, 4)):
            start = int(board.rows[0])
            many = chooser.choice([0, 0, 0, 5, 17])
            lives = np.full(max(many, 1), self.life)
            if start + len(lives) > ROWS:
                break
            columns = plan.rows(lives, start)
            with self.doing("append_rows" if many else "append"):
                board.row_lives[start : start + len(lives)] = self.life
                board.rows[1] = start + len(lives)
                if many:
                    table.append_rows(columns)
                else:
                    table.append({name: values[0] for name, values in columns.items()})
                board.rows[0] = start + len(lives)
                if not waits:
                    board.rows[2] = board.rows[0]
        if chooser.random() < 0.3:
            with self.doing("flush a table"):
                table.flush()
                board.rows[2] = board.rows[0]
        if chooser.random() < 0.5:
            with self.doing("close a table"):
                table.close()
                board.rows[2] = board.rows[0]

    # The rest ---------------------------------------------------------------------------------

    def recover(self) -> None:
        """Open a trace whose process was killed, and repair it, perhaps."""
        if self.board.value("generation") == NEVER:
            return self.keep_house(0, alone=True)
        with self.doing("open"):
            trace = zt.open(self.path, "a")
        if self.chooser.random() < 0.5:
            with self.doing("repair"):
                trace.repair()
        return None

    def complete(self) -> None:
        """Record all that is missing, and finish."""
        trace = zt.open(self.path, "a")
        if self.board.value("finished"):
            return
        for block in range(self.plan.blocks):
            chains = self.plan.members(block)
            with trace.writer(chains if len(chains) > 1 else chains[0]) as writer:
                self._resume(writer, block, alone=True)
                while writer.recorded < writer.total:
                    self._record(writer, block, min(7, writer.total - writer.recorded))
            self.board.safe[block] = self.board.recorded[block]
        if self.board.value("burn_in") == self.board.value("total"):
            trace.extend(3)
            self.board.settle("total", self.board.value("total") + 3)
            self.complete()
            return
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            trace.finish()
        self.board.settle("finished", 1)


def checkpoint_state(draw: int, life: int) -> dict[str, Any]:
    return {"draw": draw, "life": life, "position": np.full(3, draw + 0.5)}
