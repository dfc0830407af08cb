"""Chunks are few, small enough, and byte for byte what zarr-python would have written."""

from __future__ import annotations

import json
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
import zarr.codecs.numcodecs
from zarr.codecs import BloscCodec, Crc32cCodec, GzipCodec, ZstdCodec
from zarr.storage import LocalStore, MemoryStore

import zarrtrace as zt
from zarrtrace.store.chunk_codec import ChunkCodec
from zarrtrace.store.zarr_json import compose_encoding, read_document

MIB = 2**20

# How many draws a chunk has -------------------------------------------------------------------


def chunk_lengths(**definition: Any) -> dict[str, int]:
    """Draws in a chunk of each variable."""
    trace = zt.create(MemoryStore(), **definition)
    return {name: chunks(trace, name)[1] for name in definition["posterior"]}


def chunks(trace: zt.Trace, name: str) -> list[int]:
    """The shape of the chunks of a variable of the posterior, in the document of its array."""
    document = read_document(trace._location, f"posterior/{name}")
    assert document is not None
    found: list[int] = document["chunk_grid"]["configuration"]["chunk_shape"]
    return found


@pytest.mark.once("oldest")
@pytest.mark.parametrize("shape", [(), (8,), (100,), (1000,), (50, 50), (200_000,), (600_000,)])
@pytest.mark.parametrize("dtype", ["int8", "float64"])
@pytest.mark.parametrize("chains_per_chunk", [1, 32])
@pytest.mark.parametrize(
    ("tune", "draws"), [(0, 1), (0, 1000), (1000, 1000), (997, 1003), (500, 100_000), (7, 10**6)]
)
def test_a_chunk_is_at_most_4_mib_and_there_are_not_many(
    shape: tuple[int, ...], dtype: str, chains_per_chunk: int, tune: int, draws: int
) -> None:
    var = zt.Var(shape=shape, dtype=dtype)
    length = chunk_lengths(
        chains=32,
        chains_per_chunk=chains_per_chunk,
        tune=tune,
        draws=draws,
        posterior={"x": var},
    )["x"]
    total = tune + draws
    row = prod(shape) * np.dtype(dtype).itemsize * chains_per_chunk
    assert 1 <= length <= total
    assert length * row <= 4 * MIB or length == 1
    # Were a chunk of 4 MiB a 32nd of a chain or more, there are at most 32, or half filled ones.
    if 4 * MIB // row * 32 >= total:
        assert -(-total // length) <= 32
    else:
        assert length * row > MIB or length == 1
    # The split moves whole chunks where that takes less than twice as many.
    if any(tune % other == 0 for other in range(length // 2 + 1, min(length, tune) + 1)):
        assert tune % length == 0


@pytest.mark.once("oldest")
@pytest.mark.parametrize("chains_per_chunk", [1, 8])
@pytest.mark.parametrize(
    "posterior",
    [
        {f"v{i}": zt.Var(shape=1000) for i in range(100)},
        {f"v{i}": zt.Var() for i in range(500)},
        {**{f"s{i}": zt.Var() for i in range(50)}, "big": zt.Var(shape=10**6)},
        {f"v{i}": zt.Var(shape=4 ** (i % 9)) for i in range(40)},
    ],
    ids=["vectors", "scalars", "one big", "mixed"],
)
def test_the_buffer_of_a_writer_is_bounded(posterior: Any, chains_per_chunk: int) -> None:
    lengths = chunk_lengths(
        chains=8, chains_per_chunk=chains_per_chunk, tune=1000, draws=1000, posterior=posterior
    )
    sizes = {name: prod([var.shape or 1]) * 8 * chains_per_chunk for name, var in posterior.items()}
    assert sum(sizes[name] * lengths[name] for name in sizes) <= 64 * MIB


@pytest.mark.once("oldest")
def test_two_hundred_variables_make_few_files(tmp_path: Path) -> None:
    posterior = {f"v{i}": zt.Var() for i in range(200)}
    trace = zt.create(tmp_path / "run.zarr", chains=4, tune=1000, draws=1000, posterior=posterior)
    values = {name: np.zeros(2000) for name in posterior}
    for chain in range(4):
        with trace.writer(chain) as writer:
            writer.record_block(values)
    trace.finish()
    files = [path for path in (tmp_path / "run.zarr").rglob("*") if path.is_file()]
    assert len(files) <= 3 * 200 * 4


def test_the_user_may_choose_the_length(fast_place: Any) -> None:
    posterior = {"a": zt.Var(draws_per_chunk=7), "b": zt.Var(), "c": zt.Var(draws_per_chunk=500)}
    trace = fast_place.create(
        chains=1, draws=100, draws_per_chunk=np.int64(30), posterior=posterior
    )
    assert {name: chunks(trace, name) for name in posterior} == {
        "a": [1, 7],
        "b": [1, 30],
        "c": [1, 500],  # there may be more draws later
    }


# What is in a chunk ---------------------------------------------------------------------------

VARIABLES: dict[str, zt.Var] = {
    "f8": zt.Var(shape=(3, 2)),
    "f2": zt.Var(dtype="float16"),
    "c8": zt.Var(dtype="complex64"),
    "i2": zt.Var(dtype="int16", shape=4),
    "u8": zt.Var(dtype="uint64"),
    "flag": zt.Var(dtype=bool),
    "text": zt.Var(dtype=str, shape=2),
    "time": zt.Var(dtype="M8[us]"),
}
CODECS: dict[str, dict[str, Any]] = {
    "default": {},
    "blosc": {"compressors": BloscCodec(cname="zstd", clevel=7, shuffle="bitshuffle")},
    "zstd": {"compressors": ZstdCodec(level=3, checksum=True)},
    "gzip": {"compressors": [GzipCodec(level=1)]},
    "none": {"compressors": None},
    "blosc and crc32c": {"compressors": [BloscCodec(cname="lz4"), Crc32cCodec()]},
    "crc32c": {"compressors": [Crc32cCodec()]},
    "checksum": {"checksum": True},
    "none and checksum": {"compressors": None, "checksum": True},
}


def values_of(var: zt.Var, chains: int, draws: int) -> np.ndarray[Any, Any]:
    rng = np.random.default_rng(1)
    shape = (chains, draws, *np.zeros(var.shape or ()).shape)
    if var.dtype is str:
        words = np.array(["", "a", "ö", "word " * 20], dtype=np.dtypes.StringDType())
        return rng.choice(words, size=shape)
    if var.dtype == "complex64":
        return rng.normal(size=shape).astype("complex64")
    if var.dtype == "M8[us]":
        return rng.integers(0, 2**50, size=shape).view("M8[us]")
    dtype = np.dtype(var.dtype)  # type: ignore[arg-type]
    numbers = rng.normal(size=shape) if dtype.kind == "f" else rng.integers(0, 100, size=shape)
    return numbers.astype(dtype)


def record_all(trace: zt.Trace, draws: int) -> dict[str, np.ndarray[Any, Any]]:
    """Record draws of all chains into sample_stats; what was recorded."""
    values = {name: values_of(var, trace.chains, draws) for name, var in VARIABLES.items()}
    zeros = np.zeros((trace.chains, draws, *trace.posterior.x.shape[2:]))
    for block in trace.blocks:
        part = block if isinstance(block, int) else slice(block.start, block.stop)
        with trace.writer(block) as writer:
            stats = {name: array[part] for name, array in values.items()}
            writer.record_block({"x": zeros[part]}, stats)
    return values


def content(path: Path, codec: str) -> bytes:
    """The bytes of a chunk; those of gzip without the time at which they were written."""
    found = path.read_bytes()
    return found[:4] + found[8:] if codec == "gzip" else found


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("chains_per_chunk", [1, 2])
def test_chunks_are_the_bytes_zarr_python_writes(
    tmp_path: Path, codec: str, chains_per_chunk: int
) -> None:
    path = tmp_path / "run.zarr"
    trace = zt.create(
        path,
        chains=3,
        draws=12,
        draws_per_chunk=4,
        chains_per_chunk=chains_per_chunk,
        posterior={"x": zt.Var()},
        sample_stats=VARIABLES,
        **CODECS[codec],
    )
    values = record_all(trace, 12)
    for name, expected in values.items():
        # The same array, written through zarr-python's own pipeline.
        other = tmp_path / "other" / name
        other.mkdir(parents=True)
        ours = path / "sample_stats" / name
        document = json.loads((ours / "zarr.json").read_text())
        del document["zarrtrace_unfinished"]
        (other / "zarr.json").write_text(json.dumps(document))
        array = zarr.open_array(LocalStore(other), mode="r+")
        array.with_config({"write_empty_chunks": True})[...] = expected
        keys = {found.name for found in other.iterdir()}
        assert {found.name for found in ours.iterdir()} == keys
        assert len(keys) == 1 + -(-3 // chains_per_chunk) * 3
        for key in keys - {"zarr.json"}:
            assert content(ours / key, codec) == content(other / key, codec), (name, key)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_large_chunk_that_would_hardly_shrink_is_stored_as_it_is(
    tmp_path: Path, dtype: str
) -> None:
    size = 2**20 // np.dtype(dtype).itemsize + 3
    noise = np.random.default_rng(1).normal(size=size).astype(dtype)
    half = np.where(np.arange(size) < size // 2, noise, 0)
    draws = {"noise": noise, "half": half.astype(dtype)}
    posterior = {name: zt.Var(shape=size, dtype=dtype) for name in draws}
    path = tmp_path / "run.zarr"
    trace = zt.create(path, chains=1, draws=1, posterior=posterior)
    with trace.writer(0) as writer:
        writer.record(draws)
    stored = {name: (path / "posterior" / name / "c.0.0.0").read_bytes() for name in draws}
    assert stored["noise"][16:] == noise.tobytes()
    assert len(stored["half"]) < 0.55 * noise.nbytes
    # By its header, either is a full chunk of lz4.
    assert {data[2] >> 5 for data in stored.values()} == {1}
    trace.finish()
    for name, expected in draws.items():
        found = zarr.open_array(path / "posterior" / name)[0, 0]
        np.testing.assert_array_equal(found, expected, strict=True)


def test_the_default_codec_is_blosc_lz4_with_shuffle(tmp_path: Path) -> None:
    zt.create(tmp_path / "run.zarr", chains=1, draws=2, posterior={"x": zt.Var(dtype="float32")})
    document = json.loads((tmp_path / "run.zarr" / "posterior" / "x" / "zarr.json").read_text())
    bytes_codec, blosc = document["codecs"]
    assert bytes_codec == {"name": "bytes", "configuration": {"endian": "little"}}
    assert blosc["name"] == "blosc"
    assert blosc["configuration"] | {"blocksize": 0} == {
        "typesize": 4,
        "cname": "lz4",
        "clevel": 5,
        "shuffle": "shuffle",
        "blocksize": 0,
    }


@pytest.mark.filterwarnings("ignore:Numcodecs codecs are not in the Zarr version 3")
@pytest.mark.parametrize("kind", ["Zlib", "LZMA"])
def test_any_codec_of_zarr_records_and_reads(memory: Any, kind: str) -> None:
    codec = getattr(zarr.codecs.numcodecs, kind)()
    trace = memory.create(
        chains=1,
        tune=3,
        draws=7,
        draws_per_chunk=4,
        posterior={"x": zt.Var(dims="s")},
        sample_stats=VARIABLES,
        coords={"s": ["a", "b"]},
        observed_data={"obs": ("s", [1.0, 2.0])},
        compressors=[codec],
    )
    values = record_all(trace, 10)
    trace.finish()
    group = zarr.open_group(memory.store, path="sample_stats", mode="r")
    for name, expected in values.items():
        for found in (memory.open().sample_stats[name].values, np.asarray(group[name][...])):
            assert found.tolist() == expected[:, 3:].tolist()
        assert found.dtype == expected.dtype
    for dataset in (memory.open().posterior, memory.open().observed_data):
        assert dataset.s.values.tolist() == ["a", "b"]


# Decoded where it belongs ---------------------------------------------------------------------

ENCODED = {
    "blosc": "auto",
    "blosc and checksum": [BloscCodec(), Crc32cCodec()],
    "zstd": ZstdCodec(),
    "none": None,
}


@pytest.mark.parametrize("compressors", ENCODED.values(), ids=ENCODED)
@pytest.mark.parametrize("contiguous", [True, False])
@pytest.mark.parametrize("dtype", ["float64", "int16", "bool"])
def test_a_chunk_is_decoded_into_an_array(compressors: Any, contiguous: bool, dtype: str) -> None:
    encoding = compose_encoding(np.dtype(dtype), compressors)
    codec = ChunkCodec(np.dtype(dtype), encoding)
    values = np.random.default_rng(1).normal(size=(1, 50, 7)).astype(dtype)
    around = np.zeros((3, 50, 7) if contiguous else (1, 150, 14), dtype)
    into = around[1:2] if contiguous else around[:, 50:100, ::2]
    codec.decode_into(codec.encode(values), into)
    assert np.array_equal(into, values)
    into[...] = 0
    assert not around.any()  # nothing was put elsewhere


@pytest.mark.parametrize("length", [0, 3, 15, 16, 40, -1])
@pytest.mark.parametrize("said", [None, 0, 8, 2**31 - 1])
def test_a_damaged_chunk_is_never_decoded_past_its_array(length: int, said: int | None) -> None:
    codec = ChunkCodec(np.dtype("float64"), compose_encoding(np.dtype("float64"), "auto"))
    data = bytearray(codec.encode(np.arange(1000.0).reshape(1, 1000)))
    if said is not None:
        data[4:8] = said.to_bytes(4, "little")
    around = np.zeros((3, 1000))
    with pytest.raises((ValueError, RuntimeError)):
        codec.decode_into(bytes(data[:length]), around[1:2])
    assert not around[[0, 2]].any()


def test_many_large_chunks_are_read_side_by_side(fast_place: Any) -> None:
    values = np.random.default_rng(1).normal(size=(3, 100, 20_000))  # 48 MB
    posterior = {"x": zt.Var(shape=20_000, draws_per_chunk=7)}
    trace = fast_place.create(chains=3, tune=10, draws=90, posterior=posterior)
    for chain in range(3):
        with trace.writer(chain) as writer:
            writer.record_block({"x": values[chain]})
    for draws in (slice(None), slice(3, 80, 7), slice(50, 51)):
        assert np.array_equal(trace.get("x", draws=draws), values[:, 10:][:, draws])
    assert np.array_equal(trace.posterior.x.values, values[:, 10:])
    assert np.array_equal(trace.posterior.x[::-1, 5:40, 3].values, values[::-1, 15:50, 3])
