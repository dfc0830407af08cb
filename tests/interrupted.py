"""An interrupt at one bytecode of a package, as Ctrl-C may come between any two."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import pytest

# Two things an interrupt does that no caller sees. Between `open` and the `with` that closes it,
# it leaves the file to the collector; in a destructor, Python reports it and continues.
LEFT_TO_PYTHON = [
    pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning"),
    pytest.mark.filterwarnings(
        "ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning"
    ),
]


@contextmanager
def interrupted(package: str, at: int | None = None) -> Iterator[list[int]]:
    """Raise KeyboardInterrupt at a bytecode below a directory; returns how many ran before it."""
    reached = [0]

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        if not frame.f_code.co_filename.startswith(package):
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        if event == "opcode":
            if reached[0] == at:
                sys.settrace(None)
                raise KeyboardInterrupt
            reached[0] += 1
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield reached
    finally:
        sys.settrace(before)
