"""A folder of runs: made with what was run, listed, read together, compared."""

from __future__ import annotations

import getpass
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import arviz as az
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scripts import Script

import zarrtrace as zt
from zarrtrace import folder as runs
from zarrtrace.cli import main
from zarrtrace.diagnostics import convergence
from zarrtrace.errors import InvalidInputError, TraceExistsError, TraceNotFoundError


def make(
    folder: Path, name: str, *, tau: float = 1.0, finish: bool = True, **definition: Any
) -> Any:
    """A run of 4 chains, 10 draws of warmup and 40 after it, with a log likelihood."""
    rng = np.random.default_rng([7, len(name)])
    draws = definition.pop("draws", 40)
    trace = runs.create(
        folder, name, settings={"tau": tau, "prior": "normal"}, seed=7,
        chains=4, tune=10, draws=draws, name="eight_schools",
        posterior={"mu": 0.0, "theta": zt.Var(shape=3)}, log_likelihood={"y": zt.Var(shape=5)},
        **definition,
    )  # fmt: skip
    for chain in range(4):
        with trace.writer(chain) as writer:
            n = 10 + draws
            mu, theta = rng.normal(size=n), rng.normal(size=(n, 3)) + (chain == 3) * tau
            y = -0.5 * (tau + rng.normal(size=(n, 5))) ** 2
            writer.record_block({"mu": mu, "theta": theta}, log_likelihood={"y": y})
    if finish:
        trace.finish()
    return trace


