"""Chains for workers in other processes, which import them; some note each draw that they make."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import zarrtrace as zt

DRAWS = 60
HELD_AT = 25  # the draw that `held` waits before


def create(path: Path, draws: int = DRAWS, chains: int = 3) -> zt.Trace:
    return zt.create(path, chains=chains, draws=draws, posterior={"x": zt.Var(draws_per_chunk=20)})


def record(
    index: int,
    trace: zt.Trace,
    *,
    killed_at: int = -1,
    held_at: int = -1,
    pause: float = 0.0,
    note: Callable[[], object] = int,
) -> None:
    """Record draws that show whether any was drawn twice, with a checkpoint at every tenth."""
    rng = np.random.default_rng(index)
    with trace.writer(index) as writer:
        start, state = writer.resume()
        if state is not None:
            rng.bit_generator.state = state
        else:
            rng.normal(size=start)  # it was killed before its first checkpoint
        for draw in range(start, trace.draws):
            if draw == killed_at:
                os.kill(os.getpid(), signal.SIGKILL)
            while draw == held_at and hold(trace).exists():
                time.sleep(0.01)
            writer.record({"x": rng.normal()})
            note()
            time.sleep(pause)
            if draw % 10 == 9:
                writer.checkpoint(rng.bit_generator.state)


def record_and_note(index: int, trace: zt.Trace, **options: Any) -> None:
    def note() -> None:
        with open(f"{trace.path}.made", "a") as made:
            made.write(f"{index}\n")

    record(index, trace, note=note, **options)


def hold(trace: zt.Trace) -> Path:
    """The file that `held` waits for the end of."""
    return Path(f"{trace.path}.hold")


def held(index: int, trace: zt.Trace) -> None:
    """Record slowly, and not to the end while the file of `hold` is there."""
    slowly(index, trace, held_at=HELD_AT)


def slowly(index: int, trace: zt.Trace, **options: Any) -> None:
    try:
        record_and_note(index, trace, pause=0.03, **options)
    except zt.errors.ChainBusyError as error:
        Path(f"{trace.path}.ended").write_text(str(error))
        raise


def make_impatient() -> None:
    """Let a worker believe after two seconds that a silent writer is dead."""
    from zarrtrace.sampling_state import claim

    claim.STALE_AFTER, claim.LOOK_EVERY = 2.0, 0.05


def killed_once(index: int, trace: zt.Trace) -> None:
    record_and_note(index, trace, killed_at=25 if index == 1 and not trace.recorded[1] else -1)


def made(trace: zt.Trace) -> list[int]:
    """How many draws were made of each chain."""
    lines = Path(f"{trace.path}.made").read_text().split()
    return [lines.count(str(index)) for index in range(trace.chains)]


def is_complete(trace: zt.Trace, draws: int = DRAWS) -> bool:
    expected = [np.random.default_rng(index).normal(size=draws) for index in range(trace.chains)]
    return np.array_equal(trace.get("x"), expected)
