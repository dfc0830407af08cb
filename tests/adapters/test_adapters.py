"""Every adapter keeps the promises that zarrtrace.testing checks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import adapter_runs
import pytest

from zarrtrace.testing import Adapter, Check, checks

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
