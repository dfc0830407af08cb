"""What a writer cannot record is refused with its place and a remedy, and nothing is lost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import zarrtrace as zt
from zarrtrace.errors import DrawError

TUNE, DRAWS = 2, 4
Draw = dict[str, dict[str, Any]]


def good(i: int) -> Draw:
    """The draw i that is recorded around the refused ones."""
    return {
        "posterior": {"mu": float(i), "theta": np.full(8, i), "L": [[i, 0], [0, i]]},
        "sample_stats": {"lp": -float(i), "diverging": i % 2 == 0},
    }


def as_block(draw: Draw) -> Draw:
    """The same draw as a block of one."""
    return {
        group: {name: [value] for name, value in values.items()} for group, values in draw.items()
    }


@pytest.fixture
def trace(fast_place: Any) -> zt.Trace:
    return make_trace(fast_place)


@pytest.fixture
def trace_in_memory(memory: Any) -> zt.Trace:
    return make_trace(memory)


def make_trace(place: Any) -> zt.Trace:
    created: zt.Trace = place.create(
        chains=2,
        tune=TUNE,
        draws=DRAWS,
        draws_per_chunk=2,
        posterior={"mu": zt.Var(), "theta": zt.Var(shape=8), "L": zt.Var(shape=(2, 2))},
        sample_stats={"lp": zt.Var(), "diverging": zt.Var(dtype=bool)},
    )
    return created


def assert_refused_at_every_draw(
    trace: zt.Trace,
    spoil: Callable[[Draw], None],
    where: tuple[str | None, str | None],
    says: str,
) -> None:
    """A spoilt draw is refused wherever it comes, with its place, and leaves no mark."""
    with trace.writer(1) as writer:
        for i in range(TUNE + DRAWS):
            draw, block = good(i), as_block(good(i))
            spoil(draw)
            spoil(block)
            for record, values in ((writer.record, draw), (writer.record_block, block)):
                with pytest.raises(DrawError, match=says) as caught:
                    record(**values)  # type: ignore[operator]
                error = caught.value
                assert (error.group, error.variable) == where
                assert (error.chain, error.draw) == (1, i)
                for part in (*where, "chain 1", f"draw {i}"):
                    assert str(part or "") in str(error)
                assert writer.recorded == i
            writer.record(**good(i))
            writer.flush()
    assert_complete(trace)


def assert_complete(trace: zt.Trace) -> None:
    """Chain 1 has the good draws and nothing else."""
    assert trace.recorded[1] == TUNE + DRAWS
    for i in range(TUNE + DRAWS):
        group, draw = ("warmup_", i) if i < TUNE else ("", i - TUNE)
        for name, values in good(i).items():
            found = trace.dataset(f"{group}{name}", chains=1).isel(chain=0, draw=draw)
            for variable, value in values.items():
                assert found[variable].values.tolist() == np.asarray(value).tolist()


# Names ----------------------------------------------------------------------------------------


def rename(group: str, old: str, new: Any) -> Callable[[Draw], None]:
    def spoil(draw: Draw) -> None:
        draw[group][new] = draw[group].pop(old)

    return spoil


@pytest.mark.parametrize(
    ("spoil", "where", "says"),
    [
        (rename("posterior", "theta", "tehta"), ("posterior", "tehta"), "did you mean 'theta'"),
        (rename("posterior", "mu", "zzz"), ("posterior", "zzz"), "it has mu, theta, L"),
        (rename("posterior", "mu", 1), ("posterior", 1), "no variable 1; it has mu, theta, L"),
        (
            lambda draw: draw["posterior"].update(extra=1.0),
            ("posterior", "extra"),
            "no variable 'extra'; it has mu, theta, L",
        ),
        (
            lambda draw: draw["sample_stats"].pop("lp"),
            ("sample_stats", "lp"),
            "no value for 'lp'; give a value for each draw",
        ),
        (
            lambda draw: draw["posterior"].clear(),
            ("posterior", "mu"),
            "no value for 'mu', 'theta', 'L'",
        ),
        (
            lambda draw: draw.pop("sample_stats"),
            ("sample_stats", None),
            "give a mapping with the values of lp, diverging",
        ),
        (
            lambda draw: draw.update(log_likelihood={"y": 1.0}),
            ("log_likelihood", None),
            "no sampled group 'log_likelihood'; it has posterior, sample_stats",
        ),
        *(
            (
                lambda draw, value=value: draw.update(sample_stats=value),
                ("sample_stats", None),
                "give a mapping with the values of lp, diverging",
            )
            for value in (None, 3.0, "ab", [1.0, True], ["lp", "diverging"], np.zeros(2))
        ),
    ],
)
def test_a_draw_needs_a_value_for_every_variable_and_no_other(
    trace: zt.Trace,
    spoil: Callable[[Draw], None],
    where: tuple[str, str | None],
    says: str,
) -> None:
    assert_refused_at_every_draw(trace, spoil, where, says)


# Shapes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("theta", np.ones(7)),
        ("theta", [1.0] * 9),
        ("theta", np.ones(1)),
        ("theta", 1.0),
        ("theta", np.float64(1)),
        ("theta", np.ones((1, 8))),
        ("theta", np.ones((8, 1))),
        ("theta", []),
        ("mu", np.ones(8)),
        ("mu", [1.0]),
        ("mu", np.ones((1, 1))),
        ("mu", []),
        ("L", np.ones((2, 1))),
        ("L", np.ones(2)),
        ("L", np.ones(4)),
        ("L", 1.0),
    ],
    ids=lambda value: str(np.shape(value)) if not isinstance(value, str) else value,
)
def test_a_wrong_shape_is_refused_also_one_that_would_broadcast(
    trace_in_memory: zt.Trace, variable: str, value: Any
) -> None:
    def spoil(draw: Draw) -> None:
        block = isinstance(draw["sample_stats"]["lp"], list)
        draw["posterior"][variable] = np.asarray(value)[np.newaxis] if block else value

    assert_refused_at_every_draw(trace_in_memory, spoil, ("posterior", variable), "shape")


def test_a_ragged_list_is_refused(trace_in_memory: zt.Trace) -> None:
    ragged: list[Any] = [[1.0], [1.0, 2.0]]
    says = "is not an array"
    assert_refused_at_every_draw(
        trace_in_memory, lambda draw: draw["posterior"].update(L=ragged), ("posterior", "L"), says
    )


def test_blocks_of_unequal_length_are_refused(trace_in_memory: zt.Trace) -> None:
    block = as_block(good(0))
    block["sample_stats"]["diverging"] = [True, False]
    with trace_in_memory.writer(0) as writer:
        with pytest.raises(DrawError, match=r"shape \(2,\), expected \(1\)") as caught:
            writer.record_block(**block)
        assert (caught.value.group, caught.value.variable) == ("sample_stats", "diverging")
        assert writer.recorded == 0


def test_a_block_of_chains_needs_its_chain_axis(fast_place: Any) -> None:
    trace = fast_place.create(
        chains=3, chains_per_chunk=2, draws=3, posterior={"mu": zt.Var(), "v": zt.Var(3)}
    )
    with trace.writer(range(0, 2)) as writer:
        for mu, v in (
            (1.0, np.ones((2, 3))),
            ([1.0] * 2, np.ones(3)),
            ([1.0] * 3, np.ones((2, 3))),
        ):
            with pytest.raises(DrawError, match="chains 0 to 1, draw 0"):
                writer.record({"mu": mu, "v": v})
        for shape in ((1, 2), (3, 2), (2,)):
            with pytest.raises(DrawError, match=r"expected \(2, draws\)"):
                writer.record_block({"mu": np.ones(shape), "v": np.ones((2, 2, 3))})
        assert writer.recorded == 0
        writer.record({"mu": [1, 2], "v": np.ones((2, 3))})
    # The last block has one chain, and one element does not stand for two.
    with trace.writer([2]) as writer, pytest.raises(DrawError, match=r"shape \(2,\)"):
        writer.record({"mu": [1, 2], "v": np.ones((1, 3))})
    assert trace.recorded.tolist() == [1, 1, 0]


# Casts ----------------------------------------------------------------------------------------

WIDEN, CONVERT = "widen the dtype", "convert it first"
DATE, SPAN = np.datetime64("2020-01-01", "s"), np.timedelta64(1, "s")


@pytest.mark.parametrize(
    ("dtype", "values", "remedy"),
    [
        ("int8", [300, -129, np.int64(300), np.array(300), np.uint8(200)], WIDEN),
        ("int8", [1.5, 1.0, np.nan, 1j, "1", b"1", None, SPAN, DATE], CONVERT),
        ("uint8", [-1, 256, np.int64(-1), np.array(-1)], WIDEN),
        ("uint64", [-1, np.int64(-1)], WIDEN),
        ("int64", [np.uint64(2**63)], WIDEN),
        ("float64", [1j, np.complex64(1), "1.0", b"1", None, DATE, SPAN, object()], CONVERT),
        ("complex128", ["1j", None, DATE], CONVERT),
        (bool, [1, 0.0, "True", None], CONVERT),
        (str, [1, 1.0, b"a", None, True, DATE], CONVERT),
        (str, ["\ud800"], "replace it"),
        ("M8[s]", [5.0, "2020-01-01", None, SPAN], CONVERT),
        ("M8[s]", [np.datetime64("2020-01-01T00:00:00.5")], r"datetime64\[ms\]"),
        ("M8[ns]", [np.datetime64("3000-01-01", "s")], r"datetime64\[s\]"),
        ("m8[s]", [np.timedelta64(1500, "ms")], r"timedelta64\[ms\]"),
        ("m8[ns]", [np.timedelta64(10**12, "s")], r"timedelta64\[s\]"),
    ],
)
def test_an_unsafe_cast_is_refused(memory: Any, dtype: Any, values: list[Any], remedy: str) -> None:
    trace = memory.create(
        chains=1,
        draws=2,
        posterior={"x": zt.Var(dtype=dtype), "v": zt.Var(shape=2, dtype=dtype)},
    )
    zero: Any = "" if dtype is str else np.zeros((), dtype)[()]
    with trace.writer(0) as writer:
        for value in values:
            for draw in ({"x": value, "v": [zero, zero]}, {"x": zero, "v": [value, value]}):
                spoilt = "x" if draw["x"] is value else "v"
                with pytest.raises(DrawError, match=remedy) as caught:
                    writer.record(draw)
                assert (caught.value.group, caught.value.variable) == ("posterior", spoilt)
                with pytest.raises(DrawError, match=remedy) as caught:
                    writer.record_block({name: [value] for name, value in draw.items()})
                assert (caught.value.variable, caught.value.draw) == (spoilt, 0)
        writer.record({"x": zero, "v": [zero, zero]})
    assert trace.recorded.tolist() == [1]


@pytest.mark.parametrize("dtype", ["int64", "uint64", "float64"])
def test_an_int_too_large_for_any_dtype_is_refused(memory: Any, dtype: str) -> None:
    trace = memory.create(chains=1, draws=2, posterior={"x": zt.Var(dtype=dtype)})
    with trace.writer(0) as writer:
        with pytest.raises(DrawError, match=WIDEN):
            writer.record({"x": 10**400})
        with pytest.raises(DrawError, match=CONVERT):
            writer.record_block({"x": [10**400]})
        assert writer.recorded == 0


# Interrupted ----------------------------------------------------------------------------------


class Interrupted:
    """A value whose conversion ends with an exception."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray[Any, Any]:
        raise self.error


def test_a_value_that_cannot_be_converted_leaves_the_draw_out(trace: zt.Trace) -> None:
    broken = Interrupted(KeyError("no device"))

    def spoil(draw: Draw) -> None:
        draw["sample_stats"]["diverging"] = broken

    where = ("sample_stats", "diverging")
    assert_refused_at_every_draw(trace, spoil, where, "is not an array.*no device")


def test_ctrl_c_in_the_middle_of_a_draw_leaves_it_out(trace: zt.Trace) -> None:
    with trace.writer(1) as writer:
        for i in range(TUNE + DRAWS):
            draw = good(i)
            draw["posterior"]["mu"] = -99.0
            draw["sample_stats"]["diverging"] = Interrupted(KeyboardInterrupt())
            for record, values in ((writer.record, draw), (writer.record_block, as_block(draw))):
                with pytest.raises(KeyboardInterrupt):
                    record(**values)  # type: ignore[operator]
            writer.flush()
            writer.record(**good(i))
    assert_complete(trace)
