"""PyMC's object that draws one chain in a process, whose end a chain moves when it has to stop.

PyMC has no public way to end one of its processes before its last draw: an exception in a process
ends the whole run with an error, and a KeyboardInterrupt in the main process ends all chains where
they are, and those that wait never begin. So this module, and no other one, changes something
private of PyMC.
"""

from __future__ import annotations

from types import FrameType
from typing import Protocol


class Worker(Protocol):
    """What is used of the object: the draws that it has to draw, of warmup and after it."""

    _tune: int
    _draws: int


def worker_that_calls(frame: FrameType, planned: int) -> Worker | None:
    """The object whose method has this frame, if it is what it was when this was written.

    Parameters
    ----------
    frame : frame
        That of the method.
    planned : int
        The draws of a chain, warmup included.

    Returns
    -------
    Worker or None
        None where its two numbers are not the draws of the chain: then PyMC has changed.
    """
    worker: Worker | None = frame.f_locals.get("self")
    tune, draws = (getattr(worker, name, None) for name in ("_tune", "_draws"))
    is_known = isinstance(tune, int) and isinstance(draws, int) and tune + draws == planned
    return worker if is_known else None


def end_after(worker: Worker, draws: int) -> None:
    """Let a process end after that many draws, warmup included, as if no more had been planned."""
    worker._draws = draws - worker._tune
