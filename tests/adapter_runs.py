"""A small run of each sampler, for the checks of zarrtrace.testing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

Values = Mapping[str, np.ndarray[Any, Any]]


class EmceeRun:
    """The ensemble of emcee, in memory and on its backend."""

    draws = 1500
    walkers, dimensions = 10, 3

    def sample(self, path: Path, draws: int) -> None:
        from zarrtrace.adapters.emcee import HDFBackend

        with HDFBackend(path.parent, path.name) as backend:
            done = backend.iteration if backend.initialized else 0
            if draws > done:
                self.run(backend, draws - done)

    def expected(self) -> Values:
        from emcee.backends import Backend

        backend = Backend()
        self.run(backend, self.draws)
        return {"x": backend.get_chain().swapaxes(0, 1)}

    def run(self, backend: Any, steps: int) -> None:
        import emcee

        np.random.seed(12)
        initial = np.random.randn(self.walkers, self.dimensions)
        sampler = emcee.EnsembleSampler(
            self.walkers, self.dimensions, lambda x: -0.5 * np.sum(x**2), backend=backend
        )
        state = backend.get_last_sample() if sampler.iteration else initial
        sampler.run_mcmc(state, steps)
