"""`zarrtrace watch`: on terminals, in logs, for programs, and how it ends."""

from __future__ import annotations

import io
import json
import math
import re
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from zarr.storage import LocalStore

import zarrtrace as zt
from zarrtrace.cli import main
from zarrtrace.diagnostics.statistics import compute
from zarrtrace.goals.converged import GoalLook
from zarrtrace.watching.follow import Watched, follow
from zarrtrace.watching.lines import who
from zarrtrace.watching.look import Gone, Look
from zarrtrace.watching.progress import ChainLook
from zarrtrace.watching.screen import as_html
from zarrtrace.watching.watcher import Watcher

if TYPE_CHECKING:
    from conftest import Place
    from scripts import Script

HOWTO = Path(__file__).parent.parent.parent / "docs" / "howto" / "watch.md"
NAME = "[bold]a rather long name of a variable, with brackets\x1b[31m"


def recorded(place: Place, chains: int = 2, stop: int = 60, **definition: Any) -> zt.Trace:
    """A trace of 10 draws of warmup and 50 others."""
    trace = place.create(
        chains=chains,
        tune=10,
        draws=50,
        posterior={NAME: zt.Var(shape=(3,)), "tau": zt.Var()},
        sample_stats={
            "lp": zt.Var(), "diverging": zt.Var(dtype=bool), "step_size": zt.Var(),
            "tree_depth": zt.Var(dtype="int8"), "acceptance_rate": zt.Var(),
        },
        **definition,
    )  # fmt: skip
    for block in trace.blocks:
        record(trace, block, stop)
    return trace


def record(trace: zt.Trace, block: int | range, stop: int) -> None:
    """Record until a block of chains has `stop` draws."""
    each = () if isinstance(block, int) else (len(block),)
    rng = np.random.default_rng(block if isinstance(block, int) else block[0])
    with trace.writer(block) as writer:
        start, _ = writer.resume()
        for number in range(start, stop):
            writer.record(
                {NAME: rng.normal(size=(*each, 3)), "tau": rng.normal(size=each)},
                {
                    "lp": rng.normal(size=each), "diverging": np.full(each, number % 20 == 0),
                    "step_size": np.full(each, 0.25), "tree_depth": np.full(each, 3),
                    "acceptance_rate": np.full(each, 0.8),
                },
            )  # fmt: skip
            if number % 10 == 0:
                writer.checkpoint({})


TERMINALS = """
    import fcntl, json, os, pty, struct, sys, termios

    from zarrtrace.cli import main

    found = {}
    for columns in map(int, sys.argv[1].split(",")):
        process, terminal = pty.fork()
        if not process:
            fcntl.ioctl(1, termios.TIOCSWINSZ, struct.pack("HHHH", 30, columns, 0, 0))
            os.environ["TERM"] = "xterm"
            os.environ.pop("COLUMNS", None)
            code = main(["watch", *sys.argv[2:]])
            sys.stdout.flush()
            os._exit(code)
        text = b""
        while True:
            try:
                part = os.read(terminal, 65536)
            except OSError:
                break
            if not part:
                break
            text += part
        code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        found[columns] = [code, text.decode()]
    print(json.dumps(found))
"""


def on_terminals(script: Script, widths: str, *arguments: Any) -> dict[int, str]:
    """What `watch` shows on real terminals of several widths; it has to end with 0."""
    found = {}
    for columns, (code, text) in json.loads(script.run(TERMINALS, widths, *arguments)).items():
        assert code == 0, text
        plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
        assert "\x1b" not in plain
        for line in plain.splitlines():
            assert len(line) <= int(columns), (columns, line)
        found[int(columns)] = plain
    return found


@pytest.mark.once("newest")
def test_a_view_fits_the_terminal(directory: Place, script: Script) -> None:
    recorded(directory)
    for found in (
        on_terminals(script, "40,80,200", directory.path),
        on_terminals(script, "80", directory.path, "--once"),
    ):
        for columns, text in found.items():
            # A long path continues on the next line.
            assert re.search(r"run\.zarr *complete", text.replace("\r\n", ""))
            assert re.search(r"0 .*done .*60/60", text)
            assert re.search(r"tau +[01]\.\d{3}", text), text
            # The end of a name tells the elements of a variable apart.
            assert all(f"[{number}]" in text for number in range(3))
            assert ("step size" in text) == (columns >= 80)
            assert ("lp so far" in text) == (columns >= 80)
            assert ("accept" in text) == (columns == 200)


