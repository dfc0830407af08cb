"""BlackJAX keeps the promises that zarrtrace.testing checks of every adapter."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("blackjax")

from zarrtrace.testing import Check, checks

pytestmark = pytest.mark.once("oldest")


class BlackJAXRun:
    """Random-walk Metropolis of BlackJAX, two chains in one process."""

    draws = 3000
    tune = 200

    def sample(self, path: Path, draws: int) -> None:
        import jax

        from zarrtrace.adapters.blackjax import sample

        step, states = self.kernel()
        sample(
            step, path, jax.random.key(3), states,
            tune=self.tune, draws=draws, draws_per_block=3, progress=False,
        )  # fmt: skip

    def expected(self) -> Mapping[str, np.ndarray[Any, Any]]:
        return _expected(self)

    def kernel(self) -> tuple[Any, Any]:
        """The step, and the states of the chains."""
        import blackjax
        import jax
        import jax.numpy as jnp

        def log_density(position: Any) -> Any:
            return -0.5 * (position["mu"] - 3) ** 2 - jnp.sum((position["z"] - position["mu"]) ** 2)

        kernel = blackjax.rmh(log_density, blackjax.mcmc.random_walk.normal(0.3 * jnp.eye(3)))
        positions = {"mu": np.array([0, 1], "f4"), "z": np.ones((2, 2), "f4")}
        return kernel.step, jax.vmap(kernel.init)(positions)


# Compiling takes longer than the draws.
@functools.cache
def _expected(run: BlackJAXRun) -> Mapping[str, np.ndarray[Any, Any]]:
    """The kernel in a loop of BlackJAX's documentation."""
    import jax

    step, states = run.kernel()

    def step_of_chains(states: Any, number: Any) -> Any:
        keys = jax.random.split(jax.random.fold_in(jax.random.key(3), number), 2)
        states, _ = jax.vmap(step)(keys, states)
        return states, states.position

    numbers = np.arange(run.tune + run.draws)
    _, positions = jax.lax.scan(step_of_chains, states, numbers)
    return {
        name: np.swapaxes(np.asarray(values), 0, 1)[:, run.tune :]
        for name, values in positions.items()
    }


RUN = BlackJAXRun()


@pytest.mark.parametrize("check", checks, ids=lambda check: check.__name__)
def test_blackjax(check: Check, tmp_path: Path) -> None:
    check(RUN, tmp_path / "run.zarr")
