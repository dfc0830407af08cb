"""Packages import those below them only, and no module takes part in a circle."""

from __future__ import annotations

import ast
import gc
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import zarrtrace

pytestmark = pytest.mark.once("oldest")

PACKAGE = Path(zarrtrace.__file__).parent

# From the lowest to the highest. Adapters use what `zarrtrace` and its packages export.
ORDER = [
    "errors", "messages", "store", "layout", "sampling_state", "reading", "diagnostics",
    "recording", "life", "tables", "watching", "report", "trace", "opening", "goals", "signals",
    "processes", "folder", "serving", "adopt", "testing", "__init__", "cli", "__main__", "adapters",
]  # fmt: skip


def imports() -> dict[str, set[str]]:
    """Which modules each module imports, within functions too, but for types alone."""
    files = {name_of(path): path for path in PACKAGE.rglob("*.py")}
    found: dict[str, set[str]] = {}
    for module, path in files.items():
        package = module if path.name == "__init__.py" else module.rpartition(".")[0]
        targets = found.setdefault(module, set())
        for node in executed(parse(path)):
            if isinstance(node, ast.Import):
                targets.update(alias.name for alias in node.names if alias.name in files)
            elif isinstance(node, ast.ImportFrom):
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                origin = ".".join([*(above if node.level else []), *filter(None, [node.module])])
                names = {f"{origin}.{alias.name}" for alias in node.names}
                # A name that is not a module is one of the module it comes from.
                targets |= {name if name in files else origin for name in names}
        targets &= files.keys() - {module}
    return found


def parse(path: Path) -> ast.Module:
    # Up to Python 3.11.7, what the garbage collector runs meanwhile can end the parser by a
    # SystemError (python/cpython#106905).
    gc.disable()
    try:
        return ast.parse(path.read_text(encoding="utf-8"))
    finally:
        gc.enable()


def executed(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes of a syntax tree, without those below `if TYPE_CHECKING`."""
    yield tree
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        yield from executed(node)


def name_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def storey(module: str) -> int:
    return ORDER.index([*module.split("."), "__init__"][1])


def test_imports_go_down() -> None:
    up = {
        (module, target)
        for module, targets in imports().items()
        for target in targets
        if storey(target) > storey(module)
    }
    assert not up


def test_no_module_imports_itself_by_way_of_others() -> None:
    # A package's __init__ is imported before its modules, and shows what they define.
    graph = {module: targets for module, targets in imports().items() if module != "zarrtrace"}
    TopologicalSorter(graph).prepare()
