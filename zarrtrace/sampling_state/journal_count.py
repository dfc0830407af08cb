"""Read the count of a journal, and whether it was written elsewhere, without mapping it."""

from __future__ import annotations

import os
from pathlib import Path

from ..store.local import open_regular, read_first, read_twice, unreadable
from .journal import Journal
from .journal_format import Buffered, header_size
from .journal_header import COUNT, KEEPS_ORDER, MAGIC, Home, count_in, is_written_here, series_in


def read_count(layout: Buffered, path: Path, home: Home | None = None) -> int | None:
    """The count in a writer's journal, or the proven one elsewhere; None without a journal."""
    found = read_count_and_series(layout, path, home)
    return None if found is None else found[0]


def read_count_and_series(
    layout: Buffered, path: Path, home: Home | None = None
) -> tuple[int, bytes] | None:
    """The same count, and the series of the journal that has it."""
    found = _read_header(layout, path)
    if found is None:
        return None
    header, status = found
    if not layout.sealed:
        return count_in(header), b""
    known = header[:8] == MAGIC[True] and is_written_here(header, status, home)
    if known and KEEPS_ORDER:
        count = int.from_bytes(header[COUNT * 8 : COUNT * 8 + 8], "little", signed=True)
        return count, series_in(header)
    journal = Journal.for_reading(layout, path, home)
    return None if journal is None else (journal.count, journal.series)


def is_sealed(path: Path) -> bool:
    """Whether the rows in a journal have seals: in earlier versions they do not."""
    try:
        return read_first(str(path), 8) != MAGIC[False]
    except OSError as error:
        raise unreadable("the journal", str(path), error) from error


def is_elsewhere(layout: Buffered, path: Path, home: Home | None = None) -> bool:
    """Whether there is a journal, and it was written elsewhere."""
    found = _read_header(layout, path) if layout.sealed else None
    return found is not None and not is_written_here(*found, home)


def _read_header(layout: Buffered, path: Path) -> tuple[bytes, os.stat_result] | None:
    """The header and the status of a journal's file; None when there is none."""

    def read() -> tuple[bytes, os.stat_result]:
        descriptor, _ = open_regular(path)
        try:
            return os.read(descriptor, header_size(layout)), os.fstat(descriptor)
        finally:
            os.close(descriptor)

    try:
        return read_twice(read)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except PermissionError:
        raise
    except OSError as error:
        raise unreadable("the journal", str(path), error) from error
