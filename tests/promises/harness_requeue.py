"""How long a chain waits that is started again while its last writer died on another machine.

    python tests/promises/harness_requeue.py [--chains 8]

A process in a container of its own, which is as hidden from this one as one of another machine,
records chains and dies without closing its writers. Then each chain is started again with
`patience=90`, two seconds after the one before, and without any other setting. It prints the
shortest and the longest time from that start to the first draw, and fails if a checkpoint is lost
or a draw is wrong. It takes `unshare`, as root.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

import zarrtrace as zt

WRITER = """
import os, sys, time
import zarrtrace as zt

trace = zt.open(sys.argv[1], "a")
writers = [trace.writer(chain) for chain in range(trace.chains)]
for draw in range(15):
    for writer in writers:
        writer.record({"x": float(draw)})
        if draw == 9:
            writer.checkpoint({"draw": 10})
time.sleep(20)  # a heartbeat, and some more
os._exit(9)  # the first process of a container cannot kill itself
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--chains", type=int, default=8)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.zarr"
        trace = zt.create(path, chains=given.chains, draws=40, posterior={"x": 0.0}, journal=False)
        container = ["unshare", "--pid", "--uts", "--fork", "--mount-proc"]
        died = subprocess.run([*container, sys.executable, "-c", WRITER, str(path)]).returncode
        if died != 9 or trace.recorded.tolist() != [10] * given.chains:
            sys.exit(f"exit code {died}, and {trace.recorded} draws are there")
        warnings.simplefilter("ignore")
        with ThreadPoolExecutor(given.chains) as pool:
            seconds = list(pool.map(continue_chain, [path] * given.chains, range(given.chains)))
        print(f"{given.chains} chains: {min(seconds):.1f} to {max(seconds):.1f} s")
        if not np.array_equal(trace.get("x"), np.tile(np.arange(40.0), (given.chains, 1))):
            sys.exit("a draw is wrong")


def continue_chain(path: Path, chain: int) -> float:
    """Start a chain again; returns the seconds until its first draw."""
    time.sleep(2 * chain)
    began = time.monotonic()
    with zt.open(path, "a").writer(chain, patience=90) as writer:
        start, state = writer.resume()
        if (start, state) != (10, {"draw": 10}):
            sys.exit(f"chain {chain} continues at {start} with {state}")
        writer.record({"x": float(start)})
        seconds = time.monotonic() - began
        for draw in range(start + 1, 40):
            writer.record({"x": float(draw)})
    return seconds


if __name__ == "__main__":
    main()
