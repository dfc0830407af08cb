"""`trace.diagnose` judges as `arviz.diagnose` does, and says where the trouble is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import arviz as az
import numpy as np
import pytest

import zarrtrace as zt
from zarrtrace.cli import main
from zarrtrace.diagnostics.statistics import arviz_is_1

DRAWS, CHAINS = 400, 4


def run(store: Any, *problems: str, chains: int = CHAINS, draws: int = DRAWS) -> zt.Trace:
    """A run with some problems, all of which a sampler could have."""
    rng = np.random.default_rng(11)
    trace = zt.create(
        store, chains=chains, draws=draws, posterior={"tau": zt.Var(), "theta": zt.Var(shape=3)},
        sample_stats={
            "diverging": zt.Var(dtype=bool), "reached_max_treedepth": zt.Var(dtype=bool),
            "energy": zt.Var(),
        },
    )  # fmt: skip
    for chain in range(chains):
        tau, theta = np.exp(rng.normal(size=draws)), rng.normal(size=(draws, 3))
        energy, diverging, deep = (
            rng.normal(size=draws),
            np.zeros(draws, bool),
            np.zeros(draws, bool),
        )
        if "rhat" in problems:
            theta[:, 1] += chain
        if "ess" in problems:
            theta[:, 2] = theta[:, 2].cumsum()
        if "bfmi" in problems and chain == 2:
            energy = energy.cumsum()
        if "divergent" in problems:
            diverging = tau < np.quantile(tau, 0.03)
            diverging[7] = True
        if "treedepth" in problems:
            deep[:3] = True
        with trace.writer(chain) as writer:
            writer.record_block(
                {"tau": tau, "theta": theta},
                {"diverging": diverging, "reached_max_treedepth": deep, "energy": energy},
            )
    return trace


@pytest.mark.parametrize(
    "problems", [(), ("ess", "rhat"), ("bfmi",), ("divergent",), ("treedepth",)], ids=str
)
def test_the_verdict_is_that_of_arviz(problems: tuple[str, ...]) -> None:
    trace = run(None, *problems)
    verdict = trace.diagnose()
    assert {finding.check for finding in verdict.problems} == set(problems)
    assert bool(verdict) is verdict.good is (not problems)
    if not arviz_is_1():
        return
    options = {"show_diagnostics": False, "return_diagnostics": True}
    has_errors, expected = az.diagnose(trace.to_inferencedata(), **options)
    assert has_errors is bool(problems)
    for finding in verdict.findings:
        for key in finding.data.keys() & expected[finding.check].keys():
            np.testing.assert_equal(finding.data[key], expected[finding.check][key])
    for check, values in (("rhat", "rhat_values"), ("ess", "ess_values")):
        assert verdict[check].data["bad_params"] == list(expected[check][values].data_vars)


def test_it_says_where_and_what_next() -> None:
    text = str(run(None, "divergent", "rhat", "bfmi").diagnose())
    # Chains that do not agree have a small ESS too.
    assert "memory: 4 chains of 400 draws, 4 problems found" in text
    assert "52 of 1600 transitions" in text
    assert "48 of 52 divergences have tau < 0." in text
    assert "target_accept" in text
    assert "first of tau" in text
    assert "E-BFMI of chain 2 is below 0.3" in text
    assert "1 of 4 scalars has an R-hat above 1.01" in text
    assert "theta[1] has the largest" in text
    assert "good  no transition reached the maximum tree depth" in text


@pytest.mark.once("newest")
def test_divergences_all_over_the_place_lie_nowhere() -> None:
    rng = np.random.default_rng(1)
    trace = zt.create(
        None,
        chains=2,
        draws=300,
        posterior={"x": zt.Var(shape=40)},
        sample_stats={"diverging": False},
    )
    for chain in range(2):
        with trace.writer(chain) as writer:
            stats = {"diverging": rng.random(300) < 0.05}
            writer.record_block({"x": rng.normal(size=(300, 40))}, stats)
    finding = trace.diagnose()["divergent"]
    assert finding.good is False
    assert "where" not in finding.data


@pytest.mark.once("newest")
@pytest.mark.parametrize(
    ("chains", "draws", "said"),
    [(1, 400, "R-hat cannot be computed from one chain"), (4, 3, "fewer than 4 draws")],
)
def test_what_cannot_be_judged_is_not_good(chains: int, draws: int, said: str) -> None:
    verdict = run(None, chains=chains, draws=draws).diagnose()
    assert not verdict
    assert not verdict.problems
    assert "nobody can say yet whether they are good" in str(verdict)
    assert said in str(verdict)


@pytest.mark.once("newest")
def test_draws_that_are_nan_and_samplers_without_statistics() -> None:
    rng = np.random.default_rng(1)
    trace = zt.create(None, chains=2, draws=300, posterior={"x": 0.0, "y": 0.0, "one": 0.0})
    for chain in range(2):
        with trace.writer(chain) as writer:
            y = rng.normal(size=300)
            writer.record_block({"x": np.full(300, np.nan), "y": y, "one": np.ones(300)})
    verdict = trace.diagnose()
    assert verdict.good
    assert "1 of 3 scalars has draws that are not finite" in verdict["ess"].says
    assert "2 of 3 scalars have none" in verdict["rhat"].says
    assert verdict["divergent"].good is None
    assert not trace.diagnose("x")


@pytest.mark.once("newest")
def test_the_command_ends_with_0_or_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tmp_path / "good")
    run(tmp_path / "bad", "divergent", "rhat")
    assert main(["diagnose", str(tmp_path / "good")]) == 0
    assert "4 chains of 400 draws, good" in capsys.readouterr().out
    assert main(["diagnose", str(tmp_path / "bad"), "--json"]) == 1
    content = json.loads(capsys.readouterr().out)
    assert content["good"] is False
    checks = {finding["check"]: finding for finding in content["findings"]}
    assert checks["divergent"]["data"]["where"]["label"] == "tau"
    assert main(["diagnose", str(tmp_path / "bad"), "--var-names", "tau"]) == 1
    assert main(["diagnose", str(tmp_path / "nothing")]) == 1
    assert capsys.readouterr().err.startswith("zarrtrace: there is nothing at ")
