"""The trace of an ensemble of emcee: how its steps are stored, and what it describes.

Walkers are chains, all of them in one block: `posterior/x (chain, draw, x_dim)`, and in
`sample_stats` `lp`, `accepted` and a variable for each field of the blobs.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any, NamedTuple

import numpy as np

import zarrtrace as zt
from zarrtrace.errors import InvalidInputError, TraceNotFoundError

from .._exact import as_stored, from_stored, is_plain, read_dtype, stored_variable, write_dtype

_OURS = ("lp", "accepted")
_BUFFER_BYTES = 4 * 2**20
_LONGEST_CHUNK = 1000


def run_path(filename: str | os.PathLike[str], name: str) -> str:
    """The path of the trace of a run in a directory of runs.

    As in HDF5, "/" separates groups of runs, and a leading one is ignored.
    """
    parts = name.strip("/").split("/")
    if {"", ".", ".."} & set(parts):
        raise InvalidInputError(f"name={name!r} is not the name of a run; use one such as 'mcmc'")
    return os.path.join(os.path.abspath(os.path.expanduser(filename)), *parts)


def open_run(path: str) -> zt.Trace:
    """The trace of a run, read-only; TraceNotFoundError where there is none."""
    trace = zt.open(path)
    if os.path.realpath(trace.path) != os.path.realpath(path):
        raise TraceNotFoundError("this directory holds runs, but is not a run", where=path)
    return trace


class Ensemble(NamedTuple):
    """The properties of an ensemble in its trace.

    Attributes
    ----------
    trace : zarrtrace.Trace
        The trace itself.
    walkers : range
        Its chains.
    dimensions : int
        The number of dimensions of a walker's position.
    dtype : numpy.dtype
        The dtype of positions and log probabilities.
    blobs : numpy.dtype or None
        The dtype of the blobs of one walker, with their shape; None without blobs.
    accepted_before : numpy.ndarray
        Accepted proposals of each walker that are not among the stored steps.
    """

    trace: zt.Trace
    walkers: range
    dimensions: int
    dtype: np.dtype[Any]
    blobs: np.dtype[Any] | None
    accepted_before: np.ndarray[Any, Any]

    @classmethod
    def of(cls, trace: zt.Trace) -> Ensemble:
        """The properties of an ensemble, read from its trace."""
        attrs = trace.dataset("posterior").attrs
        if "emcee_dtype" not in attrs:
            raise InvalidInputError(
                f"{trace.path} was not made by this backend; zarrtrace.open reads it"
            )
        blobs = attrs["emcee_blobs"]
        return cls(
            trace,
            range(trace.chains),
            int(attrs["emcee_dimensions"]),
            read_dtype(attrs["emcee_dtype"]),
            read_dtype(blobs) if blobs else None,
            np.asarray(attrs["emcee_accepted_before"], dtype=np.float64),
        )

    def stored_step(
        self, coords: Any, log_prob: Any, accepted: Any, blobs: Any
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """The values to record for one step or several: posterior and sample_stats."""
        stats = {"lp": as_stored("log_prob", log_prob, self.dtype), "accepted": accepted}
        if self.blobs is not None:
            for field in _fields(self.blobs):
                values = blobs if field.name is None else blobs[field.name]
                stats[field.variable] = as_stored(field.variable, values, field.dtype)
        return {"x": as_stored("coords", coords, self.dtype)}, stats

    def chain(self, steps: range) -> np.ndarray[Any, Any]:
        """Positions: shape (walkers, steps, dimensions)."""
        return from_stored(self.read("x", steps), self.dtype)

    def log_prob(self, steps: range) -> np.ndarray[Any, Any]:
        """Log probabilities: shape (walkers, steps)."""
        return from_stored(self.read("lp", steps), self.dtype)

    def blob_values(self, steps: range) -> np.ndarray[Any, Any]:
        """Blobs: shape (walkers, steps), and the shape of the blobs."""
        assert self.blobs is not None
        shape = (len(self.walkers), len(steps), *self.blobs.shape)
        values = np.empty(shape, self.blobs.base)
        for field in _fields(self.blobs):
            into = values if field.name is None else values[field.name]
            into[...] = from_stored(self.read(field.variable, steps), field.dtype)
        return values

    def read(self, variable: str, steps: range) -> np.ndarray[Any, Any]:
        """A variable as it is stored, even if a burn-in was split off the trace."""
        trace, group = self.trace, "posterior" if variable == "x" else "sample_stats"
        warmup = f"warmup_{group}"
        if warmup not in trace.groups:
            return trace.get(variable, group=group, draws=_slice(steps))
        before = trace.dataset(warmup).sizes["draw"]
        cut = len(range(steps.start, min(before, steps.stop), steps.step))
        after = steps[cut:]
        moved = range(after.start - before, after.stop - before, after.step)
        parts = [
            trace.get(variable, group=warmup, draws=_slice(steps[:cut])),
            trace.get(variable, group=group, draws=_slice(moved)),
        ]
        return np.concatenate(parts, axis=1)


class _Field(NamedTuple):
    """A field of the blobs: None for blobs without fields, and the dtype of one element."""

    variable: str
    name: str | None
    dtype: np.dtype[Any]
    shape: tuple[int, ...]


def _fields(blobs: np.dtype[Any]) -> list[_Field]:
    if blobs.base.names is None:
        return [_Field("blobs", None, blobs.base, blobs.shape)]
    found = []
    for name in blobs.base.names:
        dtype = blobs.base[name]
        variable = f"blob_{name}" if name in _OURS else name
        found.append(_Field(variable, name, dtype.base, blobs.shape + dtype.shape))
    return found


def _slice(steps: range) -> slice:
    return slice(steps.start, max(steps.stop, steps.start), steps.step)


def create_ensemble(
    path: str,
    *,
    walkers: int,
    dimensions: int,
    dtype: np.dtype[Any],
    blobs: np.dtype[Any] | None,
    parameter_names: Sequence[str] | None,
    compressors: Any,
    accepted_before: Sequence[float] | None = None,
    overwrite: bool = True,
) -> zt.Trace:
    """Create the trace of an ensemble, for any number of steps."""
    if parameter_names is not None and len(set(parameter_names)) != dimensions:
        raise InvalidInputError(
            f"parameter_names has {len(set(parameter_names))} different names for {dimensions} "
            f"dimensions; pass one for each"
        )
    dims = ("x_dim",) if is_plain(dtype) else ("x_dim", "x_byte")
    stats = {"lp": stored_variable("lp", dtype, ()), "accepted": zt.Var(dtype=bool)}
    for field in _fields(blobs) if blobs is not None else []:
        stats[field.variable] = stored_variable(field.variable, field.dtype, field.shape)
    step_bytes = walkers * ((dimensions + 1) * dtype.itemsize + 1)
    step_bytes += walkers * blobs.itemsize if blobs is not None else 0
    return zt.create(
        path,
        chains=walkers,
        chains_per_chunk=walkers,
        draws=None,
        draws_per_chunk=min(max(_BUFFER_BYTES // step_bytes, 1), _LONGEST_CHUNK),
        posterior={"x": stored_variable("x", dtype, (dimensions,), dims=dims)},
        sample_stats=stats,
        coords={} if parameter_names is None else {"x_dim": list(parameter_names)},
        compressors=compressors,
        overwrite=overwrite,
        attrs={
            "inference_library": "emcee",
            "inference_library_version": version("emcee"),
            "emcee_dimensions": dimensions,
            "emcee_dtype": write_dtype(dtype),
            "emcee_blobs": "" if blobs is None else write_dtype(blobs),
            "emcee_accepted_before": list(accepted_before or [0.0] * walkers),
        },
    )
