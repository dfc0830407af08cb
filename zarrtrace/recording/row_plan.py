"""May this value go into this variable? The one place that decides what `record()` takes."""

from __future__ import annotations

import difflib
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import numpy as np

from ..errors import DrawError
from ..layout.layout import Layout
from ..layout.spans import Span, span_of, written_spans
from ..layout.variables import Variable
from ..messages import chain_label
from ..sampling_state.journal import Journal
from ..sampling_state.journal_format import Table
from ..store.dtypes import dtype_name

Values = Mapping[str, Any]

# How the module struct calls the dtypes of numbers.
_STRUCT_CODES = {
    **{"f2": "e", "f4": "f", "f8": "d", "i1": "b", "i2": "h", "i4": "i", "i8": "q"},
    **{"u1": "B", "u2": "H", "u4": "I", "u8": "Q"},
}


class RecordingPlan:
    """Where the values of a draw go, laid out once for all draws up to the next array.

    Parameters
    ----------
    count : int
        The draws recorded so far: the plan serves those from there on, to where their arrays end.
    journal : Journal
        The buffer, with the rows of each variable but text.
    text : mapping of str to numpy.ndarray
        The rows of text, in the shape of a chunk.
    """

    def __init__(
        self,
        layout: Layout,
        chains: range,
        journal: Journal,
        text: Mapping[str, np.ndarray[Any, Any]],
        count: int,
    ) -> None:
        self._chains = chains
        self._targets: dict[str, list[Target]] = {}
        self._rows: dict[str, list[PackedRow | Target]] = {}
        rows = {**journal.rows, **text}
        shared = [table for table in journal.tables if table.shared]
        together = layout.chains_per_chunk > 1
        for group in layout.groups.values():
            targets = []
            for name, variable in group.variables.items():
                held = rows[variable.label]
                by_draw = np.moveaxis(held[: len(chains)], 1, 0) if together else held[0]
                shape = (len(chains), *variable.shape) if together else variable.shape
                span = span_of(written_spans(layout, variable), count)
                targets.append(Target(name, variable, by_draw, shape, span))
            self._targets[group.name] = targets
            self._rows[group.name] = share_rows(targets, shared, journal)

    def next_boundary(self, count: int) -> int:
        """The next count at which some chunk is full."""
        return min(
            target.next_boundary(count) for targets in self._targets.values() for target in targets
        )

    def put(self, given: Mapping[str, Values], count: int) -> None:
        """Put the values of draw `count` into the buffer.

        When one is refused others may be there already: they count for nothing until the draw is
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
        """The values of several draws from `count` on, every one of them checked."""
        for group in (*self._targets, *given):
            if group not in self._targets or group not in given:
                raise self._misnamed(group, given.get(group), count)
        draws: int | None = None
        values: list[np.ndarray[Any, Any]] = []
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
            first = (count - target.start) % target.length
            target.rows[first : first + step] = value[start : start + step]

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
            remedy = "give one each draw"
        return DrawError(why, remedy=remedy, variable=(unknown or missing)[0], **at)


@dataclass(frozen=True)
class Block:
    """The values of several draws, checked: the draws first, in the order of the variables."""

    draws: int
    values: list[np.ndarray[Any, Any]]


class Target:
    """Where the values of one variable go, and what may go there."""

    __slots__ = (
        "dtype",
        "length",
        "name",
        "rows",
        "shape",
        "span",
        "start",
        "trusted",
        "variable"
    )  # fmt: skip

    def __init__(
        self,
        name: str,
        variable: Variable,
        rows: np.ndarray[Any, Any],
        shape: tuple[int, ...],
        span: Span,
    ) -> None:
        self.name = name
        self.variable = variable
        self.dtype = variable.declared
        self.rows = rows
        self.shape = shape
        self.span = span
        self.start = span.start
        self.length = variable.draws_per_chunk
        # Types whose every value fits as it is, or overflows with an error of its own.
        self.trusted: frozenset[type] = frozenset()
        if shape == ():
            scalar = variable.declared.type
            plain = {
                "f": (float, int, np.float64),
                "c": (complex, float, int),
                "i": (int,),
                "u": (int,),
            }
            more = {"b": (bool,), "T": (str,)}
            kind = variable.declared.kind
            # A datetime64 says its unit in its dtype, not in its type.
            exact = () if kind in "TmM" else (scalar,)
            self.trusted = frozenset({*plain.get(kind, ()), *more.get(kind, ()), *exact})

    def next_boundary(self, count: int) -> int:
        """The next count at which a chunk of this variable is full."""
        return self.span.place(count, self.length).draws.stop

    def put(self, values: Values, chains: range, draw: int) -> None:
        """Put the value of one draw into its row, if it may go there."""
        value = values[self.name]
        kind = type(value)
        if kind not in self.trusted and not (
            kind is np.ndarray and value.dtype == self.dtype and value.shape == self.shape
        ):
            value = self.check(value, chains, draw)
        try:
            self.rows[(draw - self.start) % self.length] = value
        except OverflowError as error:
            raise self.refuse(f"{error}; widen the dtype", chains, draw) from None
        except UnicodeError as error:
            raise self.refuse(f"{error}; replace it", chains, draw) from None

    def check(self, value: Any, chains: range, draw: int) -> np.ndarray[Any, Any]:
        """The value of one draw as an array that fits."""
        array = self._as_array(value, chains, draw)
        if array.shape != self.shape:
            raise self.refuse(
                f"the value has shape {array.shape}, needed is {self.shape}; "
                f"give an array of that shape",
                chains,
                draw,
            )
        return self._cast(array, chains, draw)

    def check_block(
        self, value: Any, draws: int | None, chains: range, draw: int
    ) -> tuple[np.ndarray[Any, Any], int]:
        """The values of a block as an array with the draws first, and their number."""
        array = self._as_array(value, chains, draw)
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
                f"the block has shape {array.shape}, needed is ({expected})", chains, draw
            )
        array = self._cast(array, chains, draw)
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

    def _as_array(self, value: Any, chains: range, draw: int) -> np.ndarray[Any, Any]:
        try:
            return np.asarray(value)
        except Exception as error:
            raise self.refuse(f"{value!r} is no array ({error})", chains, draw) from error

    def _cast(self, array: np.ndarray[Any, Any], chains: range, draw: int) -> np.ndarray[Any, Any]:
        """The array in the declared dtype, if that loses nothing but floating precision."""
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
                f"loss; convert it first, or declare zarrtrace.Var(dtype=...) so",
                chains,
                draw,
            )
        if declared.kind in "mM":
            return self._cast_time(array, chains, draw)
        return array.astype(declared)

    def _cast_time(
        self, array: np.ndarray[Any, Any], chains: range, draw: int
    ) -> np.ndarray[Any, Any]:
        """A time in the declared unit: 1500 ms are no whole seconds, the year 3000 not in ns."""
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


class PackedRow:
    """Where the numbers go that share the rows of a table: all of one draw by a single call."""

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

    def __init__(self, table: Table, targets: list[Target], journal: Journal) -> None:
        # In the order of the table, which is not that of definition.
        by_label = {target.variable.label: target for target in targets}
        self.targets = [by_label[label] for label in table.columns]
        codes = "".join(_STRUCT_CODES[target.variable.dtype.str[1:]] for target in self.targets)
        self.pack = struct.Struct(f"={codes}").pack_into
        self.pick = itemgetter(*(target.name for target in self.targets))
        # A float for an integer, or a number too large, is refused by `pack`.
        self.trusted = frozenset().union(*(target.trusted for target in self.targets))
        self.buffer = journal.buffer
        self.first = next(iter(table.columns.values()))
        self.stride = table.stride
        self.start = self.targets[0].start
        self.length = self.targets[0].length

    def put(self, values: Values, chains: range, draw: int) -> None:
        """Put the numbers of one draw into their row, if they may go there."""
        numbers = self.pick(values)
        if self.trusted.issuperset(map(type, numbers)):
            place = self.first + (draw - self.start) % self.length * self.stride
            try:
                self.pack(self.buffer, place, *numbers)
            except (struct.error, OverflowError):
                pass
            else:
                return
        for target in self.targets:
            target.put(values, chains, draw)


def share_rows(
    targets: list[Target], shared: Iterable[Table], journal: Journal
) -> list[PackedRow | Target]:
    """The targets of a group, those that share a table as one."""
    rows: list[PackedRow | Target] = []
    alone = {target.variable.label: target for target in targets}
    for table in shared:
        if next(iter(table.columns)) in alone:
            rows.append(PackedRow(table, [alone.pop(label) for label in table.columns], journal))
    return [*rows, *alone.values()]


def _has_exactly(values: object, targets: Iterable[Target]) -> bool:
    """Whether these are values of just these variables."""
    return isinstance(values, Mapping) and values.keys() == {target.name for target in targets}


def _some(array: np.ndarray[Any, Any]) -> str:
    return str(array) if array.size < 10 else f"an array with {array.min()} to {array.max()}"
