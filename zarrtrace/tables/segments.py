"""Segments: contiguous runs of draws with attributes and arrays of their own.

They hold what a sampler knows about each block of draws: its step size, the covariance it
proposed from, how often each of its moves was accepted. They are rows of the table `segments`.
Values of varying size are stored one after the other in the tables `segment_values_<dtype>`:
the flattened arrays, and as uint8 the JSON text that says where they are.
"""

from __future__ import annotations

import json
import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, overload

import numpy as np

from ..errors import (
    DamagedTraceError,
    GroupNotFoundError,
    IncompleteTraceError,
    InvalidInputError,
    TraceError,
)
from ..layout.layout import TABLES
from ..layout.names import SEGMENT_VALUES, SEGMENTS
from ..layout.variables import Var
from ..messages import counted, range_label
from ..reading.cut import make_cut
from ..recording.exit import open_writers
from ..recording.writer import ChainWriter
from ..sampling_state.state_text import decode_state, encode_state
from ..store.dtypes import as_dtype, dtype_name, dtype_of_values
from ..store.failures import own_errors_of_calls
from ..store.masked import MaskedValuesError, as_array
from .table_file import TableFile

if TYPE_CHECKING:
    import xarray as xr

    from ..trace import Trace
    from .table import Table


_COLUMNS = {"start": int, "stop": int, "text_start": int, "text_stop": int}
_VALUES_PER_CHUNK = 2**16
_TEXT = np.dtype(np.uint8)


class _Row(NamedTuple):
    start: int
    stop: int
    text_start: int
    text_stop: int


class _Place(NamedTuple):
    """Where the values of an array are: from row `first` on in the table of its dtype."""

    dtype: str
    first: int
    shape: Sequence[int]


class _Description(NamedTuple):
    """The content of the text of a segment."""

    attrs: dict[str, Any]
    arrays: dict[str, _Place]


@own_errors_of_calls
class Segment:
    """A contiguous run of draws, the same for every chain: an item of `Trace.segments`.

    Attributes
    ----------
    number : int
        The number of the segment, counted from 0.
    start, stop : int
        Its draws, counted from the start of the chains, warmup included; `stop` is the first that
        does not belong to it. They do not depend on the burn-in.

    See Also
    --------
    zarrtrace.Trace.segments : The segments of a trace.
    Segments.add : Add a segment.

    Examples
    --------
    >>> import zarrtrace as zt
    >>> trace = zt.create("run.zarr", chains=1, draws=100, posterior={"mu": 0.0})
    >>> with trace.writer(0) as writer:
    ...     writer.record_block({"mu": [0.1, 0.2, 0.3]})
    >>> trace.segments.add(2, {"step_size": 0.5})
    >>> segment = trace.segments[0]
    >>> segment.start, segment.stop, segment.attrs
    (1, 3, {'step_size': 0.5})
    >>> segment.posterior.mu.values
    array([[0.2, 0.3]])
    """

    def __init__(self, trace: Trace, number: int, row: _Row) -> None:
        self._trace = trace
        self._row = row
        self.number = number
        self.start = row.start
        self.stop = row.stop

    @property
    def dropped(self) -> int:
        """How many draws of the segment `Trace.drop_before` has dropped."""
        return min(max(self._trace.dropped - self.start, 0), self.stop - self.start)

    @property
    def attrs(self) -> dict[str, Any]:
        """The attributes of the segment, as passed to `Segments.add`."""
        return self._described.attrs

    @cached_property
    def arrays(self) -> Mapping[str, np.ndarray[Any, Any]]:
        """The arrays of the segment by name; each is read when it is accessed."""
        return _Arrays(self._trace, self._described.arrays)

    @property
    def posterior(self) -> xr.Dataset:
        """The draws of the posterior in this segment, as `dataset`."""
        return self.dataset("posterior")

    def dataset(self, group: str) -> xr.Dataset:
        """The draws of a sampled group in this segment, on both sides of the burn-in, lazy.

        Parameters
        ----------
        group : str
            One of the sampled groups, not of their warmup.

        Returns
        -------
        xarray.Dataset
            Its `draw` counts from the start of the chains, as `start` and `stop` do. Draws that
            were dropped are missing at its beginning.

        Raises
        ------
        GroupNotFoundError
            There is no such sampled group.

        See Also
        --------
        zarrtrace.Trace.dataset : All draws of a group.

        Examples
        --------
        >>> import zarrtrace as zt
        >>> trace = zt.create(
        ...     "run.zarr", chains=1, draws=100, posterior={"mu": 0.0}, sample_stats={"lp": 0.0}
        ... )
        >>> with trace.writer(0) as writer:
        ...     writer.record_block({"mu": [0.1, 0.2, 0.3]}, {"lp": [-1.0, -2.0, -3.0]})
        >>> trace.segments.add((1, 3))
        >>> trace.segments[0].dataset("sample_stats").lp.values
        array([[-2., -3.]])
        """
        from ..reading import dataset as view

        trace = self._trace
        if group not in trace._layout.groups:
            known = ", ".join(trace._layout.groups)
            raise GroupNotFoundError(
                f"{trace.path} has no sampled group {group!r}",
                remedy=f"it has {known}",
                group=group,
            )
        now = trace._now()
        cut = make_cut(now, group, chains=tuple(range(now.layout.chains)))
        first = self.start + self.dropped
        length = max(min(int(trace.recorded.min()), self.stop) - first, 0)
        cut = replace(cut, start=first, counts=(length,) * len(cut.chains), length=length)
        return view.open_cut(cut).assign_coords(draw=np.arange(first, first + length))

    @cached_property
    def _described(self) -> _Description:
        text = _read_values(self._trace, _TEXT, self._row.text_start, self._row.text_stop)
        try:
            content = json.loads(text.tobytes())
            places = {name: _Place(*place) for name, place in content["arrays"].items()}
            return _Description(decode_state(content["attrs"]), places)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DamagedTraceError(
                f"segment {self.number} of {self._trace.path}: its attributes cannot be read "
                f"({error!r}); restore {TABLES}/{SEGMENT_VALUES}{dtype_name(_TEXT)} from a copy"
            ) from error

    def __repr__(self) -> str:
        gone = f", {self.dropped} of them dropped" if self.dropped else ""
        return (
            f"<zarrtrace.Segment {self.number} of {self._trace.path}: "
            f"draws {self.start}:{self.stop}{gone}>"
        )