def listed(folder: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
    capsys.readouterr()
    assert main(["ls", str(folder)]) == 0
    return capsys.readouterr().out.splitlines()


# What was run ---------------------------------------------------------------------------------


def test_a_run_keeps_what_was_run(tmp_path: Path) -> None:
    settings = {"tau": np.float64(0.5), "priors": ["normal", None], "grid": np.arange(3)}
    runs.create(
        tmp_path, "first", settings=settings | {"data": Path("y.csv")}, seed=[17, 4],
        chains=1, draws=1, posterior={"mu": 0.0},
    )  # fmt: skip
    run = runs.open(tmp_path)["first"]
    assert run.settings == {
        "tau": 0.5, "priors": ["normal", None], "grid": [0, 1, 2], "data": "y.csv",
    }  # fmt: skip
    found = run.provenance
    assert found["seed"] == [17, 4]
    assert found["user"] == getpass.getuser()
    assert found["host"] == os.uname().nodename
    assert found["python"] == "{}.{}.{}".format(*sys.version_info[:3])
    assert found["packages"]["numpy"] == np.__version__
    assert found["packages"]["zarrtrace"] == zt.__version__
    assert abs(pd.Timestamp(found["when"]) - pd.Timestamp.now("UTC").tz_localize(None)) < (
        pd.Timedelta("1min")
    )


def test_a_run_keeps_the_commit_of_its_script(tmp_path: Path, script: Script) -> None:
    printed = script.run("""
        import subprocess
        from pathlib import Path
        from zarrtrace import folder as runs

        def show(name):
            runs.create("folder", name, chains=1, draws=1, posterior={"mu": 0.0})
            found = runs.open("folder")[name].provenance
            print(name, found["commit"] or "none", found["changed"], found["command"])

        def git(*command):
            name = ["-c", "user.name=a", "-c", "user.email=a@b"]
            subprocess.run(["git", *name, *command], check=True)

        show("outside")
        git("init", "-q")
        Path("model.py").write_text("first")
        git("add", "model.py")
        git("commit", "-qm", "first")
        show("clean")
        Path("model.py").write_text("second")
        show("changed")
    """)
    command = ["git", "-C", str(tmp_path), "rev-parse", "HEAD"]
    commit = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    lines = [line.split() for line in printed.splitlines()]
    assert [line[:3] for line in lines] == [
        ["outside", "none", "False"], ["clean", commit, "False"], ["changed", commit, "True"],
    ]  # fmt: skip
    assert all(Path(line[3]).parent == tmp_path for line in lines)


def test_a_run_that_continues_elsewhere_gets_another_row(tmp_path: Path) -> None:
    trace = make(tmp_path, "one", finish=False)
    runs.record_provenance(trace, settings={"tau": 2.0}, seed=8)
    rows = trace.table("provenance").to_dataframe()
    assert [json.loads(text)["tau"] for text in rows["settings"]] == [1.0, 2.0]
    assert runs.open(tmp_path)["one"].settings == {"tau": 2.0}


def test_a_setting_that_json_cannot_hold_is_named_and_nothing_is_made(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"settings\['model'\].*function"):
        runs.create(tmp_path, settings={"tau": 1, "model": make}, chains=1, draws=1, posterior={})
    with pytest.raises(InvalidInputError, match="such as vars"):
        runs.create(tmp_path, settings=[1], chains=1, draws=1, posterior={})  # type: ignore[arg-type]
    assert not any(tmp_path.iterdir())


def test_a_name_is_given_once_and_made_up_where_none_is(tmp_path: Path) -> None:
    definition: dict[str, Any] = {"chains": 1, "draws": 1, "posterior": {"mu": 0.0}}
    runs.create(tmp_path, "one", **definition)
    with pytest.raises(TraceExistsError):
        runs.create(tmp_path, "one", **definition)
    for _ in range(2):
        runs.create(tmp_path, **definition)
    assert len(runs.open(tmp_path)) == 3


# The list -------------------------------------------------------------------------------------


def test_ls_shows_each_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make(tmp_path, "agree", tau=0.0, draws=500)
    make(tmp_path, "disagree", tau=5.0, finish=False)
    half = runs.create(tmp_path, "half", chains=2, tune=10, draws=10, posterior={"x": 0.0})
    runs.create(tmp_path, "new", chains=2, tune=10, draws=10, posterior={"x": 0.0})
    writers = [half.writer(chain) for chain in range(2)]
    for number, writer in enumerate(writers):
        for draw in range(13 + number):
            writer.record({"x": float(draw)})
    (tmp_path / "notes.txt").write_text("not a run")
    (tmp_path / "figures").mkdir()
    lines = listed(tmp_path, capsys)
    assert lines[0].split() == [
        "name",
        "model",
        "status",
        "since",
        "chains",
        "draws",
        "worst",
        "R-hat",
        "when",
    ]
    rows = {line.split()[0]: line.split()[1:] for line in lines[1:5]}
    assert rows["agree"][:2] == ["eight_schools", "finished"]
    assert rows["agree"][4:6] == ["4", "500"]
    assert 0.99 < float(rows["agree"][6]) < 1.02
    assert rows["disagree"][:2] == ["eight_schools", "complete"]
    assert rows["disagree"][4:6] == ["4", "40"]
    assert float(rows["disagree"][6]) > 1.5
    assert rows["half"][0] == "sampling"
    assert rows["half"][3:8] == ["2", "3", "of", "10", "-"]
    assert rows["new"][0] == "new"
    assert rows["new"][3:9] == ["2", "warmup", "0", "of", "10", "-"]
    assert all(len(row[-2]) == len("2026-11-21") for row in rows.values())
    assert "complete: trace.finish() makes a trace that any Zarr reader opens" in lines
    assert lines[-1] == f"4 runs in {tmp_path}"
    for writer in writers:
        writer.close()
    assert runs.open(tmp_path)["half"].status == "stopped"


def test_a_killed_run_is_stopped(tmp_path: Path, script: Script) -> None:
    process = script.start("""
        import time
        from zarrtrace import folder as runs

        trace = runs.create("folder", "killed", chains=1, draws=100, posterior={"x": 0.0})
        with trace.writer(0) as writer:
            for _ in range(57):
                writer.record({"x": 1.0})
            print("57", flush=True)
            time.sleep(60)
    """)
    assert process.stdout is not None
    assert process.stdout.readline() == "57\n"
    (run,) = runs.open(tmp_path / "folder")
    assert (run.status, run.describe()["recorded"]) == ("sampling", 57)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert (run.status, run.describe()["recorded"]) == ("stopped", 57)


def test_a_damaged_run_is_listed_as_damaged_and_stops_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make(tmp_path, "broken")
    make(tmp_path, "empty")
    make(tmp_path, "fine")
    document = tmp_path / "broken" / "_sampling_state" / "zarr.json"
    document.write_bytes(document.read_bytes().replace(b"chains", b"chians", 1))
    (tmp_path / "empty" / "_sampling_state" / "zarr.json").unlink()
    lines = listed(tmp_path, capsys)
    assert [line.split()[:2] for line in lines[1:3]] == [
        ["broken", "damaged"],
        ["empty", "damaged"],
    ]
    assert "finished" in lines[3]
    assert any("broken: " in line and "checksum does not match" in line for line in lines)
    found = runs.open(tmp_path)
    assert list(found.get("mu")) == ["fine"]
    assert [run.name for run in found.where(status="damaged")] == ["broken", "empty"]
    assert [run.name for run in found.where(tau=1.0)] == ["broken", "empty", "fine"]
    with pytest.raises(zt.TraceError):
        _ = found["broken"].trace


def test_tables_alone_are_a_run_and_a_zip_of_a_finished_one_is(tmp_path: Path) -> None:
    make(tmp_path / "folder", "one")
    shutil.make_archive(str(tmp_path / "folder" / "old"), "zip", tmp_path / "folder" / "one")
    with zt.table.open(tmp_path / "folder" / "losses" / "tables" / "loss", mode="a") as table:
        table.append(step=1, loss=0.5)
    found = runs.open(tmp_path / "folder")
    assert [(run.name, run.status) for run in found] == [
        ("losses", "tables"), ("old.zip", "finished"), ("one", "finished"),
    ]  # fmt: skip
    assert found["losses"].tables == ("loss",)
    assert found.table("loss").to_dict("list") == {"run": ["losses"], "step": [1], "loss": [0.5]}
    with pytest.raises(TraceNotFoundError, match="has no table 'nope'; it has loss"):
        found["losses"].table("nope")


def test_the_runs_of_emcee_are_found_in_their_directory(tmp_path: Path) -> None:
    backends = pytest.importorskip("zarrtrace.adapters.emcee")
    backend = backends.HDFBackend(tmp_path / "ensemble.zarr", name="mcmc")
    backend.reset(4, 2)
    assert runs.open(tmp_path).names == ("ensemble.zarr/mcmc",)


def test_no_folder_and_a_trace_itself_are_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make(tmp_path, "one")
    assert main(["ls", str(tmp_path / "nowhere")]) == 1
    assert main(["ls", str(tmp_path / "one")]) == 1
    errors = capsys.readouterr().err.splitlines()
    assert "there is no folder" in errors[0]
    assert "is a single trace" in errors[1]
    empty = tmp_path / "empty"
    empty.mkdir()
    assert len(runs.open(empty)) == 0
    assert runs.open(empty).to_dataframe().empty
    assert listed(empty, capsys)[-1] == f"0 runs in {empty}"


# R-hat ----------------------------------------------------------------------------------------


def arviz_rhat(draws: Any) -> Any:
    dims = ("chain", "draw", *(f"dim_{i}" for i in range(draws.ndim - 2)))
    found = az.rhat(xr.Dataset({"x": (dims, draws)}))
    return (found["posterior"] if "posterior" in getattr(found, "children", {}) else found)[
        "x"
    ].values


def test_the_worst_r_hat_is_kept_until_the_draws_change(tmp_path: Path) -> None:
    trace = make(tmp_path, "one", tau=4.0)

    def worst() -> Any:
        return convergence.worst_rhat(trace._hierarchy)

    kept = tmp_path / "one" / "_sampling_state" / "convergence" / "zarr.json"
    found = worst()
    expected = arviz_rhat(trace.get("theta"))
    assert found.value == pytest.approx(expected.max(), rel=1e-12)
    assert found.variable == f"theta[{expected.argmax()}]"
    # It is the kept one that is given, and a reader writes nothing.
    text = kept.read_text()
    kept.write_text(text.replace('\\"complete\\": true', '\\"complete\\": false'))
    assert not worst().complete
    # Another burn-in, more draws: it is computed from what there is.
    trace.split_warmup(30)
    assert worst().value == pytest.approx(arviz_rhat(trace.get("theta")).max(), rel=1e-12)
    trace.set_burn_in(35)
    assert worst().value == pytest.approx(arviz_rhat(trace.get("theta")).max(), rel=1e-12)
    kept.write_text("half of a docum")
    assert worst().value == pytest.approx(arviz_rhat(trace.get("theta")).max(), rel=1e-12)
    assert trace.check() == []


def test_more_than_a_million_numbers_are_said_not_to_have_been_looked_at(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trace = runs.create(
        tmp_path, "large", chains=2, draws=50, posterior={"x": zt.Var(shape=20_000), "mu": 0.0}
    )
    rng = np.random.default_rng(1)
    for chain in range(2):
        with trace.writer(chain) as writer:
            writer.record_block({"x": rng.normal(size=(50, 20_000)), "mu": rng.normal(size=50)})
    lines = listed(tmp_path, capsys)
    assert "* worst R-hat of the first variables only" in lines[2]
    assert runs.open(tmp_path)["large"].describe()["rhat_of"] == "mu"


# Read together --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three runs that differ in a setting, one of them with fewer draws. Nobody changes them."""
    tmp_path = tmp_path_factory.mktemp("folder")
    for name, tau, draws in (("a", 0.5, 40), ("b", 2.0, 40), ("c", 2.0, 25)):
        trace = make(tmp_path, name, tau=tau, draws=draws)
        with trace.table("note", {"draw": int, name: str}) as table:
            table.append({"draw": 1, name: name})
    return tmp_path


def test_a_collection_is_a_sequence_by_name_and_number(folder: Path) -> None:
    found = runs.open(folder)
    assert found.names == ("a", "b", "c")
    assert [run.name for run in found] == ["a", "b", "c"]
    assert found["b"].trace.posterior.sizes["draw"] == 40
    assert found[-1].name == "c"
    assert "b" in found
    assert "z" not in found
    with pytest.raises(KeyError, match="has no run 'z'; it has a, b, c"):
        found["z"]
    assert repr(found) == f"<zarrtrace.Runs {folder}: 3 runs: a, b, c>"
    assert repr(found["a"]) == "<zarrtrace.Run a: finished>"
    assert "eight_schools" in found._repr_html_()


def test_runs_are_chosen_by_settings_status_and_function(folder: Path) -> None:
    found = runs.open(folder)
    assert found.where(tau=2.0, prior="normal").names == ("b", "c")
    assert found.where(tau=2.0, status="sampling").names == ()
    assert found.where(lambda run: run.trace.draws < 40).names == ("c",)
    assert found.where(unknown=1).names == ()


def test_the_list_is_a_dataframe(folder: Path) -> None:
    frame = runs.open(folder).to_dataframe()
    assert frame.index.tolist() == ["a", "b", "c"]
    assert frame["settings.tau"].tolist() == [0.5, 2.0, 2.0]
    assert frame["draws"].tolist() == [40, 40, 25]
    assert frame["recorded"].tolist() == [50, 50, 35]
    assert set(frame["status"]) == {"finished"}
    assert (frame["worst_rhat"] > 1).all()
    assert str(frame["when"].dtype).startswith("datetime64[")
    assert "settings.tau" not in runs.open(folder).to_dataframe(settings=False)


def test_a_table_is_read_over_all_runs(folder: Path) -> None:
    found = runs.open(folder).table("note")
    assert found["run"].tolist() == ["a", "b", "c"]
    assert found["draw"].tolist() == [1, 1, 1]
    assert found["b"].isna().tolist() == [True, False, True]
    assert found.index.tolist() == [0, 1, 2]
    commits = runs.open(folder).table("provenance")
    assert len(set(commits["host"])) == 1
    with pytest.raises(TraceNotFoundError, match="has a table 'nope'; there are note, provenance"):
        runs.open(folder).table("nope")


def test_a_variable_is_read_over_all_runs(folder: Path) -> None:
    found = runs.open(folder)
    values = found.get("theta", flatten=True)
    assert {name: array.shape for name, array in values.items()} == {
        "a": (160, 3), "b": (160, 3), "c": (100, 3),
    }  # fmt: skip
    dataset = found.dataset("theta")
    assert dict(dataset.sizes) == {"run": 3, "chain": 4, "draw": 25, "theta_dim_0": 3}
    assert dataset.attrs["alignment"] == "cut to the shortest run"
    np.testing.assert_array_equal(
        dataset["theta"].sel(run="b").values, found["b"].trace.get("theta")[:, :25]
    )
    assert found.dataset("y", "log_likelihood").sizes["y_dim_0"] == 5
    with pytest.raises(InvalidInputError, match="has a variable 'zeta'"):
        found.get("zeta")


def test_runs_that_do_not_fit_are_not_forced_into_one_dataset(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "a", tmp_path / "a")
    other = runs.create(tmp_path, "d", chains=2, draws=1, posterior={"mu": 0.0})
    for chain in range(2):
        with other.writer(chain) as writer:
            writer.record({"mu": 1.0})
    with pytest.raises(InvalidInputError, match="has different chains"):
        runs.open(tmp_path).dataset("mu")
    assert runs.open(tmp_path).get("mu")["d"].shape == (2, 1)


@pytest.mark.filterwarnings("ignore:Estimated shape parameter of Pareto:UserWarning")
@pytest.mark.filterwarnings("ignore:The inplace keyword")  # ArviZ 0.23 with pandas 3.1
def test_models_are_compared_by_arviz(folder: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        shutil.copytree(folder / name, tmp_path / name)
    runs.create(tmp_path, "without", chains=2, draws=1, posterior={"mu": 0.0})
    compared = runs.open(tmp_path).compare()
    assert set(compared.index) == {"a", "b"}
    assert compared.index[0] == "a"  # it predicts better by construction
    with pytest.raises(InvalidInputError, match="0 of 1 runs"):
        runs.open(tmp_path).where(lambda run: run.name == "without").compare()


def test_a_folder_is_read_while_its_runs_are_recorded(tmp_path: Path) -> None:
    trace = runs.create(tmp_path, "one", chains=2, draws=10, posterior={"x": 0.0})
    found = runs.open(tmp_path)
    for number in (1, 2, 3):
        for chain in range(2):
            with trace.writer(chain) as writer:
                writer.resume()
                writer.record({"x": float(number)})
        assert found.get("x")["one"].shape == (2, number)
        assert found["one"].describe()["recorded"] == number
