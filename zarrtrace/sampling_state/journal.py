"""The buffer of one writer: the rows of the chunk each variable is filling.

In a local directory the buffer is a memory-mapped file, and that file is the writer's chunk of
`_sampling_state/journal`: what is in it survives `kill -9`, and readers see it. Elsewhere it is
plain memory.

A file begins with a header of 64 bytes: 8 bytes of magic, the published count as an int64, the 16
bytes of the machine's boot id, the count at the last msync as an int64, 1 as an int64 when draws
shall survive power loss, the number of the last checkpoint that is in the file, zeros. After power
loss (another boot id) of such a journal the count of the last msync holds. Tables follow in the
order of definition, each at a multiple of 64 bytes. Most variables have one to themselves, shaped
(chains_per_chunk, draws_per_chunk, *shape). The numbers of one group with the same draws_per_chunk
share one, if the writer has a single chain: a row of it is one draw, and is written by one call.
The rows of a chunk are those of its draws below the count; when its last draw is published, the
chunk itself has been written. Strings have no fixed size and stay out of the file: their chunks are
written with every draw.

After the tables come two slots for checkpoints. Checkpoint n goes into slot n % 2, and then its
number into the header: killed anywhere in between, the one before is still there. Where it does not
fit, or must survive power loss, it is a file of its own.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import mmap
import os
import struct
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np

from ..errors import DamagedTraceError, NotWritableError, TraceNotFoundError
from ..layout.layout import IN_STORE, Layout
from ..layout.variables import Variable
from ..store.dtypes import fill_value
from ..store.local import open_regular
from ..store.location import Location
from .journal_format import HEADER, JOURNAL, SLOT_BYTES, Buffered, journal_size, slots, tables

try:
    import fcntl
except ImportError:  # Windows: no flock; buffers stay in memory there.
    fcntl = None  # type: ignore[assignment]

MAGIC = b"zarrtrc1"
_COUNT, _BOOT, _SYNCED, _DURABLE, CHECKPOINT_WORD = 1, 2, 4, 5, 6  # in words of 8 bytes
_SLOT = struct.Struct("<II")  # of a checkpoint: the bytes of its text and their crc32c, before it

Buffer = bytearray | mmap.mmap


def can_map() -> bool:
    """Whether this system can map and lock the journal's file."""
    return fcntl is not None


def journal_directory(location: Location, layout: Layout) -> Path | None:
    """Where the journals of a trace are: in its store, elsewhere on this machine, or nowhere."""
    if layout.journal == IN_STORE:
        return None if location.path is None else location.path / JOURNAL
    return Path(layout.journal) if layout.journal else None


def journal_file(directory: Path, block: int) -> Path:
    """The file of one writer, named as its chunk."""
    return directory / f"c.{block}.0"


