"""Create a trace, or open one."""

from __future__ import annotations

import difflib
import inspect
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypedDict, Unpack

from .errors import InvalidInputError, NotWritableError, TraceNotFoundError
from .layout.hierarchy import Hierarchy
from .layout.layout import STATE
from .layout.variables import GROUP_ORDER
from .life import create as creation
from .life import finish as finishing
from .life import place
from .life.given_groups import settle_groups
from .messages import counted
from .store.failures import own_errors
from .store.locate import Place, locate
from .store.location import Location
from .trace import Definition, Trace

if TYPE_CHECKING:
    import xarray as xr

_MOST_NAMES = 10  # in one message


class FurtherGroups(TypedDict, total=False):
    """The groups that ArviZ knows, but for those that `create` names as parameters."""

    log_likelihood: Definition | None
    log_prior: Definition | None
    prior: Definition | None
    prior_predictive: Definition | None
    sample_stats_prior: Definition | None
    posterior_predictive: Definition | None
    predictions: Definition | None
    predictions_constant_data: Definition | xr.Dataset | None
    unconstrained_posterior: Definition | None
    unconstrained_prior: Definition | None


@own_errors
def create(
    store: Place = None,
    *,
    chains: int,
    draws: int | None,
    tune: int = 0,
    thin: int = 1,
    posterior: Definition,
    sample_stats: Definition | None = None,
    observed_data: Definition | xr.Dataset | None = None,
    constant_data: Definition | xr.Dataset | None = None,
    coords: Mapping[str, Any] | None = None,
    dims: Mapping[str, str | Sequence[str]] | None = None,
    attrs: Mapping[str, Any] | None = None,
    name: str = "",
    chains_per_chunk: int = 1,
    draws_per_chunk: int | None = None,
    superchains: Sequence[int] | None = None,
    compressors: Any = "auto",
    checksum: bool = False,
    journal: bool | str | os.PathLike[str] = True,
    flush_every: float = 10.0,
    durability: Literal["process", "disk"] = "process",
    overwrite: bool = False,
    if_exists: Literal["error", "open", "overwrite"] = "error",
    storage_options: Mapping[str, Any] | None = None,
    groups: Mapping[str, Definition | xr.Dataset] | None = None,
    **further_groups: Unpack[FurtherGroups],
) -> Trace:
    """Create a trace, ready for its writers.

    Parameters
    ----------
    store : str, path, zarr.abc.store.Store or None
        A directory, a URL (`s3://bucket/run.zarr`), any zarr store, or None for memory.
    chains : int
        Number of chains.
    draws : int or None
        Draws of each chain after warmup. With None there is no fixed number: chains are recorded
        until their sampler stops, one may be longer than another, and `finish()` ends the run.
    tune : int, default 0
        Draws of warmup of each chain.
    thin : int, default 1
        Of the draws that a writer is given, every `thin`-th is kept; of warmup too. `tune`, `draws`
        and all counts are of kept draws: a chain is given `thin * (tune + draws)` of them.
    posterior, sample_stats : mapping of str to Var or example value
        The variables of each sampled group. An example value stands for a variable of its shape
        and dtype.
    observed_data, constant_data : mapping or xarray.Dataset, optional
        Data that does not depend on the draw: arrays, DataArrays or pairs (dims, values).
    coords : mapping of str to labels, optional
        Labels of dimensions: ints, floats, strings, datetimes, or a pandas index. Tuples and mixed
        labels are kept as text; each level of a MultiIndex becomes a coordinate of its own.
    dims : mapping of str to dimension names, optional
        Dimension names of variables given by example and of data, as ArviZ takes them.
    attrs : mapping, optional
        Attributes of every group, such as `inference_library`: strings, numbers, lists of these.
    name : str, optional
        The model's name, as model comparisons show it.
    chains_per_chunk : int, default 1
        Chains that are drawn together and recorded by one writer (ensembles, vmapped chains).
    draws_per_chunk : int, optional
        Draws in one chunk of every variable that does not say itself; chosen by size by default.
    superchains : sequence of int, optional
        The superchain of each chain, such as `[0, 0, 1, 1]`, where many short chains begin at few
        points: `summary` has nested R-hat then. It is kept in the attribute `superchains` of every
        group.
    compressors : optional
        What `zarr.create_array` takes; Blosc lz4 with shuffle by default, None for none.
    checksum : bool, default False
        Whether each chunk carries a crc32c, so that `zarrtrace check` finds every flipped bit.
    journal : bool, "store" or path, default True
        Where draws are kept until their chunk is full: in the store when that is a local
        directory; in another directory on this machine, whatever the store; or, with False and
        where a store cannot be mapped, in memory, flushed every `flush_every` seconds, and at the
        end of a chunk if that takes little of the time.
        True means memory on a network file system such as NFS or Lustre. "store" insists on the
        journal in the store, which is then synced at every flush.
    flush_every : float, default 10
        Seconds of draws that a killed process may lose where there is no journal.
    durability : "process" or "disk"
        What recorded draws survive: the process, or at each checkpoint and flush power loss too.
    overwrite : bool, default False
        The same as `if_exists="overwrite"`.
    if_exists : "error", "open" or "overwrite"
        What to do when there is a trace: raise TraceExistsError; open it, if it has the same
        chains, lengths and variables; or remove it when the new one is whole. With "open" all
        processes of a job may run the same script: one makes the trace, and all have it. Nothing
        but a trace is ever removed, and none that is recorded, or that another process has made
        since this one began, less than a minute ago.
    storage_options : mapping, optional
        For a URL, what fsspec takes.
    groups : mapping of str to mapping, optional
        Groups with names of your own, such as `groups={"energies": {"e": zt.Var()}}`: sampled, as
        `posterior` is.
    **further_groups : mapping of str to Var or example value
        The other groups that ArviZ knows, by keyword: `log_likelihood`, `log_prior`, `prior`,
        `prior_predictive`, `sample_stats_prior`, `posterior_predictive`, `predictions`,
        `unconstrained_posterior` and `unconstrained_prior` are sampled,
        `predictions_constant_data` is data.

    Returns
    -------
    Trace
        The new trace, open for writing; with `if_exists="open"` the existing one, if there is one.

    Raises
    ------
    InvalidInputError
        A count or a choice is wrong, or a keyword is none of these; the message says which was
        probably meant.
    SchemaError
        A name, dtype, shape, dimension or coordinate cannot be stored; nothing is written.
    TraceExistsError
        There is something at this place already.
    ChainBusyError
        The trace that would be overwritten is being recorded.

    See Also
    --------
    open : Open an existing trace.
    Trace.writer : Record the draws of a chain.
    run : Run the chains, each in a process of its own.
    from_datatree : Make a trace of a result that another library sampled.

    Examples
    --------
    A variable is defined by `Var`, or by an example of its value:

    >>> import zarrtrace as zt
    >>> trace = zt.create(
    ...     "run.zarr",
    ...     chains=4,
    ...     tune=500,
    ...     draws=1000,
    ...     posterior={"mu": 0.0, "theta": zt.Var(dims="school")},
    ...     sample_stats={"lp": zt.Var(), "diverging": zt.Var(dtype=bool)},
    ...     coords={"school": ["Choate", "Deerfield"]},
    ... )
    >>> with trace.writer(0) as writer:
    ...     writer.record(
    ...         posterior={"mu": 0.1, "theta": [0.3, 0.2]},
    ...         sample_stats={"lp": -1.5, "diverging": False},
    ...     )
    >>> trace.recorded
    array([1, 0, 0, 0])

    Walkers that are moved together are recorded together:

    >>> walkers = zt.create(chains=32, draws=1000, chains_per_chunk=32, posterior={"x": 0.0})
    >>> walkers.blocks
    [range(0, 32)]
    """
    if if_exists not in ("error", "open", "overwrite") or (overwrite and if_exists == "open"):
        raise InvalidInputError(
            f"if_exists is 'error', 'open' or 'overwrite', got {if_exists!r}"
            f"{' together with overwrite=True' if overwrite else ''}"
        )
    location = locate(store, storage_options=storage_options)
    sampled = {"posterior": posterior, "sample_stats": sample_stats}
    data = {"observed_data": observed_data, "constant_data": constant_data}
    by_keyword = {**sampled, **data, **_known(further_groups)}
    plan = creation.plan(
        location,
        chains=chains,
        draws=draws,
        tune=tune,
        thin=thin,
        definitions={
            group: definition
            for group, definition in {**by_keyword, **_own(groups, by_keyword)}.items()
            if definition is not None
        },
        coords=coords,
        dims=dims,
        attrs=attrs,
        name=name,
        chains_per_chunk=chains_per_chunk,
        draws_per_chunk=draws_per_chunk,
        superchains=superchains,
        compressors=compressors,
        checksum=checksum,
        journal=journal,
        flush_every=flush_every,
        durability=durability,
    )
    policy = "overwrite" if overwrite else if_exists
    made = place.settle(location, policy, lambda there: creation.write(there, plan))
    hierarchy = Hierarchy(location, plan.layout if made else None)
    if not made:
        creation.require_same(location, hierarchy.layout, plan.layout)
        _do_what_is_left(hierarchy)
    return Trace(hierarchy)


