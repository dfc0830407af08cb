"""Stop a call of the library at any of its bytecodes: interrupt it there, or look around."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import zarrtrace as zt


def bytecodes(
    package: str, action: Callable[[], None], interrupt_at: int | None = None, but: str = ""
) -> int:
    """How many bytecodes of a package of ours ran, up to the one that is interrupted.

    Those of the function `but` are left out. It holds a lock: no signal comes between the end of a
    `with` block and the release of its lock, and an interrupt at a bytecode could.
    """

    def interrupt(reached: int) -> None:
        if reached == interrupt_at:
            sys.settrace(None)
            raise KeyboardInterrupt

    return at_each_bytecode(package, action, interrupt, but)


def at_each_bytecode(
    package: str, action: Callable[[], None], do: Callable[[int], None], but: str = ""
) -> int:
    """Do something before each bytecode of a package of ours, and return how many ran.

    What is done gets the number of those that ran before, and is not traced itself.
    """
    folder = str(Path(zt.__file__).parent / package)
    reached = 0

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal reached
        if not frame.f_code.co_filename.startswith(folder):
            return None
        if frame.f_code.co_name == but:
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        if event == "opcode":
            do(reached)
            reached += 1
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        action()
    finally:
        sys.settrace(before)
    return reached
