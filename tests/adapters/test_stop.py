"""Each sampler ends the way it ends early when its run is asked to stop, and continues later."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scripts import environment

import zarrtrace as zt

pytestmark = pytest.mark.long

ASK = """
import subprocess, sys, time
import zarrtrace as zt

def asking(path, **request):
    asked = []
    def ask(*values):
        try:
            if not asked and zt.open(path).recorded.min() >= 4:
                asked.append(zt.open(path, "a").request_stop(**request))
        except zt.errors.TraceNotFoundError:
            pass
    return ask
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


# PyMC's chains wait for each other's callbacks, so at the first one no chain has drawn much. Their
# processes look each second, and none of them draws its 25th draw before it knows of the request.
ASK_AT_THE_FIRST_DRAW = """
def asking_first(own, at):
    asked = []
    def callback(trace, draw):
        if not asked:
            asked.append(own.trace.request_stop(at=at))
    return callback

def waiting(step):
    original, points = step.step, []
    def wait_and_step(point):
        from zarrtrace.recording.exit import open_writers
        points.append(point)
        while len(points) == 25 and any(writer.total > 10**6 for writer in open_writers()):
            time.sleep(0.01)
        return original(point)
    step.step = wait_and_step
    return step
"""

PYMC = """
import numpy as np, pymc as pm
from zarrtrace.adapters.pymc import ZarrTrace, resume

path = sys.argv[1]
with pm.Model() as model:
    pm.Normal("x", shape=2)

def sample(store, cores, draws, callback=None):
    step = waiting(pm.Metropolis(model=model))
    return pm.sample(draws=draws, tune=20, chains=3, cores=cores, trace=store, step=step,
                     random_seed=3, progressbar=False, compute_convergence_checks=False,
                     callback=callback, model=model)

whole = sample(None, 1, 60).posterior["x"].values
for cores in (2, 1):
    own = ZarrTrace(f"{path}-{cores}")
    stopped = sample(own, cores, 10**6, asking_first(own, 60))
    assert own.trace.status == "finished", own.trace
    assert stopped.posterior.sizes["draw"] == 40
    assert np.array_equal(stopped.posterior["x"].values, whole[:, :40])
own.trace.extend(20)
with model:
    longer = resume(f"{path}-1", step=pm.Metropolis(), progressbar=False,
                    compute_convergence_checks=False)
assert np.array_equal(longer.posterior["x"].values, whole)

own = ZarrTrace(None)
in_memory = sample(own, 3, 10**6, asking_first(own, 30))
assert np.array_equal(in_memory.posterior["x"].values, whole[:, :10])
"""


def test_pymc_ends_each_chain_at_its_draw_and_draws_the_chains_that_wait(tmp_path: Path) -> None:
    pytest.importorskip("pymc")
    run(ASK_AT_THE_FIRST_DRAW + PYMC, tmp_path / "run.zarr")


OTHER_PYMC = """
import pymc as pm, pymc.sampling.parallel as parallel
from zarrtrace.adapters.pymc import ZarrTrace

def link(worker):  # `worker_that_calls` finds no `self` in its frame
    worker._zarr_chain.link_stepper(worker._step_method)

parallel._Process._link_step_to_zarrchain = link
own = ZarrTrace(sys.argv[1])
try:
    with pm.Model():
        pm.Normal("x")
        pm.sample(draws=10**6, tune=20, chains=2, cores=2, trace=own, step=waiting(pm.Metropolis()),
                  progressbar=False, callback=asking_first(own, 60))
except parallel.ParallelSamplingError as error:
    print(error)
assert own.trace.recorded.max() == 60
"""


@pytest.mark.once("newest")
def test_a_pymc_that_has_changed_ends_with_an_error_and_keeps_the_draws(tmp_path: Path) -> None:
    pytest.importorskip("pymc")
    said = run(ASK_AT_THE_FIRST_DRAW + OTHER_PYMC, tmp_path / "run.zarr")
    assert "the run was asked to stop at draw 60, asked by" in said
    assert "all its 60 draws are kept" in said


