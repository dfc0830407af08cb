"""The groups of a trace as a reader sees them: each call shows one moment."""

from __future__ import annotations

import importlib.metadata
import os
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, ItemsView, Iterable, Iterator, KeysView, Mapping, ValuesView
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, cast, overload

import numpy as np
from numpy.typing import NDArray

from ..errors import GroupNotFoundError, InvalidInputError, StaleViewError, VariableNotFoundError
from ..layout.variables import Variable
from ..store.failures import own_errors_of_calls
from ..store.local import new_file
from .cut import Align, Cut, choose_chains, find_groups, make_cut, say_left_out
from .moment import Moment
from .netcdf import require_h5netcdf

if TYPE_CHECKING:
    import arviz
    import xarray as xr

    from .others import Others

Array = NDArray[Any]


@own_errors_of_calls
class GroupReader(ABC):
    """The readable content of a trace: counts, and groups as datasets, trees and arrays."""

    @abstractmethod
    def _now(self) -> Moment:
        """The moment that a call shows."""

    @property
    def path(self) -> str:
        """Where the trace is: a path, a URL, or "memory"."""
        return str(self._now())

    @property
    def groups(self) -> tuple[str, ...]:
        """The groups in ArviZ's order, the warmup groups last."""
        return self._now().groups

    @property
    def recorded(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Draws recorded per chain, warmup included: int64, shape (chains,).

        They are safe: in a local directory they survive `kill -9`, elsewhere they are flushed.

        See Also
        --------
        Trace.status : Whether the chains run.

        Examples
        --------
        >>> import zarrtrace as zt
        >>> trace = zt.create("run.zarr", chains=2, draws=100, posterior={"mu": 0.0})
        >>> with trace.writer(1) as writer:
        ...     writer.record_block({"mu": [0.1, 0.2]})
        >>> trace.recorded
        array([0, 2])
        """
        return self._now().counts.copy()

    def dataset(
        self,
        group: str,
        *,
        align: Align = "cut",
        chains: int | Iterable[int] | None = None,
        chunks: Any = None,
    ) -> xr.Dataset:
        """The draws of one group as they are now, as a lazy `xarray.Dataset`.

        Parameters
        ----------
        group : str
            One of `trace.groups`.
        align : "cut" or "pad"
            Chains of unequal length are cut to the shortest, or padded to the longest with NaN,
            NaT and "" (numbers and booleans become float64). The attributes say which, and the
            draws of each chain.
        chains : int or iterable of int, optional
            Only these chains; a single one is never cut. By default those that have a draw of the
            group: the attribute `chains_left_out` names the others.
        chunks : optional
            For dask, as in `xarray.open_dataset`; None is lazy without dask, which is what
            ArviZ needs.

        Returns
        -------
        xarray.Dataset
            A consistent cut: it does not change while writers continue.

        Raises
        ------
        GroupNotFoundError
            There is no such group, or no such warmup group yet.

        See Also
        --------
        Trace.get : Read values as NumPy arrays.
        Trace.to_datatree : Several groups as one tree.

        Examples
        --------
        >>> import zarrtrace as zt
        >>> trace = zt.create("run.zarr", chains=2, draws=100, posterior={"mu": 0.0})
        >>> for chain, count in enumerate([3, 2]):
        ...     with trace.writer(chain) as writer:
        ...         writer.record_block({"mu": [0.0, 1.0, 2.0][:count]})
        >>> trace.dataset("posterior").mu.values
        array([[0., 1.],
               [0., 1.]])
        >>> trace.dataset("posterior", align="pad").mu.values
        array([[ 0.,  1.,  2.],
               [ 0.,  1., nan]])
        >>> trace.dataset("posterior", chains=0).mu.values
        array([[0., 1., 2.]])
        """
        _, opened = self._open(self._now(), lambda now: [group], align, chains, chunks)
        return opened[group]

    def to_datatree(
        self,
        groups: Iterable[str] | None = None,
        *,
        save_warmup: bool = False,
        align: Align = "cut",
        chains: int | Iterable[int] | None = None,
        chunks: Any = None,
    ) -> xr.DataTree:
        """The trace as a lazy `xarray.DataTree`, its groups in ArviZ's order.

        Parameters
        ----------
        groups : iterable of str, optional
            Only these groups; all by default.
        save_warmup : bool, default False
            Whether to include the warmup groups.
        align : "cut" or "pad"
            How to treat chains of unequal length, as in `dataset`.
        chains : int or iterable of int, optional
            Only these chains, as in `dataset`.
        chunks : optional
            For dask, as in `dataset`.

        Returns
        -------
        xarray.DataTree
            A consistent cut of all its groups: it does not change while writers continue.

        Raises
        ------
        GroupNotFoundError
            There is no such group, or no such warmup group yet.

        See Also
        --------
        Trace.to_inferencedata : What the installed ArviZ uses.
        Trace.to_netcdf : Write it to a file.

        Examples
        --------
        >>> import zarrtrace as zt
        >>> trace = zt.create(
        ...     "run.zarr", chains=1, draws=2, posterior={"mu": 0.0}, observed_data={"y": 1.0}
        ... )
        >>> with trace.writer(0) as writer:
        ...     writer.record_block({"mu": [0.1, 0.2]})
        >>> tree = trace.to_datatree()
        >>> list(tree)
        ['posterior', 'observed_data']
        >>> tree.posterior.mu.values
        array([[0.1, 0.2]])
        """
        from .dataset import build_tree

        chosen = None if groups is None else list(groups)

        def names(now: Moment) -> Iterable[str]:
            if chosen is not None:
                return chosen
            return [name for name in now.groups if save_warmup or not name.startswith("warmup_")]

        now, opened = self._open(self._now(), names, align, chains, chunks)
        return build_tree(opened, now.layout)

    def to_inferencedata(
        self, groups: Iterable[str] | None = None, *, save_warmup: bool = False, **options: Any
    ) -> arviz.InferenceData | xr.DataTree:
        """The trace in the type that the installed ArviZ uses: InferenceData or a DataTree.

        Parameters
        ----------
        groups : iterable of str, optional
            Only these groups; all by default.
        save_warmup : bool, default False
            Whether to include the warmup groups.
        **options
            Further arguments of `to_datatree`: `align`, `chains`, `chunks`.

        Returns
        -------
        arviz.InferenceData or xarray.DataTree
            InferenceData with ArviZ < 1; the DataTree with ArviZ >= 1 or without ArviZ.

        See Also
        --------
        Trace.to_datatree : Always an `xarray.DataTree`.

        Examples
        --------
        >>> import zarrtrace as zt
        >>> trace = zt.create("run.zarr", chains=1, draws=2, posterior={"mu": 0.0})
        >>> with trace.writer(0) as writer:
        ...     writer.record_block({"mu": [0.1, 0.2]})
        >>> trace.to_inferencedata().posterior["mu"].values
        array([[0.1, 0.2]])
        """
        tree = self.to_datatree(groups, save_warmup=save_warmup, **options)
        try:
            version = importlib.metadata.version("arviz")
        except importlib.metadata.PackageNotFoundError:
            return tree
        if int(version.split(".")[0]) >= 1:
            return tree
        with warnings.catch_warnings():
            # ArviZ 0.23 announces ArviZ 1 once a day when it is imported.
            warnings.simplefilter("ignore", FutureWarning)
            import arviz

        converted: arviz.InferenceData = arviz.InferenceData.from_datatree(tree)  # type: ignore[no-untyped-call, unused-ignore]
        return converted

    def to_netcdf(
        self,
        path: str | os.PathLike[str],
        groups: Iterable[str] | None = None,
        *,
        save_warmup: bool = False,
        align: Align = "cut",
        chains: int | Iterable[int] | None = None,
        overwrite: bool = False,
    ) -> Path:
        """Write the trace to a netCDF file, as `arviz.from_netcdf` and xarray read it.

        Parameters
        ----------
        path : str or path
            The file.
        groups : iterable of str, optional
            Only these groups; all by default.
        save_warmup : bool, default False
            Whether to include the warmup groups.
        align : "cut" or "pad"
            How to treat chains of unequal length, as in `dataset`.
        chains : int or iterable of int, optional
            Only these chains, as in `dataset`.
        overwrite : bool, default False
            Whether to replace an existing file.

        Returns
        -------
        pathlib.Path
            The file. It is there when it is whole.

        Raises
        ------
        TraceExistsError
            There is a file, and `overwrite` is False.
        InvalidInputError
            h5netcdf, which writes it, is not installed.

        See Also
        --------
        Trace.pack : One zip file that zarrtrace opens.
        from_datatree : Make a trace of a netCDF file.

        Notes
        -----
        A variable is read whole to be written. Tables and segments stay in the trace.

        Examples
        --------
        >>> import xarray as xr
        >>> import zarrtrace as zt
        >>> trace = zt.create("run.zarr", chains=1, draws=2, posterior={"mu": 0.0})
        >>> with trace.writer(0) as writer:
        ...     writer.record_block({"mu": [0.1, 0.2]})
        >>> file = trace.to_netcdf("run.nc")
        >>> with xr.open_datatree(file) as tree:
        ...     tree.posterior.mu.values
        array([[0.1, 0.2]])
        """
        require_h5netcdf("writing netCDF")
        tree = self.to_datatree(groups, save_warmup=save_warmup, align=align, chains=chains)
        file = Path(path).expanduser().absolute()
        with new_file(file, overwrite) as partial:
            tree.to_netcdf(partial, engine="h5netcdf")
        return file

    @overload
    def get(
        self,
        name: str,
        *,
        group: str | None = None,
        draws: slice = slice(None),
        align: Align = "cut",
        chains: int | Iterable[int] | None = None,
        flatten: bool = False,
    ) -> Array: ...
    @overload
    def get(
        self,
        name: list[str] | tuple[str, ...],
        *,
        group: str | None = None,
        draws: slice = slice(None),
        align: Align = "cut",
        chains: int | Iterable[int] | None = None,
        flatten: bool = False,
    ) -> dict[str, Array]: ...
    def get(
        self,
        name: str | list[str] | tuple[str, ...],
        *,
        group: str | None = None,
        draws: slice = slice(None),
        align: Align = "cut",
        chains: int | Iterable[int] | None = None,
        flatten: bool = False,
    ) -> Array | dict[str, Array]:
        """Read the values of one variable, or of several at one moment, into memory.

        Parameters
        ----------
        name : str, or list or tuple of str
            The variable, or several: they are read together, which is much faster than one
            by one.
        group : str, optional
            Their group; by default the first that has such a variable, posterior before others.
        draws : slice, optional
            The draws, counted after warmup (in a `warmup_` group from the first).
        align : "cut" or "pad"
            How to treat chains of unequal length, as in `dataset`.
        chains : int or iterable of int, optional
            The chains; by default those that have a draw of the group.
        flatten : bool, default False
            Whether chains and draws become one axis, chain after chain.

        Returns
        -------
        numpy.ndarray or dict of str to numpy.ndarray
            Shape (chains, draws, *shape), or (chains * draws, *shape); for several variables a
            dictionary of such arrays. Those of one dtype and shape are views of one array: copy
            those that you keep.

        Raises
        ------
        GroupNotFoundError
            There is no such group.
        VariableNotFoundError
            No such variable is sampled in that group, or in any group without `group`.

        See Also
        --------
        Trace.dataset : Read a group lazily, with its labels.
        Trace.ragged : Read draws that vary in size.

        Examples
        --------
        >>> import zarrtrace as zt
        >>> trace = zt.create(
        ...     "run.zarr", chains=2, tune=1, draws=3, posterior={"mu": 0.0, "tau": 1.0}
        ... )
        >>> for chain in range(2):
        ...     with trace.writer(chain) as writer:
        ...         for draw in range(4):
        ...             writer.record({"mu": 10.0 * chain + draw, "tau": 1.0})
        >>> trace.get("mu")
        array([[ 1.,  2.,  3.],
               [11., 12., 13.]])
        >>> trace.get("mu", draws=slice(-2, None), flatten=True)
        array([ 2.,  3., 12., 13.])
        >>> trace.get("mu", group="warmup_posterior")
        array([[ 0.],
               [10.]])
        >>> sorted(trace.get(["mu", "tau"], chains=1))
        ['mu', 'tau']
        """
        from .values import read_values

        now = self._now()
        names = [name] if isinstance(name, str) else list(name)
        chosen = choose_chains(now.layout, chains, str(now))
        cuts: dict[str, Cut] = {}
        wanted: dict[str, tuple[Cut, Variable]] = {}
        of_others: dict[str, Array] = {}
        for one, found in zip(names, _find_groups(now, names, group), strict=True):
            if found not in cuts:
                cuts[found] = make_cut(now, found, align, chosen)
            if _is_of_others(now, found, one):
                of_others[one] = _read_of_others(cuts[found], one, draws, flatten)
            else:
                wanted[one] = cuts[found], cuts[found].group.variables[one]
        say_left_out(cuts.values())
        read = dict(zip(wanted, read_values(wanted.values(), draws, flatten), strict=True))
        read |= of_others
        return read[name] if isinstance(name, str) else {one: read[one] for one in names}

    def ragged(
        self,
        name: str,
        *,
        group: str | None = None,
        draws: slice = slice(None),
        chains: int | Iterable[int] | None = None,
    ) -> list[list[Array]]:
        """The values of a variable whose draws vary in size: an array for each draw.

        Parameters
        ----------
        name : str
            A variable that was declared with `zarrtrace.UpTo`.
        group : str, optional
            Its group; by default the first that has such a variable, posterior before others.
        draws : slice, optional
            The draws, counted after warmup (in a `warmup_` group from the first).
        chains : int or iterable of int, optional
            The chains; by default those that have a draw of the group.

        Returns
        -------
        list of list of numpy.ndarray
            For each chain a list with an array of shape (k, *shape) for each draw. The arrays of a
            call are parts of one array: copy what you keep of many.

        Raises
        ------
        InvalidInputError
            All draws of the variable have the same size.
        GroupNotFoundError, VariableNotFoundError
            As in `get`.

        See Also
        --------
        UpTo : A dimension of varying length.
        Trace.get : Read the same draws padded to the largest length.

        Examples
        --------
        >>> import zarrtrace as zt
        >>> variable = zt.Var(shape=zt.UpTo(3))
        >>> trace = zt.create("run.zarr", chains=1, draws=100, posterior={"x": variable})
        >>> with trace.writer(0) as writer:
        ...     for x in ([1.0, 2.0], [3.0]):
        ...         writer.record({"x": x})
        >>> trace.ragged("x")
        [[array([1., 2.]), array([3.])]]
        >>> trace.get("x")
        array([[[ 1.,  2., nan],
                [ 3., nan, nan]]])
        """
        now = self._now()
        [found] = _find_groups(now, [name], group)
        sampled = now.layout.groups[found.removeprefix("warmup_")]
        variable = sampled.variables.get(name)
        lengths = variable and sampled.lengths_of(variable)
        if lengths is None:
            raise InvalidInputError(
                f"{found}/{name} of {now} has draws of one size",
                remedy=f"trace.get({name!r}) reads them",
                group=found,
                variable=name,
            )
        read = Snapshot(now).get([name, lengths.name], group=found, draws=draws, chains=chains)
        return [
            [values[:length] for values, length in zip(*chain, strict=True)]
            for chain in zip(read[name], read[lengths.name].tolist(), strict=True)
        ]

    def _open(
        self,
        now: Moment,
        names: Callable[[Moment], Iterable[str]],
        align: Align = "cut",
        chains: int | Iterable[int] | None = None,
        chunks: Any = None,
    ) -> tuple[Moment, dict[str, xr.Dataset]]:
        """Some groups of a moment: of a later one if a group was replaced while it was opened."""
        chains = list(chains) if isinstance(chains, Iterator) else chains
        while True:
            cuts = _make_cuts(now, names(now), align, chains)
            try:
                opened = _open_groups(now, cuts, chunks)
            except StaleViewError:
                later = self._now()
                if later.layout is now.layout:
                    raise
                now = later
                continue
            say_left_out(cuts.values())
            return now, opened

    def __getitem__(self, group: str) -> xr.Dataset:
        return self.dataset(group)

    def __getattr__(self, name: str) -> xr.Dataset:
        if name.startswith("_"):
            raise AttributeError(name)
        now = self._now()
        if now.has_group(name):
            return self._open(now, lambda now: [name])[1][name]
        raise AttributeError(
            f"{type(self).__name__} has no attribute {name!r}, and there is no such group; "
            f"its groups are {', '.join(now.groups)}"
        )

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self.groups]

    def __contains__(self, group: object) -> bool:
        return group in self.groups

    def __iter__(self) -> Iterator[str]:
        return iter(self.groups)

    def __len__(self) -> int:
        return len(self.groups)

    def __bool__(self) -> bool:
        # `bool(trace)` reads nothing.
        return True

    def keys(self) -> KeysView[str]:
        """The names of the groups, in the order of `groups`.

        Returns
        -------
        collections.abc.KeysView of str
            The same as `groups`, as a view.

        See Also
        --------
        Trace.groups : The same names as a tuple.

        Examples
        --------
        >>> import zarrtrace as zt
        >>> trace = zt.create(chains=1, draws=9, posterior={"x": 0.0}, observed_data={"y": 1.0})
        >>> list(trace.keys())
        ['posterior', 'observed_data']
        """
        return KeysView(_as_mapping(Snapshot(self._now())))

    def values(self) -> ValuesView[xr.Dataset]:
        """The groups, all of them at this moment, as datasets.

        Returns
        -------
        collections.abc.ValuesView of xarray.Dataset
            Each group is read lazily.

        See Also
        --------
        Trace.items : With their names.

        Examples
        --------
        >>> import zarrtrace as zt
        >>> trace = zt.create(chains=1, draws=9, posterior={"x": 0.0}, observed_data={"y": 1.0})
        >>> [list(group) for group in trace.values()]
        [['x'], ['y']]
        """
        return ValuesView(_as_mapping(Snapshot(self._now())))

    def items(self) -> ItemsView[str, xr.Dataset]:
        """The names and the groups, all of them at this moment, as datasets.

        Returns
        -------
        collections.abc.ItemsView of str and xarray.Dataset
            Each group is read lazily.

        See Also
        --------
        Trace.at_once : All else at one moment.

        Examples
        --------
        >>> import zarrtrace as zt
        >>> trace = zt.create(chains=1, draws=9, posterior={"x": 0.0}, observed_data={"y": 1.0})
        >>> for name, group in trace.items():
        ...     print(name, list(group))
        posterior ['x']
        observed_data ['y']
        """
        return ItemsView(_as_mapping(Snapshot(self._now())))


@own_errors_of_calls
class Snapshot(GroupReader):
    """A trace at one moment, as returned by `Trace.at_once`.

    Everything read from it is of that moment, whatever is recorded meanwhile: the groups
    have the same draws of each chain, and later calls see what the first one saw. Draws that were
    dropped since, or whose chain went back to a checkpoint, cannot be read any more and raise, and
    neither can a group that was replaced before it was asked for.

    See Also
    --------
    Trace.at_once : Take a snapshot.

    Examples
    --------
    >>> import zarrtrace as zt
    >>> trace = zt.create("run.zarr", chains=1, draws=100, posterior={"mu": 0.0})
    >>> with trace.writer(0) as writer:
    ...     writer.record({"mu": 0.1})
    ...     now = trace.at_once()
    ...     writer.record({"mu": 0.2})
    >>> now.recorded, trace.recorded
    (array([1]), array([2]))
    """

    def __init__(self, moment: Moment) -> None:
        self._moment = moment

    def _now(self) -> Moment:
        return self._moment

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End the block; there is nothing to close."""

    def __repr__(self) -> str:
        return f"<zarrtrace.Snapshot of {self.path}: {', '.join(self.groups)}>"


def _as_mapping(groups: GroupReader) -> Mapping[str, xr.Dataset]:
    # It is a mapping, except for `get`, which reads a variable.
    return cast("Mapping[str, xr.Dataset]", groups)


def _find_groups(now: Moment, names: list[str], group: str | None) -> list[str]:
    """The group of each variable, including those that another tool added to a finished trace."""
    try:
        return find_groups(now.layout, names, group, str(now))
    except VariableNotFoundError:
        if not now.layout.finished:
            raise
    return [_find_group(now, name, group) for name in names]


def _find_group(now: Moment, name: str, group: str | None) -> str:
    for candidate in now.groups if group is None else (group,):
        is_sampled = candidate.removeprefix("warmup_") in now.layout.groups
        if is_sampled and name in _others(now, candidate, name).added:
            return candidate
    return find_groups(now.layout, [name], group, str(now))[0]


def _is_of_others(now: Moment, group: str, name: str) -> bool:
    """Whether another tool has written the array of a variable."""
    if not now.layout.finished:
        return False
    found = _others(now, group, name)
    return name in found.rewritten or name in found.added


def _others(now: Moment, group: str, name: str) -> Others:
    from .others import find_others

    return find_others(now.location, now.layout, group, [name])


def _read_of_others(cut: Cut, name: str, draws: slice, flatten: bool) -> Array:
    from .dataset import open_cut

    array = open_cut(cut)[name]
    values: Array = (array.isel(draw=draws) if "draw" in array.dims else array).values
    is_sampled = array.dims[:2] == ("chain", "draw")
    return values.reshape(-1, *values.shape[2:]) if flatten and is_sampled else values


def _make_cuts(
    now: Moment,
    names: Iterable[str],
    align: Align = "cut",
    chains: int | Iterable[int] | None = None,
) -> dict[str, Cut | None]:
    """The cut of each of some groups; None for a group that was passed whole."""
    chosen = choose_chains(now.layout, chains, str(now))
    cuts: dict[str, Cut | None] = {}
    for name in names:
        if not now.has_group(name):
            raise GroupNotFoundError(
                f"{now} has no group {name!r}",
                remedy=f"it has {', '.join(now.groups)}",
                group=name,
            )
        is_sampled = name in now.sampled_groups
        cuts[name] = make_cut(now, name, align, chosen) if is_sampled else None
    return cuts


def _open_groups(
    now: Moment, cuts: Mapping[str, Cut | None], chunks: Any = None
) -> dict[str, xr.Dataset]:
    """The groups of a moment, as they are cut."""
    from .data_groups import open_data_groups
    from .dataset import open_cut

    given = [name for name, cut in cuts.items() if cut is None]
    opened = open_data_groups(now.hierarchy, now.layout, given, chunks)
    return {
        name: opened[name] if cut is None else open_cut(cut, chunks) for name, cut in cuts.items()
    }


def open_all_groups(now: Moment) -> xr.DataTree:
    """Every group of a moment, for display: without the warning about chains left out."""
    from .dataset import build_tree

    return build_tree(_open_groups(now, _make_cuts(now, now.groups)), now.layout)
