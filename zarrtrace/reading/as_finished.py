"""What a finished trace stores to detect later changes of its arrays by other tools.

Zarr deletes a chunk of fill values when it writes an array: the names of such chunks are stored, so
that a missing one reads as its fill value, and any other missing chunk is damage.
xarray writes numbers of days into an array of times that exists: the bytes of labels that are times
are stored, and read instead. For draws that are times, and for draws after the end of the
shortest chain, which Zarr overwrites with fill values, checksums are stored.
"""

from __future__ import annotations

import base64
import functools
import json
from collections.abc import Container, Iterable, Mapping
from typing import Any, NamedTuple

import google_crc32c
import numpy as np

from ..layout.layout import STATE, Layout, changed_keys
from ..layout.spans import staged
from ..sampling_state.counts import recorded
from ..sampling_state.draw_codec import draw_codec
from ..store.chunk_codec import ChunkCodec
from ..store.dtypes import dtype_of_document
from ..store.location import Location
from ..store.small_arrays import DataArray, read_array
from ..store.zarr_json import (
    CHUNK_KEYS,
    LONGEST_DOCUMENT,
    chunk_name,
    chunk_names,
    encode_document,
    group_document,
    key_form_of,
    read_documents,
)
from .other_groups import parse_other_document

_KEPT = f"{STATE}/as_finished"
_ATTRIBUTE = "as_finished"


class AsFinished(NamedTuple):
    """What was stored about the arrays of a trace when it was finished.

    Attributes
    ----------
    blank : dict
        Path → names of the chunks that hold the fill value alone. The name of a chunk is its key
        below the path of its array.
    times : dict
        Path → name → bytes of the chunks of an array of times that was passed whole.
    sums : dict
        Path → name → the first row of a chunk of draws from which on its bytes must not change,
        and their crc32c.
    """

    blank: dict[str, frozenset[str]]
    times: dict[str, dict[str, bytes]]
    sums: dict[str, dict[str, tuple[int, int]]]

    def without(self, groups: Container[str]) -> AsFinished:
        """The same of all arrays but those in some groups."""

        def others(paths: Iterable[str]) -> list[str]:
            return [path for path in paths if path.partition("/")[0] not in groups]

        return AsFinished(
            {path: self.blank[path] for path in others(self.blank)},
            {path: self.times[path] for path in others(self.times)},
            {path: self.sums[path] for path in others(self.sums)},
        )


_NOTHING = AsFinished({}, {}, {})


def keep_as_finished(location: Location, layout: Layout, nodes: Mapping[str, Any]) -> None:
    """Store what is needed to detect later changes by other tools.

    Parameters
    ----------
    nodes : mapping of str to dict
        Path → zarr.json, of groups too.
    """
    before = _read(location, layout).without(layout.replacing)
    blank: dict[str, list[str]] = {}
    times: dict[str, dict[str, str]] = {}
    sums: dict[str, dict[str, tuple[int, int]]] = {}
    # For each block of chains, in the order of the arrays.
    counts = _counts(location, layout)
    # Arrays in groups of other tools do not belong to the trace.
    arrays = {
        path: document
        for path, document in nodes.items()
        if path.count("/") == 1 and _has_our_keys(document)
    }
    rewritten = _rewritten(location, layout, arrays)
    for path, document in arrays.items():
        if path in rewritten:
            continue
        names = list(chunk_names(document))
        held = location.hold(path, names, _blank_chunk(document))
        ends = _blank_ends(layout, path, document, counts)
        for data in {*ends.values()}:
            blank_ends = zip(ends, location.hold(path, ends, data), strict=True)
            ends = {name: data for name, is_held in blank_ends if is_held}
        # Chunks deleted since the trace was finished are still blank.
        known = before.blank.get(path, frozenset())
        found = [
            name
            for name, is_held in zip(names, held, strict=True)
            if is_held or name in ends or (name in known and not location.exists(f"{path}/{name}"))
        ]
        if found:
            blank[path] = found
        group, _, variable = path.partition("/")
        sampled = layout.groups.get(group.removeprefix("warmup_"))
        is_time = dtype_of_document(document).kind in "mM"
        if sampled is not None and variable in sampled.variables:
            rows = dict.fromkeys(names, 0) if is_time else {}
            if group == sampled.name and not is_time:
                rows = _rows_in_shape(document, counts - sampled.stored_warmup)
            if rows:
                sums[path] = before.sums.get(path) or {
                    name: (rows[name], google_crc32c.value(data))
                    for name, data in _chunks(location, path, list(rows)).items()
                }
        elif is_time:
            chunks = before.times.get(path) or _chunks(location, path, names)
            times[path] = {name: base64.b64encode(data).decode() for name, data in chunks.items()}
    content = {"blank": blank, "times": times, "sums": sums, "draws": _draws(location, layout)}
    text = json.dumps(content)
    attrs = {_ATTRIBUTE: text, f"{_ATTRIBUTE}_crc32c": google_crc32c.value(text.encode())}
    location.write(f"{_KEPT}/zarr.json", encode_document(group_document(attrs)))


