"""Which text files of draws are meant, and of which format they are."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ..errors import InvalidInputError, TraceNotFoundError
from ..store.local import read_first
from .chain_file import ChainFile
from .stan.csv_file import FIRST_WORDS, StanFile
from .table_file import TableFile

Files = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]

_HEAD_BYTES = 1024


def text_files(path: Any) -> list[Path]:
    """The text files at a path, in a directory or of a pattern, in the order of their numbers.

    Empty where there are none; of a sequence of paths each has to be one. Where some of a pattern
    are of CmdStan they are all; of a directory no others are taken.

    Raises
    ------
    TraceNotFoundError
        One of a sequence is not there.
    InvalidInputError
        One of a sequence is not a text file.
    """
    if not isinstance(path, str | os.PathLike):
        return [_require_text(Path(file)) for file in path]
    pattern = os.path.join(path, "*.csv") if os.path.isdir(path) else os.fspath(path)
    found = [path] if os.path.isfile(path) else glob.glob(pattern)
    texts = sorted(filter(_is_text, map(Path, found)), key=_by_number)
    of_stan = [file for file in texts if _head(file).startswith(FIRST_WORDS)]
    return of_stan if of_stan or os.path.isdir(path) else texts


def files_to_follow(files: Files) -> list[Path]:
    """The files that are given, those of directories and patterns among them; others may be absent.

    Raises
    ------
    TraceNotFoundError
        There is no file of CmdStan in a directory, or no text file that matches a pattern.
    """
    given = [files] if isinstance(files, str | os.PathLike) else list(files)
    found: list[Path] = []
    for item in given:
        path = Path(item)
        if path.is_dir() or (glob.has_magic(os.fspath(item)) and not path.exists()):
            there = text_files(item)
            if not there:
                kind = "CSV file of CmdStan" if path.is_dir() else "text file of draws"
                raise TraceNotFoundError(
                    f"there is no {kind} at {path}",
                    remedy="give the names of all files to wait for them",
                )
            found += there
        else:
            found.append(path)
    if not found:
        raise InvalidInputError("no file to follow was given", remedy="give one for each chain")
    return found


def open_files(paths: Sequence[Path]) -> list[ChainFile]:
    """The chains in these files, all of the format of the first one that shows it.

    Empty until one does. A file of another format is refused when it is read.

    Raises
    ------
    InvalidInputError
        Two paths are of the same file, or one of them cannot be read.
    """
    resolved = [path.resolve() for path in paths]
    for position, path in enumerate(resolved):
        if path in resolved[:position]:
            raise InvalidInputError(
                "the file is given twice", where=str(path), remedy="give each chain once"
            )
    formats = (_format(_head(path)) for path in paths)
    of_all = next((chain_file for chain_file in formats if chain_file is not None), None)
    return [] if of_all is None else [of_all(path) for path in paths]


def _format(head: bytes) -> type[ChainFile] | None:
    if head.startswith(FIRST_WORDS):
        return StanFile
    return None if FIRST_WORDS.startswith(head) else TableFile


def _head(path: Path) -> bytes:
    """The first bytes of a file, none if it is not there."""
    try:
        return read_first(os.fspath(path), _HEAD_BYTES)
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise InvalidInputError(
            f"the file cannot be read ({error.strerror})", where=str(path)
        ) from error


def _is_text(path: Path) -> bool:
    head = _head(path) if path.is_file() else b""
    return bool(head) and b"\0" not in head


def _require_text(path: Path) -> Path:
    if not path.exists():
        raise TraceNotFoundError(f"there is nothing at {path}")
    if not _is_text(path):
        raise InvalidInputError(
            "the file is not a text file of draws, and only those are adopted several at a time",
            where=str(path),
        )
    return path


def _by_number(file: Path) -> list[Any]:
    """With chain-2 before chain-10."""
    parts = re.split(r"(\d+)", file.name)
    return [int(part) if part.isdigit() else part for part in parts]
