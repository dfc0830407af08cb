"""A small run of each sampler, for the checks of zarrtrace.testing."""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

Values = Mapping[str, np.ndarray[Any, Any]]


# Compiling, or waiting, takes longer than all else.
@functools.cache
def _expected_of_emcee(run: EmceeRun) -> Values:
    from emcee.backends import Backend

    backend = Backend()
    run.run(backend, run.draws)
    return {"x": backend.get_chain().swapaxes(0, 1)}


@functools.cache
def _expected_of_pymc(run: PyMCRun) -> Values:
    posterior = run.run(run.model(), run.draws)["posterior"]
    return {name: posterior[name].values for name in ("mu", "scale", "theta")}


@functools.cache
def _expected_of_numpyro(run: NumPyroRun) -> Values:
    import jax

    mcmc = run.mcmc(run.draws)
    mcmc.run(jax.random.key(3))
    return {k: np.asarray(v) for k, v in mcmc.get_samples(group_by_chain=True).items()}


class EmceeRun:
    """The ensemble of emcee, in memory and on its backend.

    Its density takes a while, as those of users do: there is time to look at the run and to kill it
    even on a busy machine.
    """

    draws = 500
    walkers, dimensions = 10, 3

    def sample(self, path: Path, draws: int) -> None:
        from zarrtrace.adapters.emcee import HDFBackend

        with HDFBackend(path.parent, path.name) as backend:
            done = backend.iteration if backend.initialized else 0
            if draws > done:
                self.run(backend, draws - done)

    def expected(self) -> Values:
        return _expected_of_emcee(self)

    def run(self, backend: Any, steps: int) -> None:
        import emcee

        np.random.seed(12)
        initial = np.random.randn(self.walkers, self.dimensions)
        sampler = emcee.EnsembleSampler(
            self.walkers, self.dimensions, log_prob, vectorize=True, backend=backend
        )
        state = backend.get_last_sample() if sampler.iteration else initial
        sampler.run_mcmc(state, steps)


def log_prob(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    time.sleep(0.002)
    return -0.5 * np.sum(x**2, axis=1)


class PyMCRun:
    """NUTS of PyMC, two chains; the run is begun by pm.sample and gone on with by resume."""

    draws = 900
    tune = 300

    def sample(self, path: Path, draws: int) -> None:
        import zarrtrace as zt
        from zarrtrace.adapters.pymc import ZarrTrace, resume

        model = self.model()
        try:
            trace = zt.open(path, mode="a")
        except zt.errors.TraceNotFoundError:
            self.run(model, draws, trace=ZarrTrace(path, checkpoint_every=0.2))
            return
        if draws > trace.draws:
            trace.extend(draws - trace.draws)
        resume(path, model, random_seed=5, progressbar=False, compute_convergence_checks=False)

    def expected(self) -> Values:
        return _expected_of_pymc(self)

    def model(self) -> Any:
        import pymc as pm

        with pm.Model() as model:
            mu, scale = pm.Normal("mu"), pm.HalfNormal("scale")
            pm.Normal("theta", mu, scale, shape=3)
        return model

    def compile(self) -> None:
        self.run(self.model(), 2)

    def run(self, model: Any, draws: int, **options: Any) -> Any:
        import pymc as pm

        with model:
            return pm.sample(
                draws, tune=self.tune, chains=2, cores=2, random_seed=5, nuts_sampler="pymc",
                progressbar=False, compute_convergence_checks=False, **options,
            )  # fmt: skip


class NumPyroRun:
    """HMC of NumPyro, two chains in one process; it compiles in a quarter of the time of NUTS."""

    draws = 3000

    def sample(self, path: Path, draws: int) -> None:
        import jax

        from zarrtrace.adapters.numpyro import sample

        sample(self.mcmc(draws), path, jax.random.key(3), draws_per_block=10)

    def expected(self) -> Values:
        return _expected_of_numpyro(self)

    def mcmc(self, draws: int) -> Any:
        import numpyro
        import numpyro.distributions as dist
        from numpyro.infer import HMC, MCMC

        def model() -> None:
            mu = numpyro.sample("mu", dist.Normal(0, 1))
            numpyro.sample("theta", dist.Normal(mu, 2).expand([3]).to_event(1))

        return MCMC(
            HMC(model, trajectory_length=1.0), num_warmup=300, num_samples=draws, num_chains=2,
            chain_method="vectorized", progress_bar=False,
        )  # fmt: skip
