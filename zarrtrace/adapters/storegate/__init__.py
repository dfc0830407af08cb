"""multiml's StoreGate: change one import line, and its data are Zarr v3 and survive a kill.

    from zarrtrace.adapters.storegate import StoreGate  # was: from multiml import StoreGate

The surface is that of the original (`multiml.StoreGate`), which needs zarr 2. What differs: views
(`gate["train"]`) keep no state in the gate and accept lists of ints and `[-1]` as NumPy does; the
caller's arrays are not kept or shuffled in place; values that cannot have the dtype of a variable
without loss are refused, and so are variables passed together whose samples would not match.
"""

from .gate import StoreGate, View, import_zarr2

__all__ = ["StoreGate", "View", "import_zarr2"]
