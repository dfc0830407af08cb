"""What the adapters cost: emcee's backend step by step, and a whole run of PyMC."""

from __future__ import annotations

import itertools
import logging
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from timing import Row, Run, at_least, at_most, by_turns, forget, median, ratio


def rows(run: Run) -> Iterator[Row]:
    yield from steps_of_emcee(run)
    yield whole_run_of_pymc(run)


def steps_of_emcee(run: Run) -> Iterator[Row]:
    import emcee

    from zarrtrace.adapters.emcee import HDFBackend

    for walkers, dims, most in ((32, 10, 100), (200, 100, 300)):
        steps = run.scaled(1000, 30)
        rng = np.random.default_rng(1)
        random_state = np.random.RandomState(1).get_state()
        states = [
            emcee.State(
                rng.normal(size=(walkers, dims)),
                log_prob=rng.normal(size=walkers),
                random_state=random_state,
            )
            for _ in range(50)
        ]
        accepted = rng.random(walkers) < 0.4

        def save(
            backend: Any,
            count: int,
            shape: tuple[int, int] = (walkers, dims),
            states: list[Any] = states,
            accepted: np.ndarray[Any, Any] = accepted,
        ) -> float:
            """Seconds of a step, the last flush among them."""
            backend.reset(*shape)
            backend.grow(count, None)
            start = time.perf_counter()
            for state in itertools.islice(itertools.cycle(states), count):
                backend.save_step(state, accepted)
            return (time.perf_counter() - start) / count

        def ours(steps: int = steps, save: Callable[..., float] = save) -> float:
            place = run.fresh()
            seconds = save(HDFBackend(place), steps)
            forget(place)
            return seconds

        def theirs(steps: int = steps, save: Callable[..., float] = save) -> float:
            return save(emcee.backends.HDFBackend(str(run.fresh())), max(steps // 10, 1))

        seconds = by_turns(run, ours=ours, emcee=theirs)
        each = {name: median(times) * 1e6 for name, times in seconds.items()}
        what = f"emcee, {walkers} walkers × {dims}, with the state of the random numbers"
        row = at_most(most, what, each["ours"], " µs a step")
        yield replace(row, microseconds=each)
        yield at_least(
            15, what, ratio(seconds, "emcee", "ours"), "× faster than its HDFBackend",
            f"HDFBackend {each['emcee']:,.0f} µs a step",
        )  # fmt: skip


def whole_run_of_pymc(run: Run) -> Row:
    import pymc as pm

    from zarrtrace.adapters.pymc import ZarrTrace

    logging.getLogger("pymc").setLevel(logging.ERROR)
    draws = run.scaled(600, 20)
    with pm.Model() as model:
        for i in range(run.scaled(100, 5)):
            pm.Normal(f"x{i}")
        pm.Normal("vector", shape=100)

    def sample(**options: Any) -> None:
        with model, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pm.sample(
                draws, tune=draws, chains=1, cores=1, random_seed=1, progressbar=False,
                compute_convergence_checks=False, nuts_sampler="pymc", **options,
            )  # fmt: skip

    sample()
    seconds = by_turns(run, ours=lambda: sample(trace=ZarrTrace(run.fresh())), pymc=sample)
    each = {name: median(times) for name, times in seconds.items()}
    return at_most(
        1.3, "PyMC, 101 variables, tuning and draws, end to end", ratio(seconds, "ours", "pymc"),
        "× its trace in memory", f"{each['ours']:.2f} s, in memory {each['pymc']:.2f} s",
    )  # fmt: skip
