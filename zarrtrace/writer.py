"""One writer per chain, or per block of chains: draws in, chunks out.

The order of events keeps the promises. A draw goes into the journal's rows; when it completes a
chunk, that chunk is written; then the count is published. What is published is complete, and what
is not did not happen.
"""

from __future__ import annotations

import difflib
import os
import time
import weakref
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any, Self

import numpy as np

from .chunks import ChunkCodec
from .errors import (
    ChainBusyError,
    ChainFullError,
    DrawError,
    FinishedError,
    NotWritableError,
    TraceError,
)
from .journal import Journal, chain_label
from .layout import STATE, Layout, LayoutFile, variable_key
from .location import Location
from .rows import RowReader, block_value
from .schema import Variable
from .values import Target

FLUSH_EVERY = 10.0  # seconds, where draws would be lost with the process

Values = Mapping[str, Any]


class ChainWriter:
    """Records the draws of one chain, or of one block of chains that are drawn together.

    Made by `Trace.writer`. A context manager: leaving it closes the writer, after an exception
    and Ctrl-C too. In a local directory a draw is safe from `kill -9` once `record()` has
    returned; elsewhere it is once it has been flushed: when its chunk is full and every 10
    seconds. A writer belongs to the process, and at any moment to one thread of it.

    Attributes
    ----------
    chains : range
        The chains this writer records.
    """

    def __init__(self, location: Location, layout_file: LayoutFile, block: int) -> None:
        layout = layout_file.current()
        self.chains = layout.chains_of(block)
        self._where = f"{chain_label(self.chains)} of {location}"
        location.require_writable()
        if layout.finished:
            raise FinishedError(
                f"{location} is finished and takes no more draws; create another trace",
                chain=self.chains[0],
            )
        self._location = location
        self._block = block
        self._closed = False
        self._process = os.getpid()
        self._opened = time.time()
        self._started = block_value(location, "sampling_start_time", block, self._opened)
        self._spent = block_value(location, "sampling_time", block, 0.0)
        self._flushed = time.monotonic()
        self._codecs = {
            name: ChunkCodec(variable.dtype, layout.encoding(variable.dtype))
            for name, variable in ((v.label, v) for v in layout.variables)
        }
        if layout.journal and location.path is not None:
            self._journal = Journal.for_writing(layout, location.path, block, self._fill(layout))
            # A split cannot run while the journal is locked: from here on the layout stands still.
            current = layout_file.current()
            if current is not layout:
                self._journal.close()
                raise TraceError(f"{location} was split or finished just now; open it again")
        else:
            require_no_writer(location, block)
            self._journal = Journal.in_memory(layout)
            self._fill(layout)(self._journal)
        self._layout = layout
        self._text = self._text_rows(layout)
        self._count = self._journal.count
        self._total = layout.total
        # Draws that were there before: resume() says that the sampler knows of them.
        self._acknowledged = self._count == 0
        self._plan_recording()
        _open_writers.add(self)

    # Opening ------------------------------------------------------------------------------

    def _fill(self, layout: Layout) -> Any:
        """What gives a new journal its count and the rows of the chunks that are partly filled."""

        def fill(journal: Journal) -> None:
            count = int(block_value(self._location, "draw_idx", self._block, 0))
            for variable in layout.variables:
                if not variable.is_text:
                    self._load_rows(layout, variable, count, journal.rows[variable.label])
            journal.count = count

        return fill

    def _text_rows(self, layout: Layout) -> dict[str, np.ndarray[Any, Any]]:
        """The rows of strings, whose place is always in memory."""
        rows: dict[str, np.ndarray[Any, Any]] = {}
        for variable in layout.variables:
            if variable.is_text:
                rows[variable.label] = np.full(layout.chunk_shape(variable), "", variable.dtype)
                self._load_rows(layout, variable, self._journal.count, rows[variable.label])
        return rows

    def _load_rows(
        self, layout: Layout, variable: Variable, count: int, rows: np.ndarray[Any, Any]
    ) -> None:
        """Load the rows of the chunk that holds draw `count`, as far as they are recorded."""
        group = layout.groups[variable.group]
        filled = (count - group.stored_warmup) % variable.draws_per_chunk
        if filled:
            reader = RowReader(self._location, layout, group, variable, self._block)
            segment = reader.segments[-1]
            chunk, covered = segment.place(count, variable.draws_per_chunk)
            rows[:, :filled] = reader.chunk(segment, chunk, covered)[:, :filled]

    def _plan_recording(self) -> None:
        """Lay out what `record()` does for each draw, so that it does nothing else."""
        chains = len(self.chains)
        block = self._layout.chains_per_chunk > 1
        self._rows = {**self._journal.rows, **self._text}
        self._targets: dict[str, list[Target]] = {}
        for group in self._layout.groups.values():
            targets = []
            for name, variable in group.variables.items():
                rows = self._rows[variable.label]
                by_draw = np.moveaxis(rows[:chains], 1, 0) if block else rows[0]
                shape = (chains, *variable.shape) if block else variable.shape
                targets.append(Target(name, variable, by_draw, shape, group.stored_warmup))
            self._targets[group.name] = targets
        self._set_boundary()

    def _set_boundary(self) -> None:
        """Find the next count at which some chunk is full, or the chain."""
        self._boundary = min(
            target.next_boundary(self._count)
            for targets in self._targets.values()
            for target in targets
        )
        self._boundary = min(self._boundary, self._total)
        # Below this count record() need not ask whether it may.
        ready = self._acknowledged and not self._closed
        self._stop = self._total if ready else -1

    # Recording ----------------------------------------------------------------------------

    @property
    def recorded(self) -> int:
        """Draws recorded so far, warmup included."""
        return self._count

    def resume(self) -> tuple[int, None]:
        """Go on where this chain stopped.

        Returns
        -------
        draws : int
            How many are recorded, warmup included: the next `record()` adds to them.
        state : None
            Kept for the sampler's state.
        """
        self._require_open()
        self._acknowledged = True
        self._set_boundary()
        return self._count, None

    def record(
        self, posterior: Values | None = None, sample_stats: Values | None = None, **groups: Values
    ) -> None:
        """Record one draw: a value for every variable of every sampled group.

        Parameters
        ----------
        posterior, sample_stats, **groups : mapping of str to value
            Values shaped as their variables; a writer for a block of chains takes a leading
            chain axis as well. Numbers, lists, NumPy arrays, and what has `__array__`.

        Raises
        ------
        DrawError
            A variable is missing or unknown, or a value has another shape or would lose
            something in its dtype. Nothing of the draw is kept and the writer goes on.
        ChainFullError
            The chain has its tune + draws draws.
        """
        count = self._count
        if count >= self._stop:
            self._require_recordable()
        given = self._given(posterior, sample_stats, groups)
        for group, targets in self._targets.items():
            values = given.get(group)
            if values is None or len(values) != len(targets):
                raise self._misnamed(group, values)
            try:
                for target in targets:
                    value = values[target.name]
                    if type(value) not in target.trusted:
                        value = target.check(value, self.chains, count)
                    target.rows[(count - target.offset) % target.length] = value
            except KeyError:
                raise self._misnamed(group, values) from None
            except OverflowError as error:
                raise target.refuse(f"{error}; widen the dtype", self.chains, count) from None
        if len(given) != len(self._targets):
            raise self._misnamed(next(name for name in given if name not in self._targets), {})
        self._advance(count + 1)

    def record_block(
        self, posterior: Values | None = None, sample_stats: Values | None = None, **groups: Values
    ) -> None:
        """Record several draws at once.

        Parameters
        ----------
        posterior, sample_stats, **groups : mapping of str to array
            Values with a leading draw axis, (draws, *shape); for a block of chains with the chain
            axis before it as everywhere in ArviZ, (chains, draws, *shape).

        Raises
        ------
        DrawError, ChainFullError
            As `record()`; nothing of the block is kept.
        """
        given = self._given(posterior, sample_stats, groups)
        if len(given) != len(self._targets) or any(name not in given for name in self._targets):
            wrong = set(given).symmetric_difference(self._targets)
            raise self._misnamed(min(wrong), given.get(min(wrong)))
        draws: int | None = None
        checked: list[tuple[Target, np.ndarray[Any, Any]]] = []
        for group, targets in self._targets.items():
            if {target.name for target in targets} != set(given[group]):
                raise self._misnamed(group, given[group])
            for target in targets:
                value, draws = target.check_block(
                    given[group][target.name], draws, self.chains, self._count
                )
                checked.append((target, value))
        assert draws is not None
        if self._count + draws > self._stop:
            self._require_recordable(draws)
        done = 0
        while done < draws:
            count = self._count
            step = min(draws - done, self._boundary - count)
            for target, value in checked:
                first = (count - target.offset) % target.length
                target.rows[first : first + step] = value[done : done + step]
            done += step
            self._advance(count + step)

    def _given(
        self, posterior: Values | None, sample_stats: Values | None, groups: dict[str, Values]
    ) -> dict[str, Values]:
        if posterior is not None:
            groups["posterior"] = posterior
        if sample_stats is not None:
            groups["sample_stats"] = sample_stats
        return groups

    def _advance(self, count: int) -> None:
        """Publish the draws below `count`, once the chunks they complete are written."""
        if count == self._boundary:
            self._write_chunks(count, complete_only=count < self._total)
        if self._text and self._journal.survives:
            self._write_text(count)
        self._count = count
        if self._journal.survives:
            self._journal.count = count
        elif time.monotonic() - self._flushed > FLUSH_EVERY or count == self._total:
            self.flush()
        if count == self._boundary:
            self._set_boundary()
            if count == self._total:
                self._publish(count)

    # Writing ------------------------------------------------------------------------------

    def flush(self) -> None:
        """Write what is buffered to the store, so that any Zarr reader finds it.

        Not needed for safety in a local directory: there each draw is safe already.
        """
        self._require_open()
        self._write_chunks(self._count, complete_only=False)
        self._publish(self._count)

    def close(self) -> None:
        """Flush and end the writer; closing it again does nothing."""
        if self._closed:
            return
        try:
            self.flush()
        finally:
            self.release()

    def release(self) -> None:
        """End the writer without flushing; what the journal holds stays there."""
        self._closed = True
        self._stop = -1
        self._journal.close()
        _open_writers.discard(self)

    def _write_chunks(self, count: int, *, complete_only: bool) -> None:
        """Write the chunks that `count` completes, or also those it has partly filled."""
        items = []
        for targets in self._targets.values():
            for target in targets:
                filled = (count - target.offset) % target.length
                if count > target.offset and (filled == 0 or not complete_only):
                    items.append((target.variable, count - 1, filled or target.length))
        self._location.write_many(self._encoded(items))

    def _write_text(self, count: int) -> None:
        """Write the partly filled chunks of the strings: they have no rows in the journal."""
        items = []
        for targets in self._targets.values():
            for target in targets:
                filled = (count - target.offset) % target.length
                if target.variable.is_text and filled:
                    items.append((target.variable, count - 1, filled))
        self._location.write_many(self._encoded(items))

    def _encoded(self, items: Iterable[tuple[Variable, int, int]]) -> Iterable[tuple[str, bytes]]:
        for variable, draw, filled in items:
            group = self._layout.groups[variable.group]
            rows = self._rows[variable.label]
            codec = self._codecs[variable.label]
            if filled < variable.draws_per_chunk:
                rows = rows.copy()
                rows[:, filled:] = codec.fill
            chunk = (draw - group.stored_warmup) // variable.draws_per_chunk
            path = f"{variable.group}/{variable.name}"
            yield variable_key(path, variable, self._block, chunk), codec.encode(rows)

    def _publish(self, count: int) -> None:
        """Put the count and the times where plain Zarr readers find them."""
        now = time.time()
        self._flushed = time.monotonic()
        self._spent += now - self._opened
        self._opened = now
        for name, value in (
            ("sampling_start_time", np.float64(self._started)),
            ("sampling_time", np.float64(self._spent)),
            ("draw_idx", np.int64(count)),
        ):
            values = np.full(self._layout.chains_per_chunk, value)
            self._location.write(f"{STATE}/{name}/c.{self._block}", values.tobytes())

    # Refusing -----------------------------------------------------------------------------

    def _require_open(self) -> None:
        if os.getpid() != self._process:
            raise NotWritableError(
                f"{self._where}: this writer belongs to the parent process {self._process}; "
                f"open another chain here with trace.writer(...)",
                chain=self.chains[0],
            )
        if self._closed:
            raise NotWritableError(
                f"{self._where}: this writer is closed; ask the trace for another",
                chain=self.chains[0],
            )

    def _require_recordable(self, draws: int = 1) -> None:
        self._require_open()
        if not self._acknowledged:
            raise NotWritableError(
                f"{self._where}: {self._count} draws are there from before; call "
                f"writer.resume() and go on after them, or create the trace anew",
                chain=self.chains[0],
                draw=self._count,
            )
        if self._count + draws > self._total:
            left = self._total - self._count
            raise ChainFullError(
                f"{self._where}: {draws} more draw{'s' * (draws > 1)} after {self._count}, but "
                f"tune + draws is {self._total}; record {left} at most, or create the trace with "
                f"more draws",
                chain=self.chains[0],
                draw=self._total,
            )

    def _misnamed(self, group: str, values: Values | None) -> DrawError:
        where = f"{group}, {chain_label(self.chains)}, draw {self._count}"
        at: dict[str, Any] = {"group": group, "chain": self.chains[0], "draw": self._count}
        if group not in self._targets:
            return DrawError(
                f"{where}: the trace has no sampled group {group!r}; "
                f"it has {', '.join(self._targets)}",
                **at,
            )
        names = [target.name for target in self._targets[group]]
        if not isinstance(values, Mapping):
            return DrawError(f"{where}: give a mapping with the values of {', '.join(names)}", **at)
        missing = [name for name in names if name not in values]
        unknown = [name for name in values if name not in names]
        if unknown:
            close = difflib.get_close_matches(str(unknown[0]), names, 1)
            hint = f"did you mean {close[0]!r}?" if close else f"it has {', '.join(names)}"
            message = f"{where}: the group has no variable {unknown[0]!r}; {hint}"
        else:
            message = f"{where}: no value for {', '.join(map(repr, missing))}; give one each draw"
        return DrawError(message, variable=(unknown or missing)[0], **at)

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
        state = "closed" if self._closed else f"{self._count} of {self._total} draws"
        return f"<zarrtrace.ChainWriter {self._where}: {state}>"

    def __reduce__(self) -> Any:
        raise TypeError(
            "a writer stays in the process that opened it; send the Trace, and call "
            "trace.writer(chain) there"
        )


def require_no_writer(location: Location, block: int | None = None) -> None:
    """Refuse when this process has an open writer, where there is no lock that would tell."""
    for writer in list(_open_writers):
        same = writer._location.store == location.store
        if same and block in (None, writer._block) and not writer._journal.survives:
            raise ChainBusyError(
                f"{writer._where}: another writer is recording; a chain has one writer at a time: "
                f"close() that one first",
                chain=writer.chains[0],
            )


_open_writers: weakref.WeakSet[ChainWriter] = weakref.WeakSet()


def _release_in_child() -> None:
    # The chain goes on belonging to the parent.
    for writer in list(_open_writers):
        writer.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_release_in_child)
