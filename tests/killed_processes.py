"""Kill a process at any of the things that it does to files."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

_CHANGES = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link")


def killed_at_change(path: Path, step: int, act: Callable[[], object]) -> bool:
    """Kill a fork of this process before the step-th change of a file below a path, or beside it.

    Returns whether it was killed, and had not ended.
    """
    process = os.fork()
    if process == 0:
        done = 0

        def hook(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal done
            writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & os.O_CREAT
            if (event in _CHANGES or writes) and str(path) in str(arguments[0]):
                if done == step:
                    os.kill(os.getpid(), signal.SIGKILL)
                done += 1

        sys.addaudithook(hook)
        try:
            act()
            os._exit(0)
        finally:
            os._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    assert code in (0, -signal.SIGKILL), code
    return code != 0
