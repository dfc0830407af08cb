"""HDF5 files that emcee has written, brought into a directory of traces."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from zarrtrace.errors import InvalidInputError

from .ensemble import Ensemble, create_ensemble, run_path

_AT_ONCE = 32 * 2**20  # bytes of a file


def import_hdf(source: str | os.PathLike[str], filename: str | os.PathLike[str]) -> list[str]:
    """Bring the runs of an HDF5 file that emcee has written into a directory of traces.

    Parameters
    ----------
    source : str or path
        The HDF5 file; it is only read.
    filename : str or path
        The directory, as `HDFBackend` takes it.

    Returns
    -------
    list of str
        The names of the runs. They go on here as they would have there.

    Raises
    ------
    InvalidInputError
        The file has no runs of emcee.
    TraceExistsError
        The directory has a run of the same name.
    """
    import h5py

    with h5py.File(source, "r") as file:
        names = [
            name
            for name, group in file.items()
            if isinstance(group, h5py.Group) and "chain" in group
        ]
        if not names:
            raise InvalidInputError(
                f"{os.fspath(source)} has no runs of emcee: no group with a dataset 'chain'"
            )
        for name in names:
            _import_run(file[name], run_path(filename, name))
    return names


def _import_run(group: Any, path: str) -> None:
    chain, steps = group["chain"], int(group.attrs["iteration"])
    walkers, dimensions = chain.shape[1:]
    blobs = group["blobs"] if group.attrs["has_blobs"] else None
    seen = np.zeros(walkers)
    for _, _, moved in _pieces(chain, steps):
        seen += moved.sum(axis=0)
    trace = create_ensemble(
        path,
        walkers=walkers,
        dimensions=dimensions,
        dtype=chain.dtype,
        blobs=None if blobs is None else blobs.dtype,
        parameter_names=None,
        compressors="auto",
        # The file has their number only; which they were, the moves of the walkers say, but for
        # the first step.
        accepted_before=(group["accepted"][...] - seen).tolist(),
        overwrite=False,
    )
    ensemble = Ensemble.of(trace)
    with trace.writer(ensemble.walkers) as writer:
        for piece, coords, moved in _pieces(chain, steps):
            step = [
                coords,
                group["log_prob"][piece],
                moved,
                None if blobs is None else blobs[piece],
            ]
            writer.record_block(
                *ensemble.stored_step(*(v if v is None else np.swapaxes(v, 0, 1) for v in step))
            )
        writer.checkpoint(_random_state_of(group.attrs))


def _pieces(
    chain: Any, steps: int
) -> Iterator[tuple[slice, np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
    """Some steps at a time: which, the positions, and which walkers have moved."""
    length = max(1, _AT_ONCE // (chain.dtype.itemsize * int(np.prod(chain.shape[1:]))))
    before = None
    for start in range(0, steps, length):
        piece = slice(start, min(start + length, steps))
        coords = chain[piece]
        first = coords[:1] if before is None else before
        moved = (coords != np.concatenate([first, coords[:-1]])).any(axis=2)
        before = coords[-1:]
        yield piece, coords, moved


def _random_state_of(attrs: Any) -> tuple[Any, ...] | None:
    """The state of a RandomState, whose elements are an attribute each."""
    elements = [value for key, value in sorted(attrs.items()) if key.startswith("random_state_")]
    # Numbers of NumPy, but for the first and the second: a name and an array.
    plain = (v.item() if isinstance(v, np.generic) else v for v in elements)
    return tuple(plain) or None
