"""The content of a folder of runs: which directories are runs, and a description of each."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..diagnostics import convergence
from ..errors import TraceError, TraceNotFoundError
from ..layout.layout import STATE, TABLES
from ..life.status import find_status, next_step
from ..opening import open as open_trace
from ..store.failures import own_errors_of_calls
from ..store.locate import locate
from ..store.location import Location
from ..tables import provenance, table
from ..tables.table import Table
from ..trace import Trace


def join(folder: str | os.PathLike[str], name: str) -> str:
    """The place of a run in a folder, which may be a URL."""
    return f"{os.fspath(folder).rstrip('/')}/{name}"


def find(location: Location) -> Iterator[str]:
    """The names of the runs in a folder, and in the Zarr groups and `.zarr` directories of it."""
    for name in location.children(""):
        if _is_run(location, name):
            yield name
        elif name.endswith(".zarr") or location.exists(f"{name}/zarr.json"):
            inside = (f"{name}/{child}" for child in location.children(name))
            yield from (path for path in inside if _is_run(location, path))


def _is_run(location: Location, name: str) -> bool:
    if name.endswith(".zip"):
        return location.path is not None and _is_trace_zipped(location.path / name)
    try:
        return _has_trace(location, f"{name}/") or any(
            location.exists(f"{name}/{TABLES}/{child}/zarr.json")
            for child in location.children(f"{name}/{TABLES}")
        )
    except PermissionError:
        return True  # it may be one, and its row of the list shows the error


def _is_trace_zipped(path: Path) -> bool:
    if not path.is_file():
        return False
    try:
        with zipfile.ZipFile(path) as file:
            return f"{STATE}/zarr.json" in file.namelist()
    except PermissionError:
        return True
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return False


def _has_trace(location: Location, prefix: str) -> bool:
    # A damaged trace has something there, even without its layout.
    state = f"{prefix}{STATE}"
    return location.exists(f"{state}/zarr.json") or bool(location.children(state))


@own_errors_of_calls
class Run:
    """One run of a folder.

    Attributes
    ----------
    name : str
        Its directory in the folder.
    path : str
        Its path or URL.

    See Also
    --------
    open : The runs of a folder.

    Examples
    --------
    >>> import zarrtrace as zt
    >>> trace = zt.create("experiments/first", chains=1, draws=100, posterior={"mu": 0.0})
    >>> run = zt.folder.open("experiments")["first"]
    >>> run.name, run.status
    ('first', 'new')
    >>> run.trace.recorded
    array([0])
    """

    def __init__(
        self, name: str, path: str, mode: Literal["r", "a"], storage_options: dict[str, Any]
    ) -> None:
        self.name = name
        self.path = path
        self._mode = mode
        self._options = storage_options

    @cached_property
    def trace(self) -> Trace:
        """The trace of the run.

        Raises
        ------
        TraceNotFoundError
            It has only tables.
        """
        return open_trace(self.path, self._mode, storage_options=self._options)

    @property
    def status(self) -> str:
        """The state of the run in one word, as in `Runs.to_dataframe`."""
        try:
            return self.trace.status if self._has_trace else "tables"
        except (TraceError, OSError):
            return "damaged"

    @property
    def settings(self) -> dict[str, Any]:
        """The last stored settings; {} if there are none, or they cannot be read.

        Examples
        --------
        >>> import zarrtrace as zt
        >>> trace = zt.folder.create(
        ...     "experiments",
        ...     "first",
        ...     settings={"step_size": 0.5},
        ...     chains=1,
        ...     draws=100,
        ...     posterior={"mu": 0.0},
        ... )
        >>> zt.folder.open("experiments")["first"].settings
        {'step_size': 0.5}
        """
        try:
            found = self._last_provenance("settings").get("settings")
        except (TraceError, OSError):
            return {}
        return found if isinstance(found, dict) else {}

    @property
    def provenance(self) -> dict[str, Any]:
        """What was run, where and by whom, as last stored; {} if it never was."""
        return self._last_provenance(*provenance.COLUMNS)

    def _last_provenance(self, *columns: str) -> dict[str, Any]:
        if not self._location.exists(f"{TABLES}/{provenance.TABLE}/zarr.json"):
            return {}
        return provenance.last(self.table(provenance.TABLE), columns)

    @property
    def tables(self) -> tuple[str, ...]:
        """The names of the run's tables."""
        return table.names(self._location)

    def table(self, name: str) -> Table:
        """A table of the run.

        Parameters
        ----------
        name : str
            The table's name.

        Returns
        -------
        Table
            The table, open as the folder was opened.

        Raises
        ------
        TraceNotFoundError
            The run has no such table.

        See Also
        --------
        Runs.table : The table of all runs.

        Examples
        --------
        >>> import zarrtrace as zt
        >>> trace = zt.create("experiments/first", chains=1, draws=100, posterior={"mu": 0.0})
        >>> trace.table("losses").append(loss=0.5)
        >>> zt.folder.open("experiments")["first"].table("losses")["loss"]
        array([0.5])
        """
        if not self._location.exists(f"{TABLES}/{name}/zarr.json"):
            known = ", ".join(self.tables) or "none"
            raise TraceNotFoundError(f"{self.path} has no table {name!r}; it has {known}")
        if self.path.endswith(".zip"):
            return self.trace.table(name)
        # This does not use the trace, which may be damaged or missing.
        place = f"{self.path}/{TABLES}/{name}"
        return table.open(place, mode=self._mode, storage_options=self._options)

    @cached_property
    def _location(self) -> Location:
        return locate(self.path, read_only=True, storage_options=self._options)

    @cached_property
    def _has_trace(self) -> bool:
        return _has_trace(self._location, "")

    def describe(self) -> dict[str, Any]:
        """The row of this run in `Runs.to_dataframe`, without the settings.

        Returns
        -------
        dict of str to object
            The columns of `Runs.to_dataframe` and their values.

        See Also
        --------
        Runs.to_dataframe : The rows of all runs.

        Examples
        --------
        >>> import zarrtrace as zt
        >>> trace = zt.create("experiments/first", chains=4, draws=100, posterior={"mu": 0.0})
        >>> row = zt.folder.open("experiments")["first"].describe()
        >>> row["status"], row["chains"], row["recorded"]
        ('new', 4, 0)
        """
        found = {**NOTHING, "status": "tables"}
        try:
            if self._has_trace:
                found |= _describe(self.trace)
            else:
                inside = [self._location.below(f"{TABLES}/{name}") for name in self.tables]
                found["when"] = min(map(table.created_at, inside))
        except (TraceError, OSError) as error:
            found |= {"status": "damaged", "error": str(error)}
        return found

    def has_variable(self, name: str, group: str | None = None) -> bool:
        """Whether the trace of the run has a sampled variable of this name.

        Parameters
        ----------
        name : str
            The variable.
        group : str, optional
            The group it must be in; any by default.

        Returns
        -------
        bool
            False where the trace is damaged or missing, too.

        See Also
        --------
        Run.has_group : Whether it has a group.

        Examples
        --------
        >>> import zarrtrace as zt
        >>> trace = zt.create("experiments/first", chains=1, draws=100, posterior={"mu": 0.0})
        >>> run = zt.folder.open("experiments")["first"]
        >>> run.has_variable("mu"), run.has_variable("mu", group="prior")
        (True, False)
        """
        if not self.has_group(group or "posterior"):
            return False
        groups = self.trace._layout.groups
        wanted = [g for g in groups.values() if group in (None, g.name, g.warmup_name)]
        return any(name in g.variables for g in wanted)

    def has_group(self, name: str) -> bool:
        """Whether the trace of the run has this group.

        Parameters
        ----------
        name : str
            The group, such as "log_likelihood".

        Returns
        -------
        bool
            False where the trace is damaged or missing, too.

        See Also
        --------
        Run.has_variable : Whether it has a variable.

        Examples
        --------
        >>> import zarrtrace as zt
        >>> trace = zt.create("experiments/first", chains=1, draws=100, posterior={"mu": 0.0})
        >>> zt.folder.open("experiments")["first"].has_group("log_likelihood")
        False
        """
        try:
            return self._has_trace and name in self.trace.groups
        except (TraceError, OSError):
            return False  # damaged, as the list shows

    def __repr__(self) -> str:
        return f"<zarrtrace.Run {self.name}: {self.status}>"


NOTHING: dict[str, Any] = {
    "model": "",
    "status": "",
    "since": None,
    "next": "",
    "chains": 0,
    "warmup": 0,
    "draws": 0,
    "recorded": 0,
    "worst_rhat": np.nan,
    "rhat_of": "",
    "rhat_of_all": True,
    "when": "",
    "error": "",
}


def _describe(trace: Trace) -> dict[str, Any]:
    now = trace._now()
    layout, warmup = now.layout, now.layout.most_warmup
    status = find_status(now)
    worst = convergence.worst_rhat(trace._hierarchy)
    return {
        "model": layout.name,
        "status": status.word,
        "since": status.since,
        "next": next_step(now, status.word),
        "chains": layout.chains,
        "warmup": warmup,
        "draws": None if layout.draws is None else layout.total - warmup,
        "recorded": int(now.counts[layout.kept_chains].min()),
        "worst_rhat": worst.value,
        "rhat_of": worst.variable,
        "rhat_of_all": worst.complete,
        "when": layout.created_at,
    }
