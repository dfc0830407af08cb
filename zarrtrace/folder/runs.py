"""Many runs in one folder: created with provenance, listed, read and compared together.

A run is a directory of the folder that is a trace, or that holds tables, or both. Nothing else
marks it: an existing trace of `zarrtrace.create` is a run as well, and other directories
are ignored.
"""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ..errors import InvalidInputError, TraceNotFoundError, VariableNotFoundError
from ..layout.layout import STATE
from ..messages import counted
from ..opening import create as create_trace
from ..store.failures import own_errors, own_errors_of_calls
from ..store.locate import locate
from ..tables import provenance
from ..trace import Trace
from .run import NOTHING, Run, find, join

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr


Folder = str | os.PathLike[str]


@own_errors
def create(
    folder: Folder,
    name: str | None = None,
    /,
    *,
    settings: Mapping[str, Any] | None = None,
    seed: Any = None,
    **definition: Any,
) -> Trace:
    """Create a trace in a folder of runs, and store what is run beside it.

    Parameters
    ----------
    folder : str or path
        A directory or URL; it is created if missing.
    name : str, optional
        Name of the run and its directory; by default the time and some letters.
    settings : mapping, optional
        What distinguishes this run: any JSON values, and NumPy's arrays and scalars.
    seed : int or list of int, optional
        The seed of the run.
    **definition
        Arguments of `zarrtrace.create`: `chains`, `draws`, `posterior`, `name` (of the model), ...

    Returns
    -------
    Trace
        The new trace, open for writing.

    Raises
    ------
    InvalidInputError
        JSON cannot hold a setting; nothing is created.
    TraceExistsError
        There is already such a run.

    See Also
    --------
    open : The runs of a folder.
    record_provenance : Store what is run when it continues.

    Examples
    --------
    >>> import zarrtrace as zt
    >>> for step_size in (0.1, 0.5):
    ...     trace = zt.folder.create(
    ...         "experiments",
    ...         f"step-{step_size}",
    ...         settings={"step_size": step_size},
    ...         chains=1,
    ...         draws=100,
    ...         posterior={"mu": 0.0},
    ...     )
    >>> zt.folder.open("experiments").names
    ('step-0.1', 'step-0.5')
    """
    row = provenance.gather(settings, seed)
    if name is None:
        name = f"{datetime.now():%Y-%m-%d_%H-%M-%S}_{uuid.uuid4().hex[:4]}"
    trace = create_trace(join(folder, name), **definition)
    _append(trace, row)
    return trace


@own_errors
def record_provenance(
    trace: Trace, *, settings: Mapping[str, Any] | None = None, seed: Any = None
) -> None:
    """Store what is run, as a row of the table `provenance` of a trace.

    `create` does this for a new run. Calling it again when a run continues, perhaps elsewhere,
    adds a row; the last one counts.

    Parameters
    ----------
    trace : Trace
        A trace that is open for writing.
    settings : mapping, optional
        What distinguishes this run: any JSON values, and NumPy's arrays and scalars.
    seed : int or list of int, optional
        The seed of the run.

    See Also
    --------
    create : Create a run and store what is run.
    Run.provenance : What was stored last.

    Examples
    --------
    >>> import zarrtrace as zt
    >>> trace = zt.create("experiments/first", chains=1, draws=100, posterior={"mu": 0.0})
    >>> zt.folder.record_provenance(trace, settings={"step_size": 0.5}, seed=1)
    >>> zt.folder.open("experiments")["first"].settings
    {'step_size': 0.5}
    """
    _append(trace, provenance.gather(settings, seed))


def _append(trace: Trace, row: Mapping[str, Any]) -> None:
    rows = trace.table(provenance.TABLE, provenance.COLUMNS)
    rows.append(row)
    rows.close()


