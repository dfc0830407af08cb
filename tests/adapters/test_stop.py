"""Each sampler ends the way it ends early when its run is asked to stop, and continues later."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from scripts import environment

import zarrtrace as zt

pytestmark = pytest.mark.long

# Another process asks, once the run has some draws.
ASK = """
import subprocess, sys, threading, time
import zarrtrace as zt

def ask(path, *arguments, after=1):
    def wait_and_ask():
        while True:
            time.sleep(0.05)
            try:
                if zt.open(path).recorded.min() >= after:
                    break
            except zt.errors.TraceNotFoundError:
                pass
        command = [sys.executable, "-m", "zarrtrace", "stop", path, *arguments]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    threading.Thread(target=wait_and_ask, daemon=True).start()

def ask_here(path, **request):
    def wait_and_ask():
        while True:
            time.sleep(0.01)
            try:
                trace = zt.open(path, "a")
                if trace.recorded.min() >= 4:
                    break
            except zt.errors.TraceNotFoundError:
                pass
        trace.request_stop(**request)
    threading.Thread(target=wait_and_ask, daemon=True).start()
"""


def run(code: str, path: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", ASK + textwrap.dedent(code), str(path)],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


PYMC = """
import numpy as np, pymc as pm
from zarrtrace.adapters.pymc import ZarrTrace, resume

path = sys.argv[1]
with pm.Model() as model:
    pm.Normal("x", shape=2)

def sample(store, cores, draws, callback=None):
    step = pm.Metropolis(model=model)
    return pm.sample(draws=draws, tune=20, chains=3, cores=cores, trace=store, step=step,
                     random_seed=3, progressbar=False, compute_convergence_checks=False,
                     callback=callback, model=model)

whole = sample(None, 1, 60).posterior["x"].values
for cores in (2, 1):
    own = ZarrTrace(f"{path}-{cores}")
    def callback(trace, draw):
        if draw.draw_idx == 10 and draw.chain == 0:
            own.trace.request_stop(at=60)
            time.sleep(1.5)  # the processes of the chains look each second
    stopped = sample(own, cores, 10**6, callback)
    assert own.trace.status == "finished", own.trace
    assert stopped.posterior.sizes["draw"] == 40
    assert np.array_equal(stopped.posterior["x"].values, whole[:, :40])
own.trace.extend(20)
with model:
    longer = resume(f"{path}-1", step=pm.Metropolis(), progressbar=False,
                    compute_convergence_checks=False)
assert np.array_equal(longer.posterior["x"].values, whole)

own = ZarrTrace(None)
def callback(trace, draw):
    if draw.draw_idx == 10 and draw.chain == 0:
        own.trace.request_stop(at=30)
in_memory = sample(own, 3, 10**6, callback)
assert np.array_equal(in_memory.posterior["x"].values, whole[:, :10])
"""


def test_pymc_ends_each_chain_at_its_draw_and_draws_the_chains_that_wait(tmp_path: Path) -> None:
    pytest.importorskip("pymc")
    run(PYMC, tmp_path / "run.zarr")


EMCEE = """
import emcee, numpy as np
from zarrtrace.adapters.emcee import HDFBackend

def log_prob(x):
    time.sleep(0.0005)
    return -0.5 * float(np.sum(x**2))

backend = HDFBackend(sys.argv[1])
sampler = emcee.EnsembleSampler(10, 3, log_prob, backend=backend)
ask(backend.path, "--at", "500", after=5)
for state in sampler.sample(np.random.randn(10, 3), iterations=10**6):
    if backend.stop_requested:
        break
assert backend.iteration == 500
try:
    sampler.run_mcmc(state, 5)
except zt.errors.StopRequestedError as error:
    print(error)
assert backend.iteration == 500
zt.open(backend.path, "a").cancel_stop()
ask(backend.path, "--now", after=550)
try:
    sampler.run_mcmc(state, 10**6)
except zt.errors.StopRequestedError as error:
    assert backend.iteration == error.draw >= 550
assert len(sampler.get_chain()) == backend.iteration
"""


@pytest.mark.once("oldest")
def test_emcee_ends_by_break_or_by_an_error_with_every_step_kept(tmp_path: Path) -> None:
    pytest.importorskip("emcee")
    said = run(EMCEE, tmp_path / "runs")
    assert "asked to stop at draw 500, asked by" in said
    assert "all its 500 draws are kept: end the sampler" in said


NUMPYRO = """
import jax, numpyro, numpyro.distributions as dist
from numpyro.infer import MCMC, NUTS
from zarrtrace.adapters.numpyro import sample

def model():
    numpyro.sample("x", dist.Normal())

def mcmc(draws):
    kernel = NUTS(model)
    return MCMC(kernel, num_warmup=20, num_samples=draws, num_chains=2,
                chain_method="vectorized", progress_bar=False)

path, key = sys.argv[1], jax.random.PRNGKey(0)
ask_here(path, at=602)
trace = sample(mcmc(10**7), path, key, draws_per_block=4)
"""

BLACKJAX = """
import blackjax, jax, jax.numpy as jnp
from zarrtrace.adapters.blackjax import sample

kernel = blackjax.normal_random_walk(lambda x: -0.5 * jnp.sum(x**2), jnp.ones(2))
state = jax.vmap(kernel.init)(jnp.zeros((2, 2)))
path, key = sys.argv[1], jax.random.PRNGKey(0)
ask_here(path, now=True)
trace = sample(kernel.step, path, key, state, draws=10**7, draws_per_block=4,
               progress=False)
"""


@pytest.mark.once("newest")
@pytest.mark.parametrize(
    ("name", "code", "at"), [("numpyro", NUMPYRO, [602]), ("blackjax", BLACKJAX, range(4, 10**7))]
)
def test_samplers_of_jax_end_in_the_middle_of_a_block_or_after_it(
    tmp_path: Path, name: str, code: str, at: Sequence[int]
) -> None:
    pytest.importorskip(name)
    run(code, tmp_path / "run.zarr")
    trace = zt.open(tmp_path / "run.zarr")
    assert trace.status == "finished"
    assert trace.recorded.min() == trace.recorded.max()
    assert trace.recorded[0] in at
    assert np.isfinite(trace.get(next(iter(trace.posterior)))).all()
