"""Groups that were passed whole, as xarray reads them, with errors that name what is damaged."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from xarray.backends import BackendArray, BackendEntrypoint
from xarray.core import indexing

from ..errors import DamagedTraceError, StaleViewError, TraceError
from ..layout.hierarchy import Hierarchy
from ..layout.layout import Layout
from ..store.dtypes import as_dtype, as_labels, dtype_of_values
from ..store.failures import own_errors
from ..store.location import Location
from ..store.small_arrays import DataArray, require_credible
from ..store.zarr_json import read_document
from .as_finished import read_whole, times_given
from .given_group import GivenGroup
from .other_groups import is_rewritten
from .others import Others, require_whole

# Encodings of an array that exist only in Zarr format 3.
_OF_ZARR_3 = ("serializer", "compressors", "filters", "shards")
_ALWAYS_FITS = 2**26  # bytes


class _Group(NamedTuple):
    given: GivenGroup
    layout: Layout


class _Array(BackendArray):
    """An array that plain xarray reads, lazily."""

    def __init__(
        self,
        location: Location,
        group: str,
        name: str,
        variable: xr.Variable,
        source: Hierarchy | GivenGroup | None,
    ) -> None:
        self._location = location
        self._group = group
        self._name = name
        self._variable = variable
        self._path = group
        self._source = source
        self._arrays = source.layout.arrays if isinstance(source, Hierarchy) else None
        self.shape = variable.shape
        self.dtype = variable.dtype

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        support = indexing.IndexingSupport.OUTER
        return indexing.explicit_indexing_adapter(key, self.shape, support, self._read)

    @own_errors
    def _read(self, key: tuple[Any, ...]) -> np.ndarray[Any, Any]:
        while True:
            damage: DamagedTraceError | None = None
            try:
                values: np.ndarray[Any, Any] = self._variable_now()[key].values
            except TraceError:
                raise
            except Exception as error:
                # So little always has room: it is the bytes that ask for more.
                if isinstance(error, MemoryError) and self._variable.nbytes > _ALWAYS_FITS:
                    raise
                damage = DamagedTraceError(
                    f"{self._group}/{self._name} cannot be read ({error})",
                    where=str(self._location),
                    remedy="restore it from a copy",
                    group=self._group,
                    variable=self._name,
                )
                damage.__cause__ = error
            if self._has_moved():
                continue
            if damage is not None:
                raise damage
            if isinstance(self._source, Hierarchy):
                self._require_unmoved(self._source)
            return values

    def _require_unmoved(self, hierarchy: Hierarchy) -> None:
        """Refuse what was read in a sampled group if a split moved it, or in a copy lost chunks."""
        layout = hierarchy.layout
        if layout.arrays != self._arrays:
            raise StaleViewError(
                f"{self._group}/{self._name} of {hierarchy} was moved by a split since this view "
                f"was made",
                remedy="ask the trace for it again",
                group=self._group,
                variable=self._name,
            )
        if (
            layout.finished
            and self._name not in layout.groups[self._group.removeprefix("warmup_")].variables
        ):
            require_whole(self._location, layout, self._group, self._name)

    def _variable_now(self) -> xr.Variable:
        """The array where it lies now."""
        if isinstance(self._source, GivenGroup) and self._path != self._source.path:
            self._path = self._source.path
            self._variable = _open_raw(self._location, self._path).variables[self._name]
        return self._variable

    def _has_moved(self) -> bool:
        """Whether what was read, good or bad, may be that of another group.

        If it is that of another trace, this raises.
        """
        if isinstance(self._source, GivenGroup):
            return self._source.follow(self._source.hierarchy.layout)
        if self._source is not None:
            _ = self._source.layout
        return False


@contextmanager
def errors_as_damage(what: str, location: Location, group: str) -> Iterator[None]:
    """Turn an error of xarray for a group that it cannot read into one of ours."""
    try:
        yield
    except (TraceError, MemoryError):
        raise
    except Exception as error:
        raise DamagedTraceError(
            f"{what} cannot be read ({error})",
            where=str(location),
            remedy="`zarrtrace check` names what is damaged",
            group=group,
        ) from error


def _open_raw(
    location: Location, group: str, drop_variables: str | Iterable[str] | None = None
) -> xr.Dataset:
    """A group as xarray opens it."""
    opened: xr.Dataset = xr.open_dataset(
        location.plain_store,  # type: ignore[arg-type]
        engine="zarr",
        group=group,
        consolidated=False,
        zarr_format=3,
        chunks=None,
        cache=False,
        drop_variables=drop_variables,
    )
    return opened


def open_group_plainly(
    location: Location,
    group: str,
    source: Hierarchy | GivenGroup | None = None,
    drop_variables: str | Iterable[str] | None = None,
) -> xr.Dataset:
    """A group as xarray reads it: arrays are read when they are needed, with errors of ours.

    With a hierarchy they are refused once another trace has taken its place. With a group that was
    given whole they are read where it lies by then.
    """
    plain = _open_raw(location, group, drop_variables)
    for variable in plain.variables.values():
        for key in _OF_ZARR_3:
            variable.encoding.pop(key, None)
    lazy = {
        key: xr.Variable(
            variable.dims,
            indexing.LazilyIndexedArray(_Array(location, group, str(key), variable, source)),
            variable.attrs,
            variable.encoding,
        )
        for key, variable in plain.variables.items()
        if key not in plain.indexes
    }
    labels = {
        key: (variable.dims, as_labels(variable.values), variable.attrs, variable.encoding)
        for key, variable in plain.variables.items()
        if key in plain.indexes
    }
    plain = plain.assign_coords(labels)
    plain = plain.assign({key: lazy[key] for key in plain.data_vars})
    return plain.assign_coords({key: lazy[key] for key in plain.coords if key in lazy})


def read_labels(
    location: Location, layout: Layout, group: str, name: str, others: Others
) -> DataArray:
    """A coordinate of a sampled group, by zarrtrace or another tool."""
    if name not in others.rewritten:
        return read_whole(location, layout, f"{group}/{name}")
    with errors_as_damage(f"the coordinate {group}/{name}", location, group):
        variable = open_group_plainly(location, group).variables[name]
        values = variable.values
        values = values.astype(as_dtype(dtype_of_values(values), name), copy=False)
        return DataArray(tuple(map(str, variable.dims)), values, dict(variable.attrs))


class _GroupEntrypoint(BackendEntrypoint):
    """Lets `xarray.open_dataset` wrap a group in its own caching and chunking."""

    def open_dataset(
        self,
        filename_or_obj: Any,
        *,
        drop_variables: str | Iterable[str] | None = None,
    ) -> xr.Dataset:
        """The Dataset of a `_Group`."""
        group: _Group = filename_or_obj
        given, layout = group
        location, name, path = given.hierarchy.location, given.name, given.path
        plain = open_group_plainly(location, path, given, drop_variables)
        # Stores list their keys in no order.
        named = layout.data_groups.get(name, ())
        added = sorted(str(key) for key in plain.data_vars if key not in named)
        dataset = plain[[*named, *added, *plain.coords]]
        # What was kept is that of the group which is in place.
        for key in times_given(location, layout, name) if path == name else ():
            if key in dataset.variables and not is_rewritten(location, f"{name}/{key}"):
                array = read_whole(location, layout, f"{name}/{key}")
                dataset[key] = (array.dims, array.values, array.attrs)
        # A data set in this group has its own attributes here.
        attrs = {k: v for k, v in dataset.attrs.items() if not str(k).startswith("zarrtrace_")}
        dataset.attrs = attrs
        return dataset


def open_data_groups(
    hierarchy: Hierarchy, layout: Layout, names: Iterable[str], chunks: Any = None
) -> dict[str, xr.Dataset]:
    """The groups of a layout that were given whole.

    Raises
    ------
    DamagedTraceError
        A document of one is missing or damaged.
    StaleViewError
        One was replaced or removed since, and is nowhere any more.
    """
    groups = {name: GivenGroup(hierarchy, layout, name) for name in names}
    opened: dict[str, xr.Dataset] = {}
    while len(opened) < len(groups):
        damages = []
        for name, given in groups.items():
            if name not in opened:
                try:
                    opened[name] = _open_data_group(given, layout, chunks)
                except DamagedTraceError as error:
                    damages.append(error)
        # What a group had lost is right if it went elsewhere meanwhile.
        current = hierarchy.layout
        for name in [name for name, given in groups.items() if given.follow(current)]:
            opened.pop(name, None)
            damages = []
        for damage in damages:
            raise damage
    return opened


def _open_data_group(given: GivenGroup, layout: Layout, chunks: Any) -> xr.Dataset:
    location, name, path = given.hierarchy.location, given.name, given.path
    if read_document(location, path) is None:
        raise DamagedTraceError(
            f"the group {name} is missing",
            where=str(location),
            remedy="restore it from a copy",
            group=name,
        )
    variables = layout.data_groups.get(name, ())
    others = [] if location.waits else location.children(path)
    for variable in dict.fromkeys((*variables, *others)):
        if variable in variables or location.exists(f"{path}/{variable}/zarr.json"):
            require_credible(location, f"{path}/{variable}")
    group = _Group(given, layout)
    with errors_as_damage(f"the group {name}", location, name):
        return xr.open_dataset(group, engine=_GroupEntrypoint, chunks=chunks)  # type: ignore[arg-type]
