"""What is read is bounded by what the layout says and by the file; only regular files are read."""

from __future__ import annotations

import errno
import gzip
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import google_crc32c
import numcodecs
import numpy as np
import pytest
import zarr.codecs
from zarr.storage import LocalStore

import zarrtrace as zt
from zarrtrace import folder as runs
from zarrtrace.cli import main
from zarrtrace.errors import DamagedTraceError
from zarrtrace.life.description import describe_groups
from zarrtrace.store.chunk_codec import ChunkCodec
from zarrtrace.store.dtypes import STRING
from zarrtrace.store.location import Location
from zarrtrace.store.zarr_json import compose_encoding

FLOAT = np.dtype("float64")
# A frame that does not say its length: one block, which repeats one byte.
UNSAID = b"\x28\xb5\x2f\xfd\0\x90" + (3 + (2**20 << 3)).to_bytes(3, "little") + b"\0"


def blosc_of(content: bytes) -> bytes:
    return bytes(numcodecs.Blosc().encode(content))


@pytest.mark.parametrize("place", range(16))
@pytest.mark.parametrize("value", [0x7F, 0x80, 0xFF])
def test_a_header_of_blosc_that_is_damaged_is_a_value_error(place: int, value: int) -> None:
    codec = ChunkCodec(FLOAT, compose_encoding(FLOAT, "auto"))
    values = np.arange(1000.0)
    data = bytearray(codec.encode(values))
    data[place] = value
    try:
        found = codec.decode(bytes(data), (1000,))
    except ValueError:
        return
    assert found.shape == (1000,)


@pytest.mark.parametrize(
    ("compressor", "bomb"),
    [
        (zarr.codecs.BloscCodec(), blosc_of(bytes(2**26))),
        (zarr.codecs.ZstdCodec(), bytes(numcodecs.Zstd().encode(bytes(2**26)))),
        (zarr.codecs.ZstdCodec(), UNSAID),
        (zarr.codecs.GzipCodec(), gzip.compress(bytes(2**26))),
    ],
    ids=["blosc", "zstd", "zstd without length", "gzip"],
)
def test_a_chunk_that_holds_more_than_it_should_is_not_decompressed(
    compressor: Any, bomb: bytes
) -> None:
    import tracemalloc

    codec = ChunkCodec(FLOAT, compose_encoding(FLOAT, [compressor]))
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="bytes"):
            codec.decode(bomb, (10,))
        assert tracemalloc.get_traced_memory()[1] < 2**22
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("compressors", [zarr.codecs.ZstdCodec(), zarr.codecs.GzipCodec()])
def test_frames_that_follow_each_other_are_one(compressors: Any) -> None:
    codec = ChunkCodec(FLOAT, compose_encoding(FLOAT, [compressors]))
    parts = codec.encode(np.arange(3.0)) + codec.encode(np.arange(3.0, 5.0))
    assert codec.decode(parts, (5,)).tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("count", [0, 1, 3, 2**31, 2**32 - 1])
def test_texts_of_another_number_are_refused_before_there_is_room_for_them(count: int) -> None:
    codec = ChunkCodec(STRING, compose_encoding(STRING, None))
    data = codec.encode(np.array(["a", "b"], STRING))
    with pytest.raises(ValueError, match=f"says {count:,} texts"):
        codec.decode(count.to_bytes(4, "little") + data[4:], (2,))
    with pytest.raises(ValueError, match="truncated"):
        codec.decode(data[:4] + b"\xfb\xff\xff\xff" + data[8:], (2,))


# Files ----------------------------------------------------------------------------------------


@pytest.fixture
def path(directory: Any) -> Path:
    """A trace with text, labels and data, two draws recorded, and a writer's journal."""
    trace = directory.create(
        chains=1,
        draws=3,
        posterior={"v": zt.Var(dims="s"), "word": zt.Var(dtype=str)},
        coords={"s": ["a", "b"]},
        observed_data={"y": [1.0, 2.0]},
    )
    with trace.writer(0) as writer:
        writer.record_block({"v": [[1, 2], [3, 4]], "word": ["p", "q"]})
    found: Path = directory.path
    return found


