"""Every example runs and shows what it says; the README holds what runs."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
from pathlib import Path

import arviz
import numpy as np
import pytest

import zarrtrace as zt
from zarrtrace.cli import demo, main

pytestmark = pytest.mark.apart

ROOT = Path(__file__).parent.parent.parent
EXAMPLES = ROOT / "examples"
README = (ROOT / "README.md").read_text(encoding="utf-8")

# What each script prints, whatever the machine and the version of ArviZ.
SHOWN = {
    "own_sampler": [
        r"finished: 4 chains × \(200 warmup \+ 2000 draws\), recorded 2200 of 2200 each",
        r"^mu +5\.375",
    ],
    "many_processes": [
        r"^chain 3 .* 2500/2500 done",
        r"with zarrtrace\.run +\[2500 2500 2500 2500\]",
        r"with concurrent\.futures +\[2500 2500 2500 2500\]",
        r"^the same draws: True$",
    ],
    "burn_in_afterwards": [
        r"from draw   0   -29\.98    27\.13    82\.07   124\.12",
        r"posterior 2000 draws: mean 4\.59",
        r"posterior 1800 draws: mean 0\.65",
        r"posterior 1500 draws: mean 0\.03",
        r"warmup_posterior 500 draws",
    ],
    "changing_number": [
        r"^the first draws: \[43, 69\]",
        r"^changes: \{2: 0\.57, 3: 0\.28,",
        r"^the first after 39\.0 years$",
    ],
    "read_while_running": [
        r"^\[2700 2700 2700 2700\] +2500 +-0\.153 +1\.0",
        r"^finished: True$",
    ],
    "until_they_agree": [
        r"^finished with \d+ draws of each chain$",
        r"^worth 500 independent draws: True$",
    ],
    "eight_schools": [r"^chain 3 .* 850/850 done", r"^mu +4\.", r"^theta\[Mt\. Hermon\] +[45]\b"],
    "resume_after_kill": [
        r"^killed by SIGKILL$",
        r"^at least 730 draws are there: True$",
        r"^after the resume: 2000 draws$",
        *(rf"^{name}: every draw .* bit for bit: True$" for name in ("mu", "tau", "theta")),
    ],
    "with_emcee": [
        r"^the first run ended with -9$",
        r"^701 steps are there$",
        r"^2000 steps, acceptance 0\.5",
        r"^ +e +\(chain, draw\) float64",
    ],
    "with_pymc": [
        r"^killed by SIGKILL$",
        r"^recorded draws: \[.*6\d\d",
        r"^finished: 2 chains × \(500 warmup \+ 500 draws\), recorded 1000 of 1000 each",
        r"^mu +4\.",
    ],
    "with_numpyro": [
        r"^finished: 4 chains × 1000 draws",
        r"^ +observed_data +effect$",
        r"^theta\[Mt\. Hermon\] +[45]",
    ],
    "with_jexplore": [
        r"^the first run ended with -9$",
        r"^2 epochs are there$",
        r"^1600 draws, mean \[[23]\.\d? [23]\.\d?\], standard deviation \[[01]\.\d? [01]\.\d?\]$",
        r"^stopped since .*: 16 chains .* recorded 1500 each, 500 dropped$",
        r"^ +segments +3, draws 0 to 1499$",
    ],
    "with_blackjax": [
        r"^finished: 4 chains × 1000 draws",
        r"^ +sample_stats +acceptance_rate, diverging,",
        r"^theta\[Mt\. Hermon\] +[45]",
    ],
    "many_runs": [
        r"^nu=1 +student +finished +[-\d]+ [\d:]+ +4 +1500 +1\.0",
        r"^4 runs in ",
        r"^ +settings\.nu +worst_rhat$",
        r"^nu=64 +mean 5\.4",
        r"^nu=\d+ +0 +",
    ],
    "with_cox": [
        r"^the training ended with -9$",
        r"^121 steps of lr=0\.01 are there",
        r"^0 +0\.01 +300 +descent",
        r"^best: +lr=0\.1",
    ],
    "with_storegate": [
        r"^collecting ended with -9$",
        r"^train +zarr +momenta +float32 +104000 +\(4,\)$",
        r"^test +13000 samples, 99\.\d% right$",
        r"predicted +\(sample\) bool",
    ],
    "own_adapter": [r"^draws are the samplers own$", r"^a killed run goes on$"],
    "nuts": [r"\A\Z"],  # the sampler the others import
}


def run(script: str, folder: Path) -> str:
    # But for what ArviZ 0.23 says of itself, once a day, when it is imported.
    strict = ["-W", "error", "-W", "ignore::FutureWarning:arviz"]
    return run_python([*strict, str(EXAMPLES / script)], folder)


def run_python(arguments: list[str], folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "100"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


def blocks(language: str) -> list[str]:
    found: list[str] = re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
    return found


# The demo runs it, and shows what it prints.
RUN_BY_OTHER_TESTS = {"own_sampler", "read_while_running", "eight_schools"}


# A scheduler runs it, for each task of its array.
RUN_BY_SLURM = {"slurm_array"}


def test_every_example_is_run() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.py")} == set(SHOWN) | RUN_BY_SLURM


# jexplore needs it; the oldest Python runs the others.
RUN_BY_NEWEST = {"with_jexplore"}


@pytest.mark.long
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.once("newest" if name in RUN_BY_NEWEST else "oldest"))
        for name in sorted(set(SHOWN) - RUN_BY_OTHER_TESTS)
    ],
)
def test_an_example_shows_what_it_says(name: str, tmp_path: Path) -> None:
    if name == "with_jexplore":
        pytest.importorskip("jexplore", reason="jexplore needs Python 3.13 or later")
    printed = run(f"{name}.py", tmp_path)
    for line in SHOWN[name]:
        assert re.search(line, printed, re.MULTILINE), printed


@pytest.mark.once("oldest")
def test_the_reader_of_a_running_trace_sees_it_grow(tmp_path: Path) -> None:
    printed = run("read_while_running.py", tmp_path)
    for line in SHOWN["read_while_running"]:
        assert re.search(line, printed, re.MULTILINE), printed
    looks = re.findall(r"^\[ *([\d ]+)\] +(\d+)", printed, re.MULTILINE)
    counts = [[*map(int, recorded.split()), int(draws)] for recorded, draws in looks]
    for before, after in itertools.pairwise(counts):
        assert all(earlier <= later for earlier, later in zip(before, after, strict=True))


@pytest.mark.once("oldest")
def test_the_demo_leaves_a_trace_and_a_plot_and_info_shows_it(tmp_path: Path) -> None:
    # Warnings are left alone: ArviZ 0.23 uses what Matplotlib 3.11 deprecates.
    command = ["-c", "import sys; from zarrtrace.cli import main; sys.exit(main())"]
    printed = run_python([*command, "demo", "--tune", "250", "--draws", "600"], tmp_path)
    for line in (*SHOWN["eight_schools"], r"^theta\[Choate\] +\d"):
        assert re.search(line, printed, re.MULTILINE), printed
    assert (tmp_path / "demo.png").read_bytes().startswith(b"\x89PNG")
    # In a shell in which nothing was activated: nothing is found by its name alone.
    outside = {**os.environ, "PATH": str(tmp_path)}
    shown = [
        subprocess.check_output(line, shell=True, cwd=tmp_path, env=outside, text=True)
        for line in printed.partition("Next:\n")[2].splitlines()
    ]
    assert "finished: 4 chains × (250 warmup + 600 draws), recorded 850 of 850 each" in shown[0]
    assert ["mu" in text for text in shown] == [True] * 3
    # It knows both again, and replaces nothing else.
    assert demo._is_demo(str(tmp_path / "demo.zarr"))
    assert demo._DEMO.encode() in (tmp_path / "demo.png").read_bytes()


def test_the_demo_removes_nothing_of_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    zt.create(tmp_path / "mine.zarr", chains=1, draws=8, posterior={"x": 0.0})
    assert main(["demo", str(tmp_path / "mine.zarr")]) == 1
    assert "mine.zarr: there is a trace that the demo has not made; give" in capsys.readouterr().err
    assert zt.open(tmp_path / "mine.zarr").draws == 8


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # ArviZ 0.23 with Matplotlib 3.11
def test_nothing_overlaps_in_the_picture_of_the_demo(tmp_path: Path) -> None:
    import matplotlib.pyplot as plt

    trace = zt.create(None, chains=2, draws=50, posterior={"mu": 0.0, "tau": 0.0})
    for chain in range(2):
        with trace.writer(chain) as writer:
            drawn = np.random.default_rng(chain).normal(size=(2, 50))
            writer.record_block({"mu": drawn[0], "tau": 1000 * drawn[1]})
    demo._save_trace_plot(trace.to_inferencedata(), tmp_path / "demo.png")
    figure = plt.gcf()
    boxes = [axes.get_tightbbox() for axes in figure.axes]
    plt.close(figure)
    assert len(boxes) == 4
    for one, other in itertools.combinations(boxes, 2):
        assert not one.overlaps(other)


def test_the_readme_shows_its_example_and_what_it_prints(tmp_path: Path) -> None:
    assert blocks("python")[0] == (EXAMPLES / "own_sampler.py").read_text(encoding="utf-8")
    printed = run("own_sampler.py", tmp_path).replace(str(tmp_path), "...")
    for line in SHOWN["own_sampler"]:
        assert re.search(line, printed, re.MULTILINE), printed
    shown = blocks("text")[0]
    # The trace's own lines are the same everywhere; of the table ArviZ 1.3 prints other columns
    # than 0.23 and other digits than 1.0, so there it is the mean and the sd that must be right.
    trace, table = re.split(r"^(?= +mean)", printed, flags=re.MULTILINE)
    shown_trace, shown_table = re.split(r"^(?= +mean)", shown, flags=re.MULTILINE)
    assert trace == shown_trace
    assert mean_and_sd(table) == mean_and_sd(shown_table)
    if arviz.__version__.startswith("1.3."):
        assert table == shown_table


def mean_and_sd(table: str) -> dict[str, list[float]]:
    rows = re.findall(r"^(\w+) +([\d.]+) +([\d.]+) ", table, re.MULTILINE)
    assert [name for name, *_ in rows] == ["mu"]
    return {name: [round(float(value), 2) for value in values] for name, *values in rows}


@pytest.mark.parametrize("block", blocks("python"), ids=lambda block: block.splitlines()[0])
def test_the_code_of_the_readme_is_python(block: str) -> None:
    compile(block, "README.md", "exec")


REPOSITORY = "https://github.com/zarrtrace/zarrtrace/blob/main/"
RAW = "https://raw.githubusercontent.com/zarrtrace/zarrtrace/main/"


def test_what_the_readme_names_is_there() -> None:
    # Absolute, so that they also work where the README is shown alone.
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert f"{RAW}zarrtrace.svg" in links
    assert f"{REPOSITORY}zarrtrace/FORMAT.md" in links
    paths = [link.removeprefix(REPOSITORY).removeprefix(RAW) for link in links]
    assert not [path for path in paths if not (ROOT / path).exists()]


def test_the_readme_is_short() -> None:
    assert len(README.split()) < 900


def test_the_readme_has_the_two_commands() -> None:
    assert blocks("sh") == [
        "python3 -m venv .venv && .venv/bin/pip install -e '.[plot]' && .venv/bin/zarrtrace demo\n",
        ".venv/bin/pip install -e '.[test]' && .venv/bin/pytest\n",
    ]


def test_the_picture_fetches_nothing() -> None:
    picture = (ROOT / "zarrtrace.svg").read_text(encoding="utf-8")
    assert "url(" not in picture.replace("url(#", "")
    assert "@import" not in picture
    assert "<image" not in picture
