"""The promises of every adapter, as checks for any adapter.

The author of an adapter describes one small run of their sampler by two methods, `Adapter`. Then
the checks run the real sampler in real processes that are really killed::

    import pytest
    from zarrtrace.testing import checks


    @pytest.mark.parametrize("check", checks)
    def test_adapter(check, tmp_path):
        check(MyAdapter(), tmp_path / "run.zarr")

A check raises AssertionError, or an error of the adapter.
"""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import cloudpickle
import numpy as np
from zarr.storage import MemoryStore

from .errors import StaleViewError, TraceNotFoundError
from .opening import create, open
from .trace import Trace

_PATIENCE = 120.0  # seconds to wait for a run to begin
_ATTEMPTS = 3  # to stop a run before its end
_START = """
import json, signal, sys
# A shell's background job, as the tests may be, ignores Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.path[:] = json.loads(sys.argv[1])
import cloudpickle
adapter, path, draws = cloudpickle.load(sys.stdin.buffer)
try:
    adapter.sample(path, draws)
except KeyboardInterrupt:
    sys.exit(130)
"""


class Adapter(Protocol):
    """One small run of a sampler, as an adapter stores it and as the sampler draws it.

    It is sent to other processes by cloudpickle. The run should take a second or more: it is killed
    on the way.

    Attributes
    ----------
    draws : int
        Draws after warmup of the whole run.

    See Also
    --------
    check_draws_are_the_samplers_own : One of the checks.

    Examples
    --------
    >>> from pathlib import Path
    >>> import numpy as np
    >>> import zarrtrace as zt
    >>> from zarrtrace.testing import check_draws_are_the_samplers_own
    >>> class MyAdapter:
    ...     draws = 100
    ...     def sample(self, path, draws):
    ...         trace = zt.create(
    ...             path, chains=1, draws=draws, posterior={"mu": 0.0}, if_exists="open"
    ...         )
    ...         with trace.writer(0) as writer:
    ...             start, _ = writer.resume()
    ...             for mu in self.expected()["mu"][0, start:draws]:
    ...                 writer.record({"mu": mu})
    ...     def expected(self):
    ...         return {"mu": np.random.default_rng(1).normal(size=(1, self.draws))}
    >>> check_draws_are_the_samplers_own(MyAdapter(), Path("run.zarr"))
    """

    draws: int

    def sample(self, path: Path, draws: int) -> None:
        """Record that many draws after warmup of every chain in the trace at `path`.

        It is called once for a new path, and again after `kill -9`, or for more draws, to continue
        from the existing ones. It blocks until they are recorded.

        Parameters
        ----------
        path : pathlib.Path
            Where the trace is, or shall be.
        draws : int
            How many draws after warmup each chain shall have.

        See Also
        --------
        Adapter.expected : The same draws without zarrtrace.
        """

    def expected(self) -> Mapping[str, np.ndarray[Any, Any]]:
        """All draws of the posterior, drawn without zarrtrace.

        Returns
        -------
        mapping of str to numpy.ndarray
            Each variable, shape (chains, draws, *shape).

        See Also
        --------
        Adapter.sample : Record these draws.
        """


Check = Callable[[Adapter, Path], None]


class _OverTooSoon(AssertionError):
    """The run was over before it was read or stopped: the machine did something else meanwhile."""


def _again_if_over_too_soon(check: Check) -> Check:
    @functools.wraps(check)
    def attempts(adapter: Adapter, path: Path) -> None:
        for number in range(1, _ATTEMPTS):
            try:
                check(adapter, path.with_name(f"{number}-{path.name}"))
            except _OverTooSoon:
                continue
            return
        check(adapter, path)

    return attempts


