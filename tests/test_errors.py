"""Errors carry data: the reason alone, the place, a code that stays; and their words are right."""

from __future__ import annotations

import copy
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import zarrtrace as zt
from zarrtrace import errors
from zarrtrace.cli import main
from zarrtrace.messages import chain_label, counted, range_label

# Append only: programs keep these codes in their logs and compare them.
KINDS = {
    "TraceError": "trace",
    "InvalidInputError": "invalid-input",
    "SchemaError": "schema",
    "DrawError": "draw",
    "ChainError": "chain",
    "GroupNotFoundError": "group-not-found",
    "VariableNotFoundError": "variable-not-found",
    "TraceNotFoundError": "trace-not-found",
    "TraceExistsError": "trace-exists",
    "FormatVersionError": "format-version",
    "NotWritableError": "not-writable",
    "FinishedError": "finished",
    "ChainFullError": "chain-full",
    "StopRequestedError": "stop-requested",
    "NotResumedError": "not-resumed",
    "PartlyRecordedError": "partly-recorded",
    "ChainBusyError": "chain-busy",
    "IncompleteTraceError": "incomplete",
    "StaleViewError": "stale-view",
    "TraceReplacedError": "trace-replaced",
    "NotShareableError": "not-shareable",
    "DamagedTraceError": "damaged",
    "ChainsFailedError": "chains-failed",
}

CLASSES = [
    thing
    for thing in vars(errors).values()
    if isinstance(thing, type) and issubclass(thing, Exception)
]


def test_each_class_has_a_code_of_its_own_that_never_changes() -> None:
    assert {cls.__name__: cls.kind for cls in CLASSES} == KINDS
    assert len(set(KINDS.values())) == len(KINDS)
    assert all("kind" in vars(cls) for cls in CLASSES)


def test_the_drawing_says_the_code_of_each_class() -> None:
    drawn = re.findall(r"(\w+Error) +\"([a-z-]+)\"", errors.__doc__ or "")
    assert dict(drawn) == KINDS


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize("again", [copy.copy, lambda error: pickle.loads(pickle.dumps(error))])
def test_an_error_keeps_its_message_and_its_data(cls: type[zt.TraceError], again: Any) -> None:
    if cls is errors.ChainsFailedError:
        error: zt.TraceError = errors.ChainsFailedError("2 of 4 chains failed", {1: "Traceback"})
        assert again(error).failures == {1: "Traceback"}
        assert str(again(error)) == "2 of 4 chains failed"
        return
    place: dict[str, Any] = {"group": "posterior", "variable": "x", "chain": 1, "draw": 7}
    error = cls("it's gone", where="run.zarr: posterior/x", remedy="restore it", **place)
    for one in (error, again(error)):
        assert type(one) is cls
        assert str(one) == "run.zarr: posterior/x: it's gone; restore it"
        assert (one.why, one.where, one.remedy) == (
            "it's gone",
            "run.zarr: posterior/x",
            "restore it",
        )
        assert {name: getattr(one, name) for name in place} == place
    assert str(cls("it's gone")) == cls("it's gone").why == "it's gone"


def recorded(store: Any = None, chains: int = 2) -> zt.Trace:
    trace = zt.create(
        store,
        chains=chains,
        tune=1,
        draws=9,
        posterior={"x": zt.Var(draws_per_chunk=5)},
        observed_data={"y": [1.0]},
    )
    for chain in range(chains):
        with trace.writer(chain) as writer:
            writer.record_block({"x": np.arange(10.0)})
    return trace


def test_a_missing_group_is_one_class_everywhere() -> None:
    trace = recorded()
    ways: list[Any] = [
        lambda: trace.dataset("prior"),
        lambda: trace["prior"],
        lambda: trace.get("x", group="prior"),
        lambda: trace.to_datatree(["prior"]),
        lambda: trace.split_warmup(groups="prior"),
    ]
    for way in ways:
        with pytest.raises(
            errors.GroupNotFoundError, match=r"no (sampled )?group 'prior'"
        ) as found:
            way()
        assert found.value.group == "prior"
        assert isinstance(found.value, KeyError)
        assert "posterior" in found.value.remedy


