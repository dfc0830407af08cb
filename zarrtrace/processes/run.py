"""`run`: the chains that are not complete yet, in parallel."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial

from ..diagnostics.goal import Converged
from ..errors import ChainsFailedError, InvalidInputError, NotShareableError
from ..messages import warn_caller
from ..trace import Trace
from .attempts import Attempts
from .bars import progress_bars
from .chains import ChainFunction, first_chain, first_line
from .executors import MakesExecutor, Submits, run_on_executor
from .one_per_chain import ForkedProcess, FreshProcess, run_on_processes
from .rules import FunctionRule, GoalRule

_LONGEST_LINE = 300  # characters of an exception in the common error; the notes have all of it


def run(
    chain_function: ChainFunction,
    trace: Trace,
    *,
    processes: int | None = None,
    executor: Submits | MakesExecutor | None = None,
    progress: bool = True,
    fork: bool = False,
    retries: int = 2,
    patience: float = 90.0,
    until: Callable[[Trace], bool] | Converged | None = None,
) -> None:
    """Run the chains that are not complete yet, in parallel.

    Parameters
    ----------
    chain_function : callable
        `chain_function(chain, trace)` records one chain: it opens `trace.writer(chain)`,
        calls `writer.resume()`, and records up to `trace.tune + trace.draws` draws. With
        `chains_per_chunk` it is given a range of chains. It may be a lambda, a closure, or
        defined in a notebook.
    trace : Trace
        A trace that is open for writing, and not in memory.
    processes : int, optional
        Chains at the same time; by default as many as this process may use cores.
    executor : concurrent.futures.Executor or callable, optional
        Where to run the chains instead: threads, Dask, MPI, Parsl, or an executor of submitit.
        Workers need the same version of zarrtrace, and the same minor version of Zarr. If no worker
        begins a chain for 30 s, `run` says so and keeps waiting. A function without arguments that
        makes an executor, such as `lambda: ProcessPoolExecutor(8)`, is called again if the executor
        breaks, as a pool does when one of its processes is killed.
    progress : bool, default True
        Whether to show a bar for each chain.
    fork : bool, default False
        Whether processes may be forks of this one, which have imported and compiled everything and
        begin at once, instead of fresh interpreters. They are forks if the trace is in a local
        directory and the system can fork. Unsafe if this process runs threads of its own, as
        JAX does.
    retries : int, default 2
        How often a chain is started again, with a warning, when its process or worker was killed
        or cannot be reached: it continues from its last checkpoint. A chain that raised is not
        started again, unless it raised a ConnectionError.
    patience : float, default 90
        Seconds that `trace.writer(chain)` waits by default for a
        writer elsewhere that may be dead: a job that was stopped and starts again on another host
        continues.
    until : Converged or callable, optional
        A goal, such as `zarrtrace.Converged(rhat=1.01, ess=400)`: once it is met the chains are
        asked to stop, all at the same draw, as by `Trace.request_stop`. Or a function:
        `until(trace)` says whether the chains have drawn enough. It is called repeatedly in this
        process, once every chain has a draw after its warmup. If it returns True, the chains end as
        by Ctrl-C: their writers close, and all draws are kept. One chain may then have more draws
        than another; to end all at the same draw, the function can call `trace.request_stop()` and
        return False. Needed if the trace has no fixed end, unless chains stop by themselves.

    Raises
    ------
    ChainsFailedError
        Some chains raised or died; raised after the others have ended. All draws are kept.
    InvalidInputError
        The goal cannot be reached by this run, or an argument cannot be used.
    KeyboardInterrupt
        After Ctrl-C, when every chain has closed its writer: all recorded draws are kept, and
        calling `run` again continues from there. Chains on an executor are asked to stop, and end
        at their next draw; a second Ctrl-C does not wait for them.

    See Also
    --------
    Trace.writer : The writer of one chain.
    Trace.extend : Allow more draws, for another `run`.

    Notes
    -----
    Any process can end it with `Trace.request_stop`, or `zarrtrace stop PATH`: the chains then end
    at the same draw. The writer of a chain that takes no notice ends it with a
    StopRequestedError, which does not count as a failure. Within `zarrtrace.signals.preemptible` a
    signal reaches the processes too, and `run` returns when their chains have ended. A chain that
    has all its draws does not count as a failure, however its process ended.

    Examples
    --------
    >>> import numpy as np
    >>> import zarrtrace as zt
    >>> def chain(number, trace):
    ...     rng = np.random.default_rng([1, number])
    ...     with trace.writer(number) as writer:
    ...         start, state = writer.resume()
    ...         if state is not None:
    ...             rng.bit_generator.state = state
    ...         for draw in range(start, trace.tune + trace.draws):
    ...             writer.record({"mu": rng.normal()})
    ...             if draw % 100 == 99:
    ...                 writer.checkpoint(rng.bit_generator.state)
    >>> trace = zt.create("run.zarr", chains=2, tune=100, draws=400, posterior={"mu": 0.0})
    >>> zt.run(chain, trace, progress=False)
    >>> trace.recorded
    array([500, 500])

    Chains without a fixed end are run until there is enough:

    >>> def enough(trace):
    ...     return len(trace.posterior.draw) > 2000
    >>> trace = zt.create("longer.zarr", chains=2, draws=None, posterior={"mu": 0.0})
    >>> zt.run(chain, trace, until=enough, progress=False, fork=True)
    >>> bool(trace.recorded.min() > 2000)
    True
    """
    trace._location.require_writable()
    moment = trace._now()
    counts, end = moment.counts, moment.end
    missing = [block for block in trace.blocks if counts[first_chain(block)] < end.draws]
    if end.request is not None and not missing:
        warn_caller(
            f"{trace.path} was asked to stop {end.request}, and no chain has to draw more; "
            f"trace.cancel_stop() takes that back, and trace.extend(draws=...) makes room for more"
        )
    rule = GoalRule(trace, until) if isinstance(until, Converged) else FunctionRule(trace, until)
    if not missing or rule.holds():
        return
    is_number = isinstance(retries, int) and not isinstance(retries, bool)
    if not is_number or retries < 0:
        raise InvalidInputError(f"retries must be a whole number from 0, got {retries!r}")
    attempts = Attempts(trace, retries)
    trace = trace._with_patience(patience)
    with progress_bars(trace, missing, progress) as refresh:
        if executor is not None:
            failures = run_on_executor(
                chain_function, trace, missing, executor, refresh, rule, attempts
            )
        elif trace._location.in_memory:
            raise NotShareableError(
                "a trace in memory cannot be written by other processes; create it with a path, "
                "or pass executor=concurrent.futures.ThreadPoolExecutor()"
            )
        else:
            # A chain without an end never frees its process for another one.
            least = 1 if trace.has_end else len(missing)
            limit = max(_cores(), least) if processes is None else processes
            if not isinstance(limit, int) or limit < least:
                raise InvalidInputError(
                    f"processes must be a whole number from {least}, got {limit!r}"
                )
            # Connections to a server do not survive a fork.
            forks = fork and trace._location.path is not None and hasattr(os, "fork")
            start = ForkedProcess if forks else FreshProcess
            start_chain = partial(start, chain_function, trace)
            failures = run_on_processes(trace, start_chain, missing, limit, refresh, rule, attempts)
    rule.close()
    # Another attempt of a chain may have continued where this one ended.
    failures = {chain: failures[chain] for chain in attempts.lacking(failures)}
    if failures:
        raise _failed(trace, failures, len(missing))


def _cores() -> int:
    """The cores this process may run on: a job of a cluster has fewer than its machine."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _failed(trace: Trace, failures: dict[int, str], tried: int) -> ChainsFailedError:
    counts = trace.recorded
    lines = [f"{len(failures)} of {tried} chains failed; the draws of all of them are kept:"]
    for chain, report in sorted(failures.items()):
        last = first_line(report)
        last = last if len(last) <= _LONGEST_LINE else f"{last[:_LONGEST_LINE]} ..."
        lines.append(f"  chain {chain} after {counts[chain]} draws: {last}")
    lines.append("Fix the cause and call run() again: it continues from there.")
    error = ChainsFailedError("\n".join(lines), failures)
    for chain, report in sorted(failures.items()):
        error.add_note(f"\nchain {chain}:\n{report.rstrip()}")
    return error
