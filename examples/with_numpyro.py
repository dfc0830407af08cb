"""Eight schools in NumPyro: the run survives a kill, and a second call continues it."""

import arviz as az
import jax
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.infer import MCMC, NUTS

from zarrtrace.adapters.numpyro import sample

EFFECT = np.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
ERROR = np.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])
SCHOOLS = ["Choate", "Deerfield", "Phillips Andover", "Phillips Exeter",
           "Hotchkiss", "Lawrenceville", "St. Paul's", "Mt. Hermon"]  # fmt: skip


def eight_schools(error: np.ndarray, effect: np.ndarray | None = None) -> None:
    """Rubin (1981), not centered."""
    mu = numpyro.sample("mu", dist.Normal(0, 5))
    tau = numpyro.sample("tau", dist.HalfCauchy(5))
    with numpyro.plate("school", len(error)):
        z = numpyro.sample("z", dist.Normal(0, 1))
        theta = numpyro.deterministic("theta", mu + tau * z)
        numpyro.sample("effect", dist.Normal(theta, error), obs=effect)


mcmc = MCMC(
    NUTS(eight_schools), num_warmup=1000, num_samples=1000, num_chains=4, chain_method="vectorized"
)

# Instead of mcmc.run(jax.random.key(1981), ERROR, effect=EFFECT):
trace = sample(
    mcmc, "numpyro.zarr", jax.random.key(1981), ERROR, effect=EFFECT, coords={"school": SCHOOLS}
)

print(trace)
print(az.summary(trace.to_inferencedata(), var_names=["mu", "tau", "theta"]))
