"""PyMC's draws on disk as they come: killed without warning, resumed, and opened in ArviZ."""

import os
import signal
import subprocess
import sys
from typing import Any

import arviz as az
import pymc as pm

import zarrtrace as zt
from zarrtrace.adapters.pymc import ZarrTrace, resume

# The eight schools (Rubin 1981): the effect of coaching, and its standard error, in each.
SCHOOLS = ["Choate", "Deerfield", "Andover", "Exeter", "Hotchkiss", "Lawrence", "St. Paul's",
           "Mt. Hermon"]  # fmt: skip
EFFECTS = [28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0]
ERRORS = [15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0]

with pm.Model(coords={"school": SCHOOLS}) as model:
    mu = pm.Normal("mu", 0, 5)
    tau = pm.HalfNormal("tau", 5)
    z = pm.Normal("z", dims="school")
    theta = pm.Deterministic("theta", mu + tau * z, dims="school")
    pm.Normal("y", theta, ERRORS, observed=EFFECTS, dims="school")


def kill_at_600(trace: Any, draw: Any) -> None:
    """Kill this process when a chain has 600 draws; a machine that fails asks nobody either."""
    if draw.draw_idx == 599:
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__" and "killed" in sys.argv:
    with model:
        trace = ZarrTrace("schools.zarr", checkpoint_every=0.5, overwrite=True)
        pm.sample(
            500, tune=500, chains=2, trace=trace, callback=kill_at_600, random_seed=8,
            progressbar=False,
        )  # fmt: skip

elif __name__ == "__main__":
    died = subprocess.run([sys.executable, __file__, "killed"], stderr=subprocess.DEVNULL)
    print(f"killed by {signal.Signals(-died.returncode).name}")
    print(f"recorded draws: {zt.open('schools.zarr').recorded}")

    data = resume("schools.zarr", model, random_seed=8, progressbar=False)
    print(zt.open("schools.zarr"))
    print(az.summary(data, var_names=["mu", "tau"]))
