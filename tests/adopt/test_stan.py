"""CmdStan's CSV files become a trace while they grow, and wherever their run was killed."""

from __future__ import annotations

import json
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scripts import Script

import zarrtrace as zt
from zarrtrace.adopt.stan.csv_file import StanFile
from zarrtrace.cli import main
from zarrtrace.errors import FinishedError, InvalidInputError, TraceExistsError, TraceNotFoundError

CMDSTAN = Path(__file__).parent.parent / "data" / "cmdstan"
CHAINS = [CMDSTAN / "chain-1.csv", CMDSTAN / "chain-2.csv"]
COMMENTS = CHAINS[0].read_text().split("lp__", maxsplit=1)[0]
STATS = "lp__,accept_stat__,stepsize__,treedepth__,n_leapfrog__,divergent__,energy__"


def stan_text(columns: str, draws: Any, **arguments: object) -> str:
    """A file of draws without warmup, (draws, columns), whose comments have these arguments."""
    draws = np.asarray(draws)
    text = COMMENTS
    arguments = {"num_samples": len(draws), "save_warmup": 0, **arguments}
    for name, value in arguments.items():
        text, replaced = re.subn(rf"(# +{name}) = .*", rf"\1 = {value}", text)
        assert replaced == 1, name
    rows = "".join(f"-1.5,0.9,0.5,3,7,0,2.5,{','.join(map(repr, row))}\n" for row in draws.tolist())
    return f"{text}{STATS},{columns}\n{rows}"


def written(file: Path, *parts: Any, **arguments: object) -> Path:
    file.write_text(stan_text(*parts, **arguments))
    return file


def drawn(files: list[Path], column: str) -> list[np.ndarray[Any, Any]]:
    """The numbers in the whole lines of each file."""
    found = []
    for file in files:
        lines = [line for line in file.read_text().split("\n")[:-1] if line[:1] not in ("", "#")]
        position = lines[0].split(",").index(column)
        found.append(np.array([float(line.split(",")[position]) for line in lines[1:]]))
    return found


def recorded(trace: zt.Trace, name: str, chain: int) -> np.ndarray[Any, Any]:
    """The draws of a chain, those of warmup first."""
    found = []
    for group in ("warmup_posterior", "posterior"):
        if group in trace.groups:
            found.append(trace.dataset(group, chains=chain)[name].values[0])
    return np.concatenate(found)


def require_all_lines(trace: zt.Trace, files: list[Path]) -> None:
    """Each whole line is there once."""
    for name, column in (("k", "k"), ("sigma_obs", "sigma_obs")):
        for chain, values in enumerate(drawn(files, column)):
            assert np.array_equal(recorded(trace, name, chain), values)


# Files that grow ------------------------------------------------------------------------------


@pytest.mark.once("newest")
def test_a_file_that_grows_gives_each_whole_line_once(tmp_path: Path) -> None:
    text = CHAINS[0].read_bytes()
    file, ends = tmp_path / "chain.csv", np.random.default_rng(3).integers(3000, len(text), 8)
    for end in [*sorted(ends), len(text)]:
        file.write_bytes(text[:end])
        trace = zt.follow(file, tmp_path / "run.zarr", once=True)
        assert trace.finished == (end == len(text))
        require_all_lines(trace, [file])
    assert trace.recorded.tolist() == [70]


REPLAY = """
    import os, signal, sys, time
    from pathlib import Path

    source, target, end = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    text = source.read_bytes()[:end or None]
    with target.open("wb", buffering=0) as file:
        for start in range(0, len(text), 97):
            if start == 97 * 90:
                sys.stdin.readline()
            file.write(text[start : start + 97])
            time.sleep(0.001)
    if end:
        os.kill(os.getpid(), signal.SIGKILL)
"""
FOLLOW = "import sys; from zarrtrace.cli import main; sys.exit(main(['follow', *sys.argv[1:]]))"


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def draws_of(path: Path) -> list[int]:
    return zt.open(path).recorded.tolist() if path.exists() else [0, 0]


