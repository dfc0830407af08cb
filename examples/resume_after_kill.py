"""A chain is killed, and continues from its last checkpoint as if nothing had happened."""

import multiprocessing
import os
import signal
import threading
import time

import numpy as np

import zarrtrace as zt
from eight_schools import chain, create


def sample_and_die(trace: zt.Trace) -> None:
    """Sample chain 0, and be killed without warning when some hundred draws are recorded."""
    threading.Thread(target=kill_this_process, args=(trace,), daemon=True).start()
    chain(0, trace)


def kill_this_process(trace: zt.Trace) -> None:
    """Wait for draw 730, and send this process SIGKILL, which none can catch."""
    while trace.recorded[0] < 730:
        time.sleep(0.001)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    uninterrupted = create("uninterrupted.zarr", chains=1, overwrite=True)
    chain(0, uninterrupted)

    trace = create("killed.zarr", chains=1, overwrite=True)
    process = multiprocessing.get_context("spawn").Process(target=sample_and_die, args=(trace,))
    process.start()
    process.join()
    print(f"killed by {signal.Signals(-(process.exitcode or 0)).name}")
    print(f"at least 730 draws are there: {trace.recorded[0] >= 730}")

    chain(0, trace)  # resume() goes back to the last checkpoint, and the state that was kept there
    print(f"after the resume: {trace.recorded[0]} draws")
    for name in ("mu", "tau", "theta"):
        same = np.array_equal(trace.get(name), uninterrupted.get(name))
        print(f"{name}: every draw is that of the uninterrupted run, bit for bit: {same}")
