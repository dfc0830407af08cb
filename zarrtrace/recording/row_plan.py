"""The one place that decides which values `record()` accepts for a variable."""

from __future__ import annotations

import difflib
import math
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import numpy as np

from ..errors import DrawError
from ..layout.layout import Layout
from ..layout.variables import Variable
from ..messages import chain_label
from ..sampling_state.journal import Journal
from ..sampling_state.journal_format import RowLayout
from ..store.dtypes import dtype_name
from ..store.masked import MaskedValuesError, as_array
from .open_chunks import OpenChunk, OpenChunks, Schedule

Values = Mapping[str, Any]
Array = np.ndarray[Any, Any]

# The format characters of the module struct for dtypes of numbers.
_STRUCT_CODES = {
    **{"f2": "e", "f4": "f", "f8": "d", "i1": "b", "i2": "h", "i4": "i", "i8": "q"},
    **{"u1": "B", "u2": "H", "u4": "I", "u8": "Q"},
}


class RecordingPlan:
    """Where the values of a draw go, planned once for all draws up to the next array.

    Parameters
    ----------
    journal : Journal
        The buffer. It has the rows of each variable except text.
    open_chunks : OpenChunks
        The chunks that the draws go into.
    """

    def __init__(
        self,
        layout: Layout,
        chains: range,
        journal: Journal,
        open_chunks: OpenChunks,
    ) -> None:
        self._chains = chains
        self._targets: dict[str, list[Target]] = {}
        self._rows: dict[str, list[PackedRow | Target]] = {}
        for group in layout.groups.values():
            targets = []
            for variable in group.variables.values():
                chunk, schedule = open_chunks.chunk(variable), open_chunks.schedule(variable)
                targets.append(_target(chunk, schedule, layout, chains))
            self._targets[group.name] = targets
            self._rows[group.name] = share_rows(targets, journal)

    def put(self, given: Mapping[str, Values], count: int) -> None:
        """Put the values of draw `count` into the buffer.

        If one is refused, others may be in the buffer already: they do not count until the draw is
        published, and the next draw replaces them.
        """
        for group, rows in self._rows.items():
            values: Any = given.get(group)
            try:
                if len(values) != len(self._targets[group]):
                    raise self._misnamed(group, values, count)
                for row in rows:
                    row.put(values, self._chains, count)
            except (LookupError, TypeError):
                if _has_exactly(values, self._targets[group]):
                    raise
                raise self._misnamed(group, values, count) from None
        if len(given) != len(self._targets):
            unknown = next(name for name in given if name not in self._targets)
            raise self._misnamed(unknown, None, count)

    def check_block(self, given: Mapping[str, Values], count: int) -> Block:
        """The values of several draws from `count` on, all checked."""
        for group in (*self._targets, *given):
            if group not in self._targets or group not in given:
                raise self._misnamed(group, given.get(group), count)
        draws: int | None = None
        values: list[Array] = []
        for group, targets in self._targets.items():
            if not _has_exactly(given[group], targets):
                raise self._misnamed(group, given[group], count)
            for target in targets:
                value, draws = target.check_block(
                    given[group][target.name], draws, self._chains, count
                )
                values.append(value)
        assert draws is not None
        return Block(draws, values)

    def put_block(self, block: Block, start: int, step: int, count: int) -> None:
        """Put `step` draws of a block into the buffer, for the draws from `count` on."""
        targets = (target for targets in self._targets.values() for target in targets)
        for target, value in zip(targets, block.values, strict=True):
            target.put_block(value[start : start + step], count)

    def _misnamed(self, group: str, values: object, count: int) -> DrawError:
        """The error for a group or variable that is missing, or that the trace does not have."""
        at: dict[str, Any] = {
            "where": f"{group}, {chain_label(self._chains)}, draw {count}",
            "group": group,
            "chain": self._chains[0],
            "draw": count,
        }
        if group not in self._targets:
            return DrawError(
                f"the trace has no sampled group {group!r}",
                remedy=f"it has {', '.join(self._targets)}",
                **at,
            )
        names = [target.name for target in self._targets[group]]
        if not isinstance(values, Mapping):
            return DrawError(f"give a mapping with the values of {', '.join(names)}", **at)
        missing = [name for name in names if name not in values]
        unknown = [name for name in values if name not in names]
        if unknown:
            close = difflib.get_close_matches(str(unknown[0]), names, 1)
            remedy = f"did you mean {close[0]!r}?" if close else f"it has {', '.join(names)}"
            why = f"the group has no variable {unknown[0]!r}"
        else:
            why = f"no value for {', '.join(map(repr, missing))}"
            remedy = "give a value for each draw"
        return DrawError(why, remedy=remedy, variable=(unknown or missing)[0], **at)


