"""Any trace, recorded in any way, reads back as a plain NumPy array would, after every step."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from zarr.storage import MemoryStore

import zarrtrace as zt

pytestmark = pytest.mark.once("oldest")

GROUPS = ["posterior", "sample_stats", "log_likelihood"]
DTYPES: list[Any] = ["float64", "float32", "int8", "uint64", "complex64", bool, str, "M8[us]"]
SHAPES: list[tuple[int, ...]] = [(), (1,), (3,), (2, 2)]


@dataclass(frozen=True)
class Defined:
    """One variable of a random trace."""

    group: str
    dtype: Any
    shape: tuple[int, ...]
    draws_per_chunk: int | None


@dataclass
class Model:
    """What the chains of a trace have recorded, and what of it readers know."""

    trace: zt.Trace
    variables: dict[str, Defined]
    truth: dict[str, np.ndarray[Any, Any]]  # (chains, tune + draws, *shape)
    in_journal: bool
    flush_every: float
    counts: np.ndarray[Any, Any] = field(init=False)
    published: np.ndarray[Any, Any] = field(init=False)
    writers: dict[int, zt.ChainWriter] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.counts = np.zeros(self.trace.chains, dtype=int)
        self.published = self.counts.copy()

    # What happens to a chain, or to a block of chains -------------------------------------

    def writer(self, number: int) -> zt.ChainWriter:
        if number not in self.writers:
            self.writers[number] = self.trace.writer(self.trace.blocks[number])
            count = int(self.counts[self.chains(number)][0])
            assert self.writers[number].resume() == (count, None)
        return self.writers[number]

    def chains(self, number: int) -> slice:
        block = self.trace.blocks[number]
        return slice(block, block + 1) if isinstance(block, int) else slice(block.start, block.stop)

    def values(self, number: int, draws: slice | int) -> dict[str, dict[str, Any]]:
        """The values of some draws, as `record` or `record_block` takes them."""
        one_chain = isinstance(self.trace.blocks[number], int)
        groups: dict[str, dict[str, Any]] = {}
        for name, variable in self.variables.items():
            part = self.truth[name][self.chains(number), draws]
            groups.setdefault(variable.group, {})[name] = part[0] if one_chain else part
        return groups

    def record(self, number: int, draws: int) -> None:
        writer, count = self.writer(number), int(self.counts[self.chains(number)][0])
        draws = min(draws, self.trace.tune + self.trace.draws - count)
        if draws == 1:
            writer.record(**self.values(number, count))
        else:
            writer.record_block(**self.values(number, slice(count, count + draws)))
        self.counts[self.chains(number)] += draws
        if draws:
            self.publish(number, count, count + draws)

    def publish(self, number: int, before: int, count: int) -> None:
        """What readers must know by now; without a journal they may know more."""
        chains = self.chains(number)
        full = count == self.trace.tune + self.trace.draws
        if self.in_journal or full:
            self.published[chains] = count
        else:
            (found,) = set(self.trace.recorded[chains].tolist())
            late = self.flush_every == 0
            assert max(self.published[chains][0], before if late else 0) <= found <= count
            self.published[chains] = found

    def refuse(self, number: int) -> None:
        """Try to record a draw whose last value has the wrong shape, or one too many."""
        writer, count = self.writer(number), int(self.counts[self.chains(number)][0])
        full = count == self.trace.tune + self.trace.draws
        groups = self.values(number, 0)
        name, variable = next(reversed(self.variables.items()))
        groups[variable.group][name] = np.zeros((9, 9, 9, 9))
        with pytest.raises(zt.errors.ChainFullError if full else zt.errors.DrawError):
            writer.record(**groups)

    def flush(self, number: int) -> None:
        self.writer(number).flush()
        self.published[self.chains(number)] = self.counts[self.chains(number)]

    def close(self, number: int) -> None:
        self.flush(number)
        self.writers.pop(number).close()

    def drop(self, number: int) -> None:
        """End a writer without a flush: its draws are in the journal, or were flushed."""
        if self.in_journal:
            self.writer(number)._release()
            del self.writers[number]
        else:
            self.close(number)

    # What readers see ---------------------------------------------------------------------

    def check(self, number: int) -> None:
        assert self.trace.recorded.tolist() == self.published.tolist()
        for chain in range(self.trace.chains)[self.chains(number)]:
            self.check_chains([chain])

    def check_chains(self, chains: list[int]) -> None:
        tune, shortest = self.trace.tune, int(self.published[chains].min())
        for group in {variable.group for variable in self.variables.values()}:
            after = self.trace.dataset(group, chains=chains)
            self.check_dataset(after, group, chains, slice(tune, max(shortest, tune)))
            if tune:
                before = self.trace.dataset(f"warmup_{group}", chains=chains)
                self.check_dataset(before, group, chains, slice(0, min(shortest, tune)))

    def check_dataset(self, found: Any, group: str, chains: list[int], draws: slice) -> None:
        expected = {k: v for k, v in self.variables.items() if v.group == group}
        assert list(found.data_vars) == list(expected)
        assert found.chain.values.tolist() == chains
        assert found.draw.values.tolist() == list(range(draws.stop - draws.start))
        for name in expected:
            values = self.truth[name][chains, draws]
            assert found[name].dtype == stored(values.dtype, group)
            assert found[name].values.tolist() == values.tolist()


def stored(dtype: np.dtype[Any], group: str) -> np.dtype[Any]:
    """A bool outside sample_stats is kept as int8."""
    return np.dtype("int8") if dtype.kind == "b" and group != "sample_stats" else dtype


def random_values(dtype: Any, shape: tuple[int, ...], seed: int) -> np.ndarray[Any, Any]:
    rng = np.random.default_rng(seed)
    if dtype is str:
        words = np.array(["", "a", "ärger", "long " * 30, "\n"], dtype=np.dtypes.StringDType())
        return rng.choice(words, size=shape)
    if dtype == "M8[us]":
        return rng.integers(-(2**40), 2**40, size=shape).view("M8[us]")
    if dtype in ("float64", "float32", "complex64"):
        return (rng.normal(size=shape) * 10.0 ** rng.integers(-9, 9, size=shape)).astype(dtype)
    return rng.integers(0, 2 if dtype is bool else 127, size=shape).astype(dtype)


definitions = st.lists(
    st.builds(
        Defined,
        group=st.sampled_from(GROUPS),
        dtype=st.sampled_from(DTYPES),
        shape=st.sampled_from(SHAPES),
        draws_per_chunk=st.none() | st.integers(1, 6),
    ),
    min_size=1,
    max_size=4,
)
steps = st.lists(
    st.tuples(
        st.sampled_from(["record", "record", "block", "block", "refuse", "flush", "close", "drop"]),
        st.integers(0, 2),
        st.integers(0, 8),
    ),
    max_size=12,
)


@pytest.mark.parametrize("kind", ["directory", "directory without journal", "memory"])
@given(
    variables=definitions,
    chains=st.integers(1, 3),
    chains_per_chunk=st.integers(1, 2),
    tune=st.integers(0, 7),
    draws=st.integers(1, 9),
    flush_every=st.sampled_from([0.0, 3600.0]),
    steps=steps,
)
@settings(max_examples=20, deadline=None, database=None)
def test_a_trace_reads_as_the_array_of_what_was_recorded(
    kind: str,
    variables: list[Defined],
    chains: int,
    chains_per_chunk: int,
    tune: int,
    draws: int,
    flush_every: float,
    steps: list[tuple[str, int, int]],
) -> None:
    variables[0] = replace(variables[0], group="posterior")
    named = {f"v{i}": variable for i, variable in enumerate(variables)}
    groups: dict[str, dict[str, zt.Var]] = {}
    for name, variable in named.items():
        var = zt.Var(variable.shape, variable.dtype, draws_per_chunk=variable.draws_per_chunk)
        groups.setdefault(variable.group, {})[name] = var
    with tempfile.TemporaryDirectory() as folder:
        trace = zt.create(
            MemoryStore() if kind == "memory" else f"{folder}/run.zarr",
            chains=chains,
            chains_per_chunk=chains_per_chunk,
            tune=tune,
            draws=draws,
            flush_every=flush_every,
            journal=kind == "directory",
            **groups,
        )
        truth = {
            name: random_values(v.dtype, (chains, tune + draws, *v.shape), seed)
            for seed, (name, v) in enumerate(named.items())
        }
        model = Model(trace, named, truth, kind == "directory", flush_every)
        for action, number, count in steps:
            number %= len(trace.blocks)
            match action:
                case "record" | "block":
                    model.record(number, 1 if action == "record" else count)
                case "refuse":
                    model.refuse(number)
                case "flush":
                    model.flush(number)
                case "close":
                    model.close(number)
                case "drop":
                    model.drop(number)
            model.check(number)
        for number in list(model.writers):
            model.close(number)
        model.check_chains(list(range(chains)))
