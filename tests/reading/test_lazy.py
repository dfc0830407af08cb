"""Views are lazy: they read what is asked for, index like NumPy, and outlive every split."""

from __future__ import annotations

import re
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from zarr.storage import LocalStore, WrapperStore

import zarrtrace as zt
from zarrtrace.errors import DamagedTraceError

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Encoded, Place

SHAPE = (4, 12, 3, 2)  # chain, draw, and two dimensions of the variable


@pytest.fixture
def indexed(fast_place: Place) -> tuple[zt.Trace, np.ndarray]:
    """A trace whose variable `x` holds 0, 1, 2, ... after its warmup, in NumPy's order."""
    values = np.arange(np.prod(SHAPE), dtype=float).reshape(SHAPE)
    trace = fast_place.create(
        chains=4,
        tune=5,
        draws=12,
        chains_per_chunk=2,
        posterior={"x": zt.Var(shape=SHAPE[2:], draws_per_chunk=4)},
    )
    for block in trace.blocks:
        with trace.writer(block) as writer:
            writer.record_block({"x": np.full((2, 5, 3, 2), np.inf)})
            writer.record_block({"x": values[list(block)]})
    return trace, values


class Reads(WrapperStore[LocalStore]):
    """A directory that notes which chunks are read from it."""

    keys: list[str]

    async def get(self, key: str, *args: Any, **options: Any) -> Any:
        self.note(key)
        return await super().get(key, *args, **options)

    def get_sync(self, key: str, **options: Any) -> Any:
        self.note(key)
        return super().get_sync(key, **options)  # zarr 3.4 and later

    def note(self, key: str) -> None:
        if re.search("/c[./]", key) and not key.startswith("_sampling_state"):
            self.keys.append(key)


@pytest.fixture
def reads(tmp_path: Path) -> Reads:
    store = Reads(LocalStore(tmp_path / "run.zarr"))
    store.keys = []
    return store


# What is read, and when -----------------------------------------------------------------------


def test_nothing_is_read_until_it_is_needed(reads: Reads, encoded: Encoded) -> None:
    trace = encoded.fill(encoded.create(reads, chains=3, tune=4, draws=8))
    reads.keys.clear()
    trace.to_inferencedata(save_warmup=True)
    theta = trace.to_datatree().posterior.theta[1:, 2:8:2, 0]
    assert theta.shape == (2, 3)
    assert theta.dtype == np.int32
    assert not [key for key in reads.keys if "_dim_" not in key]
    assert theta.values.tolist() == [[1e6 * c + d for d in (6, 8, 10)] for c in (1, 2)]


def test_only_the_chunks_that_hold_the_draws_are_read_and_once_each(
    reads: Reads, encoded: Encoded
) -> None:
    trace = encoded.fill(encoded.create(reads, chains=3, draws=12))
    mu = trace.posterior.mu
    reads.keys.clear()
    assert mu[1, 6].item() == 1e6 + 6
    assert reads.keys == ["posterior/mu/c/1/1"]
    reads.keys.clear()
    assert mu.sel(chain=2, draw=slice(7, 8)).values.tolist() == [2e6 + 7, 2e6 + 8]
    assert reads.keys == ["posterior/mu/c/2/1", "posterior/mu/c/2/2"]
    reads.keys.clear()
    trace.get("theta", draws=slice(None, None, -1))
    assert sorted(reads.keys) == [
        f"posterior/theta/c/{c}/{d}/0" for c in range(3) for d in range(4)
    ]


def test_values_once_read_are_kept(reads: Reads, encoded: Encoded) -> None:
    posterior = encoded.fill(encoded.create(reads, chains=2, draws=12)).posterior
    expected = posterior.mu.values
    reads.keys.clear()
    assert np.array_equal(posterior.mu.values, expected)
    assert not reads.keys


def test_a_chunk_that_is_gone_is_an_error_and_never_a_fill_value(
    directory: Place, encoded: Encoded
) -> None:
    posterior = encoded.fill(encoded.create(directory, chains=2, draws=12)).posterior
    (directory.path / "posterior/mu/c.1.2").unlink()
    (directory.path / "posterior/theta/c.0.0.0").write_bytes(b"no chunk")
    assert posterior.mu[:, :8].values[1].tolist() == [1e6 + draw for draw in range(8)]
    with pytest.raises(DamagedTraceError, match=r"chain 1, draws 8 to 11.* is missing") as caught:
        _ = posterior.mu.values
    assert (caught.value.group, caught.value.variable) == ("posterior", "mu")
    assert (caught.value.chain, caught.value.draw) == (1, 8)
    with pytest.raises(DamagedTraceError, match=r"chain 0, draws 0 to 2.* cannot be decoded"):
        _ = posterior.theta.values


# Indexing -------------------------------------------------------------------------------------

forward = st.builds(slice, st.integers(0, 8), st.integers(4, 15), st.integers(1, 3))


def slices(size: int) -> st.SearchStrategy[slice]:
    bound = st.one_of(st.none(), st.integers(-size, size + 3))
    # xarray itself goes wrong where a negative step starts before the first element.
    return st.builds(slice, bound, bound, st.one_of(st.none(), st.integers(-5, 5).filter(bool)))


def indexers(size: int) -> st.SearchStrategy[Any]:
    """An int, a slice, an array of positions, or a mask, for a dimension of this size."""
    inside = st.integers(-size, size - 1)
    return st.one_of(
        inside,
        slices(size),
        st.lists(inside, max_size=6).map(lambda found: np.array(found, dtype=int)),
        npst.arrays(bool, size),
    )


