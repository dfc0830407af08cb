"""A phase of a data set as xarray knows it: lazy, without dask unless it is asked for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import xarray as xr
from xarray.backends import BackendArray, BackendEntrypoint
from xarray.core import indexing

from .array import SAMPLE
from .data_set import Phase, Samples


class SamplesArray(BackendArray):
    """One variable, read when it is needed: of as many samples as the Dataset has."""

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
        # Counted in the samples of the Dataset: there may be more by now.
        rows = range(self.shape[0])[first] if isinstance(first, slice) else first
        if isinstance(rows, range):
            first = slice(rows.start, rows.stop) if rows.step == 1 else np.asarray(rows)
        found = self.samples[first]
        axis = 0 if isinstance(first, int | np.integer) else 1
        for index in rest:
            found = found[(*(slice(None) for _ in range(axis)), index)]
            axis += not isinstance(index, int | np.integer)
        return found


class PhaseEntrypoint(BackendEntrypoint):
    """Lets `xarray.open_dataset` wrap a phase in its own caching and chunking."""

    def open_dataset(
        self,
        filename_or_obj: Any,
        *,
        drop_variables: str | Iterable[str] | None = None,
    ) -> xr.Dataset:
        """The Dataset of a `Phase`, as long as its shortest variable."""
        phase: Phase = filename_or_obj
        length = phase.data.sizes[phase.name]
        dropped = {drop_variables} if isinstance(drop_variables, str) else set(drop_variables or ())
        variables = {}
        for name, samples in phase.items():
            if name not in dropped:
                data = indexing.LazilyIndexedArray(SamplesArray(samples, length))
                preferred = {"preferred_chunks": {SAMPLE: samples.rows_per_chunk}}
                variables[name] = xr.Variable(samples.dims, data, {}, preferred)
        return xr.Dataset(variables)


def open_phase(phase: Phase, chunks: Any = None) -> xr.Dataset:
    """The Dataset of a phase: with dask when `chunks` is given."""
    return xr.open_dataset(phase, engine=PhaseEntrypoint, chunks=chunks)  # type: ignore[arg-type]
