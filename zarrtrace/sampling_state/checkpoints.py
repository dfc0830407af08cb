"""The last checkpoint of a chain, wherever it is kept."""

from __future__ import annotations

from typing import Any

from ..errors import DamagedTraceError, InvalidInputError
from ..layout.layout import Layout
from ..messages import chain_label
from ..store.location import Location
from .arrays import read_value, state_key
from .journal import CHECKPOINT_WORD, Journal, journal_directory, journal_file
from .state_text import decode_state, read_checkpoint


def read_checkpoint_text(location: Location, layout: Layout, block: int) -> str | None:
    """The text of a writer's last checkpoint, from its journal or the file of its own.

    Raises
    ------
    DamagedTraceError
        It is damaged.
    """
    directory = journal_directory(location, layout)
    journal = None if directory is None else Journal.for_reading(layout, directory, block)
    kept = None if journal is None else journal.read_checkpoint()
    return kept or read_value(location, layout, "state", block)


def last_checkpoint(
    location: Location, layout: Layout, block: int, like: Any
) -> tuple[int, Any] | None:
    """The draws a writer's last checkpoint belongs to, and the state; None where there is none.

    Raises
    ------
    DamagedTraceError
        It cannot be read.
    InvalidInputError
        It does not fit `like`.
    """
    chains = layout.chains_of(block)
    try:
        text = read_checkpoint_text(location, layout, block)
        draws, content = read_checkpoint(text)
        return (draws, decode_state(content, like)) if text else None
    except InvalidInputError:
        raise
    except (ValueError, DamagedTraceError) as error:
        raise DamagedTraceError(
            f"{chain_label(chains)} of {location}: its checkpoint cannot be read ({error}); "
            f"`zarrtrace repair` drops it, and the chain goes on after its last draw without a "
            f"state",
            chain=chains[0],
        ) from error


def drop_checkpoint(location: Location, layout: Layout, block: int) -> None:
    """Drop the last checkpoint of a writer that is not there any more."""
    location.delete(state_key("state", block))
    directory = journal_directory(location, layout)
    if directory is not None and journal_file(directory, block).exists():
        with open(journal_file(directory, block), "r+b", buffering=0) as file:
            file.seek(CHECKPOINT_WORD * 8)
            file.write(bytes(8))
