"""The shortest sampler of one's own: Metropolis, with every draw on disk as it is drawn."""

import arviz as az
import numpy as np

import zarrtrace as zt

# How many times as dense as water the Earth is, measured by Henry Cavendish (1798).
y = np.array([5.50, 5.61, 4.88, 5.07, 5.26, 5.55, 5.36, 5.29, 5.58, 5.65])


def log_density(mu: float) -> float:
    """Normal measurements with a standard deviation of 0.25, a flat prior."""
    return float(-0.5 * np.sum((y - mu) ** 2) / 0.25**2)


trace = zt.create(
    "own_sampler.zarr", chains=4, tune=200, draws=2000, posterior={"mu": 0.0}, overwrite=True
)

for chain in range(trace.chains):
    rng = np.random.default_rng([1798, chain])
    mu = rng.uniform(4, 7)
    with trace.writer(chain) as writer:
        for _ in range(trace.tune + trace.draws):
            proposal = mu + 0.2 * rng.normal()
            if np.log(rng.uniform()) < log_density(proposal) - log_density(mu):
                mu = proposal
            writer.record({"mu": mu})  # when this returns, kill -9 cannot lose the draw

trace.finish()
print(trace)
print(az.summary(trace.to_inferencedata()))