LOOKS: list[Callable[[zt.Trace], Any]] = [
    lambda trace: trace.get("word"),
    lambda trace: trace.get("v"),
    lambda trace: trace.to_datatree().load(),
]


@pytest.mark.parametrize("kind", ["pipe", "device", "huge"])
@pytest.mark.parametrize(
    "key",
    [
        "_sampling_state/zarr.json",
        "_sampling_state/draw_idx/c.0",
        "_sampling_state/journal/c.0.0",
        "posterior/word/c.0.0",
        "posterior/s/zarr.json",
        "posterior/s/c.0",
        "observed_data/zarr.json",
        "observed_data/y/zarr.json",
        "observed_data/y/c.0",
    ],
)
def test_what_is_not_a_file_or_far_too_large_is_never_read(path: Path, key: str, kind: str) -> None:
    if key.endswith("draw_idx/c.0"):
        (path / "_sampling_state/journal/c.0.0").unlink()
    if kind == "huge" and "journal" in key:
        return  # mapped, and not read
    (path / key).unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(path / key)
    elif kind == "device":
        (path / key).symlink_to("/dev/zero")
    else:
        (path / key).touch()
        os.truncate(path / key, 2**40)
    raised = []
    for look in LOOKS:
        try:
            look(zt.open(path))
        except DamagedTraceError as error:
            raised.append(str(error))
    assert raised
    assert all(str(path) in said for said in raised)


@pytest.mark.parametrize("group", ["posterior/s", "observed_data/y", "observed_data/y_dim_0"])
@pytest.mark.parametrize("size", [10**9, 10**18, -1])
def test_a_shape_that_no_chunk_justifies_is_not_believed(path: Path, group: str, size: int) -> None:
    document = json.loads((path / group / "zarr.json").read_text())
    for chunk in (size, 2):
        document["shape"] = [size]
        document["chunk_grid"]["configuration"]["chunk_shape"] = [chunk]
        (path / group / "zarr.json").write_text(json.dumps(document))
        with pytest.raises(DamagedTraceError, match=group.partition("/")[0]):
            zt.open(path).to_datatree().load()
        assert any(group in str(damage) for damage in zt.open(path).check())


@pytest.mark.parametrize("finished", [False, True])
@pytest.mark.parametrize(
    "key", ["posterior/v", "posterior/s", "posterior", "observed_data/y", "observed_data", ""]
)
def test_check_names_a_document_that_cannot_be_read_and_continues(
    path: Path, key: str, finished: bool
) -> None:
    if finished:
        zt.open(path, "a").finish()
    [chunk, *_] = (path / "posterior/word").glob("[c0]*")
    chunk.write_bytes(b"nothing")
    (path / key / "zarr.json").unlink()
    os.mkfifo(path / key / "zarr.json")
    found = [str(damage) for damage in zt.open(path).check()]
    assert any(key in said and "neither a file nor a directory" in said for said in found)
    assert any("posterior/word" in said for said in found)


@pytest.mark.once("newest")
def test_a_pipe_among_the_files_of_a_trace_does_not_hold_up_a_finish(path: Path) -> None:
    (path / "posterior/s/c.0").unlink()
    os.mkfifo(path / "posterior/s/c.0")
    zt.open(path, "a").finish()
    assert zt.open(path).get("v").tolist() == [[[1, 2], [3, 4]]]
    assert "posterior/s" in str(zt.open(path).check())


@pytest.mark.once("newest")
def test_a_pipe_is_not_copied_where_there_are_no_links(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*arguments: Any, **options: Any) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refused)
    os.mkfifo(path / "pipe")
    location = Location(LocalStore(path), read_only=False)
    with pytest.raises(zt.TraceError, match="neither a file nor a directory"):
        location.share("pipe", "copy")
    location.share("posterior/zarr.json", "copy")
    assert (path / "copy").read_bytes() == (path / "posterior/zarr.json").read_bytes()


@pytest.mark.once("newest")
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_pipe_in_the_place_of_a_trace_is_refused_at_once(tmp_path: Path, overwrite: bool) -> None:
    os.mkfifo(tmp_path / "run.zarr")
    with pytest.raises(zt.TraceError, match=r"run\.zarr"):
        zt.create(
            tmp_path / "run.zarr", chains=1, draws=1, posterior={"x": 0.0}, overwrite=overwrite
        )
    assert [path.name for path in tmp_path.iterdir()] == ["run.zarr"]