@pytest.mark.once("newest")
def test_many_chains_and_blocks(directory: Place, tmp_path: Path, script: Script) -> None:
    trace = recorded(directory, chains=40, stop=20)
    for chain in range(5, 40):
        record(trace, chain, 60)
    text = on_terminals(script, "80", directory.path, "--once")[80]
    assert "40 writers, from 0 to 100 % of their draws" in text
    assert re.search(r"the 5 chains with the fewest draws:", text)
    assert text.count("20/60") == 5
    assert "chains 0, 1, 2, 3 and 4 are closed before the last draw" in " ".join(text.split())
    # Warmup alone has no R-hat.
    place = type(directory)("directory", tmp_path / "warmup.zarr")
    recorded(place, stop=8).table("losses").append({"step": 1})
    text = on_terminals(script, "200", place.path, "--once")[200]
    assert "no R-hat of warmup" in text
    assert re.search(r"0 .*closed +8/60 .* 0\.25 +3 +0\.80", text)
    place = type(directory)("directory", tmp_path / "blocks.zarr")
    recorded(place, chains=8, chains_per_chunk=4)
    text = on_terminals(script, "80", place.path, "--once")[80]
    assert re.search(r"^0 to 3 .*60/60", text, re.MULTILINE)
    assert re.search(r"^4 to 7 .*60/60", text, re.MULTILINE)


@pytest.mark.once("oldest")
def test_a_line_each_time(
    directory: Place, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded(directory)
    assert main(["watch", str(directory.path), "--plain"]) == 0
    [line] = capsys.readouterr().out.splitlines()
    assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d .*run\.zarr: complete, 2 chains, 60 of", line)
    assert "4 divergences" in line
    assert re.search(r"worst R-hat [01]\.\d{3} ", line)
    # Without a terminal, as in a batch job, it is a line too: one for each trace.
    assert main(["watch", str(directory.path), str(directory.path)]) == 0
    assert capsys.readouterr().out.count("\n") == 2
    # A stream that takes no other characters than ASCII.
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(io.BytesIO(), "ascii"))
    assert main(["watch", str(directory.path), "--once"]) == 0
    sys.stdout.seek(0)
    assert "####" in sys.stdout.read()


