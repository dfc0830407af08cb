"""Fork a process that is killed with SIGKILL: at a random moment, or at one of its system calls."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

TRACEME, SYSCALL = 0, 24  # requests of ptrace, the same on all processors that Linux runs on
LIMIT = 90  # seconds after which a process that hangs ends itself


@dataclass(frozen=True)
class Death:
    """When a process dies: before its step of this number it waits to be watched, then so far on.

    With `operation` it is the first step of that kind, of this number or a later one. With `calls`
    the process dies at that system call of its main thread, otherwise after `seconds`.
    """

    step: int
    calls: int = 0
    seconds: float = 0.0
    operation: str = ""


Stop = Callable[[int, str], None]


def fork(act: Callable[[Stop], None], death: Death | None = None) -> int:
    """Call a function in a fork of this process, which ends with it; returns its number.

    The function is given one that it calls before each of its steps, with what it is about to do.
    """
    process = os.fork()
    if process:
        return process
    code = 1
    try:
        signal.alarm(LIMIT)

        waited = False

        def wait_to_be_watched(step: int, operation: str = "") -> None:
            nonlocal waited
            if waited or death is None or step < death.step:
                return
            if death.operation in ("", operation):
                waited = True
                if death.calls:
                    _ptrace(TRACEME, 0)
                os.kill(os.getpid(), signal.SIGSTOP)

        act(wait_to_be_watched)
        code = 0
    finally:
        sys.stdout.flush()
        os._exit(code)


def kill(process: int, death: Death) -> None:
    """Kill a process when its time has come, unless it ends before; `ended` says which it was."""
    _, status = os.waitpid(process, os.WUNTRACED)
    # Each call stops it twice, before and after.
    for _ in range(death.calls):
        if not os.WIFSTOPPED(status):
            break
        stopped = os.WSTOPSIG(status)
        _ptrace(SYSCALL, process, 0 if stopped in (signal.SIGTRAP, signal.SIGSTOP) else stopped)
        _, status = os.waitpid(process, 0)
    if not os.WIFSTOPPED(status):
        _ENDED[process] = status
        return
    if not death.calls:
        os.kill(process, signal.SIGCONT)
        time.sleep(death.seconds)
    os.kill(process, signal.SIGKILL)


_ENDED: dict[int, int] = {}  # what was seen of processes by `kill`


def ended(process: int) -> int:
    """Wait for a process, and return its exit code, or minus the signal that it was killed by."""
    if process in _ENDED:
        return os.waitstatus_to_exitcode(_ENDED.pop(process))
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
_LIBC.ptrace.restype = ctypes.c_long


def _ptrace(request: int, process: int, data: int = 0) -> None:
    if _LIBC.ptrace(request, process, None, data) == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"ptrace: {os.strerror(number)}")
