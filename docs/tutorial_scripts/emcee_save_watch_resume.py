"""
emcee: save, watch, resume
==========================

emcee's tutorial of backends saves a chain to HDF5. Here the same sampler saves it to a trace, we
watch it from another process, kill it, and continue it.
"""

# %%
# The run
# -------
#
# This script would be your file ``fit.py``. One import line differs from emcee's tutorial. The
# script begins at the start or where it stopped: ``initial`` is ``None`` if there are steps
# already.

fit = """
import sys

import emcee
import numpy as np
from zarrtrace.adapters import emcee as backends  # was: from emcee import backends


def log_prob(x):
    return -0.5 * np.sum((x / [1.0, 3.0]) ** 2)


backend = backends.HDFBackend("fit.zarr", parameter_names=["mass", "radius"])
sampler = emcee.EnsembleSampler(32, 2, log_prob, backend=backend)
begun = backend.initialized and backend.iteration > 0
initial = None if begun else np.random.default_rng(1).normal(size=(32, 2))
sampler.run_mcmc(initial, int(sys.argv[1]))
"""

# %%
# Save
# ----
#
# Start it in a process of its own, as you would in another terminal. It has a long way to go.

import subprocess
import sys
import time

process = subprocess.Popen([sys.executable, "-c", fit, "100000"])

# %%
# Watch
# -----
#
# The run is the trace ``fit.zarr/mcmc``: walkers are chains. Reading disturbs nobody.

import zarrtrace as zt
from zarrtrace.adapters import emcee as backends

while True:
    time.sleep(0.05)
    try:
        steps = zt.open("fit.zarr/mcmc").recorded.min()
    except zt.errors.TraceNotFoundError:
        continue
    if steps >= 200:
        break

trace = zt.open("fit.zarr/mcmc")
print("status:", trace.status)
print("acceptance:", round(float(trace.get("accepted", draws=slice(-100, None)).mean()), 1))

# %%
# Kill
# ----
#
# The night the cluster went down.

process.kill()
process.wait()

backend = backends.HDFBackend("fit.zarr", read_only=True)
saved = backend.iteration
print(f"at least 200 steps are there: {saved >= 200}")

# %%
# Resume
# ------
#
# The same script again. It continues from the last step, with the random numbers of that step, so
# the chain is the one that an uninterrupted run would have drawn.

subprocess.run([sys.executable, "-c", fit, "700"], check=True)
print(f"steps added: {backend.iteration - saved}")

# %%
# Look
# ----
#
# emcee's methods work as ever, and ArviZ has a variable for each parameter.

print(backend.get_chain(discard=100, flat=True).std(axis=0).round(0))

backends.HDFBackend("fit.zarr", parameter_names=["mass", "radius"]).to_datatree()["posterior"]

# %%

import matplotlib.pyplot as plt

figure, axes = plt.subplots(2, 1, figsize=(8, 4), sharex=True, layout="constrained")
for axis, values, name in zip(axes, backend.get_chain()[:600].T, ["mass", "radius"], strict=True):
    axis.plot(values[:8].T, linewidth=0.5)
    axis.axvline(100, color="black", linestyle="dotted")
    axis.set(ylabel=name)
axes[-1].set(xlabel="step; the dotted line is the burn-in")
plt.show()
