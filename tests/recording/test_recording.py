"""What is recorded is what is read: every dtype, shape, group, writer and way of recording."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import zarrtrace as zt
from zarrtrace.recording.flusher import Flusher
from zarrtrace.recording.row_plan import Target
from zarrtrace.sampling_state.journal import Journal

NAT = np.iinfo("int64").min
TIMES = [f"{kind}[{unit}]" for kind in ("M8", "m8") for unit in ("s", "ms", "us", "ns")]
FLOATS = ["float16", "float32", "float64"]
COMPLEX = ["complex64", "complex128"]
INTS = [f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)]
DTYPES: list[Any] = [*FLOATS, *COMPLEX, *INTS, bool, str, *TIMES]

TUNE, DRAWS = 4, 7
SHAPES: dict[str, tuple[int, ...]] = {"scalar": (), "vector": (3,), "matrix": (2, 2)}


def edge_values(dtype: Any) -> list[Any]:
    """The values of a dtype that are easiest to get wrong."""
    if dtype is str:
        return ["", "a", "é", "日本語", "two\nlines", "a\0b", "x" * 300]
    kind = np.dtype(dtype).kind
    if kind == "b":
        return [True, False]
    if kind in "iu":
        limits = np.iinfo(dtype)
        return [limits.min, limits.max, 0, 1, 100]
    if kind in "mM":
        return [0, 1, -1, 1_700_000_000, 2**62, NAT]
    limits = np.finfo(dtype)
    parts = [0.0, -0.0, 1.5, np.nan, np.inf, -np.inf, limits.max, limits.smallest_subnormal]
    return [complex(x, y) for x in parts for y in parts] if kind == "c" else parts


def draws_of(dtype: Any, shape: tuple[int, ...], draws: int = TUNE + DRAWS) -> np.ndarray[Any, Any]:
    """Draws with every edge value of a dtype: shape (draws, *shape)."""
    values = edge_values(dtype)
    count = draws * int(np.prod(shape))
    repeated = [values[i % len(values)] for i in range(count)]
    stored = np.dtypes.StringDType() if dtype is str else np.dtype(dtype)
    if stored.kind in "mM":
        return np.array(repeated, dtype="int64").view(stored).reshape(draws, *shape)
    return np.array(repeated, dtype=stored).reshape(draws, *shape)


def assert_same(found: np.ndarray[Any, Any], expected: np.ndarray[Any, Any]) -> None:
    """The same dtype, shape and bits: -0.0 and the kind of NaN too."""
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    if expected.dtype.kind == "T":
        assert found.tolist() == expected.tolist()
    else:
        assert found.tobytes() == expected.tobytes()


def assert_recorded(
    trace: zt.Trace, group: str, name: str, expected: np.ndarray[Any, Any], **options: Any
) -> None:
    """The warmup and the posterior of a variable are the draws expected of its chains."""
    tune = trace.tune
    warmup = trace.dataset(f"warmup_{group}", **options)[name].values
    after = trace.dataset(group, **options)[name].values
    assert_same(warmup, expected[:, :tune])
    assert_same(after, expected[:, tune:])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_dtype_is_read_as_it_was_recorded(fast_place: Any, dtype: Any) -> None:
    trace = fast_place.create(
        chains=2,
        tune=TUNE,
        draws=DRAWS,
        draws_per_chunk=3,
        posterior={name: zt.Var(shape=shape, dtype=dtype) for name, shape in SHAPES.items()},
    )
    values = {name: draws_of(dtype, shape) for name, shape in SHAPES.items()}
    one_by_one, in_blocks = trace.writer(0), trace.writer(1)
    for i in range(TUNE + DRAWS):
        one_by_one.record({name: array[i] for name, array in values.items()})
    for part in (slice(0, 1), slice(1, 10), slice(10, None)):
        in_blocks.record_block({name: array[part] for name, array in values.items()})
    # bool in posterior comes out as int8, which ArviZ can summarise.
    stored = {k: v.astype("int8") if dtype is bool else v for k, v in values.items()}
    for name, array in stored.items():
        assert_recorded(trace, "posterior", name, np.stack([array, array]))
    one_by_one.close()
    in_blocks.close()
    for name, array in stored.items():
        assert_recorded(fast_place.open(), "posterior", name, np.stack([array, array]))


def test_dtypes_survive_on_every_kind_of_store(place: Any) -> None:
    dtypes: dict[str, Any] = {"x": "float64", "s": str, "t": "M8[ns]"}
    posterior = {name: zt.Var(shape=3, dtype=dtype) for name, dtype in dtypes.items()}
    trace = place.create(chains=1, draws=5, tune=2, posterior=posterior)
    values = {name: draws_of(dtype, (3,), 7) for name, dtype in dtypes.items()}
    with trace.writer(0) as writer:
        writer.record({name: array[0] for name, array in values.items()})
        writer.record_block({name: array[1:] for name, array in values.items()})
    for name, array in values.items():
        assert_recorded(place.open(), "posterior", name, array[np.newaxis])


@pytest.mark.parametrize("group", ["sample_stats", "sample_stats_prior"])
def test_bools_stay_bools_in_sample_stats(fast_place: Any, group: str) -> None:
    definition = {"mu": zt.Var(), "accepted": zt.Var(dtype=bool)}
    groups = {"posterior": definition, group: {"diverging": zt.Var(dtype=bool)}}
    trace = fast_place.create(chains=1, draws=3, **groups)
    with trace.writer(0) as writer:
        for value in (True, np.bool_(False), np.array(True)):
            writer.record(
                **{"posterior": {"mu": 0, "accepted": value}, group: {"diverging": value}}
            )
    assert_same(trace.dataset(group).diverging.values, np.array([[True, False, True]]))
    assert_same(trace.posterior.accepted.values, np.array([[1, 0, 1]], dtype="int8"))


class OtherArray:
    """An array of another library: NumPy asks it for one of its own."""

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray[Any, Any]:
        return np.array([1.0, 2.0, 3.0])


@pytest.mark.parametrize(
    ("dtype", "value", "expected"),
    [
        ("float64", [1, 2, 3], [1.0, 2.0, 3.0]),
        ("float64", (True, False, True), [1.0, 0.0, 1.0]),
        ("float64", OtherArray(), [1.0, 2.0, 3.0]),
        ("float64", np.array([1, 2, 3], dtype=">f8"), [1.0, 2.0, 3.0]),
        ("float64", np.arange(6.0)[::2], [0.0, 2.0, 4.0]),
        ("float32", np.array([0.5, 1e-50, 2.0]), [0.5, 0.0, 2.0]),
        ("complex64", [1, 2.5, 3j], [1, 2.5, 3j]),
        ("int8", np.array([-128, 0, 127]), [-128, 0, 127]),
        ("uint64", np.array([0, 1, 2**64 - 1], dtype="uint64"), [0, 1, 2**64 - 1]),
        ("int16", np.array([1, 2, 3], dtype="uint8"), [1, 2, 3]),
        (str, ["a", "b", "c"], ["a", "b", "c"]),
        (str, np.array(["a", "b", "c"], dtype=object), ["a", "b", "c"]),
        ("M8[ns]", np.array(["2020-01-01"] * 3, dtype="M8[D]"), ["2020-01-01"] * 3),
        ("m8[s]", np.array([1000, 2000, 3000], dtype="m8[ms]"), [1, 2, 3]),
    ],
)
def test_whatever_fits_without_loss_is_taken(
    memory: Any, dtype: Any, value: Any, expected: Any
) -> None:
    trace = memory.create(
        chains=1, draws=2, posterior={"x": zt.Var(shape=3, dtype=dtype), "y": zt.Var()}
    )
    with trace.writer(0) as writer:
        writer.record({"x": value, "y": np.float32(0.5)})
        writer.record_block({"x": np.asarray(value)[np.newaxis], "y": [1]})
    stored = np.dtypes.StringDType() if dtype is str else dtype
    assert_same(trace.get("x")[0], np.array([expected, expected], dtype=stored))
    assert trace.get("y").tolist() == [[0.5, 1.0]]


def test_an_example_stands_for_its_variable(fast_place: Any) -> None:
    examples = {
        "real": 0.0,
        "count": 3,
        "flag": True,
        "label": "a",
        "names": ["a", "bc"],
        "list": [[1, 2, 3], [4, 5, 6]],
        "single": np.zeros(4, dtype="float32"),
        "when": np.datetime64("2020-01-01", "us"),
    }
    trace = fast_place.create(chains=1, draws=2, posterior=examples)
    with trace.writer(0) as writer:
        writer.record(examples)
        writer.record(examples)
    for name, value in examples.items():
        expected = np.asarray(value)
        if expected.dtype.kind == "U":
            expected = expected.astype(np.dtypes.StringDType())
        if expected.dtype.kind == "b":
            expected = expected.astype("int8")
        assert_same(trace.get(name), np.stack([expected, expected])[np.newaxis])


def test_every_sampled_group_is_recorded_by_keyword(fast_place: Any) -> None:
    names = ["unconstrained_posterior", "log_likelihood", "posterior_predictive", "prior", "swaps"]
    trace = fast_place.create(
        chains=2,
        tune=2,
        draws=3,
        posterior={"mu": zt.Var()},
        sample_stats={"lp": zt.Var()},
        groups={name: {f"{name}_x": zt.Var(shape=2)} for name in names},
    )
    for chain in range(2):
        with trace.writer(chain) as writer:
            for i in range(4):
                groups = {name: {f"{name}_x": [i, k]} for k, name in enumerate(names)}
                writer.record({"mu": i}, {"lp": -i}, **groups)
            block = {name: {f"{name}_x": [[4, k]]} for k, name in enumerate(names)}
            writer.record_block(posterior={"mu": [4]}, sample_stats={"lp": [-4]}, **block)
    for k, name in enumerate(names):
        expected = np.array([[i, k] for i in range(5)], dtype=float)
        assert_recorded(trace, name, f"{name}_x", np.stack([expected, expected]))
    assert trace.sample_stats.lp.values.tolist() == [[-2, -3, -4]] * 2
    # In ArviZ's order, the unknown one last, each with its warmup.
    order = ["posterior", "posterior_predictive", "log_likelihood", "sample_stats", "prior"]
    order += ["unconstrained_posterior", "swaps"]
    assert list(trace.groups)[:7] == order
    assert set(trace.groups[7:]) == {f"warmup_{name}" for name in order}


def test_a_recorded_draw_is_a_copy(fast_place: Any) -> None:
    trace = fast_place.create(chains=1, draws=8, draws_per_chunk=4, posterior={"x": zt.Var(3)})
    state, block = np.zeros(3), np.ones((2, 3))
    with trace.writer(0) as writer:
        for i in range(6):
            state[:] = i
            writer.record({"x": state})
        writer.record_block({"x": block})
        state[:] = block[:] = -1
    assert trace.get("x")[0, :, 0].tolist() == [0, 1, 2, 3, 4, 5, 1, 1]


# Blocks of chains -----------------------------------------------------------------------------


def test_a_writer_for_a_block_takes_a_chain_axis_first(place: Any) -> None:
    names: dict[str, Any] = {"x": "float64", "v": "int32", "s": str}
    shapes: dict[str, tuple[int, ...]] = {"x": (), "v": (2,), "s": (2, 1)}
    trace = place.create(
        chains=5,
        chains_per_chunk=2,
        tune=TUNE,
        draws=DRAWS,
        draws_per_chunk=6,
        posterior={k: zt.Var(shape=shapes[k], dtype=dtype) for k, dtype in names.items()},
    )
    values = {
        k: np.stack([np.roll(draws_of(dtype, shapes[k]), c, axis=0) for c in range(5)])
        for k, dtype in names.items()
    }
    assert trace.blocks == [range(0, 2), range(2, 4), range(4, 5)]
    for block in trace.blocks:
        mine = {k: array[block.start : block.stop] for k, array in values.items()}
        with trace.writer(block) as writer:
            assert writer.chains == block
            for i in range(4):
                writer.record({k: array[:, i] for k, array in mine.items()})
            writer.record_block({k: array[:, 4:] for k, array in mine.items()})
    assert trace.recorded.tolist() == [TUNE + DRAWS] * 5
    for k, array in values.items():
        assert_recorded(place.open(), "posterior", k, array)


# Going on -------------------------------------------------------------------------------------

UNEQUAL = {
    "a": zt.Var(draws_per_chunk=3),
    "b": zt.Var(shape=2, draws_per_chunk=4),
    "c": zt.Var(dtype=str, draws_per_chunk=5),
    "d": zt.Var(dtype="int16"),
}


def unequal_draw(i: int) -> dict[str, Any]:
    """Draw i of variables whose chunks end at different draws."""
    return {"a": i + 0.5, "b": [i, -i], "c": f"draw {i}", "d": i}


def assert_unequal(trace: zt.Trace, chains: int) -> None:
    """Every chain has every draw of `unequal_draw`."""
    draws = [unequal_draw(i) for i in range(trace.tune + trace.draws)]
    for name in UNEQUAL:
        expected = np.array([draw[name] for draw in draws])
        if expected.dtype.kind == "U":
            expected = expected.astype(np.dtypes.StringDType())
        expected = expected.astype(trace.posterior[name].dtype)
        assert_recorded(trace, "posterior", name, np.stack([expected] * chains))


@pytest.mark.parametrize("journal", [True, False])
def test_a_reopened_writer_continues_from_any_draw(fast_place: Any, journal: bool) -> None:
    total = TUNE + DRAWS
    trace = fast_place.create(
        chains=total + 1, tune=TUNE, draws=DRAWS, posterior=UNEQUAL, journal=journal
    )
    for stop in range(total + 1):
        with trace.writer(stop) as writer:
            for i in range(stop):
                writer.record(unequal_draw(i))
        assert trace.recorded[stop] == stop
        with fast_place.open("a").writer(stop) as writer:
            assert writer.resume() == (stop, None)
            for i in range(stop, total):
                writer.record(unequal_draw(i))
    assert_unequal(trace, total + 1)


def test_a_writer_that_never_flushed_has_left_its_draws_in_the_journal(directory: Any) -> None:
    total = TUNE + DRAWS
    trace = directory.create(chains=total + 1, tune=TUNE, draws=DRAWS, posterior=UNEQUAL)
    for stop in range(total + 1):
        writer = trace.writer(stop)
        for i in range(stop):
            writer.record(unequal_draw(i))
        writer._release()
        assert trace.recorded[stop] == stop
        with directory.open("a").writer(stop) as writer:
            assert writer.resume() == (stop, None)
            for i in range(stop, total):
                writer.record(unequal_draw(i))
    assert_unequal(trace, total + 1)


def test_a_block_of_chains_continues_too(fast_place: Any) -> None:
    trace = fast_place.create(
        chains=3, chains_per_chunk=2, tune=TUNE, draws=DRAWS, posterior=UNEQUAL
    )
    for block in trace.blocks:
        for first, last in ((0, 2), (2, 6), (6, 7), (7, TUNE + DRAWS)):
            with fast_place.open("a").writer(block) as writer:
                assert writer.resume() == (first, None)
                for i in range(first, last):
                    draw = unequal_draw(i)
                    writer.record({name: [value] * len(block) for name, value in draw.items()})
    assert_unequal(trace, 3)


# What is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize("close", [zt.ChainWriter.close, zt.ChainWriter._release])
def test_nothing_of_a_refused_draw_is_kept_at_any_draw(
    fast_place: Any, close: Callable[[zt.ChainWriter], None]
) -> None:
    total = TUNE + DRAWS
    trace = fast_place.create(
        chains=total,
        tune=TUNE,
        draws=DRAWS,
        posterior={**UNEQUAL, "last": zt.Var(shape=2)},
    )
    wrong = {"a": -9.0, "b": [-9, -9], "c": "torn", "d": -9, "last": [1, 2, 3]}
    # Chain k is given a draw that is refused when it has k, and continues in another writer.
    for chain in range(total):
        writer = trace.writer(chain)
        for i in range(chain):
            writer.record({**unequal_draw(i), "last": [i, i]})
        if close is zt.ChainWriter._release and fast_place.kind == "memory":
            writer.flush()
        with pytest.raises(zt.errors.DrawError):
            writer.record(wrong)
        with pytest.raises(zt.errors.DrawError):
            writer.record_block({name: [value] for name, value in wrong.items()})
        assert writer.recorded == chain
        close(writer)
        with trace.writer(chain) as writer:
            writer.resume()
            for i in range(chain, total):
                writer.record({**unequal_draw(i), "last": [i, i]})
    assert_unequal(trace, total)


def test_a_writer_continues_after_a_refused_draw(fast_place: Any) -> None:
    trace = fast_place.create(chains=1, draws=6, draws_per_chunk=2, posterior={"x": zt.Var(2)})
    with trace.writer(0) as writer:
        for i in range(6):
            with pytest.raises(zt.errors.DrawError):
                writer.record({"x": [i, i, i]})
            writer.record({"x": [i, i]})
            writer.flush()
    assert trace.get("x")[0].tolist() == [[i, i] for i in range(6)]


# The fast ways --------------------------------------------------------------------------------


@pytest.fixture
def put_one_by_one(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The variables whose values were put into their rows one by one, draw after draw."""
    names: list[str] = []
    put = Target.put

    def counting(self: Target, values: Any, chains: range, draw: int) -> None:
        names.append(self.name)
        put(self, values, chains, draw)

    monkeypatch.setattr(Target, "put", counting)
    return names


