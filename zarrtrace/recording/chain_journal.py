"""The journal that a writer of chains starts with: an earlier writer's, or a new one.

A new one gets the rows of the chunks that are partly filled, so that the writer fills them up.
"""

from __future__ import annotations

import os
import shutil
import uuid
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ChainBusyError, DamagedTraceError, NotWritableError
from ..layout.hierarchy import Hierarchy
from ..layout.layout import IN_STORE
from ..layout.spans import span_of, spans, written_spans
from ..layout.variables import Variable
from ..messages import warn_caller
from ..reading.rows import RowReader
from ..sampling_state.block import ChainBlock
from ..sampling_state.flushed import read_last_rows
from ..sampling_state.journal import Journal
from ..sampling_state.journal_file import NoMappingError, is_locked
from ..sampling_state.journal_format import has_rows
from ..sampling_state.last_checkpoint import draws_of, latest
from ..store.zarr_json import chunk_name
from .open_chunks import OpenChunks


def open_journal(hierarchy: Hierarchy, block: ChainBlock, force: bool) -> Journal:
    """Open the journal of a block that no living writer records, and lock it where there are locks.

    Parameters
    ----------
    force : bool
        Whether to replace a writer that this process cannot see.

    Raises
    ------
    ChainBusyError
        Another writer records these chains.
    NotWritableError
        The draws in an earlier journal cannot be taken over here.
    """
    fill = partial(_fill, hierarchy, block)
    path = block.journal_path
    if path is None or not _has_directory(block, path):
        return _open_memory(hierarchy, block, force)
    is_elsewhere = block.may_be_elsewhere(block.claim)
    if block.journal_file is None:
        if is_locked(path):
            # Another process has just made it.
            raise block.busy(block.claim)
        path.unlink(missing_ok=True)
    else:
        _leave_lock_of_stopped(block, path)
    try:
        journal = Journal.for_writing(block.layout, path, fill, block)
    except BlockingIOError:
        raise block.busy(block.claim) from None
    except NoMappingError:
        if path.exists():
            raise NotWritableError(
                f"{path}: the draws in this journal cannot be continued here, because files "
                f"cannot be mapped; open the trace with mode='a' on its original disk, and "
                f"flush or finish it there",
                chain=block.chains[0],
            ) from None
        return _open_memory(hierarchy, block, force)
    try:
        block.require_unclaimed(has_lock=journal.locked, force=force)
        claim = block.claim
        if claim is not None:
            _remove_partial_files(block)
            if is_elsewhere:
                said = block.describe_elsewhere(claim)
                warn_caller(f"{block} was {said}; it continues from the last flush")
        if block.location.network:
            # A lock may be one of this machine alone: the claim decides.
            journal.locked = False
    except BaseException:
        journal.close()
        raise
    return journal


def _leave_lock_of_stopped(block: ChainBlock, path: Path) -> None:
    """Put a copy in place of a journal whose lock a process holds that is stopped and silent.

    If it continues, it finds that its journal is not in its place, and writes nothing more.
    """
    claim = block.claim
    if claim is None or claim.alive or not claim.is_stopped:
        return
    with block.location.alone(patience=5.0) as is_alone:
        claim = block.claim
        if not is_alone or claim is None or claim.alive or not is_locked(path):
            return
        copy = path.with_name(f"{path.name}.{uuid.uuid4().hex}.partial")
        try:
            shutil.copyfile(path, copy)
            os.replace(copy, path)
        finally:
            copy.unlink(missing_ok=True)


def _has_directory(block: ChainBlock, path: Path) -> bool:
    """Whether a journal can be there: a local disk for it may be missing on this machine."""
    if block.layout.journal == IN_STORE:
        return True
    disk = path.parent.parent
    if disk.is_dir():
        path.parent.mkdir(exist_ok=True)
        return True
    warn_caller(
        f"{block}: {disk}, where its journal would be, is not on this machine, or no longer; "
        f"it continues from the last flush, and draws wait in memory: a killed process loses up to "
        f"{block.layout.flush_every:g} s of them"
    )
    return False


