"""The state of PyMC's step methods ↔ plain dictionaries, without pickle.

A state is everything in numbers, text, arrays and random generators that a step method holds itself
and in its parts: the mass matrix, the step size adaptation, the proposal. That is more than its
`sampling_state`, which leaves out the count of divergences and the proposal, and raises for
`adapt_diag_grad`.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any

import numpy as np
import pymc as pm
from pymc.step_methods import metropolis
from pymc.step_methods.arraystep import PopulationArrayStepShared
from pymc.step_methods.compound import BlockedStep, CompoundStep, flatten_steps
from pymc.step_methods.hmc import quadpotential
from pymc.step_methods.metropolis import Proposal
from pymc.step_methods.state import WithSamplingState

from zarrtrace.errors import InvalidInputError

_PLAIN = (bool, int, float, complex, str, bytes, np.generic)


def keeps_state(step: Any) -> bool:
    """Whether all of these step methods are PyMC's own, and draw their chain alone."""
    return all(
        type(method).__module__.startswith("pymc.")
        and not isinstance(method, PopulationArrayStepShared)
        for method in flatten_steps(step)
    )


def state_of(step: Any) -> list[dict[str, Any]]:
    """The state of each step method, bit for bit, for `writer.checkpoint`."""
    return [_state_of(method) for method in flatten_steps(step)]


def restore(step: Any, states: list[dict[str, Any]]) -> None:
    """Put states into step methods of the same kind.

    Raises
    ------
    InvalidInputError
        A step method, or a part of one, is of another kind.
    """
    for method, state in zip(flatten_steps(step), states, strict=True):
        _restore(method, state)


def description(step: Any) -> Any:
    """The step methods with their variables and parts: a dictionary each, a list for a compound."""
    if isinstance(step, CompoundStep):
        return [description(method) for method in step.methods]
    return {
        "method": type(step).__name__,
        "variables": [variable.name for variable in step.vars],
        "potential": _kind_of(step, "potential"),
        "proposal_dist": _kind_of(step, "proposal_dist"),
    }


def _kind_of(step: Any, name: str) -> str | None:
    part = getattr(step, name, None)
    return None if part is None else type(part).__name__


def _is_part(value: Any) -> bool:
    return isinstance(value, WithSamplingState | Proposal)


def _state_of(part: Any) -> dict[str, Any]:
    state: dict[str, Any] = {
        "kind": type(part).__name__,
        "values": {},
        "lists": {},
        "generators": {},
        "parts": {},
    }
    for name, value in vars(part).items():
        if _is_part(value):
            state["parts"][name] = _state_of(value)
        elif isinstance(value, np.random.Generator):
            state["generators"][name] = _generator_state(value)
        elif isinstance(value, list) and _is_stackable(value):
            # Some grow with every draw: as one array they are stored a hundred times faster.
            state["lists"][name] = np.array(value)
        elif _is_plain(value):
            state["values"][name] = value
    return state


def _is_plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_plain(item) for key, item in value.items())
    if isinstance(value, list | tuple):
        return all(_is_plain(item) for item in value)
    if isinstance(value, np.ndarray):
        return not value.dtype.hasobject
    return value is None or isinstance(value, _PLAIN)


def _is_stackable(items: list[Any]) -> bool:
    """Whether these are floats, or arrays of one shape and dtype."""
    if not items:
        return False
    if isinstance(items[0], np.ndarray):
        first = items[0]
        return not first.dtype.hasobject and all(
            isinstance(item, np.ndarray) and item.shape == first.shape and item.dtype == first.dtype
            for item in items
        )
    return all(isinstance(item, float) for item in items)


def _generator_state(generator: np.random.Generator) -> dict[str, Any]:
    sequence: Any = generator.bit_generator.seed_seq
    return {"bits": dict(generator.bit_generator.state), "sequence": dict(sequence.state)}


def _generator(state: dict[str, Any]) -> np.random.Generator:
    kinds = {
        kind.__name__: kind
        for kind in (
            np.random.PCG64,
            np.random.PCG64DXSM,
            np.random.MT19937,
            np.random.Philox,
            np.random.SFC64,
        )
    }
    bits = kinds[state["bits"]["bit_generator"]](np.random.SeedSequence(**state["sequence"]))
    bits.state = state["bits"]
    return np.random.Generator(bits)


def _restore(part: Any, state: dict[str, Any]) -> None:
    if type(part).__name__ != state["kind"]:
        raise InvalidInputError(
            f"the run was drawn with a {state['kind']}, but this is a {type(part).__name__}: "
            f"pass step= as to pm.sample"
        )
    for name, value in state["values"].items():
        setattr(part, name, value)
    for name, array in state["lists"].items():
        setattr(part, name, list(array))
    for name, generator in state["generators"].items():
        setattr(part, name, _generator(generator))
    for name, inner in state["parts"].items():
        if type(getattr(part, name, None)).__name__ != inner["kind"]:
            setattr(part, name, _new_part(inner["kind"], name))
        _restore(getattr(part, name), inner)


def _new_part(kind: str, name: str) -> Any:
    """A part without content: a proposal, or a temporary object of a mass matrix that adapts."""
    found = _part_kinds().get(kind)
    if found is None:
        raise InvalidInputError(
            f"the run was drawn with a {kind} as {name} of its step method: pass step= as "
            f"to pm.sample"
        )
    return object.__new__(found)


def _part_kinds() -> dict[str, type]:
    # A mass matrix is not made here: the integrator of its step method holds it as well.
    return {
        name: kind
        for module in (metropolis, quadpotential)
        for name, kind in vars(module).items()
        if inspect.isclass(kind)
        and issubclass(kind, Proposal | WithSamplingState)
        and not issubclass(kind, BlockedStep | quadpotential.QuadPotential)
    }


# Making the step methods of a run again ----------------------------------------------------

_INITIALISATIONS = {
    "QuadPotentialDiagAdapt": "jitter+adapt_diag",
    "QuadPotentialDiagAdaptExp": "jitter+adapt_diag_grad",
    "QuadPotentialFullAdapt": "jitter+adapt_full",
}


def make_step(model: pm.Model, described: Any) -> Any:
    """Step methods of the kinds described, with PyMC's default settings.

    Raises
    ------
    InvalidInputError
        There is no such step method in PyMC, or it needs more than its variables.
    """
    if isinstance(described, list):
        return CompoundStep([make_step(model, method) for method in described])
    kinds = {kind.__name__: kind for kind in _step_methods()}
    potential, proposal = described["potential"], described["proposal_dist"]
    if described["method"] not in kinds or potential not in (None, *_INITIALISATIONS):
        what = described["method"] + (f" with a {potential}" if potential else "")
        raise InvalidInputError(
            f"the run was drawn with {what}, which cannot be made from the model alone: "
            f"pass step= as to pm.sample"
        )
    values = {value.name: value for value in model.value_vars}
    variables = [values[name] for name in described["variables"]]
    if potential is not None and potential != "QuadPotentialDiagAdapt":
        _, step = pm.init_nuts(
            init=_INITIALISATIONS[potential], model=model, random_seed=[0], progressbar=False
        )
        return step
    options: dict[str, Any] = {}
    if proposal is not None:
        options["proposal_dist"] = lambda scale: _new_part(proposal, "proposal_dist")
    return kinds[described["method"]](variables, model=model, blocked=True, **options)


def _step_methods() -> Iterable[type]:
    return (
        kind
        for kind in vars(pm.step_methods).values()
        if inspect.isclass(kind) and issubclass(kind, BlockedStep)
    )
