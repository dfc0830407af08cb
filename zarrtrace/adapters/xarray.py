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

    See Also
    --------
    zarrtrace.open : Open a trace without xarray's functions.

    Examples
    --------
    >>> import xarray as xr
    >>> import zarrtrace as zt
    >>> trace = zt.create("run.zarr", chains=1, draws=100, posterior={"mu": 0.0})
    >>> with trace.writer(0) as writer:
    ...     writer.record({"mu": 0.1})
    ...     xr.open_dataset("run.zarr", engine="zarrtrace").mu.values
    array([[0.1]])
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
        """One group of a trace, as a lazy dataset.

        Parameters
        ----------
        filename_or_obj : str, path or zarr.abc.store.Store
            As for `zarrtrace.open`.
        drop_variables : str or iterable of str, optional
            Variables to leave out.
        group : str, default "posterior"
            One of `Trace.groups`.
        align : "cut" or "pad"
            How to treat chains of unequal length, as in `Trace.dataset`.
        chains : int or iterable of int, optional
            Only these chains, as in `Trace.dataset`.
        storage_options : mapping, optional
            Options of fsspec for a URL.

        Returns
        -------
        xarray.Dataset
            The draws of the group, as `Trace.dataset` returns them.

        See Also
        --------
        TraceBackendEntrypoint.open_datatree : All groups.

        Examples
        --------
        >>> import xarray as xr
        >>> import zarrtrace as zt
        >>> trace = zt.create(
        ...     "run.zarr", chains=1, draws=1, posterior={"mu": 0.0}, sample_stats={"lp": 0.0}
        ... )
        >>> with trace.writer(0) as writer:
        ...     writer.record({"mu": 0.1}, {"lp": -1.5})
        >>> xr.open_dataset("run.zarr", engine="zarrtrace", group="sample_stats").lp.values
        array([[-1.5]])
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
        """All groups of a trace, as a lazy tree.

        Parameters
        ----------
        filename_or_obj : str, path or zarr.abc.store.Store
            As for `zarrtrace.open`.
        drop_variables : str or iterable of str, optional
            Variables to leave out.
        save_warmup : bool, default True
            Whether to include the warmup groups.
        align : "cut" or "pad"
            How to treat chains of unequal length, as in `Trace.dataset`.
        chains : int or iterable of int, optional
            Only these chains, as in `Trace.dataset`.
        storage_options : mapping, optional
            Options of fsspec for a URL.
        chunks : optional
            As for `Trace.to_datatree`: by default None, without dask.

        Returns
        -------
        xarray.DataTree
            The groups of one moment, as `Trace.to_datatree` returns them.

        See Also
        --------
        TraceBackendEntrypoint.open_dataset : One group.

        Examples
        --------
        >>> import xarray as xr
        >>> import zarrtrace as zt
        >>> trace = zt.create("run.zarr", chains=1, tune=1, draws=1, posterior={"mu": 0.0})
        >>> with trace.writer(0) as writer:
        ...     writer.record_block({"mu": [5.0, 0.1]})
        >>> tree = xr.open_datatree("run.zarr", engine="zarrtrace")
        >>> tree.posterior.mu.values, tree.warmup_posterior.mu.values
        (array([[0.1]]), array([[5.]]))
        """
        trace = zt.open(filename_or_obj, storage_options=storage_options)
        tree = trace.to_datatree(save_warmup=save_warmup, align=align, chains=chains, chunks=chunks)
        for node in tree.subtree:
            node.dataset = node.to_dataset().drop_vars(drop_variables or [], errors="ignore")
        return tree

    def open_groups_as_dict(self, filename_or_obj: Any, **options: Any) -> dict[str, xr.Dataset]:
        """The groups of a trace by their paths.

        Parameters
        ----------
        filename_or_obj : str, path or zarr.abc.store.Store
            As for `zarrtrace.open`.
        **options
            Further arguments of `open_datatree`.

        Returns
        -------
        dict of str to xarray.Dataset
            The root has the path "/".

        See Also
        --------
        TraceBackendEntrypoint.open_datatree : The same as a tree.

        Examples
        --------
        >>> import xarray as xr
        >>> import zarrtrace as zt
        >>> trace = zt.create("run.zarr", chains=1, draws=1, posterior={"mu": 0.0})
        >>> with trace.writer(0) as writer:
        ...     writer.record({"mu": 0.1})
        >>> list(xr.open_groups("run.zarr", engine="zarrtrace"))
        ['/', '/posterior']
        """
        tree = self.open_datatree(filename_or_obj, **options)
        return {node.path: node.to_dataset() for node in tree.subtree}

    def guess_can_open(self, filename_or_obj: Any) -> bool:
        """False: a finished trace can be opened by the engine "zarr" as well.

        Parameters
        ----------
        filename_or_obj : object
            It does not matter.

        Returns
        -------
        bool
            Always False: name the engine.

        See Also
        --------
        TraceBackendEntrypoint.open_datatree : Open a trace.

        Examples
        --------
        >>> import xarray as xr
        >>> import zarrtrace as zt
        >>> trace = zt.create("run.zarr", chains=1, draws=1, posterior={"mu": 0.0})
        >>> list(xr.open_datatree("run.zarr", engine="zarrtrace"))
        ['posterior']
        """
        return False
