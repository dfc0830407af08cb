"""Check that every row of a table exists and decodes, and repair what does not."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from ..errors import DamagedTraceError
from ..layout.file import parse_count
from ..layout.layout import LIBRARY_VERSION, STATE
from ..layout.variables import Variable
from ..life.damage import Damage, DamagedDraws
from ..life.repair import put_chunk_aside
from ..sampling_state.journal_count import is_sealed, read_count
from ..sampling_state.journal_file import journal_file
from ..store.dtypes import dtype_name, dtype_of_document
from ..store.location import Location
from ..store.zarr_json import encode_document, group_document, read_document
from .conversion import convert
from .layout import JOURNAL, ROW, ROWS, LostRows, TableLayout, can_map_in
from .rows import ColumnReader
from .stored_rows import home_of
from .table_file import Stored, TableFile

_LOST = re.compile(r"rows (\d{1,18}) to (\d{1,18})")


def check(location: Location, table_file: TableFile) -> Iterator[Damage]:
    """Everything that is wrong with a table, as it is found."""
    try:
        stored = table_file.current()
        count = table_file.count_rows()
    except DamagedTraceError as error:
        yield Damage("zarr.json", error.why)
        return
    yield from _check_files(location, stored)
    for column in stored.layout.variables:
        yield from _check_document(location, stored, column)
        yield from _check_rows(location, stored, column, count)


def repair(location: Location, table_file: TableFile) -> Iterator[str]:
    """Fix what `check` finds, and yield what was done for each thing.

    The caller locks out other processes. On a local disk damaged chunks are not deleted: they
    are moved to `PATH.damaged`, beside the table.
    """
    for key in location.remove_partial_files():
        yield f"{key}: removed, a process that was killed left it behind"
    yield from _repair_table_document(location, table_file)
    stored = table_file.current()
    if stored.as_trace:
        stored = convert(location, table_file, stored)
        yield f"{STATE}: removed, the table is stored as this version stores tables"
    elif stored.layout.columns_in and location.exists(f"{STATE}/zarr.json"):
        location.delete_tree(STATE)
        yield f"{STATE}: removed, an earlier version left it behind"
    for column in stored.layout.variables:
        if any(True for _ in _check_document(location, stored, column)):
            _write_document(location, stored, column)
            yield f"{stored.layout.path(column)}/zarr.json: written again from the layout"
    count = table_file.count_rows()
    for column in stored.layout.variables:
        for damage in list(_check_rows(location, stored, column, count)):
            lost = LostRows(column.name, damage.draws.start, damage.draws.stop)
            # This comes first: in a copy, rows after a missing chunk do not count.
            stored = replace(stored, lost=tuple(dict.fromkeys((*stored.lost, lost))))
            table_file.write(stored)
            yield _give_up(location, stored.layout, column, damage)
            _write_document(location, stored, column)
    for left in check(location, table_file):
        yield f"not repaired: {left}; restore it from a copy"


# Checking -------------------------------------------------------------------------------------


def _check_files(location: Location, stored: Stored) -> Iterator[Damage]:
    for key in location.keys(""):
        if key.endswith(".partial"):
            yield Damage(key, "a process that was killed left it behind; it is not needed")
    if stored.layout.columns_in:
        yield from _check_group(location, stored.layout.columns_in)
        if not stored.as_trace and location.exists(f"{STATE}/zarr.json"):
            yield Damage(STATE, "an earlier version left it behind; it is not needed")


def _check_group(location: Location, path: str) -> Iterator[Damage]:
    try:
        found = read_document(location, path)
    except DamagedTraceError as error:
        yield Damage(f"{path}/zarr.json", error.why)
        return
    if found is None or found.get("node_type") != "group":
        yield Damage(f"{path}/zarr.json", "missing")


def _check_document(location: Location, stored: Stored, column: Variable) -> Iterator[Damage]:
    key = f"{stored.layout.path(column)}/zarr.json"
    try:
        found = read_document(location, stored.layout.path(column))
    except DamagedTraceError as error:
        yield Damage(key, error.why)
        return
    if found is None:
        yield Damage(key, "missing")
        return
    for name, value in stored.document(column.name).items():
        there = found.get(name)
        # The rows change with the table's life; nothing else does.
        grown = name == "shape" and isinstance(there, list) and there[1:] == value[1:]
        if name != "attributes" and there != value and not grown:
            yield Damage(key, f"{name} is {there!r}, not {value!r}")


def _check_rows(
    location: Location, stored: Stored, column: Variable, count: int
) -> Iterator[DamagedDraws]:
    reader, length = ColumnReader(location, stored, column), column.draws_per_chunk
    for start in range(0, count, length):
        rows = range(start, min(start + length, count))
        try:
            reader.read(rows)
        except DamagedTraceError as error:
            path = f"{stored.layout.path(column)}, rows {rows.start} to {rows.stop - 1}"
            yield DamagedDraws(path, error.why, ROWS, column.name, 0, rows)


# Repairing ------------------------------------------------------------------------------------


def _repair_table_document(location: Location, table_file: TableFile) -> Iterator[str]:
    try:
        table_file.current()
        return
    except DamagedTraceError:
        pass
    try:
        stored = table_file.without_rows()
    except DamagedTraceError:
        stored = Stored(_layout_by_columns(location))
        yield "zarr.json: written again from the columns; the attributes of the table are lost"
    rows, who = _count(location, stored.layout)
    stored = replace(stored, rows=rows)
    if stored.as_trace:
        convert(location, table_file, stored)
    else:
        lost = _lost_by_columns(location, stored.layout)
        table_file.write(replace(stored, lost=lost, home=home_of(location)))
    yield f"zarr.json: the table has {rows} rows, by {who}"


def _count(location: Location, layout: TableLayout) -> tuple[int, str]:
    """The number of rows, and where it is from."""
    file = layout.journal_file(location)
    count = None if file is None else read_count(layout, file, Stored(layout).chunks(location))
    if count is not None:
        return count, "its journal"
    documents = [read_document(location, layout.path(column)) for column in layout.variables]
    try:
        rows = min(parse_count(one["shape"][0], 0) if one else 0 for one in documents)
    except (KeyError, TypeError, ValueError, IndexError):
        rows = 0
    return rows, "the length of its columns"


def _lost_by_columns(location: Location, layout: TableLayout) -> tuple[LostRows, ...]:
    found = []
    for column in layout.variables:
        document = read_document(location, layout.path(column)) or {}
        for first, last in _LOST.findall(str(document.get("attributes"))):
            found.append(LostRows(column.name, int(first), int(last) + 1))
    return tuple(found)


def _layout_by_columns(location: Location) -> TableLayout:
    """The layout of a table without a document, from the documents of its columns."""
    columns, encodings, inside = {}, {}, ""
    for path in sorted(key.removesuffix("/zarr.json") for key in location.keys("")):
        document = read_document(location, path)
        if document is None or document.get("dimension_names", [None])[0] != ROW:
            continue
        inside, _, name = path.rpartition("/")
        try:
            columns[name] = _column_by_document(name, document)
            kept = {key: document[key] for key in ("data_type", "fill_value", "codecs")}
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise DamagedTraceError(
                f"{path}/zarr.json is damaged too ({error!r})",
                where=str(location),
                remedy="restore zarr.json from a copy",
            ) from None
        encodings[dtype_name(columns[name].dtype)] = kept
    if not columns:
        raise DamagedTraceError(
            "there is no column", where=str(location), remedy="restore zarr.json from a copy"
        )
    text = any(column.is_text for column in columns.values())
    mapped = can_map_in(location) and not text
    sealed = True
    if location.path is not None and (file := journal_file(location.path / JOURNAL, 0)).exists():
        mapped, sealed = True, is_sealed(file)
    return TableLayout(
        columns=columns,
        encodings=encodings,
        attrs={},
        created_at=datetime.now(UTC).isoformat(),
        library_version=LIBRARY_VERSION,
        journal=JOURNAL if mapped else "",
        flush_every=1.0,
        columns_in=inside,
        sealed=sealed,
    )


def _column_by_document(name: str, document: dict[str, Any]) -> Variable:
    dtype = dtype_of_document(document)
    return Variable(
        group=ROWS,
        name=name,
        declared=dtype,
        dtype=dtype,
        shape=tuple(parse_count(size, 1) for size in document["shape"][1:]),
        dims=tuple(map(str, document["dimension_names"][1:])),
        draws_per_chunk=parse_count(document["chunk_grid"]["configuration"]["chunk_shape"][0], 1),
        attrs={key: value for key, value in document["attributes"].items() if key != "lost_rows"},
    )


def _write_document(location: Location, stored: Stored, column: Variable) -> None:
    document: dict[str, Any] = stored.document(column.name)
    location.write(f"{stored.layout.path(column)}/zarr.json", encode_document(document))
    if stored.layout.columns_in:
        location.write(f"{stored.layout.columns_in}/zarr.json", encode_document(group_document()))


def _give_up(
    location: Location, layout: TableLayout, column: Variable, damage: DamagedDraws
) -> str:
    """Move a damaged chunk out of the way of every reader."""
    key = layout.chunk_key(column, damage.draws.start // column.draws_per_chunk)
    where = put_chunk_aside(location, key)
    missing = "read as missing values" if column.dtype.kind in "fcmM" else "cannot be read"
    return f"{damage}: lost, these rows of {column.name} {missing}{where}"
