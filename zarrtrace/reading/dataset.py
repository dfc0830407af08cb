"""The draws as xarray: a consistent cut of each chain, lazy, warmup apart.

A cut is made when a Dataset is returned; it never grows, shrinks or changes afterwards,
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
from ..store.dtypes import as_labels
from ..store.failures import own_errors
from .cut import Cut, alignment_attrs, sampling_attrs
from .data_groups import errors_as_damage, open_group_plainly, read_labels
from .others import Others, find_others, require_selected, select_of_others
from .values import Drawn, Selection, padded_dtype, read_selections


class CutArray(BackendArray):
    """One variable of a cut, read lazily: shape (chains, draws, *shape)."""

    def __init__(self, cut: Cut, variable: Variable) -> None:
        self.cut = cut
        self.variable = variable
        self.shape = (len(cut.chains), cut.length, *variable.shape)
        self.dtype = padded_dtype(variable.dtype) if cut.padded else variable.dtype

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        if not isinstance(key, indexing.VectorizedIndexer):
            # This avoids xarray's adapter, which fails for an empty slice with a negative step.
            return self.read(key.tuple)
        support = indexing.IndexingSupport.OUTER
        return indexing.explicit_indexing_adapter(key, self.shape, support, self.read)

    @own_errors
    def read(self, key: tuple[Any, ...]) -> np.ndarray[Any, Any]:
        """The values under an outer key: an int, a slice or a 1-d array for each dimension."""
        chains, draws, *inner = (*key, slice(None), slice(None))[: max(2, len(key))]
        selection = Selection(Drawn(self.cut, chains, draws), [self.variable], tuple(inner))
        read_selections([selection])
        # A dimension under an int is removed; the others stay as they are.
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
        others = find_others(cut.moment.location, cut.layout, cut.name)
        plain = _written_by_others(cut, others)
        variables = {}
        for name, variable in cut.group.variables.items():
            if name in dropped:
                continue
            if name in others.rewritten:
                variables[name] = require_selected(cut, name, plain.variables[name])
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
                others.attrs.get(name, cut.layout.variable_attrs(variable)),
                {"preferred_chunks": chunks},
            )
        coords = _coordinates(cut, {dim for v in variables.values() for dim in v.dims}, others)
        for name in others.added:
            added = select_of_others(cut, plain.variables[name]) if name in plain else None
            if added is not None and name not in dropped:
                (coords if name in plain.coords else variables)[name] = added
        attrs = group_attrs(cut.layout, cut.name) | sampling_attrs(cut.moment)
        if len(set(cut.counts)) > 1:
            attrs |= alignment_attrs(np.array(cut.counts), cut.length)
        if cut.left_out:
            attrs["chains_left_out"] = list(cut.left_out)
        return xr.Dataset(variables, coords, attrs)


def _written_by_others(cut: Cut, others: Others) -> xr.Dataset:
    """The group as xarray reads it, if another tool has written some of its arrays."""
    if not (others.rewritten or others.added):
        return xr.Dataset()
    location, hierarchy = cut.moment.location, cut.moment.hierarchy
    try:
        with errors_as_damage(f"what another tool has written to {cut.name}", location, cut.name):
            return open_group_plainly(location, cut.name, hierarchy)
    except DamagedTraceError:
        if others.rewritten:
            raise
        # An added array keeps xarray from reading the group, but the draws can be read.
        return xr.Dataset()


def _coordinates(cut: Cut, dims: set[Any], others: Others) -> dict[str, Any]:
    coords: dict[str, Any] = {
        "chain": ("chain", np.array(cut.chains)),
        "draw": ("draw", np.arange(cut.length)),
    }
    sizes = {
        dim: size
        for variable in cut.group.variables.values()
        for dim, size in zip(variable.dims, variable.shape, strict=True)
    }
    # The warmup group, if it exists, has its own; it always exists in a finished trace.
    path = cut.name if cut.layout.finished else cut.group.name
    for name, dim in cut.layout.coords.items():
        if dim in dims:
            array = read_labels(cut.moment.location, cut.layout, path, name, others)
            if array.values.shape != (sizes[dim],):
                raise DamagedTraceError(
                    f"the coordinate {path}/{name} has shape {array.values.shape}, "
                    f"but dimension {dim!r} has {counted(sizes[dim], 'element')}",
                    where=str(cut.moment.location),
                    group=cut.group.name,
                )
            coords[name] = (array.dims, as_labels(array.values), array.attrs)
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
