"""A goal is met when its exact numbers hold at two looks in a row, and then the run stops."""

from __future__ import annotations

import runpy
import time
from pathlib import Path
from typing import Any

import arviz as az
import numpy as np
import pytest
from conftest import Place
from scripts import Script

import zarrtrace as zt
from zarrtrace.cli import main
from zarrtrace.errors import InvalidInputError, NotWritableError, VariableNotFoundError
from zarrtrace.goals.converged import look
from zarrtrace.goals.looks import Looks

HARNESS = Path(__file__).with_name("harness_stopping.py")

RNG = np.random.default_rng(5)
BEGINNING = RNG.bit_generator.state


@pytest.fixture(autouse=True)
def _same_numbers() -> None:
    """Each test draws the same numbers, whatever was run before it."""
    RNG.bit_generator.state = BEGINNING


def correlated(chains: int, draws: int, *shape: int, rho: float = 0.8) -> np.ndarray:
    noise = RNG.normal(size=(chains, draws, *shape))
    for draw in range(1, draws):
        noise[:, draw] += rho * noise[:, draw - 1]
    return noise


def create(place: Place, **more: Any) -> zt.Trace:
    posterior = {
        "mu": zt.Var(),
        "theta": zt.Var(shape=3),
        "fixed": zt.Var(),
        "word": zt.Var(dtype=str),
    }
    return place.create(**{"chains": 3, "tune": 5, "draws": 4000, "posterior": posterior} | more)


def record(trace: zt.Trace, values: dict[str, np.ndarray], draws: slice) -> None:
    """Record draws of all chains, each with its own writer."""
    for chain in range(trace.chains):
        with trace.writer(chain) as writer:
            writer.resume()
            writer.record_block({name: value[chain, draws] for name, value in values.items()})


def draw(draws: int, chains: int = 3) -> dict[str, np.ndarray]:
    return {
        "mu": correlated(chains, draws),
        "theta": correlated(chains, draws, 3, rho=0.9),
        "fixed": np.ones((chains, draws)),
        "word": np.full((chains, draws), "a", dtype=object),
    }


def test_a_look_has_the_worst_of_arvizs_numbers(memory: Place) -> None:
    trace = create(memory)
    values = draw(505)
    values["theta"][1, :, 2] += 4.0
    record(trace, values, slice(None))
    goal = zt.Converged(rhat=1.3, ess=10, mcse={"theta": 0.2})
    seen = look(goal, trace._now())
    posterior = trace.posterior[["mu", "theta"]]
    sizes = [az.ess(posterior, method=method) for method in ("bulk", "tail")]
    assert seen.rhat == pytest.approx(float(az.rhat(posterior)["theta"].max()), rel=1e-12)
    smallest = min(float(size[name].min()) for size in sizes for name in ("mu", "theta"))
    assert seen.ess == pytest.approx(smallest, rel=1e-12)
    error = float(az.mcse(posterior, method="mean")["theta"].max())
    assert seen.mcse == pytest.approx(error / 0.2, rel=1e-12)
    assert (seen.draws, seen.rhat_of, seen.mcse_of[:6], seen.has_nan) == (
        500,
        "theta[2]",
        "theta[",
        "",
    )
    assert seen.holds == (seen.rhat < 1.3 and seen.ess > 10 and seen.mcse < 1)
    mu_alone = look(zt.Converged(rhat=1.3, ess=None, var_names="mu"), trace._now())
    assert (mu_alone.rhat_of, mu_alone.holds) == ("mu", True)


def test_one_look_is_not_enough_and_two_are_a_tenth_of_the_draws_apart(directory: Place) -> None:
    trace = create(directory)
    values = draw(3000)
    goal = zt.Converged(rhat=1.05, ess=100, min_draws=200)
    looks = Looks(trace, goal)

    def look_after(start: int, stop: int) -> Any:
        record(trace, values, slice(start, stop))
        looks._next_time = 0.0  # a second later
        return looks.look()

    assert look_after(0, 204) is None  # 199 draws after warmup
    seen = look_after(204, 1005)
    assert (seen.draws, seen.holds, looks.stops_at) == (1000, True, None)
    assert look_after(1005, 1104) is None
    assert look_after(1104, 1105).holds
    looks.close()
    assert looks.stops_at is not None
    request = trace.stop_request
    assert request is not None
    assert request.reason == "rhat < 1.05 & ess > 100 held after 1000 and 1100 draws"
    table = trace.table("looks").to_dataset()
    assert table["draws"].values.tolist() == [1000, 1100]
    assert table["holds"].values.tolist() == [True, True]
    assert (table["rule"].values == "rhat < 1.05 & ess > 100").all()
    record(trace, values, slice(1105, looks.stops_at))
    trace.finish()
    attrs = trace.posterior.attrs
    assert attrs["stopping_rule"] == "rhat < 1.05 & ess > 100"
    assert (attrs["stopping_looks"], attrs["stopping_rule_held_at"]) == (2, 1000)
    assert attrs["stopping_rule_confirmed_at"] == 1100
    assert "chosen by looking" in attrs["stopping_length"]


