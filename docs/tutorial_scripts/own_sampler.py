"""
A sampler of your own
=====================

What a sampler needs to be killed and to continue, bit for bit: statistics beside the draws, and a
checkpoint now and then. The sampler is random-walk Metropolis that adapts its step.
"""

import numpy as np

import zarrtrace as zt


def log_density(q):
    """A banana: two dimensions, bent."""
    return -0.5 * (q[0] ** 2 + ((q[1] - q[0] ** 2) / 0.5) ** 2)


class Metropolis:
    """Random-walk Metropolis, which scales its step during warmup."""

    def __init__(self, rng, tune):
        self.rng, self.tune = rng, tune
        self.q = rng.normal(size=2)
        self.log_step, self.count = 0.0, 0

    def step(self):
        """Return the next draw and its statistics."""
        proposal = self.q + np.exp(self.log_step) * self.rng.normal(size=2)
        difference = log_density(proposal) - log_density(self.q)
        accepted = np.log(self.rng.uniform()) < difference
        if accepted:
            self.q = proposal
        if self.count < self.tune:
            self.log_step += (accepted - 0.35) / (1 + self.count) ** 0.6
        self.count += 1
        return {"q": self.q}, {"lp": log_density(self.q), "accepted": accepted}


# %%
# The state
# ---------
#
# Everything that the next draw depends on: the position, the step, how many draws there were, and
# the random numbers. Dictionaries of numbers and arrays are stored as they are, without pickle.


def get_state(sampler):
    """Everything that the next draw depends on."""
    return {
        "q": sampler.q,
        "log_step": sampler.log_step,
        "count": sampler.count,
        "rng": sampler.rng.bit_generator.state,
    }


def set_state(sampler, state):
    """Make the sampler what it was."""
    sampler.q, sampler.log_step = state["q"], state["log_step"]
    sampler.count, sampler.rng.bit_generator.state = state["count"], state["rng"]


# %%
# One chain
# ---------
#
# ``resume`` says where to begin: ``(0, None)`` for a new chain, otherwise the last checkpoint with
# the number of draws it belongs to. The argument ``die_at`` is there to show what a kill does.


def chain(index, trace, die_at=None):
    """Record one chain, from the start or from where it stopped."""
    sampler = Metropolis(np.random.default_rng([1953, index]), trace.tune)
    with trace.writer(index) as writer:
        start, state = writer.resume()
        if state is None:
            writer.checkpoint(get_state(sampler))
        else:
            set_state(sampler, state)
        for i in range(start, trace.tune + trace.draws):
            writer.record(*sampler.step())
            if (i + 1) % 250 == 0:
                writer.checkpoint(get_state(sampler))
            if i + 1 == die_at:
                import os

                os.kill(os.getpid(), 9)


# %%
# Run it twice: once in peace, and once with a kill.

definition = {
    "chains": 2,
    "tune": 500,
    "draws": 1500,
    "posterior": {"q": zt.Var(shape=2)},
    "sample_stats": {"lp": zt.Var(), "accepted": zt.Var(dtype=bool)},
}

peaceful = zt.create("peaceful.zarr", **definition)
for index in range(2):
    chain(index, peaceful)

# %%
# In the other run both processes die at draw 1234. ``zt.run`` reports that, and keeps what they
# drew.

killed = zt.create("killed.zarr", **definition)
try:
    zt.run(lambda index, trace: chain(index, trace, die_at=1234), killed, progress=False)
except zt.errors.ChainsFailedError as error:
    print(error)
print(killed.recorded)

# %%
# All 1234 draws are there. Running the chains again returns to the checkpoint at draw 1000, and
# draws the others again.

zt.run(chain, killed, progress=False)
print("recorded:", killed.recorded)
print("bit for bit the peaceful run:", killed.posterior.equals(peaceful.posterior))

# %%
# Statistics
# ----------
#
# They lie in ``sample_stats``. The names that ArviZ knows (``lp``, ``diverging``, ``tree_depth``,
# ``acceptance_rate`` and others) are worth using.

killed.finish()
print("accepted:", round(float(killed.sample_stats["accepted"].mean()), 2))
print("in the warmup:", round(float(killed.warmup_sample_stats["accepted"].mean()), 2))

# %%

import matplotlib.pyplot as plt

x, y = killed.get("q", flatten=True).T
plt.figure(figsize=(5, 4))
plt.scatter(x, y, s=2, alpha=0.4)
plt.xlabel("q[0]")
plt.ylabel("q[1]")
plt.show()

# %%
# For others to use
# -----------------
#
# An adapter that others use is put to the checks of :mod:`zarrtrace.testing`: they kill it,
# interrupt it, read it while it runs, ask for more draws, and compare the result with the
# sampler's own draws. The file ``examples/own_adapter.py`` in the repository is such an adapter
# in full.
