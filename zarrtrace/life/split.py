"""The split: the first draws of each chain go to the warmup groups.

An array with the same chunks as before gets them as hard links, never decoded (copied as bytes in
stores that have no files); where a boundary cuts through chunks, they stream through memory one by
one.

Both groups are built beside the old one, under `_sampling_state/split`, and take its place when
they are whole. Each chunk is at any moment either where it was or where it will be, and the layout
says of which variables all are there: readers find every draw throughout, and a split that was
killed anywhere is finished by the same steps done again.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np

from ..errors import GroupNotFoundError, IncompleteTraceError, InvalidInputError
from ..layout.hierarchy import Hierarchy
from ..layout.layout import STAGING, Layout, SampledGroup, chunk_of_key
from ..layout.spans import ChunkPlace, Span, future_spans, spans, staged
from ..layout.variables import Variable
from ..reading.rows import RowReader
from ..sampling_state.block import chain_blocks, remove_journals
from ..sampling_state.counts import recorded
from ..store.chunk_codec import ChunkCodec
from ..store.dtypes import dtype_name
from ..store.location import Location
from ..store.small_arrays import DataArray, Numbers, array_items, read_array
from ..store.zarr_json import compose_encoding, encode_document, group_document, read_document
from .carry import carry_added

_CHUNK_NAME = re.compile(r"c(\.\d+)+")


def plan_split(
    location: Location,
    layout: Layout,
    at: int | None = None,
    groups: Iterable[str] | None = None,
) -> Layout:
    """The layout with which a split begins: which groups go where.

    Parameters
    ----------
    at : int, optional
        Draws from the start of each chain that are warmup; by default what each group has.
    groups : iterable of str, optional
        The sampled groups to split; all by default.
    """
    names = list(layout.groups) if groups is None else list(groups)
    require_no_links(location, layout)
    counts = recorded(location, layout)
    for name in names:
        if name not in layout.groups:
            raise GroupNotFoundError(
                f"{location} has no sampled group {name!r} to split",
                remedy=f"it has {', '.join(layout.groups)}",
                group=name,
            )
        group = layout.groups[name]
        target = group.warmup if at is None else check_warmup(location, layout, at)
        if target > counts.min():
            chain = int(counts.argmin())
            raise IncompleteTraceError(
                f"chain {chain} of {location} has recorded {counts[chain]} draws, fewer than the "
                f"{target} of warmup; record the rest, or split_warmup(n) with n up to "
                f"{counts[chain]}",
                chain=chain,
            )
        # What is warmup changes at once and for all groups together; where it lies, by and by.
        there = (group.stored_first, group.stored_warmup) == (layout.dropped, target)
        moving_to = None if there else target
        group = replace(group, warmup=target, moving_to=moving_to)
        layout = layout.with_group(group)
    return layout


def require_no_links(location: Location, layout: Layout) -> None:
    """Refuse to move or to remove draws where an array is a link to another place."""
    for group in layout.groups.values():
        for path in group.paths if location.path is not None else ():
            names = (f"{path}/{name}" for name in location.children(path))
            location.require_no_link(path, *names)


def check_draws(location: Location, layout: Layout, draws: Any, what: str) -> int:
    """A number of draws from the start of a chain, or an error that they cannot `what`."""
    is_number = isinstance(draws, int | np.integer) and not isinstance(draws, bool)
    if not is_number or not 0 <= draws <= layout.total:
        raise InvalidInputError(
            f"the first {draws!r} draws cannot {what}: a chain of {location} has {layout.total}"
        )
    return int(draws)


def check_warmup(location: Location, layout: Layout, draws: Any) -> int:
    """A number of draws that may be warmup, all that were dropped among them."""
    number = check_draws(location, layout, draws, "be warmup")
    if number < layout.dropped:
        raise InvalidInputError(
            f"the first {number} draws cannot be all of the warmup: the first {layout.dropped} of "
            f"each chain of {location} were dropped, so {layout.dropped} is the least"
        )
    return number


def resume_split(hierarchy: Hierarchy) -> None:
    """Finish a split that was begun, or do nothing.

    Every draw must be in the chunks: while they move, no journal is read or written.
    """
    location, layout = hierarchy.location, hierarchy.layout
    if layout.splitting:
        remove_journals(location, layout)
    for name, group in layout.groups.items():
        if group.moving_to is not None and not group.swapping:
            _fill_staging(hierarchy, name)
    for name, group in hierarchy.layout.groups.items():
        if group.swapping:
            _swap(hierarchy, name)
    if layout.splitting or location.exists(f"{STAGING}/zarr.json"):
        location.delete_tree(STAGING)


def _fill_staging(hierarchy: Hierarchy, name: str) -> None:
    """Build both groups, with all their chunks, in the staging place."""
    location, layout = hierarchy.location, hierarchy.layout
    group = layout.groups[name]
    target = group.moving_to
    assert target is not None
    lengths = {group.name: layout.total - target, group.warmup_name: target - layout.dropped}
    location.write(f"{STAGING}/zarr.json", encode_document(group_document()))
    for path, draws in lengths.items():
        if draws:
            attrs = (read_document(location, group.name) or group_document())["attributes"]
            document = group_document({**attrs, "tuning_steps": target})
            location.write(f"{staged(path)}/zarr.json", encode_document(document))
            _copy_coordinates(location, layout, group, path, draws)
    carry_added(location, layout, group)
    for variable in group.variables.values():
        old = spans(layout, variable)
        if variable.name not in group.moved:
            new = [span._replace(path=staged(span.path)) for span in future_spans(layout, variable)]
            _write_documents(location, layout, variable, old, new)
            shared = [s for s in new if _has_same_chunks(s, old, variable.draws_per_chunk)]
            cut_anew = [s for s in new if s not in shared]
            # First what is read from the old chunks: where there are no links, sharing moves them.
            if cut_anew:
                _stream_chunks(location, layout, variable, cut_anew)
            _share_chunks(location, variable, old, shared)
            if not cut_anew:
                continue
            group = replace(group, moved=(*group.moved, variable.name))
            layout = layout.with_group(group)
            hierarchy.change(layout)
        # Nothing is read there any more; the documents stay, so that the group goes on opening.
        for span in old:
            for key in chunk_keys(location, span.path):
                location.delete(key)
    hierarchy.change(layout.with_group(replace(group, swapping=True)))


def _swap(hierarchy: Hierarchy, name: str) -> None:
    """Put the staged groups in the place of the old ones."""
    location, layout = hierarchy.location, hierarchy.layout
    group = layout.groups[name]
    target = group.moving_to
    assert target is not None
    for path in (group.name, group.warmup_name):
        if location.exists(f"{staged(path)}/zarr.json"):
            if location.renames and location.exists(f"{path}/zarr.json"):
                # Two renames: for a plain reader the group is away for a moment, not for long.
                old = staged(f"_old/{path}")
                location.write(f"{staged('_old')}/zarr.json", encode_document(group_document()))
                location.delete_tree(old)
                location.move_tree(path, old)
            else:
                location.delete_tree(path)
            location.move_tree(staged(path), path)
    done = replace(
        group,
        warmup=target,
        stored_warmup=target,
        stored_first=layout.dropped,
        moving_to=None,
        moved=(),
        swapping=False,
    )
    if group.warmup_name not in done.paths:
        location.delete_tree(group.warmup_name)
    # A writer that was killed as it opened meanwhile has left one, with rows for the old arrays.
    remove_journals(location, layout)
    hierarchy.change(layout.with_group(done))


def _write_documents(
    location: Location,
    layout: Layout,
    variable: Variable,
    old: list[Span],
    new: list[Span],
) -> None:
    """The documents of the new arrays: those of the old ones, with another number of draws."""
    found = read_document(location, old[-1].path)
    for span in new:
        draws = span.stop - span.start
        document = layout.document(variable, draws)
        if found is not None:
            document["attributes"] = found["attributes"]
        location.write(f"{span.path}/zarr.json", encode_document(document))


def chunk_keys(location: Location, path: str) -> list[str]:
    """The keys of the chunks of an array, without what a killed process left behind."""
    return [key for key in location.keys(path) if _CHUNK_NAME.fullmatch(key.rpartition("/")[2])]


def _has_same_chunks(new: Span, old: list[Span], length: int) -> bool:
    """Whether each chunk of a new array has just the draws of one chunk of the old ones."""
    return all(
        (new.start - span.start) % length == 0
        and (new.stop == span.stop or (min(new.stop, span.stop) - new.start) % length == 0)
        for span in old
        if new.start < span.stop and span.start < new.stop
    )


def _share_chunks(location: Location, variable: Variable, old: list[Span], new: list[Span]) -> None:
    """Give each chunk its new key beside the old one, whole."""
    length = variable.draws_per_chunk
    for span in old:
        for key in chunk_keys(location, span.path):
            block, number = chunk_of_key(key)
            draw = span.chunk(number, length).draws.start
            for target in new:
                if target.start <= draw < target.stop:
                    location.share(key, target.place(draw, length).key(variable, block))


def _stream_chunks(
    location: Location,
    layout: Layout,
    variable: Variable,
    new: list[Span],
) -> None:
    """Cut the chunks anew, holding two of them at a time."""
    codec = ChunkCodec(variable.dtype, layout.encoding(variable.dtype))
    counts = recorded(location, layout)
    for block in chain_blocks(location, layout):
        chains = block.chains
        count = int(counts[chains[0]])
        reader = _StreamReader(block, variable)
        for span in new:
            first = span.start
            while first < min(span.stop, count):
                place = span.place(first, variable.draws_per_chunk)
                rows = range(place.draws.start, min(place.draws.stop, count))
                whole: np.ndarray[Any, Any] = np.full(
                    layout.chunk_shape(variable), codec.fill, dtype=variable.dtype
                )
                whole[: len(chains), : len(rows)] = reader.read(rows)
                location.write(place.key(variable, block.number), codec.encode(whole))
                first = place.draws.stop


class _StreamReader(RowReader):
    """Keeps the last chunk, which two new ones share."""

    _last: tuple[ChunkPlace, np.ndarray[Any, Any]] | None = None

    def chunk(
        self, place: ChunkPlace, into: np.ndarray[Any, Any] | None = None
    ) -> np.ndarray[Any, Any]:
        if self._last is None or self._last[0] != place:
            self._last = place, super().chunk(place)
        if into is not None:
            into[...] = self._last[1]
        return self._last[1]


def _copy_coordinates(
    location: Location, layout: Layout, group: SampledGroup, path: str, draws: int
) -> None:
    """The coordinate arrays of a staged group: `draw` anew, the others as the group has them."""
    dims = ["chain", *(dim for v in group.variables.values() for dim in v.dims)]
    names = [name for name, dim in layout.coords.items() if dim in dims]
    for name in dict.fromkeys([*dims, *names]):
        array = read_array(location, f"{group.name}/{name}")
        write_array(location, layout, f"{staged(path)}/{name}", array)
    draw = DataArray(("draw",), Numbers(draws))
    write_array(location, layout, f"{staged(path)}/draw", draw)


def write_array(location: Location, layout: Layout, path: str, array: DataArray) -> set[str]:
    """Write a small array whole, its document last; returns its keys."""
    encoding = layout.encodings.get(dtype_name(array.values.dtype))
    if encoding is None:
        encoding = compose_encoding(array.values.dtype, "auto")
    items = list(array_items(path, array, encoding))
    # What another tool has written is read as it was until then.
    location.write_many(items[::-1])
    return {key for key, _ in items}
