"""Writers, readers, splits, resumes and crashes in any order, against a model in memory."""

from __future__ import annotations

import shutil
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)
from zarr.storage import MemoryStore

import zarrtrace as zt

pytestmark = pytest.mark.once("oldest")

CHAINS = 2
EVERY = list(range(CHAINS))
chains = st.integers(0, CHAINS - 1)


def values(chain: int, draws: range, run: int) -> dict[str, np.ndarray]:
    """What a chain draws: told apart by chain, draw, and the run that drew it."""
    numbers = np.array(draws, dtype=float)
    base = 1e6 * chain + 1e4 * run + numbers
    return {"mu": base, "theta": np.stack([base, -base], 1), "label": base.astype(str)}


class Life(RuleBasedStateMachine):
    """One trace, on a directory or in memory."""

    @initialize(
        on_disk=st.booleans(),
        tune=st.integers(0, 9),
        draws=st.integers(1, 12),
        lengths=st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9)),
    )
    def create(self, on_disk: bool, tune: int, draws: int, lengths: tuple[int, int, int]) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.store: Any = self.folder / "run.zarr" if on_disk else MemoryStore()
        self.on_disk = on_disk
        self.trace = zt.create(
            self.store,
            chains=CHAINS,
            tune=tune,
            draws=draws,
            posterior={
                "mu": zt.Var(draws_per_chunk=lengths[0]),
                "theta": zt.Var(shape=2, draws_per_chunk=lengths[1]),
                "label": zt.Var(dtype=str, draws_per_chunk=lengths[2]),
            },
            flush_every=1e9,
        )
        self.total = tune + draws
        self.warmup = tune
        self.dropped = 0
        self.writers: dict[int, zt.ChainWriter] = {}
        # Draws of each chain as the model has them, how many are published, and checkpoints.
        self.model = [self.nothing() for _ in range(CHAINS)]
        self.published = [0] * CHAINS
        self.checkpoints: list[tuple[int, str] | None] = [None] * CHAINS
        self.run = [0] * CHAINS
        self.finished = False
        self.kept = EVERY  # the chains that a finished trace shows

    def nothing(self) -> dict[str, np.ndarray]:
        return values(0, range(0), 0)

    def length(self, chain: int) -> int:
        return len(self.model[chain]["mu"])

    def cut(self, chain: int, draws: int) -> None:
        self.model[chain] = {name: array[:draws] for name, array in self.model[chain].items()}

    # Writing ----------------------------------------------------------------------------

    @precondition(lambda self: not self.finished)
    @rule(chain=chains)
    def open_writer(self, chain: int) -> None:
        before = self.writers.pop(chain, None)
        with warnings.catch_warnings():
            # The new writer takes the place of the one before, with all its draws.
            warnings.simplefilter("ignore", RuntimeWarning)
            writer = self.trace.writer(chain)
        if before is not None:
            self.published[chain] = self.length(chain)
            with pytest.raises(zt.errors.ChainBusyError):
                before.flush()
        draws, state = writer.resume()
        held = self.checkpoints[chain]
        if held is not None and (self.length(chain) < self.total or held[0] == self.total):
            assert (draws, state) == held
            self.cut(chain, held[0])
            self.published[chain] = held[0]
        else:
            assert (draws, state) == (self.length(chain), None)
        self.run[chain] += 1
        self.writers[chain] = writer

    @precondition(lambda self: self.writers)
    @rule(chain=chains, count=st.integers(1, 9), block=st.booleans())
    def record(self, chain: int, count: int, block: bool) -> None:
        if chain not in self.writers:
            return
        start = self.length(chain)
        count = min(count, self.total - start)
        drawn = values(chain, range(start, start + count), self.run[chain])
        if block and count:
            self.writers[chain].record_block(drawn)
        else:
            for i in range(count):
                self.writers[chain].record({name: array[i] for name, array in drawn.items()})
        if start + count == self.total:
            try:
                self.writers[chain].record({"mu": 0.0, "theta": [0, 0], "label": ""})
            except zt.errors.ChainFullError:
                pass
            else:
                raise AssertionError("recorded past the end")
        self.model[chain] = {
            name: np.concatenate([array, drawn[name]]) for name, array in self.model[chain].items()
        }
        if self.on_disk or start + count == self.total:
            self.published[chain] = self.length(chain)
        else:
            # Where all chunks were full at once; and what is said to be there shall be read.
            found = int(self.trace.recorded[chain])
            assert self.published[chain] <= found <= self.length(chain)
            self.published[chain] = found

    @precondition(lambda self: self.writers)
    @rule(chain=chains, wrong=st.sampled_from([{"mu": 1.0}, {"nu": 1}, {"mu": "x"}, {}]))
    def record_nonsense(self, chain: int, wrong: dict[str, Any]) -> None:
        if chain in self.writers and self.length(chain) < self.total:
            try:
                self.writers[chain].record(wrong)
            except zt.errors.DrawError:
                return
            raise AssertionError("nonsense was recorded")

    @precondition(lambda self: self.writers)
    @rule(chain=chains)
    def checkpoint(self, chain: int) -> None:
        if chain in self.writers:
            state = f"state {self.length(chain)} of run {self.run[chain]}"
            self.writers[chain].checkpoint(state)
            self.checkpoints[chain] = self.length(chain), state
            self.published[chain] = self.length(chain)

    @precondition(lambda self: self.writers)
    @rule(chain=chains)
    def flush(self, chain: int) -> None:
        if chain in self.writers:
            self.writers[chain].flush()
            self.published[chain] = self.length(chain)

    @precondition(lambda self: self.writers)
    @rule(chain=chains)
    def close(self, chain: int) -> None:
        if chain in self.writers:
            self.writers.pop(chain).close()
            self.published[chain] = self.length(chain)

    @precondition(lambda self: self.writers)
    @rule(chain=chains)
    def crash(self, chain: int) -> None:
        """The process dies: what is not published is lost, and on disk all is published."""
        if chain in self.writers:
            self.writers.pop(chain)._release()
            self.cut(chain, self.published[chain])

    # Life -------------------------------------------------------------------------------

    @rule(n=st.integers(0, 25), default=st.booleans())
    def split(self, n: int, default: bool) -> None:
        n = self.warmup if default else min(n, self.total)
        try:
            self.trace.split_warmup(None if default else n)
        except zt.errors.ChainBusyError:
            assert self.writers
        except zt.errors.IncompleteTraceError:
            assert n > min(map(self.length, range(CHAINS)))
        except zt.errors.InvalidInputError:
            assert n < self.dropped
        else:
            assert not self.writers
            self.warmup = n

    @rule(n=st.integers(0, 25))
    def set_burn_in(self, n: int) -> None:
        n = min(n, self.total)
        try:
            self.trace.set_burn_in(n)
        except zt.errors.InvalidInputError:
            assert n < self.dropped
        except zt.errors.IncompleteTraceError:
            # Its draws are to be moved, and must be there.
            assert self.finished
            assert n > min(map(self.length, range(CHAINS)))
        else:
            assert n >= self.dropped
            self.warmup = n

    @rule(draw=st.integers(0, 25))
    def drop_before(self, draw: int) -> None:
        draw = min(draw, self.total)
        try:
            self.trace.drop_before(draw)
        except zt.errors.IncompleteTraceError:
            assert draw > min(self.published)
        else:
            self.dropped = max(self.dropped, draw)
            self.warmup = max(self.warmup, draw)

    @rule(kept=st.sampled_from([None, [0], [1]]))
    def finish(self, kept: list[int] | None) -> None:
        try:
            self.trace.finish(kept)
        except zt.errors.ChainBusyError:
            assert self.writers
        except zt.errors.IncompleteTraceError:
            assert min(map(self.length, kept or EVERY)) <= self.warmup
        else:
            if kept is not None or not self.finished:
                self.kept = kept or EVERY
            self.finished = True

    @precondition(lambda self: self.finished)
    @rule(draws=st.integers(1, 5))
    def extend(self, draws: int) -> None:
        self.trace.extend(draws)
        self.total += draws
        self.finished = False

    @rule()
    def reopen(self) -> None:
        if not self.writers:
            self.trace = zt.open(self.store, "a")

    # Reading ----------------------------------------------------------------------------

    @invariant()
    def what_is_read_is_what_was_recorded(self) -> None:
        if not hasattr(self, "model"):
            return
        reader = zt.open(self.store)
        assert (reader.burn_in, reader.dropped) == (self.warmup, self.dropped)
        assert ("warmup_posterior" in reader) == (self.dropped < self.warmup)
        assert reader.recorded.tolist() == self.published
        for chain in range(CHAINS):
            for group in ("warmup_posterior", "posterior"):
                if group not in reader:
                    continue
                wanted = slice(self.warmup, None)
                if group.startswith("w"):
                    wanted = slice(self.dropped, self.warmup)
                found = reader.dataset(group, chains=chain)
                for name, array in self.model[chain].items():
                    expected = array[: self.published[chain]][wanted]
                    assert np.array_equal(found[name].values[0], expected), (group, name, chain)
        if self.finished:
            self.check_for_plain_readers()

    def check_for_plain_readers(self) -> None:
        """A finished trace is right for whoever knows Zarr and no more."""
        shortest = min(map(self.length, self.kept))
        wanted = {
            "warmup_posterior": slice(self.dropped, self.warmup),
            "posterior": slice(self.warmup, shortest),
        }
        root = zarr.open_group(self.store, mode="r")
        for group, draws in wanted.items():
            assert (group in root) == (group == "posterior" or draws.start < draws.stop)
            for place, chain in enumerate(self.kept if group in root else []):
                for name, array in self.model[chain].items():
                    found = root[f"{group}/{name}"][place]  # type: ignore[index]
                    assert np.array_equal(found, array[draws]), (group, name, chain)
        assert self.trace.check() == []

    def teardown(self) -> None:
        for writer in getattr(self, "writers", {}).values():
            writer._release()
        if hasattr(self, "folder"):
            shutil.rmtree(self.folder)


TestLife = pytest.mark.filterwarnings("ignore:.*unequal length:RuntimeWarning")(Life.TestCase)
TestLife.settings = settings(
    max_examples=25,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
