"""Adapters use nothing of zarrtrace but what its packages show in their `__all__`."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest

import zarrtrace as zt
from zarrtrace import adapters

FOLDER = Path(adapters.__path__[0])
MODULES = sorted(str(path.relative_to(FOLDER)) for path in FOLDER.rglob("*.py"))


def imported(path: Path) -> Iterator[tuple[str, str]]:
    """The module and the name of each import from zarrtrace outside of `zarrtrace.adapters`."""
    package = ["zarrtrace", "adapters", *path.relative_to(FOLDER).parent.parts]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found = [(name.name, "") for name in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) + 1 - node.level] if node.level else []
            module = ".".join([*above, *([node.module] if node.module else [])])
            found = [(module, name.name) for name in node.names]
        else:
            continue
        for module, name in found:
            parts = module.split(".")
            if parts[0] == "zarrtrace" and parts[:2] != ["zarrtrace", "adapters"]:
                yield module, name


@pytest.mark.parametrize("module", MODULES)
def test_an_adapter_imports_public_names_alone(module: str) -> None:
    for source, name in imported(FOLDER / module):
        assert source in ("zarrtrace", "zarrtrace.errors") or name, source
        if source == "zarrtrace.errors":
            assert hasattr(zt.errors, name)
        elif name not in ("", "adapters"):
            assert name in importlib.import_module(source).__all__, f"{source}.{name}"


def test_the_imports_of_adapters_are_found() -> None:
    found = {source for module in MODULES for source, _ in imported(FOLDER / module)}
    assert {"zarrtrace", "zarrtrace.errors", "zarrtrace.adopt", "zarrtrace.store"} <= found
