"""A chunk that is not full shows how many draws it holds, whatever its values and its codecs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from zarr.codecs import BloscCodec, ZstdCodec

from zarrtrace.sampling_state.draw_codec import HEADER, DrawCodec
from zarrtrace.store.zarr_json import compose_encoding

DTYPES = ["f8", "f4", "f2", "c8", "i8", "i4", "i2", "i1", "u1", "?", "M8[ns]"]
# The first bytes of the marks, as values of these dtypes.
LIKE_MARKS = np.frombuffer(bytes.fromhex("d3ffdb7fe57ff6ff") * 5, np.uint8)


def codec_of(dtype: str, compressors: Any, checksum: bool = False) -> DrawCodec:
    encoding = compose_encoding(np.dtype(dtype), compressors, checksum)
    return DrawCodec(np.dtype(dtype), encoding, dtype == "?", shows_draws=True)


def draws_in(codec: DrawCodec, data: bytes, shape: tuple[int, ...]) -> int:
    assert codec.may_be_partial(data) == codec.may_be_partial(data[:HEADER])
    return codec.draws_in(codec.decode(data, shape)) if codec.may_be_partial(data) else shape[1]


@pytest.mark.once("newest")
@pytest.mark.parametrize("checksum", [False, True])
@pytest.mark.parametrize("compressors", ["auto", [BloscCodec(cname="zstd")], None, [ZstdCodec()]])
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_draws_in_a_chunk(dtype: str, compressors: Any, checksum: bool) -> None:
    codec = codec_of(dtype, compressors, checksum)
    # The last ones are compared in several parts, the first of 16 draws.
    for shape in ((1, 9), (2, 4, 3), (3, 1, 2), (1, 75), (2, 50, 3)):
        values = np.resize([0, 0, 1], shape).astype(dtype)
        for draws in range(1, shape[1] + 1):
            data = codec.encode(values, draws, places=shape[1])
            assert np.array_equal(codec.decode(data, shape)[:, :draws], values[:, :draws])
            is_short = (shape[1] - draws) * shape[0] * values.itemsize < 4
            if is_short and not codec.names_partial and np.dtype(dtype).kind in "iu":
                continue  # too few marks to prove anything
            assert draws_in(codec, data, shape) == draws
            # The array ends there: this chunk never has more draws.
            assert draws_in(codec, codec.encode(values, draws, places=draws), shape) == shape[1]


@pytest.mark.parametrize("dtype", ["u1", "i2", "i8"])
def test_draws_that_look_like_marks_are_draws(dtype: str) -> None:
    codec = codec_of(dtype, "auto")
    values = LIKE_MARKS.view(dtype).reshape(1, -1)
    length = values.shape[1]
    for draws in range(1, length + 1):
        assert draws_in(codec, codec.encode(values, draws, length), values.shape) == draws
