"""What `pm.sample` knows a trace on disk by.

From PyMC 6.4 on these are empty classes. Before, they are PyMC's own ZarrTrace and ZarrChain:
then their `__init__`, which needs zarr 2, must not run, and what is inherited must not be used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pymc.backends

__all__ = ["ChainBase", "TraceBase"]

if TYPE_CHECKING:

    class ChainBase:
        """What a chain is known by."""

    class TraceBase:
        """What a trace is known by."""

elif hasattr(pymc.backends, "_ZarrChainBase"):
    ChainBase, TraceBase = pymc.backends._ZarrChainBase, pymc.backends._ZarrTraceBase
else:
    from pymc.backends.zarr import ZarrChain as ChainBase
    from pymc.backends.zarr import ZarrTrace as TraceBase
