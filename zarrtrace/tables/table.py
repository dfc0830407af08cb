"""Tables: rows of typed columns, appended one by one, as safe as draws.

They hold what a run stores beside its draws: warnings, the history of an adaptation, diagnostics,
losses. A table is a group whose columns are arrays with the first dimension `row`; it has no end.
Inside a trace it is at `tables/<name>`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np

from ..errors import (
    DamagedTraceError,
    InvalidInputError,
    SchemaError,
    TraceNotFoundError,
    VariableNotFoundError,
)
from ..layout.attributes import check_attrs
from ..layout.layout import TABLES
from ..layout.variables import Var, Variable
from ..messages import counted
from ..store.dtypes import dtype_name
from ..store.failures import own_errors, own_errors_of_calls
from ..store.locate import Place, locate
from ..store.location import Location
from .appender import alone, require_free
from .layout import Columns, define_columns, describe_column, plan_table
from .rows import read_rows
from .stored_rows import home_of
from .table_file import Stored, TableFile
from .writer import RowWriter

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

    from ..life.damage import Damage
    from ..sampling_state.claim import Claim


@own_errors
def open(
    store: Place,
    columns: Columns | None = None,
    mode: Literal["r", "a"] = "r",
    *,
    attrs: Mapping[str, Any] | None = None,
    flush_every: float = 1.0,
    storage_options: Mapping[str, Any] | None = None,
) -> Table:
    """Open or make a table at a place of its own.

    Parameters
    ----------
    store : str, path, zarr.abc.store.Store or None
        Where it is; None for a new one in memory.
    columns : mapping of str to Var or dtype, optional
        As in `Trace.table`. Pass columns to append rows: the table is made if
        there is none, and opened for appending.
    mode : "r" or "a"
        Read-only, or to append. A new table needs "a" or `columns`.
    attrs : mapping, optional
        Attributes of a new table: strings, numbers, lists of these.
    flush_every : float, default 1
        Seconds that rows with text may wait in memory, as in `Trace.table`.
    storage_options : mapping, optional
        Options of fsspec for a URL.

    Returns
    -------
    Table
        The table, which other processes may write at the same time.

    Raises
    ------
    TraceNotFoundError
        There is no table to read.
    SchemaError
        A column cannot be stored, or the table has different columns.

    See Also
    --------
    zarrtrace.Trace.table : A table of a trace.

    Examples
    --------
    >>> import zarrtrace as zt
    >>> losses = zt.table.open("losses.zarr", {"step": int, "loss": float})
    >>> for step in range(3):
    ...     losses.append(step=step, loss=1.0 / (step + 1))
    >>> zt.table.open("losses.zarr")["loss"]
    array([1.        , 0.5       , 0.33333333])
    """
    if mode not in ("r", "a"):
        raise InvalidInputError(f"mode is 'r' or 'a', got {mode!r}")
    read_only = mode == "r" and columns is None
    location = locate(store, read_only=read_only, storage_options=storage_options)
    table = Table(location, columns, attrs=attrs, flush_every=flush_every)
    if read_only and not table._exists():
        raise TraceNotFoundError(
            f"there is no table at {location}", remedy="is the path right? mode='a' makes a table"
        )
    return table


def names(location: Location) -> tuple[str, ...]:
    """The names of the tables in a trace, in the order in which they were made."""
    found = []
    for name in location.children(TABLES):
        try:
            found.append((created_at(location.below(f"{TABLES}/{name}")), name))
        except TraceNotFoundError:
            # It is incomplete: its process was killed.
            continue
        except DamagedTraceError:
            found.append(("", name))
    return tuple(name for _, name in sorted(found))


def created_at(location: Location) -> str:
    """When the table at a place was made."""
    return TableFile(location).current().layout.created_at


@own_errors_of_calls
class Table:
    """Rows of typed columns: returned by `Trace.table` and `zarrtrace.table.open`.

    The first append opens it for writing, for one process at a time; reading works at any
    time, from any process. Rows without text survive `kill -9` in a local directory once
    `append` has returned; text has no fixed size and waits with its row for `flush()`, or for the
    first append after `flush_every` seconds. With 0 seconds it does not wait: each append writes a
    file for each column of text. On other stores all rows wait.

    See Also
    --------
    zarrtrace.Trace.table : Return a table of a trace.
    open : Open a table at a place of its own.

    Examples
    --------
    >>> import zarrtrace as zt
    >>> trace = zt.create("run.zarr", chains=4, draws=1000, posterior={"mu": 0.0})
    >>> adaptation = trace.table("adaptation", {"draw": int, "step_size": zt.Var(shape=4)})
    >>> adaptation.append(draw=100, step_size=[0.5, 0.6, 0.4, 0.5])
    >>> adaptation.append(draw=200, step_size=[0.3, 0.4, 0.3, 0.4])
    >>> len(adaptation)
    2
    >>> adaptation["draw"]
    array([100, 200])
    """

    def __init__(
        self,
        location: Location,
        columns: Columns | None = None,
        *,
        attrs: Mapping[str, Any] | None = None,
        flush_every: float = 1.0,
        require_trace: Callable[[], object] | None = None,
    ) -> None:
        self._location = location
        self._require_trace = require_trace
        self._found = TableFile(location)
        self._writer: RowWriter | None = None
        self._attrs = check_attrs(attrs or {}, "attrs")
        self._flush_every = flush_every
        if columns is not None:
            self._require(columns)

    @property
    def _file(self) -> TableFile:
        """The table as it is stored, if the trace that it lies in is still the same one."""
        if self._require_trace is not None:
            self._require_trace()
        return self._found

    # What it is ---------------------------------------------------------------------------

    @property
    def path(self) -> str:
        """Where the table is."""
        return str(self._location)

    @property
    def columns(self) -> dict[str, Var]:
        """Each column with its dtype, and the shape of its value in a row.

        Examples
        --------
        >>> import zarrtrace as zt
        >>> table = zt.table.open(None, {"step": int, "position": zt.Var(shape=2)})
        >>> table.columns["position"].shape
        (2,)
        """
        return {
            name: Var(shape=column.shape, dtype=column.declared, attrs=column.attrs)
            for name, column in self._columns.items()
        }

    @property
    def attrs(self) -> dict[str, Any]:
        """The attributes with which the table was made.

        Examples
        --------
        >>> import zarrtrace as zt
        >>> zt.table.open(None, {"loss": float}, attrs={"optimizer": "Adam"}).attrs
        {'optimizer': 'Adam'}
        """
        try:
            return dict(self._file.current().layout.attrs)
        except TraceNotFoundError:
            return dict(self._attrs)

    def __len__(self) -> int:
        if self._writer is not None and not self._writer.closed:
            return self._writer.rows
        try:
            return self._file.count_rows()
        except TraceNotFoundError:
            return 0

    def _exists(self) -> bool:
        """Whether it exists: the first row makes a table without declared columns."""
        return self._file.exists()

    @property
    def _columns(self) -> dict[str, Variable]:
        try:
            return self._file.current().layout.columns
        except TraceNotFoundError:
            return {}

    # Writing ------------------------------------------------------------------------------

    def append(self, row: Mapping[str, Any] | None = None, /, **values: Any) -> None:
        """Append one row: a value for every column, in a mapping or by keyword.

        Parameters
        ----------
        row, **values : mapping of str to value
            Numbers, text, arrays of their column's shape: what `ChainWriter.record` accepts.

        Raises
        ------
        DrawError
            A column is missing or unknown, or a value has another shape, or would lose something
            in the column's dtype. Nothing of the row is kept, and the next one can be appended.
        ChainBusyError
            Another process appends to this table; the message says which.

        See Also
        --------
        Table.append_rows : Append several rows.

        Examples
        --------
        >>> import zarrtrace as zt
        >>> warnings = zt.table.open("warnings.zarr", {"draw": int, "text": str})
        >>> warnings.append(draw=3, text="the step size is small")
        >>> warnings.append({"draw": 7, "text": "a divergence"})
        >>> warnings["draw"]
        array([3, 7])
        """
        given = {**(row or {}), **values}
        writer = self._writer
        if writer is None or writer.closed:
            writer = self._open_writer({name: Var.like(value) for name, value in given.items()})
        writer.append(given)

    def append_rows(self, columns: Mapping[str, Any]) -> None:
        """Append several rows: for every column an array with a value for each of them.

        Parameters
        ----------
        columns : mapping of str to array
            Arrays of shape (rows, *shape), with the same number of rows for each column.

        Raises
        ------
        DrawError, ChainBusyError
            As for `append`; none of the rows is kept.
        PartlyRecordedError
            The store could not be written after some of the rows were appended. Its `kept` is
            their number: append the rest.
        NotWritableError
            The store could not be written; none of the rows is kept.

        See Also
        --------
        Table.append : Append one row.

        Examples
        --------
        >>> import zarrtrace as zt
        >>> losses = zt.table.open("losses.zarr", {"step": int, "loss": float})
        >>> losses.append_rows({"step": [0, 1, 2], "loss": [3.0, 2.0, 1.5]})
        >>> len(losses)
        3
        """
        writer = self._writer
        if writer is None or writer.closed:
            arrays = {name: np.asarray(values) for name, values in columns.items()}
            examples = {k: array[0] if len(array) else array for k, array in arrays.items()}
            writer = self._open_writer({k: Var.like(value) for k, value in examples.items()})
        writer.append_rows(columns)

    def flush(self) -> None:
        """Write what is buffered, so that any Zarr reader finds all rows.

        See Also
        --------
        Table.close : Flush, and let other processes append.

        Examples
        --------
        >>> import zarrtrace as zt
        >>> notes = zt.table.open("notes.zarr", {"text": str}, flush_every=60)
        >>> notes.append(text="warmup is over")
        >>> len(zt.table.open("notes.zarr"))
        0
        >>> notes.flush()
        >>> len(zt.table.open("notes.zarr"))
        1
        """
        if self._writer is not None and not self._writer.closed:
            self._writer.flush()

    def _flush_waiting(self) -> None:
        """Write rows that wait in memory; rows in the journal are safe already."""
        if self._writer is not None and not self._writer.closed and self._writer.waits:
            self._writer.flush()

    def close(self) -> None:
        """Flush, and let other processes append; the next append opens the table again.

        Raises
        ------
        NotWritableError
            The store could not be written. Rows that wait in memory are kept: call it again.

        See Also
        --------
        zarrtrace.Trace.close : Close all tables and writers of a trace.

        Examples
        --------
        >>> import zarrtrace as zt
        >>> with zt.table.open("losses.zarr", {"loss": float}) as losses:
        ...     losses.append(loss=0.5)
        >>> losses.close()
        """
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _open_writer(self, columns: Columns) -> RowWriter:
        """Open the table for appending; if there is none, make it with these columns."""
        self._location.require_writable()
        if not self._exists():
            self._require(columns)
        self._writer = RowWriter(self._location, self._file)
        return self._writer

    # Making -------------------------------------------------------------------------------

    def _require(self, columns: Columns) -> None:
        """Make the table if there is none, or refuse columns that differ from the existing ones."""
        if not self._exists() and not self._location.read_only:
            self._create(columns)
        if self._exists():
            self._require_same(columns)

    def _create(self, columns: Columns) -> None:
        layout = plan_table(self._location, columns, self._attrs, self._flush_every)
        with alone(self._location):
            # Another process may have been faster.
            if not self._exists():
                stored = Stored(layout, home=home_of(self._location))
                self._file.write_columns(stored)
                # This comes last and makes it a table.
                self._file.write(stored)

    def _require_same(self, columns: Columns) -> None:
        wanted, existing = define_columns(self._location, columns), self._columns
        for name in {**existing, **wanted}:
            here, given = map(describe_column, (existing.get(name), wanted.get(name)))
            if here != given:
                raise SchemaError(
                    f"{self.path}: column {name!r} is {here} in the existing table, but {given} in "
                    f"this definition; open it without columns, or give the table another name",
                    variable=name,
                )

    # Repairing ----------------------------------------------------------------------------

    def check(self) -> list[Damage]:
        """Read all rows, and return what is damaged or missing.

        Returns
        -------
        list of Damage
            Empty when nothing is wrong; each item has a text. Rows that cannot be read are
            `DamagedDraws`.

        See Also
        --------
        Table.repair : Fix what is found.

        Examples
        --------
        >>> import os
        >>> import zarrtrace as zt
        >>> with zt.table.open("losses.zarr", {"loss": float}) as losses:
        ...     losses.append(loss=0.5)
        >>> losses.check()
        []
        >>> os.remove("losses.zarr/loss/c.0")
        >>> [damage] = losses.check()
        >>> damage.variable, damage.draws
        ('loss', range(0, 1))
        """
        from .check import check

        return list(check(self._location, self._file))

    def repair(self) -> list[str]:
        """Fix what `check` finds, and report what was lost, as `Trace.repair` does.

        Returns
        -------
        list of str
            What was done, and what has to be restored from a copy.

        Raises
        ------
        ChainBusyError
            Another process appends to it.

        See Also
        --------
        Table.check : Find what is damaged.

        Examples
        --------
        >>> import os
        >>> import zarrtrace as zt
        >>> with zt.table.open("losses.zarr", {"loss": float}) as losses:
        ...     losses.append(loss=0.5)
        >>> os.remove("losses.zarr/loss/c.0")
        >>> [report] = losses.repair()
        >>> losses["loss"]
        array([nan])
        """
        from .check import repair

        self.close()
        with alone(self._location):
            require_free(self._location, self._claim)
            return list(repair(self._location, self._file))

    def _claim(self) -> Claim | None:
        try:
            return self._file.current().claim
        except DamagedTraceError:
            return None

    # Reading ------------------------------------------------------------------------------

    def __getitem__(self, column: str) -> np.ndarray[Any, Any]:
        """The values of a column in memory, shape (rows, *shape)."""
        return self.read(column)

    def read(self, column: str, rows: slice = slice(None)) -> np.ndarray[Any, Any]:
        """Some values of a column; only the chunks that hold them are read.

        Parameters
        ----------
        column : str
            One of `columns`.
        rows : slice, optional
            The rows; all by default.

        Returns
        -------
        numpy.ndarray
            Shape (rows, *shape).

        Raises
        ------
        VariableNotFoundError
            There is no such column; it is a KeyError too.

        See Also
        --------
        Table.to_dataframe : All columns.

        Examples
        --------
        >>> import zarrtrace as zt
        >>> losses = zt.table.open("losses.zarr", {"loss": float})
        >>> losses.append_rows({"loss": [3.0, 2.0, 1.5]})
        >>> losses.read("loss", slice(-2, None))
        array([2. , 1.5])
        """
        columns = self._columns
        if column not in columns:
            raise VariableNotFoundError(
                f"{self.path} has no column {column!r}",
                remedy=f"it has {', '.join(columns)}",
                variable=column,
            )
        self._flush_waiting()
        wanted = range(len(self))[rows]
        if wanted.step < 0:
            return read_rows(self._location, self._file, column, wanted[::-1])[::-1]
        return read_rows(self._location, self._file, column, wanted)

    def to_dataset(self) -> xr.Dataset:
        """The existing rows as an `xarray.Dataset`, lazy, with the dimension `row`.

        Returns
        -------
        xarray.Dataset
            Each column is a variable of shape (row, *shape). It does not change while rows are
            appended.

        See Also
        --------
        Table.to_dataframe : The rows in memory.

        Examples
        --------
        >>> import zarrtrace as zt
        >>> losses = zt.table.open("losses.zarr", {"loss": float})
        >>> losses.append_rows({"loss": [3.0, 2.0, 1.5]})
        >>> losses.to_dataset().loss.values
        array([3. , 2. , 1.5])
        """
        from .dataset import Rows, open_rows

        if not self._exists():
            import xarray as xr

            return xr.Dataset()
        self._flush_waiting()
        return open_rows(Rows(self._location, self._file, len(self)))

    def to_dataframe(self) -> pd.DataFrame:
        """The existing rows as a `pandas.DataFrame`; arrays are in columns of objects.

        Returns
        -------
        pandas.DataFrame
            A copy in memory, one row for each.

        See Also
        --------
        Table.to_dataset : The rows, read lazily.

        Examples
        --------
        >>> import zarrtrace as zt
        >>> losses = zt.table.open("losses.zarr", {"step": int, "loss": float})
        >>> losses.append_rows({"step": [0, 1, 2], "loss": [3.0, 2.0, 1.5]})
        >>> losses.to_dataframe()
           step  loss
        0     0   3.0
        1     1   2.0
        2     2   1.5
        """
        import pandas as pd

        columns = {}
        for name, column in self._columns.items():
            values = self[name]
            if column.is_text:
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
            f"{name}: {dtype_name(column.declared)}{list(column.shape) or ''}"
            for name, column in self._columns.items()
        )
        rows = counted(len(self), "row")
        return f"<zarrtrace.Table {self.path}: {rows} of {columns or 'nothing yet'}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return Table, (self._location,)