@own_errors
def open(
    folder: Folder,
    mode: Literal["r", "a"] = "r",
    *,
    storage_options: Mapping[str, Any] | None = None,
) -> Runs:
    """Open the runs of a folder, even while they are recorded.

    Parameters
    ----------
    folder : str or path
        A directory or URL.
    mode : "r" or "a"
        Read the runs, or write to them as well.
    storage_options : mapping, optional
        Options of fsspec for a URL.

    Returns
    -------
    Runs
        The runs that the folder has now.

    Raises
    ------
    TraceNotFoundError
        There is no such folder, or it is a trace itself.

    See Also
    --------
    create : Create a run.
    zarrtrace.open : Open a single trace.

    Examples
    --------
    >>> import zarrtrace as zt
    >>> trace = zt.create("experiments/first", chains=1, draws=100, posterior={"mu": 0.0})
    >>> trace = zt.create("experiments/second", chains=1, draws=100, posterior={"mu": 0.0})
    >>> runs = zt.folder.open("experiments")
    >>> len(runs), runs["second"].status
    (2, 'new')
    """
    if mode not in ("r", "a"):
        raise InvalidInputError(f"mode is 'r' or 'a', got {mode!r}")
    location = locate(folder, read_only=True, storage_options=storage_options)
    if location.path is not None and not location.path.is_dir():
        raise TraceNotFoundError(f"there is no folder {location}; is the path right?")
    if location.exists(f"{STATE}/zarr.json"):
        raise TraceNotFoundError(
            f"{location} is a single trace, not a folder: zarrtrace.open opens it"
        )
    options = dict(storage_options or {})
    place = str(location)
    names = sorted(find(location), key=_numbers_as_such)
    return Runs(place, [Run(name, join(place, name), mode, options) for name in names])


def _numbers_as_such(name: str) -> list[tuple[int, str]]:
    """A sort key that puts run 2 before run 10."""
    return [
        (int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)
    ]


