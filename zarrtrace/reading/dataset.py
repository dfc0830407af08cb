"""The draws as xarray: a consistent cut of each chain, lazy, warmup apart.

A cut is made once, when a Dataset is asked for; it never grows, shrinks or changes afterwards,
whatever writers do meanwhile. Ask the trace again for newer draws.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import xarray as xr
from xarray.backends import BackendArray, BackendEntrypoint
from xarray.core import indexing

from ..errors import DamagedTraceError
from ..layout.coordinates import SAMPLE_DIMS
from ..layout.layout import Layout, group_attrs, root_attrs
from ..layout.variables import Variable
from ..messages import counted
from ..store.small_arrays import read_array
from .cut import Cut, alignment_attrs, sampling_attrs
from .values import Drawn, Selection, padded_dtype, read_selections


class CutArray(BackendArray):
    """One variable of a cut, read when it is needed: shape (chains, draws, *shape)."""

    def __init__(self, cut: Cut, variable: Variable) -> None:
        self.cut = cut
        self.variable = variable
        self.shape = (len(cut.chains), cut.length, *variable.shape)
        self.dtype = padded_dtype(variable.dtype) if cut.padded else variable.dtype

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        if not isinstance(key, indexing.VectorizedIndexer):
            # Past the adapter, which fails for an empty slice with a negative step.
            return self.read(key.tuple)
        support = indexing.IndexingSupport.OUTER
        return indexing.explicit_indexing_adapter(key, self.shape, support, self.read)

    def read(self, key: tuple[Any, ...]) -> np.ndarray[Any, Any]:
        """The values under an outer key: an int, a slice or a 1-d array for each dimension."""
        chains, draws, *inner = (*key, slice(None), slice(None))[: max(2, len(key))]
        selection = Selection(Drawn(self.cut, chains, draws), [self.variable], tuple(inner))
        read_selections([selection])
        # A dimension under an int goes, the others stay as they are.
        kept = (0 if isinstance(k, int | np.integer) else slice(None) for k in key)
        return selection.values[(0, *kept)]


class CutEntrypoint(BackendEntrypoint):
    """Lets `xarray.open_dataset` wrap a cut in its own caching and chunking."""

    def open_dataset(
        self,
        filename_or_obj: Any,
        *,
        drop_variables: str | Iterable[str] | None = None,
    ) -> xr.Dataset:
        """The Dataset of a `Cut`."""
        cut: Cut = filename_or_obj
        dropped = {drop_variables} if isinstance(drop_variables, str) else set(drop_variables or ())
        variables = {}
        for name, variable in cut.group.variables.items():
            if name in dropped:
                continue
            data = indexing.LazilyIndexedArray(CutArray(cut, variable))
            chunks = {
                "chain": cut.layout.chains_per_chunk,
                "draw": variable.draws_per_chunk,
                **dict(zip(variable.dims, variable.shape, strict=True)),
            }
            variables[name] = xr.Variable(
                (*SAMPLE_DIMS, *variable.dims),
                data,
                cut.layout.variable_attrs(variable),
                {"preferred_chunks": chunks},
            )
        coords = _coordinates(cut, {dim for v in variables.values() for dim in v.dims})
        attrs = group_attrs(cut.layout, cut.name) | sampling_attrs(cut.moment)
        if len(set(cut.counts)) > 1:
            attrs |= alignment_attrs(np.array(cut.counts), cut.length)
        return xr.Dataset(variables, coords, attrs)


def _coordinates(cut: Cut, dims: set[Any]) -> dict[str, Any]:
    coords: dict[str, Any] = {
        "chain": ("chain", np.array(cut.chains)),
        "draw": ("draw", np.arange(cut.length)),
    }
    sizes = {
        dim: size
        for variable in cut.group.variables.values()
        for dim, size in zip(variable.dims, variable.shape, strict=True)
    }
    for name, dim in cut.layout.coords.items():
        if dim in dims:
            array = read_array(cut.moment.location, f"{cut.group.name}/{name}")
            if array.values.shape != (sizes[dim],):
                raise DamagedTraceError(
                    f"the coordinate {cut.group.name}/{name} has shape {array.values.shape}, "
                    f"dimension {dim!r} has {counted(sizes[dim], 'element')}",
                    where=str(cut.moment.location),
                    group=cut.group.name,
                )
            coords[name] = (array.dims, array.values, array.attrs)
    for dim in dims - set(coords):
        coords[dim] = (dim, np.arange(sizes[dim]))
    return coords


def open_cut(cut: Cut, chunks: Any = None) -> xr.Dataset:
    """The Dataset of a cut: lazy without dask by default, with dask when `chunks` is given."""
    return xr.open_dataset(cut, engine=CutEntrypoint, chunks=chunks)  # type: ignore[arg-type]


def build_tree(datasets: Mapping[str, xr.Dataset], layout: Layout) -> xr.DataTree:
    """A DataTree of groups, in their order."""
    root = xr.Dataset(attrs=root_attrs(layout))
    return xr.DataTree.from_dict({"/": root, **{f"/{k}": v for k, v in datasets.items()}})