def test_a_goal_that_held_and_holds_no_more_is_not_met(memory: Place) -> None:
    trace = create(memory)
    values = draw(2005)
    values["mu"][0, 1005:] += 20  # a chain finds another mode
    looks = Looks(trace, zt.Converged(rhat=1.05, ess=100))
    held = []
    for start, stop in ((0, 1005), (1005, 1305), (1305, 2005)):
        record(trace, values, slice(start, stop))
        looks._next_time = 0.0
        seen = looks.look()
        assert seen is not None
        held.append(seen.holds)
    assert (held, looks.stops_at, trace.stop_request) == ([True, False, False], None, None)


CHAIN = """
import sys, time
import numpy as np
import zarrtrace as zt

def chain(index, trace):
    rng = np.random.default_rng(index)
    with trace.writer(index) as writer:
        start, _ = writer.resume()
        for i in range(start, trace.tune + trace.draws):
            writer.record({"mu": rng.normal()})
            time.sleep(0.001)
"""


@pytest.mark.long
@pytest.mark.once("oldest")
def test_a_run_stops_at_its_goal_and_so_does_one_that_another_process_looks_at(
    directory: Place, script: Script, capsys: pytest.CaptureFixture[str]
) -> None:
    trace = create(directory, chains=2, draws=None, posterior={"mu": zt.Var()})
    script.run(
        CHAIN + "zt.run(chain, zt.open(sys.argv[1], 'a'), progress=False, "
        "until=zt.Converged(rhat=1.1, ess=150, min_draws=100))",
        directory.path,
    )
    assert (trace.status, len(set(trace.recorded.tolist()))) == ("complete", 1)
    assert "complete, stopped at its goal: 2 chains" in repr(trace)
    assert len(trace.table("looks")) >= 2
    first = int(trace.recorded[0])
    # It continues, and is looked at from elsewhere.
    trace.extend(None)
    process = script.start(
        CHAIN + "zt.run(chain, zt.open(sys.argv[1], 'a'), progress=False)", directory.path
    )
    rule = f"rhat<1.1 & ess>{first * 1.5} & mcse(mu)<0.5"
    assert main(["stop", str(directory.path), "--until", rule]) == 0
    assert process.communicate() == ("", "")
    assert process.returncode == 0
    printed = capsys.readouterr().out
    assert "the goal holds" in printed
    assert "asked to stop at draw" in printed
    assert len(set(trace.recorded.tolist())) == 1
    assert (trace.get("mu").shape[1] > first * 0.7, trace.status) == (True, "complete")


@pytest.mark.once("oldest")
def test_a_goal_that_is_not_met_is_told_of(directory: Place) -> None:
    trace = create(directory, chains=2, draws=100, posterior={"mu": zt.Var()})

    def chain(index: int, trace: zt.Trace) -> None:
        with trace.writer(index) as writer:
            for number in range(105):
                writer.record({"mu": float(number)})

    goal = zt.Converged(min_draws=50, ess=150)
    with pytest.warns(
        RuntimeWarning, match="ended before the goal rhat < 1.01 & ess > 150 was met"
    ):
        zt.run(chain, trace, until=goal, progress=False)
    assert trace.status == "complete"
    assert main(["stop", str(directory.path), "--until", "ess>150", "--min-draws", "50"]) == 1


@pytest.mark.once("newest")
def test_goals_that_cannot_be_are_refused_before_anything_runs(directory: Place) -> None:
    trace = create(directory, draws=300)
    refused: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({"var_names": ["nu"]}, VariableNotFoundError, "names 'nu', which .* it has mu, theta"),
        ({"mcse": {"nu": 0.1}}, VariableNotFoundError, "names 'nu'"),
        ({"var_names": ["word"]}, InvalidInputError, "names 'word', which has no R-hat"),
        ({"min_draws": 290}, InvalidInputError, "a look at 290 draws after warmup and one at 319"),
        ({"min_draws": 10**6}, InvalidInputError, "name the variables that matter"),
    ]
    for arguments, kind, words in refused:
        with pytest.raises(kind, match=words):
            zt.run(lambda chain, trace: None, trace, until=zt.Converged(**arguments))
    with pytest.warns(
        RuntimeWarning, match="more than 900 effective draws, and .* have 900 in all"
    ):
        Looks(trace, zt.Converged(ess=900))
    with pytest.raises(NotWritableError, match="mode='a'"):
        Looks(zt.open(directory.path), zt.Converged())
    with pytest.raises(InvalidInputError, match="one chain alone"):
        Looks(zt.create(None, chains=1, draws=900, posterior={"x": zt.Var()}), zt.Converged())
    text = zt.create(None, chains=2, draws=900, posterior={"x": zt.Var(dtype=str)})
    with pytest.raises(InvalidInputError, match="nothing to look at"):
        Looks(text, zt.Converged())


