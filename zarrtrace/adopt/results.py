"""Results of other libraries, opened: their groups as Datasets, in the form that ArviZ knows."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InvalidInputError, SchemaError, TraceNotFoundError
from ..opening import open as open_trace
from .stat_names import arviz_names

if TYPE_CHECKING:
    import xarray as xr


Datasets = dict[str, "xr.Dataset"]


def is_path(result: Any) -> bool:
    """Whether this is a path, or a sequence of paths."""
    items = result if isinstance(result, list | tuple) and result else [result]
    return all(isinstance(item, str | os.PathLike) for item in items)


def read_result(path: str | os.PathLike[str]) -> xr.DataTree:
    """Open a result that is on disk, lazily: netCDF, Zarr, or an HDF5 file of emcee.

    Raises
    ------
    TraceNotFoundError
        There is nothing at this path.
    InvalidInputError
        It is none of these, or a trace that is not finished.
    """
    import xarray as xr

    file = Path(path)
    if not file.exists():
        raise TraceNotFoundError(f"there is nothing at {file}")
    with suppress(TraceNotFoundError):
        if not open_trace(file).finished:
            raise InvalidInputError(
                f"{file} is a trace that is not finished, and xarray would not see all its draws; "
                f"zarrtrace.open(path, mode='a').finish() finishes it"
            )
    if file.is_file() and (find_spec("h5netcdf") is None or find_spec("h5py") is None):
        raise InvalidInputError(f"{file}: reading it needs `pip install h5netcdf h5py`")
    try:
        if file.is_dir():
            return xr.open_datatree(file, engine="zarr", consolidated=False, chunks=None)
        tree = xr.open_datatree(file, engine="h5netcdf", phony_dims="access", chunks=None)
    except (OSError, ValueError, KeyError) as error:
        raise InvalidInputError(
            f"{file} is no netCDF file, Zarr hierarchy or HDF5 file that xarray can open, nor is "
            f"there CSV of CmdStan or a table of draws as text: {error}"
        ) from error
    ensembles = [name for name, node in tree.children.items() if "nwalkers" in node.attrs]
    if not ensembles:
        return tree
    if len(ensembles) > 1:
        raise InvalidInputError(
            f"the file holds {len(ensembles)} runs of emcee: {', '.join(ensembles)}",
            where=str(file),
            remedy="zarrtrace.adapters.emcee.import_hdf(file, directory) makes a trace of each",
        )
    result = _from_emcee(tree[ensembles[0]].to_dataset())
    result.set_close(tree.close)
    return result


def _from_emcee(run: xr.Dataset) -> xr.DataTree:
    """The walkers of emcee's HDFBackend as chains, as far as they got."""
    import xarray as xr

    def steps_made(array: xr.DataArray, *dims: str) -> xr.DataArray:
        named = array.rename(dict(zip(array.dims, ("draw", "chain", *dims), strict=True)))
        return named.isel(draw=slice(int(run.attrs["iteration"])))

    posterior = {"x": steps_made(run.chain, "x_dim")}
    if "blobs" in run:
        dims = [f"blobs_dim_{i}" for i in range(run.blobs.ndim - 2)]
        blobs = steps_made(run.blobs, *dims)
        if blobs.dtype.names is None:
            posterior["blobs"] = blobs
        # Records are read at once; there is no other way to take them apart.
        records = blobs.values
        for name in blobs.dtype.names or ():
            field = records[name]
            inner = [f"{name}_dim_{i}" for i in range(field.ndim - 2)]
            posterior[name] = xr.DataArray(field, dims=("draw", "chain", *inner))
    attrs = {"inference_library": "emcee", "inference_library_version": run.attrs["version"]}
    stats = {"lp": steps_made(run.log_prob)}
    return xr.DataTree.from_dict(
        {
            "/": xr.Dataset(attrs=attrs),
            "posterior": xr.Dataset(posterior),
            "sample_stats": xr.Dataset(stats),
        }
    )


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


def mended(attrs: Mapping[Any, Any]) -> dict[str, Any]:
    """Attributes as strings, numbers and lists of these; settings in dictionaries as JSON."""
    found: dict[str, Any] = {}
    for key, value in attrs.items():
        if isinstance(value, np.ndarray | np.generic):
            value = value.tolist()
        items = list(value) if isinstance(value, tuple | list) else [value]
        plain = all(isinstance(item, str) for item in items) or all(map(_is_number, items))
        if isinstance(value, bool):
            found[str(key)] = str(value).lower()
        elif plain:
            found[str(key)] = items if isinstance(value, tuple | list) else value
        elif value is not None:
            found[str(key)] = json.dumps(value, default=str)
    return found


def _is_number(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**63
