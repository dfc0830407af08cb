"""What `pm.sample` gets from a trace: log likelihoods that PyMC adds to it are kept in the trace.

PyMC computes them when the trace has handed its draws out, from what it was given.
"""

from __future__ import annotations

import importlib.metadata
import warnings
from typing import TYPE_CHECKING, Any

import xarray as xr

import zarrtrace as zt

_KEPT = ("log_likelihood", "log_prior")


class KeepingTree(xr.DataTree):  # type: ignore[no-untyped-call]
    """A tree that passes log likelihoods on to the trace it comes from."""

    __slots__ = ("_zarrtrace",)

    def __setitem__(self, key: str, value: Any) -> None:
        super().__setitem__(key, value)
        keep(getattr(self, "_zarrtrace", None), key, value)


if TYPE_CHECKING:

    class KeepingInferenceData:
        """InferenceData that passes log likelihoods on to the trace it comes from."""

elif importlib.metadata.version("arviz").startswith("0."):
    import arviz

    class KeepingInferenceData(arviz.InferenceData):
        """InferenceData that passes log likelihoods on to the trace it comes from."""

        def add_groups(self, group_dict: Any = None, *arguments: Any, **options: Any) -> None:
            """Add groups, as the original does."""
            super().add_groups(group_dict, *arguments, **options)
            for name, data in (group_dict or {}).items():
                keep(getattr(self, "_zarrtrace", None), name, data)

else:
    KeepingInferenceData = None


def keeping(data: Any, trace: zt.Trace) -> Any:
    """What a trace has handed out, in the form that passes log likelihoods on to it."""
    if isinstance(data, xr.DataTree):
        tree = KeepingTree(data.to_dataset(), children=dict(data.children), name=data.name)
        object.__setattr__(tree, "_zarrtrace", trace)
        return tree
    found = KeepingInferenceData.__new__(KeepingInferenceData)
    vars(found).update(vars(data), _zarrtrace=trace)
    return found


def keep(trace: zt.Trace | None, group: str, data: Any) -> None:
    """Keep log likelihoods in a trace that has all its draws, and does not sample them."""
    if (
        trace is None
        or group not in _KEPT
        or not trace.finished
        or not isinstance(data, xr.Dataset)
    ):
        return
    try:
        trace.add_group(group, data, overwrite=True)
    except zt.TraceError as error:
        warnings.warn(f"{group} is not kept in the trace: {error}", stacklevel=4)