def test_numbers_of_a_draw_are_packed_by_one_call(directory: Any, put_one_by_one: Any) -> None:
    numbers = {"a": zt.Var(), "n": zt.Var(dtype="int64"), "small": zt.Var(dtype="float32")}
    posterior = {**numbers, "vector": zt.Var(shape=2)}
    trace = directory.create(chains=1, draws=4, posterior=posterior)
    kinds = [
        {"a": 1.0, "n": 1, "small": np.float32(1)},
        {"a": np.float64(1), "n": np.int64(1), "small": np.array(1, "float32")},
        {"a": np.array(1.0), "n": np.array(1), "small": 1.0},
    ]
    with trace.writer(0) as writer:
        for values in kinds:
            writer.record({**values, "vector": [1, 1]})
        assert put_one_by_one == ["vector"] * 3
        # What does not fit goes the way that says why.
        with pytest.raises(zt.errors.DrawError, match=r"posterior/a.*shape \(1,\)"):
            writer.record({"a": np.ones(1), "n": 1, "small": 1.0, "vector": [1, 1]})
    for name in numbers:
        assert trace.get(name).tolist() == [[1, 1, 1]]


def test_a_draw_that_fills_a_chunk_is_written_as_it_is_given(directory: Any) -> None:
    trace = directory.create(
        chains=1, draws=4, posterior={"x": zt.Var(shape=(2, 3), draws_per_chunk=1), "y": zt.Var()}
    )
    values = np.arange(24.0).reshape(4, 2, 3)
    with trace.writer(0) as writer:
        for i in range(2):
            writer.record({"x": values[i], "y": i})
            # It has no rows in the buffer: the chunk is there.
            assert list(writer._journal.rows) == ["posterior/y"]
            assert np.array_equal(directory.open().get("x")[0], values[: i + 1])
        writer.record({"x": values[2].T.copy().T, "y": 2})  # not contiguous
        writer.record_block({"x": values[3:], "y": [3]})
    assert np.array_equal(directory.open().get("x")[0], values)


