"""Continue a PyMC run from disk: after a kill, after Ctrl-C, or for more draws."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import pymc as pm
import xarray as xr
from pymc.initial_point import make_initial_point_fns_per_chain
from pymc.stats.convergence import log_warnings, run_convergence_checks
from pymc.step_methods.compound import CompoundStep
from pymc.util import get_random_generator

import zarrtrace as zt
from zarrtrace.errors import IncompleteTraceError, InvalidInputError

from .chain import ZarrChain
from .model import StoredValues, definition, formulas, stored_variables
from .stats import Statistics
from .steps import description, make_step, restore

_SAMPLED = {"chain", "draw"}


def resume(
    store: Any,
    model: pm.Model | None = None,
    *,
    step: Any = None,
    cores: int | None = None,
    random_seed: Any = None,
    progressbar: bool = True,
    discard_tuned_samples: bool = True,
    compute_convergence_checks: bool = True,
    checkpoint_every: float = 10.0,
    storage_options: Mapping[str, Any] | None = None,
) -> Any:
    """Draw the missing draws of a run that `pm.sample(trace=ZarrTrace(store))` began.

    Each chain continues from its last checkpoint, in its own process, and becomes bit for bit
    what it would have been; the draws after the checkpoint are drawn again identically. For more
    draws than planned, extend the trace first:
    `zarrtrace.open(store, mode="a").extend(draws=1000)`.

    Parameters
    ----------
    store : str, path, zarr.abc.store.Store or zarrtrace.Trace
        The place of the run, or its trace.
    model : pymc.Model, optional
        The model of the run; by default that of the context.
    step : step method or list of them, optional
        Needed if that of `pm.sample` cannot be derived from the model and the run, such as one
        with a mass matrix of its own; made as for the first run.
    cores : int, optional
        Chains at the same time; by default as many as this process may use cores.
    random_seed : optional
        For chains that were killed before their first draw: they start again. With the seed, the
        `init` and the `initvals` of `pm.sample` left at their defaults and the seed given here
        again, they too become what they would have been.
    progressbar : bool, default True
        Whether to show a bar for each chain.
    discard_tuned_samples, compute_convergence_checks : bool, default True
        As in `pm.sample`.
    checkpoint_every : float, default 10
        As in `ZarrTrace`.
    storage_options : mapping, optional
        As in `zarrtrace.open`.

    Returns
    -------
    arviz.InferenceData or xarray.DataTree
        All the draws, as `pm.sample` would have returned them.

    Raises
    ------
    InvalidInputError
        The model or the step methods are not those of the run; the message says what differs,
        and nothing is changed.
    ChainsFailedError
        Some chains raised, after the others have ended; their draws are kept.

    See Also
    --------
    ZarrTrace : Store a run that can be continued.

    Notes
    -----
    Bit for bit holds on the same machine with the same versions of PyMC and NumPy; from PyMC 6 on
    only if both processes compiled the model or both loaded it from PyTensor's cache: Numba rounds
    the last digit differently then, with the trace in memory as well; the first run of a model on
    a machine compiles, later ones load, and PYTENSOR_FLAGS=numba__cache=False always compiles. Not
    compared are the values of constants other than numbers, and data that is neither `pm.Data` nor
    observed.

    Examples
    --------
    >>> import pymc as pm
    >>> import zarrtrace as zt
    >>> from zarrtrace.adapters.pymc import ZarrTrace, resume
    >>> with pm.Model() as model:
    ...     mu = pm.Normal("mu")
    ...     data = pm.sample(
    ...         50,
    ...         tune=50,
    ...         chains=1,
    ...         random_seed=1,
    ...         step=pm.Metropolis(),
    ...         trace=ZarrTrace("run.zarr"),
    ...         progressbar=False,
    ...         compute_convergence_checks=False,
    ...     )
    >>> trace = zt.open("run.zarr", mode="a").extend(draws=50)
    >>> data = resume("run.zarr", model, progressbar=False, compute_convergence_checks=False)
    >>> data.posterior.mu.shape
    (1, 100)
    """
    model = pm.modelcontext(model)
    trace = store
    if not isinstance(store, zt.Trace):
        trace = zt.open(store, mode="a", storage_options=storage_options)
    described = _description_of_run(trace)
    _require_same(trace.path, _differing_formulas(trace, model))
    step = make_step(model, described) if step is None else _one_step(step)
    _require_same(trace.path, _differing_steps(described, description(step)))
    stored = [*_group(trace, "posterior").data_vars]
    if "unconstrained_posterior" in trace:
        stored += _group(trace, "unconstrained_posterior").data_vars
    variables = stored_variables(model, stored, include_transformed=True)
    _require_same(trace.path, _differing_names(stored, [v.name for v in variables]))
    values = StoredValues(model, variables)
    statistics = Statistics(step)
    groups = definition(model, variables, values(model.initial_point()), statistics.columns)
    _require_same(trace.path, _differing_groups(trace, groups))

    names = (list(groups["posterior"]), list(groups.get("unconstrained_posterior", ())))
    chains = [
        ZarrChain(trace, chain, names, values, statistics, checkpoint_every)
        for chain in range(trace.chains)
    ]
    beginnings = _beginnings(trace, model, step, described, random_seed)
    draw = partial(_draw_chain, chains, step, beginnings)
    # As pm.sample starts its processes. A fresh interpreter compiles the model again.
    fork = multiprocessing.get_start_method() == "fork"
    zt.run(draw, trace, processes=cores, progress=progressbar, fork=fork)
    if not trace.finished:
        trace.finish()
    data = trace.to_inferencedata(save_warmup=not discard_tuned_samples)
    if compute_convergence_checks:
        log_warnings(run_convergence_checks(data, model))
    return data


def longest_chains(trace: zt.Trace) -> list[int]:
    """The chains that have the most draws after tuning when cut to the shortest of them.

    Raises
    ------
    IncompleteTraceError
        No chain has such a draw.
    """
    counts = np.maximum(trace.recorded - trace.tune, 0)
    order = np.argsort(-counts, kind="stable")
    together = counts[order] * np.arange(1, len(order) + 1)
    if not together.any():
        raise IncompleteTraceError(
            f"no chain of {trace.path} has a draw after its {trace.tune} of tuning; recorded are "
            f"{', '.join(str(count) for count in trace.recorded)}, and "
            f"zarrtrace.adapters.pymc.resume continues from there"
        )
    return sorted(int(chain) for chain in order[: int(np.argmax(together)) + 1])


# In the process of a chain ----------------------------------------------------------------


def _draw_chain(
    chains: list[ZarrChain], step: Any, beginnings: list[Any], number: int, trace: zt.Trace
) -> None:
    """Draw the missing draws of a chain; `zarrtrace.run` calls this in a process of its own."""
    with trace.writer(number) as writer:
        draws, state = writer.resume()
        if state is None and draws < trace.tune + trace.draws:
            raise InvalidInputError(
                f"chain {number} of {trace.path} has {draws} draws but no checkpoint to resume from"
            )
        restore(step, state["steps"])
        point = state["point"]
        if point is None:
            point, generator = beginnings[number]
            _seed(step, generator, trace)
        chain = chains[number]
        chain.go_on(writer, step)
        ends = writer.stop_requested
        for draw in range(draws, trace.tune + trace.draws):
            if ends:
                break
            if draw == trace.tune:
                step.stop_tuning()
            point, stats = step.step(point)
            ends = chain.record_draw(point, stats)


def _seed(step: Any, generator: np.random.Generator, trace: zt.Trace) -> None:
    if hasattr(step, "setup_chain"):
        step.setup_chain(generator, trace.tune, trace.draws)
    else:
        step.set_rng(generator)  # before PyMC 6


def _beginnings(
    trace: zt.Trace, model: pm.Model, step: Any, described: Any, random_seed: Any
) -> list[Any]:
    """Where chains without a draw begin, and their random generators, as in `pm.sample`."""
    if trace.recorded.all():
        return []
    generators = get_random_generator(random_seed).spawn(trace.chains)
    seeds = [generator.integers(2**30) for generator in generators]
    if isinstance(step, pm.NUTS) and set(step.vars) == set(model.value_vars):
        points, _ = pm.init_nuts(
            init="jitter+adapt_diag",
            chains=trace.chains,
            model=model,
            random_seed=seeds,
            progressbar=False,
        )
    else:
        functions = make_initial_point_fns_per_chain(
            model=model, overrides=None, jitter_rvs=set(), chains=trace.chains
        )
        points = [function(seed) for function, seed in zip(functions, seeds, strict=True)]
    return list(zip(points, generators, strict=True))


# The same model and step methods ----------------------------------------------------------


def _group(trace: zt.Trace, name: str) -> xr.Dataset:
    """A group with all its chains, without a warning about those that have not begun."""
    return trace.dataset(name, chains=range(trace.chains))


def _description_of_run(trace: zt.Trace) -> Any:
    text = _group(trace, "posterior").attrs.get("pymc_step")
    if text is None:
        raise InvalidInputError(
            f"{trace.path} is not a run of zarrtrace.adapters.pymc.ZarrTrace; to use another "
            f"sampler, use zarrtrace.open and its writers"
        )
    return json.loads(text)


def _one_step(step: Any) -> Any:
    if isinstance(step, list | tuple):
        return step[0] if len(step) == 1 else CompoundStep(step)
    return step


def _require_same(path: str, differences: list[str]) -> None:
    if differences:
        raise InvalidInputError(
            f"{path} is a run of another model or step method, and nothing was changed:\n  "
            + "\n  ".join(differences)
            + "\nUse the model and step method of that run, or sample into a new trace."
        )


def _differing_formulas(trace: zt.Trace, model: pm.Model) -> list[str]:
    there = str(_group(trace, "posterior").attrs["pymc_model"]).splitlines()
    here = formulas(model).splitlines()
    return [f"only in the run: {line}" for line in there if line not in here] + [
        f"only in this model: {line}" for line in here if line not in there
    ]


def _differing_steps(there: Any, here: Any) -> list[str]:
    if there == here:
        return []
    return [f"step method of the run: {_in_words(there)}", f"step method here: {_in_words(here)}"]


def _in_words(described: Any) -> str:
    if isinstance(described, list):
        return ", ".join(_in_words(method) for method in described)
    parts = [described[name] for name in ("potential", "proposal_dist") if described[name]]
    by = f" with {' and '.join(parts)}" if parts else ""
    return f"{described['method']}({', '.join(described['variables'])}){by}"


def _differing_names(there: list[str], here: list[str]) -> list[str]:
    return [f"{name}: stored by the run, not in this model" for name in there if name not in here]


def _differing_groups(trace: zt.Trace, groups: dict[str, Any]) -> list[str]:
    """Variables, shapes, labels and data that differ from those a run of this model would have."""
    expected = zt.create(None, chains=1, draws=1, tune=1, **groups)
    differences = []
    for group in (name for name in expected.groups if not name.startswith("warmup_")):
        if group not in trace:
            differences.append(f"{group}: in this model, not in the run")
            continue
        there, here = _group(trace, group), expected[group]
        for name in sorted({str(name) for name in (*there.variables, *here.variables)} - _SAMPLED):
            what = f"{group}/{name}"
            if name not in there.variables or name not in here.variables:
                where = "the run" if name in there.variables else "this model"
                differences.append(f"{what}: only in {where}")
                continue
            sizes = [
                {dim: n for dim, n in found[name].sizes.items() if dim not in _SAMPLED}
                for found in (there, here)
            ]
            if sizes[0] != sizes[1]:
                differences.append(f"{what}: {sizes[0]} in the run, {sizes[1]} in this model")
            elif there[name].dtype != here[name].dtype:
                differences.append(
                    f"{what}: {there[name].dtype} in the run, {here[name].dtype} in this model"
                )
            elif "draw" not in here[name].dims and not here[name].equals(there[name]):
                differences.append(f"{what}: other values in the run than in this model")
    gone = {
        group
        for group in ("observed_data", "constant_data")
        if group in trace and group not in expected
    }
    return differences + [f"{group}: in the run, not in this model" for group in sorted(gone)]
