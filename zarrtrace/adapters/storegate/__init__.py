"""multiml's StoreGate: change one import line, and its data are Zarr v3, safe from a kill.

    from zarrtrace.adapters.storegate import StoreGate  # was: from multiml import StoreGate

The surface is that of the original (`multiml.StoreGate`), which needs zarr 2. What differs: views
(`gate["train"]`) keep no state in the gate and take lists of ints and `[-1]` as NumPy does; the
caller's arrays are neither kept nor shuffled in place; what cannot become the dtype of a variable
without loss is refused, and so are variables given together that would not belong together.
"""

from .gate import StoreGate, View, import_zarr2

__all__ = ["StoreGate", "View", "import_zarr2"]