@pytest.mark.once("oldest")
def test_publishing_full_chunks_takes_little_of_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk may take longer to replace a small file than to write a large chunk."""
    put = Flusher._put_rows
    published = []
    # The flusher has a clock of the test, since a real one passes any mark on a busy machine.
    now = 0.0
    clock = SimpleNamespace(monotonic=lambda: now, time=time.time)
    monkeypatch.setattr("zarrtrace.recording.flusher.time", clock)

    def put_slowly(flusher: Flusher, journal: Journal) -> None:
        nonlocal now
        now += 0.1
        put(flusher, journal)
        published.append(journal.count)

    monkeypatch.setattr(Flusher, "_put_rows", put_slowly)
    posterior = {"x": zt.Var(draws_per_chunk=1)}
    trace = zt.create(
        tmp_path / "run.zarr", chains=1, draws=200, posterior=posterior, journal=False
    )
    with trace.writer(0) as writer:
        for draw in range(100):
            writer.record({"x": draw})
            now += 0.04
        # From one to the next pass 1.02 seconds.
        assert published == [1, 24, 47, 70, 93]
        writer.flush()
        assert published[-1] == 100
        assert zt.open(trace.path).get("x")[0].tolist() == list(range(100))
        now += 1.1
        writer.record({"x": 100})
        assert published[-1] == 101


def test_many_traces_are_recorded_by_turns_in_one_process() -> None:
    """What is kept of one layout, for speed, may be dropped meanwhile."""
    traces = [
        zt.create(chains=1, draws=20, posterior={"x": zt.Var(draws_per_chunk=10)})
        for _ in range(70)
    ]
    writers = [trace.writer(0) for trace in traces]
    for draw in range(20):
        for writer in writers:
            writer.record({"x": draw})
    for trace, writer in zip(traces, writers, strict=True):
        writer.close()
        assert trace.get("x")[0].tolist() == list(range(20))