def check_draws_are_the_samplers_own(adapter: Adapter, path: Path) -> None:
    """Every draw in the trace is the sampler's, bit for bit, and the trace has no damage.

    Parameters
    ----------
    adapter : Adapter
        A small run of a sampler.
    path : pathlib.Path
        Where nothing is yet.

    Raises
    ------
    AssertionError
        The adapter does not keep this promise.

    See Also
    --------
    Adapter : What is checked.
    """
    adapter.sample(path, adapter.draws)
    trace = open(path)
    expected = adapter.expected()
    posterior = trace.posterior
    missing = set(expected) - set(posterior.data_vars)
    assert not missing, f"posterior lacks {missing}; it has {list(posterior.data_vars)}"
    for name, values in expected.items():
        _require_equal(name, posterior[name].values, values)
    damage = trace.check()
    assert not damage, damage


def check_arviz_and_xarray_read_it(adapter: Adapter, path: Path) -> None:
    """The trace names its library, has ArviZ's structure, and opens in xarray when finished.

    Parameters
    ----------
    adapter : Adapter
        A small run of a sampler.
    path : pathlib.Path
        Where nothing is yet.

    Raises
    ------
    AssertionError
        The adapter does not keep this promise.

    See Also
    --------
    Adapter : What is checked.
    """
    import xarray as xr

    adapter.sample(path, adapter.draws // 2)
    trace = open(path, mode="a")
    assert trace.posterior.attrs.get("inference_library"), "attrs= lacks inference_library"
    for group in ("posterior", "sample_stats"):
        if group in trace.groups:
            for variable in trace[group].data_vars.values():
                assert variable.dims[:2] == ("chain", "draw"), f"{variable.name}: {variable.dims}"
    mean = {name: float(trace.get(name).mean()) for name in adapter.expected()}
    trace.finish()
    tree = xr.open_datatree(path, engine="zarr")
    for name, value in mean.items():
        found = float(tree["posterior"][name].mean())
        assert found == value, f"{name} has the mean {found} in xarray, {value} in the trace"


@_again_if_over_too_soon
def check_a_killed_run_goes_on(adapter: Adapter, path: Path) -> None:
    """A reader sees draws of the run while it is written; after `kill -9` none of them is lost.

    The reader sees more and more draws, and nothing else. Continued, the run ends as if
    nothing had happened.

    Parameters
    ----------
    adapter : Adapter
        A small run of a sampler, which takes a second or more.
    path : pathlib.Path
        Where nothing is yet.

    Raises
    ------
    AssertionError
        The adapter does not keep this promise.

    See Also
    --------
    Adapter : What is checked.
    """
    expected = adapter.expected()
    seen: set[int] = set()
    for part in (0.2, 0.6):
        recorded = _stopped(adapter, path, part, signal.SIGKILL, expected, seen)
        trace = open(path)
        _require_kept(trace, recorded)
        _require_beginning(trace, expected)
    if len(seen) <= 2:
        raise _OverTooSoon(f"a reader found {sorted(seen)} draws only; make the run longer")
    _require_completed(adapter, path, expected)


@_again_if_over_too_soon
def check_an_interrupted_run_keeps_its_draws(adapter: Adapter, path: Path) -> None:
    """After Ctrl-C the recorded draws exist, and the run can continue.

    Parameters
    ----------
    adapter : Adapter
        A small run of a sampler, which takes a second or more.
    path : pathlib.Path
        Where nothing is yet.

    Raises
    ------
    AssertionError
        The adapter does not keep this promise.

    See Also
    --------
    Adapter : What is checked.
    """
    expected = adapter.expected()
    recorded = _stopped(adapter, path, 0.3, signal.SIGINT, expected, set())
    trace = open(path)
    _require_kept(trace, recorded)
    _require_beginning(trace, expected)
    _require_completed(adapter, path, expected)


def check_more_draws_can_be_added(adapter: Adapter, path: Path) -> None:
    """A run for fewer draws and then for all of them is one run.

    Parameters
    ----------
    adapter : Adapter
        A small run of a sampler.
    path : pathlib.Path
        Where nothing is yet.

    Raises
    ------
    AssertionError
        The adapter does not keep this promise.

    See Also
    --------
    Adapter : What is checked.
    """
    adapter.sample(path, adapter.draws // 2)
    length = open(path).posterior.sizes["draw"]
    assert length == adapter.draws // 2, f"{length} draws, not {adapter.draws // 2}"
    _require_completed(adapter, path, adapter.expected())


checks: tuple[Check, ...] = (
    check_draws_are_the_samplers_own,
    check_arviz_and_xarray_read_it,
    check_a_killed_run_goes_on,
    check_an_interrupted_run_keeps_its_draws,
    check_more_draws_can_be_added,
)


def _require_completed(
    adapter: Adapter, path: Path, expected: Mapping[str, np.ndarray[Any, Any]]
) -> None:
    """The run continues to its end, and has every draw of the undisturbed one."""
    adapter.sample(path, adapter.draws)
    posterior = open(path).posterior
    for name, values in expected.items():
        _require_equal(name, posterior[name].values, values)


def _require_kept(trace: Trace, recorded: np.ndarray[Any, Any]) -> None:
    assert (trace.recorded >= recorded).all(), f"of {recorded} draws {trace.recorded} are left"


def _require_beginning(trace: Trace, expected: Mapping[str, np.ndarray[Any, Any]]) -> None:
    """Compare each chain by itself: they have different numbers of draws."""
    for chain in range(trace.chains):
        posterior = trace.dataset("posterior", chains=chain)
        for name, values in expected.items():
            found = posterior[name].values
            _require_equal(f"{name}, chain {chain}", found, values[[chain], : found.shape[1]])


def _require_equal(name: str, found: np.ndarray[Any, Any], expected: np.ndarray[Any, Any]) -> None:
    assert found.shape == expected.shape, f"{name}: {found.shape}, not {expected.shape}"
    same = (found == expected) | ((found != found) & (expected != expected))
    assert same.all(), f"{name}: differs first at {tuple(np.argwhere(~same)[0].tolist())}"


def _started(adapter: Adapter, path: Path, draws: int) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "-c", _START, json.dumps(sys.path)],
        stdin=subprocess.PIPE,
        # Ctrl-C goes to the whole group of a terminal's processes; so it does here.
        start_new_session=True,
    )
    assert process.stdin is not None
    process.stdin.write(cloudpickle.dumps((adapter, path, draws)))
    process.stdin.close()
    return process


