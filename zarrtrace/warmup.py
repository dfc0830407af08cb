"""The split: the first draws of each chain go to the warmup groups.

Chunks that lie wholly on one side are renamed, never decoded (copied as bytes in stores that
cannot rename); where the boundary cuts through chunks, they stream through memory one by one.

The way of one variable: its array is moved aside in one step, its chunks go from there to their
new places, the layout says so, and what is left aside is removed. Killed at any point, the same
steps done again finish the work, and readers find every chunk in one of the two places.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np

from .checks import dtype_name
from .chunks import ChunkCodec
from .coordinates import DataArray
from .documents import (
    array_items,
    compose_encoding,
    encode_document,
    group_document,
    read_array,
    read_document,
)
from .errors import DamagedTraceError, IncompleteTraceError, InvalidInputError
from .journal import remove_journals
from .layout import (
    STAGING,
    Layout,
    LayoutFile,
    SampledGroup,
    array_path,
    group_attrs,
    variable_key,
)
from .location import Location
from .rows import RowReader, Segment, recorded, segments, staged
from .schema import Variable


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
    counts = recorded(location, layout)
    for name in names:
        if name not in layout.groups:
            raise InvalidInputError(
                f"{location} has no sampled group {name!r} to split; "
                f"it has {', '.join(layout.groups)}",
                group=name,
            )
        group = layout.groups[name]
        target = group.warmup if at is None else at
        if not isinstance(target, int | np.integer) or not 0 <= target <= layout.total:
            raise InvalidInputError(
                f"the first {target!r} draws cannot be warmup: a chain of {location} has "
                f"{layout.total}"
            )
        if target > counts.min():
            chain = int(counts.argmin())
            raise IncompleteTraceError(
                f"chain {chain} of {location} has recorded {counts[chain]} draws, fewer than the "
                f"{target} of warmup; record the rest, or split_warmup(n) with n up to "
                f"{counts[chain]}",
                chain=chain,
            )
        if group.stored_warmup == target:
            group = replace(group, warmup=int(target))
        else:
            group = replace(group, moving_to=int(target))
        layout = layout.with_group(group)
    return layout


def resume_split(location: Location, layout_file: LayoutFile) -> None:
    """Finish a split that was begun, or do nothing.

    Every draw must be in the chunks: while they move, no journal is read or written.
    """
    layout = layout_file.current()
    if layout.splitting:
        remove_journals(location, layout)
    for name, group in layout.groups.items():
        if group.moving_to is not None:
            _move_group(location, layout_file, name)
    if layout.splitting or read_document(location, STAGING) is not None:
        location.delete_tree(STAGING)


def _move_group(location: Location, layout_file: LayoutFile, name: str) -> None:
    layout = layout_file.current()
    group = layout.groups[name]
    target = group.moving_to
    assert target is not None
    done = replace(group, warmup=target, stored_warmup=target, moving_to=None, moved=())
    for path in (STAGING, staged(group.name), staged(group.warmup_name)):
        location.write(f"{path}/zarr.json", encode_document(group_document()))
    if target:
        attrs = group_attrs(layout.with_group(done), group.warmup_name)
        location.write(f"{group.warmup_name}/zarr.json", encode_document(group_document(attrs)))
        _write_coordinates(location, layout, group, group.warmup_name, target)
    for variable in group.variables.values():
        if variable.name not in group.moved:
            _move_variable(location, layout, group, variable)
            group = replace(group, moved=(*group.moved, variable.name))
            layout = layout.with_group(group)
            layout_file.write(layout)
        for path in (group.name, group.warmup_name):
            location.delete_tree(staged(array_path(path, variable)))
    _write_coordinates(location, layout, group, group.name, layout.total - target)
    document = read_document(location, group.name) or group_document()
    document["attributes"]["tuning_steps"] = target
    location.write(f"{group.name}/zarr.json", encode_document(document))
    if not target:
        location.delete_tree(group.warmup_name)
    layout_file.write(layout.with_group(done))


def _move_variable(
    location: Location, layout: Layout, group: SampledGroup, variable: Variable
) -> None:
    assert group.moving_to is not None
    old = segments(layout, group, variable, group.stored_warmup)
    new = segments(layout, group, variable, group.moving_to)
    # The array of the group itself goes last: its document says that all are aside.
    for segment in old:
        if read_document(location, staged(segment.path)) is None:
            if read_document(location, segment.path) is None:
                raise DamagedTraceError(
                    f"{location}: the array {segment.path} is missing; restore it from a copy",
                    group=group.name,
                    variable=variable.name,
                )
            location.move_tree(segment.path, staged(segment.path))
        elif not location.renames:
            # Copies: what an interrupted move left behind; all of it is aside.
            location.delete_tree(segment.path)
    for segment in new:
        document = layout.document(variable, segment.stop - segment.start)
        location.write(f"{segment.path}/zarr.json", encode_document(document))
    length = variable.draws_per_chunk
    if group.stored_warmup % length == 0 and group.moving_to % length == 0:
        _move_chunks(location, layout, variable, old, new)
    else:
        _stream_chunks(location, layout, group, variable, new)


def _move_chunks(
    location: Location,
    layout: Layout,
    variable: Variable,
    old: list[Segment],
    new: list[Segment],
) -> None:
    """Give each chunk its new key, whole."""
    length = variable.draws_per_chunk
    for segment in old:
        waiting = staged(segment.path)
        for key in location.keys(waiting):
            name = key.rpartition("/")[2]
            if not name.startswith("c."):
                continue
            block, chunk = map(int, name.split(".")[1:3])
            draw = segment.start + chunk * length
            for target in new:
                if target.start <= draw < target.stop:
                    moved, _ = target.place(draw, length)
                    location.move(key, variable_key(target.path, variable, block, moved))


def _stream_chunks(
    location: Location,
    layout: Layout,
    group: SampledGroup,
    variable: Variable,
    new: list[Segment],
) -> None:
    """Cut the chunks anew, holding two of them at a time."""
    codec = ChunkCodec(variable.dtype, layout.encoding(variable.dtype))
    counts = recorded(location, layout)
    for block in range(layout.blocks):
        chains = layout.chains_of(block)
        count = int(counts[chains[0]])
        reader = _StagedReader(location, layout, group, variable, block)
        for segment in new:
            first = segment.start
            while first < min(segment.stop, count):
                chunk, covered = segment.place(first, variable.draws_per_chunk)
                rows = range(covered.start, min(covered.stop, count))
                whole: np.ndarray[Any, Any] = np.full(
                    layout.chunk_shape(variable), codec.fill, dtype=variable.dtype
                )
                whole[: len(chains), : len(rows)] = reader.read(rows)
                location.write(
                    variable_key(segment.path, variable, block, chunk), codec.encode(whole)
                )
                first = covered.stop


class _StagedReader(RowReader):
    """Reads the arrays that wait aside; keeps the last chunk, which two new ones share."""

    def __init__(
        self,
        location: Location,
        layout: Layout,
        group: SampledGroup,
        variable: Variable,
        block: int,
    ) -> None:
        still = replace(group, moving_to=None, moved=())
        super().__init__(location, layout, still, variable, block)
        self.segments = [s._replace(path=staged(s.path)) for s in self.segments]
        self._last: tuple[tuple[str, int], np.ndarray[Any, Any]] | None = None

    def chunk(self, segment: Segment, chunk: int, covered: range) -> np.ndarray[Any, Any]:
        if self._last is None or self._last[0] != (segment.path, chunk):
            self._last = (segment.path, chunk), super().chunk(segment, chunk, covered)
        return self._last[1]


def _write_coordinates(
    location: Location, layout: Layout, group: SampledGroup, path: str, draws: int
) -> None:
    """The coordinate arrays of a group: `draw` anew, the others as the group has them."""
    dims = ["chain", *(dim for v in group.variables.values() for dim in v.dims)]
    names = [name for name, dim in layout.coords.items() if dim in dims]
    for name in dict.fromkeys([*dims, *names]):
        if path != group.name:
            array = read_array(location, f"{group.name}/{name}")
            write_array(location, layout, f"{path}/{name}", array)
    write_array(location, layout, f"{path}/draw", DataArray(("draw",), np.arange(draws)))


def write_array(location: Location, layout: Layout, path: str, array: DataArray) -> None:
    """Write a small array whole."""
    encoding = layout.encodings.get(dtype_name(array.values.dtype))
    if encoding is None:
        encoding = compose_encoding(array.values.dtype, "auto")
    location.write_many(array_items(path, array, encoding))
