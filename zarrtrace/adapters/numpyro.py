"""NumPyro's MCMC recorded in blocks, all chains together; after a kill it continues bit for bit."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import xarray as xr
from numpyro.infer import MCMC, NUTS

import zarrtrace as zt
from zarrtrace.adopt import rename_stats
from zarrtrace.errors import InvalidInputError

from ._jax_blocks import (
    Step,
    create_or_continue,
    digest,
    is_key,
    named_arrays,
    record_in_blocks,
    with_stored_names,
)
from ._names import name_attributes, stored_name, stored_names

# The dimension names and the values of observed data.
Observed = dict[str, tuple[list[str], np.ndarray[Any, Any]]]

# The attributes that a kernel sets for a run.
_SET_BY_INIT = ("_dynamic_support", "_num_warmup")

# The fields in the states of NumPyro's kernels that ArviZ uses.
KNOWN_FIELDS = ("potential_energy", "energy", "num_steps", "accept_prob", "adapt_state.step_size")


def sample(
    mcmc: MCMC,
    store: Any,
    rng_key: Any,
    *model_args: Any,
    extra_fields: Sequence[str] | None = None,
    init_params: Any = None,
    collect_warmup: bool = False,
    coords: Mapping[str, Any] | None = None,
    dims: Mapping[str, Sequence[str]] | None = None,
    draws_per_block: int = 100,
    trace_options: Mapping[str, Any] | None = None,
    **model_kwargs: Any,
) -> zt.Trace:
    """Run an MCMC into a trace, or continue a run that was killed, interrupted or shorter.

    Called again with the same arguments after a kill, it continues after the last whole block and
    draws bit for bit what the uninterrupted run draws. With a larger `num_samples` a
    finished trace gets more. Chains are those of `mcmc.run(rng_key, *model_args, **model_kwargs)`
    with `chain_method="vectorized"`; the last digit of a value may differ where JAX
    compiles it with others. All chains run together in this process, even if
    `mcmc.chain_method` is "parallel" or "sequential"; `mcmc` itself is not changed.

    Parameters
    ----------
    mcmc : numpyro.infer.MCMC
        Provides the kernel, `num_warmup`, `num_samples`, `num_chains`, `thinning`,
        `postprocess_fn` and `progress_bar`. NumPyro runs some kernels (SA, Gibbs, BarkerMH)
        together only with `chain_method=jax.vmap`; use it here too.
    store : str, path, zarr.abc.store.Store or None
        As for `zarrtrace.create`.
    rng_key : jax.Array
        A key, or one for each chain.
    *model_args
        Arguments of the model.
    extra_fields : sequence of str, optional
        Fields of the kernel's state to record beside `diverging`, as in `MCMC.run`:
        `"adapt_state.step_size"`, `"~z.site"` to leave a site out. By default those that ArviZ
        knows. They get ArviZ's names (`lp` is the negative `potential_energy`); others keep theirs.
    init_params : pytree, optional
        Unconstrained initial values, with a leading chain axis.
    collect_warmup : bool, default False
        Whether the draws of warmup are recorded, in groups of their own.
    coords, dims : mapping, optional
        As in ArviZ. Plates of the model name their dimensions themselves.
    draws_per_block : int, default 100
        Draws between two checkpoints: at most these are computed again after a kill. It has no
        influence on the draws.
    trace_options : mapping, optional
        Further arguments of `zarrtrace.create`: `name`, `attrs`, `constant_data`, `compressors`,
        `overwrite`, ...
    **model_kwargs
        Keyword arguments of the model. Pass one that has a name of this function by position, or in
        a `functools.partial` of the model.

    Returns
    -------
    Trace
        The finished trace: posterior, sample_stats and observed_data, with the dtypes of JAX.

    Raises
    ------
    InvalidInputError
        The existing trace is of another run: it says which of the variables, arguments of the
        model, key or settings differ. It cannot tell two model functions with the same
        variables and arguments apart.
    TraceExistsError
        The place holds something that is not a trace.

    See Also
    --------
    zarrtrace.adapters.blackjax.sample : The same for a kernel of BlackJAX.

    Notes
    -----
    After Ctrl-C the finished blocks are kept. `Trace.request_stop` ends the run from any process,
    after the block that has the draw; then the trace is finished with the draws that it has. Runs
    agree bit for bit with the same versions of JAX on the same kind of machine.

    Examples
    --------
    >>> import jax
    >>> import numpyro
    >>> import numpyro.distributions as dist
    >>> from numpyro.infer import MCMC, NUTS
    >>> from zarrtrace.adapters.numpyro import sample
    >>> def model():
    ...     numpyro.sample("mu", dist.Normal(0, 1))
    >>> mcmc = MCMC(NUTS(model), num_warmup=10, num_samples=20, progress_bar=False)
    >>> trace = sample(mcmc, "run.zarr", jax.random.PRNGKey(1))
    >>> trace.status, trace.posterior.mu.shape
    ('finished', (1, 20))
    """
    thinning, num_chains = mcmc.thinning, mcmc.num_chains
    _require_whole_draws(mcmc, collect_warmup, draws_per_block)
    # A kernel is set up once, by init: the user's kernel is not changed, and can be used again.
    kernel = copy.deepcopy(mcmc.sampler)
    one_key = jnp.shape(rng_key) == (() if is_key(rng_key) else (2,))
    keys = jax.random.split(rng_key, num_chains) if num_chains > 1 and one_key else rng_key

    def initialize(key: Any, params: Any) -> Any:
        return kernel.init(
            key, mcmc.num_warmup, params, model_args=model_args, model_kwargs=model_kwargs
        )

    def advance(state: Any) -> Any:
        return kernel.sample(state, model_args, model_kwargs)

    if num_chains > 1 and callable(mcmc.chain_method):
        initialize, advance = mcmc.chain_method(initialize), mcmc.chain_method(advance)
    state = initialize(keys, jax.tree.map(jnp.asarray, init_params))
    constrain = mcmc.postprocess_fn or kernel.postprocess_fn(model_args, model_kwargs)
    constrain = jax.vmap(constrain) if num_chains > 1 else constrain
    fields, left_out = _choose_fields(kernel, state, extra_fields)

    # Traced once, though its shapes are asked for again and again.
    @jax.jit
    def step(state: Any, number: Any) -> tuple[Any, dict[str, dict[str, Any]]]:
        state = advance(state)
        sites = named_arrays(constrain(_field(state, kernel.sample_field)), "x")
        posterior = {name: value for name, value in sites.items() if name not in left_out}
        stats: dict[str, Any] = {}
        for field in fields:
            stats |= named_arrays({field: _field(state, field)}, field)
        values = {"posterior": posterior, "sample_stats": _name_stats(kernel, stats)}
        if num_chains == 1:
            values = jax.tree.map(lambda value: jnp.asarray(value)[None], values)
        return state, {group: named for group, named in values.items() if named}

    plates, observed = _look_at_model(kernel, step, state, model_args, model_kwargs)
    stored_step, names_in_model = with_stored_names(step, state)
    trace = create_or_continue(
        store,
        chains=num_chains,
        tune=mcmc.num_warmup // thinning if collect_warmup else 0,
        draws=mcmc.num_samples // thinning,
        step=stored_step,
        state=state,
        settings={
            "kernel": type(mcmc.sampler).__name__,
            **_kernel_settings(mcmc.sampler),
            "num_warmup": str(mcmc.num_warmup),
            "thinning": str(thinning),
            "rng_key": digest(rng_key),
            "init_params": digest(init_params),
            **{f"model argument {i}": digest(value) for i, value in enumerate(model_args)},
            **{f"model argument {k!r}": digest(value) for k, value in model_kwargs.items()},
        },
        library="numpyro",
        library_version=numpyro.__version__,
        coords=coords,
        dims={**plates, **(dims or {})},
        names_in_model=names_in_model,
        trace_options={
            **({"observed_data": _with_stored_names(observed)} if observed else {}),
            **(trace_options or {}),
        },
    )
    if not trace.finished:
        record_in_blocks(
            trace,
            stored_step,
            state,
            unrecorded=0 if collect_warmup else mcmc.num_warmup,
            thinning=thinning,
            draws_per_block=draws_per_block,
            progress=mcmc.progress_bar,
        )
    return trace


def _kernel_settings(kernel: Any) -> dict[str, str]:
    """The numbers, choices and names with which a kernel was made, such as target_accept_prob."""
    return {
        f"kernel {name.lstrip('_')}": repr(value)
        for name, value in sorted(vars(kernel).items())
        if isinstance(value, bool | int | float | str) and name not in _SET_BY_INIT
    }


def _require_whole_draws(mcmc: MCMC, collect_warmup: bool, draws_per_block: int) -> None:
    counts = {"num_samples": mcmc.num_samples}
    if collect_warmup:
        counts["num_warmup"] = mcmc.num_warmup
    for name, count in counts.items():
        if count % mcmc.thinning:
            raise InvalidInputError(
                f"{name} is {count}, which thinning={mcmc.thinning} does not divide; "
                f"use {count - count % mcmc.thinning}"
            )
    if not isinstance(draws_per_block, int) or draws_per_block < 1:
        raise InvalidInputError(
            f"draws_per_block must be a whole number from 1, got {draws_per_block}"
        )


def _choose_fields(
    kernel: Any, state: Any, extra_fields: Sequence[str] | None
) -> tuple[list[str], set[str]]:
    """The fields of the state to record as stats, and the sites to leave out."""
    if isinstance(extra_fields, str):
        raise InvalidInputError(f"extra_fields must be a sequence of names; use [{extra_fields!r}]")
    if extra_fields is None:
        extra_fields = [field for field in KNOWN_FIELDS if _has_field(state, field)]
    before = f"~{kernel.sample_field}."
    left_out = {name.removeprefix(before) for name in extra_fields if name.startswith(before)}
    wanted = [
        field
        for field in (*kernel.default_fields, *extra_fields)
        if field != kernel.sample_field and not field.startswith(before)
    ]
    for field in wanted:
        if not _has_field(state, field):
            raise InvalidInputError(
                f"extra_fields: the state of {type(kernel).__name__} has no {field!r}; "
                f"it has {', '.join(getattr(state, '_fields', ()))}",
                variable=field,
            )
    return list(dict.fromkeys(wanted)), left_out


def _field(state: Any, path: str) -> Any:
    for name in path.split("."):
        state = state[name] if isinstance(state, dict) else getattr(state, name)
    return state


def _has_field(state: Any, path: str) -> bool:
    try:
        _field(state, path)
    except (AttributeError, KeyError):
        return False
    return True


def _name_stats(kernel: Any, stats: dict[str, Any]) -> dict[str, Any]:
    """The stats under ArviZ's names, with the depth of NUTS's tree, which is in its steps."""
    named = rename_stats(stats)
    if isinstance(kernel, NUTS) and "n_steps" in named and "tree_depth" not in named:
        # As many bits as the number of steps has: 1 to 1, 3 to 2, 7 to 3.
        steps = jnp.asarray(named["n_steps"])
        named["tree_depth"] = steps.dtype.itemsize * 8 - jax.lax.clz(steps)
    return named


def _look_at_model(
    kernel: Any, step: Step, state: Any, model_args: Any, model_kwargs: Any
) -> tuple[dict[str, list[str]], Observed]:
    """The dimension names that the model's plates give, and its observed data with its names."""
    model: Callable[..., Any] | None = getattr(kernel, "model", None)
    if model is None:
        return {}, {}
    shapes = jax.eval_shape(step, state, 0)[1]["posterior"]
    # Any values of the right shape show the sites, and no density is computed.
    values = {name: jnp.ones(shape.shape[1:], shape.dtype) for name, shape in shapes.items()}
    handlers = numpyro.handlers
    substituted = handlers.substitute(handlers.seed(model, jax.random.key(0)), values)
    sites = handlers.trace(substituted).get_trace(*model_args, **model_kwargs)
    dims: dict[str, list[str]] = {}
    observed: Observed = {}
    for name, site in sites.items():
        if site["type"] not in ("sample", "deterministic"):
            continue
        names = _plate_names(name, site)
        if site.get("is_observed", False):
            if not isinstance(site["fn"], numpyro.distributions.Unit):
                observed[name] = (names, np.asarray(site["value"]))
        elif any(not name.startswith(f"{site['name']}_dim_") for name in names):
            dims[name] = names
    return {name: names for name, names in dims.items() if name in shapes}, observed


def _with_stored_names(observed: Observed) -> dict[str, xr.DataArray]:
    names = stored_names(observed)
    return {
        names[name]: xr.DataArray(
            values, dims=[stored_name(dim) for dim in dims], attrs=name_attributes(name)
        )
        for name, (dims, values) in observed.items()
    }


def _plate_names(name: str, site: Mapping[str, Any]) -> list[str]:
    """A name for each dimension of a site: its plate's, or ArviZ's default."""
    shape = jnp.shape(site["value"])
    names = [f"{name}_dim_{i}" for i in range(len(shape))]
    frames = site["cond_indep_stack"]
    if site["type"] == "sample":
        batch = len(shape) - site["fn"].event_dim
    else:
        # A deterministic site does not name the dimensions after its plates.
        batch = max((-frame.dim for frame in frames), default=0)
    for frame in frames:
        axis = batch + frame.dim
        if 0 <= axis < len(shape) and shape[axis] == frame.size:
            names[axis] = frame.name
    return names