def _blank_ends(
    layout: Layout, path: str, document: Mapping[str, Any], counts: np.ndarray[Any, Any]
) -> dict[str, bytes]:
    """The chunks at the end of the shape that are not full, and their bytes if they are blank.

    They hold marks after the last draw, and not the fill value. Longer chains are left out.
    """
    group, _, name = path.partition("/")
    sampled = layout.groups.get(group)
    variable = None if sampled is None else sampled.variables.get(name)
    if sampled is None or variable is None:
        return {}
    chunk, rows = divmod(document["shape"][1], variable.draws_per_chunk)
    if not rows:
        return {}
    codec, shape = draw_codec(layout, variable), layout.chunk_shape(variable)
    data = codec.encode(np.full(shape, codec.fill, variable.dtype), rows, shape[1])
    tail = [0] * len(variable.shape)
    return {
        chunk_name((place, chunk, *tail), key_form_of(document)): data
        for place, count in enumerate(counts)
        if count - sampled.stored_warmup == document["shape"][1]
    }


def _counts(location: Location, layout: Layout) -> np.ndarray[Any, Any]:
    """The draws of each block of chains that is shown, in the order of the arrays."""
    return recorded(location, layout)[layout.kept_chains][:: layout.chains_per_chunk]


def _draws(location: Location, layout: Layout) -> dict[str, list[int]]:
    """Which draws the groups of a finished trace have: a copy may be of several moments."""
    counts = recorded(location, layout)[:: layout.chains_per_chunk].tolist()
    return {
        group.name: [group.stored_first, group.stored_warmup, *counts]
        for group in layout.groups.values()
    }


def _rows_in_shape(document: Mapping[str, Any], counts: np.ndarray[Any, Any]) -> dict[str, int]:
    """For chunks that extend beyond the shape in longer chains: the rows within the shape."""
    length = document["shape"][1]
    chunk, rows = divmod(length, document["chunk_grid"]["configuration"]["chunk_shape"][1])
    if not rows:
        return {}
    tail = [0] * (len(document["shape"]) - 2)
    return {
        chunk_name((place, chunk, *tail), key_form_of(document)): rows
        for place, count in enumerate(counts)
        if count > length
    }


def _chunks(location: Location, path: str, names: list[str]) -> dict[str, bytes]:
    found = location.read_many(f"{path}/{name}" for name in names)
    return {name: bytes(data) for name, data in zip(names, found, strict=True) if data is not None}


def read_before_threads(location: Location, layout: Layout) -> None:
    """Read what was stored once, so that not every thread reads it."""
    _as_finished(location, layout)


def blank_names(location: Location, layout: Layout, path: str) -> frozenset[str]:
    """The names of the chunks of an array that are blank, even if they are missing."""
    return _as_finished(location, layout).blank.get(path, frozenset())


def is_blank(location: Location, layout: Layout, key: str) -> bool:
    """Whether a chunk held the fill value alone when the trace was finished."""
    path, name = _path_and_name(key)
    return name in blank_names(location, layout, path)


def read_whole(
    location: Location, layout: Layout, path: str, *, complete: bool = False
) -> DataArray:
    """Read an array that was passed whole, as `read_array`, with times as they were passed."""
    kept = _as_finished(location, layout)
    if path.partition("/")[0] in layout.replacing:
        kept = _NOTHING
    return read_array(
        location,
        _path_now(location, layout, path),
        complete=complete,
        blank=kept.blank.get(path, ()),
        given=kept.times.get(path, {}),
    )


def _path_now(location: Location, layout: Layout, path: str) -> str:
    """The path of an array, which is missing for a moment when a split renames whole groups."""
    sampled = layout.groups.get(path.partition("/")[0].removeprefix("warmup_"))
    if sampled is None or not sampled.swapping:
        return path
    # It may have moved from one place to the other while both were checked.
    places = (path, staged(path), path)
    return next((place for place in places if location.exists(f"{place}/zarr.json")), path)


def is_as_finished(location: Location, layout: Layout, key: str, stop: int) -> bool:
    """Whether the rows of a chunk before `stop` can be unchanged since the trace was finished.

    This is always so for rows whose changes by other tools are read right, and for a
    missing chunk.
    """
    path, name = _path_and_name(key)
    known = _as_finished(location, layout).sums.get(path, {}).get(name)
    if known is None or stop <= known[0]:
        return True
    data = location.read(key)
    return data is None or google_crc32c.value(bytes(data)) == known[1]


def overwritten_chunks(location: Location, layout: Layout) -> list[str]:
    """The keys of chunks whose draws have changed."""
    return [
        f"{path}/{name}"
        for path, names in _as_finished(location, layout).sums.items()
        for name, (rows, _) in names.items()
        if not is_as_finished(location, layout, f"{path}/{name}", rows + 1)
    ]


