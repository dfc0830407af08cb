"""Public docstrings have numpydoc's sections, and their examples print what they show."""

from __future__ import annotations

import doctest
import importlib
import inspect
import re
import tomllib
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
from numpydoc.validate import validate

import zarrtrace as zt
from zarrtrace.tables.segments import Segment, Segments

pytestmark = pytest.mark.apart

CONFIG = Path(__file__).parent.parent / "pyproject.toml"
# Where users find names. Adapters import samplers, so they are imported in the tests alone.
CORE = ["", ".errors", ".folder", ".table", ".adopt", ".signals", ".testing"]
SAMPLERS = ["blackjax", "cox", "emcee", "jexplore", "numpyro", "pymc", "storegate", "xarray"]
ADAPTERS = [f".adapters.{name}" for name in SAMPLERS]
# Other objects return these, or users derive from them: nobody calls their constructors.
RETURNED = {
    *("Adapter", "ChainWriter", "Damage", "DamagedDraws", "Run", "Runs", "Segment", "Segments"),
    *("Preemptible", "Snapshot", "Table", "Trace", "View", "ZarrChain"),
}


def shown_by(place: str) -> list[Any]:
    """The functions and classes that users find at a place such as ".folder"."""
    if place == ".table":
        return [zt.table.open, zt.table.Table, Segment, Segments]
    module = importlib.import_module(f"zarrtrace{place}")
    if hasattr(module, "__all__"):
        things = [vars(module)[name] for name in module.__all__]
    else:
        own = [thing for name, thing in vars(module).items() if name[0] != "_"]
        things = [thing for thing in own if getattr(thing, "__module__", "") == module.__name__]
    ours = [thing for thing in things if getattr(thing, "__module__", "").startswith("zarrtrace")]
    return [thing for thing in ours if inspect.isfunction(thing) or inspect.isclass(thing)]


def function_of(member: Any) -> Any:
    """The function that a property or a class method wraps; anything else as it is."""
    if isinstance(member, cached_property):
        return member.func
    if isinstance(member, property):
        return member.fget
    return getattr(member, "__func__", member)


def public_at(place: str) -> dict[str, Any]:
    """What users may call or read at a place, with methods and properties, by its full name."""
    found: dict[str, Any] = {}
    for thing in shown_by(place):
        members = dict(inspect.getmembers_static(thing)) if inspect.isclass(thing) else {}
        parts = [thing, *(member for name, member in members.items() if name[0] != "_")]
        for part in parts:
            function = part if part is thing else function_of(part)
            is_ours = (getattr(function, "__module__", None) or "").startswith("zarrtrace")
            if is_ours and (part is thing or inspect.isfunction(function)):
                found[f"{function.__module__}.{function.__qualname__}"] = part
    return found


def left_out(thing: Any) -> set[str]:
    """The checks that this docstring need not pass, though others do."""
    if isinstance(thing, property | cached_property):
        # Most say all in a sentence.
        return {"EX01", "SA01"}
    function = function_of(thing)
    if inspect.isclass(thing) and issubclass(thing, zt.TraceError):
        # The root of the tree has the parameters, and an example.
        return set() if "__init__" in vars(thing) else {"EX01", "PR01", "SA01"}
    if inspect.isclass(thing) and thing.__name__ in RETURNED:
        return {"PR01"} | without_example(function)
    return without_example(function)


def without_example(function: Any) -> set[str]:
    where, name = function.__module__, function.__qualname__
    if where.startswith("zarrtrace.adapters.pymc") and name not in ("ZarrTrace", "resume"):
        # PyMC calls these; the example of the class shows what a user does.
        return {"EX01"}
    if where == "zarrtrace.testing" and name != "Adapter":
        # The example of Adapter is a whole adapter and a check of it.
        return {"EX01"}
    # It needs PyTorch, which is too large to be installed for an example.
    return {"EX01"} if name == "Table.get_state_dict" else set()


@pytest.mark.once("newest")
def test_public_docstrings_have_the_sections_of_numpydoc() -> None:
    excluded = set(tomllib.loads(CONFIG.read_text())["tool"]["numpydoc_validation"]["checks"])
    assert "all" in excluded
    public = {name: part for place in CORE + ADAPTERS for name, part in public_at(place).items()}
    assert len(public) > 250
    problems = [
        f"{name}: {code} {message}"
        for name, thing in public.items()
        for code, message in validate(name)["errors"]
        if code not in excluded | left_out(thing)
    ]
    summaries = {
        name: (inspect.getdoc(thing) or "").splitlines()[0] for name, thing in public.items()
    }
    problems += [
        f"{name}: {summary!r} is more than a sentence"
        for name, summary in summaries.items()
        if re.search(r"[.!?] [A-Z]", summary)
    ]
    assert not problems, "\n".join([f"{len(problems)} problems:", *problems])


@pytest.mark.once("newest")
@pytest.mark.parametrize("place", CORE + ADAPTERS)
def test_the_examples_of_docstrings_print_what_they_show(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if place == ".adapters.jexplore":
        pytest.importorskip("jexplore", reason="jexplore needs Python 3.13 or later")
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    failures: list[str] = []
    for number, (name, thing) in enumerate(public_at(place).items()):
        # What an example writes, only this example finds.
        folder = tmp_path / str(number)
        folder.mkdir()
        monkeypatch.chdir(folder)
        # Functions of examples are sent to other processes by value, as those of a script.
        variables = {"__name__": "__main__"}
        text = inspect.getdoc(thing) or ""
        runner.run(
            doctest.DocTestParser().get_doctest(text, variables, name, None, None),
            out=failures.append,
        )
    assert not failures, "".join(failures)
    assert runner.tries
