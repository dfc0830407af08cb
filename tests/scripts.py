"""Run Python code as a script in a process of its own, where warnings are errors."""

from __future__ import annotations

import multiprocessing
import os
import runpy
import subprocess
import sys
import textwrap
import threading
import uuid
import warnings
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.reduction import DupFd
from pathlib import Path
from typing import IO, Any

# One process imports them, a second of work or two, and every script is a fork of it.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    [
        "dask.array",
        "xarray",
        "zarr.storage",
        "zarrtrace",
        "zarrtrace.reading.data_groups",
        "zarrtrace.reading.dataset",
        "zarrtrace.tables.segments",
    ]
)


class ForkedProcess:
    """A script that runs in a fork; what tests need of a Popen with pipes of text."""

    def __init__(self, command: list[str], folder: Path, start_new_session: bool) -> None:
        read_input, write_input = os.pipe()
        read_output, write_output = os.pipe()
        read_errors, write_errors = os.pipe()
        theirs = (read_input, write_output, write_errors)
        self._process = FORKS.Process(
            target=_run_script,
            args=(command, environment(), folder, start_new_session, _Descriptors(theirs)),
        )
        self._process.start()
        for descriptor in theirs:
            os.close(descriptor)
        assert self._process.pid is not None
        self.pid = self._process.pid
        self.stdin = os.fdopen(write_input, "w")
        self.stdout = os.fdopen(read_output)
        self.stderr = os.fdopen(read_errors)

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self) -> int | None:
        self._process.join()
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self._process.kill()

    def communicate(self, timeout: float = 300) -> tuple[str, str]:
        """What it and its own children print until the last of them has ended."""
        printed = ["", ""]

        def read(number: int, stream: IO[str]) -> None:
            with stream:
                printed[number] = stream.read()

        with suppress(BrokenPipeError):
            self.stdin.close()
        threads = [
            threading.Thread(target=read, args=(number, stream), daemon=True)
            for number, stream in enumerate((self.stdout, self.stderr))
            if not stream.closed
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout)
            if thread.is_alive():
                raise subprocess.TimeoutExpired("script", timeout)
        self._process.join(timeout)
        return printed[0], printed[1]


class _Descriptors:
    """File descriptors on their way to another process."""

    def __init__(self, numbers: tuple[int, ...]) -> None:
        self.numbers = numbers

    def __reduce__(self) -> Any:
        return _received, tuple(DupFd(number) for number in self.numbers)


def _received(*descriptors: Any) -> list[int]:
    return [descriptor.detach() for descriptor in descriptors]


def _run_script(
    command: list[str],
    environment: dict[str, str],
    folder: Path,
    start_new_session: bool,
    streams: list[int],
) -> None:
    for number, descriptor in enumerate(streams):
        os.dup2(descriptor, number)
        os.close(descriptor)
    sys.stdin = os.fdopen(0, closefd=False)
    if start_new_session:
        os.setsid()
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    warnings.resetwarnings()
    warnings.simplefilter("error")
    sys.argv[:] = command
    sys.path[:0] = [str(folder), *environment["PYTHONPATH"].split(os.pathsep)]
    runpy.run_path(command[0], run_name="__main__")


def environment() -> dict[str, str]:
    """That of this process, but for the folders that a script imports from."""
    here = Path(__file__).parent
    # A script may import the test module that it belongs to.
    folders = sorted({str(file.parent) for file in here.rglob("test_*.py")})
    paths = [str(here.parent), *folders, os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


@dataclass
class Script:
    """Scripts in forks of a process that has imported zarrtrace and xarray."""

    folder: Path

    def start(self, code: str, *arguments: Any, start_new_session: bool = False) -> ForkedProcess:
        return ForkedProcess(self._command(code, arguments), self.folder, start_new_session)

    def run(self, code: str, *arguments: Any, timeout: float = 300) -> str:
        """What the script prints, once it has ended well."""
        process = self.start(code, *arguments)
        try:
            output, errors = process.communicate(timeout=timeout)
        finally:
            process.kill()
        assert process.returncode == 0, errors
        return output

    def _command(self, code: str, arguments: tuple[Any, ...]) -> list[str]:
        file = self.folder / f"script_{uuid.uuid4().hex}.py"
        file.write_text(textwrap.dedent(code))
        return [str(file), *map(str, arguments)]


@dataclass
class FreshScript(Script):
    """Scripts in fresh interpreters: for how these start and end, and what they import."""

    def start(  # type: ignore[override]
        self, code: str, *arguments: Any, **options: Any
    ) -> subprocess.Popen[Any]:
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | options
        command = [sys.executable, "-W", "error", *self._command(code, arguments)]
        return subprocess.Popen(command, env=environment(), cwd=self.folder, **options)
