"""The overview of a folder of runs: what it says, what it reads, and what it never shows."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import zarrtrace as zt
from zarrtrace.cli import main
from zarrtrace.serving import folder_look
from zarrtrace.serving.overview import Overview

opened: list[str] | None = None


def count_opened(event: str, arguments: tuple[Any, ...]) -> None:
    if opened is not None and event == "open":
        opened.append(str(arguments[0]))


sys.addaudithook(count_opened)


def make(path: Path, draws: int = 40, *, finish: bool = True) -> zt.Trace:
    trace = zt.create(path, chains=2, draws=40, posterior={"mu": 0.0})
    for chain in range(2):
        with trace.writer(chain) as writer:
            mu = np.random.default_rng(chain).normal(size=draws) + 9 * chain
            writer.record_block({"mu": mu})
    if finish:
        trace.finish()
    return trace


def refreshed(overview: Overview, name: str) -> dict[str, Any]:
    """The row of a run after another look, in models that were filled."""
    layout: Any = overview.layout()
    overview.refresh()
    overview.fill(layout)
    data = layout.select_one({"name": "table"}).source.data
    row = list(data["name"]).index(name)
    return {field: values[row] for field, values in data.items()}


def said(overview: Overview) -> str:
    layout: Any = overview.layout()
    parts = [layout.select_one({"name": name}).text for name in ("heading", "problems")]
    return " ".join(parts)


def test_the_overview_says_of_each_run_what_ls_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overview = Overview(tmp_path, lambda name: f"run/{name}")
    overview.refresh()
    assert "There is no run in this folder yet" in said(overview)
    make(tmp_path / "done")
    make(tmp_path / "stopped", 20, finish=False)
    damaged = make(tmp_path / "damaged")
    (Path(damaged.path) / "_sampling_state/zarr.json").write_text("{")
    done, stopped = refreshed(overview, "done"), refreshed(overview, "stopped")
    assert main(["ls", str(tmp_path)]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert (done["status"], stopped["status"]) == ("finished", "stopped")
    for row in (done, stopped):
        for field in ("status", "draws", "rhat_label", "chains_label"):
            assert row[field] in lines[row["name"]], field
    assert done["is_apart"]
    assert done["address"] == "run/done"
    assert refreshed(overview, "damaged")["status"] == "damaged"
    assert "damaged" in said(overview)
    shutil.rmtree(damaged.path)
    assert refreshed(overview, "damaged")["status"] == "gone"
    make(tmp_path / "damaged")
    assert refreshed(overview, "damaged")["status"] == "finished"
    shutil.move(tmp_path, f"{tmp_path}.moved")
    assert refreshed(overview, "done")["status"] == "finished"
    assert "The folder cannot be read" in said(overview)
    shutil.move(f"{tmp_path}.moved", tmp_path)
    overview.refresh()
    assert "cannot be read" not in said(overview)


def test_a_run_that_is_recorded_shows_its_speed_and_when_it_was_heard_of(tmp_path: Path) -> None:
    trace = zt.create(tmp_path / "run", chains=2, draws=100, posterior={"mu": 0.0})
    overview = Overview(tmp_path, str)
    assert refreshed(overview, "run")["status"] == "new"
    writers = [trace.writer(chain) for chain in range(2)]
    row = refreshed(overview, "run")
    assert (row["status"], row["draws"]) == ("sampling", "0 of 100")
    for number in range(30):
        for writer in writers:
            writer.record({"mu": float(number)})
    row = refreshed(overview, "run")
    assert (row["status"], row["draws"]) == ("sampling", "30 of 100")
    assert row["rate"] > 0
    assert row["heard_label"].endswith(" s ago")
    for writer in writers:
        writer.close()
    row = refreshed(overview, "run")
    assert (row["status"], row["rate_label"]) == ("stopped", "")


@pytest.mark.once("newest")
def test_of_a_thousand_runs_only_those_that_changed_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    global opened
    make(tmp_path / "run0")
    for number in range(1, 1000):
        shutil.copytree(tmp_path / "run0", tmp_path / f"run{number}", copy_function=os.link)
    # What has just changed is read again; here it was long ago.
    monkeypatch.setattr(folder_look, "_YOUNG", 0.0)
    monkeypatch.setattr(folder_look, "_ROOM", 1e9)
    overview = Overview(tmp_path, str)
    assert refreshed(overview, "run999")["status"] == "finished"
    opened = []
    try:
        overview.refresh()
        assert not opened
        make(tmp_path / "new", 20, finish=False)
        opened.clear()
        assert refreshed(overview, "new")["status"] == "stopped"
        # Whether the file system is one of a network.
        runs = {path for path in opened if path != "/proc/self/mountinfo"}
        assert {path.removeprefix(f"{tmp_path}/").split("/")[0] for path in runs} == {"new"}
    finally:
        opened = None
    # A look that has no time left shows every run, and leaves reading it to the next one.
    monkeypatch.setattr(folder_look, "_ROOM", -1.0)
    assert refreshed(Overview(tmp_path, str), "run999")["status"] == "not read yet"


def test_a_run_outside_the_folder_is_not_shown(tmp_path: Path) -> None:
    make(tmp_path / "secret")
    folder = tmp_path / "folder"
    make(folder / "run")
    (folder / "link").symlink_to(tmp_path / "secret")
    (folder / "group.zarr").symlink_to(tmp_path)
    (folder / "again").symlink_to(folder / "run")
    overview = Overview(folder, str)
    overview.refresh()
    layout: Any = overview.layout()
    names = layout.select_one({"name": "table"}).source.data["name"]
    assert list(names) == ["again", "run"]
    assert "lead out of the folder are not shown" in said(overview)
