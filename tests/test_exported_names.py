"""What the library shows: its names, their documentation, its errors, and what it imports."""

from __future__ import annotations

import builtins
import importlib
import inspect
import re
import subprocess
import sys
from typing import Any

import pytest

import zarrtrace as zt
from zarrtrace import errors
from zarrtrace.reading.groups import GroupReader
from zarrtrace.tables.segments import Segment, Segments

NAMES = [
    *(
        "ChainWriter",
        "Converged",
        "Damage",
        "DamagedDraws",
        "Snapshot",
        "Trace",
        "TraceError",
        "UpTo",
        "Var",
    ),
    *("create", "errors", "folder", "follow", "from_datatree", "open", "run", "signals", "table"),
]


def test_the_exported_names_are_these() -> None:
    assert sorted(zt.__all__) == NAMES
    for name in NAMES:
        assert getattr(zt, name) is not None
    assert re.fullmatch(r"\d+\.\d+\.\d+.*", zt.__version__)


def public_parts(thing: Any) -> list[Any]:
    """A class with its public methods and properties, or a function."""
    if not inspect.isclass(thing):
        return [thing]
    members = [member for name, member in vars(thing).items() if not name.startswith("_")]
    methods = (inspect.isfunction, inspect.isdatadescriptor, inspect.ismethoddescriptor)
    return [thing, *(member for member in members if any(kind(member) for kind in methods))]


@pytest.mark.parametrize("name", NAMES)
def test_everything_public_is_documented(name: str) -> None:
    parts = public_parts(getattr(zt, name))
    for part in parts:
        text = inspect.getdoc(part)
        assert text, part
        assert len(text.splitlines()[0]) <= 100
    if name in ("Trace", "ChainWriter"):
        assert len(parts) > 5


FUNCTIONS = [
    zt.create,
    zt.follow,
    zt.from_datatree,
    zt.open,
    zt.run,
    *public_parts(zt.Trace),
    *public_parts(zt.ChainWriter),
    *public_parts(zt.Converged),
    zt.table.open,
    *public_parts(zt.table.Table),
    *public_parts(Segments),
    *public_parts(Segment),
    *public_parts(GroupReader),  # what a Trace and a Snapshot read
    *public_parts(zt.Snapshot),
    *public_parts(zt.Damage),
    *public_parts(zt.DamagedDraws),
    zt.folder.create,
    zt.folder.open,
    zt.folder.record_provenance,
    *public_parts(zt.folder.Runs),
    *public_parts(zt.folder.Run),
    zt.signals.preemptible,
    *public_parts(zt.signals.Preemptible),
]

# Each adapter that can be imported here; those of the samplers that are missing have no names.
ADAPTERS = ["blackjax", "cox", "emcee", "jexplore", "numpyro", "pymc", "storegate", "xarray"]


def adapter_functions() -> list[Any]:
    functions = []
    for name in ADAPTERS:
        try:
            adapter = importlib.import_module(f"zarrtrace.adapters.{name}")
        except ModuleNotFoundError:
            continue
        names = getattr(adapter, "__all__", [n for n in vars(adapter) if not n.startswith("_")])
        own = (getattr(adapter, name) for name in names)
        things = [t for t in own if getattr(t, "__module__", "").startswith("zarrtrace.adapters")]
        functions += [part for thing in things for part in public_parts(thing)]
    return functions


def test_the_names_of_adapters_are_documented() -> None:
    found = adapter_functions()
    assert len(found) > 50
    undocumented = [part for part in found if not inspect.getdoc(part)]
    assert not undocumented


@pytest.mark.parametrize("function", list(filter(inspect.isfunction, FUNCTIONS)))
def test_the_documentation_names_every_parameter(function: Any) -> None:
    text = inspect.getdoc(function) or ""
    for name in inspect.signature(function).parameters:
        if name != "self":
            assert re.search(rf"^\s*(\w+, |\*\*\w+, )*\**{name}\b.*( : |, |$)", text, re.M), name


def drawn_tree() -> dict[str, str]:
    """The parent of each error in the drawing at the top of the module."""
    parents: dict[str, str] = {}
    path: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"^([\s│├└─]*)([A-Z]\w+Error)\b", line)
        if not found:
            continue
        depth, name = len(found[1]), found[2]
        path = [(other, parent) for other, parent in path if other < depth]
        parents[name] = path[-1][1] if path else ""
        path.append((depth, name))
    return parents


def test_the_drawing_of_the_errors_is_the_tree_of_classes() -> None:
    classes = {
        name: thing
        for name, thing in vars(errors).items()
        if inspect.isclass(thing) and issubclass(thing, BaseException)
    }
    ours = {name: cls.__bases__[0].__name__ for name, cls in classes.items()}
    assert drawn_tree() == {**ours, "TraceError": ""}


def test_the_drawing_says_which_builtin_errors_they_also_are() -> None:
    # The note may stand on the line below.
    said = re.findall(r"(\w+Error) +\"[^\n]*\n?[^\n\"]*\(also an? (\w+)\)", errors.__doc__ or "")
    assert len(said) == 6
    for name, builtin in said:
        assert issubclass(getattr(errors, name), getattr(builtins, builtin))


HEAVY = ("xarray", "arviz", "rich", "matplotlib", "pandas", "dask", "s3fs", "obstore")
RECORDING = """
import sys, zarrtrace as zt
trace = zt.create(sys.argv[1], chains=1, draws=5, tune=2, posterior={"x": zt.Var(shape=3)})
with zt.open(sys.argv[1], "a").writer(0) as writer:
    writer.resume()
    for i in range(7):
        writer.record({"x": [i, i, i]})
    writer.checkpoint({"i": 7})
assert trace.recorded.tolist() == [7]
"""


@pytest.mark.parametrize("script", ["import zarrtrace", RECORDING], ids=["import", "recording"])
def test_a_worker_imports_numpy_and_zarr_and_nothing_heavy(tmp_path: Any, script: str) -> None:
    check = f"import sys; print(*(name for name in {HEAVY} if name in sys.modules))"
    command = [sys.executable, "-c", f"{script}\n{check}", str(tmp_path / "run.zarr")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    assert done.stdout.split() == []
