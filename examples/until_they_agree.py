"""Chains that sample until a rule of yours says stop: nobody chooses a number of draws."""

import time

import arviz as az
import numpy as np

import zarrtrace as zt


def chain(index: int, trace: zt.Trace) -> None:
    """Metropolis on a standard normal; it never ends."""
    with trace.writer(index) as writer:
        rng = np.random.default_rng([1992, index])
        x = 8.0 * index - 12.0
        while True:
            time.sleep(0.001)  # a model that takes its time
            proposal = x + 2 * rng.normal()
            if np.log(rng.uniform()) < 0.5 * (x**2 - proposal**2):
                x = proposal
            writer.record({"x": x})


def enough(trace: zt.Trace) -> bool:
    """Whether the draws that all chains have so far are worth 500 independent ones."""
    posterior = trace.posterior
    return posterior.sizes["draw"] > 100 and float(az.ess(posterior)["x"]) > 500


if __name__ == "__main__":
    trace = zt.create(
        "until_they_agree.zarr", chains=4, tune=200, draws=None, posterior={"x": zt.Var()},
        overwrite=True,
    )  # fmt: skip
    zt.run(chain, trace, until=enough, progress=False)
    trace.finish()
    print(f"{trace.status} with {trace.posterior.sizes['draw']} draws of each chain")
    print(f"worth 500 independent draws: {enough(trace)}")
