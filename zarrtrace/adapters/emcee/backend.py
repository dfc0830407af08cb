"""The backends under emcee's own names."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from emcee.backends import Backend
from zarr.codecs import GzipCodec

import zarrtrace as zt
from zarrtrace.errors import (
    InvalidInputError,
    StopRequestedError,
    TraceExistsError,
    TraceNotFoundError,
)

from .ensemble import Ensemble, create_ensemble, open_run, run_path

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import DTypeLike


_NOTHING_STORED = "you must run the sampler with 'store == True' before accessing the results"


class _OpenRun:
    """A run that this process writes: its writer, and the last complete step."""

    def __init__(self, path: str) -> None:
        trace = zt.open(path, mode="a")
        self.ensemble = Ensemble.of(trace)
        self.writer = trace.writer(self.ensemble.walkers, patience=90)
        self.iteration, self.random_state = self.writer.resume()
        self.ends_at: int | None = None
        self.began_stopped = self.writer.stop_requested
        self.process = os.getpid()

    def close(self) -> None:
        # A run whose directory was removed no longer exists.
        with suppress(TraceNotFoundError):
            self.writer.close()


# By path, so that all backends of a process for the same run share its writer.
_open_runs: dict[str, _OpenRun] = {}


class HDFBackend(Backend):  # type: ignore[misc]
    """A backend that stores the chain in a directory of traces, under emcee's name.

    Parameters
    ----------
    filename : str or path
        The directory; it is made when the sampler resets or runs, not before.
    name : str, default "mcmc"
        The run in it. Several runs may be in one directory; resetting one leaves the others.
    read_only : bool, default False
        Whether to refuse all writing, with a RuntimeError.
    dtype : dtype, optional
        Dtype of positions and log probabilities: float64, or that of the stored run.
    compression : str or int, optional
        "gzip", or its level, as in h5py. Everything else, including None, is Blosc with lz4:
        faster, and here a compressed run is as safe as one that is not.
    compression_opts : int, optional
        The level of gzip, 4 by default.
    parameter_names : sequence of str, optional
        A name for each dimension of the positions: the labels of `x_dim`, and the variables that
        `to_datatree` makes of them.

    Attributes
    ----------
    path : str
        The path of the run's trace.

    See Also
    --------
    import_hdf : Bring a file of emcee into a directory of traces.
    zarrtrace.open : Read a run as a trace, while the sampler runs.

    Notes
    -----
    Walkers are chains: `posterior/x (chain, draw, x_dim)`, and in `sample_stats` `lp`, `accepted`
    and the blobs, one variable for each field. Types that Zarr lacks (long doubles, strings
    of a fixed width) are stored as their bytes, and read back unchanged.

    A step is stored once `save_step` has returned; one that was being stored when the process was
    killed is not part of the run. From `grow` to the last step that it made room for, or `close()`,
    only this process can write it: others get `zarrtrace.errors.ChainBusyError`. Reading disturbs
    no writer.

    Examples
    --------
    >>> import emcee
    >>> import numpy as np
    >>> from zarrtrace.adapters import emcee as backends
    >>> def log_prob(x):
    ...     return -0.5 * np.sum(x**2)
    >>> backend = backends.HDFBackend("run.zarr")
    >>> sampler = emcee.EnsembleSampler(8, 2, log_prob, backend=backend)
    >>> state = sampler.run_mcmc(np.random.default_rng(1).normal(size=(8, 2)), 10)

    Another process continues from the last step:

    >>> backend = backends.HDFBackend("run.zarr")
    >>> sampler = emcee.EnsembleSampler(8, 2, log_prob, backend=backend)
    >>> state = sampler.run_mcmc(None, 5)
    >>> backend.get_chain().shape
    (15, 8, 2)
    """

    def __init__(
        self,
        filename: str | os.PathLike[str],
        name: str = "mcmc",
        read_only: bool = False,
        dtype: DTypeLike | None = None,
        compression: str | int | None = None,
        compression_opts: int | None = None,
        *,
        parameter_names: Sequence[str] | None = None,
    ) -> None:
        self.filename = os.fspath(filename)
        self.name = name
        self.path = run_path(filename, name)
        self.read_only = read_only
        self.compression = compression
        self.compression_opts = compression_opts
        self.parameter_names = None if parameter_names is None else list(parameter_names)
        self._dtype = None if dtype is None else np.dtype(dtype)

    # What is stored -----------------------------------------------------------------------

    @property
    def trace(self) -> zt.Trace:
        """The trace of this run, read-only; TraceNotFoundError before the first reset."""
        return open_run(self.path)

    @property
    def initialized(self) -> bool:
        """Whether there is such a run, empty or not."""
        try:
            return self.trace is not None
        except TraceNotFoundError:
            return False

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of positions and log probabilities: as given, as stored, or float64."""
        if self._dtype is None and self.initialized:
            self._dtype = self._ensemble().dtype
        return np.dtype(np.float64) if self._dtype is None else self._dtype

    @property
    def shape(self) -> tuple[int, int]:
        """The walkers and the dimensions of their positions."""
        ensemble = self._ensemble()
        return len(ensemble.walkers), ensemble.dimensions

    @property
    def iteration(self) -> int:
        """The number of stored steps."""
        return self._last_step()[0]

    @property
    def random_state(self) -> Any:
        """The state of the random numbers after the last step, as it was passed."""
        return self._last_step()[1]

    @property
    def accepted(self) -> np.ndarray[Any, Any]:
        """How many proposals each walker accepted: float64, shape (walkers,)."""
        ensemble = self._ensemble()
        taken = ensemble.read("accepted", range(self.iteration))
        accepted: np.ndarray[Any, Any] = ensemble.accepted_before + taken.sum(axis=1)
        return accepted

    def has_blobs(self) -> bool:
        """Whether blobs are stored.

        Returns
        -------
        bool
            Whether `get_value("blobs")` returns any.

        Raises
        ------
        AttributeError
            Nothing is stored; the message names the existing runs.

        See Also
        --------
        HDFBackend.get_value : Read the blobs.

        Examples
        --------
        >>> from zarrtrace.adapters.emcee import HDFBackend
        >>> backend = HDFBackend("run.zarr")
        >>> backend.reset(nwalkers=8, ndim=2)
        >>> backend.has_blobs()
        False
        """
        return self._ensemble().blobs is not None

    def get_value(
        self, name: str, flat: bool = False, thin: int = 1, discard: int = 0
    ) -> np.ndarray[Any, Any] | None:
        """The stored "chain", "log_prob" or "blobs".

        Parameters
        ----------
        name : str
            One of these three.
        flat : bool, default False
            Whether steps and walkers become one axis, step after step.
        thin : int, default 1
            Keep only the last of every `thin` steps.
        discard : int, default 0
            Number of steps to leave out at the start.

        Returns
        -------
        numpy.ndarray or None
            Shape (steps, walkers, ...); None for blobs when there are none.

        Raises
        ------
        AttributeError
            Nothing is stored; the message names the existing runs.

        See Also
        --------
        HDFBackend.to_datatree : The run for ArviZ.

        Examples
        --------
        >>> import emcee
        >>> import numpy as np
        >>> from zarrtrace.adapters.emcee import HDFBackend
        >>> backend = HDFBackend("run.zarr")
        >>> sampler = emcee.EnsembleSampler(8, 2, lambda x: -0.5 * x @ x, backend=backend)
        >>> state = sampler.run_mcmc(np.random.default_rng(1).normal(size=(8, 2)), 10)
        >>> backend.get_value("log_prob", discard=4).shape
        (6, 8)
        >>> backend.get_value("chain", flat=True, thin=2).shape
        (40, 2)
        """
        if name not in ("chain", "log_prob", "blobs"):
            raise AttributeError(f"a backend stores chain, log_prob and blobs, not {name!r}")
        if thin < 1:
            raise ValueError(f"thin must be a whole number from 1, got {thin!r}")
        iteration = self.iteration if self.initialized else 0
        if iteration <= 0:
            raise AttributeError(self._nothing_stored())
        ensemble, steps = self._ensemble(), range(iteration)[discard + thin - 1 : iteration : thin]
        if name == "blobs" and ensemble.blobs is None:
            return None
        read = {
            "chain": ensemble.chain,
            "log_prob": ensemble.log_prob,
            "blobs": ensemble.blob_values,
        }
        values = np.swapaxes(read[name](steps), 0, 1)
        return values.reshape(-1, *values.shape[2:]) if flat else values

    def to_datatree(self, **options: Any) -> xr.DataTree:
        """The run for ArviZ, as `Trace.to_datatree`, with a variable for each named parameter.

        Parameters
        ----------
        **options
            Arguments of `Trace.to_datatree`.

        Returns
        -------
        xarray.DataTree
            Walkers are chains; the variables are the parameters, or `x` with the dimension `x_dim`.

        See Also
        --------
        HDFBackend.trace : The trace itself.

        Examples
        --------
        >>> import emcee
        >>> import numpy as np
        >>> from zarrtrace.adapters.emcee import HDFBackend
        >>> backend = HDFBackend("run.zarr", parameter_names=["mu", "tau"])
        >>> sampler = emcee.EnsembleSampler(8, 2, lambda x: -0.5 * x @ x, backend=backend)
        >>> state = sampler.run_mcmc(np.random.default_rng(1).normal(size=(8, 2)), 10)
        >>> dict(backend.to_datatree().posterior.sizes)
        {'chain': 8, 'draw': 10}
        >>> list(backend.to_datatree().posterior)
        ['mu', 'tau']
        """
        import xarray as xr

        tree = self.trace.to_datatree(**options)
        names = self._stored_names() or self.parameter_names
        for group in ("posterior", "warmup_posterior"):
            if group in tree.children and names is not None:
                dataset = tree[group].to_dataset()
                variables = {
                    name: dataset["x"].isel(x_dim=number, drop=True)
                    for number, name in enumerate(names)
                }
                named = dataset.drop_vars(["x", "x_dim"]).assign(variables)
                named.attrs["sampled_variables"] = list(variables)
                tree[group] = xr.DataTree(named, name=group)
        return tree

    def _stored_names(self) -> list[str] | None:
        """The names of the parameters that the run was created with; None without any."""
        labels = self._ensemble().trace.posterior["x_dim"].values
        # Labels that are numbers are defaults.
        return None if labels.dtype.kind in "iu" else [str(label) for label in labels]

    def __repr__(self) -> str:
        place = f"<{type(self).__name__} {self.name!r} in {self.filename}"
        if not self.initialized:
            return f"{place}: nothing stored yet; the trace will be at {self.path}>"
        walkers, dimensions = self.shape
        return (
            f"{place}: {walkers} walkers × {self.iteration} steps of {dimensions} parameters; "
            f"zarrtrace.open({self.path!r}) reads it>"
        )

    def _nothing_stored(self) -> str:
        names = [name for name in list_names(self.filename) if name != self.name]
        others = f"; {self.filename} has {', '.join(names)}" if names else ""
        return f"{_NOTHING_STORED}: {self.name!r} in {self.filename} has no steps{others}"

    def _open_run(self) -> _OpenRun | None:
        run = _open_runs.get(self.path)
        # In a forked process it belongs to the parent.
        return run if run is not None and run.process == os.getpid() else None

    def _ensemble(self) -> Ensemble:
        run = self._open_run()
        if run is not None:
            return run.ensemble
        try:
            return Ensemble.of(self.trace)
        except TraceNotFoundError:
            raise AttributeError(self._nothing_stored()) from None

    def _last_step(self) -> tuple[int, Any]:
        """The stored steps and the state after the last; a step without a state does not count."""
        run = self._open_run()
        if run is not None:
            return run.iteration, run.random_state
        ensemble = self._ensemble()
        try:
            return ensemble.trace.last_checkpoint(ensemble.walkers)
        except TraceNotFoundError:
            # Another process is resetting it.
            raise AttributeError(self._nothing_stored()) from None

    @property
    def stop_requested(self) -> bool:
        """Whether the run was asked to stop, by `Trace.request_stop`, and has the steps it shall.

        A loop over `sampler.sample` then ends with `break`. `run_mcmc`, which has no other way to
        end early, ends with a `zarrtrace.errors.StopRequestedError` at the next step. The step that
        is made when a run is asked to stop at once, or at a step that it has passed, is not stored.
        """
        run = self._open_run()
        if run is not None:
            return run.writer.stop_requested
        request = self._ensemble().trace.stop_request
        return request is not None and self.iteration >= request.at

    # Storing ------------------------------------------------------------------------------

    def reset(self, nwalkers: int, ndim: int) -> None:
        """Start again: remove the run stored under this name.

        Parameters
        ----------
        nwalkers : int
            Number of walkers.
        ndim : int
            Number of dimensions of their positions.

        See Also
        --------
        HDFBackend.grow : Make room for steps.

        Examples
        --------
        >>> from zarrtrace.adapters.emcee import HDFBackend
        >>> backend = HDFBackend("run.zarr")
        >>> backend.reset(nwalkers=8, ndim=2)
        >>> backend.shape, backend.iteration
        ((8, 2), 0)
        """
        self._require_writable()
        self._create(int(nwalkers), int(ndim), blobs=None)

    def grow(self, ngrow: int, blobs: np.ndarray[Any, Any] | None) -> None:
        """Make room for more steps.

        Parameters
        ----------
        ngrow : int
            The number of steps.
        blobs : numpy.ndarray or None
            Blobs of one step, with the shape and dtype of all steps.

        Raises
        ------
        ValueError
            The stored steps have no blobs and these do, or the other way round, or blobs of
            another shape.

        See Also
        --------
        HDFBackend.save_step : Store a step.

        Examples
        --------
        `emcee.EnsembleSampler` calls it before its first step:

        >>> from zarrtrace.adapters.emcee import HDFBackend
        >>> backend = HDFBackend("run.zarr")
        >>> backend.reset(nwalkers=8, ndim=2)
        >>> backend.grow(100, blobs=None)
        >>> backend.close()
        """
        self._require_writable()
        self._check_blobs(blobs)
        self._check_names()
        ngrow, iteration = int(ngrow), self.iteration
        like = None if blobs is None else np.dtype((blobs.dtype, blobs.shape[1:]))
        stored = self._ensemble().blobs
        # NumPy treats None as float64.
        if not iteration and ((like is None) != (stored is None) or like != stored):
            # The type of the blobs is known only now.
            self._create(*self.shape, blobs=like)
        self._check_blobs_like(like)
        trace = self._ensemble().trace
        if trace.has_end or trace.finished:
            # Finished, or of an earlier version.
            self.close()
            zt.open(self.path, mode="a").extend(None)
        if ngrow:
            self._opened_run().ends_at = iteration + ngrow

    def save_step(self, state: Any, accepted: np.ndarray[Any, Any]) -> None:
        """Store a step: then it survives a kill of the process.

        Parameters
        ----------
        state : emcee.State
            Positions, log probabilities, blobs and the state of the random numbers.
        accepted : numpy.ndarray of bool
            Whether each walker has moved, shape (walkers,).

        Raises
        ------
        ValueError
            A value has another shape or type than in the steps before; nothing is stored.
        StopRequestedError
            The run had the steps at which it was asked to stop before this one was made; all of
            them are stored.

        See Also
        --------
        HDFBackend.grow : Make room for steps.

        Examples
        --------
        `emcee.EnsembleSampler` calls it after each step:

        >>> import emcee
        >>> import numpy as np
        >>> from zarrtrace.adapters.emcee import HDFBackend
        >>> backend = HDFBackend("run.zarr")
        >>> backend.reset(nwalkers=8, ndim=2)
        >>> backend.grow(1, blobs=None)
        >>> step = emcee.State(np.zeros((8, 2)), log_prob=np.zeros(8))
        >>> backend.save_step(step, accepted=np.ones(8, dtype=bool))
        >>> backend.iteration
        1
        """
        self._require_writable()
        self._check(state, accepted)
        run = self._opened_run()
        posterior, stats = run.ensemble.stored_step(
            state.coords, state.log_prob, accepted, state.blobs
        )
        try:
            run.writer.record(posterior, stats)
            run.writer.checkpoint(state.random_state)
        except StopRequestedError:
            self.close()
            if run.began_stopped:
                raise
            return  # it was asked while this step was made: the loop looks at `stop_requested` next
        except BaseException:
            # A step recorded without its random state does not count.
            self.close()
            raise
        run.iteration += 1
        run.random_state = state.random_state
        if run.iteration == run.ends_at or run.writer.stop_requested:
            self.close()

    def close(self) -> None:
        """Let other processes write this run; the next step opens it again.

        See Also
        --------
        HDFBackend.save_step : Opens the run again.

        Examples
        --------
        >>> from zarrtrace.adapters.emcee import HDFBackend
        >>> backend = HDFBackend("run.zarr")
        >>> backend.reset(nwalkers=8, ndim=2)
        >>> backend.grow(100, blobs=None)
        >>> backend.close()
        """
        run = self._open_run()
        if run is not None:
            del _open_runs[self.path]
            run.close()

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        self.close()

    def _require_writable(self) -> None:
        if self.read_only:
            raise RuntimeError(
                "The backend has been loaded in read-only mode. Set `read_only = False` to make "
                "changes."
            )

    def _check_names(self) -> None:
        if self.parameter_names is None or not self.iteration:
            return
        stored = self._stored_names()
        if stored is not None and self.parameter_names != stored:
            raise InvalidInputError(
                f"its steps have the parameters {', '.join(stored)}, and this backend was given "
                f"{', '.join(map(str, self.parameter_names))}",
                where=self.path,
                remedy="pass the same parameter_names in the same order, or reset() the run",
            )

    def _check_blobs_like(self, like: np.dtype[Any] | None) -> None:
        stored = self._ensemble().blobs
        if like is not None and stored is not None and like.shape != stored.shape:
            raise ValueError(
                f"Existing blobs have shape {stored.shape} but new blobs requested with shape "
                f"{like.shape}; use another name for them, or reset() this run"
            )

    def _create(self, walkers: int, dimensions: int, blobs: np.dtype[Any] | None) -> None:
        if Path(self.filename).is_file():
            raise TraceExistsError(
                f"{self.filename} is a file, but this backend uses a directory: choose "
                f"another name; import_hdf brings the runs of an HDF5 file there"
            )
        with suppress(TraceNotFoundError):
            open_run(self.filename)
            raise TraceExistsError(
                f"{self.filename} is a trace itself, but this backend stores its runs in a "
                f"directory of traces: choose another name, or the directory of this trace"
            )
        self.close()
        create_ensemble(
            self.path,
            walkers=walkers,
            dimensions=dimensions,
            dtype=self.dtype,
            blobs=blobs,
            parameter_names=self.parameter_names,
            compressors=self._compressors(),
        )

    def _compressors(self) -> Any:
        if self.compression == "gzip":
            return GzipCodec(level=4 if self.compression_opts is None else self.compression_opts)
        if isinstance(self.compression, int) and not isinstance(self.compression, bool):
            return GzipCodec(level=self.compression)
        return "auto"

    def _opened_run(self) -> _OpenRun:
        """The run with its writer, after the last complete step."""
        run = self._open_run()
        if run is None:
            run = _open_runs[self.path] = _OpenRun(self.path)
        return run