@dataclass(frozen=True)
class Block:
    """The values of several draws, checked: the draws first, in the order of the variables."""

    draws: int
    values: list[Array]

    def every(self, step: int, first: int) -> Block:
        """Every `step`-th of its draws, from draw `first` on."""
        values = [value[first::step] for value in self.values] if step > 1 else self.values
        return Block(len(range(first, self.draws, step)), values)


class Target:
    """Where the values of one variable go, and which values are accepted.

    Attributes
    ----------
    rows : numpy.ndarray
        The rows of the chunk that is being filled, with the draws first.
    shape : tuple of int
        The shape of the value of one draw.
    start, length : int
        The chunks have `length` draws each, counted from `start`.
    trusted : frozenset of type
        Types whose values up to `most` all fit as they are, or fail when they are assigned.
    most : float
        The largest number of a float of less than 64 bits; NumPy makes larger ones infinite.
    """

    __slots__ = ("dtype", "length", "most", "name", "rows", "shape", "start", "trusted", "variable")

    def __init__(
        self, variable: Variable, rows: Array, shape: tuple[int, ...], start: int = 0
    ) -> None:
        self.variable = variable
        self.name = variable.name
        self.dtype = variable.declared
        self.rows = rows
        self.shape = shape
        self.start = start
        self.length = variable.draws_per_chunk
        self.trusted = _trusted_types(self.dtype) if shape == () else frozenset()
        narrow = self.dtype in (np.float16, np.float32, np.complex64)
        self.most = float(np.finfo(self.dtype).max) if narrow else math.inf

    def put(self, values: Values, chains: range, draw: int) -> None:
        """Put the value of one draw into its row, if it is accepted."""
        value = values[self.name]
        kind = type(value)
        if not (
            (kind in self.trusted and (self.most == math.inf or abs(value) <= self.most))
            or (kind is np.ndarray and value.dtype == self.dtype and value.shape == self.shape)
        ):
            value = self.check(value, chains, draw)
        try:
            self.rows[(draw - self.start) % self.length] = value
        except OverflowError as error:
            raise self.refuse(f"{error}; widen the dtype", chains, draw) from None
        except UnicodeError as error:
            raise self.refuse(f"{error}; replace it", chains, draw) from None

    def put_block(self, values: Array, draw: int) -> None:
        """Put checked values, the draws first, into the rows from draw `draw` on."""
        row = (draw - self.start) % self.length
        self.rows[row : row + len(values)] = values

    def check(self, value: Any, chains: range, draw: int) -> Array:
        """The value of one draw as an array of the right shape and dtype."""
        array = self.as_array(value, chains, draw)
        if array.shape != self.shape:
            raise self.refuse(
                f"the value has shape {array.shape}, expected {self.shape}; "
                f"give an array of that shape",
                chains,
                draw,
            )
        return self.cast(array, chains, draw)

    def check_block(
        self, value: Any, draws: int | None, chains: range, draw: int
    ) -> tuple[Array, int]:
        """The values of a block as an array with the draws first, and their number."""
        array = self.as_array(value, chains, draw)
        lead = 1 if len(self.shape) == len(self.variable.shape) else 2
        wanted = (*self.shape[: lead - 1], "draws" if draws is None else draws)
        shape = array.shape[:lead]
        if (
            array.ndim != lead + len(self.variable.shape)
            or array.shape[lead:] != self.variable.shape
            or (lead == 2 and shape[0] != self.shape[0])
            or (draws is not None and shape[-1] != draws)
        ):
            expected = ", ".join(map(str, (*wanted, *self.variable.shape)))
            raise self.refuse(
                f"the block has shape {array.shape}, expected ({expected})", chains, draw
            )
        array = self.cast(array, chains, draw)
        return (np.moveaxis(array, 1, 0) if lead == 2 else array), shape[-1]

    def refuse(self, why: str, chains: range, draw: int) -> DrawError:
        """The error for a value that cannot be recorded."""
        return DrawError(
            why,
            where=f"{self.variable.label}, {chain_label(chains)}, draw {draw}",
            group=self.variable.group,
            variable=self.variable.name,
            chain=chains[0],
            draw=draw,
        )

    def as_array(self, value: Any, chains: range, draw: int) -> Array:
        """The value as an array of any shape and dtype."""
        try:
            return as_array(value)
        except MaskedValuesError as error:
            raise self.refuse(str(error), chains, draw) from None
        except Exception as error:
            raise self.refuse(f"{value!r} is not an array ({error})", chains, draw) from error

    def cast(self, array: Array, chains: range, draw: int) -> Array:
        """The array in the declared dtype, if only floating precision is lost."""
        declared = self.variable.declared
        if array.dtype == declared:
            return array
        if self.variable.is_text:
            if array.dtype.kind in "UT" or all(isinstance(item, str) for item in array.flat):
                try:
                    return array.astype(declared)
                except (UnicodeError, TypeError) as error:
                    # Half a surrogate pair.
                    raise self.refuse(f"{error}; replace it", chains, draw) from None
            safe = False
        else:
            safe = array.dtype.kind not in "OUST" and np.can_cast(
                array.dtype, declared, casting="same_kind"
            )
        # A Python int has no dtype of its own: 3 goes into uint8, -3 and 300 do not.
        if array.dtype.kind in "iu" and declared.kind in "iu":
            with np.errstate(all="ignore"):
                cast = array.astype(declared)
            if not np.array_equal(cast, array):
                raise self.refuse(
                    f"{_some(array)} does not fit {declared}; widen the dtype", chains, draw
                )
            return cast
        if not safe:
            raise self.refuse(
                f"a value of dtype {array.dtype} cannot become {dtype_name(declared)} without "
                f"loss; convert it first, or declare that dtype: zarrtrace.Var(dtype=...)",
                chains,
                draw,
            )
        if declared.kind in "mM":
            return self._cast_time(array, chains, draw)
        with np.errstate(over="ignore"):
            cast = array.astype(declared)
        if declared.kind in "fc" and not np.array_equal(np.isinf(cast), np.isinf(array)):
            raise self.refuse(
                f"{_some(array)} is too large for {declared}; declare "
                f"zarrtrace.Var(dtype={'complex128' if declared.kind == 'c' else 'float64'!r})",
                chains,
                draw,
            )
        return cast

    def _cast_time(self, array: Array, chains: range, draw: int) -> Array:
        """A time in the declared unit: not 1500 ms in seconds, nor the year 3000 in ns."""
        try:
            cast = array.astype(self.variable.declared)
            same = np.array_equal(cast.astype(array.dtype), array, equal_nan=True)
        except OverflowError:
            same = False
        if not same:
            raise self.refuse(
                f"{array.dtype} does not fit {self.variable.declared}; "
                f"declare zarrtrace.Var(dtype={str(array.dtype)!r})",
                chains,
                draw,
            )
        return cast