def _read_a_first_trace() -> None:
    """Read a trace in memory: the first read imports so much that a short run would be over."""
    trace = create(MemoryStore(), chains=1, draws=1, posterior={"x": 0.0})
    with trace.writer(0) as writer:
        writer.record({"x": 1.0})
    assert trace.dataset("posterior")["x"].values == 1


def _stopped(
    adapter: Adapter,
    path: Path,
    part: float,
    number: signal.Signals,
    expected: Mapping[str, np.ndarray[Any, Any]],
    seen: set[int],
) -> np.ndarray[Any, Any]:
    """Start the run, read it, stop it after some draws; returns what every chain had just before.

    It adds to `seen` how many draws of all chains a reader saw meanwhile.
    """
    _read_a_first_trace()
    with _started(adapter, path, adapter.draws) as process:
        begin, recorded = time.monotonic(), np.zeros(0, dtype=np.int64)
        while process.poll() is None:
            assert time.monotonic() < begin + _PATIENCE, "the run records nothing"
            # Until the first draw the trace may appear and vanish again; and a run that continues
            # goes back to its checkpoint.
            with suppress(TraceNotFoundError, StaleViewError):
                trace = open(path)
                recorded = trace.recorded
                if recorded.min() >= part * (trace.tune + adapter.draws):
                    break
                posterior = trace.dataset("posterior", chains=range(trace.chains))
                length = posterior.sizes["draw"]
                for name, values in expected.items():
                    _require_equal(name, posterior[name].values, values[:, :length])
                seen.add(length)
            time.sleep(0.02)  # A reader that never rests takes the core from the run.
        if process.poll() is not None:
            raise _OverTooSoon("the run ended before it was stopped; make it longer")
        os.killpg(process.pid, number)
    # Judge by its draws, not its exit code: after Ctrl-C a sampler may return what it has.
    trace = open(path)
    if trace.recorded.min() >= trace.tune + adapter.draws:
        raise _OverTooSoon("the run was over when it was stopped; make it longer")
    return recorded
