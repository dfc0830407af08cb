"""The base classes by which `pm.sample` recognises a trace on disk.

From PyMC 6.4 on these are empty classes. Before that, they are PyMC's own ZarrTrace and ZarrChain:
then their `__init__`, which needs zarr 2, must not run, and inherited methods must not be used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pymc.backends

__all__ = ["ChainBase", "TraceBase"]

if TYPE_CHECKING:

    class ChainBase:
        """The base class of a chain."""

    class TraceBase:
        """The base class of a trace."""

elif hasattr(pymc.backends, "_ZarrChainBase"):
    ChainBase, TraceBase = pymc.backends._ZarrChainBase, pymc.backends._ZarrTraceBase
else:
    from pymc.backends.zarr import ZarrChain as ChainBase
    from pymc.backends.zarr import ZarrTrace as TraceBase