class WholeChunk(Target):
    """Where the values of a variable go if one draw of it fills a chunk.

    The chunk is written before `record()` returns, from the value itself: it is not copied into
    the buffer first.
    """

    __slots__ = ("chunk", "chunk_shape")

    def __init__(self, chunk: OpenChunk, rows: Array, shape: tuple[int, ...], start: int) -> None:
        super().__init__(chunk.variable, rows, shape, start)
        self.chunk = chunk
        self.chunk_shape = chunk.rows.shape

    def put(self, values: Values, chains: range, draw: int) -> None:
        """Let the value of one draw be written, if it is accepted."""
        value = values[self.name]
        if not (
            type(value) is np.ndarray and value.dtype == self.dtype and value.shape == self.shape
        ):
            value = self.check(value, chains, draw)
        self.chunk.rows = value.reshape(self.chunk_shape)

    def put_block(self, values: Array, draw: int) -> None:
        """Let the checked values of one draw be written."""
        self.chunk.rows = values.reshape(self.chunk_shape)


class PackedRow:
    """The numbers of a group that share a row: one call writes all of a draw."""

    __slots__ = (
        "buffer",
        "first",
        "length",
        "pack",
        "pick",
        "start",
        "stride",
        "targets",
        "trusted",
    )

    def __init__(self, layout: RowLayout, targets: list[Target], journal: Journal) -> None:
        # In the order of the row, which may differ from the order of definition.
        self.targets = sorted(targets, key=lambda target: layout.columns[target.variable.label])
        codes = "".join(_STRUCT_CODES[target.variable.dtype.str[1:]] for target in self.targets)
        self.pack = struct.Struct(f"={codes}").pack_into
        self.pick = itemgetter(*(target.name for target in self.targets))
        # A float for an integer, or a number too large, is refused by `pack`.
        self.trusted = frozenset().union(*(target.trusted for target in self.targets))
        self.buffer = journal.buffer
        self.first = layout.columns[self.targets[0].variable.label]
        self.stride = layout.stride
        self.start = self.targets[0].start
        self.length = self.targets[0].length

    def put(self, values: Values, chains: range, draw: int) -> None:
        """Put the numbers of one draw into their row, if they are accepted."""
        numbers = self.pick(values)
        trusted = self.trusted.issuperset(map(type, numbers))
        if not trusted:
            # Samplers also return arrays without dimensions, which become NumPy scalars.
            numbers = [number[()] if type(number) is np.ndarray else number for number in numbers]
            trusted = self.trusted.issuperset(map(type, numbers))
        if trusted:
            row = (draw - self.start) % self.length
            try:
                self.pack(self.buffer, self.first + row * self.stride, *numbers)
            except (struct.error, OverflowError):
                pass
            else:
                return
        for target in self.targets:
            target.put(values, chains, draw)