def test_a_run_is_followed_from_before_its_files_are_there(script: Script, tmp_path: Path) -> None:
    files, path = [tmp_path / "one.csv", tmp_path / "two.csv"], tmp_path / "run.zarr"
    followers = [script.start(FOLLOW, *files, path)]
    # In the midst of a line of the posterior.
    cut = CHAINS[1].read_bytes().index(b"\n", 15000) + 40
    writers = [
        script.start(REPLAY, source, file, end)
        for source, file, end in zip(CHAINS, files, (0, cut), strict=True)
    ]
    try:
        wait_for(lambda: min(draws_of(path)) > 10)
        assert zt.open(path).status == "sampling"
        followers[0].kill()
        followers[0].wait()
        followers.append(script.start(FOLLOW, *files, path))
        for writer, code in zip(writers, (0, -signal.SIGKILL), strict=True):
            writer.stdin.write("\n")
            writer.stdin.flush()
            assert writer.wait() == code
        lines = [len(values) for values in drawn(files, "k")]
        assert lines[0] == 70 > lines[1] > 40
        wait_for(lambda: draws_of(path) == lines)
        followers[1].send_signal(signal.SIGINT)
        assert "every recorded draw is kept" in followers[1].communicate()[1]
        assert followers[1].returncode == 130
    finally:
        for process in (*followers, *writers):
            process.kill()
            process.communicate()
    trace = zt.open(path)
    assert trace.status == "stopped"
    require_all_lines(trace, files)
    # As if CmdStan had gone on.
    files[1].write_bytes(CHAINS[1].read_bytes())
    assert zt.follow(files, path).finished
    require_all_lines(zt.open(path), CHAINS)


def test_a_followed_trace_says_what_the_comments_say(tmp_path: Path) -> None:
    assert main(["follow", *map(str, CHAINS), str(tmp_path / "run.zarr"), "--once"]) == 0
    trace = zt.open(tmp_path / "run.zarr")
    said = trace["constant_sample_stats"]
    assert said.seed.values.tolist() == [12, 12]
    assert said.id.values.tolist() == [1, 2]
    # The comment has six digits.
    assert np.allclose(said.step_size, trace.sample_stats.step_size[:, 0], rtol=1e-4)
    assert said.inv_metric.shape == (2, 5)
    settings = json.loads(trace.posterior.attrs["sampler_settings"])
    assert settings["delta"] == 0.8
    assert settings["data.file"] == "data.json"
    assert settings["save_warmup"] is True
    assert "id" not in settings


def test_the_metric_is_there_when_the_run_was_killed_after_its_warmup(tmp_path: Path) -> None:
    lines = CHAINS[0].read_text().splitlines(keepends=True)
    metric = next(i for i, line in enumerate(lines) if "inverse mass matrix" in line)
    dense = ["# Elements of inverse mass matrix:\n", "# 1, 0.5\n", "# 0.5, 2\n"]
    text = "".join([*lines[:metric], *dense, *lines[metric + 2 : metric + 12]])
    file = tmp_path / "chain.csv"
    file.write_text(text.replace("\n", "\r\n"))
    trace = zt.follow(file, tmp_path / "run.zarr", once=True)
    assert trace.recorded.tolist() == [40]
    assert not trace.finished
    assert trace["constant_sample_stats"].inv_metric.values.tolist() == [[[1, 0.5], [0.5, 2]]]


# What variables can be ------------------------------------------------------------------------


def test_columns_become_arrays_complex_numbers_and_parts_of_tuples(tmp_path: Path) -> None:
    columns = (
        "a.1.1,a.2.1,a.1.2,a.2.2,z.1.real,z.1.imag,z.2.real,z.2.imag,p:1,p:2.1,p:2.2,t.1:2,t.2:2"
    )
    draws = np.arange(26.0).reshape(2, 13)
    draws[0, 5] = np.inf
    file = written(tmp_path / "run.csv", columns, draws)
    trace = zt.follow(file, None, once=True)
    assert trace.get("a")[0, 1].tolist() == [[13, 15], [14, 16]]
    assert trace.get("z").dtype == np.complex128
    assert trace.get("z")[0, 1].tolist() == [17 + 18j, 19 + 20j]
    assert (trace.get("z")[0, 0, 0].real, trace.get("z")[0, 0, 0].imag) == (4, np.inf)
    assert trace.get("p:1")[0].tolist() == [8, 21]
    assert trace.get("p:2")[0, 1].tolist() == [22, 23]
    assert trace.get("t:2")[0, 1].tolist() == [24, 25]


