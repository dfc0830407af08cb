"""Epochs of jexplore as zarrtrace stores them, and as its HDF5 files hold them.

An epoch is a dictionary: `samples`, arrays of shape (chains, dimension, draws), and beside them
any nested description of them. This module splits it into variables, attributes and arrays of a
segment, and joins them again, bit for bit.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

import zarrtrace as zt
from zarrtrace.errors import InvalidInputError

from .._exact import is_plain, read_dtype, write_dtype

Epoch = dict[str, Any]

# Where a sample goes: ArviZ would treat `lp` as the joint density, which it is not.
_STATS = {"ll": "log_likelihood", "lp": "log_prior"}
_STRUCTURED = "structured_dtype"
_SHORTEST_CHUNK = 64 * 2**10  # bytes
_LONGEST_CHUNK = 4 * 2**20


class Kind(NamedTuple):
    """The common properties of all values of a sample; `shape` is for one draw of one chain."""

    dtype: np.dtype[Any]
    chains: int
    shape: tuple[int, ...]

    @property
    def bytes_per_draw(self) -> int:
        """The bytes of one draw of all chains."""
        return self.chains * math.prod(self.shape) * self.dtype.itemsize


def variable_of(name: str) -> tuple[str, str]:
    """The group and the variable of a sample."""
    return ("sample_stats", _STATS[name]) if name in _STATS else ("posterior", name)


def sample_of(group: str, variable: str) -> str:
    """The sample that is stored as this variable."""
    names = {stored: name for name, stored in _STATS.items()}
    return names[variable] if group == "sample_stats" else variable


def check_epoch(epoch: Any) -> dict[str, np.ndarray[Any, Any]]:
    """The samples of an epoch as arrays.

    Raises
    ------
    KeyError
        It has no samples, or no `p` among them.
    InvalidInputError
        They have no draws, or different numbers of chains or draws.
    """
    given = epoch["samples"]
    given["p"]
    samples = {str(name): np.asarray(values) for name, values in given.items()}
    sizes = {}
    for name, values in samples.items():
        if values.ndim < 3 or not values.size or not is_plain(values.dtype):
            raise InvalidInputError(
                f"samples[{name!r}] is {values.dtype} of shape {values.shape}; an epoch has "
                f"numbers of shape (chains, dimension, draws), at least one of each"
            )
        sizes[name] = (values.shape[0], values.shape[-1])
    if len(set(sizes.values())) > 1:
        each = ", ".join(f"{name} {chains} × {draws}" for name, (chains, draws) in sizes.items())
        raise InvalidInputError(f"samples of an epoch must have the same chains and draws: {each}")
    return samples


def kinds_of(samples: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, Kind]:
    """The kinds of an epoch's samples."""
    return {
        name: Kind(values.dtype, values.shape[0], values.shape[1:-1])
        for name, values in samples.items()
    }


def require_same(kinds: Mapping[str, Kind], before: Mapping[str, Kind]) -> None:
    """Refuse samples that differ from earlier ones.

    Raises
    ------
    InvalidInputError
        They have other names, another dtype, or another number of chains or dimensions.
    """
    for name in {**before, **kinds}:
        here, there = kinds.get(name), before.get(name)
        if here != there:
            raise InvalidInputError(
                f"samples[{name!r}] is {_describe(here)} in this epoch and {_describe(there)} in "
                f"earlier ones; use a backend with another outdir, or reset() this one"
            )


def _describe(kind: Kind | None) -> str:
    if kind is None:
        return "missing"
    return f"{kind.dtype} of {kind.chains} chains and shape {kind.shape}"


def kinds_stored(trace: zt.Trace) -> dict[str, Kind]:
    """The kinds of the samples in a trace."""
    found = {}
    for group in ("posterior", "sample_stats"):
        if group in trace.groups:
            for variable, values in trace.dataset(group).data_vars.items():
                name = sample_of(group, str(variable))
                found[name] = Kind(values.dtype, values.shape[0], values.shape[2:] or (1,))
    return found


