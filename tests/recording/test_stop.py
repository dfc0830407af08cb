"""A run is asked to stop at a draw, from any process, and all its chains end there, equal."""

from __future__ import annotations

import json
import time
import warnings
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Place
from scripts import Script

import zarrtrace as zt
from zarrtrace.cli import main
from zarrtrace.errors import (
    ChainFullError,
    FinishedError,
    InvalidInputError,
    NotWritableError,
    StopRequestedError,
)
from zarrtrace.life.stop import request_stop
from zarrtrace.sampling_state.request import StopRequest, write_request

TEXT = {"x": zt.Var(draws_per_chunk=50), "word": zt.Var(dtype=str, draws_per_chunk=50)}


def create(place: Place, **more: Any) -> zt.Trace:
    return place.create(**{"chains": 2, "tune": 10, "draws": 990, "posterior": TEXT} | more)


def record(writer: zt.ChainWriter, draws: int | None = None) -> int:
    """Record that many draws, or until the chain has to stop; returns how many."""
    done = 0
    with suppress(StopRequestedError):
        while draws is None or done < draws:
            number = writer.recorded
            writer.record({"x": number, "word": str(number)})
            done += 1
    return done


def is_right(trace: zt.Trace, draws: int) -> bool:
    after = np.arange(trace.tune, draws)
    x, word = trace.get("x"), trace.get("word")
    return bool(np.array_equal(x, [after] * 2) and (word[1] == after.astype(str)).all())


def ask_as_another_process(trace: zt.Trace, at: int) -> None:
    """Write a request that no writer of this process is told of."""
    write_request(trace._location, StopRequest.by_this_process(trace._layout, at, "", {}))


def test_all_chains_end_at_the_next_common_end_of_a_chunk(place: Place) -> None:
    trace = create(place)
    first, second = trace.writer(0), trace.writer(1)
    record(first, 120), record(second, 133)
    assert trace.request_stop(reason="[b]good[/b]") == 150
    assert [first.total, second.total] == [150, 150]
    assert (first.stop_requested, record(first), first.stop_requested) == (False, 30, True)
    assert trace.status == "sampling"
    assert (record(second), record(first)) == (17, 0)
    assert trace.status == "complete"
    assert "complete, stopped on request: 2 chains" in repr(trace)
    assert is_right(trace, 150)
    request = trace.stop_request
    assert request is not None
    assert (request.at, request.reason, abs(request.asked_at - time.time()) < 60) == (
        150, "[b]good[/b]", True
    )  # fmt: skip
    first.close(), second.close()
    trace.finish()
    attrs = trace.posterior.attrs
    assert (attrs["stop_reason"], attrs["stop_requested_by"]) == ("[b]good[/b]", request.who)
    assert (trace.draws, trace.stop_request, trace.check()) == (140, None, [])
    # It continues from there.
    trace.extend(60)
    for chain in range(2):
        with trace.writer(chain) as writer:
            assert writer.resume() == (150, None)
            record(writer, 60)
            with pytest.raises(ChainFullError, match="tune \\+ draws is 210"):
                writer.record({"x": 0, "word": ""})
    assert is_right(trace, 210)


def test_a_chain_that_has_passed_the_draw_ends_at_once(place: Place) -> None:
    trace = create(place)
    writer = trace.writer(0)
    record(writer, 80)
    ask_as_another_process(trace, 60)
    writer.flush()  # elsewhere it looks then, and on a disk each second
    deadline = time.monotonic() + 60
    while not writer.stop_requested and time.monotonic() < deadline:
        time.sleep(0.01)
        if place.kind == "memory":
            writer.flush()
    assert (writer.stop_requested, writer.total, record(writer)) == (True, 80, 0)
    assert trace.status == "sampling"  # chain 1 has to draw 60
    writer.close()


