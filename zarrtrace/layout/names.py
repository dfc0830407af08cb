"""The names that groups, variables and dimensions may have."""

from __future__ import annotations

from ..errors import SchemaError
from .attributes import _is_text

# The tables of a trace that hold its segments: one for their places, one for values of each dtype.
SEGMENTS = "segments"
SEGMENT_VALUES = "segment_values_"

_LONGEST_NAME = 200  # bytes: a name is a file name, and zarr adds a suffix of its own


# Names ----------------------------------------------------------------------------------------


def check_name(name: object, what: str) -> str:
    """A name that can be a Zarr node, a file and a netCDF variable; SchemaError otherwise."""
    if not isinstance(name, str) or not name:
        raise SchemaError(f"{what}: expected a non-empty string, got {name!r}")
    if "/" in name or "\x00" in name:
        raise SchemaError(
            f"{what} {name!r}: '/' separates groups in Zarr; use {name.replace('/', '.')!r}"
        )
    if name.startswith("__") or name.strip(".") == "":
        raise SchemaError(f"{what} {name!r}: Zarr reserves '__' and names of dots; rename it")
    if name == "zarr.json":
        raise SchemaError(f"{what} {name!r}: Zarr reserves this name for its documents; rename it")
    if not _is_text(name):
        raise SchemaError(f"{what} {name!r}: half a surrogate pair cannot be encoded; rename it")
    if len(name.encode()) > _LONGEST_NAME:
        raise SchemaError(f"{what} {name[:40]!r}...: longer than {_LONGEST_NAME} bytes; shorten it")
    return name


def check_group_name(name: object) -> str:
    """A group's name; `_...` and `warmup_...` are the library's own."""
    checked = check_name(name, "group")
    if checked.startswith("_"):
        raise SchemaError(f"group {checked!r}: a leading '_' is reserved for zarrtrace; rename it")
    if checked.startswith("warmup_"):
        raise SchemaError(
            f"group {checked!r}: split_warmup() makes the warmup groups; "
            f"define {checked.removeprefix('warmup_')!r} and pass tune="
        )
    return checked


def is_of_segments(table: str) -> bool:
    """Whether a table of a trace is one of those that hold its segments."""
    return table == SEGMENTS or table.startswith(SEGMENT_VALUES)
