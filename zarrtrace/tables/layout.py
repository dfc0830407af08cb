"""What a table consists of, as it was made: its columns, and how they are stored."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import FormatVersionError, SchemaError, TraceError
from ..layout.attributes import check_attrs
from ..layout.coordinates import Dimensions
from ..layout.file import parse_count, parse_separator, parse_variable, try_codecs
from ..layout.layout import LIBRARY_VERSION
from ..layout.names import check_name
from ..layout.variables import Var, Variable, define_variable
from ..sampling_state.journal_file import can_map, journal_file
from ..store.dtypes import dtype_name
from ..store.location import Location
from ..store.zarr_json import array_document, chunk_key, compose_encoding

if TYPE_CHECKING:
    from numpy.typing import DTypeLike


Columns = Mapping[str, "Var | DTypeLike"]

VERSION = 2
JOURNAL = "_journal"
ROW = "row"
# The group of a column in errors, and where earlier versions put the columns.
ROWS = "rows"

_CHUNK_BYTES = 32 * 1024  # of a column: the space of a nearly empty table on the disk
_LONGEST_CHUNK = 4096


# Equal only to itself, so that what follows from a layout can be kept for it.
@dataclass(frozen=True, eq=False)
class TableLayout:
    """The properties of a table that never change.

    Attributes
    ----------
    encodings : dict
        By the name of a dtype: `data_type`, `fill_value` and `codecs` of a zarr.json.
    journal : str
        The key of the array in whose chunk the rows are until their chunks are full; "" where they
        wait in memory.
    flush_every : float
        Seconds between flushes where rows wait in memory.
    columns_in : str
        The group that the columns are in: "" for the table itself, "rows" in a table that an
        earlier version made.
    separator : str
        In the keys of chunks.
    sealed : bool
        Whether each row in the journal has a seal, and each chunk holds its number of rows;
        False in a table that an earlier version made.
    """

    columns: dict[str, Variable]
    encodings: dict[str, dict[str, Any]]
    attrs: dict[str, Any]
    created_at: str
    library_version: str
    journal: str
    flush_every: float
    columns_in: str = ""
    separator: str = "."
    sealed: bool = False

    # What a journal needs to know: a table has one writer, and rows survive the process.
    chains_per_chunk = 1
    durable = False

    @property
    def variables(self) -> list[Variable]:
        """The columns in their order."""
        return list(self.columns.values())

    def chunk_shape(self, column: Variable) -> tuple[int, ...]:
        """The shape of a column's rows in the journal; the shape of its chunks without the 1."""
        return (1, column.draws_per_chunk, *column.shape)

    def array_starts(self, column: Variable) -> tuple[int, ...]:
        """The rows that its arrays begin with: a column has one array."""
        return (0,)

    def encoding(self, column: Variable) -> dict[str, Any]:
        """How the values of a column are stored."""
        return self.encodings[dtype_name(column.dtype)]

    def path(self, column: Variable) -> str:
        """The path of a column's array."""
        return f"{self.columns_in}/{column.name}" if self.columns_in else column.name

    def chunk_key(self, column: Variable, chunk: int) -> str:
        """The key of a chunk of a column."""
        return chunk_key(self.path(column), (chunk, *(0 for _ in column.shape)), self.separator)

    def chunk_of(self, column: Variable, key: str) -> int:
        """The number of the chunk at a key of a column; -1 if it is not a chunk."""
        name = key.removeprefix(f"{self.path(column)}/").split(self.separator)
        number = name[1] if name[0] == "c" and len(name) > 1 else ""
        return int(number) if number.isdecimal() else -1

    def document(self, column: Variable, rows: int, lost: Iterable[str] = ()) -> dict[str, Any]:
        """The zarr.json of a column with this many rows."""
        lost = list(lost)
        return array_document(
            self.encoding(column),
            (rows, *column.shape),
            (column.draws_per_chunk, *column.shape),
            (ROW, *column.dims),
            {**column.attrs, **({"lost_rows": lost} if lost else {})},
            self.separator,
        )

    @property
    def shown_attrs(self) -> dict[str, Any]:
        """The attributes that every reader finds."""
        return {
            "created_at": self.created_at,
            "creation_library": "zarrtrace",
            "creation_library_version": self.library_version,
            "creation_library_language": "Python",
            **self.attrs,
            "sample_dims": [ROW],
        }

    def journal_file(self, location: Location) -> Path | None:
        """Where the journal is while rows are appended; None where they wait in memory."""
        if location.path is None or not self.journal:
            return None
        return journal_file(location.path / self.journal, 0)


# Definition -----------------------------------------------------------------------------------


def plan_table(
    location: Location, columns: Columns, attrs: Mapping[str, Any], flush_every: float
) -> TableLayout:
    """Check the definition of a new table, and choose its layout."""
    defined = define_columns(location, columns)
    dtypes = {dtype_name(column.dtype): column.dtype for column in defined.values()}
    text = any(column.is_text for column in defined.values())
    mapped = can_map_in(location) and (not text or flush_every == 0)
    return TableLayout(
        columns=defined,
        encodings={name: compose_encoding(dtype, "auto") for name, dtype in dtypes.items()},
        attrs=check_attrs(attrs, "attrs"),
        created_at=datetime.now(UTC).isoformat(),
        library_version=LIBRARY_VERSION,
        journal=JOURNAL if mapped else "",
        flush_every=float(flush_every),
        separator=location.separator,
        sealed=True,
    )


def can_map_in(location: Location) -> bool:
    """Whether a new journal can be mapped in a store."""
    # On a network file system the pages of a mapped file reach other machines in any order.
    return location.path is not None and not location.network and can_map()


