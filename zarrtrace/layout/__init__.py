"""What a trace consists of: groups, variables, coordinates, and which array holds which draws.

`check_name` is for adapters that store arrays of their own: it refuses what cannot be the name of
a Zarr node, a file and a netCDF variable.
"""

from .names import check_name

__all__ = ["check_name"]
