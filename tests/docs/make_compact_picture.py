"""Draw the size of three traces against the error to which they are rounded. Not a test.

python tests/docs/make_compact_picture.py
"""

from __future__ import annotations

from pathlib import Path

import emcee
import matplotlib.pyplot as plt
import numpy as np
import pymc as pm

import zarrtrace as zt

PICTURE = Path(__file__).parents[2] / "docs/pictures/compact.svg"
COLOURS = ("#2a6fdb", "#e0a458", "#c8553d")
EXPONENTS = range(10)


def main() -> None:
    plt.switch_backend("agg")
    plt.rcParams.update({"svg.hashsalt": "zarrtrace", "svg.fonttype": "none"})
    figure, axis = plt.subplots(figsize=(8, 4), layout="constrained")
    runs = {
        "schools, PyMC (poor: 25 effective draws)": schools(),
        "regression of 20, PyMC": regression(),
        "32 walkers × 5, emcee": ensemble(),
    }
    for colour, (name, draws) in zip(COLOURS, runs.items(), strict=True):
        sizes = [bytes_per_number(draws, 2.0**-exponent) for exponent in EXPONENTS]
        print(name, *(f"{after:.2f}" for _, after in sizes), f"of {sizes[0][0]:.2f}")
        axis.plot(EXPONENTS, [after for _, after in sizes], "o-", color=colour, label=name)
        axis.axhline(sizes[0][0], color=colour, linestyle=":", linewidth=1)
    axis.axvline(4, color="#b8bec7", zorder=0)
    axis.annotate("the default", (4.1, 0.3))
    axis.annotate("dotted: as recorded", (0, 7.4))
    axis.set_xticks(list(EXPONENTS), ["1", *(f"1/{2**exponent}" for exponent in EXPONENTS[1:])])
    axis.set_xlabel("error: the largest rounding as a part of the smallest Monte Carlo error")
    axis.set_ylabel("bytes for a number")
    axis.set_ylim(0, 8)
    axis.legend(frameon=False, loc="center right", bbox_to_anchor=(1, 0.52))
    axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(PICTURE, metadata={"Date": None})


def bytes_per_number(draws: dict[str, np.ndarray], error: float) -> tuple[float, float]:
    """Bytes for a number in the trace before and after it is rounded."""
    chains, count = next(iter(draws.values())).shape[:2]
    definition = {name: zt.Var(shape=values.shape[2:]) for name, values in draws.items()}
    trace = zt.create(None, chains=chains, draws=count, posterior=definition)
    for chain in range(chains):
        with trace.writer(chain) as writer:
            writer.record_block({name: values[chain] for name, values in draws.items()})
    trace.finish()
    table = trace.compact(error, dry_run=True, force=True, progress=False)
    numbers = sum(values.size for values in draws.values())
    return table.before.sum() / numbers, table.after.sum() / numbers


def schools() -> dict[str, np.ndarray]:
    effects = np.array([28, 8, -3, 7, -1, 1, 18, 12.0])
    errors = np.array([15, 10, 16, 11, 9, 11, 10, 18.0])
    with pm.Model():
        mu, tau = pm.Normal("mu", 0, 5), pm.HalfCauchy("tau", 5)
        theta = pm.Normal("theta", mu, tau, shape=8)
        pm.Normal("y", theta, errors, observed=effects)
        return sample(1000)


def regression() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    design = rng.normal(size=(200, 20))
    outcome = design @ rng.normal(size=20) + rng.normal(size=200)
    with pm.Model():
        slope, noise = pm.Normal("b", 0, 1, shape=20), pm.HalfNormal("sigma", 1)
        pm.Normal("y", design @ slope, noise, observed=outcome)
        return sample(500)


def sample(tune: int) -> dict[str, np.ndarray]:
    """Draws of the model that is open, without variables that PyMC has added."""
    found = pm.sample(
        1000, tune=tune, chains=4, cores=1, random_seed=1, progressbar=False,
        compute_convergence_checks=False,
    )  # fmt: skip
    return {str(name): values.values for name, values in found["posterior"].items()}


def ensemble() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    sampler = emcee.EnsembleSampler(32, 5, lambda q: -0.5 * np.sum(q**2 / np.arange(1, 6)))
    sampler.random_state = np.random.RandomState(1).get_state()
    sampler.run_mcmc(rng.normal(size=(32, 5)), 2000)
    return {"x": sampler.get_chain(discard=500).transpose(1, 0, 2)}


if __name__ == "__main__":
    main()