class TempHDFBackend:
    """A backend in a directory that is removed at the end of its `with` block.

    Parameters
    ----------
    dtype : dtype, optional
        Dtype of positions and log probabilities, as for `HDFBackend`.
    compression : str or int, optional
        "gzip", or its level, as for `HDFBackend`.
    compression_opts : int, optional
        The level of gzip, as for `HDFBackend`.

    See Also
    --------
    HDFBackend : A backend in a directory that stays.

    Examples
    --------
    >>> from zarrtrace.adapters.emcee import TempHDFBackend
    >>> with TempHDFBackend() as backend:
    ...     backend.reset(nwalkers=8, ndim=2)
    ...     backend.shape
    (8, 2)
    """

    def __init__(
        self,
        dtype: DTypeLike | None = None,
        compression: str | int | None = None,
        compression_opts: int | None = None,
    ) -> None:
        self.dtype = dtype
        self.compression = compression
        self.compression_opts = compression_opts
        self.filename: str | None = None

    def __enter__(self) -> HDFBackend:
        self.filename = tempfile.mkdtemp(prefix="zarrtrace-emcee-")
        self._backend = HDFBackend(
            self.filename,
            "test",
            dtype=self.dtype,
            compression=self.compression,
            compression_opts=self.compression_opts,
        )
        return self._backend

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        assert self.filename is not None
        self._backend.close()
        shutil.rmtree(self.filename, ignore_errors=True)


