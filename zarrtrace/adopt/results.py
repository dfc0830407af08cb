"""Results of other libraries, opened: their groups as Datasets, in the form that ArviZ knows."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InvalidInputError, TraceNotFoundError
from ..opening import open as open_trace
from ..reading.netcdf import open_lazily, require_h5netcdf

if TYPE_CHECKING:
    import xarray as xr


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
    if not file.is_file() and not file.is_dir():
        # Reading a pipe might wait for ever.
        raise InvalidInputError(
            f"{file} is neither a file nor a directory; save what it gives as a file first"
        )
    if file.is_file():
        require_h5netcdf(f"{file}: reading it")
    try:
        if file.is_dir():
            return xr.open_datatree(file, engine="zarr", consolidated=False, chunks=None)
        tree = open_lazily(file)
    except (OSError, ValueError, KeyError) as error:
        raise InvalidInputError(
            f"{file} is not a netCDF file, Zarr hierarchy or HDF5 file that xarray can open, and "
            f"it holds neither CSV of CmdStan nor a table of draws as text: {error}"
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