@own_errors
def open(
    store: Place,
    mode: Literal["r", "a"] = "r",
    *,
    storage_options: Mapping[str, Any] | None = None,
) -> Trace:
    """Open a trace, also while chains write to it.

    Parameters
    ----------
    store : str, path or zarr.abc.store.Store
        Where it is; a finished trace may also be a `.zip` file of its directory. To read, the
        directory may also be the one that holds the trace, if it holds no other one.
    mode : "r" or "a"
        Read-only, or to write on. "a" does what is left of a split or a finish that was killed.
    storage_options : mapping, optional
        For a URL, what fsspec takes.

    Returns
    -------
    Trace
        The trace. It shows what is recorded meanwhile, too.

    Raises
    ------
    TraceNotFoundError
        There is nothing, or something else, at this place.
    FormatVersionError
        A newer zarrtrace wrote it.

    See Also
    --------
    create : Create a trace.
    Trace.at_once : Read several things at one moment.

    Examples
    --------
    >>> import zarrtrace as zt
    >>> trace = zt.create("run.zarr", chains=2, draws=1000, posterior={"mu": 0.0})
    >>> with trace.writer(0) as writer:
    ...     writer.record({"mu": 1.5})
    ...     zt.open("run.zarr").recorded
    array([1, 0])
    """
    if mode not in ("r", "a"):
        raise InvalidInputError(f"mode is 'r' or 'a', got {mode!r}; zarrtrace.create makes a trace")
    if store is None:
        raise InvalidInputError("a trace in memory is opened by the Trace that create returned")
    location = locate(store, read_only=mode == "r", storage_options=storage_options)
    if mode == "a" and not location.read_only:
        place.bring_back_what_was_there(location)
    if location.path is not None and not location.path.exists():
        raise TraceNotFoundError(f"there is nothing at {location}; zarrtrace.create makes a trace")
    if mode == "a" and location.read_only:
        raise NotWritableError(f"{location} can only be read; open it with mode='r'")
    hierarchy = Hierarchy(location)
    try:
        hierarchy.layout  # noqa: B018
    except TraceNotFoundError:
        inside = _traces_inside(location)
        if mode == "r" and len(inside) == 1:
            return Trace(Hierarchy(location.below(inside[0])))
        raise TraceNotFoundError(_what_is_there(location, inside)) from None
    if mode == "a":
        _do_what_is_left(hierarchy)
    return Trace(hierarchy)


