"""One chunk ↔ the bytes of its key.

The common codecs (blosc, zstd, gzip, crc32c) go through numcodecs: the same bytes as zarr-python's
codec pipeline, at a tenth of its cost for small chunks. Any other codec goes through a Zarr array
of one chunk in memory, so that whatever zarr can encode, a trace can hold.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import google_crc32c
import numcodecs
import numpy as np

from .dtypes import fill_value

_BLOSC_HEADER = 16  # bytes; 4 to 7 are the length of what is decoded, 12 to 15 of what is encoded
_BLOSC_SHUFFLE = {"noshuffle": 0, "shuffle": 1, "bitshuffle": 2}

# Of one with any other settings it decodes too.
_BLOSC = numcodecs.Blosc()

Transform = Callable[[Any], Any]


class ChunkCodec:
    """Encodes and decodes chunks of one dtype and one chain of codecs.

    Parameters
    ----------
    dtype : numpy.dtype
        Of the decoded chunk; `numpy.dtypes.StringDType` for strings.
    encoding : dict
        `data_type`, `fill_value` and `codecs`, as an array's zarr.json has them.
    """

    def __init__(self, dtype: np.dtype[Any], encoding: dict[str, Any]) -> None:
        self.dtype = dtype
        self.fill = fill_value(dtype)
        # Of a whole zarr.json too: its shape is not that of a chunk.
        self._encoding = {key: encoding[key] for key in ("data_type", "fill_value", "codecs")}
        self._strings = isinstance(dtype, np.dtypes.StringDType)
        first, *rest = encoding["codecs"]
        known = [_transforms(codec) for codec in rest]
        known_first = first["name"] == ("vlen-utf8" if self._strings else "bytes")
        little = first.get("configuration", {}).get("endian", "little") == "little"
        # None: a codec we have no short way for.
        self._transforms: list[tuple[Transform, Transform]] | None = None
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

    def decode(self, data: memoryview | bytes, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
        """The chunk of this shape that the bytes hold; ValueError or RuntimeError if they don't.

        The array may be read-only.
        """
        if self._transforms is None:
            return self._decode_through_zarr(data, shape)
        if self._strings:
            return self.decode_strings(data).astype(self.dtype).reshape(shape)
        return np.frombuffer(self._transformed(data), dtype=self.dtype).reshape(shape)

    def decode_into(self, data: memoryview | bytes, into: np.ndarray[Any, Any]) -> None:
        """Decode a chunk into an array of its shape and dtype: straight there, if Blosc alone can.

        Raises as `decode`.
        """
        # What the bytes say they hold: Blosc itself would also accept less.
        fits = int.from_bytes(data[4:8], "little") == into.nbytes
        if self._only_blosc and fits and into.flags.c_contiguous:
            _decode_blosc(data, into)
        else:
            into[...] = self.decode(data, into.shape)

    def decode_strings(self, data: memoryview | bytes) -> np.ndarray[Any, Any]:
        """The strings of a chunk as Python objects: NumPy's own take a second for a megabyte."""
        strings = numcodecs.VLenUTF8().decode(self._transformed(data))
        return np.asarray(strings, dtype=object)

    def _transformed(self, data: memoryview | bytes) -> Any:
        decoded: Any = data
        for _, decode in reversed(self._transforms or []):
            decoded = decode(decoded)
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


def _transforms(codec: dict[str, Any]) -> tuple[Transform, Transform] | None:
    """The encoder and decoder of a bytes-to-bytes codec, or None when only zarr knows it."""
    name, configuration = codec["name"], codec.get("configuration", {})
    if name == "blosc":
        blosc = numcodecs.Blosc(
            cname=configuration["cname"],
            clevel=configuration["clevel"],
            shuffle=_BLOSC_SHUFFLE[configuration["shuffle"]],
            blocksize=configuration.get("blocksize", 0),
        )
        return blosc.encode, _decode_blosc
    if name == "zstd":
        zstd = numcodecs.Zstd(
            level=configuration["level"], checksum=configuration.get("checksum", False)
        )
        return zstd.encode, zstd.decode
    if name == "gzip":
        gzip = numcodecs.GZip(level=configuration["level"])
        return gzip.encode, gzip.decode
    if name == "crc32c":
        return _append_checksum, _verify_checksum
    return None


def _decode_blosc(data: Any, into: np.ndarray[Any, Any] | None = None) -> Any:
    # Blosc believes what the bytes say of their own length, and would read past their end.
    if len(data) < _BLOSC_HEADER or int.from_bytes(data[12:16], "little") != len(data):
        raise ValueError("its length is not what it says of itself")
    return _BLOSC.decode(data, into)


def _append_checksum(data: Any) -> bytes:
    content = data.tobytes() if isinstance(data, np.ndarray) else bytes(data)
    return content + int(google_crc32c.value(content)).to_bytes(4, "little")


def _verify_checksum(data: memoryview | bytes) -> bytes:
    content, stored = bytes(data[:-4]), int.from_bytes(data[-4:], "little")
    if google_crc32c.value(content) != stored:
        raise ValueError("the checksum does not match")
    return content