def define_columns(location: Location, columns: Columns) -> dict[str, Variable]:
    """The columns of a table, each with a number of rows per chunk chosen by its size."""
    if not isinstance(columns, Mapping) or not columns:
        raise SchemaError(
            f"{location}: give columns as a mapping of names to zarrtrace.Var or dtypes, at "
            f"least one; got {columns!r}"
        )
    dimensions, defined = Dimensions(), {}
    for key, given in columns.items():
        name = check_name(key, "column")
        what = f"column {name!r}"
        if name == JOURNAL:
            raise SchemaError(f"{what}: zarrtrace reserves this name; rename the column")
        var = given if isinstance(given, Var) else Var(dtype=given)
        column = define_variable(ROWS, name, var, dimensions, what)
        if column.is_rounded:
            raise SchemaError(
                f"{what}: the columns of tables are not rounded",
                remedy="leave rounded_to and significant_bits out",
            )
        length = column.draws_per_chunk or _rows_per_chunk(column)
        defined[name] = replace(column, draws_per_chunk=length)
    taken = {ROW, *(dim for column in defined.values() for dim in column.dims)}
    for name, column in defined.items():
        if name in taken or ROW in column.dims:
            named = name if name in taken else ROW
            raise SchemaError(
                f"column {name!r}: {named!r} is the name of a dimension; rename one of the two"
            )
    return defined


def _rows_per_chunk(column: Variable) -> int:
    return min(max(1, _CHUNK_BYTES // max(1, column.bytes_per_draw)), _LONGEST_CHUNK)


def describe_column(column: Variable | None) -> str:
    """The dtype and the shape of a column, as messages say them."""
    if column is None:
        return "nothing"
    shape = f" of shape {column.shape}" if column.shape else ""
    return f"{dtype_name(column.declared)}{shape}"


# Text -----------------------------------------------------------------------------------------


def to_text(layout: TableLayout) -> str:
    """The layout as JSON text."""
    content = {
        "format_version": VERSION if layout.sealed else 1,
        "columns": [
            {
                "name": column.name,
                "dtype": dtype_name(column.dtype),
                "shape": column.shape,
                "dims": column.dims,
                "draws_per_chunk": column.draws_per_chunk,
                "attrs": column.attrs,
            }
            for column in layout.variables
        ],
        "encodings": layout.encodings,
        "attrs": layout.attrs,
        "created_at": layout.created_at,
        "library_version": layout.library_version,
        "journal": layout.journal,
        "flush_every": layout.flush_every,
        "columns_in": layout.columns_in,
        "separator": layout.separator,
    }
    return json.dumps(content)


@functools.lru_cache(maxsize=128)
def from_text(text: str) -> TableLayout:
    """The layout in JSON text; ValueError for anything else."""
    content = json.loads(text)
    if content["format_version"] > VERSION:
        raise FormatVersionError(
            f"it has format version {content['format_version']}; this zarrtrace reads tables up to "
            f"{VERSION}; upgrade it: pip install -U zarrtrace"
        )
    if content["journal"] not in ("", JOURNAL) or content["columns_in"] not in ("", ROWS):
        # Files are written and removed there.
        raise ValueError("its columns or its journal are not in the place of a table's")
    layout = parse_layout(content, content["columns"], content["journal"], content["columns_in"])
    sealed = content["format_version"] > 1
    if sealed and any(one["codecs"][-1]["name"] != "blosc" for one in layout.encodings.values()):
        raise ValueError("its chunks do not hold their number of rows")
    return replace(layout, sealed=sealed)


def parse_layout(
    content: Mapping[str, Any], columns: list[Any], journal: str, columns_in: str
) -> TableLayout:
    """The layout in the content of its JSON text; ValueError when its parts contradict each other.

    It comes from an earlier version, whose rows have no seals.
    """
    try:
        defined = [parse_variable(ROWS, item) for item in columns]
        layout = TableLayout(
            columns={one.name: replace(one, dtype=one.declared) for one in defined},
            encodings={
                str(name): {key: encoding[key] for key in ("data_type", "fill_value", "codecs")}
                for name, encoding in content["encodings"].items()
            },
            attrs=dict(content["attrs"]),
            created_at=str(content["created_at"]),
            library_version=str(content["library_version"]),
            journal=journal,
            flush_every=float(content["flush_every"]),
            columns_in=columns_in,
            separator=parse_separator(content.get("separator", ".")),  # older ones do not say
        )
        for column in layout.variables:
            names = [ROW, *column.dims, *layout.columns]
            if len(column.dims) != len(column.shape) or len(set(names)) != len(names):
                raise ValueError(f"{column.name} has shape {column.shape} and dims {column.dims}")
            layout.encoding(column)
        for name, encoding in layout.encodings.items():
            try_codecs(name, json.dumps(encoding))
    except (KeyError, TypeError, AttributeError, RecursionError, TraceError) as error:
        raise ValueError(f"the layout cannot be read ({error!r})") from None
    if not layout.columns:
        raise ValueError("it has no columns")
    return layout


# State ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LostRows:
    """Rows of a column that cannot be read any more."""

    column: str
    start: int
    stop: int

    def meets(self, column: Variable, chunk: int) -> bool:
        """Whether some of these rows are in a chunk."""
        first = chunk * column.draws_per_chunk
        same = self.column == column.name
        return same and self.start < first + column.draws_per_chunk and first < self.stop

    def __str__(self) -> str:
        return f"rows {self.start} to {self.stop - 1}"


def parse_lost(content: Iterable[Any]) -> tuple[LostRows, ...]:
    """The lost rows in the content of their JSON text."""
    return tuple(
        LostRows(str(column), parse_count(start, 0), parse_count(stop, 0))
        for column, start, stop in content
    )
