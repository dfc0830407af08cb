"""Segments: what is known of a run of draws lies beside them, and is there when they are."""

from __future__ import annotations

import signal
from functools import partial
from typing import Any

import numpy as np
import pytest
import xarray as xr
from conftest import Place
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scripts import Script
from zarr.storage import MemoryStore

import zarrtrace as zt
from zarrtrace.errors import (
    DamagedTraceError,
    IncompleteTraceError,
    InvalidInputError,
    NotWritableError,
    SchemaError,
)
from zarrtrace.store.dtypes import as_dtype

CHAINS = 3


def create(place: Any, draws: int = 100) -> zt.Trace:
    definition: dict[str, Any] = {
        "chains": CHAINS,
        "chains_per_chunk": CHAINS,
        "draws": draws,
        "posterior": {"x": zt.Var(draws_per_chunk=4)},
        "sample_stats": {"lp": zt.Var(draws_per_chunk=7)},
    }
    make = getattr(place, "create", None) or partial(zt.create, place)
    made: zt.Trace = make(**definition)
    return made


def values(start: int, stop: int) -> np.ndarray[Any, Any]:
    return 1000.0 * np.arange(CHAINS)[:, None] + np.arange(start, stop)


def record(writer: zt.ChainWriter, draws: int) -> None:
    block = values(writer.recorded, writer.recorded + draws)
    writer.record_block({"x": block}, {"lp": -block})


def matrix(number: int) -> np.ndarray[Any, Any]:
    return np.arange(9, dtype="float32").reshape(3, 3) + number


def test_a_segment_has_its_draws_attributes_and_arrays(place: Place) -> None:
    trace = create(place)
    with trace.writer(range(CHAINS)) as writer:
        for number, draws in enumerate((10, 7, 12)):
            record(writer, draws)
            trace.segments.add(
                draws,
                attrs={"step_size": 0.1 * number, "phase": "adapt"},
                covariance=matrix(number),
                energies=np.arange(draws),
            )
        last = trace.segments[-1]
        assert (last.number, last.start, last.stop) == (2, 17, 29)
        assert last.attrs == {"step_size": 0.2, "phase": "adapt"}
        assert list(last.arrays) == ["covariance", "energies"]
        assert np.array_equal(last.arrays["covariance"], matrix(2))
        assert np.array_equal(last.arrays["energies"], np.arange(12))
        assert np.array_equal(last.posterior["x"], values(17, 29))
        assert last.posterior["draw"].values.tolist() == list(range(17, 29))
        assert np.array_equal(last.dataset("sample_stats")["lp"], -values(17, 29))
    trace.segments.close()
    stored = place.open().segments
    assert [(s.start, s.stop) for s in stored] == [(0, 10), (10, 17), (17, 29)]
    assert [s.arrays["energies"].size for s in stored[1:]] == [7, 12]


@pytest.mark.parametrize(
    "array",
    [
        np.float32(2.5),
        np.arange(6, dtype="int16").reshape(1, 2, 3),
        np.empty((0, 4)),
        np.array([True, False]),
        np.array([1 + 2j]),
        np.array(["2026-11-21", "NaT"], "datetime64[s]"),
        np.array([["a", "bb"]], dtype=np.dtypes.StringDType()),
        np.array([np.nan, -0.0, np.inf]),
        np.asfortranarray(np.arange(6).reshape(2, 3)),
        np.arange(3, dtype=">i4"),
        [[1, 2], [3, 4]],
    ],
    ids=lambda array: f"{np.asarray(array).dtype}{np.shape(array)}",
)
def test_an_array_comes_back_as_it_was(fast_place: Place, array: Any) -> None:
    trace = create(fast_place)
    trace.segments.add((0, 0), other=np.arange(5), array=array, more=np.ones(3))
    trace.segments.close()
    found = fast_place.open().segments[0].arrays["array"]
    expected = np.asarray(array)
    assert found.dtype == as_dtype(expected.dtype, "array")
    assert found.shape == expected.shape
    equal_nan = expected.dtype.kind in "fcM"
    assert np.array_equal(found, expected, equal_nan=equal_nan)


def test_attributes_come_back_bit_for_bit(fast_place: Place) -> None:
    attrs = {
        "temperature": 0.1,
        "nested": {"names": ["a", "b"], "pair": (1, None)},
        "scalar": np.float32(1 / 3),
        "small": np.arange(2),
        "nothing": float("inf"),
    }
    trace = create(fast_place)
    trace.segments.add((0, 0), attrs)
    found = trace.segments[0].attrs
    assert found["small"].tolist() == [0, 1]
    assert found["scalar"].dtype == np.float32
    assert {k: found[k] for k in attrs if k != "small"} == {
        k: v for k, v in attrs.items() if k != "small"
    }


