"""Data sets: named arrays of samples in the phases train, valid and test.

A model's data, and the data held out from it: added to, changed, read by random batches, moved
between memory and disk, opened by xarray.

On disk a data set is a group with `train/`, `valid/` and `test/`, each with one array per variable,
its first dimension `sample`. The consolidated metadata in the group's zarr.json lists the arrays:
it is replaced as one, after the chunks it refers to, so that a change of several variables has
happened or has not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from zarrtrace.errors import DamagedTraceError, InvalidInputError
from zarrtrace.layout import check_name
from zarrtrace.store import Location, Place, compose_encoding, dtype_name, locate

from .array import (
    PHASES,
    Names,
    SampleArray,
    Split,
    as_names,
    as_samples,
    as_values,
    check_phase,
    is_one,
    split_samples,
    stretches,
)
from .index import Index, data_sets
from .rows import CACHE_BYTES, ChunkCache, RowWriter, read_rows, write_arrays, write_rows

if TYPE_CHECKING:
    import xarray as xr


class DataSet:
    """Named arrays with one leading sample dimension, in the phases train, valid and test.

    `data["train"]["x"][index]` reads, `add` creates or appends, `update` changes, `delete` removes.

    Parameters
    ----------
    place : str, path, zarr.abc.store.Store, zarrtrace.store.Location or None
        A directory, a URL, a store; None for a new one in memory.
    mode : "a" or "r", default "a"
        "a" opens or creates, "r" reads only.
    group : str, default ""
        The path in the store.
    compressors : optional
        As in zarr, for new variables. By default Blosc (lz4, shuffle), and none
        in memory.
    rows_per_chunk : int, optional
        Samples in a chunk of a new variable; by default as many as 256 KiB hold.
    storage_options : mapping, optional
        Options of fsspec for a URL.

    Raises
    ------
    TraceNotFoundError
        There is no data set, and `mode` is "r".
    TraceExistsError
        Something else is at this place.
    FormatVersionError
        It was written by a newer zarrtrace.

    Notes
    -----
    **Killed.** `add`, `delete`, `map`, `reorder` and `to_storage` are done whole or not at all, for
    all variables and phases they name. `update` replaces chunk by chunk: some rows may be new and
    others old, but none is torn.

    **Several processes.** On a local disk they wait for each other to write, for a minute at most;
    elsewhere open it with "a" in one process at a time: a second one is noticed
    before it publishes, but may have written into the same chunk. Readers need no lock. A
    read after a change in another process has returned sees the new data, on a local disk and on
    stores that read what was written; one call that reads while others write finds whole rows,
    each old or new. Plain readers that ignore consolidated metadata may see the variables of one
    `add` at different lengths while it lasts and, after a kill, until the data set is opened with
    mode "a".

    **Power failure.** What the system had not written yet is lost; nothing is synced to the disk.

    **Memory.** A call holds what it returns and some chunks; for files up to 64 MiB of decoded
    chunks are kept for random batches.
    """

    def __init__(
        self,
        place: Place | Location = None,
        mode: Literal["a", "r"] = "a",
        *,
        group: str = "",
        compressors: Any = "auto",
        rows_per_chunk: int | None = None,
        storage_options: Mapping[str, Any] | None = None,
    ) -> None:
        if mode not in ("a", "r"):
            raise InvalidInputError(f"mode must be 'a' or 'r', got {mode!r}")
        if rows_per_chunk is not None and rows_per_chunk < 1:
            raise InvalidInputError(f"rows_per_chunk={rows_per_chunk}: use 1 or more")
        if not isinstance(place, Location):
            place = locate(place, read_only=mode == "r", storage_options=storage_options)
        if place.in_memory and isinstance(compressors, str):
            compressors = None
        self._compressors = compressors
        self._rows_per_chunk = rows_per_chunk
        self._index = Index(place, group, mode == "r" or place.read_only)
        self._index.open()
        self._location = self._index.location
        self._cache = ChunkCache(self._location)

    def __reduce__(self) -> tuple[Any, ...]:
        return _opened, (self._index, self._compressors, self._rows_per_chunk)

    def __repr__(self) -> str:
        lines = [f"<zarrtrace.DataSet {self._location}>"]
        for phase in self.phases:
            about = [str(samples) for samples in self[phase].values()]
            lines.append(f"    {phase:6}{self.sizes[phase]} samples: {', '.join(about)}")
        return "\n".join(lines if self.phases else [*lines, "    no samples"])

    # What there is ------------------------------------------------------------------------

    @property
    def phases(self) -> list[str]:
        """The phases that have variables."""
        found = {path.partition("/")[0] for path in self._index.arrays()}
        return [phase for phase in PHASES if phase in found]

    @property
    def names(self) -> list[str]:
        """The variables of all phases, those of train first, in the order of addition."""
        return list(dict.fromkeys(name for phase in PHASES for name in self[phase]))

    @property
    def sizes(self) -> dict[str, int]:
        """Number of samples of each phase that all its variables have."""
        sizes = dict.fromkeys(PHASES, 0)
        for phase in self.phases:
            sizes[phase] = min(len(samples) for samples in self[phase].values())
        return sizes

    def __getitem__(self, phase: str) -> Phase:
        return Phase(self, check_phase(phase))

    def __contains__(self, phase: object) -> bool:
        return phase in self.phases

    # Reading ------------------------------------------------------------------------------

    def get(self, names: Names, index: Any = slice(None), phase: str = "train") -> Any:
        """The values of one variable, or of several as a dict.

        Parameters
        ----------
        names : str or iterable of str
            Variables of the phase.
        index : int, slice, list or array of int, or mask, default all
            The samples, in the order of a list; each chunk is read once.
        phase : str, default "train"
            Train, valid or test.

        Returns
        -------
        numpy.ndarray or dict of numpy.ndarray
            Shape (samples, ...), for an int (...); new arrays, which you may change.
            Several variables are as long as they were at one moment.

        Raises
        ------
        InvalidInputError
            The phase has no such variable.
        IndexError
            There is no such sample.
        DamagedTraceError
            A chunk is missing or cannot be decoded.
        """
        wanted = [names] if isinstance(names, str) else list(names)
        paths = [f"{check_phase(phase)}/{name}" for name in wanted]
        while True:
            cut = self._index.cut(paths)
            problem: DamagedTraceError | None = None
            try:
                found = [self._read(array, array.rows(index)) for array in cut]
            except DamagedTraceError as error:
                problem = error
            # It was deleted or replaced while it was read: the data may be of both.
            now = self._index.cut(paths)
            if all(later.grew_from(array) for later, array in zip(now, cut, strict=True)):
                break
        if problem is not None:
            raise problem
        if is_one(index):
            found = [values[0] for values in found]
        return found[0] if isinstance(names, str) else dict(zip(wanted, found, strict=True))

    def to_dataset(self, phase: str = "train", chunks: Any = None) -> xr.Dataset:
        """The variables of a phase for xarray, read lazily.

        Parameters
        ----------
        phase : str, default "train"
            Train, valid or test.
        chunks : optional
            As in `xarray.Dataset.chunk`, for dask.

        Returns
        -------
        xarray.Dataset
            It is as long as the shortest variable. Its length does not change; its values are those
            that exist when they are read.
        """
        from .xarray import open_samples

        return open_samples(self[phase], chunks)

    # Changing -----------------------------------------------------------------------------

    def add(
        self,
        names: str | Mapping[str, Any],
        values: Any = None,
        phase: Split = "train",
        seed: int | None = None,
    ) -> None:
        """Create new variables, or append to existing ones.

        Parameters
        ----------
        names : str or mapping
            A name, or names with their values: with the same number of samples. Variables passed
            together must have had the same number of samples before, too.
        values : array_like, optional
            Shape (samples, ...), with a single name. Numbers, bool, text, times; not changed.
        phase : str, or three numbers, default "train"
            A phase, or the numbers of samples for train, valid and test, in order; fractions are
            cut off to whole numbers, and test gets the rest.
        seed : int, optional
            Shuffles the samples first, in the same way for all variables.

        Raises
        ------
        InvalidInputError
            The numbers of samples do not match.
        SchemaError
            A name, dtype or shape cannot be stored, or differs from the variable's. Nothing was
            stored, whatever is raised.
        NotWritableError
            It is read-only, or another process has been writing for a minute.
        """
        given = self._given(names, values)
        count = len(next(iter(given.values())))
        parts = split_samples(phase, count)
        if seed is not None:
            order = np.random.default_rng(seed).permutation(count)
            given = {name: array[order] for name, array in given.items()}
        with self._index.alone():
            arrays = self._index.arrays()
            ready = []
            for part, chosen in parts.items():
                lengths = set()
                for name, array in given.items():
                    target = self._target(arrays, f"{part}/{name}", array)
                    lengths.add(target.shape[0])
                    ready.append((target, target.fit(array[chosen])))
                if len(lengths) > 1:
                    raise InvalidInputError(
                        f"{self._location}: {', '.join(given)} have {sorted(lengths)} samples in "
                        f"{part}, so the new samples would not match; add to them one by one"
                    )
            changes: dict[str, SampleArray | None] = {}
            for target, rows in ready:
                writer = RowWriter(self._location, target)
                writer.append(rows)
                changes[target.path] = writer.close()
            self._index.commit(arrays, changes)

    def update(
        self,
        names: str | Mapping[str, Any],
        values: Any = None,
        index: Any = slice(None),
        phase: str = "train",
    ) -> None:
        """Replace existing samples.

        Parameters
        ----------
        names : str or mapping
            A name, or names with their values.
        values : array_like, optional
            Values of the shape that `get` with this index returns, or one number for all.
        index, phase
            As in `get`.

        Raises
        ------
        InvalidInputError
            The shape does not match, or the phase has no such variable.
        IndexError
            There is no such sample.
        """
        given = dict(names) if isinstance(names, Mapping) else {names: values}
        with self._index.alone():
            ready = []
            for name, value in given.items():
                array = self._index.array(f"{check_phase(phase)}/{name}")
                rows = array.rows(index)
                cast = array.cast(as_values(value, array.path))
                wanted = (*(() if is_one(index) else (len(rows),)), *array.shape[1:])
                if cast.shape not in ((), wanted):
                    raise InvalidInputError(
                        f"{array.path}: the values have shape {cast.shape}, expected {wanted}",
                        variable=name,
                    )
                ready.append((array, rows, np.broadcast_to(cast, (len(rows), *array.shape[1:]))))
            for array, rows, cast in ready:
                write_rows(self._location, array, rows, cast)

    def delete(self, names: Names, phase: str | None = None) -> None:
        """Remove variables from a phase, or from all phases that have them.

        Parameters
        ----------
        names : str or iterable of str
            Variables.
        phase : str, optional
            By default all phases that have them.

        Raises
        ------
        InvalidInputError
            One of them does not exist; none was removed.
        """
        with self._index.alone():
            arrays = self._index.arrays()
            changes: dict[str, SampleArray | None] = {}
            for name in as_names(names):
                found = [f"{part}/{name}" for part in self._phases_of(phase, name)]
                if not found:
                    self._index.array(f"{phase or 'train'}/{name}")
                changes |= dict.fromkeys(found)
            self._index.commit(arrays, changes)

    def map(
        self,
        function: Callable[..., Any],
        names: Names,
        to: Names | None = None,
        phase: str | None = None,
    ) -> None:
        """Compute variables from others, a stretch of samples at a time.

        Parameters
        ----------
        function : callable
            Takes an array, shape (samples, ...), for each variable in `names`, and returns one with
            as many samples, or a tuple of them for several in `to`. Called once for every stretch,
            at least once.
        names : str or iterable of str
            The variables it takes.
        to : str or iterable of str, optional
            The variables it returns; by default `names` themselves. Existing ones are replaced when
            all are computed.
        phase : str, optional
            By default all phases that have the variables.

        Raises
        ------
        InvalidInputError
            The variables have different lengths, or the function returns another number of samples.
        """
        taken = as_names(names)
        given = taken if to is None else as_names(to)
        with self._index.alone():
            arrays = self._index.arrays()
            changes: dict[str, SampleArray | None] = {}
            for part in self._phases_of(phase, taken[0]) or [phase or "train"]:
                sources = [self._index.array(f"{part}/{name}") for name in taken]
                if len({source.shape[0] for source in sources}) > 1:
                    raise InvalidInputError(
                        f"{self._location}: {', '.join(taken)} have different numbers of samples "
                        f"in {part}: {[source.shape[0] for source in sources]}"
                    )
                targets = [f"{part}/{name}" for name in given]
                batches = (
                    _mapped(function, [self._read(source, rows) for source in sources], targets)
                    for rows in stretches(sources)
                )
                changes |= write_arrays(self._location, batches, partial(self._new, arrays))
            self._index.commit(arrays, changes)

    def reorder(self, order: Any, phase: str = "train") -> None:
        """Reorder the samples of all variables of a phase, or keep only some.

        Parameters
        ----------
        order : list or array of int, slice, or mask
            The samples in their new order, as for `get`.
        phase : str, default "train"
            Train, valid or test.
        """
        with self._index.alone():
            arrays = self._index.arrays()
            changes: dict[str, SampleArray | None] = {}

            def emptied(path: str, _: Any) -> SampleArray:
                return arrays[path].with_length(0).elsewhere(arrays[path])

            for name in self[phase]:
                source = arrays[f"{phase}/{name}"]
                rows = np.asarray(source.rows(order))
                step = max(1, CACHE_BYTES // max(1, source.row_bytes))
                parts = [rows[start : start + step] for start in range(0, len(rows), step)]
                batches = ({source.path: self._read(source, part)} for part in parts or [rows])
                changes |= write_arrays(self._location, batches, emptied)
            self._index.commit(arrays, changes)

    def to_storage(
        self,
        place: Place | Location | DataSet,
        names: Names | None = None,
        phase: str | None = None,
        **options: Any,
    ) -> DataSet:
        """Copy variables to another place; existing ones with the same names are replaced.

        Parameters
        ----------
        place : as in `DataSet`, or a DataSet
            The place to copy to.
        names : str or iterable of str, optional
            By default all.
        phase : str, optional
            By default all phases that have them.
        **options
            Options of the DataSet at that place.

        Returns
        -------
        DataSet
            The DataSet at that place.
        """
        other = place if isinstance(place, DataSet) else DataSet(place, **options)
        with other._index.alone():
            arrays = other._index.arrays()
            changes: dict[str, SampleArray | None] = {}
            for name in self.names if names is None else as_names(names):
                for part in self._phases_of(phase, name) or [phase or "train"]:
                    source = self._index.array(f"{part}/{name}")
                    batches = (
                        {source.path: self._read(source, rows)} for rows in stretches([source])
                    )
                    new = partial(other._new, arrays)
                    changes |= write_arrays(other._location, batches, new)
            other._index.commit(arrays, changes)
        return other

    def to_memory(self, names: Names | None = None, phase: str | None = None) -> DataSet:
        """A copy of variables in memory.

        Parameters
        ----------
        names, phase
            As in `to_storage`.
        """
        return self.to_storage(DataSet(None), names, phase)

    # Within -------------------------------------------------------------------------------

    def _phases_of(self, phase: str | None, name: str) -> list[str]:
        wanted = PHASES if phase is None else (check_phase(phase),)
        return [part for part in wanted if f"{part}/{name}" in self._index.arrays()]

    def _read(self, array: SampleArray, rows: Any) -> np.ndarray[Any, Any]:
        return read_rows(self._location, array, rows, self._cache)

    def _given(self, names: str | Mapping[str, Any], values: Any) -> dict[str, Any]:
        items = names if isinstance(names, Mapping) else {names: values}
        given = {
            check_name(name, "variable"): as_samples(value, name) for name, value in items.items()
        }
        lengths = {name: len(array) for name, array in given.items()}
        if len(set(lengths.values())) != 1:
            raise InvalidInputError(
                f"pass the same number of samples for each variable, got {lengths or 'no variable'}"
            )
        return given

    def _target(
        self, arrays: Mapping[str, SampleArray], path: str, values: np.ndarray[Any, Any]
    ) -> SampleArray:
        """The array that takes these values: the existing one, or a new one."""
        array = arrays.get(path)
        if array is None:
            encoding = compose_encoding(values.dtype, self._compressors)
            row = np.empty(values.shape[1:], values.dtype)
            array = SampleArray.new(path, row, encoding, self._rows_per_chunk)
            self._index.check_dimensions(array)
        return array

    def _new(
        self, arrays: Mapping[str, SampleArray], path: str, values: np.ndarray[Any, Any]
    ) -> SampleArray:
        """A new array for these values, which replaces the existing one."""
        return self._target({}, path, values).elsewhere(arrays.get(path))


def _mapped(
    function: Callable[..., Any], values: list[np.ndarray[Any, Any]], paths: list[str]
) -> dict[str, np.ndarray[Any, Any]]:
    """The result of a function for some samples, by path."""
    found = function(*values)
    found = found if isinstance(found, tuple) else (found,)
    if len(found) != len(paths):
        names = [path.partition("/")[2] for path in paths]
        raise InvalidInputError(f"the function returned {len(found)} arrays for {', '.join(names)}")
    count = len(values[0])
    return {path: as_samples(value, path, count) for path, value in zip(paths, found, strict=True)}


class Phase(Mapping[str, "Samples"]):
    """The variables of one phase, by name."""

    def __init__(self, data: DataSet, name: str) -> None:
        self.data = data
        self.name = name

    def __getitem__(self, name: str) -> Samples:
        self.data._index.array(f"{self.name}/{name}")
        return Samples(self.data, self.name, name)

    def __iter__(self) -> Iterator[str]:
        arrays = self.data._index.arrays().values()
        return iter([array.name for array in arrays if array.phase == self.name])

    def __contains__(self, name: object) -> bool:
        return f"{self.name}/{name}" in self.data._index.arrays()

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def get(self, name: str, default: Any = None) -> Any:
        """A variable, or the default when the phase has none of this name."""
        return self[name] if name in list(self) else default

    def __repr__(self) -> str:
        return f"<{self.name}: {', '.join(map(str, self.values())) or 'no variables'}>"


class Samples:
    """One variable of a phase: `samples[index]` reads and `samples[index] = values` changes it.

    It is a name, not a copy: it shows samples that others add.
    """

    def __init__(self, data: DataSet, phase: str, name: str) -> None:
        self.data = data
        self.phase = phase
        self.name = name

    @property
    def _array(self) -> SampleArray:
        return self.data._index.array(f"{self.phase}/{self.name}")

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape (samples, ...)."""
        return self._array.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of the values."""
        return self._array.dtype

    @property
    def dims(self) -> tuple[str, ...]:
        """The names of the dimensions; the first is `sample`."""
        return self._array.dims

    @property
    def rows_per_chunk(self) -> int:
        """Samples in a chunk."""
        return self._array.rows_per_chunk

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> Any:
        return self.data.get(self.name, index, self.phase)

    def __setitem__(self, index: Any, values: Any) -> None:
        self.data.update(self.name, values, index, self.phase)

    def __iter__(self) -> Iterator[Any]:
        for start in range(0, len(self), self.rows_per_chunk):
            yield from self[start : start + self.rows_per_chunk]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        values: np.ndarray[Any, Any] = self[:]
        return values if dtype is None else values.astype(dtype)

    def __repr__(self) -> str:
        return f"{self.name} {self.shape} {dtype_name(self.dtype)}"


def list_data_sets(place: Place, *, storage_options: Mapping[str, Any] | None = None) -> list[str]:
    """The names of the groups at a place that are data sets, for `DataSet(place, group=name)`.

    Parameters
    ----------
    place, storage_options
        As in `DataSet`.
    """
    return data_sets(locate(place, read_only=True, storage_options=storage_options))


def _opened(index: Index, compressors: Any, rows_per_chunk: int | None) -> DataSet:
    """A data set that came from another process."""
    data = object.__new__(DataSet)
    data._compressors = compressors
    data._rows_per_chunk = rows_per_chunk
    data._index = index
    data._location = index.location
    data._cache = ChunkCache(index.location)
    return data
