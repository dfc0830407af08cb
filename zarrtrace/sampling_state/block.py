"""One writer's block of chains: what `_sampling_state` holds for it.

On one machine the lock on the journal decides who records a block, and death frees it. The claim
says who holds it, and decides where there is no lock, and between machines.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ChainBusyError, DamagedTraceError
from ..layout.layout import IN_STORE, Layout
from ..layout.spans import ChunkPlace, span_of, written_spans
from ..layout.variables import Variable
from ..messages import chain_label, warn_caller
from ..store.local import locks_work, read_first
from ..store.location import Location
from ..store.network import Arrival
from .arrays import decode_value, encode_value, state_key
from .chunk_seals import (
    ChunkSeals,
    ChunkSet,
    begin_seal,
    end_seal,
    extend_seal,
    extend_seal_by_texts,
)
from .claim import STALE_AFTER, Claim, watch
from .draw_codec import HEADER, draw_codec
from .journal import Journal
from .journal_count import is_elsewhere, read_count_and_series
from .journal_file import is_locked, journal_directory, journal_file
from .journal_header import FLUSHED_BOOT, JOURNAL_BOOT


@dataclass(frozen=True)
class ChainBlock:
    """The chains that one writer records, under one layout.

    Attributes
    ----------
    number : int
        The number of the block, counted from 0.
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
        return state_key(self.layout, name, self.number)

    def read(self, name: str) -> Any:
        """The value of an array for this block; None where there is none.

        Raises
        ------
        DamagedTraceError
            The chunk cannot be decoded.
        """
        # A client of a network file system may remember the size of a file that another machine
        # replaced by a longer one: it reads that without its end.
        arrival = Arrival(self.location.network)
        while True:
            try:
                return self.decode(name, self.location.read(self.key(name)))
            except DamagedTraceError:
                if not arrival.is_due():
                    raise

    def decode(self, name: str, data: memoryview | None) -> Any:
        """The value in the bytes of its chunk; None when there is no chunk."""
        if not data:
            # Power loss may leave a new file without its bytes.
            return None
        try:
            return decode_value(name, data, self.layout.chains_per_chunk)
        except (ValueError, RuntimeError, TypeError, IndexError) as error:
            raise DamagedTraceError(
                f"damaged ({error})",
                where=f"{self.location}: {self.key(name)}",
                remedy="`zarrtrace repair` makes it again from the other files",
                chain=self.chains[0],
            ) from error

    def write(self, name: str, value: Any) -> str:
        """Store a value in an array for this block; returns the key."""
        key = self.key(name)
        # Not `write`: after `rm -rf` the heartbeat must not make the directory again.
        self.location.write_again(key, encode_value(name, value, self.layout.chains_per_chunk))
        return key

    def delete(self, name: str) -> None:
        """Remove the value of an array for this block."""
        self.location.delete(self.key(name))

    # The journal ------------------------------------------------------------------------------

    @property
    def journal_file(self) -> Path | None:
        """The path of its journal, existing or not; None where it has none on this machine."""
        path = self.journal_path
        return None if path is None or self._is_left_behind(path) else path

    @property
    def journal_path(self) -> Path | None:
        """Where a writer of this machine has its journal; None for a trace without journals."""
        directory = journal_directory(self.location, self.layout)
        return None if directory is None else journal_file(directory, self.number)

    def _is_left_behind(self, path: Path) -> bool:
        """Whether another machine has continued the chain since the journal was written.

        A journal on a local disk then has draws that were drawn again, or lacks later ones.
        """
        if self.layout.journal == IN_STORE or not self.location.network:
            return False
        try:
            own = read_first(str(path), JOURNAL_BOOT.stop)[JOURNAL_BOOT]
        except OSError:
            return False
        [flushed] = self.location.read_first([self.key("flushed")], FLUSHED_BOOT.stop)
        if flushed is None:
            # A split or a finish removes them. Its own writer puts them when it opens, and no
            # split removes them while its claim is there.
            claim = self.claim
            return claim is None or claim.boot.replace("-", "") != own.hex()
        # Power loss may leave a new file without its bytes.
        return bool(flushed) and bytes(flushed)[FLUSHED_BOOT] != own

    def may_be_elsewhere(self, claim: Claim | None) -> bool:
        """Whether a writer that was not closed may have left later draws on another machine.

        Its journal is then on a disk there, and not on this machine.
        """
        layout = self.layout
        if layout.journal in ("", IN_STORE) or layout.closed or layout.splitting:
            return False
        if claim is None or claim.is_of_this_machine:
            return False
        path = self.journal_file
        return path is None or not path.exists()

    def describe_elsewhere(self, claim: Claim) -> str:
        """What the journal of a writer that was not closed on another machine may hold."""
        return (
            f"recorded on {claim.host} and not closed there: the last draws, up to "
            f"{self.layout.flush_every:g} s of them, may be in the journal {self.journal_path} on "
            f"{claim.host} alone"
        )

    def read_journal(self) -> Journal | None:
        """Its journal as it is now, mapped for reading; None when it has none."""
        path = self.journal_file
        return None if path is None else Journal.for_reading(self.layout, path, self)

    @property
    def journal_count(self) -> int | None:
        """The recorded draws by its journal; None when it has no journal."""
        found = self.journal_count_and_series
        return None if found is None else found[0]

    @property
    def journal_count_and_series(self) -> tuple[int, bytes] | None:
        """The same, and the series of that journal."""
        path = self.journal_file
        # Every draw is in the chunks before a split or a finish moves them.
        if path is None or self.layout.closed or self.layout.splitting:
            return None
        return read_count_and_series(self.layout, path, self)

    @property
    def is_elsewhere(self) -> bool:
        """Whether its journal was written elsewhere, so that only proven draws count."""
        path = self.journal_file
        if path is None or self.layout.closed or self.layout.splitting:
            return False
        return is_elsewhere(self.layout, path, self)

    @property
    def directory(self) -> Path | None:
        """The directory of the trace, by which a journal recognises its place."""
        return self.location.path

    def stored_draws(self, variable: Variable, count: int) -> int:
        """How many draws of a variable, from the first on, the chunks hold; at most `count`.

        A chunk that is not full shows how many draws it holds.
        """
        known = _draws_in_full_chunks(self)
        done = max(self.layout.dropped, known.get(variable.label, 0))
        for span in written_spans(self.layout, variable):
            draw = span.stop if span.gone else max(span.start, done)
            while draw < min(span.stop, count):
                place = span.place(draw, variable.draws_per_chunk)
                stop = place.draws.start + self._draws_in(variable, place)
                if stop < place.draws.stop:
                    return min(stop, count)
                known[variable.label] = draw = place.draws.stop
        return count

    @property
    def has_checkpoint_apart(self) -> bool:
        """Whether there is a checkpoint in a file of its own."""
        return bool(self.location.read(self.key("state"))) and bool(self.read("state"))

    def sealed_draws(self, seals: ChunkSeals, draws: range, count: int) -> int:
        """How many draws there are up to the first chunk that is not the one its seal says.

        One that is missing or cannot be decoded is lost or damaged, and not of another attempt.
        """
        known, stop = _sealed_chunks(self), draws.stop
        for chunk_set in seals:
            for span in written_spans(self.layout, chunk_set.variables[0]):
                draw = max(span.start, draws.start, self.layout.dropped)
                draw = max(draw, seals.first_draw(chunk_set, count))
                while not span.gone and draw < min(span.stop, stop):
                    place = span.place(draw, chunk_set.length)
                    draw = place.draws.stop
                    if draw > stop:
                        break  # it is not full, and its draws are in the rows
                    seal = seals.find(chunk_set, draw, count)
                    if seal is None or known.get((chunk_set.number, draw)) == seal:
                        continue
                    chunks = self._chunks(chunk_set, place)
                    if chunks is None:
                        continue
                    if _seal_of(chunks, place) == seal:
                        known[chunk_set.number, draw] = seal
                    elif self._can_be_decoded(chunk_set, chunks):
                        stop = place.draws.start
        if stop > draws.start and seals.find_texts(stop) != self._seal_of_texts(seals, stop):
            stop = min(stop, max(draws.start, self._first_text_in_part(stop)))
        return stop

    def _seal_of_texts(self, seals: ChunkSeals, count: int) -> int | None:
        """The seal of the texts below the count in chunks that are not full; None without any."""
        seal, found = begin_seal(count), False
        for chunk_set in seals:
            for variable in chunk_set.variables:
                place = self._text_in_part(variable, count)
                if place is None:
                    continue
                found = True
                data = self.location.read(place.key(variable, self.number)) or b""
                try:
                    rows = draw_codec(self.layout, variable).decode(
                        data, self.layout.chunk_shape(variable)
                    )
                except ValueError:
                    return seals.find_texts(count)  # it is damaged
                seal = extend_seal_by_texts(seal, rows[:, : count - place.draws.start])
        return end_seal(seal) if found else seals.find_texts(count)

    def _text_in_part(self, variable: Variable, count: int) -> ChunkPlace | None:
        """The chunk of a text that the draws below the count fill partly."""
        if not variable.is_text or not count:
            return None
        span = span_of(written_spans(self.layout, variable), count - 1)
        place = span.place(count - 1, variable.draws_per_chunk)
        return None if span.gone or place.draws.stop <= count else place

    def _first_text_in_part(self, count: int) -> int:
        """The first draw whose text is in a chunk that is not full."""
        places = (self._text_in_part(variable, count) for variable in self.layout.variables)
        return min((place.draws.start for place in places if place is not None), default=count)

    def _chunks(self, chunk_set: ChunkSet, place: ChunkPlace) -> list[memoryview] | None:
        """The bytes of the chunks of a set; None if one is missing."""
        found = []
        for variable in chunk_set.variables:
            spans = written_spans(self.layout, variable)
            own = span_of(spans, place.draws.start).place(place.draws.start, chunk_set.length)
            data = self.location.read(own.key(variable, self.number))
            if data is None:
                return None
            found.append(data)
        return found

    def _can_be_decoded(self, chunk_set: ChunkSet, chunks: list[memoryview]) -> bool:
        layout = self.layout
        try:
            for variable, data in zip(chunk_set.variables, chunks, strict=True):
                draw_codec(layout, variable).decode(data, layout.chunk_shape(variable))
        except ValueError:
            return False
        return True

    def _draws_in(self, variable: Variable, place: ChunkPlace) -> int:
        """How many draws a chunk holds; all of them if it is lost or cannot be decoded."""
        key, length = place.key(variable, self.number), len(place.draws)
        [first] = self.location.read_first([key], HEADER)
        # A file that power loss has emptied counts as missing.
        if not first:
            return length if self.layout.is_lost(variable, self.number, place.draws) else 0
        codec = draw_codec(self.layout, variable)
        if not codec.may_be_partial(first):
            return length
        data = self.location.read(key)
        try:
            return min(
                codec.draws_in(codec.decode(data or b"", self.layout.chunk_shape(variable))), length
            )
        except ValueError:
            return length

    @property
    def is_flushed(self) -> bool:
        """Whether its journal is unlocked, and the chunks have all its draws."""
        path = self.journal_file
        if path is None or not path.exists():
            return True
        return not is_locked(path) and self.journal_count in (None, int(self.read("draw_idx") or 0))

    # Who records it ---------------------------------------------------------------------------

    @property
    def claim(self) -> Claim | None:
        """The last claim on it; None if there is none, or if it cannot be read."""
        return read_claims([self])[0]

    def write_claim(self, claim: Claim | None) -> None:
        """Store a claim on it, or remove it."""
        self.write("writer", "" if claim is None else claim.to_text())

    def require_unclaimed(self, *, has_lock: bool, force: bool = False) -> None:
        """Refuse it when a living writer has claimed it.

        Parameters
        ----------
        has_lock : bool
            Whether the caller holds the lock on its journal, so that no other process on this
            machine holds it.
        force : bool, default False
            Whether to refuse only a writer that this process can see.

        Raises
        ------
        ChainBusyError
            It names the host, the process and the age of that writer.
        """
        claim = self.claim
        if not (force and claim is not None and not claim.is_visible):
            self._require_dead(claim, has_lock=has_lock)

    def _require_free(self, claim: Claim | None) -> None:
        """Refuse it when a writer holds the lock on its journal, or its claimant is alive."""
        locked = self._is_locked
        if locked:
            raise self.busy(claim)
        self._require_dead(claim, has_lock=locked is False)

    def _require_dead(self, claim: Claim | None, *, has_lock: bool) -> None:
        if claim is None or (has_lock and claim.is_of_this_machine):
            return
        if self._may_live(claim):
            raise self.busy(claim)

    def _must_be_watched(self, claim: Claim | None) -> bool:
        """Whether the writer with this claim has to be watched to know if it is alive."""
        if claim is None or claim.is_visible or not self._may_live(claim):
            return False
        return not (claim.is_of_this_machine and self._is_locked is not None)

    def _may_live(self, claim: Claim) -> bool:
        return claim.alive and not claim.is_of_the_past(self.location.age(self.key("writer")))

    @property
    def _is_locked(self) -> bool | None:
        """Whether a process on this machine holds the lock; None where there are no locks."""
        path = self.journal_file
        try:
            if path is not None and path.exists() and locks_work(path.parent):
                return is_locked(path)
        except PermissionError:
            pass
        return None

    def busy(self, claim: Claim | None) -> ChainBusyError:
        """The error for a block that has a writer already."""
        who = "another writer" if claim is None else str(claim)
        chain = self.chains[0]
        if claim is None or claim.is_visible:
            remedy = "close() that writer or end its process"
            if claim is not None and claim.pid == os.getpid():
                remedy = f"trace.close() closes it, and trace.writer({chain}) replaces it"
        else:
            remedy = (
                f"close() that writer or end its process; if it is gone, trace.writer({chain}, "
                f"patience=90) waits until it has been silent for {STALE_AFTER:.0f} s, and "
                f"force=True replaces it at once"
            )
        return ChainBusyError(f"{self} is being recorded by {who}; {remedy}", chain=chain)


