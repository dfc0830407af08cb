"""The last checkpoint of a block: in its journal, with its last rows, or in a file of its own."""

from __future__ import annotations

from typing import Any

from ..errors import DamagedTraceError, InvalidInputError
from .block import ChainBlock
from .flushed import LastRows, Series, read_last_rows
from .journal_header import CHECKPOINT_WORD
from .state_text import Checkpoint, decode_state, read_checkpoint


def checkpoint_text(block: ChainBlock) -> str | None:
    """The text of the last checkpoint.

    Raises
    ------
    DamagedTraceError
        It is damaged.
    """
    journal = block.read_journal()
    kept = None if journal is None else journal.read_checkpoint()
    if kept:
        return kept
    apart: str | None = block.read("state")
    if journal is not None:
        # In a copy the checkpoint may be later than the rows.
        return apart if not journal.is_elsewhere or draws_of(apart) <= journal.count else None
    rows = read_last_rows(block)
    return apart if rows is None else latest(rows, apart)


def latest(rows: LastRows, apart: str | None) -> str | None:
    """The text of the last checkpoint: the one with the last rows, or a large one apart from them.

    In a copy one apart may be later than the draws. If both belong to the same draws, the one with
    the rows is the last: a large one that replaces it takes it from the rows.
    """
    texts = [text for text in (rows.checkpoint, apart) if text]
    there = [text for text in texts if draws_of(text) <= rows.journal.count]
    return max(there, key=draws_of, default=None)


def last_checkpoint(block: ChainBlock, like: Any = None) -> Checkpoint | None:
    """The last checkpoint, with the state as it was given; None where there is none.

    Raises
    ------
    DamagedTraceError
        It cannot be read.
    InvalidInputError
        It does not fit `like`.
    """
    try:
        text = checkpoint_text(block)
        found = read_checkpoint(text)
        return found._replace(state=decode_state(found.state, like)) if text else None
    except InvalidInputError:
        raise
    except (ValueError, DamagedTraceError) as error:
        raise DamagedTraceError(
            f"its checkpoint cannot be read ({error})",
            where=str(block),
            remedy="`zarrtrace repair` drops it, and the chain continues after its last draw "
            "without a state",
            chain=block.chains[0],
        ) from error


def drop_checkpoint_after(block: ChainBlock, count: int) -> None:
    """Drop a checkpoint in a file of its own, if it belongs to a later draw."""
    if draws_of(block.read("state")) > count:
        block.delete("state")


def drop_checkpoint(block: ChainBlock) -> None:
    """Drop the last checkpoint, when no writer is open."""
    block.delete("state")
    rows = read_last_rows(block)
    if rows is not None and rows.checkpoint:
        block.location.write(block.key("flushed"), Series(block, rows.journal).encode())
    path = block.journal_file
    if path is not None and path.exists():
        with open(path, "r+b", buffering=0) as file:
            file.seek(CHECKPOINT_WORD * 8)
            file.write(bytes(8))


def draws_of(checkpoint: str | None) -> int:
    """The draws a checkpoint belongs to; 0 if it cannot be read, which its reader reports."""
    try:
        return read_checkpoint(checkpoint).draws
    except ValueError:
        return 0
