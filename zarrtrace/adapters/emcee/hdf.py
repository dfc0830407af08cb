"""HDF5 files of emcee's own backend: into a directory of traces, and back."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import emcee.backends
import numpy as np

from zarrtrace.errors import InvalidInputError, NotWritableError, TraceExistsError

from .backend import HDFBackend, list_names
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
        The names of the runs. They continue here as they would have there.

    Raises
    ------
    InvalidInputError
        The file has no runs of emcee.
    TraceExistsError
        The directory has a run of the same name.

    See Also
    --------
    export_hdf : The other way.

    Examples
    --------
    >>> import emcee
    >>> import numpy as np
    >>> from zarrtrace.adapters.emcee import HDFBackend, import_hdf
    >>> backend = emcee.backends.HDFBackend("run.h5")
    >>> sampler = emcee.EnsembleSampler(8, 2, lambda x: -0.5 * x @ x, backend=backend)
    >>> state = sampler.run_mcmc(np.random.default_rng(1).normal(size=(8, 2)), 10)
    >>> import_hdf("run.h5", "run.zarr")
    ['mcmc']
    >>> HDFBackend("run.zarr").iteration
    10
    """
    import h5py

    with h5py.File(source, "r") as file:
        names: list[str] = []

        def take_run(name: str, item: Any) -> None:
            if isinstance(item, h5py.Group) and "chain" in item:
                names.append(name)

        file.visititems(take_run)
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
    before = None
    for numbers in _ranges(steps, chain.dtype.itemsize * int(np.prod(chain.shape[1:]))):
        piece = slice(numbers.start, numbers.stop)
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


def export_hdf(filename: str | os.PathLike[str], target: str | os.PathLike[str]) -> list[str]:
    """Write the runs of a directory of traces to an HDF5 file, as emcee's own backend has them.

    Parameters
    ----------
    filename : str or path
        The directory, as `HDFBackend` takes it; it is only read.
    target : str or path
        The file, which must not exist. It is complete when it appears.

    Returns
    -------
    list of str
        The names of the runs. `emcee.backends.HDFBackend(target, name)` reads each of them bit for
        bit and continues it from the same random numbers. It has no place for the names of the
        parameters.

    Raises
    ------
    InvalidInputError
        The directory has no runs, or blobs of a type that HDF5 does not have, such as text of
        `U20`.
    TraceExistsError
        There is something at the target, and it stays as it is.
    NotWritableError
        No file can be made where the target is.

    See Also
    --------
    import_hdf : The other way.

    Examples
    --------
    >>> import emcee
    >>> import numpy as np
    >>> from zarrtrace.adapters.emcee import HDFBackend, export_hdf
    >>> backend = HDFBackend("run.zarr")
    >>> sampler = emcee.EnsembleSampler(8, 2, lambda x: -0.5 * x @ x, backend=backend)
    >>> state = sampler.run_mcmc(np.random.default_rng(1).normal(size=(8, 2)), 10)
    >>> export_hdf("run.zarr", "run.h5")
    ['mcmc']
    >>> int(emcee.backends.HDFBackend("run.h5").iteration)
    10
    """
    names = list_names(filename)
    if not names:
        raise InvalidInputError(
            "there are no runs in this directory",
            where=os.fspath(filename),
            remedy="give the path that HDFBackend was given",
        )
    target = os.path.abspath(target)
    if os.path.lexists(target):
        raise _is_taken(target)
    with _folder_beside(target) as folder:
        partial = os.path.join(folder, "partial.h5")
        for name in names:
            _export_run(HDFBackend(filename, name, read_only=True), partial)
        try:
            _move_to_free_name(partial, target)
        except FileExistsError:
            raise _is_taken(target) from None
    return names


def _folder_beside(target: str) -> tempfile.TemporaryDirectory[str]:
    """A folder that nobody else has, from which a file can be renamed to the target."""
    parent = os.path.dirname(target)
    try:
        return tempfile.TemporaryDirectory(
            prefix=".export-", suffix=".partial", dir=parent, ignore_cleanup_errors=True
        )
    except OSError as error:
        raise NotWritableError(
            f"no file can be made here ({error.strerror})",
            where=target,
            remedy="create the directory, or choose another one",
        ) from error


def _move_to_free_name(source: str, target: str) -> None:
    """Give a file another name.

    Raises
    ------
    FileExistsError
        There is something of that name, also if it came at this moment.
    """
    try:
        os.link(source, target)
        return
    except FileExistsError:
        raise
    except OSError:
        pass
    # The file system has no links. An empty file takes the name for a moment.
    os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
    try:
        os.replace(source, target)
    except BaseException:
        with suppress(OSError):
            os.unlink(target)
        raise


def _is_taken(target: str) -> TraceExistsError:
    return TraceExistsError(
        "there is a file of this name", where=target, remedy="give another name, or remove it"
    )


def _export_run(run: HDFBackend, file_path: str) -> None:
    ensemble, (steps, random_state) = Ensemble.of(run.trace), run._last_step()
    walkers, blobs = len(ensemble.walkers), ensemble.blobs
    target = emcee.backends.HDFBackend(file_path, run.name.strip("/"), dtype=ensemble.dtype)
    target.reset(walkers, ensemble.dimensions)
    try:
        target.grow(steps, None if blobs is None else np.empty((walkers, *blobs.shape), blobs.base))
    except TypeError as error:
        raise InvalidInputError(
            f"HDF5 cannot store blobs of the type {blobs} ({error})",
            where=run.path,
            remedy="trace.to_datatree().to_netcdf(...) can",
        ) from None
    accepted = ensemble.accepted_before
    step_bytes = walkers * (ensemble.dimensions + 1) * ensemble.dtype.itemsize
    step_bytes += 0 if blobs is None else walkers * blobs.itemsize
    with target.open("a") as file:
        group = file[target.name]
        for piece in _ranges(steps, step_bytes):
            where = slice(piece.start, piece.stop)
            group["chain"][where] = np.swapaxes(ensemble.chain(piece), 0, 1)
            group["log_prob"][where] = np.swapaxes(ensemble.log_prob(piece), 0, 1)
            if blobs is not None:
                group["blobs"][where] = np.swapaxes(ensemble.blob_values(piece), 0, 1)
            accepted = accepted + ensemble.read("accepted", piece).sum(axis=1)
        group["accepted"][...] = accepted
        for number, element in enumerate(random_state or ()):
            group.attrs[f"random_state_{number}"] = element
        group.attrs["iteration"] = steps


def _ranges(steps: int, bytes_per_step: int) -> Iterator[range]:
    """All steps, some at a time."""
    length = max(1, _AT_ONCE // bytes_per_step)
    for start in range(0, steps, length):
        yield range(start, min(start + length, steps))
