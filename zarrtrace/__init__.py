"""zarrtrace: a trace store for MCMC that loses no draw and opens in ArviZ.

`create` a trace, give each chain its `trace.writer(chain)`, `record` draw by draw from as many
processes as you like, read it at any moment, `finish` it. The whole life is in `trace.py`.
"""

from . import errors, runs, table
from .adopt import from_datatree
from .errors import TraceError
from .layout import LIBRARY_VERSION
from .run import run
from .schema import Var
from .trace import Trace, create, open
from .writer import ChainWriter

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