def _open_memory(hierarchy: Hierarchy, block: ChainBlock, force: bool) -> Journal:
    """A journal in memory, where no file can be mapped."""
    block.require_unclaimed(has_lock=False, force=force)
    journal = Journal.in_memory(block.layout)
    _fill(hierarchy, block, journal)
    return journal


def _remove_partial_files(block: ChainBlock) -> None:
    """Remove the unfinished files of a writer that was killed."""
    for variable in block.layout.variables:
        span = spans(block.layout, variable)[-1]
        place = span.place_of(block.number)
        if span.key_form == "/":
            block.location.remove_partial_files(f"{span.path}/c/{place}")
        else:
            prefix = chunk_name((place, 0), span.key_form).removesuffix("0")
            block.location.remove_partial_files(span.path, prefix=prefix)


def _fill(hierarchy: Hierarchy, block: ChainBlock, journal: Journal) -> None:
    """Give a new journal its count and the rows of the chunks that are partly filled."""
    rows = read_last_rows(block)
    if rows is None:
        load_all_rows(hierarchy, block, int(block.read("draw_idx") or 0), journal)
    else:
        journal.take_rows(rows.journal)
    text = "" if rows is None else rows.checkpoint
    if text and draws_of(text) <= journal.count and not journal.keep_checkpoint(text):
        block.write("state", text)
    # This happens before any reader sees it.
    require_standing(hierarchy, block)


def load_all_rows(hierarchy: Hierarchy, block: ChainBlock, count: int, journal: Journal) -> None:
    """Load the rows of the chunks that hold draw `count` into a journal, and set its count."""
    for variable in block.layout.variables:
        if has_rows(block.layout, variable):
            load_rows(hierarchy, block, variable, count, journal.rows_of(variable))
    journal.seal_rows(count)
    journal.count = count


def rows_in_memory(
    hierarchy: Hierarchy, block: ChainBlock, count: int
) -> dict[str, np.ndarray[Any, Any]]:
    """New rows for the variables that have none in the journal, by `group/variable`."""
    rows: dict[str, np.ndarray[Any, Any]] = {}
    for variable in block.layout.variables:
        if not has_rows(block.layout, variable):
            shape = block.layout.chunk_shape(variable)
            rows[variable.label] = np.zeros(shape, variable.dtype)
            load_rows(hierarchy, block, variable, count, rows[variable.label])
    return rows


def store_last_rows(hierarchy: Hierarchy, block: ChainBlock) -> None:
    """Write the rows that a flush has put into the store to their chunks; nobody may record."""
    rows = read_last_rows(block)
    if rows is None:
        return
    count = rows.journal.count
    last = {**rows.journal.rows, **rows_in_memory(hierarchy, block, count)}
    block.location.write_many(OpenChunks(block, last, count).partial(count))
    block.write("draw_idx", count)
    if rows.checkpoint and rows.checkpoint == latest(rows, block.read("state")):
        block.write("state", rows.checkpoint)


def load_rows(
    hierarchy: Hierarchy,
    block: ChainBlock,
    variable: Variable,
    count: int,
    rows: np.ndarray[Any, Any],
) -> None:
    """Load the rows of the chunk that holds draw `count`, as far as they are recorded."""
    span = span_of(written_spans(block.layout, variable), count)
    place = span.place(count, variable.draws_per_chunk)
    filled = count - place.draws.start
    if not filled or span.gone:
        return
    try:
        rows[:, :filled] = RowReader(block, variable).chunk(place, filled)[:, :filled]
    except DamagedTraceError:
        # Its chunk was removed: these draws are never read.
        if count > hierarchy.layout.dropped:
            raise


def require_standing(hierarchy: Hierarchy, block: ChainBlock) -> None:
    """Refuse to record while arrays are moved: the rows fit the arrays as they are now.

    Raises
    ------
    ChainBusyError
        The trace is being split, extended or finished.
    """
    current = hierarchy.layout
    if current.arrays != block.layout.arrays or current.splitting or current.closed:
        raise ChainBusyError(
            f"{block.location} is being split, extended or finished now; try again afterwards",
            chain=block.chains[0],
        )
