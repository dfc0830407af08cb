"""How long it takes from the signal of a scheduler until the last chain has flushed and closed.

    python tests/recording/harness_preemption.py [--times 10] [--draw 0.5] [--signal SIGUSR1]

Four chains of 1,000 numbers are recorded on this disk, in one loop, on `zarrtrace.run` with fresh
processes and with forks, and by `pm.sample`, which needs PyMC. The signal goes to all processes of
the job, at a random moment once every chain has a draw. It prints the shortest and the longest
time, and the longest one less one draw, which may have begun. Fails if the exit code is not 75, or
if a chain has no checkpoint at its last draw.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import zarrtrace as zt
from zarrtrace.errors import TraceNotFoundError

RUN = """
import sys, time
import numpy as np
import zarrtrace as zt

def chain(index, trace):
    rng = np.random.default_rng(index)
    with trace.writer(index) as writer:
        writer.resume()
        while not writer.stop_requested:
            time.sleep(DRAW)
            writer.record({"x": rng.normal(size=1000)})
        writer.checkpoint(rng.bit_generator.state)

if __name__ == "__main__":
    path, kind, DRAW = sys.argv[1], sys.argv[2], float(sys.argv[3])
    chains = 1 if kind == "loop" else 4
    trace = zt.create(path, chains=chains, draws=10**6, posterior={"x": zt.Var(shape=1000)})
    with zt.signals.preemptible(trace) as job:
        if kind == "loop":
            chain(0, trace)
        else:
            zt.run(chain, trace, processes=4, progress=False, fork=kind == "forked")
    sys.exit(job.exit_code)
"""
PYMC = """
import sys
import numpy as np
import pymc as pm
import zarrtrace as zt
from zarrtrace.adapters.pymc import ZarrTrace

if __name__ == "__main__":
    with pm.Model(), zt.signals.preemptible(sys.argv[1]) as job:
        pm.Normal("x", shape=1000)
        pm.sample(
            10**6, trace=ZarrTrace(sys.argv[1]), chains=4, cores=4, tune=0, step=pm.Metropolis(),
            progressbar=False, nuts_sampler="pymc",
        )
    sys.exit(job.exit_code)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--times", type=int, default=10)
    parser.add_argument("--draw", type=float, default=0.5, help="seconds; those of PyMC are fast")
    parser.add_argument("--signal", default="SIGUSR1")
    parser.add_argument("--kinds", default="loop,fresh,forked,pymc")
    given = parser.parse_args()
    for kind in given.kinds.split(","):
        draw = 0.0 if kind == "pymc" else given.draw
        seconds = [seconds_of_one(kind, draw, given.signal) for _ in range(given.times)]
        print(
            f"{kind:7} {given.times} times {given.signal}: {min(seconds):.2f} to "
            f"{max(seconds):.2f} s, less one draw {max(seconds) - draw:.2f} s at most",
            flush=True,
        )


def seconds_of_one(kind: str, draw: float, name: str) -> float:
    with tempfile.TemporaryDirectory() as folder:
        path, script = Path(folder) / "run.zarr", Path(folder) / "script.py"
        script.write_text(PYMC if kind == "pymc" else RUN)
        process = subprocess.Popen(
            [sys.executable, str(script), str(path), kind, str(draw)],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        assert process.stderr is not None
        while not has_begun(path):
            if process.poll() is not None:
                sys.exit(process.stderr.read().decode())
            time.sleep(0.02)
        time.sleep(random.uniform(0, max(draw, 0.1)))
        trace = zt.open(path)
        began = time.monotonic()
        os.killpg(process.pid, getattr(signal, name))
        while any(trace._block(number).claim for number in range(trace.chains)):
            time.sleep(0.002)
        ended = time.monotonic()
        _, said = process.communicate()
        if process.returncode != 75:
            sys.exit(f"{kind}: exit code {process.returncode}\n{said.decode()}")
        for chain, count in enumerate(trace.recorded):
            last = trace.last_checkpoint(chain)
            if last is None or last[0] != count:
                sys.exit(f"{kind}: chain {chain} has {count} draws, and the checkpoint {last}")
        return ended - began


def has_begun(path: Path) -> bool:
    with suppress(TraceNotFoundError):
        return bool(zt.open(path).recorded.min() > 0)
    return False


if __name__ == "__main__":
    main()