def test_the_log_likelihood_is_a_group_of_its_own(tmp_path: Path) -> None:
    file = written(tmp_path / "run.csv", "mu,log_lik.1,log_lik.2", [[1.0, 2.0, 3.0]])
    labels = {"dims": {"log_lik": ["school"]}, "coords": {"school": ["A", "B"]}}
    trace = zt.follow(file, None, once=True, **labels)
    assert list(trace.posterior) == ["mu"]
    assert trace["log_likelihood"].log_lik.sel(school="B").values.tolist() == [[3]]


def test_parameters_called_like_a_dimension_get_another_name(tmp_path: Path) -> None:
    file = written(tmp_path / "run.csv", "draw.1,draw.2,chain,chain_", [[1.0, 2.0, 3.0, 4.0]])
    with pytest.warns(RuntimeWarning, match="is stored as") as said:
        trace = zt.follow(file, None, once=True)
    assert [str(warning.message)[:40] for warning in said] == [
        "the parameter 'draw' is stored as 'draw_",
        "the parameter 'chain' is stored as 'chai",
    ]
    assert trace.get("draw_").tolist() == [[[1, 2]]]
    assert trace.get("chain__").tolist() == [[3]]
    assert trace.posterior["chain__"].attrs["name_in_model"] == "chain"


def test_a_run_may_be_nothing_but_warmup(tmp_path: Path) -> None:
    file = tmp_path / "run.csv"
    text = stan_text("mu", [[1.0], [2.0]], num_samples=0, num_warmup=3, thin=2, save_warmup="true")
    file.write_text(text + "# \n#  Elapsed Time: 0.1 seconds (Warm-up)\n# 0.1 seconds (Total)\n")
    trace = zt.follow(file, tmp_path / "run.zarr")
    assert (trace.tune, trace.draws, trace.status) == (2, 0, "complete")
    assert trace.warmup_posterior.mu.values.tolist() == [[1, 2]]
    with pytest.raises(InvalidInputError, match=r"no chain in .* has a draw after warmup"):
        zt.from_datatree(file)


def test_a_trace_that_was_finished_early_takes_no_more_draws(tmp_path: Path) -> None:
    path, file = tmp_path / "run.zarr", written(tmp_path / "a.csv", "mu", [[1.0]], num_samples=3)
    zt.follow(file, path, once=True).finish()
    for once in (True, False):
        with pytest.raises(FinishedError, match="was finished before its chains had ended"):
            zt.follow(file, path, once=once)
    written(file, "mu", [[1.0], [2.0]], num_samples=3)
    with pytest.raises(FinishedError, match="record the files into another trace"):
        zt.follow(file, path, once=True)
    assert zt.open(path).get("mu").tolist() == [[1]]


# What is refused ------------------------------------------------------------------------------


def test_files_of_two_runs_are_refused(tmp_path: Path) -> None:
    def files(*arguments: dict[str, object]) -> list[Path]:
        return [
            written(tmp_path / f"{i}.csv", "mu", [[float(i)]], **{"id": i, "seed": 12, **given})
            for i, given in enumerate(arguments)
        ]

    def refused(*arguments: dict[str, object], says: str) -> None:
        for function in (zt.from_datatree, lambda them: zt.follow(them, None, once=True)):
            with pytest.raises(InvalidInputError, match=says):
                function(files(*arguments))

    refused({"seed": 1, "id": 1}, {"seed": 2, "id": 1}, {"seed": 1, "id": 2}, {"seed": 2, "id": 2},
            says="0.csv: the seed is 1 there and 2 here")  # fmt: skip
    refused({"id": 1}, {"id": 1}, says="the same chain")
    refused({}, {"max_depth": 12}, says="nuts.max_depth is 10 there and 12 here")
    refused({}, {"model": "other_model"}, says="model is prophet_model there")
    # The shell may start each chain with a seed of its own, and give all the same id.
    zt.follow(files({"seed": 1, "id": 1}, {"seed": 2, "id": 1}), None, once=True)
    with pytest.raises(InvalidInputError, match="given twice"):
        zt.follow([tmp_path / "0.csv", tmp_path / ".." / tmp_path.name / "0.csv"], None)


