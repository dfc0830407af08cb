"""The eight schools (Rubin 1981): a hierarchical model, each chain in a process of its own.

    y ~ Normal(theta, sigma)           each school's estimate, with its standard error
    theta = mu + tau * theta_tilde     the effect of coaching there
    theta_tilde ~ Normal(0, 1),  mu ~ Normal(0, 5),  tau ~ HalfCauchy(5)

Sampled in (mu, log tau, theta_tilde): non-centred, so that small tau do not make a funnel.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

import zarrtrace as zt
from nuts import NUTS

SCHOOLS = [
    "Choate",
    "Deerfield",
    "Phillips Andover",
    "Phillips Exeter",
    "Hotchkiss",
    "Lawrenceville",
    "St. Paul's",
    "Mt. Hermon",
]
Y = np.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
SIGMA = np.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])
CHECKPOINT_EVERY = 100  # draws
SEED = 20261120
N_PARAMETERS = 2 + len(SCHOOLS)


def constrain(position: np.ndarray) -> dict[str, Any]:
    """Turn a position (mu, log tau, theta_tilde) into what the trace records."""
    mu, tau = position[0], np.exp(position[1])
    return {"mu": mu, "tau": tau, "theta": mu + tau * position[2:]}


def log_density_and_gradient(position: np.ndarray) -> tuple[float, np.ndarray]:
    """Return the log posterior, up to a constant, and its gradient at a position."""
    mu, log_tau = float(position[0]), float(position[1])
    theta_tilde = position[2:]
    # np.exp overflows to infinity, where math.exp would raise.
    tau = float(np.exp(log_tau))
    scaled_tau_squared = (tau / 5) * (tau / 5)
    residual = (Y - mu - tau * theta_tilde) / SIGMA
    score = residual / SIGMA  # the derivative of the log likelihood by theta

    log_density = (
        -mu * mu / 50
        - math.log1p(scaled_tau_squared)
        + log_tau  # the Jacobian of tau = exp(log tau)
        - 0.5 * float(theta_tilde.dot(theta_tilde))
        - 0.5 * float(residual.dot(residual))
    )
    gradient = np.empty(N_PARAMETERS)
    gradient[0] = -mu / 25 + score.sum()
    gradient[1] = (
        1 - 2 * scaled_tau_squared / (1 + scaled_tau_squared) + tau * float(score.dot(theta_tilde))
    )
    gradient[2:] = tau * score - theta_tilde
    return log_density, gradient


def log_likelihood(theta: np.ndarray) -> np.ndarray:
    """Return the log likelihood of each school's estimate."""
    density: np.ndarray = (
        -0.5 * ((Y - theta) / SIGMA) ** 2 - np.log(SIGMA) - 0.5 * math.log(2 * math.pi)
    )
    return density


def create(
    store: Any, tune: int = 1000, draws: int = 1000, chains: int = 4, **options: Any
) -> zt.Trace:
    """Create an empty trace for the model; `options` go to `zarrtrace.create`."""
    return zt.create(
        store,
        chains=chains,
        tune=tune,
        draws=draws,
        posterior={"mu": zt.Var(), "tau": zt.Var(), "theta": zt.Var(dims="school")},
        sample_stats={
            "lp": zt.Var(),
            "energy": zt.Var(),
            "acceptance_rate": zt.Var(),
            "step_size": zt.Var(),
            "tree_depth": zt.Var(dtype="int16"),
            "n_steps": zt.Var(dtype="int32"),
            "diverging": zt.Var(dtype=bool),
            "reached_max_treedepth": zt.Var(dtype=bool),
        },
        log_likelihood={"y": zt.Var(dims="school")},
        coords={"school": SCHOOLS},
        dims={"y": ["school"], "sigma": ["school"]},
        observed_data={"y": Y},
        constant_data={"sigma": SIGMA},
        attrs={"inference_library": "numpy NUTS example"},
        **options,
    )


def start_at_random(rng: np.random.Generator, tune: int) -> NUTS:
    """Return a sampler at a random position, its warmup still ahead."""
    return NUTS(log_density_and_gradient, rng.uniform(-2, 2, N_PARAMETERS), rng, tune)


def chain(index: int, trace: zt.Trace) -> None:
    """Sample one chain; called again after a kill, continue as if nothing had happened."""
    sampler = start_at_random(np.random.default_rng([SEED, index]), trace.tune)
    with trace.writer(index) as writer:
        start, state = writer.resume()
        if state is None:
            # With a checkpoint before the first draw there is always one to go back to.
            writer.checkpoint(sampler.state())
        else:
            sampler.restore(state)
        for i in range(start, trace.tune + trace.draws):
            position, stats = sampler.step()
            parameters = constrain(position)
            writer.record(
                parameters, stats, log_likelihood={"y": log_likelihood(parameters["theta"])}
            )
            if (i + 1) % CHECKPOINT_EVERY == 0:
                writer.checkpoint(sampler.state())


if __name__ == "__main__":
    import arviz as az

    trace = create("eight_schools.zarr", overwrite=True)
    zt.run(chain, trace)
    trace.finish()
    print(az.summary(trace.to_inferencedata()))
