"""Which groups `create` takes: those of ArviZ by keyword, others in `groups`; nothing else."""

from __future__ import annotations

from typing import Any

import pytest

import zarrtrace as zt
from zarrtrace.errors import InvalidInputError
from zarrtrace.layout.variables import CONSTANT_GROUPS, GROUP_ORDER


def create(**options: Any) -> zt.Trace:
    given: dict[str, Any] = {"chains": 1, "draws": 2, "posterior": {"x": 0.0}, **options}
    return zt.create(None, **given)


@pytest.mark.parametrize("name", [name for name in GROUP_ORDER if name != "posterior"])
def test_each_group_that_arviz_knows_is_a_keyword(name: str) -> None:
    trace = create(**{name: {"z": [1.0, 2.0]}})
    assert sorted(trace) == sorted(["posterior", name])
    sampled = name not in CONSTANT_GROUPS
    assert ("draw" in trace[name].dims) == sampled
    assert list(create(**{name: None})) == ["posterior"]
    assert list(create(groups={name: {"z": [1.0, 2.0]}})) == list(trace)


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [
        ("dim", "dims"),
        ("coord", "coords"),
        ("attr", "attrs"),
        ("chain", "chains"),
        ("log_likelihoods", "log_likelihood"),
        ("samplestats", "sample_stats"),
        ("group", "groups"),
    ],
)
def test_a_misspelt_keyword_is_refused_with_the_one_meant(wrong: str, meant: str) -> None:
    with pytest.raises(InvalidInputError, match=f"no parameter '{wrong}'; did you mean '{meant}'"):
        create(**{wrong: {"z": 0.0}})


def test_a_keyword_that_resembles_none_says_where_a_group_goes() -> None:
    with pytest.raises(InvalidInputError, match=r"no parameter 'zzz'; a group .* groups={'zzz'"):
        create(zzz={"z": 0.0})


def test_a_group_of_another_name_goes_into_groups_and_is_recorded_by_keyword() -> None:
    trace = create(groups={"energies": {"e": 0.0}, "dim": {"z": zt.Var(shape=2)}})
    assert list(trace) == ["posterior", "energies", "dim"]
    with trace.writer(0) as writer:
        writer.record({"x": 1.0}, energies={"e": 2.0}, dim={"z": [3.0, 4.0]})
    assert trace.energies.e.values.tolist() == [[2]]
    assert trace["dim"].z.values.tolist() == [[[3, 4]]]


def test_groups_that_are_given_wrongly_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="'prior' is given by keyword and in groups"):
        create(prior={"z": 0.0}, groups={"prior": {"z": 0.0}})
    with pytest.raises(InvalidInputError, match="groups: give a mapping of names to groups"):
        create(groups=["energies"])
