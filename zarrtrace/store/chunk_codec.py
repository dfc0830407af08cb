"""One chunk ↔ the bytes of its key.

The common codecs (blosc, zstd, gzip, crc32c) go through numcodecs: the same bytes as zarr-python's
codec pipeline, at a tenth of its cost for small chunks. Any other codec goes through a Zarr array
of one chunk in memory, so that a trace can hold all that zarr can encode.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable
from typing import Any

import google_crc32c
import numcodecs
import numpy as np

from . import decompress
from .dtypes import fill_value

_BLOSC_SHUFFLE = {"noshuffle": 0, "shuffle": 1, "bitshuffle": 2}

# Some pieces of a chunk of at least this many bytes are compressed first. If they do not shrink to
# this part, compressing takes most of the time that it takes to write the chunk, for very little.
_LARGE = 512 * 2**10
_PIECES, _PIECE_BYTES = 8, 4096
_WORTH_IT = 0.93

# No header says how long the texts of a chunk are: these bytes are allowed, and these per byte.
_MOST_TEXT = 2**28
_MOST_TEXT_PER_BYTE = 1024

Encode = Callable[[Any], Any]
Decode = Callable[[Any, int], Any]  # with the number of bytes that it may return


class ChunkCodec:
    """Encodes and decodes chunks of one dtype and one chain of codecs.

    Parameters
    ----------
    dtype : numpy.dtype
        The dtype of the decoded chunk; `numpy.dtypes.StringDType` for strings.
    encoding : dict
        `data_type`, `fill_value` and `codecs`, as an array's zarr.json has them.
    """

    def __init__(self, dtype: np.dtype[Any], encoding: dict[str, Any]) -> None:
        self.dtype = dtype
        self.fill = fill_value(dtype)
        # The encoding may be a whole zarr.json, whose shape is not the shape of a chunk.
        self._encoding = {key: encoding[key] for key in ("data_type", "fill_value", "codecs")}
        self._strings = isinstance(dtype, np.dtypes.StringDType)
        first, *rest = encoding["codecs"]
        known = [_transforms(codec) for codec in rest]
        known_first = first["name"] == ("vlen-utf8" if self._strings else "bytes")
        little = first.get("configuration", {}).get("endian", "little") == "little"
        # None: a codec that only zarr can run.
        self._transforms: list[tuple[Encode, Decode]] | None = None
        if known_first and little and all(known):
            self._transforms = [pair for pair in known if pair is not None]
        names = [codec["name"] for codec in rest]
        self._only_blosc = bool(self._transforms) and names == ["blosc"] and not self._strings

    def encode(self, chunk: np.ndarray[Any, Any]) -> bytes:
        """The stored bytes of a chunk; later changes to `chunk` do not reach them."""
        if self._transforms is None:
            return self._encode_through_zarr(chunk)
        data: Any
        if self._strings:
            data = numcodecs.VLenUTF8().encode(chunk.astype(object).ravel())
        else:
            data = np.ascontiguousarray(chunk)
        for encode, _ in self._transforms:
            data = encode(data)
        return data.tobytes() if isinstance(data, np.ndarray) else bytes(data)

    def most_encoded(self, shape: tuple[int, ...]) -> int | None:
        """The bytes that a chunk of this shape takes at most; None when it is unknown."""
        if self._transforms is None or self._strings:
            return None
        return _with_overhead(math.prod(shape) * self.dtype.itemsize)

    def decode(self, data: memoryview | bytes, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
        """The chunk of this shape that the bytes hold; ValueError if they do not hold one.

        The array may be read-only.
        """
        if 0 in shape:
            return np.empty(shape, self.dtype)  # Blosc encodes no values, but does not decode them
        if self._strings and self._transforms is not None:
            return self.decode_strings(data, math.prod(shape)).astype(self.dtype).reshape(shape)
        try:
            if self._transforms is None:
                return self._decode_through_zarr(data, shape)
            most = math.prod(shape) * self.dtype.itemsize
            return np.frombuffer(self._transformed(data, most), dtype=self.dtype).reshape(shape)
        except Exception as error:
            raise _as_value_error(error) from error

    def decode_into(self, data: memoryview | bytes, into: np.ndarray[Any, Any]) -> None:
        """Decode a chunk into an array of its shape and dtype, directly if Blosc is the only codec.

        Raises as `decode`.
        """
        if not into.size:
            return
        # Compare with the length in the header: Blosc itself would also accept less.
        fits = int.from_bytes(data[4:8], "little") == into.nbytes
        if self._only_blosc and fits and into.flags.c_contiguous:
            try:
                decompress.blosc(data, into.nbytes, into)
            except Exception as error:
                raise _as_value_error(error) from error
        else:
            into[...] = self.decode(data, into.shape)

    def decode_strings(self, data: memoryview | bytes, count: int) -> np.ndarray[Any, Any]:
        """That many strings as Python objects: NumPy's own take a second for a megabyte.

        Raises as `decode`.
        """
        most = 4 + 4 * count + max(_MOST_TEXT, _MOST_TEXT_PER_BYTE * len(data))
        try:
            decoded = self._transformed(data, most)
            found = int.from_bytes(memoryview(decoded)[:4], "little")
            # Check before the decoder allocates memory for them.
            if found != count:
                raise ValueError(f"its header says {found:,} texts, expected {count}")
            return np.asarray(numcodecs.VLenUTF8().decode(decoded), dtype=object)
        except Exception as error:
            raise _as_value_error(error) from error

    def _transformed(self, data: memoryview | bytes, most: int) -> Any:
        decoded: Any = data
        for _, decode in reversed(self._transforms or []):
            decoded = decode(decoded, _with_overhead(most))
        return decoded

    def _array_in_memory(self, shape: tuple[int, ...]) -> tuple[Any, Any, str]:
        import zarr
        import zarr.buffer.cpu
        from zarr.storage import MemoryStore

        store = MemoryStore()
        document = {
            "zarr_format": 3,
            "node_type": "array",
            "shape": shape,
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": shape}},
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
            "attributes": {},
            **self._encoding,
        }
        text = json.dumps(document).encode()
        store.set_sync("zarr.json", zarr.buffer.cpu.Buffer.from_bytes(text))
        return zarr.open_array(store), store, "/".join(["c", *("0" for _ in shape)])

    def _encode_through_zarr(self, chunk: np.ndarray[Any, Any]) -> bytes:
        array, store, key = self._array_in_memory(chunk.shape)
        array.with_config({"write_empty_chunks": True})[...] = chunk
        return bytes(store.get_sync(key).to_bytes())

    def _decode_through_zarr(
        self, data: memoryview | bytes, shape: tuple[int, ...]
    ) -> np.ndarray[Any, Any]:
        import zarr.buffer.cpu

        array, store, key = self._array_in_memory(shape)
        store.set_sync(key, zarr.buffer.cpu.Buffer.from_bytes(bytes(data)))
        return np.asarray(array[...])


def is_known(name: str) -> bool:
    """Whether Zarr, or an installed package that extends it, has a codec of this name."""
    from zarr.registry import get_codec_class

    try:
        get_codec_class(name)
    except (KeyError, ValueError):
        return False
    return True


def _transforms(codec: dict[str, Any]) -> tuple[Encode, Decode] | None:
    """The encoder and decoder of a bytes-to-bytes codec, or None when only zarr knows it."""
    name, configuration = codec["name"], codec.get("configuration", {})
    if name == "blosc":
        options = {
            "cname": configuration["cname"],
            "shuffle": _BLOSC_SHUFFLE[configuration["shuffle"]],
            "blocksize": configuration.get("blocksize", 0),
        }
        blosc = numcodecs.Blosc(clevel=configuration["clevel"], **options)
        if options["cname"] != "lz4":
            return blosc.encode, decompress.blosc
        # Blosc's level 0 has the same header, and any reader of Blosc reads it.
        uncompressed = numcodecs.Blosc(clevel=0, **options)
        return functools.partial(_encode_by_blosc, blosc, uncompressed), decompress.blosc
    if name == "zstd":
        zstd = numcodecs.Zstd(
            level=configuration["level"], checksum=configuration.get("checksum", False)
        )
        return zstd.encode, decompress.zstd
    if name == "gzip":
        gzip = numcodecs.GZip(level=configuration["level"])
        return gzip.encode, decompress.gzip
    if name == "crc32c":
        return _append_checksum, _verify_checksum
    return None


def _encode_by_blosc(
    blosc: numcodecs.Blosc, uncompressed: numcodecs.Blosc, data: np.ndarray[Any, Any] | bytes
) -> bytes:
    """A chunk encoded by Blosc; a large one that would hardly shrink is stored as it is."""
    if isinstance(data, np.ndarray) and data.nbytes >= _LARGE and not _shrinks(blosc, data):
        blosc = uncompressed
    encoded: bytes = blosc.encode(data)
    return encoded


def _shrinks(blosc: numcodecs.Blosc, data: np.ndarray[Any, Any]) -> bool:
    """Whether pieces from all over an array become smaller when they are compressed."""
    values, step = data.ravel(), data.size // _PIECES
    pieces = values[: _PIECES * step].reshape(_PIECES, step)[:, : _PIECE_BYTES // data.itemsize]
    pieces = np.ascontiguousarray(pieces)
    return len(blosc.encode(pieces)) < _WORTH_IT * pieces.nbytes


def _with_overhead(length: int) -> int:
    """The most bytes that a codec can make of this number of bytes."""
    return length + length // 64 + 4096


def _as_value_error(error: Exception) -> ValueError:
    """Turn any error of a decoder into the one kind that callers know.

    Too little memory for the size in the layout does not mean that the bytes are damaged.
    """
    if isinstance(error, MemoryError):
        raise error
    return error if isinstance(error, ValueError) else ValueError(str(error) or repr(error))


def _append_checksum(data: Any) -> bytes:
    content = data.tobytes() if isinstance(data, np.ndarray) else bytes(data)
    return content + int(google_crc32c.value(content)).to_bytes(4, "little")


def _verify_checksum(data: memoryview | bytes, most: int) -> bytes:
    content, stored = bytes(data[:-4]), int.from_bytes(data[-4:], "little")
    if len(data) < 4 or google_crc32c.value(content) != stored:
        raise ValueError("the checksum does not match")
    return content