class Journal:
    """The rows of one writer, and the number of draws it has published.

    Attributes
    ----------
    path : pathlib.Path or None
        The mapped file, or None when the rows are in memory.
    buffer : mmap or bytearray
        The bytes of it.
    tables : list of Table
        Where in the buffer the rows are.
    """

    def __init__(
        self, layout: Buffered, buffer: Buffer, path: Path | None, descriptor: int | None
    ) -> None:
        self._descriptor = descriptor
        self.path = path
        self._file: tuple[Path, os.stat_result] | None = None
        self.buffer = buffer
        self._header = memoryview(buffer)[:HEADER].cast("q")
        self._layout = layout
        self.tables, _ = tables(layout)

    @property
    def rows(self) -> dict[str, np.ndarray[Any, Any]]:
        """For each `group/variable` the rows of its current chunk, in the shape of the chunk."""
        variables = (variable for variable in self._layout.variables if not variable.is_text)
        return {variable.label: self.rows_of(variable) for variable in variables}

    def rows_of(self, variable: Variable) -> np.ndarray[Any, Any]:
        """The rows of one variable."""
        table = next(table for table in self.tables if variable.label in table.columns)
        shape = self._layout.chunk_shape(variable)
        strides = (shape[1] * table.stride, table.stride) if table.shared else None
        start = table.columns[variable.label]
        return np.ndarray(shape, variable.dtype, self.buffer, start, strides)

    @property
    def count(self) -> int:
        """Draws published: whatever happens to the process, they are there."""
        return self._header[_COUNT]

    @count.setter
    def count(self, value: int) -> None:
        self._header[_COUNT] = value

    def read_checkpoint(self) -> str | None:
        """The text of the last checkpoint, if it is in this file.

        Raises
        ------
        DamagedTraceError
            It is damaged.
        """
        while number := self._header[CHECKPOINT_WORD]:
            start = slots(self._layout)[number % 2]
            length, checksum = _SLOT.unpack_from(self.buffer, start)
            stop = start + min(_SLOT.size + length, SLOT_BYTES)
            text = bytes(self.buffer[start + _SLOT.size : stop])
            if google_crc32c.value(text) == checksum:
                return text.decode()
            # A reader may have been overtaken by the next checkpoint but one.
            if number == self._header[CHECKPOINT_WORD]:
                where = self.path or (self._file and self._file[0])
                raise DamagedTraceError(
                    "the checkpoint in it is damaged (the checksum does not match)",
                    where=str(where),
                    remedy="`zarrtrace repair` drops it",
                )
        return None

    def keep_checkpoint(self, text: str) -> bool:
        """Put a checkpoint in place of the last one, at once; False when it does not fit."""
        data = text.encode()
        if not self.survives or self._layout.durable or _SLOT.size + len(data) > SLOT_BYTES:
            return False
        number = self._header[CHECKPOINT_WORD] + 1
        start = slots(self._layout)[number % 2]
        _SLOT.pack_into(self.buffer, start, len(data), google_crc32c.value(data))
        self.buffer[start + _SLOT.size : start + _SLOT.size + len(data)] = data
        self._header[CHECKPOINT_WORD] = number
        return True

    def drop_checkpoint(self) -> None:
        """Have no checkpoint in this file: there is none, or it is a file of its own."""
        self._header[CHECKPOINT_WORD] = 0

    def make_durable(self) -> None:
        """Return when the published draws survive power loss."""
        if isinstance(self.buffer, mmap.mmap):
            # First the rows, then the count that says how many of them are there.
            count = self.count
            self.buffer.flush()
            self._header[_SYNCED] = count
            self.buffer.flush(0, min(len(self.buffer), mmap.PAGESIZE))

    def __del__(self) -> None:
        self.close()

    @property
    def survives(self) -> bool:
        """Whether the rows outlive the process."""
        return self.path is not None

    @classmethod
    def in_memory(cls, layout: Buffered) -> Journal:
        """Rows in memory, every one with its fill value."""
        journal = cls(layout, bytearray(journal_size(layout)), None, None)
        journal._clear()
        return journal

    @classmethod
    def for_writing(cls, layout: Buffered, path: Path, fill: Callable[[Journal], None]) -> Journal:
        """The mapped rows of a writer, locked for it.

        A new file is given its count and rows by `fill` before any reader can see it.

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
                descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            except FileNotFoundError:
                journal = cls._create(layout, path, size, fill, os.link)
                if journal is None:
                    continue
                _remove_partial_files(path)
                return journal
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                raise
            # The file may have been removed between opening and locking.
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                    break
            os.close(descriptor)
        if os.fstat(descriptor).st_size != size:
            os.close(descriptor)
            raise DamagedTraceError(
                "the journal has another size than the layout says", where=str(path)
            )
        _remove_partial_files(path)
        journal = cls(layout, _map(path, size), path, descriptor)
        with open(path, "rb", buffering=0) as file:
            journal.count = _count_in(file.read(HEADER))
        journal._header[_BOOT : _BOOT + 2] = memoryview(_boot_id()).cast("q")
        return journal

    def replaced(self, layout: Buffered, fill: Callable[[Journal], None]) -> Journal:
        """Other rows and another count in place of these, at once for every reader."""
        if self.path is None:
            journal = Journal.in_memory(layout)
            fill(journal)
            return journal
        size = journal_size(layout)
        created = Journal._create(layout, self.path, size, fill, os.replace)
        assert created is not None
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
    ) -> Journal | None:
        """New mapped rows, filled and locked before they appear; None when another was faster."""
        partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}.partial")
        try:
            descriptor = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        except FileNotFoundError:
            raise TraceNotFoundError(f"{path.parent} is gone: was the trace removed?") from None
        except PermissionError as error:
            raise NotWritableError(
                f"{path.parent}: the journal cannot be written, permission is denied; mend the "
                f"permissions, or create the trace with journal=False"
            ) from error
        try:
            # Reserved in full: a full disk is an error here, and never a SIGBUS while recording.
            _reserve(descriptor, size)
            os.pwrite(descriptor, MAGIC + bytes(8) + _boot_id(), 0)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            journal = cls(layout, _map(partial, size), path, descriptor)
            journal._clear()
            fill(journal)
            journal._header[_DURABLE] = layout.durable
            if layout.durable:
                journal.make_durable()
            try:
                appear(partial, path)
            except (FileExistsError, FileNotFoundError):
                journal.close()
                return None
            return journal
        except OSError as error:
            os.close(descriptor)
            if isinstance(error, FileNotFoundError):
                return None
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise NotWritableError(
                f"{path.parent}: no room for a journal of {size:,} bytes; make room and start the "
                f"chain again, nothing is lost"
            ) from error
        finally:
            partial.unlink(missing_ok=True)

    @classmethod
    def for_reading(cls, layout: Buffered, path: Path) -> Journal | None:
        """The mapped rows of a writer as they are now, or None when it has no journal."""
        try:
            descriptor, size = open_regular(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except PermissionError:
            raise
        except OSError as error:
            raise _unreadable(path, error) from error
        try:
            if size < journal_size(layout):
                return None
            journal = cls(layout, mmap.mmap(descriptor, size, access=mmap.ACCESS_READ), None, None)
            journal._file = path, os.fstat(descriptor)
            return journal
        finally:
            os.close(descriptor)

    def is_current(self) -> bool:
        """Whether what was mapped for reading is still the writer's journal."""
        assert self._file is not None
        path, status = self._file
        try:
            return os.path.samestat(os.stat(path), status)
        except FileNotFoundError:
            return False

    def _clear(self) -> None:
        for rows in self.rows.values():
            # The fill of the others is 0, and the bytes are.
            if rows.dtype.kind in "fcmM":
                rows[...] = fill_value(rows.dtype)

    def remove(self) -> None:
        """Remove the file, while its lock is held; all its draws must be in the chunks."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)

    def close(self) -> None:
        """Release the lock; the rows stay mapped as long as someone holds them."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def read_count(path: Path) -> int | None:
    """The published count in a writer's journal, or None when there is none."""
    try:
        descriptor, _ = open_regular(path)
        try:
            return _count_in(os.read(descriptor, HEADER))
        finally:
            os.close(descriptor)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except PermissionError:
        raise
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> DamagedTraceError:
    return DamagedTraceError(f"the journal cannot be read ({error.strerror})", where=str(path))


