"""A BlackJAX kernel run in blocks, all chains together; it continues bit for bit after a kill."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

import zarrtrace as zt
from zarrtrace.adopt import rename_stats
from zarrtrace.errors import InvalidInputError

from ._jax_blocks import (
    create_or_continue,
    digest,
    named_arrays,
    record_in_blocks,
    with_stored_names,
)

# Points on the way to the draw: they are as large as the position, and not statistics.
LEFT_OUT = ("momentum", "proposal", "trajectory_leftmost_state", "trajectory_rightmost_state")


def sample(
    step: Callable[..., tuple[Any, Any]],
    store: Any,
    rng_key: Any,
    initial_state: Any,
    *,
    draws: int,
    tune: int = 0,
    parameters: Mapping[str, Any] | None = None,
    posterior: Callable[[Any], Mapping[str, Any]] | None = None,
    sample_stats: Callable[[Any, Any], Mapping[str, Any]] | None = None,
    thinning: int = 1,
    coords: Mapping[str, Any] | None = None,
    dims: Mapping[str, Sequence[str]] | None = None,
    draws_per_block: int = 100,
    progress: bool = True,
    trace_options: Mapping[str, Any] | None = None,
) -> zt.Trace:
    """Run a kernel into a trace, or continue a run that was killed, interrupted or shorter.

    Called again with the same arguments after a kill, it continues after the last whole block and
    draws bit for bit what the uninterrupted run draws. With larger `draws` a
    finished trace gets more. Step `i` (from 0) of chain `c` has the key
    `jax.random.split(jax.random.fold_in(rng_key, i), chains)[c]`.

    Parameters
    ----------
    step : callable
        `kernel.step` of any of BlackJAX's MCMC algorithms, or a function of your own:
        `step(key, state, **parameters)` returns the state and the info of one chain.
    store : str, path, zarr.abc.store.Store or None
        As for `zarrtrace.create`.
    rng_key : jax.Array
        One key for all chains.
    initial_state : pytree
        The state of each chain, the chains first: `jax.vmap(kernel.init)(positions)`. In a resumed
        run only its structure matters.
    draws, tune : int
        Draws of each chain, and draws before them that are recorded as warmup.
    parameters : mapping of str to pytree, optional
        Values of each chain that no step changes, the chains first, such as the step
        size and mass matrix of `jax.vmap(warmup.run)`. They are stored with the state, and
        a resumed run uses the stored ones.
    posterior : callable, optional
        `posterior(state)` of one chain returns the values to record by name; by default those of
        `state.position`, named by its keys or fields, or `x` for a bare array.
    sample_stats : callable, optional
        Likewise `sample_stats(state, info)` of one chain; by default `state.logdensity` and every
        number of `info`, without momentum, proposal and ends of the trajectory. They get ArviZ's
        names; others keep theirs.
    thinning : int, default 1
        Steps per draw; the last of them is recorded.
    coords, dims : mapping, optional
        As in ArviZ.
    draws_per_block : int, default 100
        Draws between two checkpoints: at most these are computed again after a kill. It has no
        influence on the draws.
    progress : bool, default True
        Whether to show a bar.
    trace_options : mapping, optional
        Further arguments of `zarrtrace.create`: `name`, `attrs`, `observed_data`, `compressors`,
        `overwrite`, ...

    Returns
    -------
    Trace
        The finished trace: posterior and sample_stats, with the dtypes of JAX.

    Raises
    ------
    InvalidInputError
        The states do not begin with the chains, or the existing trace is of another run: it
        says which of the variables, key or settings differ. It cannot tell two
        kernels with the same states apart.
    TraceExistsError
        The place holds something that is not a trace.

    See Also
    --------
    zarrtrace.adapters.numpyro.sample : The same for NumPyro.

    Notes
    -----
    After Ctrl-C the finished blocks are kept. `Trace.request_stop` ends the run from any process,
    after the block that has the draw; then the trace is finished with the draws that it has. Runs
    agree bit for bit with the same versions of JAX on the same kind of machine.

    Examples
    --------
    >>> import blackjax
    >>> import jax
    >>> import jax.numpy as jnp
    >>> from zarrtrace.adapters.blackjax import sample
    >>> kernel = blackjax.rmh(lambda x: -0.5 * x @ x, blackjax.mcmc.random_walk.normal(jnp.ones(2)))
    >>> state = jax.vmap(kernel.init)(jnp.zeros((4, 2)))
    >>> key = jax.random.PRNGKey(1)
    >>> trace = sample(kernel.step, "run.zarr", key, state, draws=100, progress=False)
    >>> trace.status, trace.posterior.x.shape
    ('finished', (4, 100, 2))
    """
    chains = _count_chains({"initial_state": initial_state, "parameters": parameters})
    for name, number in {"thinning": thinning, "draws_per_block": draws_per_block}.items():
        if not isinstance(number, int) or number < 1:
            raise InvalidInputError(f"{name} must be a whole number from 1, got {number!r}")
    values_of = posterior or _position
    stats_of = sample_stats or _statistics

    def step_of_chain(key: Any, state: Any, parameters: Mapping[str, Any]) -> Any:
        state, info = step(key, state, **parameters)
        values = {
            "posterior": named_arrays(values_of(state), "x"),
            "sample_stats": rename_stats(named_arrays(stats_of(state, info), "x")),
        }
        return state, {group: named for group, named in values.items() if named}

    # Traced once, though its shapes are asked for again and again.
    @jax.jit
    def step_of_chains(carried: Any, number: Any) -> Any:
        state, parameters = carried
        keys = jax.random.split(jax.random.fold_in(rng_key, number), chains)
        state, values = jax.vmap(step_of_chain)(keys, state, parameters)
        return (state, parameters), values

    state = (initial_state, dict(parameters or {}))
    stored_step, names_in_model = with_stored_names(step_of_chains, state)
    trace = create_or_continue(
        store,
        chains=chains,
        tune=tune,
        draws=draws,
        step=stored_step,
        state=state,
        settings={
            "state": type(initial_state).__name__,
            "thinning": str(thinning),
            "rng_key": digest(rng_key),
        },
        library="blackjax",
        library_version=importlib.metadata.version("blackjax"),
        coords=coords,
        dims=dims,
        names_in_model=names_in_model,
        trace_options=trace_options,
    )
    if not trace.finished:
        record_in_blocks(
            trace,
            stored_step,
            state,
            unrecorded=0,
            thinning=thinning,
            draws_per_block=draws_per_block,
            progress=progress,
        )
    return trace


def _count_chains(given: Mapping[str, Any]) -> int:
    """The chains of the states; every array has them first."""
    chains = None
    for place, leaf in jax.tree_util.tree_flatten_with_path(dict(given))[0]:
        shape = jnp.shape(leaf)
        if chains is None and shape:
            chains = shape[0]
        if not shape or shape[0] != chains:
            raise InvalidInputError(
                f"{jax.tree_util.keystr(place, simple=True, separator='.')} has shape {shape}, "
                f"which does not begin with the {chains or ''} chains; make the states with "
                f"jax.vmap(kernel.init)(positions), the positions of the chains stacked"
            )
    if chains is None:
        raise InvalidInputError("initial_state has no arrays; pass jax.vmap(kernel.init)(...)")
    return int(chains)


def _position(state: Any) -> Any:
    if not hasattr(state, "position"):
        raise InvalidInputError(
            f"a {type(state).__name__} has no position; choose what to record with "
            f"posterior=lambda state: {{...}}"
        )
    return state.position


def _statistics(state: Any, info: Any) -> dict[str, Any]:
    """The log density of the state, and the fields of the info that are statistics."""
    found = {"logdensity": state.logdensity} if hasattr(state, "logdensity") else {}
    fields = info._asdict() if hasattr(info, "_asdict") else info
    if not isinstance(fields, Mapping):
        fields = {"info": fields}
    return found | {name: value for name, value in fields.items() if name not in LEFT_OUT}
