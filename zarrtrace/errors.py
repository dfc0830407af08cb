"""Every error zarrtrace raises on purpose, grouped by what you would do about it.

::

    TraceError                       "trace"
    ├── InvalidInputError            "invalid-input"       fix the call (also a ValueError)
    │   ├── SchemaError              "schema"              ... a name, dtype, dimension, coordinate
    │   ├── DrawError                "draw"                ... a value handed to record()
    │   ├── ChainError               "chain"               ... a chain number (also an IndexError)
    │   ├── GroupNotFoundError       "group-not-found"     ... a group's name (also a KeyError)
    │   └── VariableNotFoundError    "variable-not-found"  ... a variable's or column's name
    │                                                      (also a KeyError)
    ├── TraceNotFoundError           "trace-not-found"     look elsewhere
    │                                                      (also a FileNotFoundError)
    ├── TraceExistsError             "trace-exists"        choose another place, or overwrite=True
    │                                                      (also a FileExistsError)
    ├── FormatVersionError           "format-version"      upgrade zarrtrace
    ├── NotWritableError             "not-writable"        open with mode="a", or leave it as it is
    │   ├── FinishedError            "finished"            call extend() first
    │   ├── ChainFullError           "chain-full"          stop, or call extend() first
    │   │   └── StopRequestedError   "stop-requested"      end the sampler: it was asked to stop
    │   ├── NotResumedError          "not-resumed"         call writer.resume() first
    │   └── PartlyRecordedError      "partly-recorded"     record the rest of the block
    ├── ChainBusyError               "chain-busy"          wait for the other writer, or stop it
    ├── IncompleteTraceError         "incomplete"          record what is missing first
    ├── StaleViewError               "stale-view"          ask the trace for the view again
    │   └── TraceReplacedError       "trace-replaced"      open the trace that lies there now
    ├── NotShareableError            "not-shareable"       give the trace a place on disk
    ├── DamagedTraceError            "damaged"             restore or repair the files it names
    └── ChainsFailedError            "chains-failed"       read the tracebacks of those chains

The text in quotes is the `kind` of the class: a code for logs, exit codes and other languages.
A class may be renamed; its kind never changes, and a new class gets a new one.

A draw that `record()` has accepted never fails later, and what it refuses leaves the trace as it
was.
"""

from __future__ import annotations

from typing import Any, ClassVar


class TraceError(Exception):
    """The root of the tree: what went wrong, where, and what to do next.

    Parameters
    ----------
    why : str
        What went wrong.
    where : str, default ""
        The place in words, which the message begins with.
    remedy : str, default ""
        What to do next, which the message ends with.
    group, variable : str, optional
        Where it happened, when it happened to a group or a variable.
    chain, draw : int, optional
        The chain, and the draw counted from the first draw of warmup.

    Attributes
    ----------
    kind : str
        The code of its class, which never changes.
    why : str
        The reason alone, without the place and the remedy.
    where, remedy : str
        The other parts of the message; "" where `why` says all.
    group, variable : str or None
        Where it happened, when it happened to a group or a variable.
    chain, draw : int or None
        The chain, and the draw counted from the first draw of warmup.

    See Also
    --------
    InvalidInputError : The call is wrong.
    TraceNotFoundError : There is no trace.
    DamagedTraceError : The trace is damaged.

    Examples
    --------
    Catch a class for what you would do about the error; its data say where it happened:

    >>> import zarrtrace as zt
    >>> trace = zt.create("run.zarr", chains=1, draws=2, posterior={"mu": 0.0})
    >>> with trace.writer(0) as writer:
    ...     writer.record_block({"mu": [0.1, 0.2]})
    ...     try:
    ...         writer.record({"mu": 0.3})
    ...     except zt.errors.ChainFullError as error:
    ...         print(error.kind, error.chain, error.draw)
    ...         print(error.remedy)
    chain-full 0 2
    record at most 0, or make room with trace.extend(draws=...), even while this writer is open
    """

    kind: ClassVar[str] = "trace"

    def __init__(
        self,
        why: str,
        *,
        where: str = "",
        remedy: str = "",
        group: str | None = None,
        variable: str | None = None,
        chain: int | None = None,
        draw: int | None = None,
    ) -> None:
        place = f"{where}: " if where else ""
        advice = f"; {remedy}" if remedy else ""
        super().__init__(f"{place}{why}{advice}")
        self.why = why
        self.where = where
        self.remedy = remedy
        self.group = group
        self.variable = variable
        self.chain = chain
        self.draw = draw

    def __str__(self) -> str:
        # A KeyError would show the repr of its message.
        return Exception.__str__(self)


class InvalidInputError(TraceError, ValueError):
    """An argument cannot be used; fix the call."""

    kind = "invalid-input"


class SchemaError(InvalidInputError):
    """A name, dtype, shape, dimension or coordinate in a definition cannot be stored."""

    kind = "schema"


