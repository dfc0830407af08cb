"""Traces that earlier versions wrote are read, recorded further, and finished.

`tests/data/traces/make.py` wrote them: of each format version one that was killed while it was
recorded, one that was split, and one that was finished, with text and a table.
"""

from __future__ import annotations

import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import zarrtrace as zt

ARCHIVES = Path(__file__).parent.parent / "data" / "traces"
DROPPED = {1: 0, 2: 2, 3: 2}
TUNE, TOTAL = 4, 12

# What the chains drew, of which some draws were dropped and of running chains the last are missing.
MU = [
    [0.5, 1.5, 2.5, 3.5, 4.5, 5.5, 6.5, 7.5, 8.5, 9.5, 10.5, 11.5],
    [100.5, 101.5, 102.5, 103.5, 104.5, 105.5, 106.5, 107.5, 108.5, 109.5, 110.5, 111.5],
]
WORD = [
    ["", "1 é", "2 é2 é", "", "4 é", "5 é5 é", "", "7 é", "8 é8 é", "", "10 é", "11 é11 é"],
    ["", "101 é", "102 é102 é", "", "104 é", "105 é105 é", "", "107 é", "108 é108 é", "",
     "110 é", "111 é111 é"],
]  # fmt: skip
DIVERGING = [True, False, False, False] * 3
FIRST_TIME = np.datetime64("1970-01-01T00:00:00", "s")


@pytest.fixture(params=[1, 2, 3], ids="format {}".format)
def version(request: pytest.FixtureRequest) -> int:
    found: int = request.param
    return found


def unpacked(kind: str, version: int, folder: Path) -> Path:
    with tarfile.open(ARCHIVES / f"format-{version}-{kind}.tar.gz") as archive:
        archive.extractall(folder, filter="data")
    return folder / "run.zarr"


def check_draws(
    groups: Any, start: int, stop: int, warmup: bool = False, chains: Any = (0, 1)
) -> None:
    """Assert that a group holds the draws from `start` to `stop - 1` of both chains, or of one."""
    chains, prefix = list(chains), "warmup_" * warmup
    posterior, stats = groups[f"{prefix}posterior"], groups[f"{prefix}sample_stats"]
    assert posterior.mu.values.tolist() == [MU[chain][start:stop] for chain in chains]
    assert posterior.word.values.tolist() == [WORD[chain][start:stop] for chain in chains]
    assert posterior.school.values.tolist() == ["Choate", "Mt. Hermon"]
    numbers = np.array(chains)[:, None] * 100 + np.arange(start, stop)
    assert posterior.theta.dtype == np.int32
    assert posterior.theta.values.tolist() == np.stack([numbers, -numbers], axis=-1).tolist()
    assert stats.diverging.dtype == bool
    assert stats.diverging.values.tolist() == [DIVERGING[start:stop]] * len(chains)
    seconds = (stats.when.values - FIRST_TIME) // np.timedelta64(1, "s")
    assert seconds.tolist() == numbers.tolist()


def check_table(trace: zt.Trace, rows: int) -> None:
    table = trace.table("history")
    assert table["step"].tolist() == [0, 1, 2, 3, 4][:rows]
    assert table["note"].tolist() == ["step 0", "step 1", "step 2", "step 3", "step 4"][:rows]
    scales = [[0.0, 0.0], [0.5, -1.0], [1.0, -2.0], [1.5, -3.0], [2.0, -4.0]]
    assert table["scales"].tolist() == scales[:rows]


def check_whole(trace: zt.Trace, version: int) -> None:
    """Assert that all draws are there, apart from those that were dropped."""
    assert trace.recorded.tolist() == [TOTAL, TOTAL]
    assert trace.dropped == DROPPED[version]
    check_draws(trace, TUNE, TOTAL)
    check_draws(trace, DROPPED[version], TUNE, warmup=True)
    assert trace.observed_data.y.values.tolist() == [28.0, 12.0]
    assert trace.check() == []


def test_a_killed_run_is_read_recorded_further_and_finished(version: int, tmp_path: Path) -> None:
    path = unpacked("running", version, tmp_path)
    trace = zt.open(path)
    assert list(path.glob("_sampling_state/journal/c.*"))
    assert trace.recorded.tolist() == [9, 7]
    assert (trace.tune, trace.draws, trace.dropped) == (TUNE, 8, DROPPED[version])
    for chain, stop in ((0, 9), (1, 7)):
        one = {name: trace.dataset(name, chains=[chain]) for name in trace.groups}
        check_draws(one, TUNE, stop, chains=[chain])
        check_draws(one, DROPPED[version], TUNE, warmup=True, chains=[chain])
    check_table(trace, 3)

    trace = zt.open(path, "a")
    for chain, (count, expected) in enumerate([(6, [1.5, -2.5]), (7, None)]):
        with trace.writer(chain) as writer:
            start, state = writer.resume()
            assert start == count
            if expected is None:
                assert state is None
            else:
                assert state["position"].tolist() == expected
                assert state["step"] == 6
            for i in range(start, TOTAL):
                number = 100 * chain + i
                writer.record(
                    {"mu": MU[chain][i], "theta": [number, -number], "word": WORD[chain][i]},
                    {"diverging": DIVERGING[i], "when": np.datetime64(number, "s")},
                )
    with trace.table("history") as table:
        for step in (3, 4):
            table.append(step=step, note=f"step {step}", scales=[step / 2, -step])
    check_whole(zt.open(path), version)
    check_table(zt.open(path), 5)

    trace.finish()
    check_whole(zt.open(path), version)
    check_table(zt.open(path), 5)
    with xr.open_datatree(path, engine="zarr") as tree:
        check_draws(tree, TUNE, TOTAL)
        check_draws(tree, DROPPED[version], TUNE, warmup=True)


def test_a_split_trace_is_read_split_elsewhere_and_finished(version: int, tmp_path: Path) -> None:
    path = unpacked("split", version, tmp_path)
    check_whole(zt.open(path), version)
    check_table(zt.open(path), 3)
    trace = zt.open(path, "a")
    trace.split_warmup(7)
    check_draws(zt.open(path), 7, TOTAL)
    check_draws(zt.open(path), DROPPED[version], 7, warmup=True)
    trace.split_warmup(TUNE)
    trace.finish()
    assert zt.open(path).finished
    check_whole(zt.open(path), version)


def test_a_finished_trace_is_read_by_zarrtrace_and_by_xarray(version: int, tmp_path: Path) -> None:
    path = unpacked("finished", version, tmp_path)
    trace = zt.open(path)
    assert trace.finished
    check_whole(trace, version)
    check_table(trace, 3)
    assert trace.posterior.attrs["inference_library"] == "stored"
    with xr.open_datatree(path, engine="zarr") as tree:
        check_draws(tree, TUNE, TOTAL)
        check_draws(tree, DROPPED[version], TUNE, warmup=True)
