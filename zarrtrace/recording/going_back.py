"""Go back to the last checkpoint: its draw and state, and the rows as they were after it."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import DamagedTraceError
from ..layout.hierarchy import Hierarchy
from ..layout.spans import span_of, written_spans
from ..layout.variables import Variable
from ..sampling_state.block import ChainBlock
from ..sampling_state.journal import Journal
from ..sampling_state.journal_format import has_rows
from ..sampling_state.last_checkpoint import last_checkpoint as read_last_checkpoint
from ..sampling_state.state_text import Checkpoint
from .chain_journal import load_rows
from .open_chunks import OpenChunks


def last_checkpoint(block: ChainBlock, count: int, is_full: bool, like: Any) -> Checkpoint | None:
    """The checkpoint that a chain with `count` draws continues from; None for its last draw.

    Parameters
    ----------
    is_full : bool
        Whether the chain has all its draws; it then never goes back.

    Raises
    ------
    DamagedTraceError
        The checkpoint cannot be read, or belongs to a draw that does not exist.
    """
    found = read_last_checkpoint(block, like)
    if found is None or (is_full and found.draws != count):
        return None
    if found.draws > count:
        raise DamagedTraceError(
            f"its checkpoint belongs to draw {found.draws}, but the chain has {count}",
            where=str(block),
            remedy="`zarrtrace repair` drops it, and the chain continues without a state",
            chain=block.chains[0],
            draw=found.draws,
        )
    return found


def went_back(
    hierarchy: Hierarchy, block: ChainBlock, journal: Journal, chunks: OpenChunks, draws: int
) -> tuple[Journal, dict[str, np.ndarray[Any, Any]]]:
    """Drop the draws from `draws` on, atomically for every reader.

    Parameters
    ----------
    journal, chunks
        The journal and the chunks that are being filled.

    Returns
    -------
    journal : Journal
        The new journal, which replaces the old one.
    rows : dict of str to numpy.ndarray
        New rows for the variables that have none in the journal, by `group/variable`.
    """
    layout, count = block.layout, journal.count

    def load(variable: Variable, target: np.ndarray[Any, Any]) -> None:
        span = span_of(written_spans(layout, variable), draws)
        # The chunk that is being filled is in the buffer, every other one is in the store.
        if count in span.place(draws, variable.draws_per_chunk).draws:
            target[...] = chunks.chunk(variable).rows
        else:
            load_rows(hierarchy, block, variable, draws, target)

    memory: dict[str, np.ndarray[Any, Any]] = {}
    for variable in layout.variables:
        if not has_rows(layout, variable):
            memory[variable.label] = np.zeros(layout.chunk_shape(variable), variable.dtype)
            load(variable, memory[variable.label])
    checkpoint = journal.read_checkpoint()

    def fill(new: Journal) -> None:
        for variable in layout.variables:
            if has_rows(layout, variable):
                load(variable, new.rows_of(variable))
        new.seal_rows(draws)
        if checkpoint is not None and not new.keep_checkpoint(checkpoint):
            # Journals of older versions have more room for it.
            block.write("state", checkpoint)
        new.go_back(journal, draws)
        new.count = draws

    return journal.replaced(layout, fill), memory
