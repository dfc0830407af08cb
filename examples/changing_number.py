"""Draws that vary in size: how often, and when, the rate of some events changed.

Reversible jumps: each step adds a change to those of the current draw, or removes one. The rates
between the changes are integrated out, so that a draw is a list of times, long or short. The trace
takes it as it is, and returns it as a list of arrays, or padded, with its length beside it.
"""

import itertools
import math

import numpy as np

import zarrtrace as zt

YEARS, MOST, TUNE, DRAWS = 100, 20, 500, 5000
events = np.random.default_rng(1).poisson(np.repeat([3.0, 8.0, 1.5], [40, 30, 30]))
total = np.concatenate([[0], np.cumsum(events)])


def log_density(changes: list[int]) -> float:
    """Poisson counts with a rate from Gamma(1, 1/4) for each stretch; few changes are likely."""
    ends = [0, *changes, YEARS]
    value = -4.0 * len(changes)
    for start, stop in itertools.pairwise(ends):
        count = total[stop] - total[start]
        value += math.lgamma(1 + count) - math.log(4) - (1 + count) * math.log(stop - start + 0.25)
    return value


if __name__ == "__main__":
    times = zt.Var(shape=zt.UpTo(MOST), dtype=int, dims="change")
    trace = zt.create(
        "changes.zarr", chains=1, tune=TUNE, draws=DRAWS, posterior={"times": times},
        sample_stats={"lp": zt.Var()}, overwrite=True,
    )  # fmt: skip
    rng = np.random.default_rng(2)
    changes: list[int] = []
    density = log_density(changes)
    with trace.writer(0) as writer:
        for _ in range(TUNE + DRAWS):
            proposed = sorted({*changes} ^ {int(rng.integers(1, YEARS))})
            if len(proposed) <= MOST and rng.exponential() > density - log_density(proposed):
                changes, density = proposed, log_density(proposed)
            writer.record({"times": changes}, {"lp": density})
    trace.finish()

    [draws] = trace.ragged("times")
    print("the first draws:", *(draw.tolist() for draw in draws[:3]))
    posterior = trace.posterior
    number, drawn = np.unique(posterior.times_length, return_counts=True)
    print("changes:", dict(zip(number.tolist(), np.round(drawn / DRAWS, 2).tolist(), strict=True)))
    # Padding is not a time: a change whose number is not below the length is padding.
    real = posterior.times.where(posterior.change < posterior.times_length)
    print("the first after", float(real.isel(change=0).median()), "years")
