"""Move arrays that other tools added to a sampled group when it is split."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..errors import DamagedTraceError, SchemaError
from ..layout.layout import Layout, SampledGroup
from ..layout.spans import staged
from ..messages import range_label
from ..reading.as_finished import overwritten_chunks
from ..reading.other_groups import node_names
from ..reading.others import CARRIED, added_nodes, find_others
from ..store.location import Location
from ..store.zarr_json import (
    CHUNK_KEYS,
    V2_KEYS,
    chunk_key,
    documents_first,
    encode_document,
    group_document,
    key_form_of,
    read_document,
)

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
        before = _documents(location, group, name)
        forms = {path: key_form_of(document) for path, document in before.items()}
        found = [
            _Part(first[path], _read(location, path, name), _missing_in(document))
            for path, document in before.items()
        ]
        for path, draws in new.items():
            new_path = f"{staged(path)}/{name}"
            location.delete_tree(new_path)
            moved = _moved(found, draws) if draws else None
            if moved is None:
                continue
            # A copy with the array as it was before finds its chunks as well.
            if path in forms and location.takes_any_key:
                location.share_many(_kept_chunks(location, f"{path}/{name}", forms[path]))
            _write(location, new_path, name, moved, forms.values())


class _Part(NamedTuple):
    """An added array, with draws counted from the start of the chains.

    Attributes
    ----------
    first : int
        Its first draw.
    missing : list of [int, int]
        The first and the last of draws that it never had, for each gap.
    """

    first: int
    variable: xr.Variable
    missing: list[list[int]]


def _documents(location: Location, group: SampledGroup, name: str) -> dict[str, dict[str, Any]]:
    """The zarr.json of an added array in each group that has it, in the order of the draws."""
    found = ((path, read_document(location, f"{path}/{name}")) for path in reversed(group.paths))
    return {path: document for path, document in found if document is not None}


def _missing_in(document: Mapping[str, Any]) -> list[list[int]]:
    """The draws that an added array never had, as an earlier split left them."""
    missing: list[list[int]] = document.get(CARRIED, {}).get("missing", [])
    return missing


def _kept_chunks(location: Location, path: str, form: str) -> Iterator[tuple[str, str]]:
    """The keys of the chunks of an array, and where they are staged."""
    for key in location.keys(path):
        name = key.removeprefix(f"{path}/")
        # The chunks from before an earlier split have keys of another form.
        if name[0].isdigit() if form.startswith(V2_KEYS) else name.startswith(f"c{form}"):
            yield key, staged(key)


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


def _moved(found: list[_Part], draws: range) -> _Part | None:
    """The draws of a range, with missing values where no array has them; None without any."""
    import xarray as xr

    model = found[0].variable
    there = np.zeros(len(draws), bool)
    parts = []
    for first, variable, missing in found:
        inside = np.arange(max(first, draws.start), min(first + variable.sizes["draw"], draws.stop))
        for start, last in missing:
            inside = inside[(inside < start) | (inside > last)]
        if inside.size:
            there[inside - draws.start] = True
            parts.append(variable.isel(draw=inside - first))
    if not parts:
        return None
    attrs: dict[str, Any] = {}
    gaps: list[list[int]] = []
    present: xr.Variable = xr.Variable.concat(parts, "draw")  # type: ignore[no-untyped-call]
    present = present.transpose(*model.dims)
    if not there.all():
        # Missing values before, between and after the existing draws.
        rows = xr.Variable("draw", np.where(there, np.cumsum(there) - 1, 0))
        present = present.isel(draw=rows)
        present = present.where(xr.Variable("draw", there))  # type: ignore[no-untyped-call]
        gone = np.flatnonzero(~there)
        edges = np.split(gone, np.flatnonzero(np.diff(gone) > 1) + 1)
        attrs["missing_draws"] = [
            range_label("draw", range(int(edge[0]), int(edge[-1]) + 1)) for edge in edges
        ]
        gaps = [[draws[int(edge[0])], draws[int(edge[-1])]] for edge in edges]
    kept = {key: value for key, value in model.attrs.items() if key != "missing_draws"}
    present.attrs, present.encoding = {**kept, **attrs}, {}
    return _Part(draws.start, present, gaps)


def _write(
    location: Location,
    path: str,
    name: str,
    part: _Part,
    forms: Collection[str],
) -> None:
    """Write an array as xarray writes it, with every chunk, and with keys of another form.

    Parameters
    ----------
    forms : collection of str
        How the keys of chunks are made that another moment has.
    """
    import xarray as xr
    import zarr
    from zarr.storage import MemoryStore

    store = MemoryStore()
    with zarr.config.set({"array.write_empty_chunks": True}):
        xr.Dataset({name: part.variable}).to_zarr(store, zarr_format=3, consolidated=False)
    written = Location(store, read_only=True)
    document = read_document(written, name)
    assert document is not None
    before = key_form_of(document)
    free = [form for form in CHUNK_KEYS if form not in forms]
    form = free[-1] if location.takes_any_key else before
    document["chunk_key_encoding"] = CHUNK_KEYS[form]
    carried = {"first_draw": part.first, "missing": part.missing}
    document[CARRIED] = {"must_understand": False, **carried}
    # In the form of another tool, by which readers know that it is not an array of the trace.
    location.write(f"{path}/zarr.json", json.dumps(document, indent=2).encode())
    for key in written.keys(name):
        data = written.read(key)
        index = key.removeprefix(f"{name}/").split(before)[1:]
        if data is not None and not key.endswith("/zarr.json"):
            location.write(chunk_key(path, map(int, index), form), bytes(data))


def _copy_tree(location: Location, source: str, target: str) -> None:
    for key in documents_first(location.keys(source)):
        data = location.read(key)
        if data is not None:
            location.write(f"{target}{key.removeprefix(source)}", bytes(data))
