"""The variables, labels and data of a PyMC model as arguments of `zarrtrace.create`."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pymc as pm
import pytensor
from pymc.backends.arviz import find_constants, find_observations
from pymc.util import is_transformed_name

import zarrtrace as zt


def stored_variables(model: pm.Model, names: Sequence[str], include_transformed: bool) -> list[Any]:
    """The variables to store: first the posterior, then the unconstrained posterior.

    Parameters
    ----------
    names : sequence of str
        The names passed to `pm.sample`, in order; unknown ones are left out.
    """
    known = {variable.name: variable for variable in model.unobserved_value_vars}
    wanted = [known[name] for name in names if name in known]
    unconstrained = [variable for variable in wanted if is_transformed_name(variable.name)]
    constrained = [variable for variable in wanted if not is_transformed_name(variable.name)]
    return constrained + (unconstrained if include_transformed else [])


class StoredValues:
    """The compiled function from an unconstrained point to the values to store.

    Called with a point, a mapping of names to arrays, it returns one NumPy scalar or array for each
    variable.
    """

    def __init__(self, model: pm.Model, variables: Sequence[Any]) -> None:
        self._inputs = [variable.name for variable in model.value_vars]
        self._function = model.compile_fn(
            # Without borrow each value would be copied, and record() copies it at once.
            outs=[pytensor.Out(variable, borrow=True) for variable in variables],
            inputs=[pytensor.In(variable, borrow=True) for variable in model.value_vars],
            point_fn=False,
            on_unused_input="ignore",
        )
        self._function.trust_input = True

    def __call__(self, point: Mapping[str, Any]) -> list[Any]:
        """The values at a point."""
        # A call by position is eight times faster than by name, and record() takes scalars faster
        # than arrays without dimensions.
        values = self._function(*[point[name] for name in self._inputs])
        return [value[()] for value in values]


def definition(
    model: pm.Model, variables: Sequence[Any], values: Sequence[Any], statistics: Mapping[str, Any]
) -> dict[str, Any]:
    """The groups, labels and attributes of a run, as arguments of `zarrtrace.create`.

    Parameters
    ----------
    variables, values : sequences of the same length
        The variables to store, and their values at some point.
    statistics : mapping of str to zarrtrace.Var
        The sample_stats.
    """
    coords = {dim: labels for dim, labels in model.coords.items() if labels is not None}
    posterior: dict[str, zt.Var] = {}
    unconstrained: dict[str, zt.Var] = {}
    for variable, value in zip(variables, values, strict=True):
        name = variable.name
        group = unconstrained if is_transformed_name(name) else posterior
        group[name] = zt.Var(
            shape=np.shape(value),
            dtype=np.asarray(value).dtype,
            dims=_dims(model, name, value, coords),
            attrs={"kind": _kind(model, name)},
        )
    groups = {
        "posterior": posterior,
        "unconstrained_posterior": unconstrained,
        "sample_stats": dict(statistics),
        "observed_data": _data(model, find_observations(model), coords),
        "constant_data": _data(model, find_constants(model), coords),
    }
    return {
        **{name: group for name, group in groups.items() if group or name == "posterior"},
        "coords": coords,
        "name": model.name,
        "attrs": {
            "inference_library": "pymc",
            "inference_library_version": pm.__version__,
            "pymc_model": formulas(model),
        },
    }


def formulas(model: pm.Model) -> str:
    """The model as PyMC prints it, a line for each variable: "mu ~ Normal(0, 5)"."""
    lines = str(model.str_repr()).splitlines()
    return "\n".join(line.strip() for line in lines)


def data_arrays(model: pm.Model, values: Mapping[str, Any]) -> dict[str, Any]:
    """Data that is passed whole, with its dimensions in the model."""
    coords = {dim: labels for dim, labels in model.coords.items() if labels is not None}
    return _data(model, values, coords)


def _data(model: pm.Model, values: Mapping[str, Any], coords: Mapping[str, Any]) -> dict[str, Any]:
    arrays = {}
    for name, value in values.items():
        dims = _dims(model, name, value, coords)
        named = [f"{name}_dim_{i}" for i in range(np.ndim(value))] if dims is None else dims
        arrays[name] = (tuple(named), np.asarray(value))
    return arrays


def _dims(
    model: pm.Model, name: str, value: Any, coords: Mapping[str, Any]
) -> tuple[str, ...] | None:
    """The names of a variable's dimensions, None where the model names none."""
    given = model.named_vars_to_dims.get(name)
    if given is None or len(given) != np.ndim(value):
        return None
    dims = tuple(dim or f"{name}_dim_{i}" for i, dim in enumerate(given))
    for dim, size in zip(dims, np.shape(value), strict=True):
        if dim in coords and len(coords[dim]) != size:
            warnings.warn(
                f"{name} has {size} elements along dimension {dim!r}, which has "
                f"{len(coords[dim])} labels: its dimensions are stored without names",
                stacklevel=2,
            )
            return None
    return dims


def _kind(model: pm.Model, name: str) -> str:
    free = is_transformed_name(name) or model[name] in model.free_RVs
    return "freeRV" if free else "deterministic"
