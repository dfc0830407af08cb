"""What a split moves: all chunks of the new groups, first beside the old ones, then in place.

An array with the same chunks as before gets them as hard links, undecoded (copied by the store
itself where it has no files); where a boundary cuts through chunks, they are cut again, a few at a
time. On a local disk whole groups are built under `_sampling_state/split`, and renamed; elsewhere
the chunks are copied from there, and only documents that change are written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import islice
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from ..layout.layout import STAGING, STATE, ChunkKey, Layout, SampledGroup, chunks_among
from ..layout.rounding import Exponents, round_to, unpack_exponents
from ..layout.spans import Span, future_spans, spans, staged
from ..layout.variables import Variable
from ..reading.rows import RowReader, fill_pieces
from ..sampling_state.block import ChainBlock, chain_blocks
from ..sampling_state.draw_codec import DrawCodec, draw_codec
from ..store.location import Location
from ..store.zarr_json import documents_first, encode_document, group_document, read_documents
from .carry import carry_added

_CUT_AT_ONCE = 8  # pieces, on remote stores
_CUT_BYTES = 2**20  # of draws in such a piece; at least two chunks

Counts: TypeAlias = "np.ndarray[Any, np.dtype[np.int64]]"


def chunk_keys(location: Location, groups: Iterable[str]) -> dict[str, list[ChunkKey]]:
    """The chunks of every array of some groups, without what a killed process left behind."""
    return chunks_among(key for group in groups for key in location.keys(group))


class Staging:
    """A split under way: what it moves, and where to.

    No chain may be recorded meanwhile.
    """

    def __init__(self, location: Location, layout: Layout, counts: Counts) -> None:
        self._location = location
        self._layout = layout
        self._counts = counts
        self._groups = [group for group in layout.groups.values() if group.moving_to is not None]
        paths = [path for group in self._groups for path in group.paths]
        self._keys = [key for path in paths for key in location.keys(path)]
        self._chunks = chunks_among(self._keys)

    @property
    def swapping(self) -> Layout:
        """The layout while the new groups take the place of the old ones."""
        layout = self._layout
        for group in self._groups:
            moved = tuple(v.name for v in group.variables.values() if self._is_cut(group, v))
            layout = layout.with_group(
                replace(group, variables=group.next_variables, moved=moved, swapping=True)
            )
        return layout

    @property
    def done(self) -> Layout:
        """The layout after that."""
        layout = self._layout
        for group in self._groups:
            done = replace(
                group,
                variables=group.next_variables,
                compacting={},
                warmup=group.next_warmup,
                stored_warmup=group.next_warmup,
                stored_first=layout.dropped,
                stored_left_out=layout.left_out,
                moving_to=None,
                v2_keys=group.moving_to_v2_keys,
                moved=(),
                swapping=False,
            )
            layout = layout.with_group(done)
        return layout

    # Beside the old chunks ------------------------------------------------------------------

    def fill(self) -> None:
        """Stage all chunks of the new groups; on a local disk, the groups as a whole."""
        shared: list[tuple[str, str]] = []
        cut: list[tuple[Variable, Span]] = []
        # On a disk they are renamed as a whole, and some stores refuse a chunk without its array.
        with_documents = self._location.renames or not self._location.takes_any_key
        if with_documents:
            self._location.write(f"{STAGING}/zarr.json", encode_document(group_document()))
        for group in self._groups:
            # An earlier version moved the groups to their place one by one.
            if group.swapping:
                continue
            if with_documents:
                self._location.write_many((staged(k), data) for k, data in self._documents(group))
            if self._location.renames:
                copied = self._coordinate_keys(group, self._new_paths(group))
                shared += ((key, staged(copy)) for key, copy in copied)
            end = int(self._counts[self._layout.kept_chains].min())
            carry_added(self._location, self._layout, group, self._keys, end)
            # And it removed the old chunks of each variable that it had cut.
            there = [v for v in group.variables.values() if v.name not in group.moved]
            for variable in there:
                for span in future_spans(self._layout, variable):
                    old = spans(self._layout, variable)
                    if variable.name not in group.compacting and _has_same_chunks(
                        span, old, variable
                    ):
                        shared += self._shared_keys(variable, span)
                    else:
                        cut.append((variable, span))
        pieces = self.pieces(cut)
        while batch := list(islice(pieces, _CUT_AT_ONCE if self._location.waits else 1)):
            fill_pieces([part for piece in batch for part in piece.parts()], self._location.waits)
            self._location.write_many(item for piece in batch for item in piece.items())
        self._location.share_many(shared)
        if self._location.renames:
            # This comes before the first old file is removed.
            self._location.sync_tree(STAGING)

    def _is_cut(self, group: SampledGroup, variable: Variable) -> bool:
        """Whether the chunks of a variable are cut again, so that the new ones differ."""
        old = spans(self._layout, variable)
        new = future_spans(self._layout, variable)
        if variable.name in group.compacting:
            return True
        return variable.name in group.moved or not all(
            _has_same_chunks(span, old, variable) for span in new
        )

    def _shared_keys(self, variable: Variable, new: Span) -> Iterator[tuple[str, str]]:
        """The keys of the old chunks of a new array, and where they are staged.

        It leaves out chunks from before a chain went back to a checkpoint.
        """
        length = variable.draws_per_chunk
        for span in spans(self._layout, variable):
            for chunk in self._chunks.get(span.path, ()):
                draw = span.chunk(chunk.number, length).draws.start
                block = span.block_at(chunk.place)
                is_there = new.start <= draw < min(new.stop, self._count(block))
                if is_there and chunk.key == self._key(variable, span, chunk):
                    key = new.place(draw, length).key(variable, block)
                    yield chunk.key, staged(key)

    def pieces(self, cut: Iterable[tuple[Variable, Span]]) -> Iterator[Piece]:
        """The new chunks of variables that are cut again, or rounded, a few at a time."""
        for variable, span in cut:
            group = self._layout.groups[variable.group]
            codec = draw_codec(self._layout, group.next_variables[variable.name])
            planned = group.compacting.get(variable.name)
            exponents = planned and unpack_exponents(planned.exponents, variable.parts_shape)
            together, length, *shape = self._layout.chunk_shape(variable)
            # At least two chunks: the old chunk that both share is read once.
            chunk_bytes = length * together * variable.bytes_per_draw
            step = max(2, _CUT_BYTES // max(1, chunk_bytes)) * length
            for block in chain_blocks(self._location, self._layout):
                stop = min(span.stop, self._count(block.number))
                for first in range(span.start, stop, step):
                    draws = range(first, min(first + step, stop))
                    rows = -(-len(draws) // length) * length
                    values = np.full((together, rows, *shape), codec.fill, variable.dtype)
                    last = self._count(block.number) - 1
                    yield Piece(block, variable, span, draws, values, codec, exponents, last)

    # Replace the old chunks ---------------------------------------------------------

    def swap(self) -> None:
        """Replace the old chunks by the staged ones."""
        if self._location.renames:
            self._rename_groups()
        else:
            self._copy_chunks()

    def _rename_groups(self) -> None:
        location, old_place = self._location, staged("_old")
        location.write(f"{old_place}/zarr.json", encode_document(group_document()))
        for group in self._groups:
            new = self._new_paths(group)
            for path in {**new, **dict.fromkeys(group.paths)}:
                is_staged = location.exists(f"{staged(path)}/zarr.json")
                if location.children(path) and (is_staged or path not in new):
                    # Two renames: plain readers miss the group for a moment only.
                    location.move_tree(path, f"{old_place}/{path}")
                if is_staged:
                    location.move_tree(staged(path), path)
        location.make_durable([STATE, STAGING, old_place])
        location.delete_tree(STAGING)

    def _copy_chunks(self) -> None:
        """Copy each chunk and write other new keys: a store without files cannot rename."""
        staged_keys = self._location.keys(STAGING)
        staged_chunks = chunks_among(staged_keys)
        copied: list[tuple[str, str]] = []
        coordinates: list[tuple[str, str]] = []
        gone: list[str] = []
        for group in self._groups:
            new = self._new_paths(group)
            coordinates += self._coordinate_keys(group, set(new) - set(group.paths))
            left = set(group.paths) - set(new)
            gone += (key for key in self._keys if key.partition("/")[0] in left)
            # Arrays that other tools have added are staged whole.
            ours = {*self._coordinate_names(group), "draw", *group.variables}
            added = [k for k in staged_keys if _node(k.removeprefix(staged("")), new) not in ours]
            copied += ((key, key.removeprefix(staged(""))) for key in documents_first(added))
            for variable in group.variables.values():
                for span in future_spans(self._layout, variable):
                    for chunk in staged_chunks.get(staged(span.path), ()):
                        if self._has_draws(variable, span, chunk):
                            copied.append((chunk.key, chunk.key.removeprefix(staged(""))))
                    for chunk in self._chunks.get(span.path, ()):
                        is_new = chunk.key == self._key(variable, span, chunk)
                        if not (is_new and self._has_draws(variable, span, chunk)):
                            gone.append(chunk.key)
        self._location.share_many(coordinates)
        documents = (item for group in self._groups for item in self._documents(group))
        self._location.write_many(documents)
        self._location.share_many(copied)
        self._location.delete_many([*gone, *staged_keys])

    def _key(self, variable: Variable, span: Span, chunk: ChunkKey) -> str:
        """The key of a chunk in an array: it had another key before the split."""
        place = span.chunk(chunk.number, variable.draws_per_chunk)
        return place.key(variable, span.block_at(chunk.place))

    def _has_draws(self, variable: Variable, span: Span, chunk: ChunkKey) -> bool:
        """Whether a chunk of an array has a draw that is recorded."""
        first = span.chunk(chunk.number, variable.draws_per_chunk).draws.start
        return first < min(span.stop, self._count(span.block_at(chunk.place)))

    # The new groups -------------------------------------------------------------------------

    def _new_paths(self, group: SampledGroup) -> dict[str, int]:
        """The groups that one group is split into, and the draws in each."""
        after = {group.name: max(0, self._layout.planned_draws - group.next_warmup)}
        before = {group.warmup_name: group.next_warmup - self._layout.dropped}
        return after | before if before[group.warmup_name] else after

    def _documents(self, group: SampledGroup) -> Iterator[tuple[str, bytes]]:
        """The keys and bytes of all documents that depend on the number of draws."""
        location, names = self._location, group.variables
        # Before the first finish only zarrtrace writes there; later attributes may be added.
        paths = [f"{group.name}/{name}" for name in names] if self._layout.closed else []
        done = self.done
        whole, *found = read_documents(location, [group.name, *paths])
        attrs = {**(whole or group_document())["attributes"], "tuning_steps": group.next_warmup}
        for path, draws in self._new_paths(group).items():
            yield f"{path}/zarr.json", encode_document(group_document(attrs))
            for number, variable in enumerate(done.groups[group.name].variables.values()):
                document = done.document(variable, draws)
                old = found[number] if found else None
                if old is not None:
                    document["attributes"] = {**old["attributes"], **variable.rounding_attrs}
                yield f"{path}/{variable.name}/zarr.json", encode_document(document)

    def _coordinate_keys(
        self, group: SampledGroup, paths: Iterable[str]
    ) -> Iterator[tuple[str, str]]:
        """The keys of the coordinates of a group, and their keys in other groups."""
        names = self._coordinate_names(group)
        # Plain readers treat a directory without a document as a stray file.
        for key in documents_first(self._keys):
            name, _, rest = key.partition("/")
            if name == group.name and rest.partition("/")[0] in names:
                for path in paths:
                    yield key, f"{path}/{rest}"

    def _coordinate_names(self, group: SampledGroup) -> set[str]:
        """The coordinates of a group that have no draws."""
        dims = {"chain", *(dim for v in group.variables.values() for dim in v.dims)}
        return {*dims, *(name for name, dim in self._layout.coords.items() if dim in dims)}

    def _count(self, block: int) -> int:
        """The draws that a block of chains has recorded; none if there is no such block."""
        if block >= self._layout.blocks:
            return 0
        return int(self._counts[self._layout.chains_of(block)[0]])


class Piece(NamedTuple):
    """Some new chunks of one array that follow each other, and the array for their draws.

    Attributes
    ----------
    exponents : numpy.ndarray or None
        The exponents of the quanta to which the draws are rounded; None where they are not.
    last : int
        The last draw of the chains, which stays exact.
    """

    block: ChainBlock
    variable: Variable
    span: Span
    draws: range
    values: np.ndarray[Any, Any]
    codec: DrawCodec
    exponents: Exponents | None
    last: int

    def parts(self) -> Iterator[Callable[[], None]]:
        """Functions that read its draws from the old chunks."""
        reader = RowReader(self.block, self.variable)
        values = self.values[: len(self.block.chains), : len(self.draws)]
        yield from reader.pieces(reader.chunks(self.draws), values)

    def items(self) -> Iterator[tuple[str, bytes]]:
        """The new chunks, with the keys under which they are staged."""
        length = self.variable.draws_per_chunk
        for row in range(0, self.values.shape[1], length):
            place = self.span.place(self.draws.start + row, length)
            key = place.key(self.variable, self.block.number)
            draws = min(len(self.draws) - row, length)
            rows = self._rounded(row, row + length)
            yield staged(key), self.codec.encode(rows, draws, len(place.draws))

    def _rounded(self, start: int, stop: int) -> np.ndarray[Any, Any]:
        """The rows of a chunk as they are stored."""
        rows = self.values[:, start:stop]
        if self.exponents is None:
            return rows
        rounded = round_to(rows, self.exponents)
        last = self.last - self.draws.start - start
        if 0 <= last < stop - start:
            rounded[:, last] = rows[:, last]
        return rounded


def _node(key: str, groups: Iterable[str]) -> str:
    """The name of the array or group that a key belongs to, in one of some groups."""
    group, _, rest = key.partition("/")
    name, _, inside = rest.partition("/")
    return name if group in groups and inside else "draw"


def _has_same_chunks(new: Span, old: list[Span], variable: Variable) -> bool:
    """Whether each chunk of a new array has exactly the draws of one old chunk."""
    length = variable.draws_per_chunk
    return all(
        (new.start - span.start) % length == 0
        and (new.stop == span.stop or (min(new.stop, span.stop) - new.start) % length == 0)
        for span in old
        if new.start < span.stop and span.start < new.stop
    )
