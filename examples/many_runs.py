"""One model with many settings: a folder of runs, listed, read and compared."""

from __future__ import annotations

import math
import shutil
import warnings

import numpy as np

import zarrtrace as zt
from zarrtrace.cli import main as zarrtrace

# How many times as dense as water the Earth is, measured 29 times by Henry Cavendish (1798).
y = np.array([5.50, 5.61, 4.88, 5.07, 5.26, 5.55, 5.36, 5.29, 5.58, 5.65, 5.57, 5.53, 5.62, 5.29,
              5.44, 5.34, 5.79, 5.10, 5.27, 5.39, 5.42, 5.47, 5.63, 5.34, 5.46, 5.30, 5.75, 5.68,
              5.85])  # fmt: skip

SEED, STEP = 1798, np.array([0.06, 0.2])


def log_density(nu: float, mu: float, log_sigma: float) -> np.ndarray:
    """The log density of each measurement: Student's t with `nu` degrees of freedom."""
    constant = math.lgamma((nu + 1) / 2) - math.lgamma(nu / 2) - math.log(nu * math.pi) / 2
    z = (y - mu) / np.exp(log_sigma)
    density: np.ndarray = constant - log_sigma - (nu + 1) / 2 * np.log1p(z**2 / nu)
    return density


def sample(nu: float) -> None:
    """Four chains of random-walk Metropolis, flat priors on mu and log sigma."""
    trace = zt.folder.create(
        "cavendish", f"nu={nu:g}", settings={"nu": nu, "step": STEP}, seed=SEED, name="student",
        chains=4, tune=500, draws=1500, posterior={"mu": zt.Var(), "sigma": zt.Var()},
        log_likelihood={"y": zt.Var(dims="measurement", shape=len(y))},
    )  # fmt: skip
    for chain in range(trace.chains):
        rng = np.random.default_rng([SEED, chain])
        q = np.array([rng.uniform(4, 7), rng.uniform(-3, 0)])
        each = log_density(nu, *q)
        with trace.writer(chain) as writer:
            for _ in range(trace.tune + trace.draws):
                proposal = q + STEP * rng.normal(size=2)
                proposed = log_density(nu, *proposal)
                if np.log(rng.uniform()) < proposed.sum() - each.sum():
                    q, each = proposal, proposed
                writer.record({"mu": q[0], "sigma": np.exp(q[1])}, log_likelihood={"y": each})
    trace.finish()


shutil.rmtree("cavendish", ignore_errors=True)
for nu in (1, 4, 16, 64):
    sample(nu)

zarrtrace(["ls", "cavendish"])
every = zt.folder.open("cavendish")
print(every.to_dataframe()[["settings.nu", "worst_rhat"]])
for name, mu in every.where(lambda run: run.settings["nu"] > 1).get("mu", flatten=True).items():
    print(f"{name:<6} mean {mu.mean():.3f}, sd {mu.std():.3f}")
print(every.table("provenance")[["run", "seed", "python"]].head(2))
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # ArviZ 0.23 with pandas 3.1
    print(every.compare().iloc[:, :3])
