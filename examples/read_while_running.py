"""Chains sample in processes of their own; this process reads what they have recorded so far."""

import time
from multiprocessing import Process

import arviz as az
import numpy as np

import zarrtrace as zt


def chain(index: int, trace: zt.Trace) -> None:
    """Metropolis on a standard normal, with steps that are too short."""
    rng = np.random.default_rng([1992, index])
    x = rng.uniform(-5, 5)
    with trace.writer(index) as writer:
        for _ in range(trace.tune + trace.draws):
            time.sleep(0.001)  # a model that takes its time
            proposal = x + 0.3 * rng.normal()
            if np.log(rng.uniform()) < 0.5 * (x**2 - proposal**2):
                x = proposal
            writer.record({"x": x})


if __name__ == "__main__":
    path = "read_while_running.zarr"
    trace = zt.create(
        path, chains=4, tune=200, draws=2500, posterior={"x": zt.Var()}, overwrite=True
    )
    processes = [Process(target=chain, args=(index, trace)) for index in range(trace.chains)]
    for process in processes:
        process.start()

    running = zt.open(path)  # read-only, as from any other process, while the chains write
    sampling = True
    print("recorded                  draws    mean   R-hat")
    while sampling:
        time.sleep(0.3)
        sampling = any(process.is_alive() for process in processes)
        recorded = running.recorded
        posterior = running.posterior  # the draws there are now, without warmup: it stays as it is
        draws = posterior.sizes["draw"]
        if draws < 100:
            print(f"{recorded!s:24}  {draws:5}")
            continue
        rhat = float(az.rhat(posterior)["x"])
        print(f"{recorded!s:24}  {draws:5}  {float(posterior['x'].mean()):6.3f}  {rhat:6.3f}")
    trace.finish()
    print(f"finished: {zt.open(path).finished}")
