"""The header of a journal: where it was written, its count, and who may trust it."""

from __future__ import annotations

import functools
import os
import platform
import struct
import uuid
from pathlib import Path
from typing import Protocol

from .chunk_seals import ChunkSeals
from .proof import Chunks

MAGIC = {False: b"zarrtrc1", True: b"zarrtrc3"}  # by whether the rows have seals
# In words of 8 bytes. Without seals the count of the last sync holds after power loss, if the draws
# are to survive it; with seals the rows prove it, and the header has the file and the directory.
COUNT, BOOT, SYNCED, DURABLE, CHECKPOINT_WORD, FILE, SERIES, BACK = 1, 2, 4, 5, 6, 8, 12, 14
SEALS = 15  # whether it has seals of chunks; a journal of an older version has none
# The bytes with the boot id of the machine that wrote a journal, or a chunk of last rows.
JOURNAL_BOOT, FLUSHED_BOOT = slice(16, 32), slice(24, 40)
_IDENTITY = struct.Struct("<4Q")
_DIRECTORY = struct.Struct("<2Q")
_NOWHERE = bytes(16)  # on a machine without a boot id
NOWHERE = "?"  # what `whereabouts` returns there

# On other processors another process may see a count before the rows that it counts.
KEEPS_ORDER = platform.machine() in ("x86_64", "AMD64", "i386", "i686")


class Home(Chunks, Protocol):
    """The block of chains that a journal belongs to."""

    @property
    def directory(self) -> Path | None:
        """The directory of the trace; None where it is in another store."""

    @property
    def has_checkpoint_apart(self) -> bool:
        """Whether there is a checkpoint in a file of its own."""

    def sealed_draws(self, seals: ChunkSeals, draws: range, count: int) -> int:
        """How many draws there are up to the first chunk that is not the one its seal says.

        Parameters
        ----------
        draws : range
            The draws whose chunks are compared.
        count : int
            The count in the journal of these seals.
        """


def count_in(header: bytes) -> int:
    """The count in a header without seals, or that of the last sync if power was lost since."""
    words = memoryview(header.ljust(64, b"\0")).cast("q")
    if words[DURABLE] and header[BOOT * 8 : BOOT * 8 + 16] != boot_id():
        return words[SYNCED]
    return words[COUNT]


def series_in(header: bytes) -> bytes:
    """The bytes that every new journal has of its own; zeros in a journal of an older version."""
    return header[SERIES * 8 : SERIES * 8 + 16]


def home_of(directory: Path | None) -> bytes:
    """An identity of a directory since this machine started: 32 bytes, zeros without one."""
    if directory is None or boot_id() == _NOWHERE:
        return bytes(32)
    status = os.stat(directory)
    return boot_id() + _DIRECTORY.pack(status.st_dev % 2**64, status.st_ino % 2**64)


def is_written_here(header: bytes, file: os.stat_result, home: Home | None) -> bool:
    """Whether a file is the one for which its header was written, since this machine started."""
    boot = header[BOOT * 8 : BOOT * 8 + 16]
    identity = header[FILE * 8 : FILE * 8 + _IDENTITY.size]
    return boot == boot_id() != _NOWHERE and identity == identity_of(file, home)


def identity_of(file: os.stat_result, home: Home | None) -> bytes:
    """An identity that differs for copies of a file, and for links to it in another trace."""
    directory = None if home is None else home.directory
    above = None if directory is None else os.stat(directory)
    numbers = (file.st_dev, file.st_ino, *((above.st_dev, above.st_ino) if above else (0, 0)))
    return _IDENTITY.pack(*(number % 2**64 for number in numbers))


@functools.cache
def boot_id() -> bytes:
    """The boot id of this machine, which changes each time it starts."""
    try:
        return uuid.UUID(Path("/proc/sys/kernel/random/boot_id").read_text().strip()).bytes
    except (OSError, ValueError):
        return _NOWHERE


def whereabouts(directory: Path) -> str:
    """A text for where a directory is, and since when; NOWHERE on a machine without a boot id.

    The text differs on another machine, after a restart of this one, and for a copy.
    """
    if boot_id() == _NOWHERE:
        return NOWHERE
    status = os.stat(directory)
    return f"{boot_id().hex()} {status.st_dev} {status.st_ino}"
