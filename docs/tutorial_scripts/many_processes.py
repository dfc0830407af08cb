"""
Many processes
==============

Chains share no lock and need not know of each other, so that any way to start processes will do.
``zt.run`` is the short one.
"""

import numpy as np

import zarrtrace as zt


def chain(index, trace):
    """Record one chain; called again, continue where it stopped."""
    rng = np.random.default_rng([7, index])
    x = 0.0
    with trace.writer(index) as writer:
        start, state = writer.resume()
        if state is not None:
            x, rng.bit_generator.state = state
        for i in range(start, trace.tune + trace.draws):
            x = 0.95 * x + rng.normal()
            writer.record({"x": x})
            if (i + 1) % 500 == 0:
                writer.checkpoint((x, rng.bit_generator.state))


# %%
# A process for each chain
# ------------------------
#
# A trace travels to other processes as its address. ``zt.run`` starts the processes, shows a bar
# for each chain, and returns when all have ended.

trace = zt.create("run.zarr", chains=2, tune=500, draws=2000, posterior={"x": zt.Var()})
zt.run(chain, trace)
print(trace)

# %%
# A chain that fails
# ------------------
#
# One that raises takes no other with it. The error names the chains, the draws they had, and what
# was raised.


def fragile(index, trace):
    """Fail in chain 1, after a while."""
    with trace.writer(index) as writer:
        for i in range(trace.draws):
            if index == 1 and i == 100:
                raise FloatingPointError("overflow in the likelihood")
            writer.record({"x": float(i)})


other = zt.create("fragile.zarr", chains=2, draws=300, posterior={"x": zt.Var()})
try:
    zt.run(fragile, other, progress=False)
except zt.errors.ChainsFailedError as error:
    print(error)
print(other.recorded)

# %%
# You may fix the cause and call ``zt.run`` again, or finish without that chain.

other.finish(chains=0)
print(other.posterior.chain.values, other.posterior.attrs["chains_left_out"])

# %%
# More draws
# ----------
#
# ``extend`` makes room, and ``zt.run`` records what is missing.

trace.extend(1000)
zt.run(chain, trace, progress=False)
print(trace.recorded)

# %%
# Your own processes
# ------------------
#
# Anything that can call ``chain(index, trace)`` will do: ``concurrent.futures``, threads, Dask,
# MPI, or four terminals. Here it is a pool of threads, which suits samplers that release the GIL.

from concurrent.futures import ThreadPoolExecutor

yours = zt.create("yours.zarr", chains=2, tune=500, draws=2000, posterior={"x": zt.Var()})
with ThreadPoolExecutor() as pool:
    list(pool.map(chain, range(2), [yours] * 2))

print("the same draws:", yours.posterior.equals(trace.posterior.isel(draw=slice(2000))))

# %%
# Two writers by mistake
# ----------------------
#
# A chain has one writer. A second process that wants the same chain is refused, and told who has
# it.

import subprocess
import sys

writing = zt.create("busy.zarr", chains=1, draws=10, posterior={"x": zt.Var()})
with writing.writer(0):
    second = "import zarrtrace as zt; zt.open('busy.zarr', mode='a').writer(0)"
    done = subprocess.run([sys.executable, "-c", second], capture_output=True, text=True)
print(done.stderr.splitlines()[-1].split(":")[0])

# %%

import matplotlib.pyplot as plt

plt.figure(figsize=(8, 3))
plt.plot(trace.get("x")[:, :300].T, linewidth=0.6)
plt.xlabel("draw")
plt.ylabel("x, two chains")
plt.show()
