"""A trace that keeps every k-th of the draws that it is given, whatever stops its sampler."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from conftest import Place
from failing_calls import failing

import zarrtrace as zt
from zarrtrace.errors import (
    ChainFullError,
    DrawError,
    InvalidInputError,
    PartlyRecordedError,
    TraceExistsError,
)

THIN, TUNE, DRAWS = 5, 2, 7
TOTAL = TUNE + DRAWS
DEFINITION: dict[str, Any] = {
    "chains": 1,
    "tune": TUNE,
    "draws": DRAWS,
    "thin": THIN,
    "draws_per_chunk": 4,
    "posterior": {
        "x": zt.Var(),
        "word": zt.Var(dtype=str),
        "whole": zt.Var(shape=2, draws_per_chunk=1),
    },
}


def values(numbers: Any) -> dict[str, Any]:
    numbers = np.asarray(numbers)
    whole = np.stack([numbers, -numbers], axis=-1).astype(float)
    return {"x": numbers + 0.5, "word": numbers.astype(str), "whole": whole}


def check(trace: zt.Trace, given: int = THIN * TOTAL) -> None:
    """Every THIN-th of the first `given` draws is there, numbered from 0."""
    kept = values(np.arange(THIN - 1, given, THIN))
    for group, part in (("warmup_posterior", slice(TUNE)), ("posterior", slice(TUNE, None))):
        data = trace[group]
        for name, expected in kept.items():
            assert data[name].values.tolist() == [expected[part].tolist()]
        assert data.draw.values.tolist() == list(range(len(kept["x"][part])))
        assert data.attrs["thin"] == THIN


@pytest.mark.parametrize("sizes", [[1], [7, 1, 12]], ids=str)
def test_every_kth_draw_is_kept_and_both_numbers_are_counted(
    place: Place, sizes: list[int]
) -> None:
    trace = place.create(**DEFINITION)
    assert trace.thin == THIN
    with trace.writer(0) as writer:
        while (given := writer.given) < THIN * TOTAL:
            size = min(sizes[given % len(sizes)], THIN * TOTAL - given)
            if size == 1:
                writer.record(values(given))
            else:
                writer.record_block(values(np.arange(given, given + size)))
            assert writer.given == given + size
            assert writer.recorded == writer.given // THIN
            if writer.recorded > TUNE:
                writer.flush()
                check(trace, writer.given)
        with pytest.raises(ChainFullError):
            writer.record(values(0))
        with pytest.raises(ChainFullError):
            writer.record_block(values([0, 1]))
    assert "(2 warmup + 7 draws) with thin=5, recorded 9 of 9" in repr(place.open())
    trace.finish()
    check(place.open())
    if place.kind == "directory":
        with xr.open_datatree(place.path, engine="zarr") as plain:
            assert plain.posterior.attrs["thin"] == THIN


class Walk:
    """A sampler whose every step depends on all before it."""

    def __init__(self, state: Any = None) -> None:
        self.rng = np.random.default_rng(4)
        self.place = 0.0
        if state is not None:
            self.place, self.rng.bit_generator.state = state

    def step(self) -> dict[str, float]:
        self.place += self.rng.normal()
        return {"x": self.place}

    @property
    def state(self) -> Any:
        return [self.place, self.rng.bit_generator.state]


@pytest.mark.parametrize("killed", [2, 4, 13, 24, 43])
def test_a_sampler_killed_between_kept_draws_keeps_those_of_the_uninterrupted_run(
    directory: Place, killed: int
) -> None:
    walk = Walk()
    whole = [walk.step()["x"] for _ in range(THIN * TOTAL)]
    directory.create(**{**DEFINITION, "posterior": {"x": zt.Var(draws_per_chunk=2)}})

    def sample(stop: int) -> int:
        writer = directory.open("a").writer(0)
        start, state = writer.resume()
        walk = Walk(state)
        for number in range(start, stop):
            writer.record(walk.step())
            assert writer.given == number + 1
            if number % 7 == 2:
                writer.checkpoint(walk.state)
        writer._release()  # as if killed
        return start

    assert sample(killed) == 0
    before = (killed - 3) // 7 * 7 + 3 if killed > 2 else 0
    assert directory.open().last_checkpoint(0)[0] == before
    assert sample(THIN * TOTAL) == before
    trace = directory.open("a")
    trace.set_burn_in(0)
    assert trace.get("x").tolist() == [whole[THIN - 1 :: THIN]]


def test_without_a_checkpoint_a_chain_continues_after_the_last_draw_that_was_kept(
    directory: Place,
) -> None:
    directory.create(**DEFINITION)
    with directory.open("a").writer(0) as writer:
        for number in range(2 * THIN + 3):
            writer.record(values(number))
    with directory.open("a").writer(0) as writer:
        assert writer.resume() == (2 * THIN, None)
        for number in range(2 * THIN, THIN * TOTAL):
            writer.record(values(number))
    check(directory.open())


@pytest.mark.once("newest")
def test_a_draw_that_is_refused_was_not_given_whether_it_would_be_kept_or_not(
    memory: Place,
) -> None:
    trace = memory.create(**DEFINITION)
    with trace.writer(0) as writer:
        for number in range(THIN * TOTAL):
            with pytest.raises(DrawError):
                writer.record({**values(number), "x": "a"})
            with pytest.raises(DrawError):
                writer.record_block({**values([number] * 6), "x": ["a"] * 6})
            assert writer.given == number
            writer.record(values(number))
    check(trace)


@pytest.mark.once("newest")
def test_a_block_that_fails_says_how_many_of_the_draws_it_was_given_are_recorded(
    directory: Place,
) -> None:
    trace = directory.create(**DEFINITION)
    every = np.arange(THIN * TOTAL)
    with trace.writer(0) as writer:
        writer.record_block(values(every[:3]))
        with failing(69), pytest.raises(PartlyRecordedError) as caught:
            writer.record_block(values(every[3:-1]))
        assert writer.given == 3 + caught.value.kept == THIN * caught.value.draw
        assert caught.value.draw == writer.recorded
        writer.record_block(values(every[writer.given : -1]))
        writer.record(values(every[-1]))
    check(trace)


@pytest.mark.once("newest")
@pytest.mark.parametrize("thin", [0, -1, 2.0, True, "2"])
def test_a_thin_that_is_not_a_whole_number_is_refused(memory: Place, thin: Any) -> None:
    with pytest.raises(InvalidInputError, match="thin must be a whole number from 1, got"):
        memory.create(**{**DEFINITION, "thin": thin})


@pytest.mark.once("newest")
def test_only_what_counts_its_own_draws_thins(directory: Place, tmp_path: Path) -> None:
    directory.create(**DEFINITION)
    with pytest.raises(TraceExistsError, match="has other thin than the one"):
        directory.create(**{**DEFINITION, "thin": 3}, if_exists="open")
    result = xr.Dataset({"x": (("chain", "draw"), np.ones((2, 20)))})
    with pytest.raises(InvalidInputError, match="thin: a result is adopted as it is"):
        zt.from_datatree(result, tmp_path / "adopted.zarr", thin=2)
    assert not (tmp_path / "adopted.zarr").exists()
    stan = Path(__file__).parent.parent / "data" / "cmdstan" / "chain-1.csv"
    with pytest.raises(InvalidInputError, match="give thin= to CmdStan"):
        zt.follow(stan, tmp_path / "adopted.zarr", once=True, thin=2)
    assert not (tmp_path / "adopted.zarr").exists()
