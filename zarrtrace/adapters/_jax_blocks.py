"""A sampler of JAX run in blocks: its draws recorded, its state checkpointed after each block.

`numpyro` and `blackjax` share it. All chains take a step together; a block of steps is one call
of one compiled program, whatever the number of its steps, so that a resumed run computes exactly
what the uninterrupted one would have computed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import zarrtrace as zt
from zarrtrace.errors import InvalidInputError, StopRequestedError, TraceNotFoundError

from ._names import name_attributes, stored_name, stored_names

# From the state and the number of the step: the state after it, and the values to record, by
# group and variable, each value with a leading chain axis.
Step = Callable[[Any, Any], tuple[Any, dict[str, dict[str, Any]]]]

SETTINGS = "inference_library_settings"


# Sampling -----------------------------------------------------------------------------------------


def record_in_blocks(
    trace: zt.Trace,
    step: Step,
    state: Any,
    *,
    unrecorded: int,
    thinning: int,
    draws_per_block: int,
    progress: bool,
) -> None:
    """Run the steps that are not done yet, record their draws block by block, finish the trace.

    A run that was asked to stop ends after the block that has the draw; it is not finished if it
    has no draws after its warmup.

    Parameters
    ----------
    trace : Trace
        A trace that is open for writing, with all its chains in one block.
    step : Step
        One step of all chains.
    state : pytree of arrays
        The state before the first step; for a resumed run only its structure matters.
    unrecorded : int
        Steps before the first draw.
    thinning : int
        Steps per draw; the last of them is recorded.
    draws_per_block : int
        Draws between two checkpoints.
    progress : bool
        Whether to show a bar.
    """
    run_block = _compile_block(step, thinning, draws_per_block)
    with trace.writer(trace.blocks[0], patience=90) as writer, _bar(trace, progress) as show:
        recorded, kept = writer.resume()
        is_new = kept is None and recorded < writer.total
        if is_new and recorded:
            raise InvalidInputError(
                f"{trace.path} has {recorded} draws but no state of the sampler to continue from; "
                f"read them, and start again elsewhere"
            )
        if is_new:
            kept = {"steps": 0, "arrays": state_to_arrays(state)}
            writer.checkpoint(kept)
        # A request to stop may come while a block is computed, and for a draw that the chain has.
        with suppress(StopRequestedError):
            while kept is not None and recorded < (total := writer.total):
                show(recorded)
                # Every block begins with the state that a resumed one would begin with.
                done, before = kept["steps"], arrays_to_state(kept["arrays"], state)
                draws = min(draws_per_block, total - recorded)
                warming_up = done < unrecorded
                steps = min(draws_per_block, unrecorded - done) if warming_up else draws * thinning
                after, values = run_block(before, done, steps)
                if not warming_up:
                    writer.record_block(**_as_block(values, draws, trace.chains))
                    recorded += draws
                kept = {"steps": done + steps, "arrays": state_to_arrays(after)}
                writer.checkpoint(kept)
        show(recorded)
    if recorded > trace.tune or not trace.draws:
        trace.finish()


def _compile_block(step: Step, thinning: int, draws_per_block: int) -> Callable[..., Any]:
    """A function that runs any number of steps up to a full block, compiled once."""

    def run_block(state: Any, first: Any, steps: Any) -> Any:
        shapes = jax.eval_shape(step, state, first)[1]
        rows = jax.tree.map(
            lambda value: jnp.zeros((draws_per_block, *value.shape), value.dtype), shapes
        )

        def one_step(number: Any, carried: Any) -> Any:
            state, rows = carried
            state, values = step(state, first + number)
            row = number // thinning
            return state, jax.tree.map(lambda all, one: all.at[row].set(one), rows, values)

        return jax.lax.fori_loop(0, steps, one_step, (state, rows))

    return jax.jit(run_block)


def _as_block(
    values: dict[str, dict[str, Any]], draws: int, chains: int
) -> dict[str, dict[str, np.ndarray[Any, Any]]]:
    """The argument of `record_block`: (chains, draws, *shape), or (draws, *shape) for one chain."""
    return {
        group: {
            name: rows[:draws, 0] if chains == 1 else np.swapaxes(rows[:draws], 0, 1)
            for name, rows in variables.items()
        }
        for group, variables in jax.device_get(values).items()
    }


@contextmanager
def _bar(trace: zt.Trace, shown: bool) -> Iterator[Callable[[int], None]]:
    if not shown:
        yield lambda recorded: None
        return
    from rich.progress import Progress

    with Progress(auto_refresh=False) as display:
        task = display.add_task(f"{trace.chains} chains", total=trace.tune + trace.draws)
        yield lambda recorded: display.update(task, completed=recorded, refresh=True)


# The state ----------------------------------------------------------------------------------------


def state_to_arrays(state: Any) -> dict[str, np.ndarray[Any, Any]]:
    """The arrays of a state by their place in it, such as `.adapt_state.step_size`."""
    leaves = jax.tree_util.tree_flatten_with_path(state)[0]
    return {
        jax.tree_util.keystr(place): np.asarray(
            jax.random.key_data(leaf) if is_key(leaf) else jnp.asarray(leaf)
        )
        for place, leaf in leaves
    }


def arrays_to_state(arrays: Mapping[str, np.ndarray[Any, Any]], like: Any) -> Any:
    """The state with these arrays and the structure of another one.

    Raises
    ------
    InvalidInputError
        The structure, a shape or a dtype differs; the message says which.
    """
    expected = state_to_arrays(like)
    for place in sorted(expected.keys() | arrays.keys()):
        kept, given = _described(arrays.get(place)), _described(expected.get(place))
        if kept != given:
            raise InvalidInputError(
                f"the stored state does not fit this sampler: "
                f"{place or 'the state'} was {kept}, here it is {given}"
            )
    leaves, structure = jax.tree.flatten(like)
    restored = [
        jax.random.wrap_key_data(jnp.asarray(array), impl=jax.random.key_impl(leaf))
        if is_key(leaf)
        else jnp.asarray(array)
        for leaf, array in zip(leaves, (arrays[place] for place in expected), strict=True)
    ]
    return jax.tree.unflatten(structure, restored)


def is_key(value: Any) -> bool:
    """Whether a value is a random key of the kind `jax.random.key` makes."""
    return isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.prng_key)


def named_arrays(tree: Any, alone: str) -> dict[str, Any]:
    """The arrays of nested dictionaries and NamedTuples, with their names joined by dots.

    An array outside of any has the name `alone`.
    """
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {
        jax.tree_util.keystr(place, simple=True, separator=".") or alone: leaf
        for place, leaf in leaves
    }


def with_stored_names(step: Step, state: Any) -> tuple[Step, dict[str, str]]:
    """A step whose values have names that a trace can store.

    Returns
    -------
    step : Step
        The same step, under these names.
    names_in_model : dict of str to str
        The name in the model for each stored name.
    """
    renamed = {
        group: stored_names(values) for group, values in jax.eval_shape(step, state, 0)[1].items()
    }

    def renamed_step(state: Any, number: Any) -> tuple[Any, dict[str, dict[str, Any]]]:
        state, values = step(state, number)
        return state, {
            group: {renamed[group][name]: value for name, value in named.items()}
            for group, named in values.items()
        }

    names = {stored: name for group in renamed.values() for name, stored in group.items()}
    return renamed_step, names


def _described(array: np.ndarray[Any, Any] | None) -> str:
    return "not there" if array is None else f"{array.dtype} {array.shape}"


# The trace ----------------------------------------------------------------------------------------


def create_or_continue(
    store: Any,
    *,
    chains: int,
    tune: int,
    draws: int,
    step: Step,
    state: Any,
    settings: Mapping[str, str],
    library: str,
    library_version: str,
    coords: Mapping[str, Any] | None,
    dims: Mapping[str, Any] | None,
    names_in_model: Mapping[str, str],
    trace_options: Mapping[str, Any] | None,
) -> zt.Trace:
    """The trace of this run: a new one, or the existing one, with room for all its draws.

    Parameters
    ----------
    settings : mapping of str to str
        The identity of this run, stored in the trace; a trace with other settings is refused.
    coords, dims : mapping
        Under the names in the model.
    names_in_model : mapping of str to str
        As returned by `with_stored_names`.
    """
    options = dict(trace_options or {})
    if "thin" in options:
        raise InvalidInputError(
            "trace_options: the draws are thinned before they are recorded",
            remedy="give thinning= instead of thin",
        )
    coords = {stored_name(dim): labels for dim, labels in (coords or {}).items()}
    dims = {stored_name(name): _dimension_names(named) for name, named in (dims or {}).items()}
    values = jax.eval_shape(step, state, 0)[1]
    _require_chain_axis(values, chains)
    definitions: dict[str, dict[str, Any]] = {
        group: {
            name: zt.Var(
                value.shape[1:], value.dtype, attrs=name_attributes(names_in_model.get(name, name))
            )
            for name, value in variables.items()
        }
        for group, variables in values.items()
    }
    settings = {
        **settings,
        "chains": str(chains),
        "tune": str(tune),
        **{f"dims of {name}": str(named) for name, named in dims.items()},
        **{f"coords of {name}": digest(labels) for name, labels in coords.items()},
        **{
            f"{group}/{name}": f"{var.dtype} {var.shape}"
            for group, variables in definitions.items()
            for name, var in variables.items()
        },
    }
    if store is not None and not options.get("overwrite", False):
        try:
            storage_options = options.get("storage_options")
            trace = zt.open(store, mode="a", storage_options=storage_options)
        except TraceNotFoundError:
            pass
        else:
            _require_same_run(trace, settings)
            return _with_room(trace, draws)
    attrs = {
        "inference_library": library,
        "inference_library_version": library_version,
        SETTINGS: json.dumps(settings),
        **options.pop("attrs", {}),
    }
    groups: dict[str, Any] = definitions
    return zt.create(
        store,
        chains=chains,
        chains_per_chunk=chains,
        tune=tune,
        draws=draws,
        coords=coords,
        dims=dims,
        attrs=attrs,
        **groups,
        **options,
    )


def _dimension_names(given: str | Iterable[str]) -> tuple[str, ...]:
    return tuple(map(stored_name, [given] if isinstance(given, str) else given))


def _require_chain_axis(values: dict[str, dict[str, Any]], chains: int) -> None:
    for group, variables in values.items():
        for name, value in variables.items():
            if value.shape[:1] != (chains,):
                raise InvalidInputError(
                    f"{group}/{name}: its shape {value.shape} does not begin with the {chains} "
                    f"chains",
                    group=group,
                    variable=name,
                )


def _require_same_run(trace: zt.Trace, settings: Mapping[str, str]) -> None:
    kept = trace.posterior.attrs.get(SETTINGS)
    if kept is None:
        raise InvalidInputError(
            f"{trace.path} is a trace of another kind: it lacks the attribute {SETTINGS}; "
            f"choose another place"
        )
    before = json.loads(kept)
    differences = [
        f"{name}: was {before.get(name, 'not there')}, is {settings.get(name, 'not there')}"
        for name in {**before, **settings}
        if before.get(name) != settings.get(name)
    ]
    if differences:
        raise InvalidInputError(
            f"{trace.path} holds another run and was not changed; use the arguments it was started "
            f"with, another place, or trace_options={{'overwrite': True}} to start again:\n  "
            + "\n  ".join(differences)
        )


def _with_room(trace: zt.Trace, draws: int) -> zt.Trace:
    if draws < trace.draws:
        raise InvalidInputError(
            f"{trace.path} was made for {trace.draws} draws, but {draws} are requested; request "
            f"{trace.draws} or more"
        )
    return trace.extend(draws - trace.draws) if draws > trace.draws else trace


def digest(value: Any) -> str:
    """A short text that differs for different data: a hash of arrays, the type of others.

    For functions and other objects without numbers it has only their type.
    """
    parts = []
    for place, leaf in jax.tree_util.tree_flatten_with_path(value)[0]:
        leaf = jax.random.key_data(leaf) if is_key(leaf) else leaf
        where = jax.tree_util.keystr(place)
        try:
            array = np.asarray(leaf)
        except (TypeError, ValueError):
            array = np.array(None, dtype=object)
        if array.dtype.kind == "O" and not _all_text(array.flat):
            parts.append(f"{where}{type(leaf).__name__}")
        else:
            content = str(array.tolist()) if array.dtype.kind in "OUST" else None
            data = content.encode() if content else np.ascontiguousarray(array).tobytes()
            shape = f"{array.dtype} {array.shape}" if not content else f"text {array.shape}"
            parts.append(f"{where}{shape} {hashlib.sha256(data).hexdigest()[:12]}")
    return ", ".join(parts) or "nothing"


def _all_text(values: Iterable[Any]) -> bool:
    return all(isinstance(value, str) for value in values)