@pytest.mark.once("oldest")
def test_json_has_the_keys_that_are_documented(
    directory: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    recorded(directory)
    assert main(["watch", str(directory.path), "--json", "--var", "tau"]) == 0
    [line] = capsys.readouterr().out.splitlines()
    found = json.loads(line)
    documented = set(re.findall(r"^\| `(\w+)` \|", HOWTO.read_text(), re.MULTILINE))
    keys = {*found, *found["chains"][0], *found["values"][0], "reason"}
    assert keys == documented
    assert found["status"] == "complete"
    assert found["chains"][1] == {
        "chains": [1], "phase": "done", "writer": "none", "draws": 60, "planned": 60,
        "draws_per_second": None, "idle": None, "divergences": 2, "step_size": 0.25,
        "tree_depth": 3.0, "acceptance_rate": pytest.approx(0.8),
        "lp": found["chains"][1]["lp"], "host": "", "pid": None, "resume": "",
        "course": found["chains"][1]["course"],
    }  # fmt: skip
    assert {value["name"] for value in found["values"]} == {
        "lp", "tau", *(f"{NAME}[{number}]" for number in range(3)),
    }  # fmt: skip
    lp = directory.open().get("lp", group="sample_stats")[1]
    assert found["course_of"] == "lp"
    assert found["chains"][1]["course"][-1] == pytest.approx(lp[48:].mean())
    assert found["rhat_draws"] == 50
    assert found["exact_draws"] == 50


@pytest.mark.once("newest")
def test_draws_that_have_no_rhat(directory: Place, capsys: pytest.CaptureFixture[str]) -> None:
    draws = {
        "nothing": np.full(40, np.nan),
        "infinite": np.full(40, np.inf),
        "both": np.array([np.inf, -np.inf] * 20),
        "constant": np.full(40, 0.1),
        "once": np.where(np.arange(40) == 30, np.nan, np.arange(40.0)),
    }
    trace = directory.create(chains=2, draws=40, posterior=dict.fromkeys(draws, zt.Var()))
    for chain in range(2):
        with trace.writer(chain) as writer:
            writer.record_block(draws)
    assert main(["watch", str(directory.path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {value["name"] for value in found["values"]} == set(draws)
    for value in found["values"]:
        assert value["split_rhat"] is None
        # Infinite draws of both signs have ranks, and so a rank-normalised R-hat.
        assert (value["rhat"] is None) == (value["name"] != "both")
    assert main(["watch", str(directory.path), "--once"]) == 0
    assert "nothing so far" in capsys.readouterr().out


@pytest.mark.long
def test_chains_of_superchains_have_a_nested_rhat() -> None:
    trace = zt.create(
        chains=8, draws=40, chains_per_chunk=8, posterior={"x": zt.Var(shape=2)},
        superchains=[0, 0, 1, 1, 2, 2, 3, 3],
    )  # fmt: skip
    with trace.writer(range(8)) as writer:
        writer.record_block({"x": np.random.default_rng(1).normal(size=(8, 40, 2))})
    look = Watcher(trace._hierarchy).look()
    expected = trace.summary(kind="diagnostics", round_to="none")["r_hat_nested"]
    found = {value.name: value.exact.rhat_nested for value in look.values if value.exact}
    assert found == pytest.approx(expected.to_dict(), rel=1e-12)
    assert "nested R-hat" in as_html([look], width=120)
    assert "nested R-hat" not in as_html([look], width=80)


@pytest.mark.once("newest")
def test_ten_thousand_variables() -> None:
    names = [f"v{number}" for number in range(10_000)]
    posterior = dict.fromkeys(names, zt.Var())
    trace = zt.create(None, chains=2, chains_per_chunk=2, draws=10, posterior=posterior)
    rng = np.random.default_rng(15)
    with trace.writer(range(2)) as writer:
        writer.record_block(dict(zip(names, rng.normal(size=(10_000, 2, 10)), strict=True)))
    seen: list[Any] = []
    assert follow([watched(trace)], seen.extend, every=1) == 0
    assert (seen[0].of_scalars, seen[0].rhat_draws, len(seen[0].values)) == (10_000, 10, 20)
    values = trace.get([value.name for value in seen[0].values])
    for value in seen[0].values:
        expected = compute(values[value.name][..., None], ["r_hat_split"])["r_hat_split"]
        assert value.split_rhat == pytest.approx(float(expected[0]), rel=1e-12)


@pytest.mark.once("newest")
def test_a_store_that_is_only_read(directory: Place) -> None:
    recorded(directory)
    trace = zt.open(LocalStore(directory.path, read_only=True))
    seen: list[Any] = []
    assert follow([watched(trace)], seen.extend, every=1) == 0
    assert (seen[0].status, seen[0].rhat_draws) == ("complete", 50)


@pytest.mark.once("oldest")
def test_nothing_is_written(directory: Place) -> None:
    trace = recorded(directory, stop=30)
    files = {file: file.stat().st_mtime_ns for file in directory.path.rglob("*")}
    seen: list[Any] = []
    assert follow([watched(directory.open())], seen.extend, every=1, once=True) == 0
    assert files == {file: file.stat().st_mtime_ns for file in directory.path.rglob("*")}
    assert [chain.writer for chain in seen[0].chains] == ["closed", "closed"]
    trace.finish(chains=[1])
    assert follow([watched(directory.open())], seen.extend, every=1) == 0
    assert seen[1].status == "finished"


def watched(trace: zt.Trace) -> Watched:
    return Watched(trace._hierarchy, Watcher)


@pytest.mark.once("newest")
def test_a_store_that_goes_away_and_comes_back(directory: Place) -> None:
    trace = recorded(directory, stop=30)
    aside = directory.path.with_name("aside")
    seen: list[str] = []

    def show(looks: Any) -> None:
        [look] = looks
        seen.append("gone" if isinstance(look, Gone) else look.status)
        if len(seen) == 1:
            directory.path.rename(aside)
        elif len(seen) == 2:
            assert "no trace at" in look.reason
            aside.rename(directory.path)
        elif len(seen) == 3:
            # The run is begun again at the same place.
            assert look.rhat_draws == 20
            place = type(directory)("directory", directory.path, {"overwrite": True})
            recorded(place, stop=12)
        elif len(seen) == 4:
            assert isinstance(look, Look)
            assert look.chains[0].draws == 12
            for chain in range(2):
                record(directory.open("a"), chain, 60)

    assert follow([watched(trace)], show, every=0.01, patience=60) == 0
    assert seen == ["stopped", "gone", "stopped", "stopped", "complete"]
    directory.path.rename(aside)
    assert follow([watched(zt.open(aside))], show, every=0.01) == 0
    gone = watched(zt.open(aside))
    aside.rename(directory.path)
    assert follow([gone], lambda looks: None, every=0.01, patience=0.02) == 4


RUNNING = """
    import sys
    import time
    import numpy as np
    import zarrtrace as zt

    trace, chain = zt.open(sys.argv[1], "a"), int(sys.argv[2])
    with trace.writer(chain) as writer:
        for number in range(50):
            writer.record({"x": number % 7 + chain})
        print("ready", flush=True)
        sys.stdin.readline()
        for number in range(50):
            writer.record({"x": number % 7 + chain})
"""
WATCH = """
    import sys

    from zarrtrace.cli import main

    sys.exit(main(["watch", *sys.argv[1:]]))
"""


@pytest.mark.once("newest")
def test_how_it_ends(directory: Place, script: Script, tmp_path: Path) -> None:
    directory.create(chains=2, draws=100, posterior={"x": zt.Var()})
    started = [script.start(RUNNING, directory.path, chain) for chain in range(2)]
    for process in started:
        assert process.stdout.readline() == "ready\n"
    plain = [directory.path, "--plain", "--every", "0.05"]
    # Ctrl-C.
    watching = script.start(WATCH, *plain)
    line = watching.stdout.readline()
    assert "sampling, 2 chains, 50 of 100 draws (50 %)" in line
    watching.send_signal(signal.SIGINT)
    assert "interrupted" in watching.communicate()[1]
    assert watching.returncode == 130
    # A chain dies, and the other one has all its draws.
    told = tmp_path / "told.json"
    watching = script.start(WATCH, *plain, "--on-death", f"cat > {told}")
    watching.stdout.readline()
    started[1].kill()
    for process in started:
        process.communicate()
    output, errors = watching.communicate()
    assert watching.returncode == 3, errors
    assert f"chain 1 is dead (process {started[1].pid} on " in output
    [_, dead] = json.loads(told.read_text())["chains"]
    assert (dead["writer"], dead["draws"]) == ("dead", 50)
    assert "writer(1).resume()" in dead["resume"]
    # It is resumed.
    with directory.open("a").writer(1) as writer:
        writer.resume()
        writer.record_block({"x": np.arange(50.0)})
    told.unlink()
    watching = script.start(WATCH, *plain, "--on-finish", f"cat > {told}")
    watching.communicate()
    assert watching.returncode == 0
    assert json.loads(told.read_text())["status"] == "complete"


@pytest.mark.once("oldest")
def test_what_cannot_be_watched_is_said(
    directory: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recorded(directory)
    for arguments, says in (
        ([str(tmp_path / "nowhere.zarr")], "there is nothing at"),
        ([str(tmp_path)], None),
        ([str(directory.path), "--var", "mu"], "no variable 'mu'"),
    ):
        assert main(["watch", *arguments, "--plain"]) == (0 if says is None else 1)
        said = capsys.readouterr().err
        assert "Traceback" not in said
        assert says is None or says in said
    for option in (["--every", "0"], ["--memory", "-1"], ["--every", "x"]):
        with pytest.raises(SystemExit) as caught:
            main(["watch", str(directory.path), *option])
        assert caught.value.code == 2


@pytest.mark.once("oldest")
def test_a_view_returns_at_once(directory: Place) -> None:
    trace = recorded(directory, stop=30)
    view = directory.open().watch(every=0.01)
    for chain in range(2):
        record(trace, chain, 60)
    assert view.wait(60)
    assert "complete" in repr(view)
    view = trace.watch()
    view.stop()


@pytest.mark.parametrize(
    ("chains", "says"),
    [
        (
            range(2, 3),
            "chain 2 is dead (process 47 on node7, 640 draws): run the sampler again, "
            "which resumes it by ",
        ),
        (
            range(8),
            "chains 0 to 7 are dead (process 47 on node7, 640 draws): run the sampler again, "
            "which resumes them by ",
        ),
    ],
)
def test_chains_that_died_together_are_many(chains: range, says: str) -> None:
    dead = ChainLook(
        chains, phase="sampling", writer="dead", draws=640, planned=1000, rate=None, idle=None,
        divergences=None, step_size=None, tree_depth=None, acceptance=None, lp=None, host="node7",
        pid=47, resume="trace.writer(0).resume()",
    )  # fmt: skip
    assert who(dead) == says + "trace.writer(0).resume()"


@pytest.mark.once("newest")
def test_effective_draws_are_rounded_down(memory: Place) -> None:
    """As ArviZ does it: a size of 399.6 does not look as if it had reached 400."""
    trace = recorded(memory)
    bulk = compute(trace.get("tau")[..., None], ["ess_bulk"])["ess_bulk"].item()
    assert round(bulk) > bulk, "choose other draws"
    look = Watcher(trace._hierarchy).look()
    text = re.sub("<[^>]+>", "", as_html([look], width=100))
    (row,) = re.findall("^tau .*$", text, re.MULTILINE)
    assert f" {math.floor(bulk)} " in row
    met_soon = GoalLook(100, 1.0, "x", 399.6, "x", 0.5, "x", False, "")
    assert "ESS 399 of x" in str(met_soon)
