"""An adapter for a sampler of one's own, from its five lines for users to the checks it passes."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import zarrtrace as zt
from zarrtrace.testing import checks

Vector = np.ndarray[Any, np.dtype[np.float64]]


# The sampler, as somebody has written it: it knows nothing of zarrtrace.


@dataclass
class Walk:
    """A random walk on a normal density, with a step size that adapts during warmup."""

    position: Vector
    random: np.random.Generator
    step_size: float = 1.0

    def step(self, adapting: bool) -> bool:
        """Move, or stay; True for a move."""
        proposal = self.position + self.step_size * self.random.normal(size=self.position.size)
        change = 0.5 * (np.sum(self.position**2) - np.sum(proposal**2))
        accepted = bool(np.log(self.random.uniform()) < change)
        if accepted:
            self.position = proposal
        if adapting:
            self.step_size *= np.exp(0.1 * (accepted - 0.3))
        return accepted


def begin(seed: int, chain: int, dimensions: int) -> Walk:
    """The sampler of one chain before its first step."""
    random = np.random.default_rng([seed, chain])
    return Walk(random.normal(size=dimensions), random)


# The adapter: what its users call.


def sample(
    path: str | Path, *, dimensions: int, seed: int, chains: int, tune: int, draws: int
) -> zt.Trace:
    """Sample into the trace at `path`, or continue it after a kill, or for more draws."""
    try:
        trace = zt.open(path, mode="a")
    except zt.errors.TraceNotFoundError:
        trace = zt.create(
            path,
            chains=chains,
            tune=tune,
            draws=draws,
            posterior={"x": zt.Var(shape=dimensions)},
            sample_stats={"accepted": zt.Var(dtype=bool), "step_size": zt.Var()},
            attrs={"inference_library": "walk"},
        )
    if draws > trace.draws:
        trace.extend(draws - trace.draws)
    for chain in range(chains):
        _record(trace, chain, begin(seed, chain, dimensions))
    return trace


def _record(trace: zt.Trace, chain: int, walk: Walk) -> None:
    with trace.writer(chain) as writer:
        start, state = writer.resume()
        if state is not None:
            walk.position, walk.step_size = state["position"], state["step_size"]
            walk.random.bit_generator.state = state["random"]
        for i in range(start, trace.tune + trace.draws):
            accepted = walk.step(adapting=i < trace.tune)
            writer.record({"x": walk.position}, {"accepted": accepted, "step_size": walk.step_size})
            # Small ones cost some 30 µs; the run continues from the last.
            writer.checkpoint(
                {
                    "position": walk.position,
                    "step_size": walk.step_size,
                    "random": walk.random.bit_generator.state,
                }
            )


# The checks: the same run by other means, and the promises of every adapter.


@dataclass
class SmallRun:
    """A small run for zarrtrace.testing."""

    draws: int = 4000
    options: dict[str, Any] = field(
        default_factory=lambda: {"dimensions": 2, "seed": 3, "chains": 2, "tune": 500}
    )

    def sample(self, path: Path, draws: int) -> None:
        """Through the adapter."""
        sample(path, draws=draws, **self.options)

    def expected(self) -> dict[str, Vector]:
        """Without it."""
        chains = []
        for chain in range(self.options["chains"]):
            walk = begin(self.options["seed"], chain, self.options["dimensions"])
            for _ in range(self.options["tune"]):
                walk.step(adapting=True)
            positions = []
            for _ in range(self.draws):
                walk.step(adapting=False)
                positions.append(walk.position)
            chains.append(positions)
        return {"x": np.array(chains)}


def main() -> None:
    """Put the adapter to all checks."""
    with tempfile.TemporaryDirectory() as directory:
        for number, check in enumerate(checks):
            check(SmallRun(), Path(directory) / f"{number}.zarr")
            print(check.__name__.removeprefix("check_").replace("_", " "))


if __name__ == "__main__":
    main()
