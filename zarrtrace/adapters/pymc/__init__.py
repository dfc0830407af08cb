"""PyMC's draws in a trace that survives a kill: `pm.sample(trace=ZarrTrace("run.zarr"))`.

A drop-in for PyMC's own `ZarrTrace`, for PyMC 5.28 and 6.4. Each process records its own chain;
`resume("run.zarr", model)` continues after a kill.
"""

from .chain import ZarrChain
from .resume import resume
from .trace import ZarrTrace

__all__ = ["ZarrChain", "ZarrTrace", "resume"]
