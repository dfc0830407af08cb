"""Slurm ends the tasks of an array at their limit of one minute, until their chains are complete.

    python tests/recording/harness_slurm.py [--seconds-per-draw S] [--requeue N] [--waits]

The array of the example runs in a real Slurm. Slurm itself sends SIGUSR1 before the end of each
turn, and N tasks are requeued by hand in their first turn. Prints the log of states and signals,
and fails if a draw differs from those of a run without interruptions.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

from slurm_cluster import slurm
from test_slurm import expected

import zarrtrace as zt


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds-per-draw", type=float, default=0.03)
    parser.add_argument("--requeue", type=int, default=1)
    parser.add_argument("--waits", action="store_true", help="for two minutes after each requeue")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="slurm-") as name, slurm(Path(name)) as cluster:
        # 20 s before the end: Slurm checks every 30 s, and sends it 10 to 40 s after the start.
        job = cluster.submit_array(given.seconds_per_draw, "--signal=B:USR1@20")
        began = time.monotonic()
        requeued = 0
        while cluster.states(given.waits):
            if requeued < given.requeue and time.monotonic() > began + 5:
                cluster.call("scontrol", "requeue", f"{job}_{requeued}")
                cluster.events.append(f"{time.strftime('%T')} {job}_{requeued} scontrol requeue")
                requeued += 1
            time.sleep(0.3)
        print(*cluster.events, sep="\n")
        for chain in range(4):
            print((cluster.folder / f"slurm_array_{chain}.log").read_text(), end="")
        trace = zt.open(cluster.folder / "slurm_array.zarr")
        print(trace.recorded)
        if not np.array_equal(trace.get("x"), expected(cluster.folder).get("x")):
            print(cluster.log())
            sys.exit("the draws are not those of a run without interruptions")


if __name__ == "__main__":
    main()
