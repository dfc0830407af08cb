"""zarrtrace: a trace store for MCMC that loses no draw and opens in ArviZ.

`create` a trace, give each chain its `trace.writer(chain)`, `record` draw by draw from as many
processes as you like, read it at any moment, `finish` it. The whole life is in `trace.py`.
"""

from . import errors, runs
from .adopt.from_datatree import from_datatree
from .errors import TraceError
from .layout.layout import LIBRARY_VERSION
from .layout.variables import Var
from .opening import create, open
from .processes import run
from .recording.writer import ChainWriter
from .tables import table
from .trace import Trace

__version__ = LIBRARY_VERSION

__all__ = [
    "ChainWriter",
    "Trace",
    "TraceError",
    "Var",
    "create",
    "errors",
    "from_datatree",
    "open",
    "run",
    "runs",
    "table",
]
