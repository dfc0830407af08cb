"""What only a directory has: files with times."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from zarrtrace.store.directory import stamp


@pytest.mark.parametrize(
    ("times", "on_network", "age"),
    [
        ("those of the system", False, 0.1),
        ("those of the system", True, 2.0),
        ("whole seconds", False, 2.0),
        ("hundredths of a second", False, 2.0),
    ],
)
def test_a_file_that_may_have_changed_twice_has_no_stamp(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: str, on_network: bool, age: float
) -> None:
    file = tmp_path / "file"
    file.write_text("one")
    if times != "those of the system":
        step = 10**9 if times == "whole seconds" else 10**7
        os.utime(file, ns=(0, file.stat().st_mtime_ns // step * step))
    status = file.stat()
    changed = max(status.st_mtime_ns, status.st_ctime_ns) / 1e9

    def stamp_after(seconds: float) -> tuple[int, ...] | None:
        monkeypatch.setattr("zarrtrace.store.directory.time.time", lambda: changed + seconds)
        return stamp(str(file), on_network)

    assert stamp_after(0.9 * age) is None
    assert stamp_after(1.1 * age) is not None
