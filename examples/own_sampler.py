"""A sampler of your own, its draws in a trace: random-walk Metropolis."""

import arviz as az
import numpy as np

import zarrtrace as zt

# How many times as dense as water the Earth is, measured 29 times by Henry Cavendish (1798).
y = np.array([5.50, 5.61, 4.88, 5.07, 5.26, 5.55, 5.36, 5.29, 5.58, 5.65, 5.57, 5.53, 5.62, 5.29,
              5.44, 5.34, 5.79, 5.10, 5.27, 5.39, 5.42, 5.47, 5.63, 5.34, 5.46, 5.30, 5.75, 5.68,
              5.85])  # fmt: skip


def log_density(mu: float, log_sigma: float) -> float:
    """Normal measurements, flat priors on mu and log sigma."""
    return float(-len(y) * log_sigma - 0.5 * np.sum((y - mu) ** 2) / np.exp(2 * log_sigma))


trace = zt.create(
    "own_sampler.zarr", chains=4, tune=1000, draws=5000, overwrite=True,
    posterior={"mu": zt.Var(), "sigma": zt.Var()},
    sample_stats={"lp": zt.Var(), "accepted": zt.Var(dtype=bool)},
    observed_data={"y": y},
)  # fmt: skip

for chain in range(trace.chains):
    rng = np.random.default_rng([1798, chain])
    q = np.array([rng.uniform(4, 7), rng.uniform(-3, 0)])
    lp = log_density(*q)
    with trace.writer(chain) as writer:
        for _ in range(trace.tune + trace.draws):
            proposal = q + [0.06, 0.2] * rng.normal(size=2)
            lp_proposal = log_density(*proposal)
            accepted = np.log(rng.uniform()) < lp_proposal - lp
            if accepted:
                q, lp = proposal, lp_proposal
            writer.record({"mu": q[0], "sigma": np.exp(q[1])}, {"lp": lp, "accepted": accepted})

trace.finish()
print(trace)
print(az.summary(trace.to_inferencedata()))