def test_a_request_is_taken_back_while_chains_run_and_after_they_stopped(place: Place) -> None:
    trace = create(place)
    with trace.writer(0) as writer:
        record(writer, 30)
        assert trace.request_stop(at=40) == 40
        assert trace.cancel_stop()
        assert not trace.cancel_stop()
        assert (writer.total, record(writer, 30)) == (1000, 30)
        assert trace.request_stop(now=True) == 0
        assert record(writer) == 0
        trace.cancel_stop()
        assert record(writer, 45) == 45
        assert writer.recorded == 105
    with trace.writer(0) as writer:
        assert writer.resume() == (105, None)
        assert record(writer, 5) == 5
    np.testing.assert_array_equal(trace.get("x", chains=[0])[0], np.arange(10, 110))


def test_a_block_that_begins_before_the_draw_is_kept_whole(place: Place) -> None:
    trace = create(place, chains=1, chains_per_chunk=1, posterior={"x": zt.Var()})
    with trace.writer(0) as writer:
        writer.record_block({"x": np.arange(30.0)})
        trace.request_stop(at=40)
        writer.record_block({"x": np.arange(30.0, 60.0)})
        writer.checkpoint("after 60")
        assert (writer.stop_requested, writer.total) == (True, 60)
        with pytest.raises(StopRequestedError):
            writer.record_block({"x": np.zeros(1)})
        with pytest.raises(ChainFullError, match="record at most"):
            writer.record_block({"x": np.zeros(1000)})
    assert trace.status == "complete"
    np.testing.assert_array_equal(trace.get("x")[0], np.arange(10.0, 60.0))
    assert trace.last_checkpoint(0) == (60, "after 60")


def test_a_writer_that_thins_counts_the_draws_that_are_kept(directory: Place) -> None:
    trace = directory.create(chains=1, draws=90, thin=3, posterior={"x": zt.Var()})
    with trace.writer(0) as writer:
        for number in range(10):
            writer.record({"x": number})
        trace.request_stop(at=5)
        for number in range(10, 15):
            writer.record({"x": number})
        assert (writer.recorded, writer.total, writer.stop_requested) == (5, 5, True)
        with pytest.raises(StopRequestedError):
            writer.record({"x": 15})
    assert trace.get("x").tolist() == [[2.0, 5.0, 8.0, 11.0, 14.0]]


@pytest.mark.parametrize(
    ("lengths", "drawn", "total", "expected"),
    [
        ((20, 50), 61, 1000, 100),
        ((20, 50), 100, 1000, 100),  # no chain has passed it
        ((20, 50), 61, 90, 80),  # the long chunk does not end in time
        ((200, 200), 61, 190, 61),
        ((200, 200), 0, 190, 1),
        ((20, 50), 61, None, 100),
    ],
)
@pytest.mark.once("oldest")
def test_where_a_run_ends(
    memory: Place, lengths: tuple[int, int], drawn: int, total: int | None, expected: int
) -> None:
    variables = {
        f"x{length}{i}": zt.Var(draws_per_chunk=length) for i, length in enumerate(lengths)
    }
    trace = memory.create(chains=1, draws=total, posterior=variables)
    with trace.writer(0) as writer:
        for _ in range(drawn):
            writer.record(dict.fromkeys(variables, 0.0))
        assert trace.request_stop() == expected


def test_without_an_end_a_stop_is_the_end(directory: Place) -> None:
    trace = create(directory, draws=None)
    for chain in range(2):
        with trace.writer(chain) as writer:
            record(writer, 30)
    with pytest.warns(RuntimeWarning, match="no chain of .* is recorded now"):
        trace.request_stop(at=40)
    for chain in range(2):
        with trace.writer(chain) as writer:
            writer.resume()
            assert record(writer) == 10
    assert trace.status == "complete"
    assert trace.extend(5).draws == 35


@pytest.mark.once("newest")
def test_a_request_is_void_when_other_draws_are_declared_or_it_cannot_be_read(
    directory: Place,
) -> None:
    trace = create(directory)
    ask_as_another_process(trace, 40)
    # As an extension that is killed before it removes the request.
    trace._hierarchy.change(replace(trace._layout, draws=1200))
    assert trace.stop_request is None
    document = directory.path / "_sampling_state" / "request" / "zarr.json"
    attributes = json.loads(document.read_text())["attributes"]
    for text in ("", "{", "[]", attributes["stop_request"].replace('"at": 40', '"at": "x"')):
        document.write_text(json.dumps({"attributes": {"stop_request": text}}))
        assert trace.stop_request is None
    document.write_bytes(b"")
    with trace.writer(0) as writer:
        assert writer.total == 1210


