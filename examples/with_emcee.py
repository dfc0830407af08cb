"""emcee: one import line changed, killed half way, and gone on with."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys

import emcee
import numpy as np

import zarrtrace as zt
from zarrtrace.adapters.emcee import backend as backends  # was: from emcee import backends

WALKERS, DIMENSIONS, STEPS = 32, 5, 2000


def log_prob(x: np.ndarray) -> float:
    """A normal density, each dimension twice as wide as the one before."""
    return -0.5 * float(np.sum((x / 2.0 ** np.arange(DIMENSIONS)) ** 2))


def main() -> None:
    """Run to the last step: from the start, or from where a run was killed."""
    backend = backends.HDFBackend("ensemble.zarr", parameter_names=["a", "b", "c", "d", "e"])
    sampler = emcee.EnsembleSampler(WALKERS, DIMENSIONS, log_prob, backend=backend)
    if sampler.iteration == 0:
        initial = np.random.default_rng(1).normal(size=(WALKERS, DIMENSIONS))
        for step, _ in enumerate(sampler.sample(initial, iterations=STEPS)):
            if step == 700:
                os.kill(os.getpid(), signal.SIGKILL)  # the night the cluster went down
    print(f"{sampler.iteration} steps are there")
    sampler.run_mcmc(None, STEPS - sampler.iteration)

    print(f"{backend.iteration} steps, acceptance {np.mean(sampler.acceptance_fraction):.2f}")
    print(np.std(backend.get_chain(discard=500, flat=True), axis=0).round(1))

    zt.open("ensemble.zarr/mcmc", mode="a").split_warmup(500)
    print(backend.to_datatree()["posterior"])


if __name__ == "__main__":
    if "--go-on" not in sys.argv:
        shutil.rmtree("ensemble.zarr", ignore_errors=True)
        first = subprocess.run([sys.executable, __file__, "--go-on"])
        print(f"the first run ended with {first.returncode}")
    main()
