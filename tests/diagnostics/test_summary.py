"""`trace.summary` is the table of the installed `az.summary`, of any trace."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import arviz as az
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import zarrtrace as zt
from zarrtrace.cli import main
from zarrtrace.diagnostics import transposed
from zarrtrace.diagnostics.statistics import arviz_is_1
from zarrtrace.errors import (
    GroupNotFoundError,
    IncompleteTraceError,
    InvalidInputError,
    VariableNotFoundError,
)
from zarrtrace.reading.rows import RowReader

KINDS = ["all", "stats", "diagnostics", "all_median", "stats_median", "diagnostics_median"]


@pytest.fixture(autouse=True, scope="module")
def quiet_arviz() -> Iterator[None]:
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


def of_arviz(trace: Any, kind: str = "all", round_to: Any = "auto", **options: Any) -> Any:
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        data = trace.to_inferencedata(["posterior"])
        if arviz_is_1():
            return az.summary(data, kind=kind, round_to=round_to, **options)
        what, _, of_median = kind.partition("_")
        focus = "median" if of_median else "mean"
        round_to = None if round_to == "auto" else round_to
        return az.summary(data, kind=what, stat_focus=focus, round_to=round_to, **options)


def require_equal(ours: Any, theirs: Any) -> None:
    assert type(ours) is type(theirs)
    pd.testing.assert_frame_equal(pd.DataFrame(ours), pd.DataFrame(theirs), rtol=1e-11, atol=1e-13)
    assert repr(ours) == repr(theirs)


def filled(store: Any, draws: int = 41, chains: int = 3, seed: int = 1, **more: Any) -> Any:
    """A trace with labels, integers, booleans, constants and ties."""
    rng = np.random.default_rng(seed)
    trace = zt.create(
        store, chains=chains, draws=draws, coords={"school": ["A b", "C"], "year": [1.5, 2000]},
        posterior={
            "mu": zt.Var(), "theta[x]": zt.Var(dims="school"), "L": zt.Var(shape=(2, 3)),
            "count": zt.Var(dtype="int16"), "flag": zt.Var(dtype=bool),
            "one": zt.Var(dims=("school", "year")),
        },
        **more,
    )  # fmt: skip
    for chain in range(chains):
        with trace.writer(chain) as writer:
            writer.record_block(
                {
                    "mu": rng.normal(size=draws) * 1000,
                    "theta[x]": rng.normal(size=(draws, 2)).cumsum(axis=0),
                    "L": rng.normal(size=(draws, 2, 3)).round(1) * 1e-3,
                    "count": rng.poisson(3, size=draws),
                    "flag": rng.random(draws) > 0.5,
                    "one": np.ones((draws, 2, 2)),
                }
            )
    return trace


@pytest.mark.parametrize("kind", [*KINDS, *(["mc_diagnostics"] if arviz_is_1() else [])])
def test_it_is_the_table_of_arviz(kind: str) -> None:
    trace = filled(None)
    if kind == "mc_diagnostics":
        # ArviZ fails on constants, and on equal draws in a tail.
        trace = trace_of_normals()
    for round_to in ("auto", "none", 2):
        require_equal(trace.summary(kind=kind, round_to=round_to), of_arviz(trace, kind, round_to))


def trace_of_normals() -> Any:
    rng = np.random.default_rng(5)
    trace = zt.create(None, chains=3, draws=200, posterior={"x": zt.Var(shape=3)})
    for chain in range(3):
        with trace.writer(chain) as writer:
            writer.record_block({"x": rng.standard_t([1, 3, 30], size=(200, 3))})
    return trace


def test_a_kind_that_arviz_does_not_have_is_refused() -> None:
    trace = filled(None)
    with pytest.raises(InvalidInputError, match=r"'best': there is no such kind; give one of all,"):
        trace.summary(kind="best")
    if arviz_is_1():
        found = trace.summary(kind="mc_diagnostics", round_to="none")
        assert list(found.columns) == ["mcse_mean", "ess_mean", "min_ss"]
        assert found["min_ss"].isna()["one[C, 1.5]"]
    else:
        with pytest.raises(InvalidInputError, match="installed ArviZ does not have it; give one"):
            trace.summary(kind="mc_diagnostics")


@pytest.mark.parametrize(
    "options",
    [
        {"var_names": "mu"},
        {"var_names": ["~L", "~flag"]},
        {"var_names": ["ou", "th"], "filter_vars": "like"},
        {"var_names": ["~^[mc]"], "filter_vars": "regex"},
        {"coords": {"school": ["C"]}, "var_names": ["one", "theta[x]"]},
        {"coords": {"chain": [0, 2]}},
    ],
    ids=str,
)
def test_it_chooses_as_arviz_does(options: Any) -> None:
    trace = filled(None)
    require_equal(trace.summary(**options), of_arviz(trace, **options))


@settings(max_examples=10, deadline=None)
@given(chains=st.integers(1, 5), draws=st.integers(1, 40), seed=st.integers(0, 2**32))
def test_it_is_the_table_of_arviz_for_all_shapes(chains: int, draws: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(chains, draws, 4))
    values[rng.integers(chains), rng.integers(draws), 0] = np.nan
    values[rng.integers(chains), rng.integers(draws), 1] = np.inf
    values[:, :, 2] = values[:, :, 2].round(1) * 0.1
    trace = zt.create(None, chains=chains, draws=draws, posterior={"x": zt.Var(shape=4)})
    for chain in range(chains):
        with trace.writer(chain) as writer:
            writer.record_block({"x": values[chain]})
    for kind in ("all", "all_median"):
        ours, theirs = trace.summary(kind=kind, round_to="none"), of_arviz(trace, kind, "none")
        pd.testing.assert_frame_equal(ours, theirs, rtol=1e-11, atol=1e-13)


def test_running_ragged_and_finished_traces_have_one(tmp_path: Path) -> None:
    trace = zt.create(tmp_path / "t", chains=2, tune=10, draws=30, posterior={"x": zt.Var()})
    rng = np.random.default_rng(1)
    with pytest.raises(IncompleteTraceError, match=r"no draw yet; ask again later"):
        trace.summary()
    writers = [trace.writer(chain) for chain in range(2)]
    for writer in writers:
        writer.record_block({"x": rng.normal(size=8)})
    with pytest.raises(IncompleteTraceError, match=r"8 of warmup; group='warmup_posterior'"):
        trace.summary()
    assert np.isfinite(trace.summary(group="warmup_posterior")["r_hat"].item())
    for writer, draws in zip(writers, (12, 22), strict=True):
        writer.record_block({"x": rng.normal(size=draws)})
    with pytest.warns(RuntimeWarning, match="have 10 to 20 draws: the first 10 of each are used"):
        ours = trace.summary()
    require_equal(ours, of_arviz(trace))
    for writer in writers:
        writer.record_block({"x": rng.normal(size=40 - writer.recorded)})
        writer.close()
    trace.finish()
    trace.drop_before(20)
    require_equal(trace.summary(), of_arviz(trace))
    require_equal(trace.summary(), az.summary(zt.open(tmp_path / "t").to_inferencedata()))


@pytest.mark.once("newest")
def test_a_variable_that_is_larger_than_memory_is_transposed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(3)
    trace = zt.create(
        tmp_path / "t", chains=4, tune=13, draws=200, draws_per_chunk=17, chains_per_chunk=2,
        posterior={"x": zt.Var(shape=(5, 7)), "y": zt.Var()},
    )  # fmt: skip
    for block in trace.blocks:
        with trace.writer(block) as writer:
            writer.record_block(
                {"x": rng.normal(size=(2, 213, 5, 7)), "y": rng.normal(size=(2, 213))}
            )
    chosen: dict[str, Any] = {"chain": [0, 3], "draw": slice(20, 150), "x_dim_1": [1, 3]}
    for options in ({}, {"coords": chosen}):
        whole = trace.summary(round_to="none", **options)
        assert capsys.readouterr().err == ""
        slabs = trace.summary(round_to="none", memory=40_000, scratch=tmp_path, **options)
        assert f"posterior/x is transposed through {tmp_path}" in capsys.readouterr().err
        pd.testing.assert_frame_equal(slabs, whole, rtol=1e-13)
        trace.finish()
    assert [path.name for path in tmp_path.iterdir()] == ["t"]


@pytest.mark.once("newest")
def test_every_chunk_is_read_once_to_be_transposed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace = zt.create(
        tmp_path / "t", chains=2, draws=160, draws_per_chunk=16, posterior={"x": zt.Var(shape=50)}
    )
    for chain in range(2):
        with trace.writer(chain) as writer:
            writer.record_block({"x": np.random.default_rng(chain).normal(size=(160, 50))})
    reads: list[str] = []
    read_chunk = RowReader.stored_chunk

    def counted(reader: RowReader, place: Any, *arguments: Any) -> Any:
        reads.append(place.key(trace._layout.variables[0], reader.block.number))
        return read_chunk(reader, place, *arguments)

    monkeypatch.setattr(RowReader, "stored_chunk", counted)
    trace.summary(memory=40_000, progress=False)
    assert len(reads) == len(set(reads)) == 20


@pytest.mark.once("newest")
def test_scratch_space_that_is_too_small_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace = filled(tmp_path / "t")
    with pytest.raises(InvalidInputError, match=r"nowhere cannot be used: No such file"):
        trace.summary(memory=100, scratch=tmp_path / "nowhere")
    monkeypatch.setattr(transposed.shutil, "disk_usage", lambda path: type("U", (), {"free": 7}))
    with pytest.raises(InvalidInputError, match=r"takes 984 bytes, and 7 bytes are free there"):
        trace.summary("mu", memory=100)
    assert len(trace.summary("mu")) == 1


@pytest.mark.once("newest")
def test_what_cannot_be_summarised_is_said() -> None:
    trace = zt.create(
        None, chains=2, draws=8, observed_data={"y": [1.0]},
        posterior={"name": zt.Var(dtype=str), "z": zt.Var(dtype=complex), "x": 0.0},
    )  # fmt: skip
    for chain in range(2):
        with trace.writer(chain) as writer:
            for i in range(8):
                writer.record({"name": "a", "z": 1j, "x": i * (chain + 1)})
    with pytest.warns(RuntimeWarning, match="name, z in .*: text, times or complex"):
        assert list(trace.summary().index) == ["x"]
    with pytest.raises(InvalidInputError, match=r"z has no summary: its draws are complex128"):
        trace.summary(["x", "z"])
    with pytest.raises(VariableNotFoundError, match=r"no variable 'tau' in .*it has name, z, x"):
        trace.summary("tau")
    with pytest.raises(InvalidInputError, match="is not a regular expression"):
        trace.summary("(", filter_vars="regex")
    with pytest.raises(InvalidInputError, match="coords chooses nothing along 'chain'"):
        trace.summary("x", coords={"chain": [7]})
    with pytest.raises(InvalidInputError, match="'school', which is not a dimension"):
        trace.summary("x", coords={"school": [7]})
    with pytest.raises(GroupNotFoundError):
        trace.summary(group="prior")
    with pytest.raises(InvalidInputError, match="no chains and draws"):
        trace.summary(group="observed_data")
    for options in ({"kind": "best"}, {"ci_prob": 1.5}, {"ci_kind": "x"}, {"filter_vars": "x"}):
        with pytest.raises(InvalidInputError, match=str(next(iter(options.values())))):
            trace.summary("x", **options)  # type: ignore[arg-type]


@pytest.mark.once("newest")
def test_the_rest_is_shown_beside_a_damaged_chunk(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trace = filled(tmp_path / "t", draws_per_chunk=20)
    whole = trace.summary(round_to="none")
    trace.table("log").append({"text": "[red]beside[/red]"})
    trace.close()
    (tmp_path / "t" / "posterior" / "theta[x]" / "c.1.1.0").unlink()
    with pytest.warns(RuntimeWarning, match=r"NaN stands for theta\[x\].*chain 1, draws 20 to 39"):
        rest = trace.summary(round_to="none")
    is_damaged = rest.index.str.startswith("theta[x]")
    assert rest[is_damaged].isna().all(axis=None)
    pd.testing.assert_frame_equal(rest[~is_damaged], whole[~is_damaged])
    assert main(["summary", str(tmp_path / "t"), "--var-names", "theta[x]", "mu"]) == 0
    printed = capsys.readouterr()
    assert printed.err.startswith("zarrtrace: NaN stands for theta[x]")
    assert "theta[x][A b]" in printed.out


@pytest.mark.once("newest")
def test_the_command_prints_a_table_or_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trace = filled(tmp_path / "t")
    path = str(tmp_path / "t")
    assert main(["summary", path]) == 0
    assert capsys.readouterr().out.splitlines() == trace.summary().to_string().splitlines()
    assert main(["summary", path, "--json", "--var-names", "L", "--kind", "stats"]) == 0
    content = json.loads(capsys.readouterr().out)
    exact = trace.summary("L", kind="stats", round_to="none")
    assert [row.pop("name") for row in content["scalars"]] == list(exact.index)
    assert [*map(list, map(dict.values, content["scalars"]))] == exact.to_numpy().tolist()
    assert main(["summary", path, "--group", "warmup_posterior"]) == 1
    assert "has no group 'warmup_posterior'" in capsys.readouterr().err
    assert main(["summary", str(tmp_path / "nowhere")]) == 1
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.once("newest")
def test_thousands_of_variables_have_a_table() -> None:
    names = [f"x{i}" for i in range(2_000)]
    trace = zt.create(None, chains=2, draws=4, posterior=dict.fromkeys(names, 0.0))
    for chain in range(2):
        with trace.writer(chain) as writer:
            for i in range(4):
                writer.record(dict.fromkeys(names, float(i * (chain + 1))))
    found = trace.summary(kind="diagnostics")
    assert list(found.index) == names
