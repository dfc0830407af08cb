"""Eight schools in BlackJAX: the run survives a kill, and a second call continues it."""

import arviz as az
import blackjax
import jax
import jax.numpy as jnp
import numpy as np

from zarrtrace.adapters.blackjax import sample

EFFECT = np.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
ERROR = np.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])
SCHOOLS = ["Choate", "Deerfield", "Phillips Andover", "Phillips Exeter",
           "Hotchkiss", "Lawrenceville", "St. Paul's", "Mt. Hermon"]  # fmt: skip


def named(position: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """The parameters of the model at a point of the space that is sampled."""
    mu, tau = position["mu"], jnp.exp(position["log_tau"])
    return {"mu": mu, "tau": tau, "theta": mu + tau * position["z"]}


def log_density(position: dict[str, jax.Array]) -> jax.Array:
    """Rubin (1981), not centered; the prior of tau is a half-Cauchy of scale 5."""
    mu, tau, theta = named(position).values()
    log_prior = -0.5 * (mu / 5) ** 2 - jnp.log1p((tau / 5) ** 2) + jnp.log(tau)
    log_prior -= 0.5 * jnp.sum(position["z"] ** 2)
    return log_prior - 0.5 * jnp.sum(((EFFECT - theta) / ERROR) ** 2)


key_start, key_warmup, key = jax.random.split(jax.random.key(1981), 3)
start = jax.random.normal(key_start, (4, 10))
positions = {"mu": start[:, 0], "log_tau": start[:, 1], "z": start[:, 2:]}

warmup = blackjax.window_adaptation(blackjax.nuts, log_density)
(states, parameters), _ = jax.vmap(lambda key, position: warmup.run(key, position, 1000))(
    jax.random.split(key_warmup, 4), positions
)
kernel = blackjax.nuts.build_kernel()

trace = sample(
    lambda key, state, **parameters: kernel(key, state, log_density, **parameters),
    "blackjax.zarr",
    key,
    states,
    draws=1000,
    parameters=parameters,  # each chain has its own step size and mass matrix
    posterior=lambda state: named(state.position),
    dims={"theta": ["school"]},
    coords={"school": SCHOOLS},
)

print(trace)
print(az.summary(trace.to_inferencedata()))