def test_a_missing_variable_is_one_class() -> None:
    trace = recorded()
    for group in (None, "posterior"):
        with pytest.raises(errors.VariableNotFoundError, match="no sampled variable 'z'") as found:
            trace.get("z", group=group)
        assert (found.value.group, found.value.variable) == (group, "z")
        assert isinstance(found.value, KeyError)


def test_a_view_whose_draws_were_dropped_is_stale() -> None:
    trace = recorded()
    view = trace.posterior
    trace.drop_before(5)
    with pytest.raises(errors.StaleViewError, match="were dropped since this view") as found:
        view.x.load()
    assert found.value.remedy == "ask the trace for it again"


def test_a_view_whose_chain_went_back_is_stale(tmp_path: Path) -> None:
    trace = zt.create(tmp_path / "run.zarr", chains=1, draws=9, posterior={"x": 0.0})
    with trace.writer(0) as writer:
        writer.record_block({"x": np.arange(4.0)})
        writer.checkpoint({})
        writer.record({"x": 4.0})
    view = trace.posterior
    with trace.writer(0) as writer:
        with pytest.raises(
            errors.NotResumedError, match="has 5 draws from an earlier writer"
        ) as unready:
            writer.record({"x": 5.0})
        assert (unready.value.chain, unready.value.draw) == (0, 5)
        writer.resume()
        with pytest.raises(errors.StaleViewError, match="went back to its checkpoint") as found:
            view.x.load()
    assert (found.value.chain, found.value.draw) == (0, 4)


def test_check_says_the_whole_reason_of_an_error(tmp_path: Path) -> None:
    trace = recorded(tmp_path / "run.zarr")
    (tmp_path / "run.zarr/posterior/x/c.1.1").write_bytes(b"not a chunk")
    (tmp_path / "run.zarr/observed_data/y/zarr.json").write_bytes(b'{"a": b}')
    with pytest.raises(errors.DamagedTraceError) as found:
        trace.posterior.x.load()
    reasons = {damage.path: damage.why for damage in trace.check()}
    assert reasons["posterior/x, chain 1, draws 5 to 9"] == found.value.why
    assert found.value.why.startswith("the chunk posterior/x/c.1.1 cannot be decoded (")
    assert "Expecting value: line 1 column 7" in reasons["observed_data/y"]


def test_counts_and_ranges_are_said_right(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trace = recorded(tmp_path / "run.zarr")
    assert [line.split("  ")[-1] for line in repr(trace).splitlines() if "warmup_" in line] == [
        "1 draw, not split yet"
    ]
    with pytest.raises(errors.IncompleteTraceError, match=r"draws 5 to 11 .* draws 0 to 9; record"):
        trace.segments.add((5, 12))
    with pytest.raises(errors.ChainError, match="has chains 0 to 1, not 7"):
        trace.dataset("posterior", chains=7)
    with pytest.raises(errors.ChainError, match="has chain 0, not 3"):
        recorded(chains=1).writer(3)
    (tmp_path / "run.zarr/posterior/x/c.1.1").write_bytes(b"not a chunk")
    assert main(["check", str(tmp_path / "run.zarr")]) == 1
    assert "\n1 thing is wrong; `zarrtrace repair" in capsys.readouterr().out
    zt.open(tmp_path / "run.zarr", "a").repair()
    lost = zt.open(tmp_path / "run.zarr").posterior.x.attrs["lost_draws"]
    assert lost == ["chain 1: draws 5 to 9"]


def test_the_words_of_counts_and_ranges() -> None:
    assert [counted(n, "draw") for n in (0, 1, 2)] == ["0 draws", "1 draw", "2 draws"]
    assert [range_label("row", range(5, stop)) for stop in (5, 6, 8)] == [
        "no rows",
        "row 5",
        "rows 5 to 7",
    ]
    assert [chain_label(range(n)) for n in (1, 32)] == ["chain 0", "chains 0 to 31"]
