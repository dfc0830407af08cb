"""Changes by other tools to the sampled groups of a finished trace.

They may rewrite arrays of the trace, and add others beside them. What finish wrote is
recognised by its documents, which have their own form, so that damage is not taken for the work of
a tool. Anything in another form is read as xarray reads it.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import DamagedTraceError
from ..layout.attributes import changes_values
from ..layout.coordinates import SAMPLE_DIMS
from ..layout.layout import Layout, changed_keys
from ..messages import counted
from ..store.location import Location
from ..store.remote import MOST_LISTED
from ..store.small_arrays import CHUNK_BYTES
from ..store.zarr_json import (
    LONGEST_DOCUMENT,
    array_document,
    chunk_names,
    encode_document,
    read_document,
)
from .cut import Cut
from .other_groups import node_names, parse_other_document

if TYPE_CHECKING:
    import xarray as xr


# A key in the zarr.json of an array that a split has moved: every chunk of it exists.
CARRIED = "zarrtrace_carried"


class Others(NamedTuple):
    """What other tools have changed in a sampled group, or in the group of its warmup.

    Attributes
    ----------
    rewritten : frozenset of str
        The variables and coordinates that are not stored as finish stored them.
    added : tuple of str
        The arrays that the trace does not know.
    attrs : dict
        Variable → its attributes, where only these were changed.
    """

    rewritten: frozenset[str] = frozenset()
    added: tuple[str, ...] = ()
    attrs: dict[str, dict[str, Any]] = {}  # noqa: RUF012


def find_others(
    location: Location, layout: Layout, path: str, names: Iterable[str] | None = None
) -> Others:
    """What other tools have changed in a group; nothing while the trace is not finished.

    Parameters
    ----------
    names : iterable of str, optional
        Look at these arrays only.
    """
    if not layout.finished:
        return Others()
    # Asking a remote store is slow, so it is done once for each trace that is opened.
    look = _look_once if location.waits else _look
    return look(location, layout, path, None if names is None else tuple(names))


def _look(location: Location, layout: Layout, path: str, names: tuple[str, ...] | None) -> Others:
    group = layout.groups[path.removeprefix("warmup_")]
    coordinates = _coordinates(layout, path)
    names = _changed_names(location, layout, path) if names is None else names
    found = location.read_many([f"{path}/{name}/zarr.json" for name in names], LONGEST_DOCUMENT)
    rewritten: set[str] = set()
    added: list[str] = []
    attrs: dict[str, dict[str, Any]] = {}
    for name, data in zip(names, found, strict=True):
        document = None if data is None else parse_other_document(data)
        if document is None or document.get("node_type") != "array":
            continue
        variable = group.variables.get(name)
        if variable is None:
            (rewritten.add if name in coordinates else added.append)(name)
            continue
        expected = layout.document(variable, 0)
        attributes = document.get("attributes") or {}
        if changed_keys(document, expected) or changes_values(attributes, variable.dtype):
            rewritten.add(name)
        elif attributes != expected["attributes"]:
            attrs[name] = attributes
    return Others(frozenset(rewritten), tuple(added), attrs)


_look_once = functools.lru_cache(maxsize=256)(_look)


def _changed_names(location: Location, layout: Layout, path: str) -> tuple[str, ...]:
    """The names of the arrays in a group, without those whose documents are certainly ours.

    These need not be read: a store that lists a whole group in one answer includes the MD5 of each
    document, and the MD5 of what finish wrote is known.
    """
    expected = _finished_documents(layout, path) if location.waits else {}
    if not expected or _most_keys(layout, path) > MOST_LISTED:
        return tuple(node_names(location, path))
    listed = location.listing(path)
    if listed is None:
        return tuple(node_names(location, path))
    parts = [(key, key.split("/")) for key in listed]
    found = {
        part[1]: listed[key].md5
        for key, part in parts
        if len(part) == 3 and part[2] == "zarr.json" and not part[1].startswith(".")
    }
    return tuple(name for name, md5 in sorted(found.items()) if md5 not in expected.get(name, ()))


def _finished_documents(layout: Layout, path: str) -> dict[str, set[str]]:
    """The MD5 of what finish wrote for each array of a group, except those with labels.

    Empty if an earlier version finished the trace.
    """
    if layout.ended is None:
        return {}
    group = layout.groups[path.removeprefix("warmup_")]
    kept = [block for block in range(layout.blocks) if block not in layout.left_out]
    declared, draws = layout.total, min(layout.ended.recorded[block] for block in kept)
    if path == group.name:
        declared, draws = declared - group.stored_warmup, draws - group.stored_warmup
    else:
        declared = draws = group.stored_warmup - group.stored_first
    found = {v.name: {_md5(layout.document(v, draws))} for v in group.variables.values()}
    for name, size, lengths in (
        ("chain", len(layout.kept_chains), {len(layout.kept_chains)}),
        # An earlier version chose its chunks for the declared draws, before or at a split.
        ("draw", draws, {draws, layout.total, declared}),
    ):
        found[name] = {
            _md5(
                array_document(
                    layout.encodings["int64"],
                    (size,),
                    (min(length, CHUNK_BYTES // 8),),
                    (name,),
                    key_form=layout.separator,
                )
            )
            for length in lengths
        }
    return found


def _md5(document: dict[str, Any]) -> str:
    return hashlib.md5(encode_document(document), usedforsecurity=False).hexdigest()


def _most_keys(layout: Layout, path: str) -> int:
    """The approximate number of keys in a group of a finished trace."""
    assert layout.ended is not None
    variables = layout.groups[path.removeprefix("warmup_")].variables.values()
    draws = max(layout.ended.recorded)
    chunks = (-(-draws // variable.draws_per_chunk) for variable in variables)
    return layout.blocks * sum(chunks) + 3 * (len(variables) + len(layout.coords) + 2)


def require_whole(location: Location, layout: Layout, path: str, name: str) -> None:
    """Refuse an added array whose document, chunks and trace are of different moments.

    Raises
    ------
    DamagedTraceError
        It has other draws than its group, or a split has moved it, and a chunk is missing.
    """
    document = read_document(location, f"{path}/{name}") or {}
    group, carried, why = layout.groups[path.removeprefix("warmup_")], document.get(CARRIED), ""
    first, stop = group.stored_first, group.stored_warmup
    if path == group.name:
        counts = layout.ended.recorded if layout.ended else ()
        kept = [count for block, count in enumerate(counts) if block not in layout.left_out]
        first, stop = stop, min(kept, default=stop)
    sizes = dict(
        zip(document.get("dimension_names") or (), document.get("shape", ()), strict=False)
    )
    if layout.ended is not None and sizes.get("draw", stop - first) != stop - first:
        why = f"has {counted(sizes['draw'], 'draw')}, and its group has {stop - first}"
    elif carried is not None and carried.get("first_draw") != first:
        why = f"begins with draw {carried.get('first_draw')}, and its group with {first}"
    elif carried is not None:
        there = set(location.keys(f"{path}/{name}"))
        names = (f"{path}/{name}/{chunk}" for chunk in chunk_names(document))
        missing = next((key for key in names if key not in there), None)
        why = f"lacks the chunk {missing}" if missing else ""
    if why:
        raise DamagedTraceError(
            f"an array that another tool has added {why}",
            where=f"{location}: {path}/{name}",
            remedy="restore it from a copy, or delete it and compute it again",
            group=path,
            variable=name,
        )


def added_nodes(
    location: Location, layout: Layout, path: str, names: Iterable[str]
) -> dict[str, tuple[str, ...] | None]:
    """The nodes in a sampled group that the trace does not know, whether it is finished or not.

    Parameters
    ----------
    names : iterable of str
        The names in the group.

    Returns
    -------
    dict
        Name → dimensions of an array; None for a group.
    """
    known = {*layout.groups[path.removeprefix("warmup_")].variables, *_coordinates(layout, path)}
    names = [name for name in names if name not in known and not name.startswith(".")]
    found = location.read_many([f"{path}/{name}/zarr.json" for name in names], LONGEST_DOCUMENT)
    nodes: dict[str, tuple[str, ...] | None] = {}
    for name, data in zip(names, found, strict=True):
        document = None if data is None else parse_other_document(data)
        if document is not None:
            is_array = document.get("node_type") == "array"
            nodes[name] = tuple(document.get("dimension_names") or ()) if is_array else None
    return nodes


def _coordinates(layout: Layout, path: str) -> set[str]:
    """The names of the coordinates that a sampled group may have."""
    variables = layout.groups[path.removeprefix("warmup_")].variables.values()
    return {*SAMPLE_DIMS, *layout.coords, *(dim for v in variables for dim in v.dims)}


def select_of_others(cut: Cut, variable: xr.Variable) -> xr.Variable | None:
    """Select the chains and draws of a cut from an array of another tool, lazily.

    None if it lacks some of them.
    """
    sizes = dict(zip(variable.dims, variable.shape, strict=True))
    there = cut.layout.kept_chains
    if sizes.get("chain", len(there)) != len(there) or not set(cut.chains) <= set(there):
        return None
    if sizes.get("draw", cut.length) < cut.length:
        return None
    chains = [there.index(chain) for chain in cut.chains]
    wanted: dict[str, Any] = {"chain": chains, "draw": slice(cut.length)}
    selected = variable.isel({dim: key for dim, key in wanted.items() if dim in sizes})
    # Its chunks differ from those of the other variables.
    selected.encoding = {}
    return selected


def require_selected(cut: Cut, name: str, variable: xr.Variable) -> xr.Variable:
    """As `select_of_others`, for a variable of the trace, which is in every view of its group."""
    selected = select_of_others(cut, variable)
    if selected is not None:
        return selected
    shape = dict(zip(variable.dims, variable.shape, strict=True))
    raise DamagedTraceError(
        f"another tool has written it with the sizes {shape}, but "
        f"{counted(cut.length, 'draw')} of {counted(len(cut.chains), 'chain')} are needed",
        where=f"{cut.moment.location}: {cut.name}/{name}",
        remedy="read all chains with align='cut', or read it with xarray",
        group=cut.name,
        variable=name,
    )
