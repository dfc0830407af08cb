"""Groups of other libraries, in the form in which a trace takes them."""

from __future__ import annotations

import json
import math
from collections.abc import Container, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InvalidInputError, SchemaError, TraceNotFoundError
from ..reading.netcdf import open_lazily, require_h5netcdf
from .stat_names import arviz_names

if TYPE_CHECKING:
    import xarray as xr


Datasets = dict[str, "xr.Dataset"]

READ_BYTES = 16 * 2**20  # at once


def open_netcdf(file: Path) -> xr.DataTree:
    """A netCDF file, or another one in HDF5, as xarray opens it, lazily.

    Raises
    ------
    TraceNotFoundError
        There is nothing at this path.
    InvalidInputError
        It is not such a file, or a package is missing.
    """
    if not file.exists():
        raise TraceNotFoundError(f"there is nothing at {file}")
    require_h5netcdf(f"{file}: reading it")
    try:
        return open_lazily(file)
    except (OSError, ValueError, KeyError) as error:
        raise InvalidInputError(
            f"{file} is not a netCDF or HDF5 file that xarray can open: {error}"
        ) from error


def datasets(tree: Any) -> Datasets:
    """The groups of a result; those with a leading underscore are their library's own."""
    if hasattr(tree, "data_vars") and not hasattr(tree, "children"):
        return {"posterior": tree}
    if hasattr(tree, "children"):
        for name, node in tree.children.items():
            if node.children and not name.startswith("_"):
                raise SchemaError(
                    f"group {name!r} holds groups itself ({', '.join(node.children)}); a trace has "
                    f"one level: move them up, or rename variables that had a '/'"
                )
        groups = {name: node.to_dataset() for name, node in tree.children.items()}
    elif callable(getattr(tree, "groups", None)):
        groups = {name: tree[name] for name in tree.groups()}
    else:
        raise InvalidInputError(
            f"give a DataTree, InferenceData, Dataset or path, got {type(tree).__name__}"
        )
    return {name: data for name, data in groups.items() if not name.startswith("_")}


def tidy(name: str, data: xr.Dataset) -> xr.Dataset:
    """A group with chain and draw first, no array without draws, its stats under ArviZ's names."""
    if "draw" in data.dims and "chain" not in data.dims:
        data = data.map(lambda array: array.expand_dims("chain") if "draw" in array.dims else array)
    without_draws = {dim for dim in ("chain", "draw") if not data.sizes.get(dim, 1)}
    data = data.drop_vars(
        [k for k, array in data.variables.items() if without_draws & {*array.dims}]
    )
    if "sample_stats" in name:
        new = arviz_names([str(key) for key in data.data_vars])
        data = data.rename({old: key for old, key in new.items() if old != key})
    return data.transpose("chain", "draw", ..., missing_dims="ignore")


def set_apart(data: xr.Dataset, variables: Container[Any]) -> xr.Dataset:
    """A group whose coordinates are those that a trace has; the others are variables.

    A trace has coordinates along one dimension, whose names no variable has.
    """
    others = [
        key
        for key, coord in data.coords.items()
        if key not in data.xindexes
        and (coord.ndim != 1 or coord.dims[0] in ("chain", "draw") or key in variables)
    ]
    return data.reset_coords(others)


# Values and attributes as a trace holds them ---------------------------------------------------


def plain(values: np.ndarray[Any, Any], where: str) -> np.ndarray[Any, Any]:
    """Text as text; every other dtype as it is."""
    if values.dtype.kind == "S":
        return np.char.decode(values, "utf-8")
    if values.dtype.kind != "O":
        return values
    missing = np.array([v is None or v != v for v in values.flat], dtype=bool)
    texts = ["" if no else value for no, value in zip(missing, values.flat, strict=True)]
    for text in texts:
        if not isinstance(text, str):
            raise SchemaError(
                f"{where}: holds a {type(text).__name__}, which cannot be stored without pickle; "
                f"convert it to numbers or text, or drop the variable"
            )
    return np.array(texts, dtype=np.dtypes.StringDType()).reshape(values.shape)


def storable_attrs(attrs: Mapping[Any, Any]) -> dict[str, Any]:
    """Attributes as strings, numbers and lists of these; settings in dictionaries as JSON."""
    found: dict[str, Any] = {}
    for key, value in attrs.items():
        if isinstance(value, np.ndarray | np.generic):
            value = value.tolist()
        items = list(value) if isinstance(value, tuple | list) else [value]
        is_plain = all(isinstance(item, str) for item in items) or all(map(_is_number, items))
        if isinstance(value, bool):
            found[str(key)] = str(value).lower()
        elif is_plain:
            found[str(key)] = items if isinstance(value, tuple | list) else value
        elif value is not None:
            found[str(key)] = json.dumps(value, default=str)
    return found


def _is_number(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**63


# Large groups ---------------------------------------------------------------------------------


def read_length(data: xr.Dataset, chains: int) -> int:
    """Draws to read at once: whole chunks of the source, if they are not too large."""
    per_draw = chains * sum(
        math.prod(array.shape[2:]) * array.dtype.itemsize for array in data.data_vars.values()
    )
    length = max(1, READ_BYTES // max(1, per_draw))
    chunks = [a.encoding.get("preferred_chunks", {}).get("draw", 1) for a in data.values()]
    chunk = max(chunks, default=1)
    return int(length // chunk * chunk or length)


def in_pieces(data: xr.Dataset) -> xr.Dataset:
    """A group that is added whole; in pieces where it is large and dask is there."""
    texts = {
        name: array.copy(data=plain(array.values, str(name)))
        for name, array in data.data_vars.items()
        if array.dtype.kind in "OS"
    }
    # Dimensions without labels are counted here, whatever another group calls theirs.
    counted = {d: np.arange(n) for d, n in data.sizes.items() if d not in data.coords}
    data = data.assign(texts).assign_coords(counted)
    for array in data.data_vars.values():
        array.attrs = storable_attrs(array.attrs)
    if "draw" not in data.dims or data.nbytes <= READ_BYTES:
        return data
    try:
        return data.chunk({"draw": read_length(data, data.sizes.get("chain", 1))})
    except ImportError:
        return data
