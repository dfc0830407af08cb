"""zarrtrace: a trace store for MCMC that loses no draw and opens in ArviZ.

`create` a trace, give each chain its `trace.writer(chain)`, `record` draw by draw from as many
processes as you like, read it at any moment, `finish` it. The whole life is in `trace.py`.
"""

from typing import Any

from . import errors, folder, signals
from .adopt.follow import follow
from .adopt.from_datatree import from_datatree
from .diagnostics.goal import Converged
from .errors import TraceError
from .layout.layout import LIBRARY_VERSION
from .layout.variables import UpTo, Var
from .life.damage import Damage, DamagedDraws
from .opening import create, open
from .processes import run
from .reading.groups import Snapshot
from .recording.writer import ChainWriter
from .tables import table
from .trace import Trace

__version__ = LIBRARY_VERSION

__all__ = [
    "ChainWriter",
    "Converged",
    "Damage",
    "DamagedDraws",
    "Snapshot",
    "Trace",
    "TraceError",
    "UpTo",
    "Var",
    "create",
    "errors",
    "folder",
    "follow",
    "from_datatree",
    "open",
    "run",
    "signals",
    "table",
]


def __getattr__(name: str) -> Any:
    """`zarrtrace.runs` was the name of `zarrtrace.folder`: one letter away from `run`."""
    if name == "runs":
        import warnings

        message = "zarrtrace.runs is called zarrtrace.folder now"
        warnings.warn(message, DeprecationWarning, stacklevel=2)
        return folder
    raise AttributeError(f"module 'zarrtrace' has no attribute {name!r}")
