"""`zarrtrace tensorboard`: what TensorBoard reads of a run."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import arviz as az
import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import zarrtrace as zt
from zarrtrace.cli import main
from zarrtrace.watching.tensorboard import ScalarWriter
from zarrtrace.watching.watcher import Watcher

if TYPE_CHECKING:
    from conftest import Place
    from scripts import Script

NAME = "[b] a näme\x1b"


def recorded(place: Place, stop: int = 60) -> zt.Trace:
    """A trace of two chains with 10 draws of warmup and 50 others."""
    trace = place.create(
        chains=2,
        tune=10,
        draws=50,
        posterior={NAME: zt.Var(shape=(3,)), "tau": zt.Var()},
        sample_stats={
            "lp": zt.Var(), "diverging": zt.Var(dtype=bool), "step_size": zt.Var(),
        },
    )  # fmt: skip
    for chain in range(2):
        record(trace, chain, stop)
    return trace


def record(trace: zt.Trace, chain: int, stop: int) -> None:
    """Record until a chain has `stop` draws, with a checkpoint after each tenth one."""
    rng = np.random.default_rng(chain)
    with trace.writer(chain) as writer:
        start, _ = writer.resume()
        for number in range(start, stop):
            writer.record(
                {NAME: rng.normal(size=3), "tau": rng.normal()},
                {"lp": rng.normal(), "diverging": number % 20 == 0, "step_size": 0.25},
            )
            if number % 10 == 9:
                writer.checkpoint({})


FOLLOW = """
    import sys

    from zarrtrace.cli import main

    sys.exit(main(["tensorboard", *sys.argv[1:], "--every", "0.05"]))
"""


def read(logdir: Path) -> dict[str, list[tuple[int, float]]]:
    """The points of each scalar, each a step and a value, as TensorBoard reads them."""
    events = EventAccumulator(str(logdir), size_guidance={"scalars": 0})
    events.Reload()
    return {
        tag: [(point.step, point.value) for point in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
    }


def steps(points: list[tuple[int, float]]) -> list[int]:
    return [step for step, _ in points]


@pytest.mark.once("newest")
def test_a_recorded_trace(
    directory: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trace, logdir = recorded(directory), tmp_path / "board"
    command = ["tensorboard", str(directory.path), str(logdir), "--once", "--var", "tau"]
    for _ in range(2):  # the second time, the last points are written again
        assert main(command) == 0
        assert "complete, 2 chains, 60 of 60 draws" in capsys.readouterr().out
    assert len(list(logdir.iterdir())) == 2
    found = read(logdir)
    names = {"lp", "tau", *(f"{NAME}[{number}]" for number in range(3))}
    of_chains = {f"chain {c}/{what}" for c in (0, 1) for what in ("lp", "step_size", "divergences")}
    diagnostics = ("split_rhat", "rhat", "ess_bulk", "ess_tail")
    assert set(found) == of_chains | {f"{what}/{name}" for what in diagnostics for name in names}
    lp = trace.get("lp", group="sample_stats")
    assert found["chain 1/lp"] == [(60, pytest.approx(lp[1, -1]))]
    assert found["chain 0/divergences"] == [(60, 2)]
    tau = trace.get("tau")
    assert found["rhat/tau"] == [(60, pytest.approx(az.rhat(tau)))]
    assert found["ess_bulk/tau"] == [(60, pytest.approx(az.ess(tau, method="bulk")))]
    assert set(steps(found["split_rhat/tau"])) == {60}


@pytest.mark.once("newest")
def test_a_run_that_grows_and_goes_back(directory: Place, tmp_path: Path) -> None:
    trace, logdir = recorded(directory, stop=25), tmp_path / "board"
    run = Watcher(trace._hierarchy)
    with ScalarWriter(str(logdir)) as scalars:
        scalars.show([run.look()])
        scalars.show([run.look()])
        record(trace, 0, 48)
        scalars.show([run.look()])
        with trace.writer(0) as writer:
            assert writer.resume()[0] == 40
        scalars.show([run.look()])
        record(trace, 1, 60)
        scalars.show([run.look()])
    found = read(logdir)
    assert steps(found["chain 0/lp"]) == [25, 40]
    assert steps(found["chain 1/lp"]) == [25, 60]


def wait_for(logdir: Path, tag: str, step: int) -> None:
    """Wait until the last point that TensorBoard sees has this step."""
    ends = time.monotonic() + 120
    while not logdir.exists() or steps(read(logdir).get(tag, []))[-1:] != [step]:
        assert time.monotonic() < ends
        time.sleep(0.1)


@pytest.mark.long
@pytest.mark.once("newest")
def test_a_kill_loses_no_point(directory: Place, tmp_path: Path, script: Script) -> None:
    recorded(directory, stop=30)
    logdir = tmp_path / "board"
    process = script.start(FOLLOW, directory.path, logdir)
    wait_for(logdir, "chain 1/lp", 30)
    record(directory.open("a"), 1, 40)
    wait_for(logdir, "chain 1/lp", 40)
    process.kill()
    process.communicate()
    process = script.start(FOLLOW, directory.path, logdir)
    process.stdout.readline()
    for chain in range(2):
        record(directory.open("a"), chain, 60)
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    # The second process writes the last points of the first one again.
    points = read(logdir)["chain 1/lp"]
    assert {30, 40, 60} <= set(steps(points))
    assert len(set(points)) == len(set(steps(points)))


@pytest.mark.once("oldest")
def test_what_cannot_be_written_is_said(
    directory: Place,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recorded(directory)
    path, logdir = directory.path, tmp_path / "board"
    assert main(["tensorboard", str(path), str(path / "board")]) == 1
    assert "is in the trace; choose a directory beside it" in capsys.readouterr().err
    assert main(["tensorboard", str(tmp_path / "nowhere.zarr"), str(logdir)]) == 1
    assert "there is nothing at" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    assert main(["tensorboard", str(path), str(logdir)]) == 1
    assert "pip install 'zarrtrace[tensorboard]'" in capsys.readouterr().err
    assert not logdir.exists()
