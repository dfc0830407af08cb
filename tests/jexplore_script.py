"""What a user does with a backend of jexplore, and what comes of it: for the original, and ours."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np

CONFIGS: dict[str, dict[str, Any]] = {
    "default": {},
    "in_memory": {"inmem_epochs": 100},
    "two_in_memory": {"inmem_epochs": 2},
    "shared_files": {"epochs_per_file": 2},
    "one_in_memory_shared_files": {"inmem_epochs": 1, "epochs_per_file": 2},
}
Outcome = tuple[str, Any]


def made(number: int, draws: int = 10, chains: int = 4, dims: int = 3) -> dict[str, Any]:
    """An epoch as jexplore returns it, with numbers that say which epoch it is."""
    rng = np.random.default_rng(number)

    def normal(*shape: int) -> Any:
        return rng.normal(size=shape).astype("float32")

    cycle = [("DEStep", 0, 0.75), ("Stretch", 0, 0.25), ("TSwap", 1, 1.0)]
    return {
        "samples": {
            "p": normal(chains, dims, draws),
            "ll": normal(chains, 1, draws),
            "lp": normal(chains, 1, draws),
        },
        "covs": normal(chains, dims, dims),
        "cycle": np.array(cycle, [("name", "S50"), ("incycle", "i8"), ("weight", "f8")]),
        "sampling": {
            "class": "jexplore.sampling.mh.SamplingMH",
            "dim": np.int64(dims),
            "nchain": np.int64(chains),
            "nwalker": np.int64(chains // 2),
            "temps": np.array([1.0, 2.0], "float32"),
        },
        "stats": {
            "steps": np.arange(2 * draws, dtype="int32") + number,
            "counts": normal(3),
            "stats": normal(3, chains),
        },
        "class": "jexplore.sampling.mh.EpochMH",
    }


def attempt(function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """What a call returns, or the error it raises."""
    try:
        # The original's own epochs in memory are cut when they are burned.
        return deepcopy(function(*arguments, **options))
    except Exception as error:
        return error


def script(backend: Any, place: Path, epochs: list[Any]) -> Iterator[Outcome]:
    """The life of a backend, step by step, with what it returns at each."""
    for number, epoch in enumerate(epochs[:4]):
        yield f"ingest {number} returns itself", backend.ingest(epoch) is backend
    yield from everything(backend, "four epochs")
    for burn in (3, 10, 13, 12, 25):
        yield f"set_burn({burn})", attempt(backend.set_burn, burn)
        yield from everything(backend, f"{burn} burned")
    # Two epochs and a half are burned ahead.
    yield "set_burn ahead", attempt(backend.set_burn, 63)
    yield from everything(backend, "burned ahead")
    for number, epoch in enumerate(epochs[4:7], start=4):
        backend.ingest(epoch)
        yield from everything(backend, f"epoch {number} after burning ahead")
    backend.clean()
    yield from everything(backend, "clean")
    for epoch in epochs[7:9]:
        backend.ingest_dict(epoch if isinstance(epoch, dict) else epoch.to_backend(0, True)[2])
    yield from everything(backend, "two more")
    yield "burn", backend.burn
    file = place / "stats.h5"
    yield "stats written", comparable(backend.get_stats(fname=str(file)))
    yield "stats in the file", hdf_content(file)


def everything(backend: Any, when: str) -> Iterator[Outcome]:
    """What can be asked of a backend."""
    for index in (0, 1, 2, 3, -1, -2, -9, 20):
        yield f"{when}: get({index})", attempt(backend.get, index)
    for options in (
        {},
        {"pars": ["p", "ll", "lp"]},
        {"thin": 3},
        {"burn": 4, "thin": 4},
        {"burn": 13, "thin": 2},
        {"burn": 1000},
        {"mask": np.array([True, False, False, True])},
        {"mask": np.array([2, 0]), "flatten": True, "thin": 2},
        {"mask": slice(1, 3)},
        {"flatten": True, "pars": ("p", "lp")},
        {"pars": ["unknown"]},
        {"mask": np.array([17])},
        {"thin": 0},
    ):
        yield f"{when}: get_samples({options})", attempt(backend.get_samples, **options)
    yield f"{when}: get_stats()", attempt(backend.get_stats)
    for epochs in ([0, 3], [], [17]):
        yield f"{when}: get_stats({epochs})", attempt(backend.get_stats, epochs)


def hdf_content(file: str | os.PathLike[str]) -> dict[str, Any]:
    import h5py

    found: dict[str, Any] = {}

    def visit(name: str, item: Any) -> None:
        found[name] = item[()] if isinstance(item, h5py.Dataset) else "group"

    with h5py.File(file) as content:
        content.visititems(visit)
    return found


def comparable(value: Any) -> Any:
    """Dictionaries of NumPy's arrays, whatever arrays they were."""
    if isinstance(value, dict):
        return {name: comparable(inner) for name, inner in sorted(value.items())}
    if isinstance(value, list):
        return {str(number): comparable(inner) for number, inner in enumerate(value)}
    if isinstance(value, str | BaseException) or value is None:
        return value
    return np.asarray(value)


def differences(ours: Any, theirs: Any, where: str = "") -> Iterator[str]:
    """Where two outcomes differ: in values, dtypes, shapes, or kinds of error."""
    ours, theirs = comparable(ours), comparable(theirs)
    if isinstance(theirs, ValueError) and "at least one array" in str(theirs):
        # The original means to give None, says its signature.
        theirs = None
    if isinstance(theirs, dict) and isinstance(ours, dict):
        if ours.keys() != theirs.keys():
            yield f"{where}: {list(ours)} is not {list(theirs)}"
        for name in ours.keys() & theirs.keys():
            yield from differences(ours[name], theirs[name], f"{where}/{name}")
    elif isinstance(theirs, BaseException):
        if not isinstance(ours, type(theirs)):
            yield f"{where}: {ours!r} instead of {theirs!r}"
    elif isinstance(theirs, np.ndarray) and isinstance(ours, np.ndarray):
        same = ours.dtype == theirs.dtype and ours.shape == theirs.shape
        if not same or ours.tobytes() != theirs.tobytes():
            yield f"{where}: {ours.dtype}{ours.shape} is not {theirs.dtype}{theirs.shape}"
    elif type(ours) is not type(theirs) or ours != theirs:
        yield f"{where}: {ours!r} is not {theirs!r}"
