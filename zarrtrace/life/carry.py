"""Move arrays that other tools added to a sampled group when it is split."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DamagedTraceError, SchemaError
from ..layout.layout import Layout, SampledGroup
from ..layout.spans import staged
from ..messages import range_label
from ..reading.as_finished import overwritten_chunks
from ..reading.other_groups import node_names
from ..reading.others import added_nodes, find_others
from ..store.location import Location
from ..store.zarr_json import documents_first, encode_document, group_document

if TYPE_CHECKING:
    import xarray as xr


def require_ours(location: Location, layout: Layout, changing: Collection[str]) -> None:
    """Refuse to change a finished trace whose variables another tool has rewritten.

    Parameters
    ----------
    changing : collection of str
        The dimensions whose elements will change.

    Raises
    ------
    SchemaError
        A variable is not stored as zarrtrace stores it; or draws or chains will change, and
        an array that another tool has added cannot follow.
    DamagedTraceError
        Another tool has overwritten draws.
    """
    for key in overwritten_chunks(location, layout):
        raise DamagedTraceError(
            f"another tool has overwritten draws in the chunk {key}: times, or those after the end "
            f"of the shortest chain",
            where=str(location),
            remedy="restore it from a copy, or let `zarrtrace repair` mark them as lost",
        )
    for group in layout.groups.values():
        for path in group.paths:
            others = find_others(location, layout, path)
            rewritten = sorted(others.rewritten.intersection(group.variables))
            if rewritten:
                raise SchemaError(
                    f"another tool has stored {path}/{rewritten[0]} in its own way, so the "
                    f"trace can be read but not changed",
                    where=str(location),
                    remedy="zarrtrace.from_datatree(xarray.open_datatree(path), new_path) makes a "
                    "trace of its present content",
                    group=path,
                    variable=rewritten[0],
                )
            names = node_names(location, path) if changing else []
            for name, dims in added_nodes(location, layout, path, names).items():
                too_short = [dim for dim in dims or () if dim in changing]
                if too_short:
                    raise SchemaError(
                        f"another tool has added {path}/{name}, which would lack the "
                        f"{too_short[-1]}s that are added",
                        where=str(location),
                        remedy="delete it, and compute it again when the trace is finished",
                        group=path,
                        variable=name,
                    )


def carry_added(
    location: Location, layout: Layout, group: SampledGroup, keys: Iterable[str], end: int
) -> None:
    """Stage the arrays that other tools have added to a group and to its warmup.

    Draws of an added array go to the group that they belong to after the split. Draws that it never
    had are missing values, as an attribute says; whole numbers become float64 for that.

    Parameters
    ----------
    keys : iterable of str
        All keys in the group and in that of its warmup.
    end : int
        The draws of the shortest chain.
    """
    target = group.moving_to
    assert target is not None
    first = {group.name: group.stored_warmup, group.warmup_name: group.stored_first}
    new = {group.name: range(target, end), group.warmup_name: range(layout.dropped, target)}
    drawn: set[str] = set()
    parts = [key.split("/") for key in keys]
    for path in group.paths:
        names = sorted({part[1] for part in parts if part[0] == path and len(part) > 2})
        for name, dims in added_nodes(location, layout, path, names).items():
            if layout.closed and dims is not None and "draw" in dims:
                drawn.add(name)
            elif new[path]:
                _copy_tree(location, f"{path}/{name}", f"{staged(path)}/{name}")
    for name in sorted(drawn):
        found = [
            (first[path], _read(location, path, name))
            for path in reversed(group.paths)  # in the order of the draws
            if location.exists(f"{path}/{name}/zarr.json")
        ]
        for path, draws in new.items():
            if draws:
                _write(location, f"{staged(path)}/{name}", name, _moved(found, draws))


def _read(location: Location, path: str, name: str) -> xr.Variable:
    """An array that another tool has added, in memory; xarray may not open the whole group."""
    import xarray as xr
    from zarr.storage import MemoryStore

    alone = Location(MemoryStore(), read_only=False)
    alone.write("zarr.json", encode_document(group_document()))
    for key in location.keys(f"{path}/{name}"):
        data = location.read(key)
        if data is not None:
            alone.write(key.removeprefix(f"{path}/"), bytes(data))
    plain: xr.Dataset = xr.open_dataset(
        alone.store,  # type: ignore[arg-type]
        engine="zarr",
        consolidated=False,
        chunks=None,
    )
    return plain.variables[name].load()


def _moved(found: list[tuple[int, xr.Variable]], draws: range) -> xr.Variable | None:
    """The draws of a range, with missing values where no array has them; None without any array.

    Parameters
    ----------
    found : list of (int, xarray.Variable)
        The first draw of each array, counted from the start of the chains, and the array.
    """
    import xarray as xr

    model = found[0][1]
    there = np.zeros(len(draws), bool)
    parts = []
    for first, variable in found:
        inside = range(max(first, draws.start), min(first + variable.sizes["draw"], draws.stop))
        if inside:
            there[inside.start - draws.start : inside.stop - draws.start] = True
            parts.append(variable.isel(draw=slice(inside.start - first, inside.stop - first)))
    if not parts:
        return None
    missing: dict[str, Any] = {}
    present: xr.Variable = xr.Variable.concat(parts, "draw")  # type: ignore[no-untyped-call]
    present = present.transpose(*model.dims)
    if not there.all():
        # Missing values before, between and after the existing draws.
        rows = xr.Variable("draw", np.where(there, np.cumsum(there) - 1, 0))
        present = present.isel(draw=rows)
        present = present.where(xr.Variable("draw", there))  # type: ignore[no-untyped-call]
        gone = np.flatnonzero(~there)
        edges = np.split(gone, np.flatnonzero(np.diff(gone) > 1) + 1)
        missing["missing_draws"] = [
            range_label("draw", range(int(edge[0]), int(edge[-1]) + 1)) for edge in edges
        ]
    kept = {key: value for key, value in model.attrs.items() if key != "missing_draws"}
    present.attrs, present.encoding = {**kept, **missing}, {}
    return present


def _write(location: Location, path: str, name: str, variable: xr.Variable | None) -> None:
    """Write an array as xarray writes it."""
    import xarray as xr
    from zarr.storage import MemoryStore

    location.delete_tree(path)
    if variable is None:
        return
    store = MemoryStore()
    xr.Dataset({name: variable}).to_zarr(store, zarr_format=3, consolidated=False)
    written = Location(store, read_only=True)
    for key in documents_first(written.keys(name)):
        data = written.read(key)
        assert data is not None
        location.write(f"{path}/{key.removeprefix(f'{name}/')}", bytes(data))


def _copy_tree(location: Location, source: str, target: str) -> None:
    for key in documents_first(location.keys(source)):
        data = location.read(key)
        if data is not None:
            location.write(f"{target}{key.removeprefix(source)}", bytes(data))