def times_given(location: Location, layout: Layout, group: str) -> list[str]:
    """The arrays of a group that are times, given whole, and kept."""
    # What was kept may be that of the group that is replaced.
    paths = {} if group in layout.replacing else _as_finished(location, layout).times
    return [path.partition("/")[2] for path in paths if path.startswith(f"{group}/")]


def restore_as_finished(location: Location, layout: Layout) -> None:
    """Write the chunks that other tools have deleted, and the times that they rewrote."""
    kept, counts = _read(location, layout), _counts(location, layout)
    paths = list({**kept.blank, **kept.times})
    found = zip(paths, read_documents(location, paths), strict=True)
    documents = {path: document for path, document in found if document is not None}
    rewritten = _rewritten(location, layout, documents)
    for path, document in documents.items():
        if path in rewritten or not _has_our_keys(document):
            continue
        names = kept.blank.get(path, frozenset())
        missing = [f"{path}/{name}" for name in names if not location.exists(f"{path}/{name}")]
        if missing:
            blank, ends = _blank_chunk(document), _blank_ends(layout, path, document, counts)
            location.write_many(
                (key, ends.get(key.removeprefix(f"{path}/"), blank)) for key in missing
            )
        if dtype_of_document(document).kind in "mM":
            for name, data in kept.times.get(path, {}).items():
                location.write(f"{path}/{name}", data)


def forget_as_finished(location: Location) -> None:
    """Remove what was stored, before chunks change."""
    location.delete_tree(_KEPT)


def _path_and_name(key: str) -> tuple[str, str]:
    """The path of the array that a chunk belongs to, and the name of the chunk."""
    group, _, rest = key.partition("/")
    array, _, name = rest.partition("/")
    return f"{group}/{array}", name


def _has_our_keys(document: Mapping[str, Any]) -> bool:
    return document.get("chunk_key_encoding") in CHUNK_KEYS.values()


def _rewritten(
    location: Location, layout: Layout, documents: Mapping[str, Mapping[str, Any]]
) -> set[str]:
    """The paths of those arrays that another tool stores in its own way.

    Their chunks may have the same names as ours.
    """
    rewritten = set()
    whole = []
    for path, document in documents.items():
        group, _, name = path.partition("/")
        sampled = layout.groups.get(group.removeprefix("warmup_"))
        variable = None if sampled is None else sampled.variables.get(name)
        if variable is None:
            whole.append(path)
        elif changed_keys(document, layout.document(variable, 0)):
            rewritten.add(path)
    found = location.read_many([f"{path}/zarr.json" for path in whole], LONGEST_DOCUMENT)
    for path, data in zip(whole, found, strict=True):
        if data is not None and parse_other_document(data) is not None:
            rewritten.add(path)
    return rewritten


def _blank_chunk(document: Mapping[str, Any]) -> bytes:
    """The bytes of a chunk of fill values: an encoder returns the same ones each time."""
    encoding = {key: document[key] for key in ("data_type", "fill_value", "codecs")}
    shape = document["chunk_grid"]["configuration"]["chunk_shape"]
    return _encode_blank(json.dumps(encoding), tuple(shape))


@functools.lru_cache(maxsize=8)
def _encode_blank(encoding: str, shape: tuple[int, ...]) -> bytes:
    """The arrays of a trace have few different encodings."""
    document = json.loads(encoding)
    codec = ChunkCodec(dtype_of_document(document), document)
    return codec.encode(np.full(shape, codec.fill, codec.dtype))


def _as_finished(location: Location, layout: Layout) -> AsFinished:
    return _read_once(location, layout) if layout.finished else _NOTHING


@functools.lru_cache(maxsize=16)
def _read_once(location: Location, layout: Layout) -> AsFinished:
    """What was stored, read once for each layout, with which it changes."""
    return _read(location, layout)


def _read(location: Location, layout: Layout) -> AsFinished:
    """What was stored; nothing where it cannot be read, or is of other draws."""
    data = location.read(f"{_KEPT}/zarr.json")
    try:
        attrs = json.loads(bytes(data or b""))["attributes"]
        text = attrs[_ATTRIBUTE]
        if google_crc32c.value(text.encode()) != attrs[f"{_ATTRIBUTE}_crc32c"]:
            return _NOTHING
        content = json.loads(text)
        if content.get("draws", draws := _draws(location, layout)) != draws:
            return _NOTHING
        return AsFinished(
            {path: frozenset(names) for path, names in content["blank"].items()},
            {
                path: {name: base64.b64decode(chunk) for name, chunk in chunks.items()}
                for path, chunks in content["times"].items()
            },
            {
                path: {name: (int(row), int(crc)) for name, (row, crc) in chunks.items()}
                for path, chunks in content["sums"].items()
            },
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return _NOTHING
