"""The store of an experiment, and its tables."""

from __future__ import annotations

import os
import uuid
from collections.abc import KeysView, Mapping
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import zarr

import zarrtrace as zt
from zarrtrace.errors import InvalidInputError, NotWritableError, SchemaError, TraceNotFoundError

from .values import (
    OBJECT,
    PICKLE,
    PYTORCH_STATE,
    Schema,
    decode_object,
    encode,
    is_text,
    kind_named,
    name_of,
    read_pickle,
    read_torch,
    schema_from_dict,
    stored_dtype,
)

if TYPE_CHECKING:
    import pandas as pd


TABLE_OBJECT_DIR = ".table_objects"
SAVE_DIR = "save"
TENSORBOARD_DIR = "tensorboard"

_TABLES = "tables"
_ROWS_SHOWN = 4

Mode = Literal["a", "r", "r+", "w"]


class Store:
    """The store of one experiment: `storage_folder/exp_id`, a run of `zarrtrace.folder`.

    Its tables are tables of zarrtrace, in `tables/`; beside them are `save/`, for your files,
    `tensorboard/`, and `.table_objects/`, for the columns PICKLE and PYTORCH_STATE. Other
    processes read it while it is written (`mode="r"`), and one process at a time appends to a
    table. A trace in the same place has its tables there too.

    Parameters
    ----------
    storage_folder : str or path
        The folder of the experiments.
    exp_id : str, optional
        The directory of this one; a UUID by default.
    new : bool, default False
        Whether to refuse an existing experiment.
    mode : "a", "r", "r+" or "w"
        Append; read; append to an existing one; start without its tables.

    Raises
    ------
    ValueError
        It exists and `new` is set, or there is no such mode.
    TraceNotFoundError
        With "r" and "r+": there is no such experiment. Nothing is created.
    ChainBusyError
        With "w": another process appends to a table that would be removed.

    See Also
    --------
    CollectionReader : Read the experiments of a folder.

    Examples
    --------
    >>> from zarrtrace.adapters.cox import Store
    >>> store = Store("experiments", "first")
    Logging in: ...first
    >>> table = store.add_table("training", {"epoch": int, "loss": float})
    >>> table.append_row({"epoch": 0, "loss": 0.5})
    >>> store.close()
    >>> Store("experiments", "first", mode="r")["training"].nrows
    1
    """

    OBJECT = OBJECT
    PICKLE = PICKLE
    PYTORCH_STATE = PYTORCH_STATE

    def __init__(
        self,
        storage_folder: str | os.PathLike[str],
        exp_id: str | None = None,
        new: bool = False,
        mode: Mode = "a",
    ) -> None:
        if mode not in ("a", "r", "r+", "w"):
            raise InvalidInputError(f"mode is 'a', 'r', 'r+' or 'w', got {mode!r}")
        self.exp_id = exp_id or str(uuid.uuid4())
        self.mode = mode
        self.path = os.path.abspath(os.path.join(storage_folder, self.exp_id))
        self.save_dir = os.path.join(storage_folder, self.exp_id, SAVE_DIR)
        self.tb_dir = os.path.join(storage_folder, self.exp_id, TENSORBOARD_DIR)
        self._directory = Path(self.path)
        there = self._directory.is_dir()
        if there and new:
            raise InvalidInputError(
                f"this experiment has already been run: {self.path}; choose another exp_id"
            )
        if mode in ("r", "r+") and not is_store(self._directory):
            raise TraceNotFoundError(f"there is no experiment at {self.path}; is the name right?")
        self.tables: dict[str, Table] = {}
        if mode != "r":
            if not there:
                print(f"Logging in: {self.path}")
            zarr.open_group(self._directory, mode="a", zarr_format=3).require_group(_TABLES)
            os.makedirs(self.save_dir, exist_ok=True)
        if mode == "w":
            self._remove_tables()
        for directory in sorted((self._directory / _TABLES).glob("*/")):
            table = self._open_table(directory)
            self.tables[table.name] = table

    # What it is ---------------------------------------------------------------------------

    @property
    def keys(self) -> KeysView[str]:
        """The names of the tables."""
        return self.tables.keys()

    def get_table(self, table_id: str) -> Table:
        """The table of this name.

        Parameters
        ----------
        table_id : str
            One of `keys`.

        Returns
        -------
        Table
            The same object each time.

        Raises
        ------
        KeyError
            There is no such table.

        See Also
        --------
        Store.add_table : Add a table.

        Examples
        --------
        >>> from zarrtrace.adapters.cox import Store
        >>> store = Store("experiments", "first")
        Logging in: ...first
        >>> table = store.add_table("training", {"loss": float})
        >>> store.get_table("training") is table
        True
        """
        return self[table_id]

    def __getitem__(self, table_id: str) -> Table:
        return self.tables[table_id]

    def __str__(self) -> str:
        return "\n".join(f"-- Table: {name} --\n{table}\n" for name, table in self.tables.items())

    # Writing ------------------------------------------------------------------------------

    def add_table(self, table_name: str, schema: Schema) -> Table:
        """Add a table, or open an existing one.

        Parameters
        ----------
        table_name : str
            Any text.
        schema : dict
            For each column: int, float, str, bool, NumPy types, OBJECT, PICKLE or PYTORCH_STATE.

        Returns
        -------
        Table
            The new table, or the existing one.

        Raises
        ------
        SchemaError
            A column has no such type, or the existing table has other columns.

        See Also
        --------
        Store.add_table_like_example : Take the columns from a row.

        Examples
        --------
        >>> from zarrtrace.adapters.cox import OBJECT, Store
        >>> store = Store("experiments", "first")
        Logging in: ...first
        >>> table = store.add_table("training", {"epoch": int, "layers": OBJECT})
        >>> table.append_row({"epoch": 0, "layers": [64, 64]})
        >>> table.get_object(table.df["layers"][0])
        [64, 64]
        """
        self._require_writable()
        if not schema:
            raise SchemaError(f"table {table_name!r}: define at least one column")
        if table_name in self.tables:
            there = self.tables[table_name]
            if list(there.schema.items()) != list(schema.items()):
                raise SchemaError(
                    f"table {table_name!r} of {self.path} has the columns {there.schema}, not "
                    f"{schema}; choose another name"
                )
            return there
        columns = {stored_name(name): stored_dtype(name, kind) for name, kind in schema.items()}
        attrs = {
            "cox_name": table_name,
            "cox_columns": list(schema),
            "cox_kinds": [name_of(kind) for kind in schema.values()],
        }
        place = self._directory / _TABLES / stored_name(table_name)
        rows = zt.table.open(place, columns, attrs=attrs, flush_every=0)
        self.tables[table_name] = Table(table_name, schema, rows, self._objects)
        return self.tables[table_name]

    def add_table_like_example(
        self, table_name: str, example: Mapping[str, Any], alternative: str = OBJECT
    ) -> Table:
        """Add a table with the columns of an example row, as `schema_from_dict` reads it.

        Parameters
        ----------
        table_name : str
            Any text.
        example : mapping
            A value for each column.
        alternative : OBJECT, PICKLE or PYTORCH_STATE
            The kind of the columns whose value is not an int, float, str or bool.

        Returns
        -------
        Table
            The new table, or the existing one; the example is not a row of it.

        See Also
        --------
        schema_from_dict : The schema of an example.

        Examples
        --------
        >>> from zarrtrace.adapters.cox import Store
        >>> store = Store("experiments", "first")
        Logging in: ...first
        >>> store.add_table_like_example("settings", {"lr": 0.1, "layers": [64, 64]}).schema
        {'lr': <class 'float'>, 'layers': '__object__'}
        """
        return self.add_table(table_name, schema_from_dict(example, alternative))

    def log_table_and_tb(
        self, table_name: str, update_dict: Mapping[str, Any], summary_type: str = "scalar"
    ) -> None:
        """Stage values in a table, as `update_row`, and log them to TensorBoard.

        Parameters
        ----------
        table_name : str
            A table; the tags are `table/column`, the step is its number of rows.
        update_dict : mapping
            Values of some of its columns.
        summary_type : str, default "scalar"
            The `add_...` of the SummaryWriter that takes them.

        See Also
        --------
        Table.update_row : Stage values without TensorBoard.

        Examples
        --------
        >>> from zarrtrace.adapters.cox import Store, has_tensorboard
        >>> with Store("experiments", "first") as store:
        ...     table = store.add_table("training", {"epoch": int, "loss": float})
        ...     table.update_row({"epoch": 0})
        ...     store.log_table_and_tb("training", {"loss": 0.5})
        ...     table.flush_row()
        Logging in: ...first
        >>> has_tensorboard("experiments/first")
        True
        """
        table = self[table_name]
        add = getattr(self.tensorboard, f"add_{summary_type}")
        # This comes first, so that values that the table refuses are not logged.
        table.update_row(update_dict)
        for name, value in update_dict.items():
            add(f"{table_name}/{name}", value, table.nrows)

    @cached_property
    def tensorboard(self) -> Any:
        """A `tensorboardX.SummaryWriter` for `tb_dir`, made at the first access."""
        if self.mode == "r":
            raise AttributeError(f"{self.path} is open read-only and cannot log")
        try:
            from tensorboardX import SummaryWriter
        except ImportError as error:
            raise ImportError("logging to TensorBoard needs `pip install tensorboardX`") from error
        return SummaryWriter(self.tb_dir)

    def close(self) -> None:
        """Flush all tables and accept no more rows; other processes may append.

        See Also
        --------
        Table.close : Close one table.

        Examples
        --------
        >>> from zarrtrace.adapters.cox import Store
        >>> store = Store("experiments", "first")
        Logging in: ...first
        >>> store.close()
        """
        for table in self.tables.values():
            table.close()
        if "tensorboard" in vars(self):
            self.tensorboard.close()

    @staticmethod
    def split_storage_exp_paths(full_path: str) -> tuple[str, str]:
        """The folder and the `exp_id` of an experiment's directory.

        Parameters
        ----------
        full_path : str
            The directory of an experiment.

        Returns
        -------
        storage_folder : str
            The folder of the experiments.
        exp_id : str
            The name of this one.

        See Also
        --------
        Store.read_from_running : Takes such a path too.

        Examples
        --------
        >>> from zarrtrace.adapters.cox import Store
        >>> Store.split_storage_exp_paths("/data/experiments/first")
        ('/data/experiments', 'first')
        """
        folder, _, exp_id = full_path.rstrip("/").rpartition("/")
        return folder, exp_id

    @classmethod
    def read_from_running(cls, storage_folder: str, exp_id: str | None = None) -> Store:
        """Open the store of a running experiment for reading, as with `mode="r"`.

        Parameters
        ----------
        storage_folder : str
            The folder of the experiments, or the directory of this one without `exp_id`.
        exp_id : str, optional
            The name of this one.

        Returns
        -------
        Store
            Its tables show the rows that were flushed so far.

        Raises
        ------
        TraceNotFoundError
            There is no such experiment.

        See Also
        --------
        CollectionReader : Read all experiments of a folder.

        Examples
        --------
        >>> from zarrtrace.adapters.cox import Store
        >>> store = Store("experiments", "first")
        Logging in: ...first
        >>> store.add_table("training", {"loss": float}).append_row({"loss": 0.5})
        >>> Store.read_from_running("experiments/first")["training"].nrows
        1
        """
        if exp_id is None:
            storage_folder, exp_id = cls.split_storage_exp_paths(storage_folder)
        return cls(storage_folder, exp_id, mode="r")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    # Inside -------------------------------------------------------------------------------

    @property
    def _objects(self) -> Path:
        return self._directory / TABLE_OBJECT_DIR

    def _open_table(self, directory: Path) -> Table:
        rows = zt.table.open(directory, mode="r" if self.mode == "r" else "a")
        attrs = rows.attrs
        if "cox_columns" in attrs:
            kinds = map(kind_named, attrs["cox_kinds"])
            schema = dict(zip(attrs["cox_columns"], kinds, strict=True))
            return Table(attrs["cox_name"], schema, rows, self._objects, self.mode == "r")
        # A table of zarrtrace, of a trace in this place.
        schema = {name: column_kind(var) for name, var in rows.columns.items()}
        return Table(directory.name, schema, rows, self._objects, self.mode == "r")

    def _require_writable(self) -> None:
        if self.mode == "r":
            raise NotWritableError(
                f"{self.path} is open read-only; Store(folder, exp_id) opens it to append"
            )

    def _remove_tables(self) -> None:
        import shutil

        for directory in (self._directory / _TABLES).glob("*/"):
            rows = zt.table.open(directory, mode="a")
            # This appends no row, but only a process that may append can do it.
            rows.append_rows({name: rows.read(name, slice(0, 0)) for name in rows.columns})
            rows.close()
            shutil.rmtree(directory)


