"""
PyMC, from model to report
==========================

PyMC stores its draws on disk as they come, continues after a kill, and adds draws to a run that is
over. One argument of ``pm.sample`` is new.

The data are how many times as dense as water the Earth is, measured 29 times by Henry Cavendish in
1798.
"""

import logging

import arviz as az
import matplotlib.pyplot as plt
import numpy as np
import pymc as pm

import zarrtrace as zt
from zarrtrace.adapters.pymc import ZarrTrace, resume

logging.getLogger("pymc").setLevel(logging.ERROR)

measured = """
5.50 5.61 4.88 5.07 5.26 5.55 5.36 5.29 5.58 5.65 5.57 5.53 5.62 5.29 5.44 5.34 5.79 5.10 5.27 5.39
5.42 5.47 5.63 5.34 5.46 5.30 5.75 5.68 5.85
"""
y = np.array(measured.split(), dtype=float)

# %%
# The model
# ---------

with pm.Model() as model:
    mu = pm.Normal("mu", 5, 1)
    sigma = pm.HalfNormal("sigma", 1)
    pm.Normal("y", mu, sigma, observed=y)

# %%
# Sample into a trace
# -------------------
#
# ``ZarrTrace`` has the name and the arguments of PyMC's own. Every draw is on disk when it is
# drawn, and with it, now and then, the state of the step methods.

with model:
    pm.sample(
        300,
        tune=300,
        chains=2,
        cores=1,
        random_seed=1798,
        progressbar=False,
        trace=ZarrTrace("density.zarr"),
    )

print(zt.open("density.zarr"))

# %%
# Watch it
# --------
#
# While PyMC samples, open the same path in another notebook or terminal. Everything below works
# there too, on the draws recorded by then.

trace = zt.open("density.zarr")
print(trace.recorded, float(trace.posterior["mu"].mean()))

# %%
# Continue
# --------
#
# ``resume`` continues a run that was killed or interrupted. It also records the draws that
# :meth:`~zarrtrace.Trace.extend` made room for: here 300 more in each chain, after the adaptation
# that was done already.

zt.open("density.zarr", mode="a").extend(300)
data = resume("density.zarr", model, cores=1, progressbar=False)
print(zt.open("density.zarr").recorded)

# %%
# Add predictions
# ---------------
#
# Groups that PyMC computes afterwards go into the same trace.

rng = np.random.default_rng(1798)
draws = zt.open("density.zarr").posterior
mean, sd = draws["mu"].values[..., None], draws["sigma"].values[..., None]
predicted = rng.normal(mean, sd, size=(*draws["mu"].shape, len(y)))
zt.open("density.zarr", mode="a").add_group(
    "posterior_predictive", {"y": (("chain", "draw", "y_dim_0"), predicted)}
)

# %%
# The report
# ----------

az.summary(data, var_names=["mu", "sigma"])

# %%

trace = zt.open("density.zarr")
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3), layout="constrained")
left.plot(trace.get("mu").T, linewidth=0.5)
left.set(xlabel="draw", ylabel="mu")
bins = np.linspace(4.5, 6.5, 40)
replicated = trace.posterior_predictive["y"].values
right.hist(replicated.ravel(), bins, density=True, alpha=0.5, label="predicted")
right.hist(y, bins[::2], density=True, histtype="step", color="black", label="measured")
right.legend()
plt.show()

# %%
# The trace has it all, with the data, the versions and the times, for whoever opens it next year.

print(trace.groups)
print(trace.posterior.attrs["inference_library"], trace.posterior.attrs["created_at"][:4])