def gather_groups(
    posterior: Values | None, sample_stats: Values | None, groups: dict[str, Values]
) -> dict[str, Values]:
    """The values of all groups by the name of the group."""
    if posterior is not None:
        groups["posterior"] = posterior
    if sample_stats is not None:
        groups["sample_stats"] = sample_stats
    return groups


def _target(chunk: OpenChunk, schedule: Schedule, layout: Layout, chains: range) -> Target:
    """Where the values of a variable go, for a writer of these chains."""
    together = layout.chains_per_chunk > 1
    rows = np.moveaxis(chunk.rows[: len(chains)], 1, 0) if together else chunk.rows[0]
    variable = chunk.variable
    shape = (len(chains), *variable.shape) if together else variable.shape
    fills_a_chunk = schedule.length == 1 and len(chains) == layout.chains_per_chunk
    # A number may share a row of the journal, and a bool or a text is stored as something else.
    goes_as_it_is = variable.shape and variable.dtype == variable.declared and not variable.is_text
    if fills_a_chunk and goes_as_it_is:
        return WholeChunk(chunk, rows, shape, schedule.start)
    return Target(variable, rows, shape, schedule.start)


def share_rows(targets: list[Target], journal: Journal) -> list[PackedRow | Target]:
    """The targets of a group; variables that share a row become one target."""
    sharing: dict[RowLayout, list[Target]] = {}
    alone: list[PackedRow | Target] = []
    for target in targets:
        row_layout = journal.row_layouts.get(target.variable.label)
        if row_layout is not None and journal.is_packed(target.variable):
            sharing.setdefault(row_layout, []).append(target)
        else:
            alone.append(target)
    packed: list[PackedRow | Target] = []
    for row_layout, together in sharing.items():
        packed += [PackedRow(row_layout, together, journal)] if together[1:] else together
    return [*packed, *alone]


def _trusted_types(dtype: np.dtype[Any]) -> frozenset[type]:
    """The types whose values all fit a dtype as they are, or overflow with an error."""
    accepted: dict[str, tuple[type, ...]] = {
        "f": (float, int, np.float64),
        "c": (complex, float, int),
        "i": (int,),
        "u": (int,),
        "b": (bool,),
        "T": (str,),
    }
    # The unit of a datetime64 is in its dtype, not in its type.
    exact = () if dtype.kind in "TmM" else (dtype.type,)
    return frozenset({*accepted.get(dtype.kind, ()), *exact})


def _has_exactly(values: object, targets: Iterable[Target]) -> bool:
    """Whether these are values of exactly these variables."""
    return isinstance(values, Mapping) and values.keys() == {target.name for target in targets}


def _some(array: Array) -> str:
    return str(array) if array.size < 10 else f"an array from {array.min()} to {array.max()}"
