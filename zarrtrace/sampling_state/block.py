"""One writer's block of chains: what `_sampling_state` holds of it, each thing by its name.

On one machine the lock on the journal decides who records a block, and death frees it. The claim
says who holds it, and decides where there is no lock, and between machines.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ChainBusyError, DamagedTraceError, InvalidInputError
from ..layout.layout import Layout
from ..messages import chain_label
from ..store.location import Location
from .arrays import decode_value, encode_value, state_key
from .claim import STALE_AFTER, Claim
from .journal import CHECKPOINT_WORD, Journal, journal_directory, journal_file, read_count
from .state_text import decode_state, read_checkpoint


@dataclass(frozen=True)
class ChainBlock:
    """The chains that one writer records, under one layout.

    Attributes
    ----------
    number : int
        Which block it is, counted from 0.
    """

    location: Location
    layout: Layout
    number: int

    @property
    def chains(self) -> range:
        """Its chains."""
        return self.layout.chains_of(self.number)

    @property
    def label(self) -> str:
        """`chain 3` or `chains 0 to 31`."""
        return chain_label(self.chains)

    def __str__(self) -> str:
        return f"{self.label} of {self.location}"

    # Values in the arrays of `_sampling_state` ------------------------------------------------

    def key(self, name: str) -> str:
        """The key of its chunk in an array of `_sampling_state`."""
        return state_key(name, self.number)

    def read(self, name: str) -> Any:
        """What an array says for this block; None where it says nothing.

        Raises
        ------
        DamagedTraceError
            The chunk cannot be decoded.
        """
        return self.decode(name, self.location.read(self.key(name)))

    def decode(self, name: str, data: memoryview | None) -> Any:
        """What the bytes of its chunk say; None when there is no chunk."""
        if data is None:
            return None
        try:
            return decode_value(name, data, self.layout.chains_per_chunk)
        except (ValueError, RuntimeError, TypeError, IndexError) as error:
            raise DamagedTraceError(
                f"damaged ({error})",
                where=f"{self.location}: {self.key(name)}",
                remedy="`zarrtrace repair` makes it again from what is there",
                chain=self.chains[0],
            ) from error

    def write(self, name: str, value: Any) -> str:
        """Put a value into an array for this block; returns the key."""
        key = self.key(name)
        self.location.write(key, encode_value(name, value, self.layout.chains_per_chunk))
        return key

    def delete(self, name: str) -> None:
        """Have an array say nothing for this block."""
        self.location.delete(self.key(name))

    # The journal ------------------------------------------------------------------------------

    @property
    def journal_file(self) -> Path | None:
        """Where its journal is, or would be; None for a trace without journals."""
        directory = journal_directory(self.location, self.layout)
        return None if directory is None else journal_file(directory, self.number)

    def read_journal(self) -> Journal | None:
        """Its journal as it is now, mapped for reading; None when it has none."""
        path = self.journal_file
        return None if path is None else Journal.for_reading(self.layout, path)

    @property
    def journal_count(self) -> int | None:
        """The draws that its journal says are recorded; None when it has no journal."""
        path = self.journal_file
        return None if path is None else read_count(path)

    # Who records it ---------------------------------------------------------------------------

    @property
    def claim(self) -> Claim | None:
        """Who has claimed it last; None for nobody, and where that cannot be read."""
        try:
            return Claim.from_text(self.read("writer") or "")
        except DamagedTraceError:
            return None

    def write_claim(self, claim: Claim | None) -> None:
        """Put a claim on it, or take it back."""
        self.write("writer", "" if claim is None else claim.to_text())

    def require_free(self, *, force: bool = False) -> None:
        """Refuse it when a living writer has claimed it; with `force` only one on this host.

        Raises
        ------
        ChainBusyError
            With the host, the process and the age of that writer.
        """
        claim = self.claim
        if claim is None or not claim.alive or (force and claim.host != platform.node()):
            return
        raise self.busy(claim)

    def busy(self, claim: Claim | None) -> ChainBusyError:
        """The error that says it has a writer already."""
        who = "another writer" if claim is None else str(claim)
        remedy = "close() that writer or end its process"
        if claim is not None and claim.host != platform.node():
            remedy += (
                f"; if it is gone, wait until it is silent for {STALE_AFTER:.0f} s, "
                f"or take its place with trace.writer({self.chains[0]}, force=True)"
            )
        return ChainBusyError(
            f"{self} is being recorded by {who}; {remedy}",
            chain=self.chains[0],
        )

    # The last checkpoint ----------------------------------------------------------------------

    def checkpoint_text(self) -> str | None:
        """The text of its last checkpoint, from its journal or the file of its own.

        Raises
        ------
        DamagedTraceError
            It is damaged.
        """
        journal = self.read_journal()
        kept = None if journal is None else journal.read_checkpoint()
        return kept or self.read("state")

    def last_checkpoint(self, like: Any = None) -> tuple[int, Any] | None:
        """The draws its last checkpoint belongs to, and the state; None where there is none.

        Raises
        ------
        DamagedTraceError
            It cannot be read.
        InvalidInputError
            It does not fit `like`.
        """
        try:
            text = self.checkpoint_text()
            draws, content = read_checkpoint(text)
            return (draws, decode_state(content, like)) if text else None
        except InvalidInputError:
            raise
        except (ValueError, DamagedTraceError) as error:
            raise DamagedTraceError(
                f"its checkpoint cannot be read ({error})",
                where=str(self),
                remedy="`zarrtrace repair` drops it, and the chain continues after its last draw "
                "without a state",
                chain=self.chains[0],
            ) from error

    def drop_checkpoint(self) -> None:
        """Drop its last checkpoint, when no writer has it open."""
        self.delete("state")
        path = self.journal_file
        if path is not None and path.exists():
            with open(path, "r+b", buffering=0) as file:
                file.seek(CHECKPOINT_WORD * 8)
                file.write(bytes(8))


def chain_blocks(location: Location, layout: Layout) -> list[ChainBlock]:
    """The blocks of a trace, one for each of its writers."""
    return [ChainBlock(location, layout, number) for number in range(layout.blocks)]


def remove_journals(location: Location, layout: Layout) -> None:
    """Remove the journals of every writer; all their draws must be in the chunks."""
    for block in chain_blocks(location, layout):
        path = block.journal_file
        if path is not None:
            path.unlink(missing_ok=True)
