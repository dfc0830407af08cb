"""The life of one trace, in many processes.

A process is forked for each part of a life: it opens the trace and does some things to it, each of
which it writes on the board before and after, and is killed on the way. `killed_verdict.py` reads
the board and the trace and tells whether they agree. `harness_kill.py` does the killing.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from killed_at_random import Stop
from killed_board import LONGEST, NEVER, NOTHING, ROWS, Board, Plan, checkpoint_state
from outcomes import TrialFailed

import zarrtrace as zt

# What a process does to a trace as a whole, by each operation that is a part of it.
CHOICES = {
    "extend": "extend", "set_burn_in": "burn_in", "drop_before": "drop", "split_warmup": "split",
    "finish": "finish", "repair": "repair", "overwrite": "overwrite", "add_group": "group",
    "update": "group", "remove_group": "group", "append": "table", "append_rows": "table",
    "flush a table": "table", "close a table": "table",
}  # fmt: skip


class Actor:
    """One process of a life: what it does to the trace, until it is killed or has done it."""

    def __init__(
        self, path: Path, board: Board, seed: str, slot: int, life: int, stop: Stop
    ) -> None:
        self.path, self.board, self.slot, self.life = path, board, slot, life
        self.chooser, self.seed = random.Random(seed), int(seed.split()[0])
        self._stop, self._steps = stop, 0

    @contextmanager
    def doing(self, operation: str, **pending: int) -> Iterator[None]:
        self._stop(self._steps, operation)
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

    def keep_house(self, steps: int, aim: str = "", *, alone: bool) -> None:
        """Do things to the trace as a whole; not alone, only those that disturb no writer.

        The first is the one that is aimed at, where the trace allows it.
        """
        board = self.board
        if board.value("generation") == NEVER:
            plan = Plan(self.seed, 0)
            with self.doing("create", generation=0):
                plan.create(self.path, overwrite=self.chooser.random() < 0.5)
                board.begin_generation(0, plan)
        with self.doing("open"):
            trace = zt.open(self.path, "a")
        for step in range(steps):
            try:
                trace = self._keep(trace, "" if step else aim, alone=alone)
            except zt.errors.ChainBusyError:
                if alone:
                    raise
            except zt.errors.IncompleteTraceError:
                # A chain has gone back to its checkpoint meanwhile.
                if alone:
                    raise
                board.pending[:] = NOTHING

    def _keep(self, trace: zt.Trace, aim: str, *, alone: bool) -> zt.Trace:
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
        choice = CHOICES[aim] if CHOICES.get(aim) in choices else chooser.choice(choices)
        some = chooser.randrange(dropped, max(min(shortest, dropped + 25), dropped) + 1)
        if choice == "extend" and total < LONGEST - 20:
            more = chooser.randrange(1, 15)
            with self.doing("extend", total=total + more, finished=0):
                trace.extend(more)
        elif choice == "burn_in" and (not finished or some < shortest):
            with self.doing("set_burn_in", burn_in=some):
                trace.set_burn_in(some)
        elif (
            choice == "drop"
            and (not finished or some < shortest)
            and (aim or chooser.random() < 0.4)
        ):
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
        elif choice == "overwrite" and (aim or chooser.random() < 0.5):
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
        """Record all that is missing, and finish; make the trace if no creation was completed."""
        if self.board.value("generation") == NEVER:
            self.keep_house(0, alone=True)
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