@own_errors_of_calls
class Segments(Sequence[Segment]):
    """The segments of a trace, in their order, as `Trace.segments` returns them.

    It looks again at each call, so it shows those there are at that moment; one that is kept reads
    only the rows that are new. A segment exists when all of its draws do.

    See Also
    --------
    zarrtrace.Trace.segments : Return the segments of a trace.

    Examples
    --------
    >>> import zarrtrace as zt
    >>> trace = zt.create("run.zarr", chains=1, draws=100, posterior={"mu": 0.0})
    >>> with trace.writer(0) as writer:
    ...     for step_size in (0.5, 0.4):
    ...         writer.record_block({"mu": [0.1, 0.2]})
    ...         trace.segments.add(2, {"step_size": step_size})
    >>> for segment in trace.segments:
    ...     print(segment.start, segment.stop, segment.attrs)
    0 2 {'step_size': 0.5}
    2 4 {'step_size': 0.4}
    """

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        # How many rows were read so far, and those of them that later ones left in place.
        self._known: tuple[int, list[_Row]] = (0, [])

    def add(
        self,
        draws: int | tuple[int, int],
        attrs: Mapping[str, Any] | None = None,
        **arrays: Any,
    ) -> None:
        """Add a segment: attributes and arrays for draws that have been recorded.

        In a local directory it survives `kill -9` once this has returned; elsewhere it is then
        written, after the draws that writers of this process hold in memory.

        Parameters
        ----------
        draws : int or pair of int
            How many, up to the last that all chains have; or (start, stop), counted from the
            start of the chains, warmup included.
        attrs : mapping, optional
            Attributes: small values that `ChainWriter.checkpoint` accepts.
        **arrays : array_like
            Arrays of any size, shape and dtype that a trace can store.
            Segments may have different arrays.

        Raises
        ------
        IncompleteTraceError
            Some of these draws are not recorded.
        InvalidInputError
            They begin after their end, or an attribute or array cannot be stored.
        ChainBusyError
            Another process adds segments to this trace.

        See Also
        --------
        zarrtrace.ChainWriter.record_block : Record the draws of a segment.

        Notes
        -----
        A segment replaces those it overlaps: a chain that goes back to a checkpoint adds
        it again when it has drawn again. Until then the old one is shown for the new draws once
        all of them are recorded.

        Examples
        --------
        >>> import numpy as np
        >>> import zarrtrace as zt
        >>> trace = zt.create("run.zarr", chains=1, draws=100, posterior={"mu": 0.0})
        >>> with trace.writer(0) as writer:
        ...     writer.record_block({"mu": [0.1, 0.2, 0.3]})
        >>> trace.segments.add((0, 2), {"step_size": 0.5}, covariance=np.eye(2))
        >>> trace.segments[0].arrays["covariance"]
        array([[1., 0.],
               [0., 1.]])
        """
        self._flush_draws()
        start, stop = self._check_draws(draws)
        text = _encode_attrs({} if attrs is None else attrs)
        checked = {name: _check_array(name, value) for name, value in arrays.items()}
        # Only values that a row of the table `segments` refers to exist.
        places = self._append_arrays(checked)
        described = f'{{"attrs":{text},"arrays":{json.dumps(places)}}}'.encode()
        first = self._append_values(np.frombuffer(described, _TEXT))
        row = _Row(start, stop, first, first + len(described))
        table = self._table(SEGMENTS, _COLUMNS)
        table.append(row._asdict())
        table._flush_waiting()

    def _flush_draws(self) -> None:
        """Where draws wait in memory, write the draws that this process has recorded."""
        if not self._trace._layout.journal:
            for writer in open_writers():
                if isinstance(writer, ChainWriter) and writer._location is self._trace._location:
                    writer.flush()

    def _check_draws(self, draws: int | tuple[int, int]) -> tuple[int, int]:
        recorded = int(self._trace.recorded.min())
        given: list[Any] = []
        if isinstance(draws, int | np.integer):
            given = [recorded - draws, recorded]
        elif isinstance(draws, Iterable):
            given = list(draws)
        whole = all(isinstance(n, int | np.integer) and not isinstance(n, bool) for n in given)
        if isinstance(draws, bool) or len(given) != 2 or not whole or given[0] > given[1]:
            raise InvalidInputError(
                f"draws must be a number of draws or a pair (start, stop), got {draws!r}"
            )
        start, stop = map(int, given)
        if start < 0 or stop > recorded:
            asked = range_label("draw", range(start, stop))
            if isinstance(draws, int | np.integer):
                asked = counted(int(draws), "draw")
            raise IncompleteTraceError(
                f"all chains have {range_label('draw', range(recorded))}",
                where=f"a segment of {asked} of {self._trace.path}",
                remedy="record them first, then add the segment",
            )
        return start, stop

    def _append_arrays(self, arrays: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, _Place]:
        """Append the values of arrays to the tables of their dtypes."""
        places = {}
        for dtype in dict.fromkeys(array.dtype for array in arrays.values()):
            alike = {name: array for name, array in arrays.items() if array.dtype == dtype}
            first = self._append_values(np.concatenate([a.ravel() for a in alike.values()]))
            for name, array in alike.items():
                places[name] = _Place(dtype_name(dtype), first, array.shape)
                first += array.size
        return places

    def _append_values(self, values: np.ndarray[Any, Any]) -> int:
        """Append values to the table of their dtype; returns the row of the first."""
        column = Var(dtype=values.dtype, draws_per_chunk=_VALUES_PER_CHUNK)
        table = self._table(_values_table(values.dtype), {"value": column})
        first = len(table)
        if values.size:
            table.append_rows({"value": values})
            # Where rows wait in memory, values are written before the row that refers to them.
            table._flush_waiting()
        return first

    def flush(self) -> None:
        """Write what is buffered, so that any Zarr reader finds it.

        See Also
        --------
        Segments.close : Flush, and let other processes add segments.

        Examples
        --------
        >>> import zarrtrace as zt
        >>> trace = zt.create("run.zarr", chains=1, draws=100, posterior={"mu": 0.0})
        >>> with trace.writer(0) as writer:
        ...     writer.record_block({"mu": [0.1, 0.2]})
        >>> trace.segments.add(2)
        >>> trace.segments.flush()
        """
        for table in self._open_tables():
            table.flush()

    def close(self) -> None:
        """Flush, and let other processes add segments.

        See Also
        --------
        zarrtrace.Trace.close : Close all that a process has opened.

        Examples
        --------
        >>> import zarrtrace as zt
        >>> trace = zt.create("run.zarr", chains=1, draws=100, posterior={"mu": 0.0})
        >>> with trace.writer(0) as writer:
        ...     writer.record_block({"mu": [0.1, 0.2]})
        >>> trace.segments.add(2)
        >>> trace.segments.close()
        >>> len(trace.segments)
        1
        """
        for table in self._open_tables():
            table.close()

    def _open_tables(self) -> list[Table]:
        trace = self._trace
        names = [name for name in trace.tables if name.startswith(SEGMENT_VALUES)]
        return [trace.table(name) for name in [*names, *([SEGMENTS] if self._exists() else [])]]

    def _table(self, name: str, columns: Mapping[str, Any]) -> Table:
        table = self._trace.table(name)
        # Comparing columns takes longer than appending a row.
        if not table._exists():
            table._require(columns)
        return table

    def _exists(self) -> bool:
        return TableFile(self._trace._location.below(f"{TABLES}/{SEGMENTS}")).exists()

    def _rows(self) -> list[_Row]:
        if not self._exists():
            return []
        table = self._trace.table(SEGMENTS)
        count = len(table)
        # A repair may have cut rows off.
        known, kept = self._known if self._known[0] <= count else (0, [])
        if known < count:
            columns = [table.read(name, slice(known, count)).tolist() for name in _Row._fields]
            kept = kept.copy()
            for row in map(_Row._make, zip(*columns, strict=True)):
                first = bisect_right(kept, row.start, key=lambda other: other.stop)
                stop = bisect_left(kept, row.stop, key=lambda other: other.start)
                kept[first:stop] = [row]
            self._known = count, kept
        # A chain that went back has dropped the draws of the last ones.
        recorded = int(self._trace.recorded.min())
        there = len(kept)
        while there and kept[there - 1].stop > recorded:
            there -= 1
        return kept[:there]

    def __len__(self) -> int:
        return len(self._rows())

    def __iter__(self) -> Iterator[Segment]:
        for number, row in enumerate(self._rows()):
            yield Segment(self._trace, number, row)

    @overload
    def __getitem__(self, index: int) -> Segment: ...
    @overload
    def __getitem__(self, index: slice) -> list[Segment]: ...
    def __getitem__(self, index: int | slice) -> Segment | list[Segment]:
        rows = self._rows()
        if isinstance(index, slice):
            numbers = range(len(rows))[index]
            return [Segment(self._trace, number, rows[number]) for number in numbers]
        if not -len(rows) <= index < len(rows):
            number_of = counted(len(rows), "segment")
            raise IndexError(f"{self._trace.path} has {number_of}; there is no segment {index}")
        number = range(len(rows))[index]
        return Segment(self._trace, number, rows[number])

    def __repr__(self) -> str:
        rows = self._rows()
        upto = f", draws {rows[0].start}:{rows[-1].stop}" if rows else ""
        return f"<zarrtrace.Segments of {self._trace.path}: {len(rows)}{upto}>"


