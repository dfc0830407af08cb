"""The chain of one task of `slurm_array.sh`: a random walk that continues where it stopped."""

import os
import sys
import time

import numpy as np

import zarrtrace as zt

PAUSE = float(os.environ.get("SECONDS_PER_DRAW", "0"))  # stands for an expensive likelihood


def chain(index: int, trace: zt.Trace) -> None:
    """Draw from a normal distribution by Metropolis's rule, until the end or a signal."""
    rng = np.random.default_rng([17, index])
    x = rng.normal(size=2) * 10
    with trace.writer(index, patience=90) as writer:
        _, state = writer.resume()
        if state is not None:
            x, rng.bit_generator.state = state
        else:
            writer.checkpoint((x, rng.bit_generator.state))
        while not writer.stop_requested and writer.recorded < writer.total:
            proposal = x + rng.normal(size=2)
            if np.log(rng.uniform()) < (x @ x - proposal @ proposal) / 2:
                x = proposal
            time.sleep(PAUSE)
            writer.record({"x": x})
            if writer.recorded % 100 == 0:
                writer.checkpoint((x, rng.bit_generator.state))
        writer.checkpoint((x, rng.bit_generator.state))


def create(path: str) -> zt.Trace:
    """Create the trace, or open it if another task or an earlier turn has created it."""
    posterior = {"x": zt.Var(shape=2)}
    return zt.create(path, chains=4, tune=500, draws=2000, posterior=posterior, if_exists="open")


if __name__ == "__main__":
    task = int(os.environ.get("SLURM_ARRAY_TASK_ID", "0"))
    trace = create("slurm_array.zarr")
    with zt.signals.preemptible(trace, chains=[task]) as job:
        chain(task, trace)
    end = f"{job.signal} came" if job.signal else "complete"
    turn = int(os.environ.get("SLURM_RESTART_COUNT", "0")) + 1
    print(f"turn {turn} of chain {task}: {end}, {trace.recorded[task]} draws")
    sys.exit(job.exit_code)
