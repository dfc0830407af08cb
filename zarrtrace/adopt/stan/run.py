"""Which CSV files of CmdStan are the chains of one run, and what they say of it together."""

from __future__ import annotations

import glob
import json
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ...errors import InvalidInputError, TraceNotFoundError
from .comments import Argument, short_name
from .csv_file import StanFile

Files = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]

# Arguments that are different for the chains of one run; those of `output` are too.
_OF_A_CHAIN = {"id", "seed", "init", "metric_file", "stepsize", "start_datetime", "num_threads"}


# The files -------------------------------------------------------------------------------------


def stan_files(path: Any) -> list[Path]:
    """The CSV files of CmdStan at a path, a directory or a pattern, in the order of their numbers.

    Empty where there are none; of a sequence of paths each has to be one.
    """
    if not isinstance(path, str | os.PathLike):
        return [_require_stan_file(Path(file)) for file in path]
    pattern = os.path.join(path, "*.csv") if os.path.isdir(path) else os.fspath(path)
    found = [path] if os.path.isfile(path) else glob.glob(pattern)
    return sorted(filter(_is_stan_file, map(Path, found)), key=_by_number)


def files_to_follow(files: Files) -> list[Path]:
    """The files that are given, those of directories and patterns among them; others may be absent.

    Raises
    ------
    TraceNotFoundError
        There is no file of CmdStan in a directory, or none that matches a pattern.
    """
    given = [files] if isinstance(files, str | os.PathLike) else list(files)
    found: list[Path] = []
    for item in given:
        path = Path(item)
        if path.is_dir() or (glob.has_magic(os.fspath(item)) and not path.exists()):
            there = stan_files(item)
            if not there:
                raise TraceNotFoundError(
                    f"there is no CSV file of CmdStan at {path}",
                    remedy="give the names of all files to wait for them",
                )
            found += there
        else:
            found.append(path)
    if not found:
        raise InvalidInputError("no file to follow was given", remedy="give one for each chain")
    return found


def _is_stan_file(file: Path) -> bool:
    if not file.is_file():
        return False
    with file.open("rb") as content:
        return content.read(14) == b"# stan_version"


def _require_stan_file(file: Path) -> Path:
    if not file.exists():
        raise TraceNotFoundError(f"there is nothing at {file}")
    if not _is_stan_file(file):
        raise InvalidInputError(
            f"{file} is not a CSV file of CmdStan, and only those are adopted several at a time"
        )
    return file


def _by_number(file: Path) -> list[Any]:
    """With chain-2 before chain-10."""
    parts = re.split(r"(\d+)", file.name)
    return [int(part) if part.isdigit() else part for part in parts]


# The run ---------------------------------------------------------------------------------------


def require_one_run(files: Sequence[StanFile]) -> None:
    """Refuse files that are not the chains of one run, as far as their comments are read.

    Raises
    ------
    InvalidInputError
        Two of them have other columns or arguments, or are the same chain.
    """
    paths = [file.path.resolve() for file in files]
    for position, path in enumerate(paths):
        if path in paths[:position]:
            raise InvalidInputError(
                "the file is given twice", where=str(path), remedy="give each chain once"
            )
    known = [file for file in files if file.header]
    for file in known[1:]:
        _require_same_arguments(known[0], file)
    _require_other_chains(known)


def describe_run(files: Sequence[StanFile]) -> dict[str, Any]:
    """The name and the attributes of a trace of these files, as `zarrtrace.create` takes them."""
    known = [file.comments for file in files if file.header]
    first = known[0].arguments
    shared = {
        short_name(name, first): value
        for name, value in first.items()
        if all(comments.arguments.get(name) == value for comments in known)
    }
    version = [str(first.get(f"stan_version_{part}", "")) for part in ("major", "minor", "patch")]
    attrs: dict[str, Any] = {
        "inference_library": "CmdStan",
        "inference_library_version": ".".join(version),
        "sampler_settings": json.dumps(shared),
    }
    seconds = [comments.seconds.get("Total") for comments in known]
    if len(known) == len(files) and None not in seconds:
        attrs["sampling_time"] = max(filter(None, seconds), default=0.0)
    return {"name": str(first.get("model", "")).removesuffix("_model"), "attrs": attrs}


def _require_same_arguments(one: StanFile, other: StanFile) -> None:
    first, second = one.comments.arguments, other.comments.arguments
    different = [
        (name, first.get(name), second.get(name))
        for name in [*first, *(second.keys() - first.keys())]
        if first.get(name) != second.get(name) and not _is_of_a_chain(name)
    ]
    if different:
        name, value, another = different[0]
        raise _two_runs(one, other, f"{name} is {value} there and {another} here")
    if one.header != other.header:
        raise _two_runs(one, other, "their columns are different")


def _is_of_a_chain(name: str) -> bool:
    section, _, short = name.rpartition(".")
    return section == "output" or short in _OF_A_CHAIN


def _require_other_chains(files: Sequence[StanFile]) -> None:
    """Refuse one chain twice, and the chains of runs that differ in nothing but the seed.

    The chains of a run have one seed and an id each; or a seed each, and then an id each or all
    the same one. A single process that runs several chains says the same of all.
    """
    arguments = [file.comments.arguments for file in files]
    seeds = [of_file.get("random.seed") for of_file in arguments]
    ids = [of_file.get("id") for of_file in arguments]
    chains: list[tuple[Argument | bytes | None, ...]] = list(zip(seeds, ids, strict=True))
    if files and arguments[0].get("sample.num_chains", 1) != 1:
        # Those without a draw are told apart when they have one.
        rows = [file.first_row or bytes(file.path) for file in files]
        chains = [(*chain, row) for chain, row in zip(chains, rows, strict=True)]
    for position, chain in enumerate(chains):
        if chain in chains[:position]:
            raise InvalidInputError(
                f"the file holds the same chain as {files[chains.index(chain)].path}: both have "
                f"the seed {seeds[position]} and the id {ids[position]}",
                where=str(files[position].path),
                remedy="give each chain once",
            )
    other = next((i for i, seed in enumerate(seeds) if seed != seeds[0]), None)
    if other is not None:
        all_have_one = len(set(seeds)) == len(seeds)
        if not all_have_one or len(set(ids)) not in (1, len(ids)):
            raise _two_runs(
                files[0], files[other], f"the seed is {seeds[0]} there and {seeds[other]} here"
            )


def _two_runs(one: StanFile, other: StanFile, why: str) -> InvalidInputError:
    return InvalidInputError(
        f"the file is of another run than {one.path}: {why}",
        where=str(other.path),
        remedy="give the files of one run",
    )
