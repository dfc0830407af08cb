"""Burn-in chosen after looking at the draws, and changed once more."""

import arviz as az
import numpy as np

import zarrtrace as zt


def show(trace: zt.Trace) -> None:
    """Print what the posterior says now."""
    x = trace.posterior["x"]
    rhat = float(az.rhat(trace.posterior)["x"])
    print(f"posterior {x.sizes['draw']} draws: mean {float(x.mean()):.2f}, R-hat {rhat:.2f}\n")


# No tune: nobody knows yet how long the chains need.
trace = zt.create("burn_in.zarr", chains=4, draws=2000, posterior={"x": zt.Var()}, overwrite=True)

# Metropolis on a standard normal, whose mean is 0, from starts far out.
for chain, x in enumerate([-50.0, 50.0, 100.0, 150.0]):
    rng = np.random.default_rng([1953, chain])
    with trace.writer(chain) as writer:
        for _ in range(trace.draws):
            proposal = x + rng.normal()
            if np.log(rng.uniform()) < 0.5 * (x**2 - proposal**2):
                x = proposal
            writer.record({"x": x})

print("mean of x over every 100 draws, a column for each chain")
for start in range(0, 600, 100):
    means = trace.posterior["x"].isel(draw=slice(start, start + 100)).mean("draw").values
    print(f"  from draw {start:3d}" + "".join(f"{mean:9.2f}" for mean in means))

print("\nevery draw")
show(trace)

trace.split_warmup(200)
print("after split_warmup(200), the last two chains still on their way")
show(trace)

trace.split_warmup(500)  # no draw is lost: a smaller n brings them back, 0 all of them
print("after split_warmup(500), all four there")
show(trace)

trace.finish()
print(f"warmup_posterior {trace.warmup_posterior.sizes['draw']} draws, kept for another look")
