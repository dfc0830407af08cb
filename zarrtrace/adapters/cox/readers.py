"""A folder of experiments, each of its tables read over all of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

from zarrtrace.errors import InvalidInputError

from .store import Store, is_store
from .values import OBJECT, PICKLE, Schema

if TYPE_CHECKING:
    import pandas as pd


Filter = Callable[[str], bool]


class CollectionReader:
    """The stores of a folder; anything else in it is ignored.

    Parameters
    ----------
    directory : str or path
        The folder.
    log_warnings : bool, default True
        Whether to print which experiments lack a table, or have other columns than earlier ones.
    mode : "r" or "a"
        How the stores are opened.
    exp_filter : function, optional
        Returns for an `exp_id` whether to open it.
    skip_errs : bool, default False
        Whether to print a line and continue when an experiment cannot be opened.
    allow_pickle : bool, default False
        Whether `df` unpickles columns PICKLE, which runs the code in them; otherwise they are ids
        for `store[table].get_pickle`.

    See Also
    --------
    Store : One experiment.

    Examples
    --------
    >>> from zarrtrace.adapters.cox import CollectionReader, Store
    >>> for exp_id in ("first", "second"):
    ...     with Store("experiments", exp_id) as store:
    ...         store.add_table("settings", {"lr": float}).append_row({"lr": 0.1})
    Logging in: ...first
    Logging in: ...second
    >>> reader = CollectionReader("experiments")
    >>> reader.df("settings")
        lr  exp_id
    0  0.1   first
    0  0.1  second
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        log_warnings: bool = True,
        mode: Literal["r", "a"] = "r",
        exp_filter: Filter | None = None,
        skip_errs: bool = False,
        allow_pickle: bool = False,
    ) -> None:
        self.directory = os.fspath(directory)
        self.stores: dict[str, Store] = {}
        self._log_warnings = log_warnings
        self._allow_pickle = allow_pickle
        for exp_id in sorted(os.listdir(directory)):
            if not is_store(Path(directory) / exp_id) or (exp_filter and not exp_filter(exp_id)):
                continue
            try:
                self.stores[exp_id] = Store(directory, exp_id, mode=mode)
            except Exception as error:
                if not skip_errs:
                    raise
                print(f"Error on exp_id {exp_id}: {error}")

    @property
    def schemas(self) -> dict[str, Schema]:
        """The schema of each table, as in the last experiment."""
        return {
            name: table.schema
            for store in self.stores.values()
            for name, table in store.tables.items()
        }

    @property
    def tables(self) -> set[str]:
        """The names of all tables."""
        return set(self.schemas)

    def df(
        self,
        key: str,
        append_exp_id: bool = True,
        keep_serialized: Collection[str] = (),
        union_schemas: bool = False,
        exp_filter: Filter | None = None,
        skip_errors: bool = False,
    ) -> pd.DataFrame:
        """One table over all experiments that have it, one below the other.

        Parameters
        ----------
        key : str
            The table.
        append_exp_id : bool, default True
            Whether to add a column `exp_id` with the experiment of each row.
        keep_serialized : collection of str, optional
            Columns OBJECT and PICKLE to leave as they are stored.
        union_schemas : bool, default False
            As in cox, where it does not change the result: columns that an experiment lacks
            are NaN there.
        exp_filter : function, optional
            Returns for an `exp_id` whether to read it.
        skip_errors : bool, default False
            Whether to print a line and continue when an experiment cannot be read.

        Returns
        -------
        pandas.DataFrame
            The index starts at 0 in each experiment.

        Raises
        ------
        ValueError
            No experiment has such a table.

        See Also
        --------
        Table.df : The rows of one experiment.

        Examples
        --------
        >>> from zarrtrace.adapters.cox import CollectionReader, Store
        >>> with Store("experiments", "first") as store:
        ...     store.add_table("settings", {"lr": float}).append_row({"lr": 0.1})
        Logging in: ...first
        >>> CollectionReader("experiments").df("settings", append_exp_id=False)
            lr
        0  0.1
        """
        import pandas as pd

        frames = []
        first: Schema | None = None
        for exp_id, store in self.stores.items():
            if exp_filter and not exp_filter(exp_id):
                continue
            if key not in store.tables:
                self._warn(f"Warning: exp_id {exp_id} has no table {key!r}. Skipping.")
                continue
            try:
                frame = self._read(store, key, keep_serialized)
            except Exception as error:
                if not skip_errors:
                    raise
                self._warn(f"Error on exp_id {exp_id}: {error}")
                continue
            schema = store[key].schema
            first = first or schema
            if set(schema) != set(first):
                self._warn(
                    f"exp_id {exp_id}: missing columns: {sorted(set(first) - set(schema))}, "
                    f"new columns: {sorted(set(schema) - set(first))}"
                )
            if append_exp_id:
                frame["exp_id"] = exp_id
            frames.append(frame)
        if not frames:
            known = ", ".join(sorted(self.tables)) or "none"
            raise InvalidInputError(f"no experiment has a table {key!r}; there are {known}")
        # Without rows pandas would guess the dtypes of columns.
        return pd.concat([frame for frame in frames if len(frame)] or frames[:1])

    def _read(self, store: Store, key: str, keep_serialized: Collection[str]) -> pd.DataFrame:
        import pandas as pd

        table = store[key]
        frame = table.df
        for name, kind in table.schema.items():
            if name in keep_serialized:
                continue
            if kind == OBJECT:
                read: Callable[[Any], Any] = table.get_object
            elif kind == PICKLE and self._allow_pickle:
                read = table.get_pickle
            else:
                continue
            frame[name] = pd.Series([read(value) for value in frame[name]], dtype=object)
        return frame

    def _warn(self, line: str) -> None:
        if self._log_warnings:
            print(line)

    def close(self) -> None:
        """Close the stores.

        See Also
        --------
        Store.close : Close one store.

        Examples
        --------
        >>> from zarrtrace.adapters.cox import CollectionReader, Store
        >>> Store("experiments", "first").close()
        Logging in: ...first
        >>> with CollectionReader("experiments") as reader:
        ...     list(reader.stores)
        ['first']
        >>> reader.close()
        """
        for store in self.stores.values():
            store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __str__(self) -> str:
        return "\n".join(
            f"-- Table: {name} --\n{', '.join(schema)}" for name, schema in self.schemas.items()
        )
