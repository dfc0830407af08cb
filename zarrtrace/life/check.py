"""Check that everything a trace needs exists and decodes; reads all of it, changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..errors import DamagedTraceError
from ..layout.layout import STATE, TABLES, Layout, array_path, changed_keys
from ..layout.spans import Span
from ..layout.variables import Variable
from ..messages import range_label
from ..reading.as_finished import read_whole
from ..reading.other_groups import find_other_groups, is_rewritten, node_names
from ..reading.others import find_others
from ..reading.rows import RowReader
from ..sampling_state.block import chain_blocks
from ..sampling_state.counts import recorded
from ..sampling_state.flushed import read_last_rows
from ..store.location import Location
from ..store.zarr_json import read_document
from .damage import Damage, DamagedDraws


def checksummed(layout: Layout) -> bool:
    """Whether every chunk carries a checksum, so that any flipped bit is found."""
    return all(
        any(codec["name"] == "crc32c" for codec in encoding["codecs"])
        for encoding in layout.encodings.values()
    )


def check(location: Location, layout: Layout) -> Iterator[Damage]:
    """Everything that is wrong with a trace, as it is found."""
    if layout.splitting or (layout.closed and not layout.finished):
        yield Damage(f"{STATE}/zarr.json", "a split or a finish was interrupted")
    for group in layout.replacing:
        yield Damage(f"{STATE}/zarr.json", f"a change of the group {group} was interrupted")
    for key in location.keys(""):
        if key.endswith(".partial") and key.partition("/")[0] != TABLES:
            yield Damage(key, "left behind by a process that was killed; it is not needed")
    yield from _check_documents(location, layout)
    yield from _check_data(location, layout)
    counts = np.zeros(layout.chains, np.int64)
    yield from _check_bookkeeping(location, layout)
    try:
        counts = recorded(location, layout)
    except DamagedTraceError:
        # Reported with the bookkeeping; without counts there are no draws to look for.
        return
    rewritten = {
        f"{path}/{name}"
        for group in layout.groups.values()
        for path in group.paths
        for name in _rewritten_names(location, layout, path)
    }
    for variable in layout.variables:
        for block in chain_blocks(location, layout):
            reader = RowReader(block, variable)
            # Variables that another tool has rewritten are read with the other arrays.
            spans = [span for span in reader.spans if span.path not in rewritten]
            count = int(counts[block.chains[0]])
            yield from _check_rows(reader, spans, variable, count)


def _check_rows(
    reader: RowReader, spans: list[Span], variable: Variable, count: int
) -> Iterator[Damage]:
    block = reader.block
    for span in spans:
        draw = max(span.start, block.layout.dropped)
        while draw < min(span.stop, count):
            place = span.place(draw, variable.draws_per_chunk)
            there = range(draw, min(place.draws.stop, count))
            try:
                reader.check(there)
            except DamagedTraceError as error:
                yield DamagedDraws(
                    f"{span.path}, {block.label}, {range_label('draw', there)}",
                    error.why,
                    variable.group,
                    variable.name,
                    block.number,
                    there,
                )
            draw = place.draws.stop


def _check_documents(location: Location, layout: Layout) -> Iterator[Damage]:
    for group in layout.groups.values():
        if group.moving_to is not None:
            continue
        for path in group.paths:
            yield from _check_document(location, path, None)
            rewritten = _rewritten_names(location, layout, path)
            for variable in group.variables.values():
                if variable.name in rewritten:
                    continue
                expected = layout.document(variable, 0)  # the number of draws is not compared
                yield from _check_document(location, array_path(path, variable), expected)
    for name in ("", *_given_groups(layout)):
        yield from _check_document(location, name, None)


def _check_document(
    location: Location, path: str, expected: dict[str, Any] | None
) -> Iterator[Damage]:
    try:
        document = read_document(location, path)
    except DamagedTraceError as error:
        yield Damage(f"{path}/zarr.json", error.why)
        return
    if document is None:
        yield Damage(f"{path}/zarr.json", "missing")
        return
    wanted = expected or {"node_type": "group", "zarr_format": 3}
    for key in changed_keys(document, wanted):
        why = f"{key} is {document.get(key)!r}, not {wanted.get(key)!r}"
        yield Damage(f"{path}/zarr.json", why)


def _rewritten_names(location: Location, layout: Layout, path: str) -> frozenset[str]:
    """The arrays of a sampled group that another tool has rewritten, as far as can be seen."""
    try:
        return find_others(location, layout, path).rewritten
    except DamagedTraceError:
        names = [
            n for n in node_names(location, path) if _is_surely_rewritten(location, f"{path}/{n}")
        ]
        return find_others(location, layout, path, names).rewritten


def _is_surely_rewritten(location: Location, path: str) -> bool:
    """Whether another tool has written the document of an array, and the document can be read.

    What cannot be read is reported; who reads values has to stop there.
    """
    try:
        return is_rewritten(location, path)
    except DamagedTraceError:
        return False


def _check_data(location: Location, layout: Layout) -> Iterator[Damage]:
    """The groups given whole, those of other tools, and what is in a group beside variables."""
    try:
        others = find_other_groups(location, layout)
    except DamagedTraceError as error:
        yield Damage("", error.why)
        others = ()
    for name in (*layout.groups, *_given_groups(layout), *others):
        group = layout.groups.get(name)
        for path in [name] if group is None else group.paths:
            known = (*layout.coords, *layout.data_groups.get(name, ()))
            # A file beside the arrays, or a directory of the file system's own, is not an array.
            parts = [key.removeprefix(f"{path}/").split("/") for key in location.keys(path)]
            nodes = {part[0] for part in parts if len(part) > 1}
            nodes = {node for node in nodes if node in known or not node.startswith(".")}
            of_others = []
            for node in sorted(nodes):
                if _is_surely_rewritten(location, f"{path}/{node}"):
                    of_others.append(node)
                    continue
                if group is not None and node in group.variables:
                    continue
                if group is None and _is_group(location, f"{path}/{node}"):
                    continue
                try:
                    read_whole(location, layout, f"{path}/{node}", complete=True)
                except DamagedTraceError as error:
                    yield Damage(f"{path}/{node}", error.why)
            if of_others and (group is None or layout.finished):
                yield from _check_of_others(location, path, of_others)


def _given_groups(layout: Layout) -> list[str]:
    """The groups given whole that lie where they shall."""
    return [name for name in layout.data_groups if name not in layout.replacing]


def _check_of_others(location: Location, path: str, names: list[str]) -> Iterator[Damage]:
    """Read arrays of other tools, one element of the first dimension at a time."""
    from ..reading.data_groups import errors_as_damage, open_group_plainly

    try:
        with errors_as_damage("what another tool has written there", location, path):
            plain = open_group_plainly(location, path)
    except DamagedTraceError as error:
        yield Damage(path, error.why)
        return
    for name in names:
        variable = plain.variables.get(name)
        try:
            if variable is not None and variable.ndim:
                for index in range(variable.shape[0]):
                    variable[index].values  # noqa: B018
            elif variable is not None:
                variable.values  # noqa: B018
        except DamagedTraceError as error:
            yield Damage(f"{path}/{name}", error.why)


def _is_group(location: Location, path: str) -> bool:
    """Whether it is a group of another tool, rather than an array."""
    try:
        document = read_document(location, path)
    except DamagedTraceError:
        return False
    return document is not None and document.get("node_type") == "group"


def _check_bookkeeping(location: Location, layout: Layout) -> Iterator[Damage]:
    for block in chain_blocks(location, layout):
        for name in ("draw_idx", "sampling_time", "sampling_start_time", "state", "writer"):
            try:
                block.read(name)
            except DamagedTraceError as error:
                yield Damage(block.key(name), error.why)
        try:
            journal = block.read_journal()
            if journal is not None:
                journal.read_checkpoint()
        except DamagedTraceError as error:
            yield Damage(f"journal of block {block.number}", error.why)
        try:
            read_last_rows(block)
        except DamagedTraceError as error:
            yield Damage(block.key("flushed"), error.why)
