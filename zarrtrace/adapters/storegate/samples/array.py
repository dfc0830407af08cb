"""An array of samples as its document describes it, and the values that it accepts."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import isclose
from typing import Any

import numpy as np

from zarrtrace.errors import InvalidInputError, SchemaError
from zarrtrace.store import (
    STRING,
    ChunkCodec,
    array_document,
    as_dtype,
    dtype_name,
    dtype_of_document,
    dtype_of_values,
)

PHASES = ("train", "valid", "test")
SAMPLE = "sample"
CHUNK_BYTES = 2**18  # of rows: a random batch decodes a chunk for each of its samples

Split = str | Sequence[int] | Sequence[float]
Names = str | Iterable[str]


class SampleArray:
    """An array with one leading sample dimension, as its zarr.json describes it.

    Attributes
    ----------
    path : str
        Its path: phase and name.
    document : dict
        Its zarr.json.
    made : str
        A unique id; an array that replaces another at the same path gets a new one.
    rows_per_chunk : int
        Samples in a chunk; the last one is filled up.
    """

    def __init__(self, path: str, document: Mapping[str, Any], made: str) -> None:
        self.path = path
        self.document = document
        self.made = made
        self.shape = tuple(int(size) for size in document["shape"])
        self.rows_per_chunk = int(document["chunk_grid"]["configuration"]["chunk_shape"][0])
        self.dtype = dtype_of_document(document)
        self.dims = tuple(map(str, document["dimension_names"]))
        self.codec = ChunkCodec(self.dtype, dict(document))
        first = "" if document["chunk_key_encoding"]["name"] == "v2" else "c."
        self._before, self._after = f"{path}/{first}", ".0" * len(self.shape[1:])
        self.chunk_shape = (self.rows_per_chunk, *self.shape[1:])

    @classmethod
    def new(
        cls,
        path: str,
        row: np.ndarray[Any, Any],
        encoding: Mapping[str, Any],
        rows_per_chunk: int | None,
    ) -> SampleArray:
        """An array without samples yet, for rows of this dtype and shape."""
        if rows_per_chunk is None:
            # Text is stored as it is, with a length before each; its size is not known yet.
            rows_per_chunk = max(1, CHUNK_BYTES // max(row.nbytes, 1))
        name = path.partition("/")[2]
        dims = (SAMPLE, *(f"{name}_dim_{i}" for i in range(row.ndim)))
        chunks = (rows_per_chunk, *row.shape)
        document = array_document(encoding, (0, *row.shape), chunks, dims)
        return cls(path, document, uuid.uuid4().hex)

    def with_length(self, length: int) -> SampleArray:
        """The same with this number of samples."""
        document = {**self.document, "shape": [length, *self.shape[1:]]}
        return SampleArray(self.path, document, self.made)

    def elsewhere(self, other: SampleArray | None) -> SampleArray:
        """The same, with chunk keys that differ from those of another array at this place.

        Zarr knows two ways to name chunks; an array that replaces another uses the other one.
        """
        taken = None if other is None else other.document["chunk_key_encoding"]["name"]
        name = "v2" if taken == "default" else "default"
        encoding = {"name": name, "configuration": {"separator": "."}}
        document = {**self.document, "chunk_key_encoding": encoding}
        return SampleArray(self.path, document, uuid.uuid4().hex)

    def key(self, chunk: int) -> str:
        """The key of a chunk."""
        return f"{self._before}{chunk}{self._after}"

    @property
    def row_bytes(self) -> int:
        """The memory of a sample, without the characters of long text."""
        return int(np.prod(self.shape[1:], dtype=np.int64)) * self.dtype.itemsize

    @property
    def phase(self) -> str:
        """The phase it is in."""
        return self.path.partition("/")[0]

    @property
    def name(self) -> str:
        """The variable's name."""
        return self.path.partition("/")[2]

    @property
    def keys(self) -> list[str]:
        """The keys of all chunks."""
        return [self.key(chunk) for chunk in range(-(-self.shape[0] // self.rows_per_chunk))]

    def grew_from(self, other: SampleArray) -> bool:
        """Whether data read from the other array is right for this one too."""
        return self.made == other.made and self.shape[0] >= other.shape[0]

    def rows(self, index: Any) -> range | np.ndarray[Any, Any]:
        """The numbers of the samples that an int, a slice, a list, or a mask selects."""
        length = self.shape[0]
        if isinstance(index, slice):
            return range(length)[index]
        if isinstance(index, int) and not isinstance(index, bool) and -length <= index < length:
            return range(index % length, index % length + 1)
        asked = np.asarray(index)
        if asked.dtype.kind == "b" and asked.shape == (length,):
            return np.flatnonzero(asked)
        if not asked.size and asked.ndim == 1:
            asked = asked.astype(np.int64)
        if asked.dtype.kind not in "iu" or asked.ndim > 1 or isinstance(index, tuple):
            raise IndexError(
                f"{self.path}: {index!r} is not an index of samples; use an int, slice, list of "
                f"ints, or a boolean mask of {length} samples"
            )
        asked = asked.astype(np.int64).reshape(-1)
        if asked.size and not (-length <= asked.min() and asked.max() < length):
            raise IndexError(f"{self.path} has samples 0 to {length - 1}, not {index!r}")
        return np.where(asked < 0, asked + length, asked)

    def fit(self, values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Samples as this array stores them; SchemaError for another shape or dtype."""
        if values.shape[1:] != self.shape[1:]:
            raise SchemaError(
                f"{self.path} has samples of shape {self.shape[1:]}, got {values.shape[1:]}",
                group=self.phase,
                variable=self.name,
            )
        return self.cast(values)

    def cast(self, values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Values in the array's dtype, if that loses nothing but floating precision."""
        if values.dtype == self.dtype:
            return values
        integers = values.dtype.kind in "iu" and self.dtype.kind in "iu"
        text = STRING in (values.dtype, self.dtype)
        if integers or (not text and np.can_cast(values.dtype, self.dtype, casting="same_kind")):
            with np.errstate(all="ignore"):
                cast = values.astype(self.dtype)
            # Floats may be rounded; a whole number or a time is unchanged or refused.
            if self.dtype.kind not in "iumM" or _are_equal(cast.astype(values.dtype), values):
                return cast
        raise SchemaError(
            f"{self.path} holds {dtype_name(self.dtype)}, but values of dtype "
            f"{dtype_name(values.dtype)} cannot become that without loss; convert them, or delete "
            f"the variable and add it again",
            group=self.phase,
            variable=self.name,
        )


def _are_equal(first: np.ndarray[Any, Any], second: np.ndarray[Any, Any]) -> bool:
    return np.array_equal(first, second, equal_nan=first.dtype.kind in "mM")


# What is given --------------------------------------------------------------------------------


def check_phase(phase: object) -> str:
    """The name of a phase; InvalidInputError otherwise."""
    if not isinstance(phase, str) or phase not in PHASES:
        raise InvalidInputError(f"a phase must be 'train', 'valid' or 'test', got {phase!r}")
    return phase


def is_one(index: Any) -> bool:
    """Whether an index means one sample, without the dimension of samples."""
    return not isinstance(index, slice) and np.ndim(index) == 0


def as_names(names: Names) -> list[str]:
    """The names of variables, one or more."""
    found = [names] if isinstance(names, str) else list(names)
    if not found:
        raise InvalidInputError("pass the name of a variable, or several")
    return found


def as_values(values: Any, what: str) -> np.ndarray[Any, Any]:
    """An array of a dtype that can be stored; the caller's own if it is one already."""
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise SchemaError(f"{what}: the samples have different shapes ({error})") from None
    return array.astype(as_dtype(dtype_of_values(array), what), copy=False)


def as_samples(values: Any, what: str, count: int | None = None) -> np.ndarray[Any, Any]:
    """An array of samples that can be stored, of the given length if a function returned it."""
    array = as_values(values, what)
    if array.ndim == 0 or 0 in array.shape[1:]:
        raise SchemaError(
            f"{what}: shape {array.shape}; samples come first, with at least one element each"
        )
    if count is not None and len(array) != count:
        raise InvalidInputError(f"{what}: the function returned {len(array)} samples for {count}")
    return array


def split_samples(phase: Split, count: int) -> dict[str, slice]:
    """Which of a number of samples belong to which phase.

    Parameters
    ----------
    phase : str, or three numbers
        As for `DataSet.add`.
    count : int
        Total number of samples.

    Returns
    -------
    dict of str to slice
        The phases that get samples.
    """
    if isinstance(phase, str):
        return {check_phase(phase): slice(0, count)}
    parts = list(phase)
    if len(parts) != len(PHASES) or any(part < 0 for part in parts):
        raise InvalidInputError(
            f"phase={phase!r}: pass a phase, or three numbers or fractions for train, valid, test"
        )
    if all(isinstance(part, int | np.integer) for part in parts):
        if sum(parts) != count:
            raise InvalidInputError(f"phase={phase!r} is {sum(parts)} samples, got {count}")
        bounds = [0, int(parts[0]), int(parts[0] + parts[1]), count]
    else:
        if not isclose(sum(parts), 1):
            raise InvalidInputError(f"phase={phase!r}: fractions must have the sum 1")
        # They are cut off, like the sums of fractions.
        bounds = [0, int(count * parts[0]), int(count * parts[0] + count * parts[1]), count]
    found = {
        name: slice(*part) for name, part in zip(PHASES, itertools.pairwise(bounds), strict=True)
    }
    return {name: part for name, part in found.items() if part.start < part.stop} or {
        PHASES[0]: slice(0, 0)
    }


def stretches(arrays: Sequence[SampleArray]) -> Iterator[range]:
    """Samples a few chunks at a time; at least one stretch, which may be empty."""
    length, step = arrays[0].shape[0], 8 * min(array.rows_per_chunk for array in arrays)
    for start in range(0, max(length, 1), step):
        yield range(start, min(start + step, length))
