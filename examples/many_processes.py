"""Four chains in four processes: with zarrtrace.run, and with concurrent.futures alone."""

from concurrent.futures import ProcessPoolExecutor

import numpy as np

import zarrtrace as zt

# Ten pumps of a nuclear plant: failures in thousands of hours (Gaver & O'Muircheartaigh 1987).
FAILURES = np.array([5, 1, 5, 14, 3, 19, 1, 1, 4, 22])
HOURS = np.array([94.3, 15.7, 62.9, 126, 5.24, 31.4, 1.05, 1.05, 2.1, 10.5])
ALPHA = 1.802


def chain(index: int, trace: zt.Trace) -> None:
    """Draw one chain with the Gibbs sampler of Gelfand & Smith (1990)."""
    rng = np.random.default_rng([1987, index])
    beta = rng.uniform(0.1, 10)
    with trace.writer(index) as writer:
        for _ in range(trace.tune + trace.draws):
            rate = rng.gamma(ALPHA + FAILURES, 1 / (HOURS + beta))
            beta = rng.gamma(0.01 + ALPHA * len(rate), 1 / (1 + rate.sum()))
            writer.record({"rate": rate, "beta": beta})


def create(path: str) -> zt.Trace:
    """Create the empty trace of the model."""
    return zt.create(
        path,
        chains=4,
        tune=500,
        draws=2000,
        posterior={"rate": zt.Var(dims="pump"), "beta": zt.Var()},
        coords={"pump": np.arange(1, 11)},
        observed_data={"failures": ("pump", FAILURES)},
        constant_data={"hours": ("pump", HOURS)},
        overwrite=True,
    )


# Processes that are spawned import this file again, and must not start processes of their own.
if __name__ == "__main__":
    ours = create("many_processes.zarr")
    zt.run(chain, ours)  # a process and a progress bar for each chain
    ours.finish()

    yours = create("concurrent_futures.zarr")
    with ProcessPoolExecutor(max_workers=4) as pool:
        list(pool.map(chain, range(4), [yours] * 4))  # a Trace travels as its address
    yours.finish()

    print(f"recorded with zarrtrace.run       {ours.recorded}")
    print(f"recorded with concurrent.futures  {yours.recorded}")
    print(f"the same draws: {ours.posterior.equals(yours.posterior)}")
    print(ours.posterior["rate"].mean(["chain", "draw"]).round(3).to_series().to_string())
