"""Kills a process that runs emcee, again and again, and reads and resumes what it left.

    python tests/adapters/harness_kill_emcee.py --kills 100

One run with gzip and blobs is killed by SIGKILL at a random moment, read, resumed in a new process,
killed again. No store may be unreadable, no step that was reported stored may be missing, and in
the end the chain must be that of a run that nobody killed, bit for bit. A trial is one start of
the run. At the end the harness prints how many of them were killed, and how many ended with lost or
wrong steps, a store that cannot be read, or anything else that is wrong: the first ends it.
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

import emcee
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from outcomes import Outcomes, TrialFailed

from zarrtrace.adapters.emcee import backend as backends

WALKERS, DIMENSIONS = 8, 3

# One process imports everything, and every run that is killed is a fork of it.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["emcee", "xarray", "zarr.storage", "zarrtrace.adapters.emcee"])


def log_prob(x: np.ndarray) -> tuple[float, float]:
    return -0.5 * float(np.sum(x**2)), float(x[0])


def sample(
    backend: emcee.backends.Backend, steps: int, report: Callable[[int], None] | None = None
) -> None:
    """Begin or continue a run up to a number of steps; report the start and each stored step."""
    np.random.seed(12)
    state = np.random.randn(WALKERS, DIMENSIONS)
    sampler = emcee.EnsembleSampler(WALKERS, DIMENSIONS, log_prob, backend=backend)
    if report:
        report(0)
    if sampler.iteration:
        state = backend.get_last_sample()
    for _ in sampler.sample(state, iterations=steps - sampler.iteration):
        if report:
            report(backend.iteration)


def sample_and_report(path: Path, steps: int, connection: Connection) -> None:
    """The run that is killed."""
    sample(backends.HDFBackend(path, compression="gzip"), steps, connection.send)


def kill_once(path: Path, steps: int, after: float) -> tuple[bool, int]:
    """Whether the run was killed before it was done, and the last step it reported as stored."""
    reports, connection = FORKS.Pipe(duplex=False)
    process = FORKS.Process(target=sample_and_report, args=(path, steps, connection))
    process.start()
    connection.close()
    last = 0
    killing = threading.Timer(after, process.kill)
    with suppress(EOFError, OSError):  # nothing more is reported, or half of a message
        reports.recv()
        killing.start()
        while True:
            last = reports.recv()
    process.join()
    killing.cancel()
    if process.exitcode not in (0, -9):
        raise RuntimeError(f"the run ended by itself with {process.exitcode}")
    return process.exitcode == -9, last


def run(directory: Path, kills: int, steps: int, seed: int) -> Outcomes:
    """Kill a running chain often enough, and count what is found."""
    rng = random.Random(seed)
    outcomes = Outcomes()
    reported = 0
    path, number = directory / "0.zarr", 0
    while outcomes.seen["kills"] < kills and not outcomes.ended:
        with outcomes.trial(outcomes.trials):
            killed, last = kill_once(path, steps, after=rng.uniform(0, 0.3))
            outcomes.seen["kills"] += killed
            reported = max(reported, last)
            backend = backends.HDFBackend(path, read_only=True)
            stored = backend.iteration if backend.initialized else 0
            outcomes.seen["steps found"] += stored
            if stored < reported:
                raise TrialFailed("lost", f"{path}: {reported} steps stored, {stored} are there")
            if stored:
                require_whole(backend, stored)
            if not killed:
                require_equal(backend, steps)
                number, reported = number + 1, 0
                path = directory / f"{number}.zarr"
    with outcomes.trial(outcomes.trials):
        sample(backends.HDFBackend(path, compression="gzip"), steps)
        require_equal(backends.HDFBackend(path, read_only=True), steps)
    return outcomes


def require_whole(backend: backends.HDFBackend, steps: int) -> None:
    chain, blobs = backend.get_chain(), backend.get_blobs()
    require(chain.shape == (steps, WALKERS, DIMENSIONS), "the shape of the chain")
    require(np.isfinite(chain).all(), "a step that is not finite")
    require(np.array_equal(chain[..., 0], blobs), "blobs")
    require(np.array_equal(-0.5 * np.sum(chain**2, axis=2), backend.get_log_prob()), "log_prob")
    assert backend.trace.check() == []


def require_equal(backend: backends.HDFBackend, steps: int) -> None:
    undisturbed = emcee.backends.Backend()
    sample(undisturbed, steps)
    for name in ("chain", "log_prob", "blobs"):
        require(np.array_equal(backend.get_value(name), undisturbed.get_value(name)), name)
    require(np.array_equal(backend.accepted, undisturbed.accepted), "accepted")
    require(np.array_equal(backend.random_state[1], undisturbed.random_state[1]), "random_state")


def require(right: bool, what: str) -> None:
    if not right:
        raise TrialFailed("wrong", what)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--steps", type=int, default=2500)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        outcomes = run(Path(directory), given.kills, given.steps, given.seed)
    print(outcomes)
    return outcomes.exit_code


if __name__ == "__main__":
    sys.exit(main())