@pytest.mark.once("newest")
def test_the_command_refuses_in_words_what_cannot_be_looked_at(
    directory: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    create(directory, draws=300)
    zt.create(tmp_path / "one.zarr", chains=1, draws=900, posterior={"x": zt.Var()})
    finished = zt.create(tmp_path / "finished.zarr", chains=2, draws=300, posterior={"x": zt.Var()})
    for chain in range(2):
        with finished.writer(chain) as writer:
            writer.record_block({"x": RNG.normal(size=300)})
    finished.finish()
    finished.pack(tmp_path / "packed.zip")
    (tmp_path / "other").mkdir()
    refused: list[tuple[object, list[str], str]] = [
        (directory.path, ["mcse(nu)<1"], "names 'nu', which the posterior does not have"),
        (directory.path, ["ess>5", "--var-names", "word"], "names 'word', which has no R-hat"),
        (directory.path, ["ess>5", "--min-draws", "290"], "the chains end with 300"),
        (tmp_path / "one.zarr", ["ess>5"], "one chain alone cannot show that it has converged"),
        (tmp_path / "packed.zip", ["ess>5"], "packed.zip"),
        (tmp_path / "other", ["ess>5"], "other"),
    ]
    for path, rule, words in refused:
        assert main(["stop", str(path), "--until", *rule]) == 1
        printed = capsys.readouterr()
        assert words in printed.err
        assert (printed.out, printed.err.count("\n")) == ("", 1)
    assert main(["stop", str(tmp_path / "finished.zarr"), "--until", "ess>5"]) == 1
    assert "the run is finished, and the goal was not met" in capsys.readouterr().out
    assert finished.check() == []


@pytest.mark.once("newest")
def test_draws_that_are_nan_are_told_of_once(memory: Place) -> None:
    trace = create(memory)
    values = draw(1005)
    values["theta"][0, 700, 1] = np.nan
    record(trace, values, slice(0, 705))
    looks = Looks(trace, zt.Converged(rhat=2, ess=1))
    with pytest.warns(RuntimeWarning, match="theta has draws that are NaN, so the goal .* cannot"):
        looks.look()
    record(trace, values, slice(705, 1005))
    looks._next_time = time.monotonic()
    seen = looks.look()
    assert (seen is not None and seen.holds, looks.stops_at) == (False, None)


@pytest.mark.parametrize(
    "text", ["", "rhat<1.01 &", "rhat>1.01", "ess<5", "mcse<1", "rhat<x", "ess>5,rhat<2"]
)
@pytest.mark.once("oldest")
def test_a_text_that_is_not_a_goal_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError, match=r"is not a goal; write rhat < 1\.01"):
        zt.Converged.parse(text)


@pytest.mark.once("oldest")
def test_a_goal_is_written_as_it_is_read() -> None:
    goal = zt.Converged.parse(" R_hat<1.02&ess > 4e2 & mcse(tau) < 0.02", ["mu"])
    assert goal == zt.Converged(1.02, 400, {"tau": 0.02}, ["mu"])
    assert str(goal) == "rhat < 1.02 & ess > 400 & mcse(tau) < 0.02 for mu"
    wrong: list[dict[str, Any]] = [
        {"rhat": 1.0}, {"ess": 0}, {"ess": True}, {"ess": float("nan")}, {"mcse": {"x": -1}},
        {"min_draws": 3}, {"rhat": None, "ess": None}, {"var_names": []},
    ]  # fmt: skip
    for arguments in wrong:
        with pytest.raises(InvalidInputError):
            zt.Converged(**arguments)


@pytest.mark.once("oldest")
def test_two_looks_stop_with_more_effective_draws_than_one(trials: int | None) -> None:
    harness: dict[str, Any] = runpy.run_path(str(HARNESS))
    chains = harness["autoregressive"](0.9, 5000, trials or 12, np.random.default_rng(3))
    outcomes = harness["stop"](chains)
    share = 0.1 / 1.9 * harness["CHAINS"]
    true = {rule: np.sort(draws * share) for rule, draws in outcomes.items()}
    assert all(found.all() for found in true.values())
    assert true["batch means"].mean() < true["one look"].mean() < true["two looks"].mean()
    assert (true["two looks"] >= harness["GROWTH"] * true["one look"] - 1).all()
    assert true["two looks"].min() > 0.7 * harness["ESS"]
