"""Looks as scalars that TensorBoard draws: a point for each, where there are new draws."""

from __future__ import annotations

import math
import os
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import NamedTuple

from ..errors import InvalidInputError
from .look import Gone, Look

_FLUSHED_EVERY = 1  # seconds: more is not lost when the process is killed


class _Point(NamedTuple):
    """A value of one scalar after a number of draws, warmup included."""

    tag: str
    draws: int
    value: float | None


class ScalarWriter:
    """Writes what looks at one trace show into the directory of a run of TensorBoard.

    A directory that has points already gets another file, and keeps them.

    Parameters
    ----------
    directory : str
        Where the files of events are; made if it does not exist.

    Raises
    ------
    InvalidInputError
        A package is missing.
    """

    def __init__(self, directory: str) -> None:
        try:
            from tensorboardX import FileWriter
        except ImportError as error:
            raise InvalidInputError(
                "scalars for TensorBoard need `pip install 'zarrtrace[tensorboard]'`"
            ) from error
        # tensorboardX names a file by the second, and overwrites one of the same name.
        suffix = f".{time.time_ns()}.{os.getpid()}"
        self._writer = FileWriter(directory, flush_secs=_FLUSHED_EVERY, filename_suffix=suffix)
        self._chain_draws: dict[int, int] = {}
        self._written: dict[str, int] = {}

    def __enter__(self) -> ScalarWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._writer.close()

    def show(self, seen: Sequence[Look | Gone]) -> None:
        """Write a point of each scalar that has more draws than at its last one."""
        for look in seen:
            if isinstance(look, Look):
                self._hide_dropped_draws(look)
                self._write(look)

    def _write(self, look: Look) -> None:
        # The tags are not those of `SummaryWriter.add_scalar`, which has no brackets and spaces.
        from tensorboardX.proto.summary_pb2 import Summary

        new: dict[int, list[Summary.Value]] = defaultdict(list)
        for tag, draws, value in _points(look):
            is_known = value is not None and math.isfinite(value)
            if is_known and draws > self._written.get(tag, 0):
                self._written[tag] = draws
                new[draws].append(Summary.Value(tag=tag, simple_value=value))
        for draws, values in new.items():
            self._writer.add_summary(Summary(value=values), draws, look.time)

    def _hide_dropped_draws(self, look: Look) -> None:
        """Tell TensorBoard to forget the points of draws that the run does not have any more."""
        from tensorboardX.proto.event_pb2 import Event, SessionLog

        before, now = self._chain_draws, {one.chains.start: one.draws for one in look.chains}
        self._chain_draws = now
        went_back = [draws for chain, draws in now.items() if draws < before.get(chain, 0)]
        if before and not went_back:
            return
        # At the first look, an earlier process may have written the last points: they are written
        # again.
        first_hidden = min(went_back, default=max(now.values()))
        self._written = {tag: n for tag, n in self._written.items() if n < first_hidden}
        session = SessionLog(status=SessionLog.START)
        self._writer.add_event(Event(session_log=session), first_hidden, look.time)


def _points(look: Look) -> Iterator[_Point]:
    for chain in look.chains:
        yield _Point(f"{chain.label}/lp", chain.draws, chain.lp)
        yield _Point(f"{chain.label}/step_size", chain.draws, chain.step_size)
        yield _Point(f"{chain.label}/divergences", chain.draws, chain.divergences)
    for value in look.values:
        draws = look.burn_in + look.rhat_draws
        yield _Point(f"split_rhat/{value.name}", draws, value.split_rhat)
        if value.exact is not None:
            draws = look.burn_in + look.exact_draws
            yield _Point(f"rhat/{value.name}", draws, value.exact.rhat)
            yield _Point(f"ess_bulk/{value.name}", draws, value.exact.ess_bulk)
            yield _Point(f"ess_tail/{value.name}", draws, value.exact.ess_tail)