def test_a_process_of_several_chains_says_the_same_in_all_files(tmp_path: Path) -> None:
    files = [written(tmp_path / f"{i}.csv", "mu", [[float(i)]], num_chains=3) for i in range(3)]
    assert zt.from_datatree(files).get("mu").tolist() == [[0], [1], [2]]
    files[2].write_bytes(files[1].read_bytes())
    with pytest.raises(InvalidInputError, match="the same chain"):
        zt.follow(files, None, once=True)


def test_a_trace_of_another_run_takes_no_draws(tmp_path: Path) -> None:
    path, file = tmp_path / "run.zarr", written(tmp_path / "a.csv", "mu", [[1.0], [2.0]])
    zt.follow(file, path, once=True)
    with pytest.raises(InvalidInputError, match="its draw 1 differs in mu"):
        zt.follow(written(file, "mu", [[1.0], [3.0]]), path, once=True)
    with pytest.raises(InvalidInputError, match="has 2 draws of this chain, and the file 1 draw"):
        zt.follow(written(file, "mu", [[1.0]], num_samples=2), path, once=True)
    with pytest.raises(TraceExistsError):
        zt.follow(written(file, "mu,tau", [[1.0, 2.0], [3.0, 4.0]]), path, once=True)
    assert zt.open(path).get("mu").tolist() == [[1, 2]]
    trace = zt.follow(written(file, "mu", [[5.0]]), path, once=True, overwrite=True)
    assert trace.get("mu").tolist() == [[5]]


def test_a_damaged_line_is_named_and_the_draws_before_it_are_kept(tmp_path: Path) -> None:
    path, file = tmp_path / "run.zarr", tmp_path / "a.csv"
    good = stan_text("mu", [[1.0], [2.0], [3.0]], num_samples=4)
    row = "-1.5,0.9,0.5,3,7,0,2.5"
    for damaged, says, kept in (
        (f"{row}\n", "draw 3 has 7 values, where 8", 3),
        (f"{row},4\n{row},5\n", "more draws than the 0 of warmup and 4", 4),
        (f"{row},1-2\n", "draw 3 has '1-2'", 3),
    ):
        file.write_text(good + damaged)
        with pytest.raises(InvalidInputError, match=says):
            zt.follow(file, path, once=True, overwrite=True)
        assert zt.open(path).recorded.tolist() == [kept]


def test_a_file_that_another_run_replaces_is_not_read_on(tmp_path: Path) -> None:
    file = StanFile(written(tmp_path / "a.csv", "mu", [[1.0], [2.0]]))
    assert len(file.read()) == 2
    another = stan_text("mu", [[1.0], [2.0]], start_datetime="2026-11-21 09:04:38 UTC")
    for text in (file.path.read_text()[:-5], another):
        file.path.write_text(text)
        with pytest.raises(InvalidInputError, match="another run has written a new file"):
            file.read()
    file.path.unlink()
    with pytest.raises(InvalidInputError, match="the file was removed"):
        file.read()


def test_what_is_not_there_or_not_of_stan_is_said(tmp_path: Path) -> None:
    for files in (tmp_path / "no.csv", tmp_path, str(tmp_path / "*.csv")):
        with pytest.raises(TraceNotFoundError):
            zt.follow(files, None, once=True)
    (tmp_path / "table.csv").write_text("a,b\n1,2\n3,4\n5,6\n")
    with pytest.raises(InvalidInputError, match="the file is not a CSV file of CmdStan"):
        zt.follow([CHAINS[0], tmp_path / "table.csv"], None, once=True)
    file = written(tmp_path / "a.csv", "mu", [[1.0]], method="optimize")
    with pytest.raises(InvalidInputError, match="method optimize"):
        zt.follow(file, None)
    with pytest.raises(InvalidInputError, match="no file to follow"):
        zt.follow([], None)