def _do_what_is_left(hierarchy: Hierarchy) -> None:
    """Do what is left of what a process was doing to a trace when it was killed."""
    layout = hierarchy.layout
    is_half_done = layout.splitting or (layout.closed and not layout.finished)
    if layout.paused or layout.replacing or is_half_done:
        with hierarchy.location.alone() as alone:
            # Whoever is at it now will do it.
            if alone:
                if place.stay(hierarchy).replacing:
                    settle_groups(hierarchy)
                finishing.complete(hierarchy, hierarchy.layout)


def _known(keywords: Mapping[str, Any]) -> Mapping[str, Any]:
    """The groups given by keyword; a misspelt parameter must not become a group."""
    for name in keywords:
        if name not in GROUP_ORDER:
            parameters = inspect.signature(create).parameters
            known = [*GROUP_ORDER, *parameters]
            close = difflib.get_close_matches(name, known, 1)
            meant = f"did you mean {close[0]!r}? A" if close else "a"
            raise InvalidInputError(
                f"create has no parameter {name!r}",
                remedy=f"{meant} group with a name of your own goes into "
                f"groups={{{name!r}: {{...}}}}",
            )
    return keywords


def _own(groups: object, by_keyword: Mapping[str, Any]) -> Mapping[str, Any]:
    """The groups given by `groups`, each of which is given once."""
    if not isinstance(groups, Mapping | None):
        raise InvalidInputError(f"groups: give a mapping of names to groups, got {groups!r}")
    for name in groups or {}:
        if by_keyword.get(name) is not None:
            raise InvalidInputError(
                f"the group {name!r} is given by keyword and in groups",
                remedy="give it once",
                group=name,
            )
    return groups or {}


def _traces_inside(location: Location) -> list[str]:
    """The traces at most two levels below a place that is not one itself."""
    found: list[str] = []
    for name in sorted(location.children("")):
        if location.exists(f"{name}/{STATE}/zarr.json"):
            found.append(name)
        else:
            below = [f"{name}/{child}" for child in sorted(location.children(name))]
            found += [path for path in below if location.exists(f"{path}/{STATE}/zarr.json")]
    return found


def _what_is_there(location: Location, inside: Sequence[str]) -> str:
    if inside:
        names = ", ".join(inside[:_MOST_NAMES]) + (", ..." if inside[_MOST_NAMES:] else "")
        return (
            f"{location} is not a trace, but holds {counted(len(inside), 'trace')}: {names}; "
            f"add one of these names to the path"
        )
    if location.read("zarr.json") is not None:
        return (
            f"{location} is a Zarr hierarchy but not a trace of zarrtrace; "
            f"xarray.open_datatree(path, engine='zarr') may read it"
        )
    return f"{location} is not a trace: it has no {STATE}/zarr.json; is the path right?"
