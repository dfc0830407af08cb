"""Runs without a fixed end, and more draws for runs that have one, also while they are recorded."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import Encoded, Place, open_plainly

import zarrtrace as zt
from zarrtrace.errors import ChainFullError


@pytest.mark.filterwarnings("ignore:.*unequal length:RuntimeWarning")
def test_a_run_without_a_fixed_end(place: Place, encoded: Encoded) -> None:
    trace = encoded.create(place, chains=2, tune=3, draws=None)
    assert not trace.has_end
    assert trace.tune + trace.draws == 2**53
    encoded.fill(trace, 20, 11)
    assert trace.recorded.tolist() == [20, 11]
    assert trace.status == "stopped"
    assert ": 2 chains × (3 warmup + any number of draws), recorded 20, 11\n" in repr(trace)
    assert open_plainly(place.store) is None
    encoded.check_split(trace, 3, 11)
    encoded.fill(trace, 26, 30)
    trace.set_burn_in(5)
    trace.finish()
    plain = open_plainly(place.store)
    assert plain is not None
    encoded.check_split(plain, 5, 26)
    encoded.check(trace.dataset("posterior", chains=1), 5, 30, [1])
    assert trace.check() == []
    # It continues without an end, and gets one.
    encoded.fill(trace.extend(None), 31)
    assert not trace.has_end
    assert trace.extend(4).draws == 32
    encoded.fill(trace)
    assert trace.status == "complete"
    trace.finish()
    plain = open_plainly(place.store)
    assert plain is not None
    encoded.check_split(plain, 5, 35)
    assert trace.check() == []


@pytest.mark.parametrize("draws", [10**9, None])
def test_what_is_not_recorded_takes_no_room(directory: Place, draws: int | None) -> None:
    directory.create(chains=1, draws=draws, posterior={"x": zt.Var(draws_per_chunk=100)})
    files = [file for file in directory.path.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) < 20_000


def test_a_trace_is_extended_while_it_is_recorded(place: Place, encoded: Encoded) -> None:
    trace = encoded.create(place, chains=2, tune=2, draws=5)
    with trace.writer(0) as full, trace.writer(1) as begun:
        encoded.record(full, 0, 7)
        encoded.record(begun, 1, 4)
        with pytest.raises(ChainFullError, match=r"tune \+ draws is 7; .* trace\.extend\(draws="):
            full.record(**encoded.draw(0, 7))
        # By any process: this writer's trace is another object.
        place.open("a").extend(6)
        for draw in range(7, 13):
            full.record(**encoded.draw(0, draw))
        for draw in range(4, 13):
            begun.record(**encoded.draw(1, draw))
            if draw == 8:
                begun.flush()
                encoded.check(place.open().dataset("posterior", chains=1), 2, 9, [1])
        with pytest.raises(ChainFullError):
            begun.record(**encoded.draw(1, 13))
        assert trace.recorded.tolist() == [13, 13]
        encoded.check_split(place.open(), 2, 13)
    encoded.check_split(trace, 2, 13)
    # A chain that was full and closed continues at its checkpoint, or after its last draw.
    encoded.fill(trace.extend(1))
    trace.finish()
    plain = open_plainly(place.store)
    assert plain is not None
    encoded.check_split(plain, 2, 14)
    assert trace.check() == []


def test_a_block_of_draws_may_cross_what_was_the_end(fast_place: Place) -> None:
    trace = fast_place.create(chains=1, draws=5, posterior={"x": zt.Var(draws_per_chunk=4)})
    with trace.writer(0) as writer:
        writer.record_block({"x": np.arange(3.0)})
        with pytest.raises(ChainFullError):
            writer.record_block({"x": np.arange(3.0, 9.0)})
        trace.extend(4)
        writer.record_block({"x": np.arange(3.0, 9.0)})
        assert trace.get("x").tolist() == [[*range(9)]]


@pytest.mark.once("newest")
def test_an_extension_survives_a_kill(directory: Place, encoded: Encoded) -> None:
    trace = encoded.create(directory, chains=1, draws=6)
    writer = trace.writer(0)
    encoded.record(writer, 0, 6)
    trace.extend(5)
    writer._release()  # as a process that is killed: nothing is flushed
    encoded.check(directory.open().posterior, 0, 6)
    writer = trace.writer(0)
    encoded.record(writer, 0, 9)
    writer._release()
    encoded.check(directory.open().posterior, 0, 9)
    trace.finish()
    encoded.check(trace.posterior, 0, 9)
    assert trace.check() == []
