"""Rows of arrays of samples: read by any index, changed in place, written from the end on.

Chunks run along the first dimension only, so that a row is always whole: a chunk is replaced as
a unit, and a reader finds its old rows or its new ones.
"""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

import numpy as np

from zarrtrace.errors import DamagedTraceError
from zarrtrace.store import Location

from .array import SampleArray

CACHE_BYTES = 2**26
_SIDE_BY_SIDE = 32
# The resolution of file times: within one tick a file may be replaced unnoticed.
_TICK = 50_000_000  # ns

Part = tuple[int, Any, Any]  # a chunk, which of its rows, and where they are among all


# Reading --------------------------------------------------------------------------------------


class ChunkCache:
    """Decoded chunks of files, the last used ones, up to a number of bytes.

    A chunk is used as long as its file is the one it was decoded from: a replacement of the
    file, even by another process, is seen at once. Stores without files are not cached.
    """

    def __init__(self, location: Location, limit: int = CACHE_BYTES) -> None:
        self._root = None if location.path is None else str(location.path)
        self._limit = limit
        self._bytes = 0
        self._held: OrderedDict[str, tuple[object, np.ndarray[Any, Any]]] = OrderedDict()
        self._lock = threading.Lock()

    def identity(self, key: str) -> tuple[int, int, int] | None:
        """The identity of the file; None when it must not be cached."""
        if self._root is None:
            return None
        try:
            found = os.stat(f"{self._root}/{key}")
        except FileNotFoundError:
            return None
        if time.time_ns() - found.st_mtime_ns < _TICK:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size

    def get(self, key: str, identity: object) -> np.ndarray[Any, Any] | None:
        """The rows of a chunk, which must not be returned or changed; None when not cached."""
        held = self._held.get(key)
        if held is None or identity is None or held[0] != identity:
            return None
        with self._lock:
            if key in self._held:
                self._held.move_to_end(key)
        return held[1]

    def put(self, key: str, identity: object, chunk: np.ndarray[Any, Any]) -> None:
        """Cache a chunk, and drop those that were not used for longest."""
        if identity is None or chunk.nbytes > self._limit:
            return
        with self._lock:
            replaced = self._held.pop(key, None)
            self._held[key] = (identity, chunk)
            self._bytes += chunk.nbytes - (0 if replaced is None else replaced[1].nbytes)
            while self._bytes > self._limit:
                self._bytes -= self._held.popitem(last=False)[1][1].nbytes


def read_rows(
    location: Location, array: SampleArray, rows: range | np.ndarray[Any, Any], cache: ChunkCache
) -> np.ndarray[Any, Any]:
    """The rows with these numbers, in a new array; each chunk is read once."""
    found = np.empty((len(rows), *array.shape[1:]), array.dtype)
    parts = _parts(rows, array.rows_per_chunk)
    while batch := list(islice(parts, _SIDE_BY_SIDE)):
        keys = [array.key(chunk) for chunk, _, _ in batch]
        whole = [_is_whole(inside, array) for _, inside, _ in batch]
        known = [None if w else cache.identity(key) for key, w in zip(keys, whole, strict=True)]
        held = [cache.get(key, identity) for key, identity in zip(keys, known, strict=True)]
        missing = [key for key, chunk in zip(keys, held, strict=True) if chunk is None]
        fetched = dict(zip(missing, location.read_many(missing), strict=True))
        for i, (_, inside, place) in enumerate(batch):
            chunk = held[i]
            if chunk is None:
                into = found[place] if whole[i] else None
                chunk = _decode(location, array, keys[i], fetched.pop(keys[i]), into)
                cache.put(keys[i], known[i], chunk)
            if not whole[i]:
                found[place] = chunk[inside]
    return found


