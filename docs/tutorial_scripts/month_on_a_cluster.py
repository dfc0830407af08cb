"""
A month on a cluster
====================

A long run sees everything: tasks are preempted, nodes die, somebody wants to know how far it is,
and in the end a thousand more draws are needed. This is such a month, in a few seconds. Local
processes stand for Slurm's tasks; the script they run is the one you would submit.
"""

# %%
# The script
# ----------
#
# Every task of the job array runs the same file. ``if_exists="open"`` lets one task make the
# trace and the others open it. ``patience=90`` waits for a writer on a lost node, which counts as
# dead when it has been silent for 60 s.

job = """
import os

import numpy as np
import zarrtrace as zt

index = int(os.environ["SLURM_ARRAY_TASK_ID"])
trace = zt.create(
    "month.zarr", chains=2, tune=200, draws=1500, posterior={"x": zt.Var(shape=3)}, if_exists="open"
)
rng = np.random.default_rng([2026, index])
x = rng.normal(size=3) * 10
with trace.writer(index, patience=90) as writer:
    start, state = writer.resume()
    if state is None:
        writer.checkpoint((x, rng.bit_generator.state))
    else:
        x, rng.bit_generator.state = state
    for i in range(start, trace.tune + trace.draws):
        x = 0.9 * x + rng.normal(size=3)
        writer.record({"x": x})
        if (i + 1) % 100 == 0:
            writer.checkpoint((x, rng.bit_generator.state))
        if os.environ.get("SLOW"):
            import time

            time.sleep(0.002)
"""

# %%
# With Slurm, ``sbatch --array=0-1 --requeue job.sh`` submits it. Here two processes run it.

import os
import subprocess
import sys
import time

import zarrtrace as zt


def submit(**environment):
    """Start the two tasks of the job."""
    return [
        subprocess.Popen(
            [sys.executable, "-c", job],
            env={**os.environ, "SLURM_ARRAY_TASK_ID": str(index), **environment},
        )
        for index in range(2)
    ]


tasks = submit(SLOW="yes")

# %%
# The first week: how far is it?
# ------------------------------
#
# On the login node ``zarrtrace info month.zarr`` shows it, and so does Python.


def wait_for(draws):
    """Look at the trace until every chain has that many draws."""
    while True:
        time.sleep(0.1)
        try:
            trace = zt.open("month.zarr")
            if trace.recorded.min() >= draws:
                return trace
        except zt.errors.TraceNotFoundError:
            pass  # The first task is not there yet.


trace = wait_for(draws=300)
print(trace.status)
print(trace.posterior["x"].mean(["chain", "draw"]).shape)

# %%
# The second week: preempted
# --------------------------
#
# Both tasks are killed without a warning.

for task in tasks:
    task.kill()
    task.wait()

trace = zt.open("month.zarr")
print(trace.status, "with at least 300 draws:", bool(trace.recorded.min() >= 300))

# %%
# They start again on other nodes. Each returns to its last checkpoint.

for task in submit():
    assert task.wait() == 0

trace = zt.open("month.zarr")
print(trace.status, trace.recorded)

# %%
# The third week: the burn-in was too short
# -----------------------------------------
#
# The chains began far out. Take more of their first draws for warmup; nothing is lost, and any
# number may be chosen later.

import matplotlib.pyplot as plt

first = trace.get("x", group="warmup_posterior")[:, :, 0]
plt.figure(figsize=(8, 3))
plt.plot(first[:, :100].T)
plt.xlabel("draw of the warmup")
plt.ylabel("x[0]")
plt.show()

zt.open("month.zarr", mode="a").set_burn_in(400)
print(dict(zt.open("month.zarr").posterior.sizes))

# %%
# The fourth week: a thousand more
# --------------------------------
#
# ``extend`` makes room. ``if_exists="open"`` opens a trace only if it is the one that the script
# asks for, so the script's ``draws=1500`` becomes 2500 too. Then the job is submitted once more.

zt.open("month.zarr", mode="a").extend(1000)
job = job.replace("draws=1500", "draws=2500")
for task in submit():
    assert task.wait() == 0
print(zt.open("month.zarr").recorded)

# %%
# The end
# -------
#
# ``zarrtrace finish month.zarr`` in the shell, or:

zt.open("month.zarr", mode="a").finish()

import arviz as az

az.summary(zt.open("month.zarr").to_inferencedata())

# %%
# Copy it home with ``rsync -r``, or give others the path: any Zarr reader opens it.
