"""The engine of xarray: `xr.open_datatree(path, engine="zarrtrace")`, even while chains write."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Literal

import xarray as xr
from xarray.backends import BackendEntrypoint

import zarrtrace as zt

Align = Literal["cut", "pad"]


class TraceBackendEntrypoint(BackendEntrypoint):
    """Opens a trace as zarrtrace reads it: cut to whole draws, warmup apart, in ArviZ's order.

    The engine "zarr" opens the same directory as it is on the disk, which is right once the
    trace is finished. This one is right at any moment.
    """

    description: ClassVar[str] = "Open traces of MCMC, running ones too"
    open_dataset_parameters: ClassVar[tuple[str, ...]] = (
        "filename_or_obj",
        "drop_variables",
        "group",
        "align",
        "chains",
        "storage_options",
    )
    supports_groups: ClassVar[bool] = True

    def open_dataset(
        self,
        filename_or_obj: Any,
        *,
        drop_variables: str | Iterable[str] | None = None,
        group: str = "posterior",
        align: Align = "cut",
        chains: int | Iterable[int] | None = None,
        storage_options: Mapping[str, Any] | None = None,
    ) -> xr.Dataset:
        """One group of a trace.

        Parameters
        ----------
        filename_or_obj : str, path or zarr.abc.store.Store
            As for `zarrtrace.open`.
        drop_variables : str or iterable of str, optional
            Variables to leave out.
        group : str, default "posterior"
            One of `Trace.groups`.
        align, chains
            As for `Trace.dataset`.
        storage_options : mapping, optional
            Options of fsspec for a URL.
        """
        dataset = zt.open(filename_or_obj, storage_options=storage_options).dataset(
            group.strip("/"), align=align, chains=chains
        )
        return dataset.drop_vars(drop_variables or [], errors="ignore")

    def open_datatree(
        self,
        filename_or_obj: Any,
        *,
        drop_variables: str | Iterable[str] | None = None,
        save_warmup: bool = True,
        align: Align = "cut",
        chains: int | Iterable[int] | None = None,
        storage_options: Mapping[str, Any] | None = None,
        chunks: Any = None,
    ) -> xr.DataTree:
        """All groups of a trace.

        Parameters
        ----------
        filename_or_obj, drop_variables, align, chains, storage_options
            As in `open_dataset`.
        save_warmup : bool, default True
            Whether to include the warmup groups.
        chunks : optional
            As for `Trace.to_datatree`: by default None, without dask.
        """
        trace = zt.open(filename_or_obj, storage_options=storage_options)
        tree = trace.to_datatree(save_warmup=save_warmup, align=align, chains=chains, chunks=chunks)
        for node in tree.subtree:
            node.dataset = node.to_dataset().drop_vars(drop_variables or [], errors="ignore")
        return tree

    def open_groups_as_dict(self, filename_or_obj: Any, **options: Any) -> dict[str, xr.Dataset]:
        """The groups of a trace by their paths; options as in `open_datatree`."""
        tree = self.open_datatree(filename_or_obj, **options)
        return {node.path: node.to_dataset() for node in tree.subtree}

    def guess_can_open(self, filename_or_obj: Any) -> bool:
        """Always False: a finished trace can be opened by the engine "zarr" as well."""
        return False