def _parts(rows: range | np.ndarray[Any, Any], length: int) -> Iterator[Part]:
    """Which rows of which chunks, and where they go: a stretch of samples, or any of them."""
    if isinstance(rows, range) and rows.step == 1:
        for chunk in range(rows.start // length, -(-rows.stop // length) if rows else 0):
            start, stop = max(rows.start, chunk * length), min(rows.stop, (chunk + 1) * length)
            if start < stop:
                inside = slice(start - chunk * length, stop - chunk * length)
                yield chunk, inside, slice(start - rows.start, stop - rows.start)
        return
    numbers = np.asarray(rows, dtype=np.int64)
    chunks = numbers // length
    order = np.argsort(chunks, kind="stable")
    found, starts = np.unique(chunks[order], return_index=True)
    bounds = [*starts.tolist(), len(order)]
    for i, chunk in enumerate(found.tolist()):
        place = order[bounds[i] : bounds[i + 1]]
        yield chunk, numbers[place] - chunk * length, place


def _is_whole(inside: Any, array: SampleArray) -> bool:
    return isinstance(inside, slice) and inside == slice(0, array.rows_per_chunk)


def _decode(
    location: Location, array: SampleArray, key: str, data: Any, into: np.ndarray[Any, Any] | None
) -> np.ndarray[Any, Any]:
    if data is None:
        raise DamagedTraceError(
            f"{location}: the chunk {key} is missing; restore it from a copy",
            group=array.phase,
            variable=array.name,
        )
    try:
        if into is None:
            return array.codec.decode(data, array.chunk_shape)
        array.codec.decode_into(data, into)
    except (ValueError, RuntimeError, TypeError) as error:
        raise DamagedTraceError(
            f"{location}: {key} cannot be decoded ({error}); restore it from a copy",
            group=array.phase,
            variable=array.name,
        ) from error
    return into


# Writing --------------------------------------------------------------------------------------


class RowWriter:
    """Writes rows from the end of an array on; they count once its document is published.

    The last chunk, when it is not full, is written again with the rows it had. `close` returns the
    array as it will be.
    """

    def __init__(self, location: Location, array: SampleArray) -> None:
        self.location = location
        self.array = array
        self.length = array.shape[0]
        self._tail = np.empty(array.chunk_shape, array.dtype)
        filled = self.length % array.rows_per_chunk
        if filled:
            last = range(self.length - filled, self.length)
            self._tail[:filled] = read_rows(location, array, last, ChunkCache(location, 0))

    def append(self, values: np.ndarray[Any, Any]) -> None:
        """Accept rows of the array's dtype and shape, and write the chunks they fill."""
        self.location.write_many(self._full_chunks(values))

    def _full_chunks(self, values: np.ndarray[Any, Any]) -> Iterator[tuple[str, bytes]]:
        size = self.array.rows_per_chunk
        start = 0
        while start < len(values):
            chunk, filled = divmod(self.length, size)
            stop = min(start + size - filled, len(values))
            self.length += stop - start
            if stop - start == size:
                yield self.array.key(chunk), self.array.codec.encode(values[start:stop])
            else:
                self._tail[filled : filled + stop - start] = values[start:stop]
                if filled + stop - start == size:
                    yield self.array.key(chunk), self.array.codec.encode(self._tail)
            start = stop

    def close(self) -> SampleArray:
        """Write the last chunk, filled up, and return the new array, which is not visible yet."""
        chunk, filled = divmod(self.length, self.array.rows_per_chunk)
        if filled and self.length > self.array.shape[0]:
            self._tail[filled:] = self.array.codec.fill
            self.location.write(self.array.key(chunk), self.array.codec.encode(self._tail))
        return self.array.with_length(self.length)


def write_arrays(
    location: Location,
    batches: Iterable[Mapping[str, np.ndarray[Any, Any]]],
    new_array: Callable[[str, np.ndarray[Any, Any]], SampleArray],
) -> dict[str, SampleArray]:
    """Write new arrays, a batch of rows of each at a time; they count once they are committed.

    Parameters
    ----------
    location : Location
        The group of the data set.
    batches : iterable of mapping
        Path → rows.
    new_array : callable
        Takes a path and its first rows, and returns the array to write, without rows yet.
    """
    writers: dict[str, RowWriter] = {}
    for batch in batches:
        for path, values in batch.items():
            if path not in writers:
                writers[path] = RowWriter(location, new_array(path, values))
            writers[path].append(writers[path].array.fit(values))
    return {path: writer.close() for path, writer in writers.items()}


def write_rows(
    location: Location,
    array: SampleArray,
    rows: range | np.ndarray[Any, Any],
    values: np.ndarray[Any, Any],
) -> None:
    """Replace existing rows, one chunk after the other."""

    def chunks() -> Iterator[tuple[str, bytes]]:
        for number, inside, place in _parts(rows, array.rows_per_chunk):
            key = array.key(number)
            if _is_whole(inside, array):
                chunk = values[place]
            else:
                # The decoded array may be read-only.
                chunk = _decode(location, array, key, location.read(key), None).copy()
                chunk[inside] = values[place]
            yield key, array.codec.encode(chunk)

    location.write_many(chunks())
