"""Finished results of others, adopted: what ArviZ and xarray can read becomes a trace.

Draws go through the writers block by block, as if they were sampled, so that chains get their true
lengths; groups that a sampler does not record draw by draw are added whole.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InvalidInputError, SchemaError
from ..layout.hierarchy import Hierarchy
from ..layout.variables import LENGTH_ATTRIBUTE, Var
from ..life.change import finish
from ..life.foreign_groups import (
    Datasets,
    datasets,
    in_pieces,
    plain,
    read_length,
    set_apart,
    storable_attrs,
    tidy,
)
from ..life.place import building
from ..opening import create
from ..store.failures import own_errors
from ..store.locate import locate
from ..store.location import Location
from ..trace import Trace
from .follow import adopt_files
from .input_files import text_files
from .lists import pad_lists, smc_stats_by_chain
from .results import is_path, read_result

if TYPE_CHECKING:
    import xarray as xr


_MANY_CHAINS = 16  # more of them of equal length are one block: fewer files
# Of the library that wrote the result; the trace says these of itself.
_NOT_OURS = ("created_at", "sample_dims", "sampled_variables", "tuning_steps", "arviz_version")


@own_errors
def from_datatree(tree: Any, store: Any = None, **trace_options: Any) -> Trace:
    """Make a finished trace of a result that another library sampled.

    Parameters
    ----------
    tree : xarray.DataTree, arviz.InferenceData, xarray.Dataset, str, path or list of paths
        The result; a Dataset is a posterior. A path is a netCDF file, a Zarr hierarchy (of ArviZ,
        nutpie, or anything xarray opens), an HDF5 file of emcee, or text files of draws, as
        `follow` takes them: a list of them, a pattern such as `run-*.csv`, one, or the directory
        of CmdStan's. If a chain was killed, its whole lines are taken. What is lazy, and text,
        is read in pieces.
    store : str, path, zarr.abc.store.Store or None
        Where the trace goes, as in `zarrtrace.create`.
    **trace_options
        Further arguments of `zarrtrace.create`: `name`, `attrs`, `compressors`, `checksum`,
        `overwrite`, `chains_per_chunk` (chains of a block are cut to its shortest).

    Returns
    -------
    Trace
        Finished. Values, dtypes, dimensions and labels are those of the result. Fixed are: chains
        and draws that are not numbered, or come in another order of dimensions; the names of
        stats, which become ArviZ's; stats that have warmup and draws in one group, as ArviZ 1.3
        makes them of CmdStan's; attributes that netCDF cannot hold; object arrays of text;
        lists of numbers, one for each chain or draw, such as the stats of `pymc.sample_smc`, which
        are padded to the longest, with a variable `<name>_length` beside them;
        chains whose last draws are NaN in every float of the posterior, because the sampler never
        got there: they end where they ended, and chains without any draw are left out, as the
        attribute `adopted_chains` says. What a group with the draws of the posterior has
        that does not depend on the draw, and is not a coordinate along one dimension, is in a group
        `constant_...` of its own; arrays without any draw are left out.

    Raises
    ------
    InvalidInputError
        There is no posterior with chains and draws, or it has no draw.
    SchemaError
        A name or dtype cannot be stored, or warmup and posterior have not the same variables.

    See Also
    --------
    follow : Record text files while they grow.
    Trace.update : Add groups of a result to a trace.

    Notes
    -----
    A trace that is overwritten stays until the new one is finished, so that it may be the result
    itself, or what the result is read from; an error or a kill changes nothing. The result is never
    changed.

    Examples
    --------
    >>> import numpy as np
    >>> import xarray as xr
    >>> import zarrtrace as zt
    >>> posterior = xr.Dataset({"mu": (("chain", "draw"), np.zeros((4, 100)))})
    >>> trace = zt.from_datatree(posterior, "run.zarr")
    >>> trace.status, trace.recorded
    ('finished', array([100, 100, 100, 100]))

    A file is read by its name:

    >>> file = trace.to_netcdf("result.nc")
    >>> zt.from_datatree("result.nc", "copy.zarr").posterior.mu.shape
    (4, 100)
    """
    if "thin" in trace_options:
        raise InvalidInputError(
            "thin: a result is adopted as it is; thin it before, with "
            "tree.isel(draw=slice(None, None, 10))"
        )
    if store is None:
        return _adopt(tree, None, trace_options)
    location = locate(store, storage_options=trace_options.pop("storage_options", None))
    overwrite = trace_options.pop("overwrite", False)
    if_exists = "overwrite" if overwrite else trace_options.pop("if_exists", "error")
    # What is there may be what is read here.
    with building(location, if_exists) as new:
        _adopt(tree, new, trace_options)
    return Trace(Hierarchy(location))


def _adopt(tree: Any, store: Location | None, trace_options: dict[str, Any]) -> Trace:
    """Make the trace, in memory or at a place where nothing is."""
    if is_path(tree):
        files = text_files(tree)
        if files:
            trace = adopt_files(files, store, trace_options)
            finish(trace._hierarchy)
            return trace
        with closing(read_result(tree)) as opened:
            return _adopt(opened, store, trace_options)
    found = smc_stats_by_chain(datasets(tree))
    groups = {name: tidy(name, pad_lists(data)) for name, data in found.items()}
    groups = _set_constants_apart(_set_warmup_apart(groups))
    if "posterior" not in groups or None in _sizes(groups["posterior"]):
        raise InvalidInputError(
            f"a result has a group 'posterior' with the dimensions chain and draw; this one has "
            f"{_shown(groups)}. Stacked samples are unstacked first: data.unstack('sample')"
        )
    recorded = _recorded_groups(groups)
    posterior, tune = groups["posterior"], _draws(groups, "warmup_posterior")
    counts = _count_draws(posterior)
    chains = np.flatnonzero(counts)
    if not len(chains):
        raise InvalidInputError("every draw of the posterior is NaN: there is nothing to adopt")
    together = len(chains) > _MANY_CHAINS and len(set(counts[chains])) == 1
    options = {"chains_per_chunk": len(chains) if together else 1, **trace_options}
    options["attrs"] = {**_attributes(tree, groups, chains), **options.get("attrs", {})}
    options.setdefault("name", str(getattr(tree, "attrs", {}).get("name", "")))
    definitions: dict[str, Any] = {name: _definition(groups[name]) for name in recorded}
    options["groups"] = {**definitions, **(options.get("groups") or {})}
    trace = create(
        store,
        chains=len(chains),
        tune=tune,
        draws=int(counts.max()),
        coords=_labels(groups[name] for name in recorded),
        posterior=options["groups"].pop("posterior"),
        **options,
    )
    for block in trace.blocks:
        mine = chains[[block] if isinstance(block, int) else list(block)]
        _record(trace, block, groups, recorded, mine, int(counts[mine].min()))
    kept = {"chain": chains, "draw": slice(int(counts[chains].min()))}
    for name, data in groups.items():
        if name not in recorded and name.removeprefix("warmup_") not in recorded:
            if _sizes(data) == _sizes(posterior):
                data = data.isel(kept).drop_vars(["chain", "draw"], errors="ignore")
            trace.add_group(name, in_pieces(data))
    # Its chains end where they ended: that is nothing to warn of.
    finish(trace._hierarchy)
    return trace


# What is there ----------------------------------------------------------------------------------


def _set_warmup_apart(groups: Datasets) -> Datasets:
    """The groups; stats that cover warmup and the other draws become two."""
    tune, both = _draws(groups, "warmup_posterior"), _draws(groups, "sample_stats")
    if not tune or "warmup_sample_stats" in groups or both != tune + _draws(groups, "posterior"):
        return groups
    stats = groups["sample_stats"]
    return {
        **groups,
        "sample_stats": stats.isel(draw=slice(tune, None)),
        "warmup_sample_stats": stats.isel(draw=slice(tune)),
    }


def _set_constants_apart(groups: Datasets) -> Datasets:
    """The groups, those with draws without what does not depend on the draw, and that beside."""
    variables = {name for data in groups.values() for name in data.data_vars}
    sizes = _sizes(groups["posterior"]) if "posterior" in groups else None
    found: Datasets = {}
    for name, data in groups.items():
        data = set_apart(data, variables)
        # Other groups with draws are added whole, with all that they have.
        if _sizes(data) == sizes or name.startswith("warmup_"):
            constant = [key for key, array in data.data_vars.items() if not _is_sampled(array)]
            if constant:
                found[f"constant_{name}"] = data[constant].drop_vars("draw", errors="ignore")
            data = data.drop_vars(constant)
        if data.data_vars:
            found[name] = data
    return found


def _recorded_groups(groups: Datasets) -> list[str]:
    """The groups that go through the writers: those with the draws of the posterior."""
    recorded = ["posterior", *(name for name in groups if name != "posterior")]
    recorded = [name for name in recorded if _goes_with_posterior(groups, name)]
    for name in groups:
        if not name.startswith("warmup_"):
            continue
        after = name.removeprefix("warmup_")
        missing = set(groups[name]) ^ set(groups.get(after, ()))
        if after not in recorded or missing:
            differences = f": {', '.join(sorted(map(str, missing)))}" if missing else ""
            raise SchemaError(
                f"{name} and {after} have not the same variables, chains and draws of "
                f"warmup{differences}; leave {name} out: del tree[{name!r}]",
                group=name,
            )
    return recorded


def _goes_with_posterior(groups: Datasets, name: str) -> bool:
    """Whether a group has the chains, draws, warmup and labels of the posterior."""
    data, posterior = groups[name], groups["posterior"]
    tune = _draws(groups, "warmup_posterior")
    return (
        _sizes(data) == _sizes(posterior)
        and not name.startswith(("warmup_", "constant_"))
        and (not tune or _draws(groups, f"warmup_{name}") == tune)
        and all(data.sizes[dim] == posterior.sizes.get(dim, data.sizes[dim]) for dim in data.dims)
        and all(
            coord.identical(posterior.coords.get(key, coord))
            for key, coord in data.coords.items()
            if key not in ("chain", "draw")
        )
    )


def _has_lengths(array: xr.DataArray, data: xr.Dataset) -> bool:
    """Whether an array of NaN says nothing: its draws vary in size, and may be empty."""
    name = array.attrs.get(LENGTH_ATTRIBUTE)
    return isinstance(name, str) and name in data and data[name].dtype.kind in "iu"


def _is_sampled(array: Any) -> bool:
    return {"chain", "draw"} <= set(array.dims)


def _draws(groups: Datasets, name: str) -> int:
    return int(groups[name].sizes.get("draw", 0)) if name in groups else 0


def _sizes(data: xr.Dataset) -> tuple[int | None, int | None]:
    return data.sizes.get("chain"), data.sizes.get("draw")


def _shown(groups: Datasets) -> str:
    shown = [f"{name} ({', '.join(map(str, data.dims))})" for name, data in groups.items()]
    return ", ".join(shown) or "no groups"


def _count_draws(posterior: xr.Dataset) -> np.ndarray[Any, Any]:
    """Draws of each chain up to its last one that is not NaN throughout: int64, (chains,)."""
    chains, draws = posterior.sizes["chain"], posterior.sizes["draw"]
    counts = np.full(chains, draws)
    floats = [
        array
        for array in posterior.data_vars.values()
        if array.dtype.kind in "fc" and not _has_lengths(array, posterior)
    ]
    if not floats:
        return counts
    length = read_length(posterior, 1)
    for chain in range(chains):
        # From the end: where all is well, one piece is read.
        for start in range((draws - 1) // length * length, -1, -length):
            there = np.zeros(min(length, draws - start), dtype=bool)
            for array in floats:
                values = array.isel(chain=chain, draw=slice(start, start + length)).values
                there |= ~np.isnan(values).reshape(len(there), -1).all(axis=1)
            if there.any():
                counts[chain] = start + np.flatnonzero(there)[-1] + 1
                break
        else:
            counts[chain] = 0
    return counts


# Into the trace ---------------------------------------------------------------------------------


def _definition(data: xr.Dataset) -> dict[str, Var]:
    return {
        str(name): Var(
            shape=array.shape[2:],
            dtype=str if array.dtype.kind in "OSUT" else array.dtype,
            dims=[str(dim) for dim in array.dims[2:]],
            attrs=storable_attrs(array.attrs),
        )
        for name, array in data.data_vars.items()
    }


def _labels(groups: Iterable[xr.Dataset]) -> dict[str, Any]:
    """The coordinates of all dimensions but chain and draw."""
    import xarray as xr

    found: dict[str, Any] = {}
    for data in groups:
        for name, coord in data.coords.items():
            index = getattr(data.xindexes.get(name), "index", None)
            if hasattr(index, "levels"):
                if name in coord.dims:  # the levels come with it
                    found[str(name)] = index
            elif not {"chain", "draw"} & set(coord.dims):
                attrs, values = storable_attrs(coord.attrs), coord.values
                values = np.char.decode(values) if values.dtype.kind == "S" else values
                found[str(name)] = xr.DataArray(values, dims=coord.dims, attrs=attrs)
                found.setdefault(str(coord.dims[0]), np.arange(coord.size))
    return found


def _record(
    trace: Trace,
    block: int | range,
    groups: Datasets,
    recorded: list[str],
    chains: np.ndarray[Any, Any],
    count: int,
) -> None:
    """Record the warmup and the first `count` draws of a block of chains."""
    which: Any = chains[0] if isinstance(block, int) else chains
    stretches = [("warmup_", trace.tune), ("", count)] if trace.tune else [("", count)]
    with trace.writer(block) as writer:
        for prefix, draws in stretches:
            length = min(read_length(groups[prefix + name], len(chains)) for name in recorded)
            for start in range(0, draws, length):
                piece = {"chain": which, "draw": slice(start, min(start + length, draws))}
                writer.record_block(
                    **{
                        name: {
                            str(key): plain(array.isel(piece).values, f"{name}/{key}")
                            for key, array in groups[prefix + name].data_vars.items()
                        }
                        for name in recorded
                    }
                )


# Attributes -------------------------------------------------------------------------------------


def _attributes(tree: Any, groups: Datasets, chains: np.ndarray[Any, Any]) -> dict[str, Any]:
    """What the result says of itself, as netCDF can hold it, and where its chains come from."""
    posterior = groups["posterior"]
    given: dict[str, Any] = {}
    for attrs in (getattr(tree, "attrs", {}), *(data.attrs for data in groups.values())):
        given = {**attrs, **given}
    attrs = {
        key: value
        for key, value in storable_attrs(given).items()
        if key not in _NOT_OURS and not key.startswith("creation_library") and key != "name"
    }
    if attrs.get("sampler") == "nuts-rs":
        attrs.setdefault("inference_library", "nutpie")
    labels = posterior.chain.values if "chain" in posterior.coords else None
    labels = np.arange(posterior.sizes["chain"]) if labels is None else labels
    if labels[chains].tolist() != list(range(len(labels))):
        attrs["adopted_chains"] = labels[chains].tolist()
    return attrs
