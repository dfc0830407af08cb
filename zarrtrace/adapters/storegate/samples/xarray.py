"""Arrays of samples as an xarray.Dataset: lazy, with dask only on request."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import numpy as np
import xarray as xr
from xarray.backends import BackendArray, BackendEntrypoint
from xarray.core import indexing


class Samples(Protocol):
    """The parts of an array of samples that are used here."""

    @property
    def shape(self) -> tuple[int, ...]: ...  # noqa: D102

    @property
    def dtype(self) -> np.dtype[Any]: ...  # noqa: D102

    @property
    def dims(self) -> tuple[str, ...]: ...  # noqa: D102

    @property
    def rows_per_chunk(self) -> int: ...  # noqa: D102

    def __getitem__(self, index: Any) -> Any: ...


class SamplesArray(BackendArray):
    """One variable, read lazily, with as many samples as the Dataset has."""

    def __init__(self, samples: Samples, length: int) -> None:
        self.samples = samples
        self.shape = (length, *samples.shape[1:])
        self.dtype = samples.dtype

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        support = indexing.IndexingSupport.OUTER
        return indexing.explicit_indexing_adapter(key, self.shape, support, self._read)

    def _read(self, key: tuple[Any, ...]) -> Any:
        """The values under an outer key: an int, a slice or a 1-d array for each dimension."""
        first, *rest = key
        # Only samples of the Dataset count: the array may have more by now.
        rows = range(self.shape[0])[first] if isinstance(first, slice) else first
        if isinstance(rows, range):
            first = slice(rows.start, rows.stop) if rows.step == 1 else np.asarray(rows)
        found = self.samples[first]
        axis = 0 if isinstance(first, int | np.integer) else 1
        for index in rest:
            found = found[(*(slice(None) for _ in range(axis)), index)]
            axis += not isinstance(index, int | np.integer)
        return found


class SamplesEntrypoint(BackendEntrypoint):
    """Lets `xarray.open_dataset` wrap arrays of samples in its own caching and chunking."""

    def open_dataset(
        self,
        filename_or_obj: Any,
        *,
        drop_variables: str | Iterable[str] | None = None,
    ) -> xr.Dataset:
        """The Dataset of a mapping of `Samples`, as long as the shortest of them."""
        arrays: Mapping[str, Samples] = filename_or_obj
        length = min((array.shape[0] for array in arrays.values()), default=0)
        dropped = {drop_variables} if isinstance(drop_variables, str) else set(drop_variables or ())
        variables = {}
        for name, array in arrays.items():
            if name not in dropped:
                data = indexing.LazilyIndexedArray(SamplesArray(array, length))
                preferred = {"preferred_chunks": {array.dims[0]: array.rows_per_chunk}}
                variables[name] = xr.Variable(array.dims, data, {}, preferred)
        return xr.Dataset(variables)


def open_samples(arrays: Mapping[str, Samples], chunks: Any = None) -> xr.Dataset:
    """The Dataset of arrays of samples: with dask when `chunks` is given."""
    return xr.open_dataset(arrays, engine=SamplesEntrypoint, chunks=chunks)  # type: ignore[arg-type]
