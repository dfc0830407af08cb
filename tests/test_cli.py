"""The command: a demo, a look at a trace, and clear words when there is none."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Encoded, Place, open_plainly

import zarrtrace as zt
from zarrtrace.cli import main


def test_info_follows_the_life_of_a_trace(
    directory: Place, encoded: Encoded, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def info(path: object = directory.path) -> str:
        capsys.readouterr()
        assert main(["info", str(path)]) == 0
        return capsys.readouterr().out

    trace = encoded.create(directory, chains=2, tune=4, draws=7, observed_data={"y": [1.0, 2.0]})
    new = info()
    assert "new: 2 chains × (4 warmup + 7 draws), recorded 0 of 11 each" in new
    assert "draws survive kill -9" in new
    assert "y (y_dim_0: 2)" in new
    encoded.fill(trace, 11, 6)
    running = info()
    assert "stopped since" in running
    assert "next: run the sampler again to continue, or trace.finish() ends" in running
    assert "recorded 11, 6 of 11" in running
    assert "chain 1 " in running
    encoded.fill(trace)
    trace.finish()
    finished = info()
    assert "finished: 2 chains" in finished
    assert "theta (theta_dim_0: 3)" in finished
    assert "on disk:" in finished
    archive = shutil.make_archive(str(tmp_path / "run"), "zip", directory.path)
    assert "finished: 2 chains" in info(archive)


def test_a_path_that_is_no_trace_is_said_on_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in ("info", "check", "repair", "finish"):
        assert main([command, str(tmp_path / "nowhere.zarr")]) == 1
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.startswith("zarrtrace: there is nothing at ")
        assert captured.err.count("\n") == 1


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out.strip() == f"zarrtrace {zt.__version__}"


def test_the_command_is_run_as_a_module_too(tmp_path: Path) -> None:
    zt.create(tmp_path / "run.zarr", chains=1, draws=2, posterior={"x": 0.0})
    for path, code, says in (("run.zarr", 0, "new: 1 chain"), ("nowhere.zarr", 1, "zarrtrace: ")):
        done = subprocess.run(
            [sys.executable, "-m", "zarrtrace", "info", str(tmp_path / path)],
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == code
        assert says in done.stdout + done.stderr


def test_finish_says_which_draws_other_readers_find(
    directory: Place, encoded: Encoded, capsys: pytest.CaptureFixture[str]
) -> None:
    trace = encoded.create(directory, chains=3, tune=4, draws=7)
    path = str(directory.path)
    encoded.fill(trace, 11, 4, 11)
    assert main(["finish", path]) == 1
    assert "leave it out with finish(chains=[0, 2])" in capsys.readouterr().err
    encoded.fill(trace, 11, 6, 11)
    assert open_plainly(path) is None
    assert main(["finish", path]) == 0
    said = capsys.readouterr().out
    assert f"{path} is finished: 3 chains of 2 draws after 4 of warmup" in said
    assert "unequal length (7, 2, 7)" in said
    assert "see the first 2 draws of each" in said
    plain = open_plainly(path)
    assert plain is not None
    encoded.check_split(plain, 4, 6)
    assert main(["finish", path]) == 0
    assert "was already finished" in capsys.readouterr().out
    assert main(["finish", path, "--chains", "0", "2"]) == 0
    assert f"{path} is finished: 2 chains of 7 draws" in capsys.readouterr().out
