"""Every adapter keeps the promises that zarrtrace.testing checks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import adapter_runs
import numpy as np
import pytest

import zarrtrace as zt
from zarrtrace.testing import (
    Adapter,
    Check,
    check_a_killed_run_goes_on,
    check_an_interrupted_run_keeps_its_draws,
    checks,
)

RUNS = {
    "emcee": adapter_runs.EmceeRun(),
    "numpyro": adapter_runs.NumPyroRun(),
    "pymc": adapter_runs.PyMCRun(),
}


# Each Python has another release line of PyMC: `test_pymc.py` and `test_pymc_resume.py` compare the
# draws, and kill, continue and extend runs, on both. `test_numpyro.py` does so on the newest.
PYTHONS = {"emcee": "oldest", "numpyro": "oldest", "pymc": "newest"}


def cases() -> Iterator[Any]:
    for system, python in PYTHONS.items():
        for check in checks:
            mark = pytest.mark.once(python)
            yield pytest.param(system, check, marks=mark, id=f"{system}-{check.__name__}")


@pytest.mark.parametrize(("system", "check"), list(cases()))
def test_the_adapter(
    system: str, check: Check, compiled_before: Callable[..., None], tmp_path: Path
) -> None:
    pytest.importorskip(system)
    run: Adapter = RUNS[system]
    if isinstance(run, adapter_runs.PyMCRun):
        compiled_before(adapter_runs.PyMCRun.compile, run)
    check(run, tmp_path / "run.zarr")


class Forgetful(adapter_runs.EmceeRun):
    """Begins again where it should continue."""

    def sample(self, path: Path, draws: int) -> None:
        from zarrtrace.adapters.emcee import HDFBackend

        with HDFBackend(path.parent, path.name) as backend:
            backend.reset(self.walkers, self.dimensions)
            self.run(backend, draws + 1)


@pytest.mark.once("newest")
def test_the_checks_find_an_adapter_that_does_not_keep_them(tmp_path: Path) -> None:
    pytest.importorskip("emcee")
    failed = []
    for number, check in enumerate(checks[:2]):
        try:
            check(Forgetful(), tmp_path / f"{number}.zarr")
        except AssertionError:
            failed.append(check.__name__)
    assert failed == ["check_draws_are_the_samplers_own"]
    with pytest.raises(AssertionError, match="251 draws, not 250"):
        checks[-1](Forgetful(), tmp_path / "more.zarr")


class Hasty:
    """Draws everything at once at the paths of the first attempts."""

    draws = 120

    def __init__(self, *attempts: str) -> None:
        self.attempts = attempts

    def sample(self, path: Path, draws: int) -> None:
        trace = zt.create(path, chains=1, draws=draws, posterior={"mu": 0.0}, if_exists="open")
        with trace.writer(0) as writer:
            start, _ = writer.resume()
            values = self.expected()["mu"][0, start:draws]
            if path.name.startswith(self.attempts):
                writer.record_block({"mu": values})
                return
            for mu in values:
                time.sleep(0.01)
                writer.record({"mu": mu})

    def expected(self) -> Mapping[str, np.ndarray[Any, Any]]:
        return {"mu": np.random.default_rng(1).normal(size=(1, self.draws))}


@pytest.mark.once("newest")
@pytest.mark.parametrize(
    "check", [check_a_killed_run_goes_on, check_an_interrupted_run_keeps_its_draws]
)
def test_a_run_that_was_over_too_soon_is_tried_again(check: Check, tmp_path: Path) -> None:
    check(Hasty("1-"), tmp_path / "run.zarr")
    assert {path.name for path in tmp_path.iterdir()} == {"1-run.zarr", "2-run.zarr"}
    with pytest.raises(AssertionError, match="longer"):
        check(Hasty("1-", "2-", "never"), tmp_path / "never.zarr")
