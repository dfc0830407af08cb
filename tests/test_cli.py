"""The command: a demo, a look at a trace, and clear words when there is none."""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import termios
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from conftest import Encoded, Place, open_plainly

import zarrtrace as zt
from zarrtrace import cli
from zarrtrace.cli import build_parser, main
from zarrtrace.life import description


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


@pytest.mark.once("oldest")
@pytest.mark.parametrize("width", [40, 80])
def test_info_fits_into_a_terminal(tmp_path: Path, width: int) -> None:
    stan = Path(__file__).parent / "data" / "cmdstan"
    zt.from_datatree(stan / "chain-1.csv", tmp_path / "run.zarr")
    ours, terminal = os.openpty()
    termios.tcsetwinsize(terminal, (50, width))
    command = [sys.executable, "-m", "zarrtrace", "info", "run.zarr"]
    environment = {**os.environ, "TERM": "xterm", "NO_COLOR": "1"}
    environment.pop("COLUMNS", None)
    shown = subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdin=terminal, stdout=terminal
    )
    os.close(terminal)
    text = ""
    with suppress(OSError):  # how Linux says that the other end is closed
        while part := os.read(ours, 100_000):
            text += part.decode()
    os.close(ours)
    assert shown.wait(timeout=300) == 0
    lines = re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines()
    assert max(map(len, lines[1:])) <= width  # a path is never broken
    assert lines.count("posterior, 40 draws") == 1
    assert [line.split() for line in lines if line.startswith("  k ")] == [["k", "float64", "30"]]
    joined = " ".join(" ".join(lines).split())
    assert "sampler_settings: model prophet_model, method sample, algorithm hmc" in joined
    assert " more (see --json)" in joined
    assert "--filename-in-msg" not in joined


@pytest.mark.once("oldest")
@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("NUTS", "NUTS"),
        ("a long note on the run", "a long not... (22 characters, see --json)"),
        ('{"t0": 10, "seed": 12}', "seed 12, and 1 more (see --json)"),
        ('{"a name that is long": [1]}', "1 setting (see --json)"),
        ("[" * 100_000, "[[[[[[[[[[... (100000 characters, see --json)"),
    ],
)
def test_a_long_attribute_is_cut(value: str, shown: str) -> None:
    assert description.short_fact(value, 10) == shown


def test_a_path_that_is_not_a_trace_is_reported_on_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in ("info", "check", "repair", "finish"):
        assert main([command, str(tmp_path / "nowhere.zarr")]) == 1
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.startswith("zarrtrace: there is nothing at ")
        assert captured.err.count("\n") == 1


def test_programs_are_given_json(
    directory: Place, encoded: Encoded, capsys: pytest.CaptureFixture[str]
) -> None:
    def printed(*arguments: object, code: int = 0) -> Any:
        capsys.readouterr()
        assert main([*map(str, arguments), "--json"]) == code
        return json.loads(capsys.readouterr().out)

    trace = encoded.create(
        directory, chains=2, tune=4, draws=7, observed_data={"y": [1.0, 2.0]}, name="schools"
    )
    encoded.fill(trace, 11, 6)
    trace.table("losses").append({"step": 1, "loss": 0.5})
    info = printed("info", directory.path)
    assert info["path"] == str(directory.path)
    assert (info["status"], info["since"][:2], info["finished"]) == ("stopped", "20", False)
    assert (info["tune"], info["draws"], info["recorded"]) == (4, 7, [11, 6])
    assert info["groups"]["posterior"]["theta"] == {
        "dtype": "int32", "dims": ["theta_dim_0"], "shape": [3],
    }  # fmt: skip
    assert info["groups"]["observed_data"]["y"]["shape"] == [2]
    assert info["tables"] == {"losses": {"rows": 1, "columns": ["step", "loss"]}}
    assert info["bytes"] > 1000
    [run] = printed("ls", directory.path.parent)
    assert (run["name"], run["model"], run["recorded"]) == ("run.zarr", "schools", 6)
    assert run["worst_rhat"] is None
    encoded.fill(trace)
    trace.finish()
    assert printed("check", directory.path)["damage"] == []
    next((directory.path / "posterior/mu").glob("*1.0")).unlink()
    check = printed("check", directory.path, code=1)
    assert check["damage"][0]["variable"] == "mu"
    assert check["damage"][0]["draws"] == [4, 8]
    assert check["checksums"] is False


@pytest.mark.once("oldest")
def test_a_url_takes_options_of_fsspec(
    bucket: Place, encoded: Encoded, capsys: pytest.CaptureFixture[str]
) -> None:
    encoded.create(bucket, chains=1, draws=2)
    given = bucket.options["storage_options"].items()
    texts = [
        f"{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in given
    ]
    options = [part for text in texts for part in ("--storage-option", text)]
    assert main(["info", bucket.store, *options]) == 0
    assert "new: 1 chain" in capsys.readouterr().out
    for place, says in (
        (f"{bucket.store}/none", "is the path right?"),
        ("s3://no-such-bucket/run.zarr", "bucket does not exist"),
        ("nowhere://run.zarr", "Protocol not known: nowhere"),
    ):
        assert main(["info", place, *(options if place[:2] == "s3" else [])]) == 1
        said = capsys.readouterr().err
        assert says in said
        assert said.count("\n") == 1
    with pytest.raises(SystemExit):
        main(["info", bucket.store, "--storage-option", "anon"])


def test_a_failure_that_nobody_thought_of_is_one_line_too(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["info", "run\0.zarr"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("zarrtrace: ValueError: ")
    assert said.endswith("zarrtrace --traceback ... shows where\n")
    assert said.count("\n") == 1
    with pytest.raises(ValueError, match="null"):
        main(["--traceback", "info", "run\0.zarr"])


@pytest.mark.once("newest")
def test_a_reader_that_has_enough_is_not_a_failure(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "zarrtrace", "ls", str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as command:
        assert command.stdout is not None
        assert command.stderr is not None
        command.stdout.close()
        assert command.stderr.read() == b""
        assert command.wait(timeout=300) == 1


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


@pytest.mark.once("newest")
def test_each_command_has_a_module_and_a_function_that_runs_it() -> None:
    commands = next(
        action
        for action in build_parser()._actions
        if isinstance(action, argparse._SubParsersAction)
    )
    files = Path(cli.__file__).parent.glob("*.py")
    assert set(commands.choices) == {path.stem for path in files} - {
        *("__init__", "arguments", "command")
    }
    for name, parser in commands.choices.items():
        module = parser.get_default("run_command").__module__
        assert module == f"zarrtrace.cli.{name}"