CHAINS = """
import sys, time
import zarrtrace as zt

def chain(index, trace):
    with trace.writer(index) as writer:
        start, _ = writer.resume()
        for i in range(start, trace.tune + trace.draws):
            if index == 0 and writer.stop_requested:
                return
            writer.record({"x": i, "word": str(i)})
            time.sleep(0.004)

zt.run(chain, zt.open(sys.argv[1], "a"), processes=2, progress=False)
"""


def wait_for(trace: zt.Trace, draws: int) -> None:
    deadline = time.monotonic() + 120
    while trace.recorded.min() < draws and time.monotonic() < deadline:
        time.sleep(0.02)


@pytest.mark.long
def test_a_run_in_other_processes_ends_well_also_with_a_chain_that_takes_no_notice(
    directory: Place, script: Script, capsys: pytest.CaptureFixture[str]
) -> None:
    trace = create(directory, draws=10**6)
    process = script.start(CHAINS, directory.path)
    wait_for(trace, 20)
    assert main(["stop", str(directory.path), "--reason", "enough"]) == 0
    said = capsys.readouterr().out
    assert process.communicate() == ("", "")
    assert process.returncode == 0
    request = trace.stop_request
    assert request is not None
    assert f"asked to stop at draw {request.at}, {request.at - 10} draws after the warmup" in said
    assert (trace.recorded.tolist(), request.at % 50) == ([request.at] * 2, 0)
    assert trace.status == "complete"
    assert is_right(trace, request.at)
    # Nothing is left to do, until the request is taken back.
    with pytest.warns(RuntimeWarning, match="no chain has to draw more"):
        zt.run(lambda chain, trace: None, trace, progress=False)
    assert main(["stop", str(directory.path)]) == 1
    assert "there is nothing to stop; trace.finish() ends the run" in capsys.readouterr().err
    assert main(["stop", str(directory.path), "--cancel"]) == 0
    assert "the request to stop is taken back; recorded" in capsys.readouterr().out
    assert trace.status == "stopped"


@pytest.mark.once("oldest")
def test_chains_that_wait_begin_only_for_a_draw_that_they_do_not_have(directory: Place) -> None:
    trace = create(directory, chains=3)
    trace.writer(0).close()

    def chain(number: int, trace: zt.Trace) -> None:
        with trace.writer(number) as writer:
            writer.resume()
            writer.record({"x": 0, "word": ""})
            trace.request_stop(now=True)
            while True:
                writer.record({"x": 0, "word": ""})

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        zt.run(chain, trace, processes=1, progress=False)
    assert trace.recorded.tolist() == [1, 0, 0]
    assert trace.status == "complete"


@pytest.mark.once("newest")
def test_what_cannot_be_asked_is_refused_in_words(
    directory: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trace = create(directory, draws=20)
    path = str(directory.path)
    wrong = [({"at": 0}, "from 1"), ({"at": 2.5}, "2.5"), ({"at": True}, "True"),
             ({"at": 30}, "end at draw 30 anyway"), ({"at": 3, "now": True}, "exclude each other"),
             ({"reason": 3}, "must be text")]  # fmt: skip
    for arguments, words in wrong:
        with pytest.raises(InvalidInputError, match=words):
            trace.request_stop(**arguments)
    with pytest.raises(NotWritableError, match="mode='a'"):
        zt.open(path).request_stop()
    with pytest.raises(NotWritableError, match="mode='a'"):
        zt.open(path).cancel_stop()
    assert main(["stop", path, "--at", "12"]) == 0
    assert "no chain is recorded now" in capsys.readouterr().out
    assert main(["stop", str(tmp_path / "none.zarr")]) == 1
    assert "none.zarr" in capsys.readouterr().err
    for chain in range(2):
        with trace.writer(chain) as writer:
            record(writer)
    trace.finish()
    with pytest.raises(FinishedError, match="nothing to stop"):
        request_stop(trace._hierarchy, None)
    assert main(["stop", path]) == 1
    assert "the run is finished, so there is nothing to stop" in capsys.readouterr().err
