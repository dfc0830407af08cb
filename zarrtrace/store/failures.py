"""Turn failures of a store into errors of ours that say what to do."""

from __future__ import annotations

import errno
import functools
import os
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FunctionType
from typing import ParamSpec, TypeVar
from zipfile import BadZipFile

import zarr

from ..errors import (
    DamagedTraceError,
    NotWritableError,
    TraceError,
    TraceExistsError,
    TraceNotFoundError,
)

P = ParamSpec("P")
R = TypeVar("R")
C = TypeVar("C", bound=type)

_PATIENCE = 60.0  # seconds for the answer to one request

_NO_ROOM = "the disk is full; nothing is lost: free some space and continue"
_NO_RIGHT = "permission is denied; nothing is lost: fix the permissions and continue"
_REMEDIES = {
    errno.ENOSPC: _NO_ROOM,
    errno.EDQUOT: _NO_ROOM,
    errno.EACCES: _NO_RIGHT,
    errno.EPERM: _NO_RIGHT,
    errno.EROFS: _NO_RIGHT,
}


def patience() -> float:
    """Seconds to wait for the answer to one request: what zarr was told, or a minute."""
    return float(zarr.config.get("async.timeout", None) or _PATIENCE)


@contextmanager
def errors_of_ours(
    where: object,
    what: str,
    kind: type[TraceError] = TraceError,
    but: tuple[type[Exception], ...] = (),
) -> Iterator[None]:
    """Turn errors of a store that is not a directory into errors of ours.

    Parameters
    ----------
    where : object
        The store, as messages name it.
    what : str
        What could not be done.
    kind : type
        The error to raise.
    but : tuple of type
        What is raised as it is.
    """
    try:
        yield
    except (TraceError, MemoryError):
        raise
    except (BadZipFile, zlib.error) as error:
        raise DamagedTraceError(f"{where}: {what} ({error})") from error
    except TimeoutError as error:
        raise kind(
            f"{where}: {what}: the store has not answered for {patience():.0f} s; "
            f"zarr.config.set({{'async.timeout': seconds}}) makes it wait longer"
        ) from error
    except Exception as error:
        if isinstance(error, but):
            raise
        raise kind(f"{where}: {what} ({type(error).__name__}: {error})") from error


@contextmanager
def changing(where: object, what: str) -> Iterator[None]:
    """Turn an error of the system into one of ours, which says what could not be done."""
    try:
        yield
    except (TraceError, FileNotFoundError):
        raise
    except OSError as error:
        raise refused(where, what, error) from error


def refused(where: object, what: str, error: OSError) -> NotWritableError:
    """The error for a change of a file that the system refuses."""
    remedy = _REMEDIES.get(error.errno or 0)
    if remedy is None:
        why = error.strerror or f"{type(error).__name__}: {error}"
        remedy = f"{why}; nothing is lost: remove the cause and continue"
    return NotWritableError(f"{where}: {what}, {remedy}")


def directory_in_place_of(where: object, key: str) -> DamagedTraceError:
    """The error for a directory that has the name of a file."""
    return DamagedTraceError(f"{where}: there is a directory in place of {key}; remove it")


# At the door ------------------------------------------------------------------------------------

_NO_CALLS = {"__init__", "__new__", "__init_subclass__", "__reduce__", "__del__"}


def own_errors(function: Callable[P, R]) -> Callable[P, R]:
    """Have a public function raise an error of ours where the system refuses something."""

    @functools.wraps(function)
    def call(*arguments: P.args, **options: P.kwargs) -> R:
        try:
            return function(*arguments, **options)
        except (TraceError, BrokenPipeError):
            raise  # whoever read what this prints has gone
        except OSError as error:
            # For an open file, `filename` is a number.
            place = _path_text(error.filename) or next(map(_place_of, arguments[:1]), "")
            raise _of_the_system(function.__qualname__, place, error) from error

    return call


def own_errors_of_calls(kind: C) -> C:
    """Have all public methods and properties of a class raise errors as `own_errors` says."""
    for name, member in list(vars(kind).items()):
        if name in _NO_CALLS or (name.startswith("_") and not name.endswith("_")):
            continue
        if isinstance(member, FunctionType):
            setattr(kind, name, own_errors(member))
        elif isinstance(member, property) and member.fget is not None:
            setattr(kind, name, member.getter(own_errors(member.fget)))
    return kind


def _place_of(first: object) -> str:
    return _path_text(first) or _path_text(getattr(first, "path", ""))


def _path_text(path: object) -> str:
    return os.fsdecode(path) if isinstance(path, str | bytes | os.PathLike) else ""


def _of_the_system(call: str, where: str, error: OSError) -> TraceError:
    kind: type[TraceError] = TraceError
    if isinstance(error, FileNotFoundError):
        kind = TraceNotFoundError
    elif isinstance(error, FileExistsError):
        kind = TraceExistsError
    elif error.errno in _REMEDIES:
        kind = NotWritableError
    why = error.strerror or f"{type(error).__name__}: {error}"
    remedy = _REMEDIES.get(error.errno or 0, "nothing is lost: remove the cause and call it again")
    return kind(f"{call} failed: {why}", where=where, remedy=remedy)