# Each request comes while a step is made.
EMCEE = """
import emcee, numpy as np
from zarrtrace.adapters.emcee import HDFBackend

requests = {}

def log_prob(x):
    ask = requests.pop(backend.iteration, None)
    if ask is not None:
        ask()
    return -0.5 * float(np.sum(x**2))

def run_python(*arguments):
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)

def ask_from_another_process():
    run_python("-m", "zarrtrace", "stop", backend.path, "--at", "20")
    while backend._open_run().writer.total != 20:
        time.sleep(0.05)

def ask_late():
    zt.open(backend.path, "a").request_stop(at=10)

def ask_now():
    zt.open(backend.path, "a").request_stop(now=True)

def sample(state):
    for state in sampler.sample(state, iterations=1000):
        if backend.stop_requested:
            return state

def end_run_mcmc():
    try:
        sampler.run_mcmc(state, 1000)
    except zt.errors.StopRequestedError as error:
        print(error)
        return error.draw, backend.iteration

backend = HDFBackend(sys.argv[1])
sampler = emcee.EnsembleSampler(10, 3, log_prob, backend=backend)
requests[5] = ask_from_another_process
state = sample(np.random.randn(10, 3))
assert backend.iteration == 20
# Another process may record the run now.
run_python("-c", "import sys, zarrtrace as zt; zt.open(sys.argv[1], 'a').writer(range(10))",
           backend.path)
assert end_run_mcmc() == (20, 20)
for number, ask in {30: ask_late, 40: ask_now}.items():
    zt.open(backend.path, "a").cancel_stop()
    requests[number] = ask
    state = sample(state)
    assert backend.iteration == number
zt.open(backend.path, "a").cancel_stop()
requests[50] = ask_now
assert end_run_mcmc() == (50, 50)
assert len(sampler.get_chain()) == 50
"""


@pytest.mark.once("oldest")
def test_emcee_ends_by_break_or_by_an_error_with_every_step_kept(tmp_path: Path) -> None:
    pytest.importorskip("emcee")
    said = run(EMCEE, tmp_path / "runs")
    assert "asked to stop at draw 20, asked by" in said
    assert "all its 20 draws are kept: end the sampler" in said


# The request comes while the block of the draws 4 to 7 is computed.
NUMPYRO = """
import jax, numpyro, numpyro.distributions as dist
from numpyro.infer import HMC, MCMC
from zarrtrace.adapters.numpyro import sample

def record(path, ask):
    def model():
        jax.debug.callback(ask, numpyro.sample("x", dist.Normal()))

    mcmc = MCMC(HMC(model, num_steps=2), num_warmup=20, num_samples=10**7, num_chains=2,
                chain_method="vectorized", progress_bar=False)
    sample(mcmc, path, jax.random.PRNGKey(0), draws_per_block=4)
"""

BLACKJAX = """
import blackjax, jax, jax.numpy as jnp
from zarrtrace.adapters.blackjax import sample

def record(path, ask):
    def log_density(x):
        jax.debug.callback(ask, x)
        return -0.5 * jnp.sum(x**2)

    kernel = blackjax.normal_random_walk(log_density, jnp.ones(2))
    state = jax.vmap(kernel.init)(jnp.zeros((2, 2)))
    sample(kernel.step, path, jax.random.PRNGKey(0), state, draws=10**7, draws_per_block=4,
           progress=False)
"""


# One process records the runs of a sampler, since it takes seconds to import.
RECORD_EACH = """
for number, request in enumerate(REQUESTS):
    path = f"{sys.argv[1]}-{number}"
    record(path, asking(path, **request))
"""


@pytest.mark.once("newest")
@pytest.mark.parametrize(
    ("name", "code", "requests"),
    [
        ("numpyro", NUMPYRO, [({"at": 10}, 10), ({"at": 2}, 4)]),
        ("blackjax", BLACKJAX, [({"at": 6}, 8), ({"now": True}, 4)]),
    ],
)
def test_samplers_of_jax_end_with_the_block_that_has_the_draw(
    tmp_path: Path, name: str, code: str, requests: list[tuple[dict[str, Any], int]]
) -> None:
    pytest.importorskip(name)
    asked = repr([request for request, _ in requests])
    run(code + RECORD_EACH.replace("REQUESTS", asked), tmp_path / "run.zarr")
    for number, (_, draws) in enumerate(requests):
        trace = zt.open(f"{tmp_path / 'run.zarr'}-{number}")
        assert trace.status == "finished"
        assert trace.recorded.tolist() == [draws, draws]
        assert np.isfinite(trace.get(next(iter(trace.posterior)))).all()
