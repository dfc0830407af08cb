"""Arguments that several commands take."""

from __future__ import annotations

import argparse
import json
from typing import Any, TypeAlias

# What `add_subparsers` returns; a class that is generic for type checkers alone.
Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def storage_argument() -> argparse.ArgumentParser:
    """A parent of each command that opens a path or a URL."""
    parent = argparse.ArgumentParser(add_help=False)
    parent.add_argument(
        "--storage-option",
        action="append",
        default=[],
        type=_storage_option,
        metavar="KEY=VALUE",
        help="an option of fsspec for a URL, as JSON or text, such as anon=true or "
        'client_kwargs=\'{"endpoint_url": "..."}\'; may be repeated',
    )
    return parent


def json_argument() -> argparse.ArgumentParser:
    """A parent of each command that prints for programs too."""
    parent = argparse.ArgumentParser(add_help=False)
    parent.add_argument("--json", action="store_true", help="print JSON, for programs")
    return parent


def storage_options(parsed: argparse.Namespace) -> dict[str, Any] | None:
    """Return what `storage_argument` has parsed, as `storage_options=` takes it."""
    return dict(parsed.storage_option) or None


def _storage_option(text: str) -> tuple[str, Any]:
    """`anon=true` as ("anon", True): the value is JSON, or text."""
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise argparse.ArgumentTypeError(f"give KEY=VALUE, such as anon=true, got {text!r}")
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value
