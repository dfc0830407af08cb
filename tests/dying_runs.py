"""A run in a process of its own, which ends itself by SIGKILL at a chosen call of its writer."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING

import zarrtrace as zt

if TYPE_CHECKING:
    from scripts import Script

DIE = """
    import importlib, os, signal, sys
    import zarrtrace as zt

    module, path, method, number, after = sys.argv[1:]
    original, calls = getattr(zt.ChainWriter, method), []

    def dying(self, *values, **named):
        calls.append(method)
        if len(calls) == int(number) and after == "False":
            os.kill(os.getpid(), signal.SIGKILL)
        original(self, *values, **named)
        if len(calls) == int(number):
            os.kill(os.getpid(), signal.SIGKILL)

    setattr(zt.ChainWriter, method, dying)
    importlib.import_module(module).run(path, draws_per_block=20)
"""


def run_and_die(
    script: Script, module: str, path: Path, method: str, number: int, *, after: bool
) -> int:
    """Begin or continue the run of a test module, and die; returns the draws that exist then.

    Death comes at the n-th call of a method of the writer, before it does anything or after.
    """
    process = script.start(DIE, module, path, method, number, after)
    errors = process.communicate(timeout=300)[1]
    assert process.returncode == -signal.SIGKILL, errors
    return int(zt.open(path).recorded[0])