def definitions(kinds: Mapping[str, Kind], together: int) -> dict[str, dict[str, zt.Var]]:
    """The variables for such samples, by group, with this number of draws in a chunk."""
    groups: dict[str, dict[str, zt.Var]] = {}
    for name, kind in kinds.items():
        group, variable = variable_of(name)
        dims = "p_dim" if name == "p" and len(kind.shape) == 1 else None
        shape = () if _is_scalar(name, kind.shape) else kind.shape
        size = kind.bytes_per_draw
        length = min(max(together, -(-_SHORTEST_CHUNK // size)), max(_LONGEST_CHUNK // size, 1))
        var = zt.Var(shape=shape, dtype=kind.dtype, dims=dims, draws_per_chunk=length)
        groups.setdefault(group, {})[variable] = var
    return groups


def _is_scalar(name: str, shape: tuple[int, ...]) -> bool:
    return shape == (1,) and name != "p"


def as_recorded(samples: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, dict[str, Any]]:
    """The values to record for an epoch's samples, by group: shape (chains, draws, ...)."""
    groups: dict[str, dict[str, Any]] = {}
    for name, values in samples.items():
        group, variable = variable_of(name)
        scalar = _is_scalar(name, values.shape[1:-1])
        moved = values[:, 0] if scalar else np.moveaxis(values, -1, 1)
        # The writer of a single chain has no axis of chains.
        groups.setdefault(group, {})[variable] = moved[0] if len(values) == 1 else moved
    return groups


def as_sampled(name: str, values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Values of a trace as a sample: shape (chains, dimension, draws)."""
    if values.ndim == 2:
        return values[:, None]
    return np.ascontiguousarray(np.moveaxis(values, 1, -1))


# What describes the samples -------------------------------------------------------------------


def describe(epoch: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, np.ndarray[Any, Any]]]:
    """The attributes of an epoch's segment, and its arrays by their path, such as `stats/steps`."""
    arrays: dict[str, np.ndarray[Any, Any]] = {}

    def walk(content: Mapping[str, Any], path: str) -> dict[str, Any]:
        attrs: dict[str, Any] = {}
        for key, value in content.items():
            if isinstance(value, Mapping):
                attrs[key] = walk(value, f"{path}{key}/")
                continue
            leaf = np.asarray(value) if hasattr(value, "__array__") else value
            if not isinstance(leaf, np.ndarray):
                attrs[key] = leaf
            elif leaf.dtype.names is not None:
                attrs[key] = _fields(leaf)
            elif leaf.ndim and is_plain(leaf.dtype):
                arrays[f"{path}{key}"] = leaf
            else:
                attrs[key] = leaf if leaf.ndim else leaf[()]
        return attrs

    beside = {key: value for key, value in epoch.items() if key != "samples"}
    return walk(beside, ""), arrays


def rebuild(attrs: Mapping[str, Any], arrays: Mapping[str, np.ndarray[Any, Any]]) -> Epoch:
    """An epoch without its samples, from the attributes and arrays of its segment."""
    epoch = {key: _leaf_or_group(value) for key, value in attrs.items()}
    for path, values in arrays.items():
        *groups, name = path.split("/")
        place = epoch
        for group in groups:
            place = place[group]
        place[name] = values
    return epoch


def _leaf_or_group(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    if _STRUCTURED in value:
        return _from_fields(value)
    return {key: _leaf_or_group(inner) for key, inner in value.items()}


def _fields(values: np.ndarray[Any, Any]) -> dict[str, Any]:
    """A structured array as plain lists, one for each field."""
    names = values.dtype.names or ()
    lists = {name: _as_text(values[name]).tolist() for name in names}
    return {_STRUCTURED: write_dtype(values.dtype), "shape": list(values.shape), **lists}


def _from_fields(content: Mapping[str, Any]) -> np.ndarray[Any, Any]:
    dtype = read_dtype(content[_STRUCTURED])
    values = np.empty(tuple(content["shape"]), dtype)
    for name in dtype.names or ():
        items = np.array(content[name])
        values[name] = np.strings.encode(items, *_UTF8) if dtype[name].kind == "S" else items
    return values


_UTF8 = ("utf-8", "surrogateescape")


def _as_text(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.strings.decode(values, *_UTF8) if values.dtype.kind == "S" else values


def as_class(epoch: Epoch, eclass: type | None, pars: Sequence[str] | None) -> Any:
    """An epoch as an object of jexplore, with these of its samples."""
    samples = epoch["samples"]
    names = list(samples) if pars is None else pars
    content = {name: samples[name] for name in names}
    if "covs" in epoch:
        content["covs"] = epoch["covs"]
    make = _class_named(epoch.get("class")) if eclass is None else eclass
    return make(content)


def _class_named(name: Any) -> Any:
    if name == "jexplore.sampling.mh.EpochMH":
        from jexplore.sampling.mh import EpochMH

        return EpochMH
    if name == "jexplore.sampling.modsel.EpochMS":
        from jexplore.sampling.modsel import EpochMS

        return EpochMS
    raise InvalidInputError(
        f"the epoch has the class {name!r}, and classes are not imported by a stored "
        f"name; pass the class: load(..., eclass=...)"
    )


def whole(name: str, value: Any, least: int | None) -> int:
    """A whole number.

    Raises
    ------
    InvalidInputError
        It is not a whole number, or is too small.
    """
    number = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not number or (least is not None and value < least):
        beginning = "" if least is None else f" from {least}"
        raise InvalidInputError(f"{name} must be a whole number{beginning}, got {value!r}")
    return int(value)


# Files of HDF5 --------------------------------------------------------------------------------


def read_hdf(path: str | os.PathLike[str], number: int = -1) -> Epoch:
    """An epoch of a file that jexplore wrote.

    Parameters
    ----------
    path : str or path
        The file.
    number : int, default -1
        The number of the epoch; counted from the end of the file when it is negative.

    Raises
    ------
    ValueError
        There is no such epoch in it.
    """
    import h5py

    with h5py.File(path, "r") as file:
        matches = (re.fullmatch(r"epoch_(\d+)", key) for key in file)
        # In numerical order: by name, 10 would come before 9.
        numbers = sorted(int(match[1]) for match in matches if match)
        chosen = choose_epoch(path, numbers, number)
        found: Epoch = _read_group(file[f"epoch_{chosen}"])
        return found


def choose_epoch(path: str | os.PathLike[str], numbers: Sequence[int], number: int) -> int:
    """The number of an epoch of a file; counted from the end of the file when it is negative.

    Raises
    ------
    ValueError
        There is no such epoch in it.
    """
    there = f"{os.fspath(path)!r} has the epochs {', '.join(map(str, numbers)) or 'none'}"
    if number < 0:
        if -number > len(numbers):
            raise ValueError(f"There are only {len(numbers)} epochs in this file. {there}")
        return numbers[number]
    if number not in numbers:
        raise ValueError(f"No epoch epoch_{number} in the file. {there}")
    return number


def _read_group(group: Any) -> dict[str, Any]:
    import h5py

    return {
        name: _read_group(item) if isinstance(item, h5py.Group) else _read_dataset(item)
        for name, item in group.items()
    }


def _read_dataset(dataset: Any) -> Any:
    value = dataset[()]
    return value.decode() if isinstance(value, bytes) else value


def write_stats(path: str | os.PathLike[str], stats: Mapping[str, Mapping[str, Any]]) -> None:
    """Write statistics to a file of HDF5, a group for each epoch, which is overwritten."""
    import h5py

    with h5py.File(path, "w") as file:
        for epoch, values in stats.items():
            group = file.create_group(epoch)
            for name, value in values.items():
                group[name] = value
