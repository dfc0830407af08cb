"""What a reader sees of a trace: a consistent cut, whatever writers do meanwhile."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import zarrtrace as zt
from zarrtrace.errors import (
    ChainError,
    GroupNotFoundError,
    InvalidInputError,
    VariableNotFoundError,
)

if TYPE_CHECKING:
    from conftest import Encoded, Place

wide = settings(
    max_examples=12,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


# Counts ---------------------------------------------------------------------------------------


def test_recorded_counts_the_draws_of_each_chain(place: Place, encoded: Encoded) -> None:
    trace = encoded.create(place, chains=3, tune=4, draws=9)
    assert trace.recorded.tolist() == [0, 0, 0]
    encoded.fill(trace, 13, 5, 0)
    assert trace.recorded.dtype == np.int64
    assert trace.recorded.tolist() == place.open().recorded.tolist() == [13, 5, 0]


def test_a_draw_in_a_directory_counts_at_once(directory: Place, encoded: Encoded) -> None:
    trace = encoded.create(directory, chains=1, draws=20)
    with trace.writer(0) as writer:
        for count in range(1, 12):
            encoded.record(writer, 0, count)
            assert directory.open().recorded.tolist() == [count]


@pytest.mark.parametrize("kind", ["memory", "objects"])
def test_elsewhere_draws_count_once_their_chunks_are_full_or_flushed(
    kind: str, request: pytest.FixtureRequest
) -> None:
    place = request.getfixturevalue(kind)
    trace = place.create(chains=1, draws=20, posterior={"mu": zt.Var()}, draws_per_chunk=5)
    counts = []
    with trace.writer(0) as writer:
        for draw in range(13):
            writer.record({"mu": draw})
            counts.append(place.open().recorded[0])
        writer.flush()
        assert place.open().recorded[0] == 13
        writer.record({"mu": 13})
    assert counts == [0] * 4 + [5] * 5 + [10] * 4
    assert place.open().recorded[0] == 14


# A consistent cut -----------------------------------------------------------------------------


def test_a_view_never_changes_while_chains_are_recorded(place: Place, encoded: Encoded) -> None:
    trace = encoded.create(place, chains=2, tune=3, draws=8)
    with trace.writer(0) as first, trace.writer(1) as second:
        encoded.record(first, 0, 7)
        encoded.record(second, 1, 5)
        first.flush()
        second.flush()
        held = trace.to_datatree(save_warmup=True)
        encoded.record(first, 0, 11)
        encoded.record(second, 1, 10)
    encoded.check_split(held, at=3, stop=5)
    encoded.check(trace.posterior, 3, 10)


@pytest.mark.once("oldest")
@pytest.mark.filterwarnings("ignore:.* has no draw of chain:RuntimeWarning")
@wide
@given(
    steps=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 9)), max_size=7),
    tune=st.integers(0, 12),
)
def test_no_view_at_any_moment_holds_anything_but_recorded_draws(
    fast_place: Place, encoded: Encoded, steps: list[tuple[int, int]], tune: int
) -> None:
    trace = encoded.create(fast_place, overwrite=True, chains=3, tune=tune, draws=20)
    counts = [0, 0, 0]
    views: list[tuple[Any, list[int]]] = []
    writers = [trace.writer(chain) for chain in range(3)]
    try:
        for chain, more in steps:
            counts[chain] = min(counts[chain] + more, tune + 20)
            encoded.record(writers[chain], chain, counts[chain])
            writers[chain].flush()
            views.append((trace.to_datatree(save_warmup=True), list(counts)))
            assert trace.recorded.tolist() == counts
    finally:
        for writer in writers:
            writer.close()
    for view, counts in views:
        for group in ("posterior", "sample_stats"):
            # Chains without a draw are left out, unless none has any.
            shown = [chain for chain in range(3) if counts[chain] > tune] or range(3)
            stop = min(counts[chain] for chain in shown)
            encoded.check(view[group], tune, max(stop, tune), shown)
            if tune:
                shown = [chain for chain in range(3) if counts[chain]] or range(3)
                stop = min(counts[chain] for chain in shown)
                encoded.check(view[f"warmup_{group}"], 0, min(stop, tune), shown)


def test_chains_without_draws_are_left_out_and_named(place: Place, encoded: Encoded) -> None:
    trace = encoded.create(place, chains=4, tune=3, draws=8)
    encoded.fill(trace, 11, 2, 9, 0)
    with pytest.warns(RuntimeWarning, match=r"posterior of .* has no draw of chains 1 and 3: "):
        posterior = trace.posterior
    encoded.check(posterior, 3, 9, [0, 2])
    assert posterior.attrs["chains_left_out"] == [1, 3]
    assert posterior.attrs["draws_recorded"] == [8, 6]
    # It is said once.
    encoded.check(trace.to_datatree()["sample_stats"], 3, 9, [0, 2])
    encoded.check(trace.warmup_posterior, 0, 2, [0, 1, 2])
    assert trace.get("mu").tolist() == posterior.mu.values.tolist()
    # Who asks for chains gets these, and padded where he wants it.
    assert trace.get("mu", chains=range(4)).shape == (4, 0)
    padded = trace.get("theta", chains=[3, 0], align="pad")
    assert padded.dtype == np.float64
    assert np.isnan(padded[0]).all()
    assert padded[1, -1].tolist() == [10, 10, 10]
    every = trace.dataset("posterior", chains=range(4))
    assert dict(every.sizes) == {"chain": 4, "draw": 0, "theta_dim_0": 3}
    assert "chains_left_out" not in every.attrs


def test_warmup_is_apart_before_the_split(fast_place: Place, encoded: Encoded) -> None:
    trace = encoded.fill(encoded.create(fast_place, chains=2, tune=7, draws=6))
    assert trace.groups == ("posterior", "sample_stats", "warmup_posterior", "warmup_sample_stats")
    encoded.check_split(trace, at=7, stop=13)
    assert trace.posterior.attrs["tuning_steps"] == 7


def test_a_trace_without_draws_shows_none(fast_place: Place, encoded: Encoded) -> None:
    trace = encoded.create(fast_place, chains=2, tune=3, draws=5)
    assert dict(trace.posterior.sizes) == {"chain": 2, "draw": 0, "theta_dim_0": 3}
    assert dict(trace.warmup_posterior.sizes) == {"chain": 2, "draw": 0, "theta_dim_0": 3}
    assert trace.posterior.load().mu.shape == (2, 0)
    assert trace.get("theta").shape == (2, 0, 3)


def test_a_trace_without_warmup_has_no_warmup_groups(fast_place: Place, encoded: Encoded) -> None:
    trace = encoded.fill(encoded.create(fast_place, chains=2, draws=6))
    encoded.check_split(trace, at=0, stop=6)
    with pytest.raises(GroupNotFoundError, match="it has posterior, sample_stats"):
        trace.dataset("warmup_posterior")


def test_a_block_of_chains_is_read_chain_by_chain(fast_place: Place, encoded: Encoded) -> None:
    trace = encoded.create(fast_place, chains=5, tune=4, draws=9, chains_per_chunk=2)
    assert trace.blocks == [range(0, 2), range(2, 4), range(4, 5)]
    encoded.fill(trace, 13, 10)
    encoded.check(trace.posterior, 4, 10)
    encoded.check(trace.dataset("posterior", chains=[1, 4]), 4, 10, chains=[1, 4])
    encoded.check(trace.dataset("sample_stats", chains=1), 4, 13, chains=[1])


# Chains of unequal length ---------------------------------------------------------------------


def test_unequal_chains_are_cut_to_the_shortest_and_say_so(
    fast_place: Place, encoded: Encoded
) -> None:
    trace = encoded.fill(encoded.create(fast_place, chains=3, tune=4, draws=9), 13, 6, 9)
    encoded.check(trace.posterior, 4, 6)
    assert trace.posterior.attrs["draws_recorded"] == [9, 2, 5]
    assert trace.posterior.attrs["alignment"] == "cut to the shortest chain"
    encoded.check(trace.warmup_posterior, 0, 4)
    assert "alignment" not in trace.warmup_posterior.attrs


def test_equal_chains_say_nothing_of_a_cut(fast_place: Place, encoded: Encoded) -> None:
    trace = encoded.fill(encoded.create(fast_place, chains=2, draws=9), 5)
    assert not {"alignment", "draws_recorded"} & set(trace.posterior.attrs)


def test_padding_keeps_every_draw_and_marks_the_missing_ones(fast_place: Place) -> None:
    dtypes = {
        "f4": np.float32, "f8": float, "c8": np.complex64, "i1": np.int8, "u8": np.uint64,
        "b": bool, "t": "datetime64[s]", "d": "timedelta64[ms]", "s": str,
    }  # fmt: skip
    trace = fast_place.create(
        chains=2,
        draws=6,
        posterior={"x": zt.Var()},
        sample_stats={name: zt.Var(dtype=dtype, shape=2) for name, dtype in dtypes.items()},
    )
    values = {name: np.arange(2).astype(np.dtype(t)) for name, t in dtypes.items() if name != "s"}
    for chain, draws in enumerate((5, 2)):
        with trace.writer(chain) as writer:
            for _ in range(draws):
                writer.record({"x": 1.0}, {**values, "s": ["a", "b"]})
    padded = trace.dataset("sample_stats", align="pad")
    assert padded.sizes["draw"] == 5
    assert padded.attrs["alignment"] == "padded to the longest chain"
    assert padded.attrs["draws_recorded"] == [5, 2]
    for name, array in padded.data_vars.items():
        whole = np.broadcast_to(np.array(["a", "b"]) if name == "s" else values[name], (5, 2))
        assert (array.values[0] == whole).all()
        assert (array.values[1, :2] == whole[:2]).all()
        missing = array.values[1, 2:]
        assert (missing == "").all() if name == "s" else array.isnull().values[1, 2:].all()
    assert {name: padded[name].dtype for name in dtypes} == {
        **{name: values[name].dtype for name in ("f4", "f8", "c8", "t", "d")},
        **dict.fromkeys(("i1", "u8", "b"), np.dtype("float64")),
        "s": np.dtypes.StringDType(),
    }
    assert trace.dataset("sample_stats", align="cut").i1.dtype == np.int8
    assert trace.dataset("sample_stats", align="pad", chains=0).i1.dtype == np.int8


def test_one_chain_alone_is_never_cut(fast_place: Place, encoded: Encoded) -> None:
    trace = encoded.fill(encoded.create(fast_place, chains=3, tune=4, draws=9), 13, 6, 9)
    encoded.check(trace.dataset("posterior", chains=0), 4, 13, chains=[0])
    encoded.check(trace.dataset("posterior", chains=[2, 0]), 4, 9, chains=[2, 0])
    encoded.check(trace.to_datatree(chains=[0]).sample_stats, 4, 13, chains=[0])
    assert "alignment" not in trace.dataset("posterior", chains=0).attrs


@pytest.mark.parametrize("chains", [3, -1, [0, 3], [], [1, 1], [0.0], "0"])
def test_chains_that_are_not_there_are_refused(
    memory: Place, encoded: Encoded, chains: Any
) -> None:
    trace = encoded.fill(encoded.create(memory, chains=3, draws=3))
    with pytest.raises(ChainError, match=r"chains 0 to 2|distinct chains"):
        trace.dataset("posterior", chains=chains)
    with pytest.raises(ChainError):
        trace.get("mu", chains=chains)


def test_an_unknown_alignment_is_refused(memory: Place, encoded: Encoded) -> None:
    trace = encoded.create(memory, chains=1, draws=3)
    with pytest.raises(InvalidInputError, match="'cut' or 'pad', got 'left'"):
        trace.dataset("posterior", align="left")  # type: ignore[arg-type]


# get ------------------------------------------------------------------------------------------


def test_get_gives_the_draws_after_warmup(fast_place: Place, encoded: Encoded) -> None:
    trace = encoded.fill(encoded.create(fast_place, chains=3, tune=4, draws=9))
    mu = 1e6 * np.arange(3)[:, None] + np.arange(4, 13)
    assert np.array_equal(trace.get("mu"), mu)
    assert np.array_equal(trace.get("mu", chains=[2, 0]), mu[[2, 0]])
    assert np.array_equal(trace.get("mu", chains=1, flatten=True), mu[1])
    assert np.array_equal(trace.get("theta"), np.repeat(mu[..., None], 3, axis=2))
    assert np.array_equal(trace.get("lp", group="warmup_sample_stats"), mu[:, :4] - 4)
    flat = trace.get("theta", flatten=True)
    assert flat.shape == (27, 3)
    assert np.array_equal(flat[:, 0], mu.ravel())


@wide
@given(
    bounds=st.tuples(*[st.one_of(st.none(), st.integers(-15, 15))] * 2),
    step=st.one_of(st.none(), st.integers(-6, 6).filter(bool)),
)
def test_get_slices_draws_as_numpy_does(
    memory: Place, encoded: Encoded, bounds: Any, step: int | None
) -> None:
    if memory.created is None:
        encoded.fill(encoded.create(memory, chains=2, tune=4, draws=9))
    trace = memory.created
    assert trace is not None
    draws = slice(*bounds, step)
    mu = 1e6 * np.arange(2)[:, None] + np.arange(4, 13)
    assert np.array_equal(trace.get("mu", draws=draws), mu[:, draws])
    assert np.array_equal(trace.get("word", draws=draws), trace.get("word")[:, draws])


def test_get_names_what_there_is(memory: Place, encoded: Encoded) -> None:
    trace = encoded.create(memory, chains=1, draws=3, log_likelihood={"mu": 0.0, "y": 0.0})
    assert trace.get("y").shape == (1, 0)
    with pytest.raises(VariableNotFoundError, match=r"no sampled variable 'nu'.*posterior/mu"):
        trace.get("nu")
    with pytest.raises(InvalidInputError, match=r"group 'posterior' of memory has no .* 'lp'"):
        trace.get("lp", group="posterior")
    with pytest.raises(GroupNotFoundError, match=r"no group 'prior'; it has posterior"):
        trace.get("mu", group="prior")
