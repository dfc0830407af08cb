"""Groups that were given whole, as xarray reads them, with errors that name what is damaged."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from xarray.backends import BackendArray, BackendEntrypoint
from xarray.core import indexing

from ..errors import DamagedTraceError, TraceError
from ..layout.hierarchy import Hierarchy
from ..layout.layout import Layout
from ..store.small_arrays import require_credible
from ..store.zarr_json import read_document

# How an array was encoded, in terms that only the third format of Zarr has.
_OF_ZARR_3 = ("serializer", "compressors", "filters", "shards")
_ALWAYS_FITS = 2**26  # bytes


class _Group(NamedTuple):
    hierarchy: Hierarchy
    layout: Layout
    name: str


class _Array(BackendArray):
    """An array that plain xarray reads, when it is needed."""

    def __init__(self, group: _Group, name: str, variable: xr.Variable) -> None:
        self._where = f"{group.hierarchy}: {group.name}/{name}"
        self._hierarchy = group.hierarchy
        self._group = group.name
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


def _require_same_trace(hierarchy: Hierarchy) -> None:
    """Refuse what was read, good or bad, if it is that of another trace."""
    _ = hierarchy.layout


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
        plain: xr.Dataset = xr.open_dataset(
            hierarchy.location.plain_store,  # type: ignore[arg-type]
            engine="zarr",
            group=name,
            consolidated=False,
            zarr_format=3,
            chunks=None,
            cache=False,
            drop_variables=drop_variables,
        )
        # Stores list their keys in no order.
        dataset = plain[[*layout.data_groups[name], *plain.coords]]
        for variable in dataset.variables.values():
            for key in _OF_ZARR_3:
                variable.encoding.pop(key, None)
        lazy = {
            key: xr.Variable(
                variable.dims,
                indexing.LazilyIndexedArray(_Array(group, str(key), variable)),
                variable.attrs,
                variable.encoding,
            )
            for key, variable in dataset.variables.items()
            if key not in dataset.indexes
        }
        dataset = dataset.assign({key: lazy[key] for key in dataset.data_vars})
        dataset = dataset.assign_coords({key: lazy[key] for key in dataset.coords if key in lazy})
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
    variables = layout.data_groups[name]
    others = [] if location.waits else location.children(name)
    for variable in dict.fromkeys((*variables, *others)):
        if variable in variables or location.exists(f"{name}/{variable}/zarr.json"):
            require_credible(location, f"{name}/{variable}")
    group = _Group(hierarchy, layout, name)
    try:
        return xr.open_dataset(group, engine=_GroupEntrypoint, chunks=chunks)  # type: ignore[arg-type]
    except (TraceError, MemoryError):
        raise
    except Exception as error:
        raise DamagedTraceError(
            f"the group {name} cannot be read ({error})",
            where=str(location),
            remedy="`zarrtrace check` names what is damaged",
            group=name,
        ) from error
