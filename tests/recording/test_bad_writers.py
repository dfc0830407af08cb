"""A writer that may not write says which chain it is about and what to do, and loses nothing."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import zarrtrace as zt
from zarrtrace.errors import (
    ChainError,
    ChainFullError,
    FinishedError,
    NotWritableError,
)


@pytest.fixture
def trace(fast_place: Any) -> zt.Trace:
    """Two chains with room for three draws."""
    created: zt.Trace = fast_place.create(chains=2, tune=1, draws=2, posterior={"x": zt.Var()})
    return created


# Which chain ----------------------------------------------------------------------------------


@pytest.mark.parametrize("chain", [-1, 2, 100])
def test_a_chain_number_outside_the_trace_is_refused(trace: zt.Trace, chain: int) -> None:
    with pytest.raises(ChainError, match=f"has chains 0 to 1, not {chain}") as caught:
        trace.writer(chain)
    assert caught.value.chain == chain
    assert isinstance(caught.value, IndexError)


@pytest.mark.parametrize("chains", [1.5, "0", None, True, [0.5], [], range(0), [0, 1], [1, 0]])
def test_what_is_not_a_chain_has_no_writer(trace: zt.Trace, chains: Any) -> None:
    with pytest.raises(ChainError):
        trace.writer(chains)
    assert trace.recorded.tolist() == [0, 0]


@pytest.mark.parametrize(
    "chains", [0, 4, range(0, 3), range(1, 3), [1, 0], [0, 0], range(0, 4), range(4, 6), []]
)
def test_chains_that_are_not_a_block_have_no_writer(memory: Any, chains: Any) -> None:
    trace = memory.create(chains=5, chains_per_chunk=2, draws=3, posterior={"x": zt.Var()})
    with pytest.raises(ChainError, match=r"range\(|has chains 0 to 4|at least one"):
        trace.writer(chains)


# When -----------------------------------------------------------------------------------------


def test_recording_past_the_end_is_refused_and_keeps_nothing_of_a_block(trace: zt.Trace) -> None:
    with trace.writer(1) as writer:
        writer.record_block({"x": [0.0, 1.0]})
        with pytest.raises(ChainFullError, match=r"tune \+ draws is 3; record at most 1") as caught:
            writer.record_block({"x": [8.0, 9.0]})
        assert (caught.value.chain, caught.value.draw) == (1, 3)
        assert writer.recorded == 2
        writer.record({"x": 2.0})
        for record, value in ((writer.record, 9.0), (writer.record_block, [9.0])):
            with pytest.raises(ChainFullError, match=r"chain 1 of .*after 3") as caught:
                record({"x": value})  # type: ignore[operator]
            assert (caught.value.chain, caught.value.draw) == (1, 3)
    assert trace.recorded.tolist() == [0, 3]
    assert trace.get("x", chains=1).tolist() == [[1.0, 2.0]]
    assert trace.get("x", group="warmup_posterior", chains=1).tolist() == [[0.0]]


@pytest.mark.parametrize(
    "use",
    [
        lambda writer: writer.record({"x": 1.0}),
        lambda writer: writer.record({"wrong": 1.0}),
        lambda writer: writer.record_block({"x": [1.0]}),
        lambda writer: writer.record_block({"x": []}),
        lambda writer: writer.flush(),
        lambda writer: writer.resume(),
        lambda writer: writer.checkpoint({}),
    ],
    ids=["record", "wrong record", "record_block", "empty block", "flush", "resume", "checkpoint"],
)
def test_a_closed_writer_is_refused(trace: zt.Trace, use: Callable[[Any], Any]) -> None:
    with trace.writer(1) as writer:
        writer.record({"x": 0.0})
    with pytest.raises(NotWritableError, match=r"chain 1 .* is closed; open another one") as caught:
        use(writer)
    assert caught.value.chain == 1
    writer.close()
    assert trace.recorded.tolist() == [0, 1]


def test_a_finished_trace_takes_no_more_draws(fast_place: Any) -> None:
    trace = fast_place.create(chains=1, draws=2, posterior={"x": zt.Var()})
    with trace.writer(0) as writer:
        writer.record_block({"x": [1.0, 2.0]})
    trace.finish()
    with pytest.raises(FinishedError, match=r"finished.*extend") as caught:
        fast_place.open("a").writer(0)
    assert caught.value.chain == 0
    assert trace.get("x").tolist() == [[1.0, 2.0]]


@pytest.mark.parametrize(
    "change",
    [
        lambda trace: trace.writer(0),
        lambda trace: trace.split_warmup(),
        lambda trace: trace.finish(),
        lambda trace: trace.extend(3),
        lambda trace: trace.repair(),
        lambda trace: trace.add_group("data", {"y": [1.0]}),
        lambda trace: zt.run(print, trace, progress=False),
    ],
    ids=["writer", "split_warmup", "finish", "extend", "repair", "add_group", "run"],
)
def test_a_trace_opened_to_read_is_not_changed(
    fast_place: Any, change: Callable[[zt.Trace], Any]
) -> None:
    trace = fast_place.create(chains=1, draws=2, posterior={"x": zt.Var()})
    with trace.writer(0) as writer:
        writer.record({"x": 1.0})
    with pytest.raises(NotWritableError, match=re.escape("mode='a'")):
        change(fast_place.open("r"))
    assert trace.groups == ("posterior",)
    assert (trace.recorded.tolist(), trace.draws, trace.finished) == ([1], 2, False)


def test_a_writer_that_cannot_be_closed_at_exit_takes_no_other_with_it(
    tmp_path: Path, fresh_script: Any
) -> None:
    code = """
        import shutil, sys, zarrtrace as zt
        writers = []
        for number in range(8):
            path = f"{sys.argv[1]}/{number}.zarr"
            trace = zt.create(path, chains=1, draws=4, posterior={"x": zt.Var()}, journal=False)
            writers.append(trace.writer(0))
            writers[number].record({"x": number})
        for number in range(0, 8, 2):
            shutil.rmtree(f"{sys.argv[1]}/{number}.zarr")
    """
    process = fresh_script.start(code, tmp_path)
    _, said = process.communicate(timeout=300)
    assert "TraceNotFoundError" in said
    for number in range(1, 8, 2):
        assert zt.open(tmp_path / f"{number}.zarr").get("x").tolist() == [[number]]


@pytest.mark.parametrize("place", ["disk", "network"])
def test_a_writer_of_many_files_is_closed_at_exit(
    place: str, tmp_path: Path, fresh_script: Any
) -> None:
    """An interpreter that ends begins no thread."""
    code = """
        import pathlib, sys, warnings, zarrtrace as zt
        from zarrtrace.store import network
        place, folder = sys.argv[1:]
        durability = "disk"
        if place == "network":
            network._MOUNTS = pathlib.Path(folder, "mountinfo")
            network._MOUNTS.write_text(f"1 0 0:1 / {folder} rw - nfs4 server:/ rw")
            durability = "process"
        texts = {f"text{i}": zt.Var(dtype=str, draws_per_chunk=10) for i in range(20)}
        trace = zt.create(
            f"{folder}/run.zarr",
            chains=1, draws=20, posterior=texts, journal=False, durability=durability,
        )
        writer = trace.writer(0)
        for draw in range(15):
            writer.record(dict.fromkeys(texts, f"draw {draw}"))
    """
    process = fresh_script.start(code, place, tmp_path)
    _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert not said
    found = zt.open(tmp_path / "run.zarr").get("text19")
    assert found.tolist() == [[f"draw {draw}" for draw in range(15)]]
