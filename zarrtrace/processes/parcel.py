"""What a worker is sent of a chain, and how it opens that.

Function and trace travel by value, as bytes, which are read only after versions were compared: a
worker that cannot run the chain says why.
"""

from __future__ import annotations

import os
import platform
import signal
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Self

import cloudpickle
import zarr

from ..errors import InvalidInputError, TraceError
from ..layout.layout import LIBRARY_VERSION
from ..recording import exit as ending
from ..trace import Trace
from .chains import Block, ChainFunction


def run_chain(block: Block, parcel: Parcel) -> None:
    """Run a chain on a worker."""
    chain_function, trace = parcel.open()
    if not parcel.was_sent:
        chain_function(block, trace)
        return
    came: set[int] = set()
    try:
        with _preempted_by(parcel.signals, came):
            chain_function(block, trace)
    except SystemExit as error:
        if error.code == 128 + signal.SIGTERM:
            _end_by_sigterm()
        raise
    finally:
        if signal.SIGTERM in came and parcel.terminates:
            _end_by_sigterm()


@contextmanager
def _preempted_by(signals: set[int], came: set[int]) -> Iterator[None]:
    """Let signals ask the writers of this process to stop, and note which of them came."""

    def preempt(number: int, frame: FrameType | None) -> None:
        came.add(number)
        ending.preempt(signal.Signals(number).name)

    is_main = threading.current_thread() is threading.main_thread()
    before = {n: signal.signal(n, preempt) for n in signals} if is_main else {}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        if came:
            ending.end_preemption()


def _end_by_sigterm() -> None:
    """End this process, whose writers are closed.

    A pool would take it for the end of the chain alone, and wait for ever for the process that it
    has terminated.
    """
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGTERM)


class Parcel:
    """A chain function and its trace, which become bytes only if they leave this process.

    Each one is unequal to every other one: Dask computes equal calls once.

    Parameters
    ----------
    terminates : bool
        Whether the executor ends its processes with SIGTERM, as ProcessPoolExecutor does.
    """

    def __init__(self, chain_function: ChainFunction, trace: Trace, terminates: bool) -> None:
        self._content: tuple[ChainFunction, Trace] | bytes = (chain_function, trace)
        self._versions = _versions()
        self._token = uuid.uuid4().hex
        self.terminates = terminates
        self.signals = ending.preemption_signals()
        if self.signals:
            self.signals.add(ending.FORWARDED)

    @property
    def was_sent(self) -> bool:
        """Whether it came from another process."""
        return isinstance(self._content, bytes)

    def open(self) -> tuple[ChainFunction, Trace]:
        """The function and the trace.

        Raises
        ------
        InvalidInputError
            This worker has other versions, or cannot import the function.
        """
        if not isinstance(self._content, bytes):
            return self._content
        here = _versions()
        for name, needed in self._versions.items():
            if not _is_compatible(name, needed, here[name]):
                raise InvalidInputError(
                    f"this worker has {name} {here[name]}, and run() was called with {needed}",
                    where=_worker(),
                    remedy=f"install {name} {needed} on the workers",
                )
        try:
            content: tuple[ChainFunction, Trace] = cloudpickle.loads(self._content)
        except TraceError:
            raise
        except Exception as error:
            raise InvalidInputError(
                f"this worker cannot load the chain function ({type(error).__name__}: {error})",
                where=_worker(),
                remedy="install what it needs on the workers, or define it in the script that "
                "calls run(): then it is sent with all its code",
            ) from error
        return content

    def __reduce__(self) -> tuple[Any, ...]:
        content = self._content
        data = content if isinstance(content, bytes) else cloudpickle.dumps(content)
        return self._received, (data, self._versions, self._token, self.terminates, self.signals)

    @classmethod
    def _received(
        cls, data: bytes, versions: dict[str, str], token: str, terminates: bool, signals: set[int]
    ) -> Self:
        parcel = cls.__new__(cls)
        parcel._content, parcel._versions, parcel._token = data, versions, token
        parcel.terminates, parcel.signals = terminates, signals
        return parcel


def _worker() -> str:
    return f"process {os.getpid()} on {platform.node()}"


def _versions() -> dict[str, str]:
    return {"zarrtrace": LIBRARY_VERSION, "zarr": zarr.__version__}


def _is_compatible(package: str, one: str, other: str) -> bool:
    """Whether two versions may write one trace: the same one, or for Zarr the same minor one."""
    parts = 2 if package == "zarr" else None
    return one.split(".")[:parts] == other.split(".")[:parts]
