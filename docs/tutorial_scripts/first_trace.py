"""
A first trace
=============

Ten minutes: a small sampler, a trace that keeps its draws, and a first look with ArviZ.

The model is the one of ten pumps of a nuclear plant (Gaver and O'Muircheartaigh 1987). Each pump
fails at a rate of its own, and all rates come from one gamma distribution. Its Gibbs sampler takes
three lines.
"""

# %%
# Declare what you store
# ----------------------
#
# A trace is declared before the first draw: how many chains and draws there will be, and the
# variables of each draw. ``zt.Var()`` is one number. A variable with ``dims`` has the shape of the
# labels that ``coords`` gives to these dimensions.

import numpy as np

import zarrtrace as zt

failures = np.array([5, 1, 5, 14, 3, 19, 1, 1, 4, 22])
# In thousands.
hours = np.array([94.3, 15.7, 62.9, 126, 5.24, 31.4, 1.05, 1.05, 2.1, 10.5])

trace = zt.create(
    "pumps.zarr",
    chains=4,
    tune=200,
    draws=1000,
    posterior={"rate": zt.Var(dims="pump"), "beta": zt.Var()},
    coords={"pump": np.arange(1, 11)},
    observed_data={"failures": ("pump", failures)},
    constant_data={"hours": ("pump", hours)},
)
trace

# %%
# Record the draws
# ----------------
#
# Each chain has a writer, and ``record`` takes one draw. When it returns, the draw is safe:
# killing the process now, even by ``kill -9``, would lose nothing.

for chain in range(trace.chains):
    rng = np.random.default_rng([1987, chain])
    beta = rng.uniform(0.1, 10)
    with trace.writer(chain) as writer:
        for _ in range(trace.tune + trace.draws):
            rate = rng.gamma(1.802 + failures, 1 / (hours + beta))
            beta = rng.gamma(0.01 + 1.802 * 10, 1 / (1 + rate.sum()))
            writer.record({"rate": rate, "beta": beta})

trace.recorded

# %%
# Read them
# ---------
#
# Each group is an :class:`xarray.Dataset`, read when you use it. The first 200 draws of each chain
# are the warmup, in a group of their own.

trace.posterior

# %%
# ``get`` returns a NumPy array when that is all you need.

trace.get("rate", flatten=True).mean(axis=0).round(2)

# %%
# Finish the trace
# ----------------
#
# ``finish`` moves the warmup to its groups and cuts the arrays to what was recorded. From then on
# every Zarr reader opens the trace: here it is plain xarray, which knows nothing of zarrtrace.

trace.finish()

import xarray as xr

plain = xr.open_datatree("pumps.zarr", engine="zarr")
print(list(plain.children))
print(float(plain["posterior"]["beta"].mean()))

# %%
# Give it to ArviZ
# ----------------

import arviz as az

az.summary(trace.to_inferencedata(), var_names=["beta", "rate"])

# %%
# And a picture: the draws of ``beta``, chain by chain, and the rate of each pump.

import matplotlib.pyplot as plt

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3), layout="constrained")
left.plot(trace.get("beta").T, linewidth=0.5)
left.set(xlabel="draw", ylabel="beta")
right.boxplot(trace.get("rate", flatten=True), showfliers=False)
right.set(xlabel="pump", ylabel="failures in 1000 hours")
plt.show()

# %%
# Come back to it
# ---------------
#
# The trace is the directory ``pumps.zarr``. Open it again whenever you like, in any process.

print(zt.open("pumps.zarr"))

# %%
# Next: :doc:`many_processes` runs chains side by side, and :doc:`own_sampler` makes a sampler that
# continues after a kill.
