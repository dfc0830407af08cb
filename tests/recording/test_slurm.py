"""A real Slurm runs the array of the example until each task has completed its chain."""

from __future__ import annotations

import importlib.util
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
from slurm_cluster import ROOT, is_installed, slurm

import zarrtrace as zt


def expected(folder: Path) -> zt.Trace:
    """What the array's chains are without any interruption."""
    file = ROOT / "examples" / "slurm_array.py"
    spec = importlib.util.spec_from_file_location("slurm_array", file)
    assert spec is not None
    assert spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    trace: zt.Trace = example.create(str(folder / "expected.zarr"))
    for index in range(4):
        example.chain(index, trace)
    return trace


@pytest.mark.long
@pytest.mark.once("newest")
@pytest.mark.skipif(not is_installed(), reason="only root can install Slurm; CI does")
def test_tasks_that_are_signalled_and_requeued_complete_their_chains() -> None:
    # Not in pytest's folder, whose name is too long for a socket.
    with tempfile.TemporaryDirectory(prefix="slurm-") as name, slurm(Path(name)) as cluster:
        # Slurm itself sends no signal in this time; the harness is about those that it sends.
        job = cluster.submit_array(0.004, "--time=10")
        path = cluster.folder / "slurm_array.zarr"
        deadline = time.monotonic() + 120

        def look() -> bool:
            assert time.monotonic() < deadline, cluster.log()
            time.sleep(0.2)
            return bool(cluster.states())

        while not path.exists() or zt.open(path).recorded.min() < 200:
            assert look(), cluster.log()
        # As Slurm does before the end of its time, and when it takes the node away.
        cluster.call("scancel", "--batch", "--signal=USR1", f"{job}_1")
        cluster.call("scontrol", "requeue", f"{job}_2")
        while look():
            pass
        assert zt.open(path).recorded.tolist() == [2500] * 4, cluster.log()
        for chain, came in enumerate(("", "SIGUSR1", "SIGTERM", "")):
            said = (cluster.folder / f"slurm_array_{chain}.log").read_text()
            assert f"turn {2 if came else 1} of chain {chain}: complete, 2500 draws" in said
            assert f"turn 1 of chain {chain}: {came} came" in said or not came
        assert np.array_equal(zt.open(path).get("x"), expected(cluster.folder).get("x"))
