"""The rows of a table as xarray: those that exist at the call, read when they are used."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from xarray.backends import BackendArray, BackendEntrypoint
from xarray.core import indexing

from ..layout.variables import Variable
from ..store.failures import own_errors
from ..store.location import Location
from .layout import ROW
from .rows import read_rows
from .table_file import TableFile


class Rows(NamedTuple):
    """The first rows of a table."""

    location: Location
    table_file: TableFile
    length: int


class LazyColumn(BackendArray):
    """One column: shape (rows, *shape)."""

    def __init__(self, rows: Rows, column: Variable) -> None:
        self._rows = rows
        self._name = column.name
        self.shape = (rows.length, *column.shape)
        self.dtype = column.dtype

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        if not isinstance(key, indexing.VectorizedIndexer):
            # This avoids xarray's adapter, which fails for an empty slice with a negative step.
            return self._read(key.tuple)
        support = indexing.IndexingSupport.OUTER
        return indexing.explicit_indexing_adapter(key, self.shape, support, self._read)

    @own_errors
    def _read(self, key: tuple[Any, ...]) -> Any:
        """The values under an int, a slice or a 1-d array for each dimension."""
        wanted = np.arange(self.shape[0])[key[0]]
        first, last = (int(wanted.min()), int(wanted.max())) if wanted.size else (0, -1)
        values = read_rows(*self._rows[:2], self._name, range(first, last + 1))
        # Start at the last dimension: an int removes its dimension.
        for axis in reversed(range(1, len(key))):
            values = values[(*(slice(None) for _ in range(axis)), key[axis])]
        return values[wanted - first]


class RowsEntrypoint(BackendEntrypoint):
    """Lets `xarray.open_dataset` wrap the columns in its own caching."""

    def open_dataset(
        self,
        filename_or_obj: Any,
        *,
        drop_variables: str | Iterable[str] | None = None,
    ) -> xr.Dataset:
        """The Dataset of `Rows`."""
        rows: Rows = filename_or_obj
        stored = rows.table_file.current()
        variables: dict[str, xr.Variable] = {}
        coords: dict[str, Any] = {}
        for column in stored.layout.variables:
            chunks = dict(zip(column.dims, column.shape, strict=True))
            variables[column.name] = xr.Variable(
                (ROW, *column.dims),
                indexing.LazilyIndexedArray(LazyColumn(rows, column)),
                stored.document(column.name)["attributes"],
                {"preferred_chunks": {ROW: column.draws_per_chunk, **chunks}},
            )
            coords |= {dim: np.arange(size) for dim, size in chunks.items()}
        return xr.Dataset(variables, coords, stored.layout.shown_attrs)


def open_rows(rows: Rows) -> xr.Dataset:
    """The Dataset of some rows, lazy without dask."""
    return xr.open_dataset(rows, engine=RowsEntrypoint)  # type: ignore[arg-type]
