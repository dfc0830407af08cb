"""The last rows of a writer that has no journal in the store, as of its last flush.

Where a journal cannot be mapped, or is not wanted, rows wait in memory. A flush puts those of the
chunks that are not full under one key, with the last checkpoint. The bytes under a key change
as a whole: count, rows and checkpoint are of one moment, also in a copy. Chunks are written
when they are full only: a copy may lack one, and never has one that is partly filled.

They have the count of the chain, as a journal has it. In a copy of a directory, or after power
loss, rows and chunks have to prove it; other stores do not say whether they are a copy, and there
a chunk that is missing is an error.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import google_crc32c

from ..errors import DamagedTraceError
from ..layout.layout import STATE, Layout
from ..layout.variables import Variable
from ..store.failures import changing
from ..store.zarr_json import array_document, encode_document
from .block import ChainBlock
from .journal import Journal
from .journal_format import SLOT_BYTES, journal_size, tables
from .journal_header import MAGIC, home_of
from .proof import proven_count

FLUSHED = f"{STATE}/flushed"
_ENCODING = {"data_type": "bytes", "fill_value": "", "codecs": [{"name": "vlen-bytes"}]}
_LENGTHS = struct.Struct("<II")  # of the chunk, before the bytes of its first chain
# The mark, the count, where it was written, the series, length and checksum of the checkpoint,
# checksum of the header.
_HEADER = struct.Struct("<8sq32s16sIII")
_START = _LENGTHS.size + _HEADER.size


@dataclass(frozen=True)
class Flushed:
    """What the writer of a block without a journal had flushed at one moment.

    Attributes
    ----------
    count : int
        The draws of the chain, if no chunk is missing.
    series : bytes
        An identity of the last rows, which changes when the chain goes back; empty where there are
        none, and every draw is in a chunk.
    is_elsewhere : bool
        Whether the rows are in a directory where they were not written, such as a copy.
    """

    block: ChainBlock
    count: int
    series: bytes = b""
    is_elsewhere: bool = False

    @property
    def in_chunks(self) -> int:
        """The draws that every variable has in a chunk."""
        found = tables(self.block.layout) if self.series else []
        return min([self.count, *(table.chunk_of(self.count) for table in found)])

    @property
    def proven_count(self) -> int:
        """The draws of the chain; elsewhere only those that chunks and rows prove."""
        if not self.is_elsewhere:
            return self.count
        rows = read_last_rows(self.block)
        return 0 if rows is None else rows.journal.count


@dataclass(frozen=True)
class LastRows:
    """The last rows of a block, in a journal with as many draws as are proven.

    Attributes
    ----------
    checkpoint : str
        The text of the last checkpoint when they were flushed; "" for none.
    """

    journal: Journal
    checkpoint: str


@dataclass
class Series:
    """Encodes the rows of one journal for the store, flush after flush."""

    block: ChainBlock
    journal: Journal

    def encode(self) -> bytes:
        """The rows of the chunks that are not full, and the last checkpoint, as a chunk."""
        journal, count = self.journal, self.journal.count
        journal.seal_new_rows()
        text = (journal.read_checkpoint() or "").encode()
        parts: list[Any] = [text]
        for table in tables(self.block.layout):
            stop = table.first + (count - table.chunk_of(count)) * table.stride
            parts.append(journal.buffer[table.first : stop])
        parts += journal.history()
        with changing(self.block, "the directory of the trace cannot be looked at"):
            home = home_of(self.block.directory)
        header = _header(count, home, journal.series, text)
        value = b"".join([header, *parts])
        chains = self.block.layout.chains_per_chunk
        return b"".join([_LENGTHS.pack(chains, len(value)), value, bytes(4 * (chains - 1))])


def look_at(blocks: Iterable[ChainBlock]) -> list[Flushed]:
    """What is flushed of some blocks of one trace, asked for at the same time.

    Raises
    ------
    DamagedTraceError
        The count of one cannot be read.
    """
    blocks = list(blocks)
    if not blocks:
        return []
    location, layout = blocks[0].location, blocks[0].layout
    found: list[Flushed | None] = [None] * len(blocks)
    if _may_have_rows(layout):
        headers = location.read_first([block.key("flushed") for block in blocks], _START)
        found = [_flushed(*each) for each in zip(blocks, headers, strict=True)]
    others = [block for block, one in zip(blocks, found, strict=True) if one is None]
    counts = location.read_many([block.key("draw_idx") for block in others])
    in_chunks = (
        Flushed(block, int(block.decode("draw_idx", data) or 0))
        for block, data in zip(others, counts, strict=True)
    )
    return [next(in_chunks) if one is None else one for one in found]


def read_last_rows(block: ChainBlock) -> LastRows | None:
    """The last rows as they are now, as far as they are proven; None where there are none.

    Raises
    ------
    DamagedTraceError
        They are not what was flushed.
    """
    layout = block.layout
    most = _START + journal_size(layout) + SLOT_BYTES + 4 * layout.chains_per_chunk + 8
    data = block.location.read(block.key("flushed"), most) if _may_have_rows(layout) else None
    now = _flushed(block, data)
    if data is None or now is None:
        return None
    text_length, checksum = _HEADER.unpack_from(data, _LENGTHS.size)[-3:-1]
    start = _START + text_length
    text = bytes(data[_START:start])
    journal = Journal.in_memory(layout)
    stop = _place_rows(layout, journal, data[start:], now.count)
    journal.take_history(now.series, bytes(data[start + stop :]))
    journal.count, journal.is_elsewhere = now.count, now.is_elsewhere
    intact = checksum == google_crc32c.value(text)
    if now.is_elsewhere:
        journal.settle_for_what_is_proven(block, [text.decode() if intact else None])
    else:
        journal.count = proven_count(layout, journal.buffer, now.count, _AllChunks())
    if not now.is_elsewhere and (journal.count < now.count or not intact):
        raise _damaged(block)
    return LastRows(journal, text.decode() if intact else "")


def _may_have_rows(layout: Layout) -> bool:
    """Whether last rows count: every draw is in the chunks before these are moved."""
    return layout.sealed and not layout.closed and not layout.splitting


def _place_rows(layout: Layout, journal: Journal, rows: memoryview, count: int) -> int:
    """Put flushed rows to their places in a journal; returns how many bytes they have."""
    done = 0
    for table in tables(layout):
        size = (count - table.chunk_of(count)) * table.stride
        found = rows[done : done + size]
        journal.buffer[table.first : table.first + len(found)] = found
        done += size
    return done


def flushed_item(layout: Layout) -> tuple[str, bytes]:
    """The key and the zarr.json of the array of last rows: bytes, one chunk per writer."""
    document = array_document(
        _ENCODING,
        (layout.chains,),
        (layout.chains_per_chunk,),
        ("chain",),
        key_form=layout.separator,
    )
    return f"{FLUSHED}/zarr.json", encode_document(document)


def _header(count: int, home: bytes, identity: bytes, text: bytes) -> bytes:
    fields = MAGIC[True], count, home, identity, len(text), google_crc32c.value(text)
    return _HEADER.pack(*fields, google_crc32c.value(_HEADER.pack(*fields, 0)))


def _flushed(block: ChainBlock, data: memoryview | None) -> Flushed | None:
    """What the header of last rows says; None where there are none."""
    if data is None or len(data) < _START:
        return None
    *fields, checksum = _HEADER.unpack_from(data, _LENGTHS.size)
    if fields[0] != MAGIC[True]:
        return None  # power was lost before it reached the disk
    if checksum != google_crc32c.value(_HEADER.pack(*fields, 0)):
        raise _damaged(block)
    _, count, home, identity, *_ = fields
    here = home_of(block.directory)
    is_elsewhere = block.directory is not None and (home != here or not any(home))
    return Flushed(block, count, identity, is_elsewhere)


def _damaged(block: ChainBlock) -> DamagedTraceError:
    return DamagedTraceError(
        "damaged (a checksum does not match)",
        where=f"{block.location}: {block.key('flushed')}",
        remedy="`zarrtrace repair` removes it, and leaves the draws that are in full chunks",
        chain=block.chains[0],
    )


class _AllChunks:
    """Chunks that are taken to be there: a reader finds out when it reads them."""

    def stored_draws(self, variable: Variable, count: int) -> int:
        """All of them."""
        return count
