"""Arguments and results of StoreGate: columns of arrays, indices, codecs, a printed table."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

# The constants of numcodecs; -1 leaves it to Blosc, which shuffles.
_SHUFFLES: dict[int, Literal["noshuffle", "shuffle", "bitshuffle"]] = {
    -1: "shuffle",
    0: "noshuffle",
    1: "shuffle",
    2: "bitshuffle",
}


def as_columns(var_names: str | Sequence[str], data: Any) -> dict[str, Any]:
    """The array of each variable: data is (N, M, k) for a tuple of M names, one each for a list."""
    if isinstance(var_names, str):
        return {var_names: np.asarray(data)}
    if not isinstance(var_names, tuple | list):
        raise ValueError(f"var_names must be a str, tuple or list, got {type(var_names).__name__}")
    if isinstance(var_names, list):
        given = list(data)
        if len(given) > len(var_names):
            # The original ignores them in silence.
            warnings.warn(
                f"data has {len(given)} arrays for {len(var_names)} names: the first "
                f"{len(var_names)} are taken, one for each name, and the others are ignored; for a "
                f"row of values for each sample give the names as a tuple",
                stacklevel=3,
            )
        columns = [np.asarray(values) for values in given[: len(var_names)]]
    else:
        try:
            bound = np.asarray(data)
        except ValueError:
            # Variables of different shapes: each sample is a list of them.
            columns = [np.asarray(values) for values in zip(*data, strict=True)]
        else:
            columns = [bound[:, i] for i in range(bound.shape[1] if bound.ndim > 1 else 0)]
    if len(columns) != len(var_names) or not columns:
        raise ValueError(f"data has {len(columns)} variables, var_names has {len(var_names)}")
    return dict(zip(var_names, columns, strict=True))


def as_one_sample(var_names: str | Sequence[str], data: Any) -> dict[str, Any]:
    """The same for one sample, with its dimension N or without."""
    if isinstance(var_names, str | list):
        return as_columns(var_names, data)
    bound = np.asarray(data)
    with_dimension = bound.ndim > 1 and bound.shape[:2] == (1, len(var_names))
    return as_columns(var_names, bound if with_dimension else bound[None])


def as_index(index: Any) -> Any:
    """The index for NumPy: here -1 means everything, and a pair is start and stop."""
    if isinstance(index, tuple):
        return slice(*index)
    return slice(None) if isinstance(index, int) and index == -1 else index


def is_row(index: Any) -> bool:
    """Whether an index selects one sample, without its dimension."""
    return not isinstance(index, slice) and np.ndim(index) == 0


def as_stored(values: Any) -> Any:
    """Text of a fixed width, as StoreGate had it from NumPy."""
    text = isinstance(getattr(values, "dtype", None), np.dtypes.StringDType)
    return values.astype(object).astype(np.str_) if text else values


def stacked(values: Sequence[Any], row: bool) -> np.ndarray[Any, Any]:
    """The variables of a tuple in one array: (N, M, k), (M, k) for one sample."""
    return np.stack(values, axis=0 if row else 1)


def shuffled(count: int, seed: int) -> np.ndarray[Any, Any]:
    """The order in which `numpy.random.shuffle` puts a number of samples with this seed."""
    order = np.arange(count)
    np.random.RandomState(seed).shuffle(order)
    return order


def as_codecs(compressor: Any) -> Any:
    """The codecs of zarr 3 for those of zarr 2: "default", None, or one of numcodecs."""
    if isinstance(compressor, str) and compressor == "default":
        return "auto"
    if compressor is None or not hasattr(compressor, "codec_id"):
        return compressor
    from zarr.codecs import BloscCodec, GzipCodec, ZstdCodec

    settings = dict(compressor.get_config())
    name = settings.pop("id")
    if name == "blosc":
        shuffle = _SHUFFLES[settings["shuffle"]]
        cname, level = settings["cname"], settings["clevel"]
        return BloscCodec(cname=cname, clevel=level, shuffle=shuffle)
    if name in ("zlib", "gzip"):
        return GzipCodec(level=settings["level"])
    if name == "zstd":
        return ZstdCodec(level=settings["level"])
    raise ValueError(f"compressor {name!r}: use Blosc, Zstd or GZip, or a codec of zarr.codecs")


def table(header: str, rows: Sequence[Sequence[Any]]) -> str:
    """A header, and columns under their names."""
    names = ("phase", "backend", "var_name", "var_type", "total_events", "var_shape")
    cells = [names, *(tuple(map(str, row)) for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(names))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    ]
    rule = "-" * max(map(len, [header, *lines]))
    return "\n".join([header, rule, lines[0], rule, *lines[1:], rule])
