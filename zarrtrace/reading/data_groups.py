"""Groups that were given whole, as xarray reads them, with errors that name what is damaged."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from xarray.backends import BackendArray, BackendEntrypoint
from xarray.core import indexing

from ..errors import DamagedTraceError, TraceError
from ..layout.hierarchy import Hierarchy
from ..layout.layout import Layout
from ..store.dtypes import as_dtype, as_labels, dtype_of_values
from ..store.location import Location
from ..store.small_arrays import DataArray, require_credible
from ..store.zarr_json import read_document
from .as_finished import read_whole, times_given
from .other_groups import is_rewritten
from .others import Others

# How an array was encoded, in terms that only the third format of Zarr has.
_OF_ZARR_3 = ("serializer", "compressors", "filters", "shards")
_ALWAYS_FITS = 2**26  # bytes


class _Group(NamedTuple):
    hierarchy: Hierarchy
    layout: Layout
    name: str


class _Array(BackendArray):
    """An array that plain xarray reads, when it is needed."""

    def __init__(
        self,
        location: Location,
        hierarchy: Hierarchy | None,
        group: str,
        name: str,
        variable: xr.Variable,
    ) -> None:
        self._where = f"{location}: {group}/{name}"
        self._hierarchy = hierarchy
        self._group = group
        self._name = name
        self._variable = variable
        self.shape = variable.shape
        self.dtype = variable.dtype

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        support = indexing.IndexingSupport.OUTER
        return indexing.explicit_indexing_adapter(key, self.shape, support, self._read)

    def _read(self, key: tuple[Any, ...]) -> np.ndarray[Any, Any]:
        try:
            values: np.ndarray[Any, Any] = self._variable[key].values
            _require_same_trace(self._hierarchy)
            return values
        except TraceError:
            raise
        except Exception as error:
            _require_same_trace(self._hierarchy)
            # So little always has room: it is the bytes that ask for more.
            if isinstance(error, MemoryError) and self._variable.nbytes > _ALWAYS_FITS:
                raise
            raise DamagedTraceError(
                f"{self._where} cannot be read ({error}); restore it from a copy",
                group=self._group,
                variable=self._name,
            ) from error


def _require_same_trace(hierarchy: Hierarchy | None) -> None:
    """Refuse what was read, good or bad, if it is that of another trace."""
    if hierarchy is not None:
        _ = hierarchy.layout


@contextmanager
def errors_as_damage(what: str, location: Location, group: str) -> Iterator[None]:
    """What xarray raises for a group that it cannot read, as an error of ours."""
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


def open_group_plainly(
    location: Location,
    group: str,
    hierarchy: Hierarchy | None = None,
    drop_variables: str | Iterable[str] | None = None,
) -> xr.Dataset:
    """A group as xarray reads it: arrays are read when they are needed, with errors of ours.

    With a hierarchy they are refused once another trace has taken its place.
    """
    plain: xr.Dataset = xr.open_dataset(
        location.plain_store,  # type: ignore[arg-type]
        engine="zarr",
        group=group,
        consolidated=False,
        zarr_format=3,
        chunks=None,
        cache=False,
        drop_variables=drop_variables,
    )
    for variable in plain.variables.values():
        for key in _OF_ZARR_3:
            variable.encoding.pop(key, None)
    lazy = {
        key: xr.Variable(
            variable.dims,
            indexing.LazilyIndexedArray(_Array(location, hierarchy, group, str(key), variable)),
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
    """A coordinate of a sampled group, whoever has written it."""
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
        hierarchy, layout, name = group
        location = hierarchy.location
        plain = open_group_plainly(location, name, hierarchy, drop_variables)
        # Stores list their keys in no order.
        given = layout.data_groups.get(name, ())
        added = sorted(str(key) for key in plain.data_vars if key not in given)
        dataset = plain[[*given, *added, *plain.coords]]
        for key in times_given(location, layout, name):
            if key in dataset.variables and not is_rewritten(location, f"{name}/{key}"):
                array = read_whole(location, layout, f"{name}/{key}")
                dataset[key] = (array.dims, array.values, array.attrs)
        # How a data set in this group keeps its own.
        attrs = {k: v for k, v in dataset.attrs.items() if not str(k).startswith("zarrtrace_")}
        dataset.attrs = attrs
        return dataset


def open_data_group(
    hierarchy: Hierarchy, layout: Layout, name: str, chunks: Any = None
) -> xr.Dataset:
    """A group that was given whole.

    Raises
    ------
    DamagedTraceError
        A document of it is missing or damaged.
    """
    location = hierarchy.location
    if read_document(location, name) is None:
        raise DamagedTraceError(
            f"the group {name} is missing",
            where=str(location),
            remedy="restore it from a copy",
            group=name,
        )
    variables = layout.data_groups.get(name, ())
    others = [] if location.waits else location.children(name)
    for variable in dict.fromkeys((*variables, *others)):
        if variable in variables or location.exists(f"{name}/{variable}/zarr.json"):
            require_credible(location, f"{name}/{variable}")
    group = _Group(hierarchy, layout, name)
    with errors_as_damage(f"the group {name}", location, name):
        return xr.open_dataset(group, engine=_GroupEntrypoint, chunks=chunks)  # type: ignore[arg-type]
