"""The epochs of a backend of jexplore in a trace: stored, read, burned."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Self

import numpy as np
from zarr.codecs import BloscCodec

import zarrtrace as zt
from zarrtrace.errors import InvalidInputError, TraceNotFoundError

from .epochs import (
    Epoch,
    Kind,
    as_recorded,
    as_sampled,
    definitions,
    describe,
    kinds_stored,
    rebuild,
    variable_of,
)


class StoredEpochs:
    """The epochs in a trace, and its writer once one was stored by this process.

    All draws are counted from the first one ever ingested.

    Attributes
    ----------
    path : str
        The path of the trace.
    first_epoch, first_draw : int
        Number of epochs and draws that were burned before anything was stored.
    epochs_per_file : int
        How many epochs a file of the original would have.
    kinds : dict of str to Kind
        The kinds of the samples.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._trace, self._may_write = zt.open(path), False
        attrs = self._trace.posterior.attrs
        if "jexplore_first_epoch" not in attrs:
            raise InvalidInputError(f"{path} holds no epochs of jexplore; choose another outdir")
        self.first_epoch = int(attrs["jexplore_first_epoch"])
        self.first_draw = int(attrs["jexplore_first_draw"])
        # Traces of earlier versions do not say it.
        self.epochs_per_file = int(attrs.get("jexplore_epochs_per_file", 1))
        self.kinds = kinds_stored(self._trace)
        # Kept, so that a further look reads only what is new.
        self._segments = self._trace.segments
        self._writer: zt.ChainWriter | None = None
        self._ranges: list[range] = []

    @classmethod
    def open(cls, path: str) -> Self | None:
        """The epochs at a path, or None when there is no trace."""
        try:
            return cls(path)
        except TraceNotFoundError:
            return None

    @classmethod
    def create(
        cls,
        path: str,
        kinds: Mapping[str, Kind],
        *,
        draws_per_epoch: int,
        epochs_per_file: int,
        first: tuple[int, int],
        parameter_names: Sequence[str] | None,
    ) -> Self:
        """Make the trace, for any number of epochs, with those of a file in a chunk."""
        chains = kinds["p"].chains
        groups = definitions(kinds, epochs_per_file * draws_per_epoch)
        # It is moved to its place when it is complete: a process may be killed meanwhile.
        partial = f"{path}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        trace = zt.create(
            partial,
            posterior=groups["posterior"],
            sample_stats=groups.get("sample_stats"),
            chains=chains,
            chains_per_chunk=chains,
            draws=None,
            # A walker that stays repeats all bytes of its draw: they compress faster and as well if
            # they are not shuffled.
            compressors=BloscCodec(cname="lz4", clevel=5, shuffle="noshuffle"),
            coords={} if parameter_names is None else {"p_dim": list(parameter_names)},
            attrs={
                "inference_library": "jexplore",
                **_library_version(),
                "jexplore_first_epoch": first[0],
                "jexplore_first_draw": first[1],
                "jexplore_epochs_per_file": epochs_per_file,
            },
        )
        with trace.writer(trace.blocks[0]) as writer:
            # The checkpoint to go back to if an epoch was not stored completely.
            writer.checkpoint(None)
        os.rename(partial, path)
        return cls(path)

    def __len__(self) -> int:
        if self._writer is not None:
            return len(self._ranges)
        # The last one may be on its way: it is stored when its checkpoint is, which is read later
        # here because it is written later.
        last = self._segments[-2:]
        stored, _ = self._trace.last_checkpoint(self._trace.blocks[0])
        return max((segment.number + 1 for segment in last if segment.stop <= stored), default=0)

    @property
    def ranges(self) -> list[range]:
        """The draws of each epoch."""
        if self._writer is not None:
            return self._ranges
        stored = self._segments[: len(self)]
        return [self._range(segment.start, segment.stop) for segment in stored]

    def range_of(self, position: int) -> range:
        """The draws of one epoch."""
        if self._writer is not None:
            return self._ranges[position]
        segment = self._segments[position]
        return self._range(segment.start, segment.stop)

    def _range(self, start: int, stop: int) -> range:
        return range(self.first_draw + start, self.first_draw + stop)

    @property
    def burn(self) -> int:
        """How many draws are burned."""
        return self.first_draw + self._trace.burn_in

    # Reading ------------------------------------------------------------------------------

    def described(self, position: int) -> Epoch:
        """An epoch without its samples."""
        segment = self._segments[position]
        return rebuild(segment.attrs, segment.arrays)

    def sample(self, name: str, draws: range) -> np.ndarray[Any, Any]:
        """A sample of draws that are not burned: shape (chains, dimension, draws).

        Raises
        ------
        ValueError
            Another process has just burned some of them.
        """
        group, variable = variable_of(name)
        begin = self.burn
        if begin <= draws.start:
            wanted = slice(draws.start - begin, draws.stop - begin, draws.step)
            values = self._trace.get(variable, group=group, draws=wanted)
            if self.burn == begin:
                return as_sampled(name, values)
        raise ValueError(f"draws of {self.path} were burned by another process; read again")

    # Storing ------------------------------------------------------------------------------

    def append(self, epoch: Mapping[str, Any]) -> None:
        """Store an epoch."""
        samples = epoch["samples"]
        draws = samples["p"].shape[-1]
        self._make_room(draws)
        writer = self._open_writer()
        attrs, arrays = describe(epoch)
        try:
            writer.record_block(**as_recorded(samples))
            self._segments.add(draws, attrs, **arrays)
            # After a kill before this line, the run goes back to the previous epoch.
            writer.checkpoint(None)
        except BaseException:
            self.close()
            raise
        start = self.first_draw + writer.recorded - draws
        self._ranges.append(range(start, start + draws))

    def set_burn(self, burn: int) -> None:
        """Burn the draws before this one, also future ones: the existing ones are deleted."""
        draws = burn - self.first_draw
        if draws > self._trace.dropped:
            trace = self._writable()
            recorded = int(trace.recorded.min())
            self._make_room(draws - recorded)
            if trace.burn_in < draws:
                trace.set_burn_in(draws)
            trace.drop_before(min(draws, recorded))

    def _writable(self) -> zt.Trace:
        if not self._may_write:
            self._trace, self._may_write = zt.open(self.path, mode="a"), True
            self._segments = self._trace.segments
        return self._trace

    def _open_writer(self) -> zt.ChainWriter:
        if self._writer is None:
            trace = self._writable()
            writer = trace.writer(trace.blocks[0], patience=90)
            writer.resume()
            self._ranges = self.ranges
            self._writer = writer
        return self._writer

    def _make_room(self, draws: int) -> None:
        """Make room for this many more draws."""
        trace = self._writable()
        # It is never filled: a full trace keeps draws without a checkpoint.
        is_short = trace.has_end and int(trace.recorded.min()) + draws >= trace.draws
        if is_short or (draws > 0 and trace.finished):
            # Finished, or of an earlier version.
            self._close_writer()
            trace.extend(None)

    def close(self) -> None:
        """Let other processes write; the next epoch opens the trace again."""
        self._close_writer()
        # Burning may have closed the writer before.
        self._segments.close()

    def _close_writer(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()

    def remove(self) -> None:
        """Delete the trace, unless another process writes it."""
        if not self._trace.finished:
            self._open_writer()
        self.close()
        shutil.rmtree(self.path)


def _library_version() -> dict[str, str]:
    try:
        return {"inference_library_version": version("jexplore")}
    except PackageNotFoundError:
        return {}
