"""netCDF and other files in HDF5, which xarray reads and writes with h5netcdf."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InvalidInputError

if TYPE_CHECKING:
    import xarray as xr


def require_h5netcdf(doing: str) -> None:
    """Refuse to do something, such as "writing netCDF", where its packages are missing."""
    if find_spec("h5netcdf") is None or find_spec("h5py") is None:
        raise InvalidInputError(f"{doing} needs `pip install h5netcdf h5py`")


def open_lazily(file: Path) -> xr.DataTree:
    """A file as xarray opens it, with the errors of xarray where it cannot."""
    import xarray as xr

    return xr.open_datatree(file, engine="h5netcdf", phony_dims="access", chunks=None)
