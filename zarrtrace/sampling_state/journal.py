"""The buffer of one writer: the rows of the chunk each variable is filling.

In a local directory the buffer is a memory-mapped file, and that file is the writer's chunk of
`_sampling_state/journal`: its content survives `kill -9`, and readers see it. Elsewhere it is
plain memory.

A file begins with a header, whose words are named below; `journal_format` says where the rows are.
The rows of a chunk are those of its draws below the count; when its last draw is published, the
chunk itself has been written. Strings have no fixed size and are not in the file: their chunks are
written with every draw.

The header says where it was written: the boot of the machine, the file itself, and the directory of
the trace. A process in that place trusts the count, on processors that keep the order
of their writes. Any other process reads the file into memory, and takes as the count what rows and
chunks prove (see `proof`).

Two slots for checkpoints follow the tables. Checkpoint n goes into slot n % 2, and then its
number into the header: after a kill in between, the previous one is still valid. Where it does not
fit, or must survive power loss, it is a file of its own.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import struct
import uuid
from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import google_crc32c
import numpy as np

from ..errors import DamagedTraceError, NotWritableError, TraceError, TraceNotFoundError
from ..layout.variables import Variable
from ..store.dtypes import fill_value
from ..store.failures import refused
from ..store.local import link_or_move, open_regular, read_twice, unreadable
from . import journal_header
from .chunk_seals import ChunkSeals
from .journal_file import lock, map_file, read_whole, remove_partial_files, reserve
from .journal_format import (
    SEALS_BYTES,
    SLOT_BYTES,
    Buffered,
    has_rows,
    header_size,
    is_packed,
    journal_size,
    row_layouts,
    seal_areas,
    slots,
    tables,
)
from .journal_header import (
    BACK,
    BOOT,
    CHECKPOINT_WORD,
    COUNT,
    DURABLE,
    FILE,
    KEEPS_ORDER,
    MAGIC,
    SEALS,
    SERIES,
    SYNCED,
    Home,
    count_in,
    identity_of,
    is_written_here,
    series_in,
)
from .proof import Seal, break_seals, proven_count, seal_rows
from .state_text import read_checkpoint

_SLOT = struct.Struct("<II")  # before the text of a checkpoint: its length and crc32c

Buffer = bytearray | mmap.mmap


class Journal:
    """The rows of one writer, and the number of draws it has published.

    Attributes
    ----------
    path : pathlib.Path or None
        The mapped file, or None when the rows are in memory.
    locked : bool
        Whether no other process of this machine can open the file for writing.
    buffer : mmap or bytearray
        Its bytes.
    row_layouts : dict of str to RowLayout
        Where in the buffer the rows of each variable are, by `group/variable`.
    is_elsewhere : bool
        Whether it was written elsewhere, so that the count has to be proven.
    """

    def __init__(
        self,
        layout: Buffered,
        buffer: Buffer,
        path: Path | None,
        file: BinaryIO | None,
        home: Home | None = None,
    ) -> None:
        # The lock is on this file. An interrupt cannot leave a file object open for ever.
        self._locked_file = file
        self._home = home
        self.path = path
        self.locked = file is not None
        self._file: tuple[Path, os.stat_result] | None = None
        self.buffer = buffer
        self._header = memoryview(buffer)[: header_size(layout)].cast("q")
        self._layout = layout
        self.row_layouts, _ = row_layouts(layout)
        self.is_elsewhere = False
        self._sealed = 0  # rows of draws before this one have seals, in memory

    @property
    def rows(self) -> dict[str, np.ndarray[Any, Any]]:
        """For each `group/variable` the rows of its current chunk, in the shape of the chunk."""
        layout = self._layout
        variables = (variable for variable in layout.variables if has_rows(layout, variable))
        return {variable.label: self.rows_of(variable) for variable in variables}

    def rows_of(self, variable: Variable) -> np.ndarray[Any, Any]:
        """The rows of one variable."""
        row_layout = self.row_layouts[variable.label]
        shape = self._layout.chunk_shape(variable)
        stride = row_layout.stride
        # A row with a seal is one draw of all chains.
        next_chain = variable.bytes_per_draw if self._layout.sealed else shape[1] * stride
        inside = np.empty(variable.shape, variable.dtype).strides
        start = row_layout.columns[variable.label]
        strides = (next_chain, stride, *inside)
        return np.ndarray(shape, variable.dtype, self.buffer, start, strides)

    @property
    def counter(self) -> memoryview:
        """The published count as the first of its items: one assignment publishes draws."""
        return self._header[COUNT : COUNT + 1]

    @property
    def count(self) -> int:
        """Draws published: they survive whatever happens to the process."""
        return self._header[COUNT]

    @count.setter
    def count(self, value: int) -> None:
        self._header[COUNT] = value

    @property
    def series(self) -> bytes:
        """An identity that another journal of the same chains does not have."""
        return series_in(bytes(self.buffer[: header_size(self._layout)]))

    @property
    def went_back_to(self) -> int | None:
        """The first draw that may have other values than in an earlier journal; None for none."""
        return self._header[BACK] - 1 if self._layout.sealed and self._header[BACK] else None

    def go_back(self, earlier: Journal, draws: int) -> None:
        """Say that draws from this one on are not those of the journal that this one replaces."""
        if self._layout.sealed:
            self._header[BACK] = earlier._header[BACK]
            self._differ_from(draws)
        if self.chunk_seals and earlier.chunk_seals:
            self.chunk_seals.take(earlier.chunk_seals)
            self.chunk_seals.remove(range(draws, earlier.count))

    def _differ_from(self, draws: int) -> None:
        before = self.went_back_to
        self._header[BACK] = 1 + (draws if before is None else min(before, draws))

    @cached_property
    def chunk_seals(self) -> ChunkSeals | None:
        """The seals of the chunks that were filled last; None in a journal of an older version."""
        has_them = self._layout.sealed and self._header[SEALS]
        return ChunkSeals(self._layout, self.buffer) if has_them else None

    def is_packed(self, variable: Variable) -> bool:
        """Whether a variable shares its rows with others, so that one call writes them."""
        return is_packed(self._layout, variable)

    def seals(self, count: int) -> list[Seal]:
        """The objects that seal the rows from the count to the end of their arrays."""
        if not (self._layout.sealed and self.survives):
            return []
        return [Seal(row_layout, self.buffer, count) for row_layout in tables(self._layout)]

    def seal_rows(self, count: int) -> None:
        """Seal the rows of the draws below the count that are in chunks being filled."""
        if self._layout.sealed and self.survives:
            seal_rows(self._layout, self.buffer, count)

    def seal_new_rows(self) -> None:
        """Seal the rows of published draws in memory, where `record()` does not seal them."""
        if not self.survives:
            seal_rows(self._layout, self.buffer, self.count, self._sealed)
            self._sealed = self.count

    def take_rows(self, other: Journal) -> None:
        """Continue with rows, count and checkpoint of another journal of the same layout."""
        first, last = header_size(self._layout), slots(self._layout)[0]
        self.buffer[first:last] = other.buffer[first:last]
        break_seals(self._layout, self.buffer, other.count)
        self.count = self._sealed = other.count
        self.is_elsewhere = other.is_elsewhere
        if self.chunk_seals and other.chunk_seals:
            self.chunk_seals.take(other.chunk_seals)
        if not self.survives:
            self._header[BACK] = other._header[BACK]
            if not other.is_elsewhere:
                self._header[SERIES : SERIES + 2] = other._header[SERIES : SERIES + 2]

    def history(self) -> list[bytes]:
        """From which draw on it differs from earlier ones, and its seals of chunks, for a flush."""
        if self.chunk_seals is None:
            return []
        back = bytes(self._header[BACK : BACK + 1])
        areas = [bytes(self.buffer[at : at + SEALS_BYTES]) for at in seal_areas(self._layout)]
        return [back, *areas]

    def take_history(self, series: bytes, history: bytes) -> None:
        """Take the series of flushed rows, and what `history` gave; older versions gave nothing."""
        self._header[SERIES : SERIES + 2] = memoryview(series).cast("q")
        if len(history) < 8 + 2 * SEALS_BYTES:
            return
        self._header[BACK] = memoryview(history[:8]).cast("q")[0]
        for number, at in enumerate(seal_areas(self._layout)):
            begin = 8 + number * SEALS_BYTES
            self.buffer[at : at + SEALS_BYTES] = history[begin : begin + SEALS_BYTES]

    def read_checkpoint(self) -> str | None:
        """The text of the last checkpoint, if it is in this file.

        Raises
        ------
        DamagedTraceError
            It is damaged.
        """
        while number := self._header[CHECKPOINT_WORD]:
            text = self._slot_text(number)
            if text is not None:
                return text
            # Two more checkpoints may have been written while this one was read.
            if number == self._header[CHECKPOINT_WORD]:
                where = self.path or (self._file and self._file[0])
                raise DamagedTraceError(
                    "the checkpoint in it is damaged (its checksum does not match)",
                    where=str(where),
                    remedy="`zarrtrace repair` drops it",
                )
        return None

    def _slot_text(self, number: int) -> str | None:
        """The text in the slot of a checkpoint; None when it is damaged, or being replaced."""
        start = slots(self._layout)[number % 2]
        length, checksum = _SLOT.unpack_from(self.buffer, start)
        stop = start + min(_SLOT.size + length, SLOT_BYTES)
        text = bytes(self.buffer[start + _SLOT.size : stop])
        return text.decode() if google_crc32c.value(text) == checksum else None

    def keep_checkpoint(self, text: str) -> bool:
        """Replace the last checkpoint, atomically; False when the new one does not fit."""
        data = text.encode()
        room = SLOT_BYTES - (SEALS_BYTES if self.chunk_seals else 0)
        if not self._may_have_checkpoint or _SLOT.size + len(data) > room:
            return False
        number = self._header[CHECKPOINT_WORD] + 1
        start = slots(self._layout)[number % 2]
        _SLOT.pack_into(self.buffer, start, len(data), google_crc32c.value(data))
        self.buffer[start + _SLOT.size : start + _SLOT.size + len(data)] = data
        self._header[CHECKPOINT_WORD] = number
        return True

    @property
    def _may_have_checkpoint(self) -> bool:
        # One in memory is flushed with the rows.
        return not self._layout.durable if self.survives else self._layout.sealed

    def drop_checkpoint(self) -> None:
        """Remove the checkpoint from this file: there is none, or it has a file of its own."""
        self._header[CHECKPOINT_WORD] = 0

    def make_durable(self) -> None:
        """Wait until the published draws survive power loss."""
        if isinstance(self.buffer, mmap.mmap):
            # Sync the rows first, then their number, if the rows have no seals.
            count = self.count
            self.buffer.flush()
            if not self._layout.sealed:
                self._header[SYNCED] = count
                self.buffer.flush(0, min(len(self.buffer), mmap.PAGESIZE))

    def __del__(self) -> None:
        self.close()

    @property
    def survives(self) -> bool:
        """Whether the rows survive the process."""
        return self.path is not None

    @classmethod
    def in_memory(cls, layout: Buffered) -> Journal:
        """A journal in memory, with fill values in all rows."""
        journal = cls(layout, bytearray(journal_size(layout)), None, None)
        journal._clear()
        if layout.sealed:
            journal._begin_series()
        return journal

    @classmethod
    def for_writing(
        cls,
        layout: Buffered,
        path: Path,
        fill: Callable[[Journal], None],
        home: Home | None = None,
    ) -> Journal:
        """The mapped journal of a writer, locked.

        `fill` writes the count and rows of a new file before any reader can see it. A file that was
        written elsewhere gets the count that is proven here, and then belongs to this machine.

        Raises
        ------
        BlockingIOError
            Another writer, in this process or another, holds the lock.
        NotWritableError
            There is no room for the file.
        """
        size = journal_size(layout)
        while True:
            try:
                file = open(path, "r+b", buffering=0)  # noqa: SIM115 - as long as the journal is
            except FileNotFoundError:
                journal = cls._create(layout, path, size, fill, link_or_move, home)
                if journal is None:
                    continue
                remove_partial_files(path)
                return journal
            try:
                locked = lock(file, path)
                # The file may have been removed between opening and locking.
                with contextlib.suppress(FileNotFoundError):
                    if os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
                        break
            except BaseException:
                file.close()
                raise
            file.close()
        try:
            if os.fstat(file.fileno()).st_size != size:
                raise DamagedTraceError(
                    "the journal has another size than the layout says", where=str(path)
                )
            journal = cls(layout, map_file(path, size), path, file, home)
            remove_partial_files(path)
            journal.locked = locked
            journal._take_over(fill)
        except BaseException:
            file.close()
            raise
        return journal

    def _take_over(self, fill: Callable[[Journal], None]) -> None:
        """Continue with the rows of an earlier writer."""
        assert self.path is not None
        header = bytes(self.buffer[: header_size(self._layout)])
        if not self._layout.sealed:
            self.count = count_in(header)
            self._header[BOOT : BOOT + 2] = memoryview(journal_header.boot_id()).cast("q")
            return
        if header[:8] != MAGIC[True]:
            # Power was lost before any of its bytes had reached the disk.
            self._clear()
            fill(self)
        elif not self._is_at_home(header):
            self.is_elsewhere = True
            before = self.count
            self._settle_for_what_is_proven()
            if self.count < before:
                self._begin_series()
        break_seals(self._layout, self.buffer, self.count)
        self._mark()

    def _settle_for_what_is_proven(self) -> None:
        """Set the count that rows and chunks prove, and drop a checkpoint of later draws."""
        if self._home is not None:
            texts = [self._slot_text(number) for number in (1, 2)]
            self.settle_for_what_is_proven(
                self._home, texts if self._header[CHECKPOINT_WORD] else []
            )
        self._header[CHECKPOINT_WORD] = self._best_slot()

    def settle_for_what_is_proven(self, home: Home, checkpoints: Iterable[str | None]) -> None:
        """Set the count that rows and chunks prove.

        Parameters
        ----------
        checkpoints : iterable of str or None
            The texts of the last checkpoints that are not in files of their own.
        """
        count, seals = self.count, self.chunk_seals
        first = self._first_uncertain_draw(home, checkpoints)
        proven, sealed = -1, count
        while proven != sealed:
            proven = sealed = proven_count(self._layout, self.buffer, sealed, home)
            if seals is not None and first is not None:
                sealed = home.sealed_draws(seals, range(first, proven), count)
        self.count = proven
        if proven < count and seals is not None:
            seals.remove(range(proven, count))
            self._differ_from(proven)

    def _first_uncertain_draw(self, home: Home, checkpoints: Iterable[str | None]) -> int | None:
        """The first draw that the chain may have drawn more than once; None where it has not.

        It never goes back behind a checkpoint that it had.
        """
        found = [] if self.went_back_to is None else [self.went_back_to]
        for text in filter(None, checkpoints):
            with contextlib.suppress(ValueError):
                found.append(read_checkpoint(text).draws)
        if home.has_checkpoint_apart:
            found.append(0)
        return min(found, default=None)

    def _best_slot(self) -> int:
        """The number of the checkpoint to go back to, of the two that may be in the slots."""
        best, latest = 0, -1
        for number in (1, 2):
            text = self._slot_text(number)
            with contextlib.suppress(ValueError):
                draws = -1 if text is None else read_checkpoint(text).draws
                if latest < draws <= self.count:
                    best, latest = number, draws
        return best

    def _is_at_home(self, header: bytes) -> bool:
        """Whether this process is where the header says that it was written."""
        file = self._locked_file
        assert file is not None
        return is_written_here(header, os.fstat(file.fileno()), self._home)

    def _begin_series(self) -> None:
        self._header[SERIES : SERIES + 2] = memoryview(uuid.uuid4().bytes).cast("q")

    def _mark(self) -> None:
        """Store in the header where it is written."""
        assert self._locked_file is not None
        identity = identity_of(os.fstat(self._locked_file.fileno()), self._home)
        self._header[FILE : FILE + 4] = memoryview(identity).cast("q")
        self._header[BOOT : BOOT + 2] = memoryview(journal_header.boot_id()).cast("q")
        self._header[0:1] = memoryview(MAGIC[True]).cast("q")

    def replaced(self, layout: Buffered, fill: Callable[[Journal], None]) -> Journal:
        """Replace the rows and the count, atomically for every reader."""
        if self.path is None:
            journal = Journal.in_memory(layout)
            fill(journal)
            return journal
        size = journal_size(layout)
        created = Journal._create(layout, self.path, size, fill, os.replace, self._home)
        assert created is not None
        created.locked = created.locked and self.locked
        self.close()
        return created

    @classmethod
    def _create(
        cls,
        layout: Buffered,
        path: Path,
        size: int,
        fill: Callable[[Journal], None],
        appear: Callable[[Path, Path], None],
        home: Home | None,
    ) -> Journal | None:
        """A new mapped journal, filled and locked before it appears; None if another was faster."""
        partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}.partial")
        try:
            file = open(partial, "x+b", buffering=0)  # noqa: SIM115 - as long as the journal is
        except FileNotFoundError:
            raise TraceNotFoundError(f"{path.parent} is gone: was the trace removed?") from None
        except PermissionError as error:
            raise NotWritableError(
                f"{path.parent}: the journal cannot be written: permission is denied; fix the "
                f"permissions, or create the trace with journal=False"
            ) from error
        try:
            # Reserved in full: a full disk is an error here, and never a SIGBUS while recording.
            reserve(file.fileno(), size)
            begin = MAGIC[layout.sealed] + bytes(8) + journal_header.boot_id()
            os.pwrite(file.fileno(), begin, 0)
            locked = lock(file, path)
            journal = cls(layout, map_file(partial, size), path, file, home)
            journal.locked = locked
            journal._clear()
            fill(journal)
            if layout.sealed:
                journal._begin_series()
                journal._mark()
            else:
                journal._header[DURABLE] = layout.durable
            if layout.durable:
                journal.make_durable()
            appear(partial, path)
            return journal
        except BaseException as error:
            file.close()
            if isinstance(error, FileExistsError | FileNotFoundError):
                return None
            if not isinstance(error, OSError) or error.errno not in (errno.ENOSPC, errno.EDQUOT):
                if isinstance(error, OSError) and error.filename is None:
                    error.filename = os.fspath(path)
                raise
            raise NotWritableError(
                f"{path.parent}: no space for a journal of {size:,} bytes; free some and start the "
                f"chain again; nothing is lost"
            ) from error
        finally:
            partial.unlink(missing_ok=True)

    @classmethod
    def for_reading(cls, layout: Buffered, path: Path, home: Home | None = None) -> Journal | None:
        """The journal of a writer as it is now, or None when it has none.

        It is mapped where it was written. Elsewhere it is a copy, with as many draws as
        are proven.
        """
        try:
            return read_twice(lambda: cls._read(layout, path, home))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (TraceError, PermissionError):
            raise
        except OSError as error:
            raise unreadable("the journal", str(path), error) from error

    @classmethod
    def _read(cls, layout: Buffered, path: Path, home: Home | None) -> Journal | None:
        descriptor, size = open_regular(path)
        try:
            header = os.pread(descriptor, header_size(layout), 0)
            if size < journal_size(layout) or (layout.sealed and header[:8] != MAGIC[True]):
                return None
            status = os.fstat(descriptor)
            here = not layout.sealed or is_written_here(header, status, home)
            buffer: Buffer
            if here and (KEEPS_ORDER or not layout.sealed):
                buffer = mmap.mmap(descriptor, size, access=mmap.ACCESS_READ)
                journal = cls(layout, buffer, None, None, home)
            else:
                buffer = read_whole(descriptor, size)
                journal = cls(layout, buffer, None, None, home)
                journal._settle_for_what_is_proven()
            journal._file = path, status
            journal.is_elsewhere = not here
            return journal
        finally:
            os.close(descriptor)

    def is_current(self) -> bool:
        """Whether the file that was mapped for reading is still the writer's journal."""
        assert self._file is not None
        path, status = self._file
        try:
            return os.path.samestat(os.stat(path), status)
        except FileNotFoundError:
            return False

    def _clear(self) -> None:
        if self._layout.sealed:
            self._header[SEALS] = 1
        for rows in self.rows.values():
            # The fill value of the others is 0, and so are the bytes.
            if rows.dtype.kind in "fcmM":
                rows[...] = fill_value(rows.dtype)

    @property
    def is_in_place(self) -> bool:
        """Whether the locked file is still the one under its name, so that the lock means it."""
        if self._locked_file is None or self.path is None or not self.locked:
            return False
        try:
            return os.path.samestat(os.fstat(self._locked_file.fileno()), os.stat(self.path))
        except FileNotFoundError:
            # The trace was removed: the store says so.
            return True
        except OSError as error:
            what = "it cannot be seen whether this is still the journal of its chains"
            raise refused(self.path, what, error) from error

    @property
    def is_displaced(self) -> bool:
        """Whether another writer has put its own file in place of the locked one."""
        return self.locked and not self.is_in_place

    def remove(self) -> None:
        """Remove the file, while its lock is held; all its draws must be in the chunks."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)

    def close(self) -> None:
        """Release the lock; the rows stay mapped as long as they are referenced."""
        if self._locked_file is not None:
            self._locked_file.close()
            self._locked_file = None