def _seal_of(chunks: Iterable[memoryview], place: ChunkPlace) -> int:
    """The seal of the chunks of a set, as they are stored."""
    seal = begin_seal(place.draws.start)
    for data in chunks:
        seal = extend_seal(seal, data)
    return end_seal(seal)


@functools.lru_cache(maxsize=1024)
def _sealed_chunks(block: ChainBlock) -> dict[tuple[int, int], int]:
    """The seals that were compared with chunks, by their set and the draw after their last one."""
    return {}


@functools.lru_cache(maxsize=1024)
def _draws_in_full_chunks(block: ChainBlock) -> dict[str, int]:
    """How many draws of each variable were found in full chunks, from the first on."""
    return {}


def chain_blocks(location: Location, layout: Layout) -> list[ChainBlock]:
    """The blocks of a trace, one for each of its writers."""
    return [ChainBlock(location, layout, number) for number in range(layout.blocks)]


def read_claims(blocks: Iterable[ChainBlock]) -> list[Claim | None]:
    """The last claim on each block; None if there is none, or if it cannot be read."""
    blocks = list(blocks)
    if not blocks:
        return []
    found = blocks[0].location.read_many([block.key("writer") for block in blocks])
    return [_claim_in(block, data) for block, data in zip(blocks, found, strict=True)]