@own_errors_of_calls
class Runs:
    """The runs of a folder as found by `zarrtrace.folder.open`.

    A sequence of `Run`, by name or number; each read of a run returns what it has at that moment.

    See Also
    --------
    open : Open the runs of a folder.
    Run : One run.

    Examples
    --------
    >>> import zarrtrace as zt
    >>> trace = zt.create("experiments/first", chains=1, draws=100, posterior={"mu": 0.0})
    >>> runs = zt.folder.open("experiments")
    >>> for run in runs:
    ...     print(run.name, run.status)
    first new
    >>> runs["first"].trace.chains
    1
    """

    def __init__(self, folder: str, found: Sequence[Run]) -> None:
        self.folder = folder
        self._runs = {run.name: run for run in found}

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the runs, sorted: 2 before 10."""
        return tuple(self._runs)

    def __len__(self) -> int:
        return len(self._runs)

    def __iter__(self) -> Iterator[Run]:
        return iter(self._runs.values())

    def __contains__(self, name: object) -> bool:
        return name in self._runs

    def __getitem__(self, name: str | int) -> Run:
        if isinstance(name, int):
            return list(self._runs.values())[name]
        if name not in self._runs:
            known = ", ".join(list(self._runs)[:10]) or "none"
            more = ", ..." if len(self._runs) > 10 else ""
            raise KeyError(f"{self.folder} has no run {name!r}; it has {known}{more}")
        return self._runs[name]

    def where(
        self,
        condition: Callable[[Run], bool] | None = None,
        *,
        status: str | None = None,
        **settings: Any,
    ) -> Runs:
        """The runs that meet all of these conditions.

        Parameters
        ----------
        condition : function, optional
            Keep the runs for which this function of a `Run` is true.
        status : str, optional
            Keep the runs with this status.
        **settings
            Keep the runs whose stored settings have these values.

        Returns
        -------
        Runs
            These runs, in the same order.

        See Also
        --------
        Run.settings : The stored settings of a run.

        Examples
        --------
        >>> import zarrtrace as zt
        >>> for seed in range(3):
        ...     trace = zt.folder.create(
        ...         "experiments",
        ...         f"seed-{seed}",
        ...         settings={"step_size": 0.1 * seed},
        ...         chains=1,
        ...         draws=100,
        ...         posterior={"mu": 0.0},
        ...     )
        >>> runs = zt.folder.open("experiments")
        >>> runs.where(step_size=0.1).names
        ('seed-1',)
        >>> runs.where(lambda run: run.settings["step_size"] < 0.15, status="new").names
        ('seed-0', 'seed-1')
        """
        chosen = [
            run
            for run in self
            if _agree(run, settings)
            and (status is None or run.status == status)
            and (condition is None or condition(run))
        ]
        return Runs(self.folder, chosen)

    def to_dataframe(self, settings: bool = True) -> pd.DataFrame:
        """The list of the runs, a row for each, with the name as index.

        Parameters
        ----------
        settings : bool, default True
            Whether each setting is a column `settings.NAME`.

        Returns
        -------
        pandas.DataFrame
            `model`; `status`, as in `Trace.status`, or tables (it has no trace) or damaged;
            `since` when it has that status (UTC), and what to do `next`; `chains`; `warmup` and
            `draws`, as declared or split, None where there is no fixed number; `recorded`, draws
            of the shortest chain that is not left out, warmup included; `worst_rhat`, of
            `rhat_of`: the largest rank-normalised split R-hat, and `rhat_of_all`, whether every
            variable was checked; `when` it was created (UTC); `error`, of a damaged one.

        See Also
        --------
        Run.describe : The row of one run.

        Examples
        --------
        >>> import zarrtrace as zt
        >>> trace = zt.create("experiments/first", chains=4, draws=100, posterior={"mu": 0.0})
        >>> frame = zt.folder.open("experiments").to_dataframe()
        >>> frame.loc["first", ["status", "chains", "draws", "recorded"]].to_dict()
        {'status': 'new', 'chains': 4, 'draws': 100, 'recorded': 0}
        """
        import pandas as pd

        rows = [run.describe() for run in self]
        if settings:
            for row, run in zip(rows, self, strict=True):
                row |= {f"settings.{name}": value for name, value in run.settings.items()}
        frame = pd.DataFrame(rows, index=pd.Index(self.names, name="run"))
        if not rows:
            frame = pd.DataFrame(columns=list(NOTHING), index=frame.index)
        frame["since"] = pd.to_datetime(frame["since"], unit="s", utc=True, errors="coerce")
        frame["when"] = pd.to_datetime(
            frame["when"].replace("", None), utc=True, format="ISO8601", errors="coerce"
        )
        return frame

    def table(self, name: str) -> pd.DataFrame:
        """One table over all runs that have it, one below the other, with a column `run`.

        Parameters
        ----------
        name : str
            The table's name.

        Returns
        -------
        pandas.DataFrame
            A column that a run lacks is NaN (NaT, None) in its rows.

        Raises
        ------
        TraceNotFoundError
            No run has such a table.

        See Also
        --------
        Run.table : The table of one run.

        Examples
        --------
        >>> import zarrtrace as zt
        >>> for name in ("first", "second"):
        ...     losses = zt.table.open(f"experiments/{name}/tables/losses", {"loss": float})
        ...     losses.append_rows({"loss": [1.0, 0.5]})
        >>> zt.folder.open("experiments").table("losses")
              run  loss
        0   first   1.0
        1   first   0.5
        2  second   1.0
        3  second   0.5
        """
        import pandas as pd

        frames = []
        for run in self:
            if name in run.tables:
                frame = run.table(name).to_dataframe()
                frame.insert(0, "run", run.name, allow_duplicates=True)
                frames.append(frame)
        if not frames:
            known = ", ".join(sorted({other for run in self for other in run.tables})) or "none"
            raise TraceNotFoundError(
                f"no run of {self.folder} has a table {name!r}; there are {known}"
            )
        # Without rows pandas would guess the dtypes of columns.
        filled = [frame for frame in frames if len(frame)] or frames[:1]
        return pd.concat(filled, ignore_index=True)

    def get(self, name: str, **options: Any) -> dict[str, np.ndarray[Any, Any]]:
        """One variable of every run that has it, in memory: an array for each run.

        Parameters
        ----------
        name : str
            The variable.
        **options
            Arguments of `Trace.get`: `group`, `draws`, `chains`, `flatten`.

        Returns
        -------
        dict of str to numpy.ndarray
            By the name of the run, shape (chains, draws, *shape) or (chains * draws, *shape).

        Raises
        ------
        VariableNotFoundError
            No run has it.

        See Also
        --------
        Runs.dataset : The same as one dataset.
        zarrtrace.Trace.get : Read a variable of one trace.

        Examples
        --------
        >>> import zarrtrace as zt
        >>> for name in ("first", "second"):
        ...     trace = zt.create(f"experiments/{name}", chains=1, draws=2, posterior={"mu": 0.0})
        ...     with trace.writer(0) as writer:
        ...         writer.record_block({"mu": [0.1, 0.2]})
        >>> zt.folder.open("experiments").get("mu")
        {'first': array([[0.1, 0.2]]), 'second': array([[0.1, 0.2]])}
        """
        group = options.get("group")
        return {
            run.name: run.trace.get(name, **options) for run in self._with_variable(name, group)
        }

    def dataset(self, name: str, group: str | None = None) -> xr.Dataset:
        """One variable of every run that has it, in memory, along a dimension `run`.

        Parameters
        ----------
        name : str
            The variable.
        group : str, optional
            Its group; by default the first that has such a variable, posterior before others.

        Returns
        -------
        xarray.Dataset
            Runs with more draws than the shortest are cut; the attribute `alignment` then says so.

        Raises
        ------
        VariableNotFoundError
            No run has it.
        InvalidInputError
            Runs differ in their chains, or in the variable's shape or labels.

        See Also
        --------
        Runs.get : Read runs of different shapes.

        Examples
        --------
        >>> import zarrtrace as zt
        >>> for name in ("first", "second"):
        ...     trace = zt.create(f"experiments/{name}", chains=1, draws=2, posterior={"mu": 0.0})
        ...     with trace.writer(0) as writer:
        ...         writer.record_block({"mu": [0.1, 0.2]})
        >>> zt.folder.open("experiments").dataset("mu").mu.mean(["chain", "draw"]).values
        array([0.15, 0.15])
        """
        import xarray as xr

        from ..reading.cut import find_groups

        arrays = {}
        for run in self._with_variable(name, group):
            [found] = find_groups(run.trace._layout, [name], group, run.path)
            arrays[run.name] = run.trace.dataset(found)[name]
        lengths = {array.sizes["draw"] for array in arrays.values()}
        cut = [array.isel(draw=slice(min(lengths))) for array in arrays.values()]
        try:
            joined = xr.concat(cut, "run", join="exact", coords="minimal", compat="override")
        except ValueError as error:
            raise InvalidInputError(
                f"{name} has different chains, shapes or labels in the runs ({error}); choose "
                f"some with where(), or read it with get()"
            ) from None
        dataset = joined.assign_coords(run=list(arrays)).to_dataset(name=name)
        if len(lengths) > 1:
            dataset.attrs["alignment"] = "cut to the shortest run"
        return dataset

    def _with_variable(self, name: str, group: str | None) -> list[Run]:
        found = [run for run in self if run.has_variable(name, group)]
        if not found:
            where = f"group {group!r} of a run" if group else "run"
            raise VariableNotFoundError(
                f"no {where} of {self.folder} has a variable {name!r}", variable=name
            )
        return found

    def compare(self, **options: Any) -> pd.DataFrame:
        """The comparison of the models by their expected predictive accuracy: `arviz.compare`.

        Parameters
        ----------
        **options
            Arguments of `arviz.compare`.

        Returns
        -------
        pandas.DataFrame
            The result of ArviZ for the runs that have a group `log_likelihood`.

        Raises
        ------
        InvalidInputError
            Fewer than two runs have one.

        See Also
        --------
        zarrtrace.Trace.add_group : Add the log likelihoods of a run.

        Examples
        --------
        >>> import numpy as np
        >>> import zarrtrace as zt
        >>> rng = np.random.default_rng(1)
        >>> for name, mean in (("good", 0.0), ("bad", 3.0)):
        ...     trace = zt.create(
        ...         f"experiments/{name}",
        ...         chains=4,
        ...         draws=100,
        ...         posterior={"mu": 0.0},
        ...         log_likelihood={"y": zt.Var(shape=8)},
        ...     )
        ...     for chain in range(4):
        ...         with trace.writer(chain) as writer:
        ...             mu = rng.normal(mean, 0.1, 100)
        ...             log_likelihood = -0.5 * (np.linspace(-1, 1, 8) - mu[:, None]) ** 2
        ...             writer.record_block({"mu": mu}, log_likelihood={"y": log_likelihood})
        >>> list(zt.folder.open("experiments").compare().index)
        ['good', 'bad']
        """
        chosen = [run for run in self if run.has_group("log_likelihood")]
        if len(chosen) < 2:
            raise InvalidInputError(
                f"{len(chosen)} of {len(self)} runs in {self.folder} have a group log_likelihood; "
                f"comparing needs two: record log_likelihood={{...}} with the draws, or add it "
                f"with trace.add_group"
            )
        import arviz

        groups = ["posterior", "log_likelihood"]
        models: dict[str, Any] = {run.name: run.trace.to_inferencedata(groups) for run in chosen}
        compared: pd.DataFrame = arviz.compare(models, **options)
        return compared

    def __repr__(self) -> str:
        listed = ", ".join(self.names[:5]) + (", ..." if len(self) > 5 else "")
        count = counted(len(self), "run")
        return f"<zarrtrace.Runs {self.folder}: {count}{': ' * bool(listed)}{listed}>"

    def _repr_html_(self) -> str:
        html: str = self.to_dataframe()._repr_html_()
        return html


def _agree(run: Run, settings: Mapping[str, Any]) -> bool:
    if not settings:
        return True
    there = run.settings
    return all(name in there and there[name] == value for name, value in settings.items())
