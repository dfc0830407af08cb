"""jexplore: one import line changed, killed after two epochs, and gone on with. Python 3.13."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys

import jax
import jax.numpy as jnp
from jexplore.sampling.mh import SamplingMH

import zarrtrace as zt
from zarrtrace.adapters.jexplore import DefaultBackend  # was: from jexplore.backends.default

WALKERS, TEMPERATURES, EPOCHS = 8, [1.0, 4.0], 3

sampling = SamplingMH(
    WALKERS,
    jnp.array(TEMPERATURES),
    loglik=lambda p: -0.5 * jnp.sum((p - 3) ** 2, axis=-1),
    logprior=lambda p: jnp.zeros(p.shape[:-1]),
    dim=2,
)


def main() -> None:
    """Run to the last epoch: from the start, or from where a run was killed."""
    backend = DefaultBackend(outdir="explored", resume=True, parameter_names=["a", "b"])
    sampler = sampling.get_sampler(backend=backend)
    if backend.epochs:
        epoch = backend.load().complete(sampling)
    else:
        start = jax.random.normal(jax.random.PRNGKey(0), (WALKERS * len(TEMPERATURES), 2))
        epoch = sampling.get_epoch(start)
    print(f"{backend.epochs} epochs are there")
    while backend.epochs < EPOCHS:
        if backend.epochs == 2 and "--go-on" in sys.argv:
            os.kill(os.getpid(), signal.SIGKILL)  # the night the cluster went down
        epoch = sampler.run(epoch, niters=500, seed=backend.epochs)

    backend.set_burn(500)
    cold = slice(None, None, len(TEMPERATURES))
    samples = backend.get_samples(thin=5, mask=cold, flatten=True)
    assert samples is not None
    mean, sd = samples["p"].mean(axis=0), samples["p"].std(axis=0)
    print(f"{len(samples['p'])} draws, mean {mean.round(1)}, standard deviation {sd.round(1)}")
    for name, stats in backend.get_stats().items():
        print(f"{name}: accepted {stats['stats'].mean(axis=1).round()} of {stats['counts']}")
    backend.close()

    trace = zt.open("explored/epochs.zarr")
    print(trace)
    print(trace.segments[-1].posterior["p"].isel(chain=cold).mean(["chain", "draw"]))


if __name__ == "__main__":
    if "--go-on" not in sys.argv:
        shutil.rmtree("explored", ignore_errors=True)
        first = subprocess.run([sys.executable, __file__, "--go-on"])
        print(f"the first run ended with {first.returncode}")
    main()
