"""Every error zarrtrace raises on purpose, grouped by what you would do about it.

::

    TraceError
    ├── InvalidInputError            mend the call        (also a ValueError)
    │   ├── SchemaError              ... a name, dtype, dimension or coordinate
    │   ├── DrawError                ... a value handed to record() or record_block()
    │   └── ChainError               ... a chain number   (also an IndexError)
    ├── TraceNotFoundError           look elsewhere       (also a FileNotFoundError)
    ├── TraceExistsError             go elsewhere, or overwrite=True (also a FileExistsError)
    ├── FormatVersionError           upgrade zarrtrace
    ├── NotWritableError             open with mode="a", or leave the trace as it is
    │   ├── FinishedError            ... it is finished
    │   └── ChainFullError           ... every declared draw of the chain is recorded
    ├── ChainBusyError               wait for the other writer, or stop it
    ├── IncompleteTraceError         record what is missing first
    ├── NotShareableError            give the trace a place on disk
    ├── DamagedTraceError            restore or repair the files it names
    └── ChainsFailedError            read the tracebacks of the chains that raised

No error is raised after the fact: what `record()` has accepted is kept, and what it refuses
leaves the trace as it was.
"""

from __future__ import annotations


class TraceError(Exception):
    """The root of the tree: what went wrong, where, and what to do next.

    Attributes
    ----------
    group, variable : str or None
        Where it happened, when it happened to a group or a variable.
    chain, draw : int or None
        The chain, and the draw counted from the first draw of warmup.
    why : str
        The message without the place where it happened.
    """

    def __init__(
        self,
        message: str,
        *,
        group: str | None = None,
        variable: str | None = None,
        chain: int | None = None,
        draw: int | None = None,
        why: str | None = None,
    ) -> None:
        super().__init__(message)
        self.group = group
        self.variable = variable
        self.chain = chain
        self.draw = draw
        self.why = message if why is None else why


class InvalidInputError(TraceError, ValueError):
    """An argument cannot be used; mend the call."""


class SchemaError(InvalidInputError):
    """A name, dtype, shape, dimension or coordinate in a definition cannot be stored."""


class DrawError(InvalidInputError):
    """A value handed to `record()` does not fit its variable; nothing of the draw is kept."""


class ChainError(InvalidInputError, IndexError):
    """The trace has no such chain, or the chains belong to another block."""


class TraceNotFoundError(TraceError, FileNotFoundError):
    """There is nothing at this place, or what is there is no trace."""


class TraceExistsError(TraceError, FileExistsError):
    """There is something at this place already, and it was not to be overwritten."""


class FormatVersionError(TraceError):
    """The trace was written by a newer zarrtrace than this one."""


class NotWritableError(TraceError):
    """The trace is open read-only, or its store cannot be written."""


class FinishedError(NotWritableError):
    """The trace is finished: it takes no more draws."""


class ChainFullError(NotWritableError):
    """The chain has all its declared draws."""


class ChainBusyError(TraceError):
    """Another writer records this chain."""


class IncompleteTraceError(TraceError):
    """The chains have not recorded enough draws for this."""


class NotShareableError(TraceError):
    """A trace in memory was to be used from another process."""


class DamagedTraceError(TraceError):
    """Something the trace needs is missing from the store, or cannot be decoded."""


class ChainsFailedError(TraceError):
    """Some chains of `zarrtrace.run` raised; the others went on, and all draws are kept.

    Attributes
    ----------
    failures : dict of int to str
        The traceback of each chain (or first chain of a block) that failed.
    """

    def __init__(self, message: str, failures: dict[int, str] | None = None) -> None:
        super().__init__(message)
        self.failures = failures or {}