def test_damaged_data_leaves_the_rest_to_be_seen(path: Path) -> None:
    (path / "observed_data/y/zarr.json").write_text("{")
    trace = zt.open(path)
    groups = describe_groups(trace._now(), trace._beside())
    assert "y (damaged: see check())" in [text for group in groups for text, *_ in group.variables]
    assert "observed_data  y" in repr(trace)
    assert trace.get("v").shape == (1, 2, 2)


def test_files_of_a_desktop_are_not_missing_arrays(path: Path) -> None:
    for group in ("posterior", "observed_data"):
        for name in (".DS_Store", "._x", ".nfs00000001", "zarr.json~"):
            (path / group / name).write_bytes(b"\0")
        (path / group / ".snapshot").mkdir()
        (path / group / ".snapshot" / "x").write_bytes(b"")
    assert zt.open(path).check() == []


def test_a_folder_is_listed_whatever_lies_in_it(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with zipfile.ZipFile(path.parent / "paper.zip", "w") as file:
        file.writestr("paper.tex", "text")
    (path.parent / "broken.zip").write_bytes(b"PK")
    os.mkfifo(path.parent / "pipe.zip")
    state = path / "_sampling_state" / "zarr.json"
    document = json.loads(state.read_text())
    text = document["attributes"]["zarrtrace"].replace('"created_at": "', '"created_at": "never ')
    document["attributes"] = {
        "zarrtrace": text,
        "zarrtrace_crc32c": google_crc32c.value(text.encode()),
    }
    state.write_text(json.dumps(document))
    assert main(["ls", str(path.parent)]) == 0
    assert "1 run in" in capsys.readouterr().out
    assert len(runs.open(path.parent).to_dataframe()) == 1


def test_names_do_not_reach_the_terminal_as_escapes_or_markup(
    directory: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["b\x1b[31mRED\x1b[0m", "x[red]y", "z[bold]", ":smile:"]
    attrs = {"note": "\x1b]0;owned\x07", "other": "[/nothing]"}
    trace = directory.create(
        chains=1,
        draws=2,
        posterior={name: zt.Var() for name in names},
        attrs=attrs,
        name="m\x1b[1m",
    )
    for command in ("info", "ls", "check"):
        main([command, str(directory.path.parent if command == "ls" else directory.path)])
    said = capsys.readouterr().out + repr(trace)
    assert "\x1b" not in said
    assert "\x07" not in said
    for shown in ("x[red]y", "z[bold]", ":smile:", r"b\x1b[31mRED", "[/nothing]", r"m\x1b[1m"):
        assert shown in said


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills a forked process")
def test_journals_reserved_by_killed_processes_go_when_the_chain_is_opened(
    directory: Any, script: Any
) -> None:
    directory.create(chains=1, draws=1000, posterior={"x": zt.Var(shape=10)})
    code = """
        import os, sys
        import zarrtrace as zt
        for _ in range(3):
            if (pid := os.fork()) == 0:
                kill = lambda name, _: os.kill(os.getpid(), 9) if name == "os.link" else None
                sys.addaudithook(kill)
                zt.open(sys.argv[1], "a").writer(0)
            os.waitpid(pid, 0)
    """
    script.run(code, directory.path)
    left = list(directory.path.rglob("*.partial"))
    assert len(left) == 3
    with zt.open(directory.path, "a").writer(0) as writer:
        writer.record({"x": np.zeros(10)})
    assert not list(directory.path.rglob("*.partial"))


def test_a_directory_in_place_of_a_file_is_named_and_not_removed(path: Path) -> None:
    (path / "_sampling_state/journal/c.0.0").unlink()
    key = path / "_sampling_state" / "draw_idx" / "c.0"
    key.unlink(missing_ok=True)
    key.mkdir()
    trace = zt.open(path, "a")
    for act in (
        lambda: trace._location.write("_sampling_state/draw_idx/c.0", b""),
        lambda: trace._location.delete("_sampling_state/draw_idx/c.0"),
    ):
        with pytest.raises(DamagedTraceError, match=r"directory in place of .*c\.0; remove it"):
            act()
    assert key.is_dir()