def test_segments_may_have_other_arrays_each(fast_place: Place) -> None:
    trace = create(fast_place)
    trace.segments.add((0, 0), a=np.arange(3))
    trace.segments.add((0, 0), a=np.arange(4.0).reshape(2, 2), b=np.ones(1))
    trace.segments.add((0, 0))
    assert [list(s.arrays) for s in trace.segments] == [["a"], ["a", "b"], []]
    assert trace.segments[0].arrays["a"].dtype == np.arange(1).dtype
    assert trace.segments[1].arrays["a"].tolist() == [[0, 1], [2, 3]]


def test_a_segment_is_there_when_its_draws_are(fast_place: Place) -> None:
    trace = create(fast_place)
    with trace.writer(range(CHAINS)) as writer:
        record(writer, 10)
        trace.segments.add(10, {"number": 0})
        writer.checkpoint({"at": 10})
        record(writer, 5)
        trace.segments.add(5, {"number": 1})
        writer.resume()
        assert [s.attrs["number"] for s in trace.segments] == [0]
        record(writer, 8)
        trace.segments.add(8, {"number": 2})
        assert [(s.number, s.stop, s.attrs["number"]) for s in trace.segments] == [
            (0, 10, 0),
            (1, 18, 2),
        ]


def test_draws_may_lie_between_segments(fast_place: Place) -> None:
    trace = create(fast_place)
    with trace.writer(range(CHAINS)) as writer:
        record(writer, 20)
    trace.segments.add((12, 15), {"name": "late"})
    trace.segments.add((2, 5), {"name": "early"})
    assert [(s.start, s.attrs["name"]) for s in trace.segments] == [(2, "early"), (12, "late")]
    trace.segments.add((4, 8), {"name": "again"})
    assert [s.attrs["name"] for s in trace.segments] == ["again", "late"]


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    runs=st.lists(st.tuples(st.integers(0, 30), st.integers(1, 30)), max_size=8),
)
def test_of_segments_that_overlap_the_last_is_there(runs: list[tuple[int, int]]) -> None:
    trace = create(MemoryStore())
    with trace.writer(range(CHAINS)) as writer:
        record(writer, 60)
    expected: list[tuple[int, int]] = []
    for start, length in runs:
        stop = start + length
        trace.segments.add((start, stop), {"of": [start, stop]})
        expected = [run for run in expected if run[1] <= start or stop <= run[0]]
        expected = sorted([*expected, (start, stop)])
    assert [(s.start, s.stop) for s in trace.segments] == expected
    assert [tuple(s.attrs["of"]) for s in trace.segments] == expected


def test_a_segment_has_the_same_draws_whatever_burn_in_is_set(fast_place: Place) -> None:
    trace = create(fast_place)
    with trace.writer(range(CHAINS)) as writer:
        for _ in range(3):
            record(writer, 10)
            trace.segments.add(10)

    def check() -> None:
        for segment in trace.segments:
            run = values(segment.start, segment.stop)
            assert np.array_equal(segment.posterior["x"], run)
            assert np.array_equal(segment.dataset("sample_stats")["lp"], -run)

    check()
    trace.set_burn_in(14)
    assert trace.posterior.sizes["draw"] == 16
    check()
    trace.split_warmup(17)
    check()
    trace.finish()
    check()


def test_a_segment_says_which_of_its_draws_were_dropped(fast_place: Place) -> None:
    trace = create(fast_place)
    with trace.writer(range(CHAINS)) as writer:
        for number in range(3):
            record(writer, 10)
            trace.segments.add(10, {"number": number})
        trace.drop_before(14)
    first, second, third = trace.segments
    assert [s.dropped for s in trace.segments] == [10, 4, 0]
    assert "10 of them dropped" in repr(first)
    assert first.attrs == {"number": 0}
    assert first.posterior.sizes["draw"] == 0
    assert np.array_equal(second.posterior["x"], values(14, 20))
    assert second.posterior["draw"].values[0] == 14
    assert np.array_equal(third.posterior["x"], values(20, 30))


def test_a_killed_process_loses_no_segment(directory: Place, script: Script) -> None:
    create(directory)
    code = """
    import os, signal, sys
    import numpy as np
    import zarrtrace as zt
    import test_segments as tests

    trace = zt.open(sys.argv[1], mode="a")
    writer = trace.writer(range(tests.CHAINS))
    for number in range(4):
        tests.record(writer, 10)
        trace.segments.add(10, {"number": number}, matrix=tests.matrix(number))
    os.kill(os.getpid(), signal.SIGKILL)
    """
    process = script.start(code, directory.path)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    segments = directory.open().segments
    assert [s.attrs["number"] for s in segments] == [0, 1, 2, 3]
    assert all(np.array_equal(s.arrays["matrix"], matrix(s.number)) for s in segments)
    trace = directory.open("a")
    with trace.writer(range(CHAINS)) as writer:
        writer.resume()
        record(writer, 5)
        trace.segments.add(5, {"number": 4})
    assert [s.stop for s in directory.open().segments] == [10, 20, 30, 40, 45]