def get_test_backends() -> list[Callable[..., Any]]:
    """The backends that emcee's own tests run on.

    Returns
    -------
    list of callable
        The one of emcee in memory, and `TempHDFBackend`.

    See Also
    --------
    TempHDFBackend : One of them.

    Examples
    --------
    >>> from zarrtrace.adapters.emcee import get_test_backends
    >>> [backend.__name__ for backend in get_test_backends()]
    ['Backend', 'TempHDFBackend']
    """
    return [Backend, TempHDFBackend]


def list_names(filename: str | os.PathLike[str]) -> list[str]:
    """The names of the runs in a directory, in alphabetical order.

    Parameters
    ----------
    filename : str or path
        As for `HDFBackend`.

    Returns
    -------
    list of str
        The names; none where there is no such directory.

    See Also
    --------
    HDFBackend : A run of a directory.

    Examples
    --------
    >>> from zarrtrace.adapters.emcee import HDFBackend, list_names
    >>> for name in ("first", "second"):
    ...     HDFBackend("run.zarr", name).reset(nwalkers=8, ndim=2)
    >>> list_names("run.zarr")
    ['first', 'second']
    """
    directory = Path(filename).expanduser()
    if not directory.is_dir():
        return []
    names = []
    for folder, folders, _ in os.walk(directory):
        for name in list(folders):
            path = os.path.join(folder, name)
            try:
                open_run(path)
            except TraceNotFoundError:
                continue
            folders.remove(name)
            names.append(os.path.relpath(path, directory).replace(os.sep, "/"))
    return sorted(names)
