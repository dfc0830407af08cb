"""A copy that is made while draws move: it has the right draws, or says that it has not all."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import Place
from killed_at_a_step import Killed, killed_at, made_again

import zarrtrace as zt
from zarrtrace.errors import TraceError

CHAINS, TUNE, DRAWS = 2, 7, 12
CHANGES: dict[str, Callable[[zt.Trace], object]] = {
    "finish": lambda trace: trace.finish(),
    "split": lambda trace: trace.split_warmup(3),
    "drop": lambda trace: trace.drop_before(4),
}


def contents(path: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()
    }


def moments(place: Place, change: str, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, bytes]]:
    """What is on the disk before the change, after each of its steps, and after all."""
    make_again, found = made_again(place), [contents(place.path)]
    with killed_at(10**9, monkeypatch) as done:
        CHANGES[change](make_again())
    last = contents(place.path)
    for step in range(0, done[0], 3):
        trace = make_again()
        with pytest.raises(Killed), killed_at(step, monkeypatch):
            CHANGES[change](trace)
        found.append(contents(place.path))
    return [*found, last]


def recorded(place: Place) -> zt.Trace:
    trace = place.create(
        chains=CHAINS,
        tune=TUNE,
        draws=DRAWS,
        draws_per_chunk=3,
        posterior={"x": zt.Var(), "n": zt.Var(dtype=int)},
    )
    for chain in range(CHAINS):
        with trace.writer(chain) as writer:
            for draw in range(TUNE + DRAWS):
                number = 100 * (chain + 1) + draw
                writer.record({"x": number, "n": number})
    return trace


def require_right_draws(copy: Path, name: str) -> bool:
    """Whether a copy can be read; what it then holds must be what was recorded."""
    try:
        with zt.open(copy) as trace:
            first = trace.burn_in
            found = [trace.get(name, chains=chain)[0] for chain in range(CHAINS)]
    except TraceError:
        return False
    for chain, values in enumerate(found):
        expected = 100 * (chain + 1) + np.arange(first, first + len(values))
        assert values.tolist() == expected.tolist(), name
    return True


@pytest.mark.once("newest")
@pytest.mark.parametrize("change", CHANGES)
def test_what_is_copied_while_draws_move_is_right_or_refused(
    directory: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    trace = recorded(directory)
    if change != "finish":
        trace.finish()
    versions = moments(directory, change, monkeypatch)
    chance = random.Random(1)
    readable = 0
    for trial in range(120):
        # Most copies are of few moments: a file system lists one directory after the other.
        some = sorted(chance.sample(range(len(versions)), chance.choice([2, 2, 3])))
        files = {name for moment in some for name in versions[moment]}
        by_group = {
            (name.split("/")[0], name.endswith("zarr.json")): chance.choice(some)
            for name in sorted(files)
        }
        copy = tmp_path / f"copy-{trial}.zarr"
        for name in sorted(files):
            one_by_one = trial % 2
            moment = (
                chance.choice(some)
                if one_by_one
                else by_group[name.split("/")[0], name.endswith("zarr.json")]
            )
            data = versions[moment].get(name)
            if data is not None:
                file = copy / name
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(data)
        if copy.is_dir():
            readable += require_right_draws(copy, "x") + require_right_draws(copy, "n")
            shutil.rmtree(copy)
    assert readable > 20, "some copies hold all that is needed"