@pytest.mark.once("newest")
def test_another_process_reads_segments_while_they_come(directory: Place, script: Script) -> None:
    trace = create(directory)
    code = """
    import sys
    import zarrtrace as zt
    for segment in zt.open(sys.argv[1]).segments:
        print(segment.number, segment.attrs["of"], segment.arrays["m"].sum())
    """
    with trace.writer(range(CHAINS)) as writer:
        for _ in range(2):
            record(writer, 10)
            trace.segments.add(10, {"of": "me"}, m=matrix(0))
        printed = script.run(code, directory.path).splitlines()
    assert [line.split() for line in printed] == [["0", "me", "36.0"], ["1", "me", "36.0"]]


@pytest.mark.once("newest")
def test_two_processes_do_not_add_at_once(directory: Place, script: Script) -> None:
    trace = create(directory)
    trace.segments.add((0, 0))
    code = """
    import sys
    import zarrtrace as zt
    segments = zt.open(sys.argv[1], mode="a").segments
    try:
        segments.add((0, 0))
    except zt.errors.ChainBusyError:
        print("busy")
    """
    assert script.run(code, directory.path) == "busy\n"
    trace.segments.close()
    assert script.run(code, directory.path) == ""
    assert len(trace.segments) == 2


def test_a_finished_trace_with_segments_is_right_for_plain_readers(directory: Place) -> None:
    trace = create(directory)
    with trace.writer(range(CHAINS)) as writer:
        record(writer, 10)
        trace.segments.add(10, {"a": 1}, matrix=matrix(4))
    trace.segments.close()
    trace.finish()
    tree = xr.open_datatree(directory.path, engine="zarr")
    assert np.array_equal(tree["posterior"]["x"], values(0, 10))
    tables = xr.open_datatree(directory.path / "tables", engine="zarr", consolidated=False)
    rows = tables["segments"]
    assert (rows["start"].values.tolist(), rows["stop"].values.tolist()) == ([0], [10])
    floats = tables["segment_values_float32"]["value"].values
    assert np.array_equal(floats.reshape(3, 3), matrix(4))
    assert not trace.check()


def test_what_cannot_be_a_segment_is_refused(fast_place: Place) -> None:
    trace = create(fast_place)
    with trace.writer(range(CHAINS)) as writer:
        record(writer, 5)
    add = trace.segments.add
    with pytest.raises(IncompleteTraceError, match="all chains have draws 0 to 4"):
        add(6)
    with pytest.raises(IncompleteTraceError, match="draws 3 to 6"):
        add((3, 7))
    for wrong in (True, 1.5, "2", (3, 2), (1, 2, 3), (0, 2.0), None):
        with pytest.raises(InvalidInputError, match="number of draws or a pair"):
            add(wrong)  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match=r"attrs\['f'\]"):
        add(1, {"f": print})
    with pytest.raises(InvalidInputError, match="attrs must be a mapping"):
        add(1, [1])  # type: ignore[arg-type]
    with pytest.raises(SchemaError, match="'w' of a segment: dtype object"):
        add(1, w=object())
    with pytest.raises(InvalidInputError, match="'w' of a segment"):
        add(1, w=[[1], [1, 2]])
    assert len(trace.segments) == 0
    add(2)
    assert len(trace.segments) == 1
    with pytest.raises(IndexError, match="has 1 segment; there is no segment 1"):
        trace.segments[1]
    with pytest.raises(InvalidInputError, match="no sampled group 'warmup_posterior'"):
        trace.segments[0].dataset("warmup_posterior")


def test_a_read_only_trace_takes_no_segment(directory: Place) -> None:
    create(directory)
    trace = directory.open()
    assert list(trace.segments) == []
    assert not (directory.path / "tables").exists()
    with pytest.raises((NotWritableError, zt.errors.TraceNotFoundError), match="read-only"):
        trace.segments.add((0, 0))


def test_damaged_attributes_are_named(directory: Place) -> None:
    trace = create(directory)
    trace.segments.add((0, 0), {"a": 1})
    trace.segments.close()
    chunk = directory.path / "tables" / "segment_values_uint8" / "value" / "c.0"
    assert chunk.exists()
    chunk.unlink()
    with pytest.raises(DamagedTraceError, match="value"):
        _ = directory.open().segments[0].attrs


def test_a_trace_in_memory_has_segments() -> None:
    trace = create(None)
    trace.segments.add((0, 0), {"a": 1}, b=np.arange(3))
    assert trace.segments[0].arrays["b"].tolist() == [0, 1, 2]
    assert repr(trace.segments) == "<zarrtrace.Segments of memory: 1, draws 0:0>"
