"""Tables: rows of typed columns, appended one by one and as safe as draws.

What a run keeps beside its draws: warnings, the history of an adaptation, diagnostics of blocks,
losses. A table is a small trace of a single chain, whose draws are rows and whose first dimension
is `row`; it has no end. Inside a trace it lies at `tables/<name>`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np

from ..errors import (
    ChainBusyError,
    DamagedTraceError,
    DrawError,
    InvalidInputError,
    SchemaError,
    TraceNotFoundError,
)
from ..layout.attributes import check_attrs
from ..layout.coordinates import Dimensions
from ..layout.hierarchy import Hierarchy
from ..layout.layout import LIBRARY_VERSION, STATE, TABLES, Layout, SampledGroup, array_path
from ..layout.variables import ROWS, Var, Variable, define_group
from ..life import create as creation
from ..messages import counted
from ..reading.cut import ONE_CHAIN, make_cut
from ..reading.moment import Moment
from ..recording import exit as ending
from ..recording.writer import ChainWriter
from ..sampling_state.block import ChainBlock, remove_journals
from ..sampling_state.claim import BEAT_EVERY
from ..sampling_state.counts import recorded
from ..store.dtypes import dtype_name
from ..store.location import Location, Place, locate
from ..store.zarr_json import compose_encoding, encode_document

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr
    from numpy.typing import DTypeLike

    from ..life.check import Damage


Columns = Mapping[str, "Var | DTypeLike"]

_MOST_ROWS = 2**53
_CHUNK_BYTES = 32 * 1024  # of a column: what a table that is hardly used takes on the disk
_LONGEST_CHUNK = 4096
_PATIENCE = 10.0  # seconds that another process may take to make the same table


def open(
    store: Place,
    columns: Columns | None = None,
    mode: Literal["a", "r"] = "a",
    *,
    attrs: Mapping[str, Any] | None = None,
    flush_every: float = 1.0,
    storage_options: Mapping[str, Any] | None = None,
) -> Table:
    """Open a table at a place of its own, or make one.

    Parameters
    ----------
    store : str, path, zarr.abc.store.Store or None
        Where it is; None for a new one in memory.
    columns, attrs, flush_every
        As in `Trace.table`.
    mode : "a" or "r"
        To append, or read-only.
    storage_options : mapping, optional
        For a URL, what fsspec takes.

    Raises
    ------
    TraceNotFoundError
        With mode "r": there is no table.
    SchemaError
        A column cannot be stored, or the table has others.
    """
    if mode not in ("a", "r"):
        raise InvalidInputError(f"mode is 'a' or 'r', got {mode!r}")
    location = locate(store, read_only=mode == "r", storage_options=storage_options)
    table = Table(location, columns, attrs=attrs, flush_every=flush_every)
    if mode == "r" and not table.exists:
        raise TraceNotFoundError(f"there is no table at {location}; is the path right?")
    return table


def names(location: Location) -> tuple[str, ...]:
    """The names of the tables in a trace, in the order in which they were made."""
    found = []
    for name in location.children(TABLES):
        inside = location.below(f"{TABLES}/{name}")
        try:
            found.append((Hierarchy(inside).layout.created_at, name))
        except TraceNotFoundError:
            # Not made to the end: its process was killed.
            continue
        except DamagedTraceError:
            found.append(("", name))
    return tuple(name for _, name in sorted(found))


class Table:
    """Rows of typed columns: what `Trace.table` and `zarrtrace.table.open` return.

    The first append opens it for writing, and one process at a time can; reading works at any
    time, from any process. Rows without text are safe from `kill -9` in a local directory when
    `append` has returned; text has no fixed size and waits with its row for `flush()`, or for the
    first append after `flush_every` seconds. With 0 seconds it does not wait: each append writes a
    file for each column of text. On other stores all rows wait.
    """

    def __init__(
        self,
        location: Location,
        columns: Columns | None = None,
        *,
        attrs: Mapping[str, Any] | None = None,
        flush_every: float = 1.0,
    ) -> None:
        self._location = location
        self._hierarchy = Hierarchy(location)
        self._writer: ChainWriter | None = None
        self._shown = -1
        self._attrs = check_attrs(attrs or {}, "attrs")
        self._flush_every = flush_every
        if columns is not None:
            self.require(columns)

    # What it is ---------------------------------------------------------------------------

    @property
    def path(self) -> str:
        """Where the table is."""
        return str(self._location)

    @property
    def exists(self) -> bool:
        """Whether it has been made: a table without columns is by its first row."""
        try:
            _ = self._hierarchy.layout
        except TraceNotFoundError:
            # Nothing, or what a process left that was killed while it made the table.
            return False
        except DamagedTraceError:
            pass
        return True

    @property
    def columns(self) -> dict[str, Var]:
        """Each column with its dtype, and the shape of its value in a row."""
        return {
            name: Var(shape=variable.shape, dtype=variable.declared, attrs=variable.attrs)
            for name, variable in self._variables.items()
        }

    @property
    def attrs(self) -> dict[str, Any]:
        """The attributes it was made with."""
        return dict(self._hierarchy.layout.attrs if self.exists else self._attrs)

    def __len__(self) -> int:
        if self._writer is not None:
            return self._writer.recorded
        if not self.exists:
            return 0
        return int(recorded(self._location, self._hierarchy.layout)[0])

    @property
    def _variables(self) -> dict[str, Variable]:
        return self._hierarchy.layout.groups[ROWS].variables if self.exists else {}

    # Writing ------------------------------------------------------------------------------

    def append(self, row: Mapping[str, Any] | None = None, /, **values: Any) -> None:
        """Append one row: a value for every column, in a mapping or by keyword.

        Parameters
        ----------
        row, **values : mapping of str to value
            Numbers, text, arrays of their column's shape: what `ChainWriter.record` takes.

        Raises
        ------
        DrawError
            A column is missing or unknown, or a value has another shape, or would lose something
            in the column's dtype. Nothing of the row is kept, and the next one is taken.
        ChainBusyError
            Another process appends to this table; the message says which.
        """
        given = {**(row or {}), **values}
        try:
            self._open_writer(given, Var.like).record(rows=given)
        except DrawError as error:
            raise self._refused(error) from None

    def append_rows(self, columns: Mapping[str, Any]) -> None:
        """Append several rows: for every column an array with a value for each of them.

        Parameters
        ----------
        columns : mapping of str to array
            Of shape (rows, *shape), as long for one column as for another.

        Raises
        ------
        DrawError, ChainBusyError
            As `append`; none of the rows is kept.
        """

        def one_of(values: Any) -> Var:
            array = np.asarray(values)
            return Var.like(array[0] if len(array) else array)

        try:
            self._open_writer(columns, one_of).record_block(rows=columns)
        except DrawError as error:
            raise self._refused(error) from None

    def flush(self) -> None:
        """Write what is buffered, so that any Zarr reader finds all rows."""
        if self._writer is not None:
            self._writer.flush()
            self._show_rows()

    def flush_waiting(self) -> None:
        """Write rows that wait in memory, if there are any: those that are safe already stay."""
        if self._writer is not None and not self._hierarchy.layout.journal:
            self.flush()

    def close(self) -> None:
        """Flush, and let others append; the next append opens the table again."""
        writer, self._writer = self._writer, None
        if writer is None:
            return
        ending.forget(self)
        try:
            if not writer.closed:
                writer.flush()
            self._show_rows()
            # All of it is in the chunks, and the lock is still held.
            remove_journals(self._location, self._hierarchy.layout)
        finally:
            writer.release()

    def release(self) -> None:
        """Let go of it without flushing: in a forked child it goes on being the parent's."""
        writer, self._writer = self._writer, None
        ending.forget(self)
        if writer is not None:
            writer.release()

    def beat(self) -> None:
        """Nothing: the writer shows that it lives."""

    def _open_writer(self, given: Mapping[str, Any], column_of: Any) -> ChainWriter:
        if self._writer is not None:
            return self._writer
        self._location.require_writable()
        if not self.exists:
            self.require({name: column_of(value) for name, value in given.items()})
        try:
            writer = ChainWriter(self._hierarchy, 0)
        except ChainBusyError as error:
            raise ChainBusyError(str(error).removeprefix("chain 0 of ")) from None
        writer.resume()
        self._writer = writer
        ending.register(self, BEAT_EVERY)
        return writer

    def _show_rows(self) -> None:
        """Give the arrays as many rows as are in their chunks."""
        count = int(recorded(self._location, self._hierarchy.layout)[0])
        if count == self._shown:
            return
        layout = self._hierarchy.layout
        self._location.write_many(
            (
                f"{array_path(ROWS, variable)}/zarr.json",
                encode_document(layout.document(variable, count)),
            )
            for variable in layout.variables
        )
        self._shown = count

    def _refused(self, error: DrawError) -> DrawError:
        """The error of a writer, about a row and its columns."""
        why = str(error).partition(": ")[2]
        for word, ours in _WORDS.items():
            why = why.replace(word, ours)
        column = f", column {error.variable!r}" if error.variable in self._variables else ""
        return DrawError(
            f"{self.path}{column}, row {error.draw}: {why}",
            group=ROWS,
            variable=error.variable,
            draw=error.draw,
        )

    # Making -------------------------------------------------------------------------------

    def _create(self, columns: Columns) -> None:
        layout = self._plan(columns)
        with self._alone():
            # Another process may have been faster.
            if not self.exists:
                creation.write(self._location, creation.Plan(layout, {ROWS: {}}, {}))

    def _plan(self, columns: Columns) -> Layout:
        if not isinstance(columns, Mapping) or not columns:
            raise SchemaError(
                f"{self.path}: give columns as a mapping of names to zarrtrace.Var or dtypes, at "
                f"least one; got {columns!r}"
            )
        wanted = {
            name: column if isinstance(column, Var) else Var(dtype=column)
            for name, column in columns.items()
        }
        variables = {
            variable.name: replace(
                variable, draws_per_chunk=variable.draws_per_chunk or _rows_per_chunk(variable)
            )
            for variable in define_group(ROWS, wanted, Dimensions(), {}, None)
        }
        dtypes = {dtype_name(variable.dtype): variable.dtype for variable in variables.values()}
        text = any(variable.is_text for variable in variables.values())
        return Layout(
            chains=1,
            tune=0,
            draws=_MOST_ROWS,
            chains_per_chunk=1,
            groups={ROWS: SampledGroup(ROWS, variables, 0)},
            data_groups={},
            coords={},
            encodings={name: compose_encoding(dtype, "auto") for name, dtype in dtypes.items()},
            attrs=self._attrs,
            name="",
            created_at=datetime.now(UTC).isoformat(),
            library_version=LIBRARY_VERSION,
            journal=creation.journal_place(self._location, not text or self._flush_every == 0),
            flush_every=float(self._flush_every),
            durable=False,
        )

    def require(self, columns: Columns) -> None:
        """Make the table if there is none, or refuse columns that are not those it has.

        Parameters
        ----------
        columns : mapping of str to Var or dtype
            As in `Trace.table`.

        Raises
        ------
        SchemaError
            A column cannot be stored, or the table has others.
        """
        if not self.exists and not self._location.read_only:
            self._create(columns)
        if self.exists:
            self._require_same(columns)

    def _require_same(self, columns: Columns) -> None:
        wanted = self._plan(columns).groups[ROWS].variables
        there = self._variables

        def describe(variable: Variable | None) -> str:
            if variable is None:
                return "nothing"
            shape = f" of shape {variable.shape}" if variable.shape else ""
            return f"{dtype_name(variable.declared)}{shape}"

        for name in {**there, **wanted}:
            here, given = there.get(name), wanted.get(name)
            if describe(here) != describe(given):
                raise SchemaError(
                    f"{self.path}: column {name!r} is {describe(here)} in the table that is "
                    f"there, and {describe(given)} in what was asked for; open it without columns, "
                    f"or give the table another name",
                    variable=name,
                )

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold off other processes that would make this table."""
        self._location.require_writable()
        if self._location.path is not None:
            self._location.path.mkdir(parents=True, exist_ok=True)
        with self._location.alone(_PATIENCE) as alone:
            if not alone:
                raise ChainBusyError(f"{self.path} is being made by another process; try again")
            yield

    # Mending ------------------------------------------------------------------------------

    def check(self) -> list[Damage]:
        """Read all rows, and say what is damaged or missing, as `Trace.check` does."""
        from ..life.check import Damage, check

        try:
            layout = self._hierarchy.layout
        except DamagedTraceError as error:
            return [Damage(f"{STATE}/zarr.json", str(error).partition(": ")[2])]
        return list(check(self._location, layout))

    def repair(self) -> list[str]:
        """Mend what `check` finds, as `Trace.repair` does.

        Raises
        ------
        ChainBusyError
            Another process appends to it.
        """
        from ..life.repair import repair

        self.close()
        with self._alone():
            ChainBlock(self._location, self._hierarchy.layout, 0).require_free()
            return list(repair(self._hierarchy))

    # Reading ------------------------------------------------------------------------------

    def __getitem__(self, column: str) -> np.ndarray[Any, Any]:
        """The values of a column in memory, shape (rows, *shape)."""
        return self.read(column)

    def read(self, column: str, rows: slice = slice(None)) -> np.ndarray[Any, Any]:
        """Some values of a column, reading no more chunks than they lie in.

        Parameters
        ----------
        column : str
            One of `columns`.
        rows : slice, optional
            Which rows; all by default.

        Returns
        -------
        numpy.ndarray
            Shape (rows, *shape).

        Raises
        ------
        KeyError
            There is no such column.
        """
        from ..reading.values import read_values

        if column not in self._variables:
            raise KeyError(
                f"{self.path} has no column {column!r}; it has {', '.join(self._variables)}"
            )
        self.flush_waiting()
        cut = make_cut(Moment.of(self._hierarchy), ROWS)
        return read_values([(cut, cut.group.variables[column])], rows, flatten=True)[0]

    def to_dataset(self) -> xr.Dataset:
        """The rows there are now as an `xarray.Dataset`, lazy, with the dimension `row`."""
        from ..reading import dataset as view

        if not self.exists:
            import xarray as xr

            return xr.Dataset()
        self.flush_waiting()
        cut = make_cut(Moment.of(self._hierarchy), ROWS)
        return view.open_cut(cut).isel({ONE_CHAIN: 0})

    def to_dataframe(self) -> pd.DataFrame:
        """The rows there are now as a `pandas.DataFrame`; arrays stand in columns of objects."""
        import pandas as pd

        columns = {}
        for name, variable in self._variables.items():
            values = self[name]
            if variable.is_text:
                values = values.astype(object)
            columns[name] = values if values.ndim == 1 else pd.Series(list(values), dtype=object)
        length = min(map(len, columns.values()), default=0)
        return pd.DataFrame({name: values[:length] for name, values in columns.items()})

    # Life ---------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        columns = ", ".join(
            f"{name}: {dtype_name(variable.declared)}{list(variable.shape) or ''}"
            for name, variable in self._variables.items()
        )
        rows = counted(len(self), "row")
        return f"<zarrtrace.Table {self.path}: {rows} of {columns or 'nothing yet'}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return Table, (self._location,)


# What a writer says of draws, said of rows.
_WORDS = {
    "the group has no variable": "there is no column",
    "one draw has": "one row has",
    "give one each draw": "give one in each row",
}


def _rows_per_chunk(variable: Variable) -> int:
    return min(max(1, _CHUNK_BYTES // variable.bytes_per_draw), _LONGEST_CHUNK)
