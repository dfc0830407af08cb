"""Arrays of lists, as some libraries make them of values of a varying number: padded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..layout.variables import LENGTH_ATTRIBUTE, length_name
from ..store.dtypes import fill_value

if TYPE_CHECKING:
    import xarray as xr


_SMC = {"log_marginal_likelihood", "beta"}  # stats that both of its kernels give


def smc_stats_by_chain(groups: dict[str, xr.Dataset]) -> dict[str, xr.Dataset]:
    """The groups; the stats of `pymc.sample_smc` as arrays (chain, stage), whatever they were.

    They are one number for each stage. Where chains have different numbers of stages they come as
    lists, which ArviZ 0.23 takes for draws of one chain. Where the numbers are equal, or there is
    one chain, stages are draws, or chains.
    """
    stats, posterior = groups.get("sample_stats"), groups.get("posterior")
    if stats is None or posterior is None or "stage" in stats.dims or not set(stats) >= _SMC:
        return groups
    chains = posterior.sizes.get("chain", 1)
    if stats.attrs.get("inference_library") != "pymc" or stats["beta"].size % chains:
        return groups
    by_chain = {}
    for name, array in stats.data_vars.items():
        lists = np.empty(chains, dtype=object)
        rows = _lists_of_numbers(array.values) or array.values.reshape(chains, -1)
        for chain, row in enumerate(rows):
            lists[chain] = row.astype(float)
        by_chain[name] = ("chain", lists, array.attrs)
    return {**groups, "sample_stats": pad_lists(type(stats)(by_chain, attrs=stats.attrs), "stage")}


def pad_lists(data: xr.Dataset, dim: str = "{}_dim_0") -> xr.Dataset:
    """A group whose lists of numbers, one for each chain or draw, are padded to the longest.

    Their lengths are beside them, as those of draws that vary in size.

    Parameters
    ----------
    dim : str
        The name of the new dimension; {} stands for the name of the variable.
    """
    for name, array in data.data_vars.items():
        is_drawn = "chain" in array.dims and array.dtype == object
        rows = _lists_of_numbers(array.values) if is_drawn else None
        if not rows:
            continue
        dtype = np.result_type(*([row for row in rows if row.size] or rows))
        lengths = np.array([row.size for row in rows])
        padded = np.full((len(rows), lengths.max()), fill_value(dtype), dtype)
        for place, row in zip(padded, rows, strict=True):
            place[: row.size] = row
        length = length_name(str(name))
        data = data.assign(
            {
                str(name): (
                    (*array.dims, dim.format(name)),
                    padded.reshape(*array.shape, lengths.max()),
                    {**array.attrs, LENGTH_ATTRIBUTE: length},
                ),
                length: (array.dims, lengths.reshape(array.shape)),
            }
        )
    return data


def _lists_of_numbers(values: np.ndarray[Any, Any]) -> list[np.ndarray[Any, Any]] | None:
    """The elements of an array of objects as arrays; None where some are not lists of numbers."""
    try:
        rows = [np.asarray(value) for value in values.flat]
    except ValueError:
        # Lists of lists that have different lengths themselves.
        return None
    is_list = all(row.ndim == 1 and row.dtype.kind in "fciub" for row in rows)
    return rows if is_list else None