class DrawError(InvalidInputError):
    """A value handed to `record()` does not fit its variable; nothing of the draw is kept."""

    kind = "draw"


class ChainError(InvalidInputError, IndexError):
    """The trace has no such chain, or the chains belong to another block."""

    kind = "chain"


class GroupNotFoundError(InvalidInputError, KeyError):
    """The trace does not have this group."""

    kind = "group-not-found"


class VariableNotFoundError(InvalidInputError, KeyError):
    """The group does not have this variable, or the table this column."""

    kind = "variable-not-found"


class TraceNotFoundError(TraceError, FileNotFoundError):
    """There is nothing at this place, or it is not a trace."""

    kind = "trace-not-found"


class TraceExistsError(TraceError, FileExistsError):
    """There is something at this place already, and overwriting it was not asked for."""

    kind = "trace-exists"


class FormatVersionError(TraceError):
    """The trace was written by a newer zarrtrace than this one."""

    kind = "format-version"


class NotWritableError(TraceError):
    """The trace is open read-only, or its store cannot be written."""

    kind = "not-writable"


class FinishedError(NotWritableError):
    """The trace is finished: it takes no more draws."""

    kind = "finished"


class ChainFullError(NotWritableError):
    """The chain has all its declared draws."""

    kind = "chain-full"


class StopRequestedError(ChainFullError):
    """The chain has all the draws at which it was asked to stop; see `Trace.request_stop`."""

    kind = "stop-requested"


class NotResumedError(NotWritableError):
    """The chain has draws from before, and `writer.resume()` has not been called."""

    kind = "not-resumed"


class PartlyRecordedError(NotWritableError):
    """Recording a block failed after some of its draws, or rows of a table; record the rest.

    Parameters
    ----------
    why : str
        What went wrong.
    kept : int, default 0
        How many draws of the block, or rows, are recorded.
    **place
        Where it happened, and the remedy, as in `TraceError`.

    Attributes
    ----------
    kept : int
        How many draws of the block, or rows, are recorded.

    See Also
    --------
    zarrtrace.ChainWriter.record_block : Record several draws.
    zarrtrace.table.Table.append_rows : Append several rows.

    Examples
    --------
    >>> from zarrtrace.errors import PartlyRecordedError
    >>> def record_all(writer, mu):
    ...     try:
    ...         writer.record_block({"mu": mu})
    ...     except PartlyRecordedError as error:
    ...         input(f"{error}. Press Enter when this is done.")
    ...         record_all(writer, mu[error.kept :])
    """

    kind = "partly-recorded"

    def __init__(self, why: str, *, kept: int = 0, **place: Any) -> None:
        super().__init__(why, **place)
        self.kept = kept


class ChainBusyError(TraceError):
    """Another writer records this chain."""

    kind = "chain-busy"


class IncompleteTraceError(TraceError):
    """The chains have not recorded enough draws for what was asked."""

    kind = "incomplete"


class StaleViewError(TraceError):
    """The trace gave up draws of this view: it dropped them, or a chain went back."""

    kind = "stale-view"


class TraceReplacedError(StaleViewError):
    """Another trace is in the place of this one, which was overwritten or made again.

    A writer of the one that was replaced writes nothing into the other.
    """

    kind = "trace-replaced"


class NotShareableError(TraceError):
    """A trace in memory cannot be used from another process."""

    kind = "not-shareable"


class DamagedTraceError(TraceError):
    """Something the trace needs is missing from the store, or cannot be decoded."""

    kind = "damaged"


class ChainsFailedError(TraceError):
    """Some chains of `zarrtrace.run` raised; the others continued, and all draws are kept.

    Parameters
    ----------
    why : str
        What went wrong.
    failures : dict of int to str, optional
        The traceback of each chain (or first chain of a block) that failed.

    Attributes
    ----------
    failures : dict of int to str
        The traceback of each chain (or first chain of a block) that failed.

    See Also
    --------
    zarrtrace.run : Run the chains.

    Examples
    --------
    >>> from concurrent.futures import ThreadPoolExecutor
    >>> import zarrtrace as zt
    >>> def chain(number, trace):
    ...     with trace.writer(number) as writer:
    ...         writer.record({"mu": 1 / number})
    >>> trace = zt.create("run.zarr", chains=2, draws=1, posterior={"mu": 0.0})
    >>> try:
    ...     zt.run(chain, trace, executor=ThreadPoolExecutor(), progress=False)
    ... except zt.errors.ChainsFailedError as error:
    ...     for number, report in error.failures.items():
    ...         print(number, report.splitlines()[-1])
    0 ZeroDivisionError: division by zero
    >>> trace.recorded
    array([0, 1])
    """

    kind = "chains-failed"

    def __init__(self, why: str, failures: dict[int, str] | None = None) -> None:
        super().__init__(why)
        self.failures = failures or {}
