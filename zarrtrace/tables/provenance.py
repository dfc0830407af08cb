"""What was run: settings, seed, versions of packages, machine, commit, as rows of a table."""

from __future__ import annotations

import functools
import getpass
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DamagedTraceError, InvalidInputError
from .table import Table

TABLE = "provenance"

COLUMNS: dict[str, Any] = {
    "when": "datetime64[s]",
    "settings": str,
    "seed": str,
    "command": str,
    "commit": str,
    "changed": bool,
    "host": str,
    "user": str,
    "python": str,
    "packages": str,
}

_JSON = ("settings", "seed", "packages")
_PATIENCE = 5.0  # seconds to wait for git, which may have to check many files


def gather(settings: Mapping[str, Any] | None = None, seed: Any = None) -> dict[str, Any]:
    """Describe this process as a row of the table `provenance`.

    Parameters
    ----------
    settings : mapping of str to values, optional
        Any JSON values; arrays and scalars of NumPy become lists and numbers, paths text.
    seed : optional
        Any JSON value, as in `settings`.

    Returns
    -------
    dict
        `when` (UTC); `settings`, `seed` and `packages` (every installed one with its version) as
        JSON text; `command`; `commit` of the repository in which the script, or else the working
        directory, is, "" without one; `changed`, whether files tracked by git differ from it;
        `host`, `user`, `python`.

    Raises
    ------
    InvalidInputError
        JSON cannot hold a setting; the message names it.
    """
    if not isinstance(settings, Mapping | None):
        raise InvalidInputError(
            f"settings: give a mapping of names to values, such as vars(arguments); "
            f"got {type(settings).__name__}"
        )
    commit, changed = _commit()
    return {
        "when": np.datetime64(datetime.now(UTC).replace(tzinfo=None), "s"),
        "settings": _as_json(dict(settings or {})),
        "seed": _as_json(seed, "seed"),
        "command": " ".join(sys.argv),
        "commit": commit,
        "changed": changed,
        "host": platform.node(),
        "user": _user(),
        "python": platform.python_version(),
        "packages": json.dumps(_packages()),
    }


def last(table: Table, columns: Iterable[str]) -> dict[str, Any]:
    """Some columns of the last row of a table `provenance`, JSON decoded; {} without rows.

    Raises
    ------
    DamagedTraceError
        A row is not a provenance.
    """
    count = len(table)
    if not count:
        return {}
    end = slice(count - 1, count)
    try:
        row = {name: table.read(name, end) for name in columns}
        return {
            name: json.loads(str(value[0])) if name in _JSON else value.tolist()[0]
            for name, value in row.items()
        }
    except (KeyError, ValueError, TypeError, RecursionError) as error:
        raise DamagedTraceError(f"{table.path} is not a provenance ({error!r})") from None


def _as_json(value: Any, where: str = "settings") -> str:
    def plain(value: Any) -> Any:
        if isinstance(value, np.generic | np.ndarray):
            return value.tolist()
        if isinstance(value, os.PathLike):
            return os.fspath(value)
        raise TypeError(f"a {type(value).__name__} is not a JSON value")

    try:
        return json.dumps(value, default=plain)
    except (TypeError, ValueError, RecursionError) as error:
        if not isinstance(value, dict):
            raise InvalidInputError(f"{where}: {error}; use numbers, text or lists") from None
        # One by one, to name the setting that fails.
        for key, item in value.items():
            _as_json(item, f"{where}[{key!r}]")
        raise InvalidInputError(f"{where}: {error}; use text for names") from None


@functools.cache
def _packages() -> dict[str, str]:
    """Every installed distribution with its version."""
    found = {
        distribution.metadata["Name"]: distribution.version
        for distribution in importlib.metadata.distributions()
    }
    return {name: found[name] for name in sorted(found, key=str)}


def _commit() -> tuple[str, bool]:
    """The commit of the script's repository, and whether its files were changed."""
    script = getattr(sys.modules.get("__main__"), "__file__", None)
    directory = Path(script).resolve().parent if script else Path.cwd()
    command = ["git", "-C", str(directory)]
    try:
        commit = _output([*command, "rev-parse", "HEAD"])
        changed = _output([*command, "status", "--porcelain", "--untracked-files=no"])
    except (OSError, subprocess.SubprocessError):
        return "", False  # no git, no repository, or no commit in it
    return commit, bool(changed)


def _output(command: list[str]) -> str:
    # Without locks: reading a repository must not block its owner.
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
    done = subprocess.run(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_PATIENCE,
        check=True,
    )
    return done.stdout.strip()


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return ""  # in some containers the user has no name