def outer(values: np.ndarray, key: tuple[Any, ...]) -> np.ndarray:
    """Index each dimension by its own, as xarray does: from the last to the first."""
    for axis in reversed(range(len(key))):
        values = values[(*(slice(None) for _ in range(axis)), key[axis])]
    return values


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(key=st.tuples(*map(indexers, SHAPE)), depth=st.integers(1, 4))
def test_views_index_as_numpy_does(
    indexed: tuple[zt.Trace, np.ndarray], key: tuple[Any, ...], depth: int
) -> None:
    trace, values = indexed
    key = key[:depth]
    assert np.array_equal(trace.posterior.x[key].values, outer(values, key))


@settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    keys=st.lists(st.tuples(forward, forward), min_size=2, max_size=3),
    points=npst.integer_array_indices(SHAPE, result_shape=npst.array_shapes(max_dims=2)),
)
def test_lazy_steps_and_pointwise_indexing_agree_with_numpy(
    indexed: tuple[zt.Trace, np.ndarray], keys: list[Any], points: Any
) -> None:
    trace, values = indexed
    lazy, expected = trace.posterior.x, values
    for key in keys:
        lazy, expected = lazy[key], outer(expected, key)
    assert np.array_equal(lazy.values, expected)
    names = ["a", "b"][: points[0].ndim]
    pointwise = trace.posterior.x[tuple(xr.DataArray(p, dims=names) for p in points)]
    assert np.array_equal(pointwise.values, values[points])


@pytest.mark.parametrize(
    ("key", "error"), [((4,), IndexError), ((0, 12), IndexError), ((0, 0, -4), IndexError)]
)
def test_positions_beyond_the_view_are_refused(
    indexed: tuple[zt.Trace, np.ndarray], key: tuple[int, ...], error: type[Exception]
) -> None:
    with pytest.raises(error, match="out of bounds"):
        _ = indexed[0].posterior.x[key].values


def test_labels_select_draws_as_in_any_dataset(
    indexed: tuple[zt.Trace, np.ndarray],
) -> None:
    trace, values = indexed
    found = trace.posterior.sel(chain=[3, 1], draw=slice(2, 6), x_dim_1=1).x
    assert np.array_equal(found.values, values[[3, 1], 2:7, :, 1])
    assert np.array_equal(trace.posterior.x.mean(("chain", "draw")), values.mean((0, 1)))


# Dask -----------------------------------------------------------------------------------------


def test_dask_gives_the_same_values_in_chunks_of_the_trace(
    fast_place: Place, encoded: Encoded
) -> None:
    trace = encoded.fill(encoded.create(fast_place, chains=3, tune=4, draws=10), 14, 9)
    chunked = trace.dataset("posterior", chunks={})
    assert chunked.mu.chunks == ((1, 1, 1), (4, 1))
    assert chunked.theta.chunks == ((1, 1, 1), (3, 2), (3,))
    encoded.check(chunked.compute(scheduler="threads"), 4, 9)
    whole = trace.to_datatree(chunks={"draw": -1}, align="pad")
    assert whole.sample_stats.lp.chunks == ((1, 1, 1), (10,))
    xr.testing.assert_identical(
        whole.sample_stats.compute().to_dataset(), trace.dataset("sample_stats", align="pad").load()
    )


def test_a_view_computes_in_other_processes(directory: Place, encoded: Encoded) -> None:
    trace = encoded.fill(encoded.create(directory, chains=2, draws=10))
    chunked = trace.dataset("posterior", chunks={})
    total = chunked.mu.sum().compute(scheduler="processes", num_workers=2)
    assert total.item() == trace.get("mu").sum()


# Views outlive what happens to the trace ------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*(unequal length|has no draw of):RuntimeWarning")
def test_a_held_view_reads_right_after_splits_and_the_finish(
    place: Place, encoded: Encoded
) -> None:
    definition = {"posterior": {"mu": encoded.groups["posterior"]["mu"]}, "sample_stats": None}
    encoded.groups = {"posterior": definition["posterior"]}
    trace = encoded.fill(place.create(chains=2, tune=4, draws=7, **definition), 11, 9)
    held = [(4, trace.posterior, trace.warmup_posterior)]
    trace.split_warmup()
    held.append((4, trace.posterior, trace.warmup_posterior))
    trace.split_warmup(6)
    held.append((6, trace.posterior, trace.warmup_posterior))
    trace.finish()
    held.append((6, trace.posterior, trace.warmup_posterior))
    for at, posterior, warmup in held:
        encoded.check(posterior, at, 9)
        encoded.check(warmup, 0, at)


def test_a_view_half_read_before_the_split_continues_after_it(
    fast_place: Place, encoded: Encoded
) -> None:
    trace = encoded.fill(encoded.create(fast_place, chains=2, tune=4, draws=10))
    posterior, warmup = trace.posterior, trace.warmup_posterior
    assert posterior.mu[0, :3].values.tolist() == [4, 5, 6]
    trace.split_warmup(8)
    assert posterior.mu[0, 3:].values.tolist() == [7, 8, 9, 10, 11, 12, 13]
    encoded.check(posterior, 4, 14)
    encoded.check(warmup, 0, 4)


def test_a_view_of_a_trace_that_is_gone_says_so(directory: Place, encoded: Encoded) -> None:
    posterior = encoded.fill(encoded.create(directory, chains=1, draws=3)).posterior
    shutil.rmtree(directory.path)
    with pytest.raises(zt.errors.TraceNotFoundError, match=r"no trace at .* any more"):
        _ = posterior.mu.values