def _claim_in(block: ChainBlock, data: memoryview | None) -> Claim | None:
    try:
        return Claim.from_text(block.decode("writer", data) or "")
    except DamagedTraceError:
        return None


def require_free(blocks: Iterable[ChainBlock]) -> None:
    """Refuse when a writer holds the lock on the journal of a block, or a claimant may be alive.

    Raises
    ------
    ChainBusyError
        It names the host, the process and the age of that writer.
    """
    blocks = list(blocks)
    for block, claim in zip(blocks, read_claims(blocks), strict=True):
        block._require_free(claim)


def watch_until_free(blocks: Iterable[ChainBlock]) -> None:
    """As `require_free`, but wait until it is clear whether each writer is alive.

    Writers that this process cannot see are watched, as long as necessary.

    Raises
    ------
    ChainBusyError
        One of them is alive.
    """
    blocks = list(blocks)
    claims = read_claims(blocks)
    # Start all at once: this is the first look at each of them.
    unseen = [
        (block, claim)
        for block, claim in zip(blocks, claims, strict=True)
        if claim is not None and block._must_be_watched(claim)
    ]
    if unseen:
        first, writer = unseen[0]
        warn_caller(
            f"watching for {STALE_AFTER:.0f} s whether a writer is alive: {first} was recorded by "
            f"{writer}",
        )
        for block, _ in unseen:
            living = watch(lambda block=block: block.claim)  # type: ignore[misc]
            if living is not None:
                raise block.busy(living)
        claims = read_claims(blocks)
    for block, claim in zip(blocks, claims, strict=True):
        block._require_free(claim)


def remove_journals(location: Location, layout: Layout) -> None:
    """Remove the journals of every writer; all their draws must be in the chunks."""
    for block in chain_blocks(location, layout):
        path = block.journal_path
        if path is not None:
            path.unlink(missing_ok=True)