class _Arrays(Mapping[str, np.ndarray[Any, Any]]):
    """The arrays of a segment, read one by one."""

    def __init__(self, trace: Trace, places: Mapping[str, _Place]) -> None:
        self._trace = trace
        self._places = places

    def __getitem__(self, name: str) -> np.ndarray[Any, Any]:
        place = self._places[name]
        dtype, stop = as_dtype(place.dtype, name), place.first + math.prod(place.shape)
        return _read_values(self._trace, dtype, place.first, stop).reshape(place.shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def __repr__(self) -> str:
        shown = (f"{name}: {place.dtype}{place.shape}" for name, place in self._places.items())
        return f"<arrays {', '.join(shown)}>"


def _read_values(trace: Trace, dtype: np.dtype[Any], start: int, stop: int) -> np.ndarray[Any, Any]:
    if start == stop:
        return np.empty(0, dtype)
    values = trace.table(_values_table(dtype)).read("value", slice(start, stop))
    if len(values) != stop - start:
        raise DamagedTraceError(
            f"{trace.path}: {TABLES}/{_values_table(dtype)} ends before value {stop} of a segment; "
            f"restore it from a copy"
        )
    return values


def _values_table(dtype: np.dtype[Any]) -> str:
    # datetime64[ns]
    return SEGMENT_VALUES + dtype_name(dtype).replace("[", "_").rstrip("]")


def _encode_attrs(attrs: Mapping[str, Any]) -> str:
    if not isinstance(attrs, Mapping):
        raise InvalidInputError(f"attrs must be a mapping of names to values, got {attrs!r}")
    return encode_state(dict(attrs), "attrs")


def _check_array(name: str, value: Any) -> np.ndarray[Any, Any]:
    try:
        array = as_array(value)
        dtype = as_dtype(dtype_of_values(array), f"the array {name!r} of a segment")
    except TraceError:
        raise
    except MaskedValuesError as error:
        raise InvalidInputError(f"the array {name!r} of a segment: {error}") from None
    except ValueError as error:
        raise InvalidInputError(f"{name!r} of a segment is not an array ({error})") from None
    return array.astype(dtype, copy=False)
