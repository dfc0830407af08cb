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
from ..store.small_arrays import read_array
from .cut import Cut, alignment_attrs, sampling_attrs
from .rows import Wanted, read_rows


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
        keys = [*key, *(slice(None) for _ in range(len(self.shape) - len(key)))]
        positions = np.arange(len(self.cut.chains))[keys[0]].ravel()
        draws, among = _draw_range(keys[1], self.cut.length)
        number = np.arange(len(draws))[among].size
        rest = tuple(keys[2:])
        sizes = self.variable.shape
        shape = tuple(np.arange(size)[k].size for size, k in zip(sizes, rest, strict=True))
        found: np.ndarray[Any, Any] = np.empty((positions.size, number, *shape), dtype=self.dtype)
        if self.cut.padded:
            found[...] = _missing(self.dtype)
        everything = isinstance(among, slice) and among == slice(None) and shape == sizes
        straight: list[Wanted] = []
        for block, rows in self._blocks(positions).items():
            count = self.cut.counts[int(positions[rows[0][0]])]
            there = draws[: len(range(draws.start, min(draws.stop, count), draws.step))]
            # As the chain counts them, from its first draw of warmup on.
            start, stop = there.start + self.cut.start, there.stop + self.cut.start
            wanted = range(start, stop, there.step)
            chains = self.cut.layout.chains_of(block)
            first = rows[0][0]
            in_place = [(first + i, i) for i in range(len(chains))]
            if everything and rows == in_place and all(_is_whole(k) for k in rest):
                into = found[first : first + len(chains), : len(there)]
                straight.append(Wanted(block, wanted, into))
                continue
            values = np.empty((len(chains), len(there), *sizes), self.variable.dtype)
            self._read([Wanted(block, wanted, values)])
            values = _outer(values, rest)
            kept = np.arange(len(draws))[among].ravel()
            inside = kept < len(there)
            for row, chain in rows:
                found[row, inside] = values[chain][kept[inside]]
        self._read(straight)
        squeezed = tuple(0 if isinstance(k, int | np.integer) else slice(None) for k in keys)
        return found[squeezed]

    def _blocks(self, positions: np.ndarray[Any, Any]) -> dict[int, list[tuple[int, int]]]:
        """For each block of chains that is asked for: rows of the result, and chains within it."""
        blocks: dict[int, list[tuple[int, int]]] = {}
        for row, position in enumerate(positions):
            block, chain = divmod(self.cut.chains[position], self.cut.layout.chains_per_chunk)
            blocks.setdefault(block, []).append((row, chain))
        return blocks

    def _read(self, wanted: list[Wanted]) -> None:
        cut = self.cut
        read_rows(cut.hierarchy, cut.group.name, self.variable.name, wanted)


def _is_whole(key: Any) -> bool:
    return isinstance(key, slice) and key.step in (None, 1)


def _draw_range(key: Any, length: int) -> tuple[range, Any]:
    """The ascending draws to read for a key, and which of them the key asks for."""
    if isinstance(key, slice):
        asked = range(length)[key]
        if not len(asked):
            return range(0), slice(0)
        if asked.step < 0:
            return asked[::-1], slice(None, None, -1)
        return range(asked[0], asked[-1] + 1, asked.step), slice(None)
    wanted = np.arange(length)[key]
    if not wanted.size:
        return range(0), slice(0)
    first = int(wanted.min())
    return range(first, int(wanted.max()) + 1), wanted - first


def _outer(values: np.ndarray[Any, Any], rest: tuple[Any, ...]) -> np.ndarray[Any, Any]:
    """Index the dimensions after chain and draw one by one; an int keeps its dimension."""
    for axis, key in enumerate(rest, start=2):
        if isinstance(key, int | np.integer):
            key = slice(key, key + 1) if key != -1 else slice(-1, None)
        values = values[(*(slice(None) for _ in range(axis)), key)]
    return values


def padded_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """A dtype with a missing value: numbers and booleans become float64."""
    return np.dtype("float64") if dtype.kind in "iub" else dtype


def _missing(dtype: np.dtype[Any]) -> Any:
    if dtype.kind in "mM":
        return np.array("NaT", dtype)
    return "" if isinstance(dtype, np.dtypes.StringDType) else np.nan


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
        attrs = group_attrs(cut.layout, cut.name) | sampling_attrs(
            cut.hierarchy.location, cut.layout
        )
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
            array = read_array(cut.hierarchy.location, f"{cut.group.name}/{name}")
            if array.values.shape != (sizes[dim],):
                raise DamagedTraceError(
                    f"{cut.hierarchy.location}: the coordinate {cut.group.name}/{name} has shape "
                    f"{array.values.shape}, dimension {dim!r} has {sizes[dim]} elements",
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


def read_values(cut: Cut, variable: Variable, draws: slice, flatten: bool) -> np.ndarray[Any, Any]:
    """The values of `Trace.get`."""
    values = CutArray(cut, variable).read((slice(None), draws))
    return values.reshape(-1, *variable.shape) if flatten else values