def _count_in(header: bytes) -> int:
    """The published count, or the one of the last msync when power was lost since."""
    words = memoryview(header.ljust(HEADER, b"\0")).cast("q")
    if words[_DURABLE] and header[_BOOT * 8 : _BOOT * 8 + 16] != _boot_id():
        return words[_SYNCED]
    return words[_COUNT]


@functools.cache
def _boot_id() -> bytes:
    try:
        return uuid.UUID(Path("/proc/sys/kernel/random/boot_id").read_text().strip()).bytes
    except (OSError, ValueError):
        return bytes(16)


def _remove_partial_files(path: Path) -> None:
    """Remove what killed processes reserved for a journal whose lock this process holds.

    One that another process is filling at this moment may go too: it comes too late.
    """
    for partial in path.parent.glob(f"{path.name}.*.partial"):
        partial.unlink(missing_ok=True)


def _map(path: Path, size: int) -> mmap.mmap:
    # Opened apart from the lock: a mapping keeps a descriptor of its own, and with it the lock.
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        return mmap.mmap(descriptor, size)
    finally:
        os.close(descriptor)


def _reserve(descriptor: int, size: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size)
        return
    zeros = bytes(2**20)
    for start in range(0, size, len(zeros)):
        os.pwrite(descriptor, zeros[: size - start], start)
