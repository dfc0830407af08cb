"""A change of a whole trace begins when nobody writes, and not a moment before."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from conftest import Place
from killed_at_a_step import Killed, killed_at, made_again

import zarrtrace as zt
from zarrtrace.errors import ChainBusyError
from zarrtrace.layout.hierarchy import Hierarchy
from zarrtrace.layout.layout import Layout

CHANGES: dict[str, Callable[[zt.Trace], object]] = {
    "split": lambda trace: trace.split_warmup(),
    "finish": lambda trace: trace.finish(),
}


def record(place: Place, start: int, stop: int) -> None:
    with place.open("a").writer(0) as writer:
        writer.resume()
        for number in range(start, stop):
            writer.record({"x": float(number)})
        # As if killed: the last draws are in the journal alone.
        writer._release()


def expected(count: int) -> list[list[float]]:
    return [[float(number) for number in range(4, count)]]


@pytest.mark.parametrize("change", list(CHANGES))
@pytest.mark.parametrize("killed", [False, True])
def test_a_writer_that_comes_and_goes_before_a_change_loses_no_draw(
    directory: Place, monkeypatch: pytest.MonkeyPatch, change: str, killed: bool
) -> None:
    directory.create(chains=1, tune=4, draws=30, posterior={"x": 0.0}, draws_per_chunk=8)
    record(directory, 0, 12)
    real, seen = Hierarchy.change, []

    def changing(self: Hierarchy, layout: Layout) -> None:
        if seen:
            real(self, layout)
            return
        # The chain was found flushed; now it is recorded again.
        seen.append(0)
        record(directory, 12, 21)
        real(self, layout)
        seen.extend(directory.open().get("x").tolist())
        if killed:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Hierarchy, "change", changing)
        with pytest.raises(Killed if killed else ChainBusyError):
            CHANGES[change](directory.open("a"))
    assert seen[1:] == expected(21)
    trace = directory.open("a")
    assert trace.get("x").tolist() == expected(21)
    record(directory, 21, 25)
    CHANGES[change](trace)
    assert directory.open().get("x").tolist() == expected(25)
    assert trace.check() == []


@pytest.mark.once("newest")
def test_an_extension_that_is_killed_anywhere_leaves_its_writers_a_place(
    directory: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory.create(chains=1, tune=4, draws=6, posterior={"x": 0.0})
    record(directory, 0, 10)
    directory.open("a").finish()
    make_again = made_again(directory)
    with killed_at(10**9, monkeypatch) as done:
        make_again().extend(5)
    for step in range(done[0]):
        trace = make_again()
        with pytest.raises(Killed), killed_at(step, monkeypatch):
            trace.extend(5)
        trace = directory.open("a")
        if trace.draws == 6:
            trace.extend(5)
        assert trace.recorded.tolist() == [10]
        record(directory, 10, 15)
        assert directory.open().get("x").tolist() == expected(15)
        assert trace.check() == []
    assert done[0] >= 3  # the pause, the journal, the layout