class Table:
    """One table of a store: rows are staged with `update_row` and appended with `flush_row`.

    A row that `flush_row` has appended survives `kill -9`, in a table that cox's `add_table` made.

    See Also
    --------
    Store.add_table : Add a table to a store.

    Examples
    --------
    >>> from zarrtrace.adapters.cox import Store
    >>> store = Store("experiments", "first")
    Logging in: ...first
    >>> table = store.add_table("training", {"epoch": int, "loss": float})
    >>> table.update_row({"epoch": 0})
    >>> table.update_row({"loss": 0.5})
    >>> table.flush_row()
    >>> table.df
       epoch  loss
    0      0   0.5
    """

    def __init__(
        self, name: str, schema: Schema, rows: zt.table.Table, objects: Path, closed: bool = False
    ) -> None:
        self.name = name
        self._schema = dict(schema)
        self._rows = rows
        self._objects = objects
        self._closed = closed
        self._staged: dict[str, Any] = {}

    @property
    def schema(self) -> Schema:
        """The type or kind of each column."""
        return dict(self._schema)

    @property
    def nrows(self) -> int:
        """Number of rows."""
        return len(self._rows)

    @property
    def df(self) -> pd.DataFrame:
        """The existing rows; columns OBJECT as JSON text, PICKLE and PYTORCH_STATE as ids."""
        frame = self._rows.to_dataframe()
        frame.columns = list(self._schema)
        for name, kind in self._schema.items():
            if is_text(kind):
                frame[name] = frame[name].astype(str)
        return frame

    def update_row(self, data: Mapping[str, Any]) -> None:
        """Stage values of the next row, all of them or none.

        Parameters
        ----------
        data : mapping
            Values of some columns; the type of a column is called with its value. A later value
            replaces an earlier one.

        Raises
        ------
        ValueError
            There is no such column, or a column OBJECT would need pickle for its value.
        NotWritableError
            The store is closed or read-only.

        See Also
        --------
        Table.flush_row : Append the row.

        Examples
        --------
        >>> from zarrtrace.adapters.cox import Store
        >>> store = Store("experiments", "first")
        Logging in: ...first
        >>> table = store.add_table("training", {"epoch": int, "loss": float})
        >>> table.update_row({"loss": 0.5})
        >>> table.nrows
        0
        """
        self._require_open()
        unknown = [name for name in data if name not in self._schema]
        if unknown:
            raise InvalidInputError(
                f"table {self.name!r} has no column {', '.join(map(repr, unknown))}; it has "
                f"{', '.join(self._schema)}"
            )
        staged = {
            name: encode(name, self._schema[name], value, self._objects)
            for name, value in data.items()
        }
        self._staged |= staged

    def flush_row(self) -> None:
        """Append the staged row, and start another one.

        Raises
        ------
        ValueError
            A column has no value yet; the row stays staged.
        ChainBusyError
            Another process appends to this table; the row stays staged.

        See Also
        --------
        Table.update_row : Stage its values.

        Examples
        --------
        >>> from zarrtrace.adapters.cox import Store
        >>> store = Store("experiments", "first")
        Logging in: ...first
        >>> table = store.add_table("training", {"epoch": int, "loss": float})
        >>> table.update_row({"epoch": 0, "loss": 0.5})
        >>> table.flush_row()
        >>> table.nrows
        1
        """
        self._require_open()
        missing = [name for name in self._schema if name not in self._staged]
        if missing:
            raise InvalidInputError(
                f"table {self.name!r}: the row has no value for {', '.join(missing)} yet; "
                f"set it with update_row"
            )
        self._rows.append({stored_name(name): value for name, value in self._staged.items()})
        self._staged = {}

    def append_row(self, data: Mapping[str, Any]) -> None:
        """Stage values and append the row: `update_row` and `flush_row`.

        Parameters
        ----------
        data : mapping
            A value for each column that is not staged yet.

        See Also
        --------
        Table.update_row : Stage values alone.

        Examples
        --------
        >>> from zarrtrace.adapters.cox import Store
        >>> store = Store("experiments", "first")
        Logging in: ...first
        >>> table = store.add_table("training", {"loss": float})
        >>> table.append_row({"loss": 0.5})
        >>> table.nrows
        1
        """
        self.update_row(data)
        self.flush_row()

    def close(self) -> None:
        """Flush, and accept no more rows.

        See Also
        --------
        Store.close : Close all tables.

        Examples
        --------
        >>> from zarrtrace.adapters.cox import Store
        >>> store = Store("experiments", "first")
        Logging in: ...first
        >>> table = store.add_table("training", {"loss": float})
        >>> table.close()
        """
        self._rows.close()
        self._closed = True

    def get_object(self, s: Any) -> Any:
        """The object in a column OBJECT: numbers, text, arrays, lists, tuples, dictionaries.

        Parameters
        ----------
        s : str
            The value in the column.

        Returns
        -------
        object
            What the text says; text that is not JSON is returned as it is.

        See Also
        --------
        Table.get_pickle : The object in a column PICKLE.

        Examples
        --------
        >>> from zarrtrace.adapters.cox import OBJECT, Store
        >>> store = Store("experiments", "first")
        Logging in: ...first
        >>> table = store.add_table("settings", {"layers": OBJECT})
        >>> table.append_row({"layers": {"first": 64, "second": 32}})
        >>> table.get_object(table.df["layers"][0])
        {'first': 64, 'second': 32}
        """
        return decode_object(s)

    def get_pickle(self, uid: str) -> Any:
        """The object in a column PICKLE.

        Reading it runs the code in it: only for stores you trust.

        Parameters
        ----------
        uid : str
            The value in the column.

        Returns
        -------
        object
            What was pickled.

        Raises
        ------
        TraceNotFoundError
            There is no such object.

        See Also
        --------
        Table.get_object : An object that is read without running code.

        Examples
        --------
        >>> from zarrtrace.adapters.cox import PICKLE, Store
        >>> store = Store("experiments", "first")
        Logging in: ...first
        >>> table = store.add_table("models", {"model": PICKLE})
        >>> table.append_row({"model": {1, 2, 3}})
        >>> table.get_pickle(table.df["model"][0])
        {1, 2, 3}
        """
        return read_pickle(self._objects, uid)

    def get_state_dict(self, uid: str, **kwargs: Any) -> Any:
        """The object in a column PYTORCH_STATE.

        Parameters
        ----------
        uid : str
            The value in the column.
        **kwargs
            Arguments of `torch.load`; `weights_only=True` by default.

        Returns
        -------
        object
            What `torch.load` returns: a dictionary of tensors.

        Raises
        ------
        TraceNotFoundError
            There is no such object.

        See Also
        --------
        Table.get_pickle : The object in a column PICKLE.
        """
        return read_torch(self._objects, uid, **kwargs)

    def _require_open(self) -> None:
        if self._closed:
            raise NotWritableError(
                f"table {self.name!r} belongs to a store that is closed or read-only: "
                f"Store(folder, exp_id) opens it to append"
            )

    def __str__(self) -> str:
        shown = str(self.df)
        if len(shown.split("\n")) > _ROWS_SHOWN + 1:
            hidden = self.nrows - _ROWS_SHOWN
            shown = f"{self.df[:_ROWS_SHOWN]}\n ... ({hidden} rows hidden)"
        return shown


def is_store(directory: Path) -> bool:
    """Whether a directory holds an experiment."""
    return (directory / _TABLES / "zarr.json").is_file()


def column_kind(column: zt.Var) -> Any:
    """The type of a column of zarrtrace."""
    dtype = np.dtype(column.dtype)
    return {"T": str, "i": int, "f": float, "b": bool}.get(dtype.kind, dtype.type)


def stored_name(name: str) -> str:
    """A name of a table or column as a name that Zarr accepts; most are unchanged."""
    if not isinstance(name, str) or not name:
        raise SchemaError(f"a name must be text, got {name!r}")
    safe = name.replace("%", "%25").replace("/", "%2F").replace("\x00", "%00")
    if safe[0] in "_.":
        safe = f"%{ord(safe[0]):X}{safe[1:]}"
    return f"%{safe}" if safe in ("row", "zarr.json") else safe
