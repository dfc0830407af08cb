"""Arguments that several commands take."""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

from ..messages import printable

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


def seconds(text: str) -> float:
    """A number of seconds above 0, such as that of `--every`."""
    number = float(text)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"give seconds above 0, got {text!r}")
    return number


def selection_argument() -> argparse.ArgumentParser:
    """A parent of each command that computes something of chosen variables."""
    parent = argparse.ArgumentParser(add_help=False)
    parent.add_argument(
        "--var-names",
        nargs="+",
        metavar="NAME",
        help='the variables, all by default; with "~" in front those to leave out',
    )
    parent.add_argument(
        "--filter-vars",
        choices=("like", "regex"),
        help="whether names are parts of names, or regular expressions",
    )
    parent.add_argument(
        "--group", default="posterior", help="such as warmup_posterior (%(default)s)"
    )
    _add_room(parent)
    return parent


def room_arguments() -> argparse.ArgumentParser:
    """What statistics of all draws may use: memory, a scratch directory, threads."""
    parent = argparse.ArgumentParser(add_help=False)
    _add_room(parent)
    return parent


def _add_room(parent: argparse.ArgumentParser) -> None:
    parent.add_argument(
        "--memory",
        type=float,
        default=1e9,
        metavar="BYTES",
        help="what may be used; a larger variable is transposed through a file (1e9)",
    )
    parent.add_argument(
        "--scratch", metavar="DIRECTORY", help="where that file is (the system's temporary one)"
    )
    parent.add_argument(
        "--threads", type=int, default=1, metavar="N", help="how many are used (%(default)s)"
    )


def selection_options(parsed: argparse.Namespace) -> dict[str, Any]:
    """Return what `selection_argument` has parsed, as keywords."""
    names = ("var_names", "filter_vars", "group", "memory", "scratch", "threads")
    return {name: getattr(parsed, name) for name in names}


@contextmanager
def said_on_standard_error() -> Iterator[None]:
    """Print warnings as sentences, without the line of code that warns."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    for warning in caught:
        if issubclass(warning.category, RuntimeWarning):
            print(f"zarrtrace: {printable(warning.message)}", file=sys.stderr)


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
