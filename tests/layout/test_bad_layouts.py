"""A stored layout that cannot be right is a TraceError when the trace is opened, whatever it is."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import google_crc32c
import pytest

import zarrtrace as zt
from zarrtrace.errors import DamagedTraceError, FormatVersionError, TraceError, TraceNotFoundError


@pytest.fixture
def path(directory: Any) -> Path:
    """The directory of a trace with two dimensions, a group of data, and two draws."""
    trace = directory.create(
        chains=2,
        draws=3,
        posterior={"x": zt.Var(), "v": zt.Var(dims="s")},
        coords={"s": ["a", "b"]},
        observed_data={"y": [1.0]},
    )
    with trace.writer(0) as writer:
        writer.record_block({"x": [1.0, 2.0], "v": [[1, 2], [3, 4]]})
    found: Path = directory.path
    return found


MODES: tuple[Any, Any] = ("r", "a")


def change_layout(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Rewrite the stored layout, its checksum as it should be."""
    document = json.loads((path / "_sampling_state" / "zarr.json").read_text())
    layout = json.loads(document["attributes"]["zarrtrace"])
    changed = change(layout)
    text = json.dumps(layout if changed is None else changed)
    document["attributes"]["zarrtrace"] = text
    document["attributes"]["zarrtrace_crc32c"] = google_crc32c.value(text.encode())
    (path / "_sampling_state" / "zarr.json").write_text(json.dumps(document))


@pytest.mark.parametrize("version", [4, 1000])
def test_a_trace_of_a_newer_format_says_what_to_upgrade(path: Path, version: int) -> None:
    # A newer layout may have any content.
    change_layout(path, lambda layout: {"format_version": version, "new": {}})
    for mode in MODES:
        with pytest.raises(FormatVersionError, match=f"{version}; .*reads up to 3; upgrade"):
            zt.open(path, mode)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\xff\xfe\x00",
        b"[]",
        b"null",
        b"{",
        b'{"zarr_format": 3, "node_type": "group"}',
        b'{"attributes": []}',
        b'{"attributes": {"zarrtrace": 3}}',
        b'{"attributes": {"zarrtrace": "{"}}',
        b"[" * 100_000,
    ],
    ids=lambda text: repr(text[:40]),
)
def test_a_sampling_state_that_cannot_be_read_is_a_trace_error(path: Path, text: bytes) -> None:
    (path / "_sampling_state" / "zarr.json").write_bytes(text)
    for mode in MODES:
        with pytest.raises((DamagedTraceError, TraceNotFoundError), match=str(path)):
            zt.open(path, mode)


def test_a_flipped_letter_in_the_layout_is_found(path: Path) -> None:
    document = path / "_sampling_state" / "zarr.json"
    document.write_text(document.read_text().replace('\\"draws\\": 3', '\\"draws\\": 2'))
    with pytest.raises(DamagedTraceError, match="checksum does not match; restore"):
        zt.open(path)


REMOVED = ...
GROUP, VARIABLE, BYTES = ["groups", 0], ["groups", 0, "variables", 1], ["encodings", "float64"]


@pytest.mark.parametrize(
    ("keys", "values"),
    [
        ([], [None, 3, [], {}, "text", {"format_version": 1}]),
        (["format_version"], [REMOVED, 0, -1, True]),
        (["chains"], [REMOVED, None, 0, -1, 1.5, "2", True, 2**70]),
        (["tune"], [None, -1]),
        (["draws"], [-1, 2**70]),
        (["chains_per_chunk"], [0, None]),
        (["groups"], [REMOVED, None, [], {}, "posterior", [1], [{}]]),
        ([*GROUP, "name"], ["", "a/b", "..", None, 3]),
        ([*GROUP, "warmup"], [-1, 100, None]),
        ([*GROUP, "stored_warmup"], [-1, 100]),
        ([*GROUP, "moving_to"], [-1, 100, "1"]),
        ([*GROUP, "stored_first"], [-1, 1, "0", None]),
        (["dropped"], [-1, 1, 100, "0", None]),
        ([*GROUP, "moved"], [None, [1], [".."]]),
        ([*GROUP, "variables"], [[], None, [3]]),
        ([*VARIABLE, "name"], ["", "..", "a/b", 3]),
        ([*VARIABLE, "dtype"], ["object", "float128", "nonsense", 3, None, "int16", []]),
        ([*VARIABLE, "shape"], [[], [2, 2], [-1], "2", None, [1.5]]),
        ([*VARIABLE, "dims"], [[], ["s", "t"], ["chain"], ["x"], "s", [None]]),
        ([*VARIABLE, "draws_per_chunk"], [0, -1, None]),
        ([*VARIABLE, "attrs"], [None, 3]),
        (["coords"], [None, [], {"s": None}, {"..": "s"}]),
        (["data_groups"], [None, "y", [".."], [3]]),
        (["attrs"], [None, 3]),
        (["encodings"], [None, {}, []]),
        ([*BYTES, "codecs"], [REMOVED, None, [], {}, "zstd", [None], [{}], [{"name": "no-such"}]]),
        ([*BYTES, "codecs", 1, "configuration"], [None, {}, {"cname": "no-such"}]),
        (["journal"], [REMOVED]),
        (["flush_every"], ["often", None]),
        (["lost"], [None, [1], [["posterior"]]]),
        (["ended"], [3, [1], {}, {"recorded": [2, 0]}, {"recorded": [2], "sampling_time": 1}]),
        (["ended"], [{"recorded": [2, count], "sampling_time": 1} for count in (-1, "0", None)]),
        (["ended"], [{"recorded": [2, 0], "sampling_time": None}]),
    ],
    ids=lambda value: ".".join(map(str, value)) if isinstance(value, list) else "",
)
def test_a_layout_with_impossible_content_is_a_trace_error(
    path: Path, keys: list[Any], values: list[Any]
) -> None:
    document = path / "_sampling_state" / "zarr.json"
    sound = document.read_text()

    def change(value: Any) -> Callable[[dict[str, Any]], Any]:
        def apply(layout: Any) -> Any:
            if not keys:
                return {} if value is None else value
            for key in keys[:-1]:
                layout = layout[key]
            if value is REMOVED:
                del layout[keys[-1]]
            else:
                layout[keys[-1]] = value
            return None

        return apply

    for value in values:
        change_layout(path, change(value))
        for mode in MODES:
            with pytest.raises(TraceError):
                zt.open(path, mode)
        document.write_text(sound)
    assert zt.open(path, "a").recorded.tolist() == [2, 0]


@pytest.mark.filterwarnings("ignore:.*has no draw of chain 1:RuntimeWarning")
def test_a_coordinate_or_group_that_is_missing_is_named(path: Path) -> None:
    trace = zt.open(path)
    (path / "posterior" / "s" / "zarr.json").unlink()
    with pytest.raises(DamagedTraceError, match="posterior/s is missing"):
        _ = trace.posterior
    (path / "observed_data" / "zarr.json").unlink()
    with pytest.raises(DamagedTraceError, match="observed_data is missing"):
        _ = trace.observed_data
