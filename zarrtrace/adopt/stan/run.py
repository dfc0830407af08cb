"""Which CSV files of CmdStan are the chains of one run, and what they say of it together."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import InvalidInputError
from ..chain_file import two_runs
from .comments import Argument, short_name

if TYPE_CHECKING:
    from .csv_file import StanFile

# Arguments that are different for the chains of one run; those of `output` are too.
_OF_A_CHAIN = {"id", "seed", "init", "metric_file", "stepsize", "start_datetime", "num_threads"}
_CONSTANTS = {"seed": "random.seed", "id": "id"}


def require_one_run(files: Sequence[StanFile]) -> None:
    """Refuse files that are not the chains of one run, as far as their comments are read.

    Raises
    ------
    InvalidInputError
        Two of them have other columns or arguments, or are the same chain.
    """
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


def adaptation(files: Sequence[StanFile]) -> dict[str, Any]:
    """The seed, the step size and the inverse metric of each chain, where all files say them."""
    found: dict[str, Any] = {}
    for name, argument in _CONSTANTS.items():
        numbers = [file.comments.arguments.get(argument) for file in files]
        if all(isinstance(number, int) for number in numbers):
            found[name] = (("chain",), numbers)
    steps = [file.comments.step_size for file in files]
    if None not in steps:
        found["step_size"] = (("chain",), steps)
    metrics = [np.array(file.comments.inverse_metric) for file in files]
    if len({metric.shape for metric in metrics}) == 1 and metrics[0].size:
        stacked = np.stack(metrics)
        # A diagonal is one line.
        stacked = stacked[:, 0] if stacked.shape[1] == 1 else stacked
        axes = [f"inv_metric_dim_{axis}" for axis in range(stacked.ndim - 1)]
        found["inv_metric"] = (("chain", *axes), stacked)
    return found


def _require_same_arguments(one: StanFile, other: StanFile) -> None:
    first, second = one.comments.arguments, other.comments.arguments
    different = [
        (name, first.get(name), second.get(name))
        for name in [*first, *(second.keys() - first.keys())]
        if first.get(name) != second.get(name) and not _is_of_a_chain(name)
    ]
    if different:
        name, value, another = different[0]
        raise two_runs(one, other, f"{name} is {value} there and {another} here")
    if one.header != other.header:
        raise two_runs(one, other, "their columns are different")


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
            raise two_runs(
                files[0], files[other], f"the seed is {seeds[0]} there and {seeds[other]} here"
            )
