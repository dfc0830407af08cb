"""The trace that `pm.sample(trace=...)` takes."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pymc as pm
from pymc.util import UNSET

import zarrtrace as zt
from zarrtrace.errors import InvalidInputError, TraceExistsError

from .bases import TraceBase
from .chain import ZarrChain
from .kept import keeping
from .model import StoredValues, data_arrays, definition, stored_variables
from .resume import longest_chains
from .stats import Statistics
from .steps import description, keeps_state, state_of

if TYPE_CHECKING:
    import xarray as xr


class ZarrTrace(TraceBase):
    """A trace on disk for `pm.sample(trace=...)`, with the draws and statistics of the default one.

    Parameters
    ----------
    store : str, path, zarr.abc.store.Store or None
        The place of the trace; None for memory, where the main process records and no chain can be
        resumed. Nothing is touched before sampling begins, and an existing trace is never
        overwritten without `overwrite=True`.
    synchronizer : optional
        Not used, because chains share no file.
    compressor : optional
        The `compressors` of `zarr.create_array`; None for none.
    draws_per_chunk : int, optional
        Chosen by size by default; draws are safe long before a chunk is full.
    include_transformed : bool, default False
        Whether the unconstrained variables are stored too, in `unconstrained_posterior`.
    checkpoint_every : float, default 10
        Seconds between checkpoints, from which `resume` continues; 0 for one at each draw. They
        are made less often if they would take more than 5% of the time.
    **options
        Further options of `zarrtrace.create`: `overwrite`, `checksum`, `journal`, `durability`,
        `storage_options`.

    Attributes
    ----------
    trace : zarrtrace.Trace
        The trace itself, once sampling has begun: also `zarrtrace.open(store)` from elsewhere.
    straces : list of ZarrChain
        One for each chain.

    See Also
    --------
    resume : Continue after a kill, or for more draws.
    zarrtrace.open : Read the draws while PyMC samples.

    Notes
    -----
    `Trace.request_stop` ends a run from any process: each chain stops at its draw, and the trace is
    finished as if no more draws had been planned. `extend` and `resume` continue from there.

    Unlike the original it never pads: chains of unequal length are cut, and chains with too few
    draws are left out. Statistics have ArviZ's names, so PyMC's warnings about divergences work.
    A `SamplerWarning` is stored in the columns `warning_kind`, `warning_level` and `warning_step`.

    Examples
    --------
    >>> import pymc as pm
    >>> import zarrtrace as zt
    >>> from zarrtrace.adapters.pymc import ZarrTrace
    >>> with pm.Model():
    ...     mu = pm.Normal("mu")
    ...     data = pm.sample(
    ...         50,
    ...         tune=50,
    ...         chains=1,
    ...         step=pm.Metropolis(),
    ...         trace=ZarrTrace("run.zarr"),
    ...         progressbar=False,
    ...         compute_convergence_checks=False,
    ...     )
    >>> zt.open("run.zarr").posterior.mu.shape
    (1, 50)
    """

    def __init__(
        self,
        store: Any = None,
        synchronizer: Any = None,
        compressor: Any = UNSET,
        draws_per_chunk: int | None = None,
        include_transformed: bool = False,
        *,
        checkpoint_every: float = 10.0,
        **options: Any,
    ) -> None:
        self.synchronizer = synchronizer
        self.compressor = compressor
        self.draws_per_chunk = draws_per_chunk
        self.include_transformed = include_transformed
        self.checkpoint_every = checkpoint_every
        self.straces: list[ZarrChain] = []
        self._store = store
        if "thin" in options:
            raise InvalidInputError(
                "thin: PyMC counts the draws that are kept, warmup and posterior apart; thin what "
                "is read: trace.posterior.isel(draw=slice(None, None, 10))"
            )
        self._options = options
        self._trace: zt.Trace | None = None
        self._sampling_time = 0.0
        self._global_warnings: list[Any] = []

    # What PyMC calls ------------------------------------------------------------------------

    def init_trace(
        self,
        chains: int,
        draws: int,
        tune: int,
        step: Any,
        model: pm.Model | None = None,
        vars: Sequence[Any] | None = None,
        test_point: Mapping[str, Any] | None = None,
    ) -> None:
        """Create the trace for a run; `pm.sample` calls this.

        Parameters
        ----------
        chains, draws, tune : int
            Chains, draws of each after tuning, and draws of tuning.
        step : step method
            The step method that will draw.
        model : pymc.Model, optional
            By default that of the context.
        vars : sequence of variables, optional
            The variables to store; all by default.
        test_point : mapping, optional
            Some unconstrained point, for the shapes of the variables.

        Raises
        ------
        RuntimeError
            This object already has a run.
        TraceExistsError, SchemaError
            As for `zarrtrace.create`.

        See Also
        --------
        zarrtrace.create : What makes the trace.
        """
        if self._trace is not None:
            raise RuntimeError(
                f"this ZarrTrace already has a run, at {self._trace.path}: make another one for "
                f"another run, or continue with zarrtrace.adapters.pymc.resume"
            )
        self._model = model = pm.modelcontext(model)
        wanted = model.unobserved_value_vars if vars is None else vars
        variables = stored_variables(model, [v.name for v in wanted], self.include_transformed)
        point = dict(model.initial_point() if test_point is None else test_point)
        values = StoredValues(model, variables)
        statistics = Statistics(step)
        groups = definition(model, variables, values(point), statistics.columns)
        groups["attrs"]["pymc_step"] = json.dumps(description(step))
        if self.compressor is not UNSET:
            groups["compressors"] = self.compressor
        try:
            self._trace = zt.create(
                self._store,
                chains=chains,
                draws=draws,
                tune=tune,
                draws_per_chunk=self.draws_per_chunk,
                **groups,
                **self._options,
            )
        except TraceExistsError as error:
            raise TraceExistsError(
                error.why,
                where=error.where,
                remedy="zarrtrace.adapters.pymc.resume(path, model) continues a run of PyMC; "
                f"otherwise {error.remedy}",
            ) from None
        self._keep_beginning(step)
        self.straces = [
            ZarrChain(
                self._trace,
                chain,
                (
                    list(groups["posterior"]),
                    list(groups.get("unconstrained_posterior", ())),
                ),
                values,
                statistics,
                self.checkpoint_every,
            )
            for chain in range(chains)
        ]

    def _keep_beginning(self, step: Any) -> None:
        """Store the step method's settings, for chains that are killed before their first draw."""
        if not keeps_state(step):
            warnings.warn(
                "the state of these step methods cannot be stored: the draws are safe, but the run "
                "cannot be resumed",
                stacklevel=2,
            )
            return
        state = {"point": None, "steps": state_of(step)}
        for chain in self.trace.blocks:
            with self.trace.writer(chain, patience=90) as writer:
                writer.checkpoint(state)

    def split_warmup_groups(self) -> None:
        """Split tuning from sampling, and finish the trace when it has all its draws.

        After Ctrl-C it stays unfinished for `resume`.

        See Also
        --------
        ZarrTrace.split_warmup : Split one group.
        """
        trace = self.trace
        fewest = trace.recorded.min()
        if trace.status in ("complete", "finished") and fewest > trace.tune:
            trace.finish()
        elif fewest >= trace.tune:
            trace.split_warmup()

    def split_warmup(self, group_name: str, error_if_already_split: bool = True) -> None:
        """Split tuning from sampling in one group.

        Parameters
        ----------
        group_name : str
            A sampled group, such as "posterior".
        error_if_already_split : bool, default True
            Whether to refuse a group that is split already, instead of doing nothing.

        Raises
        ------
        RuntimeError
            It is split already.
        IncompleteTraceError
            A chain is still tuning.

        See Also
        --------
        ZarrTrace.split_warmup_groups : Split all groups.
        """
        if error_if_already_split and group_name in self.trace.split_groups:
            raise RuntimeError(f"Warmup data for {group_name} has already been split")
        self.trace.split_warmup(groups=group_name)

    @property
    def tuning_steps(self) -> int:
        """Draws of tuning of each chain."""
        return self.trace.tune

    @property
    def sampling_time(self) -> float:
        """Seconds that sampling took, as PyMC measured it; 0 before it ended."""
        return self._sampling_time

    @sampling_time.setter
    def sampling_time(self, seconds: float) -> None:
        self._sampling_time = float(seconds)

    @property
    def _sampling_state(self) -> SimpleNamespace:
        return SimpleNamespace(draw_idx=self.trace.recorded, global_warnings=self._global_warnings)

    # Reading ------------------------------------------------------------------------------

    @property
    def trace(self) -> zt.Trace:
        """The trace itself, once sampling has begun.

        Raises
        ------
        ValueError
            No run has begun.
        """
        if self._trace is None:
            raise ValueError(
                "this ZarrTrace has no run yet: pass it to pm.sample(trace=...); zarrtrace.open "
                "opens an existing trace"
            )
        return self._trace

    def to_inferencedata(self, save_warmup: bool = False) -> Any:
        """The existing draws, as `pm.sample` returns them.

        Parameters
        ----------
        save_warmup : bool, default False
            Whether to include the warmup groups.

        Returns
        -------
        arviz.InferenceData or xarray.DataTree
            What the installed ArviZ takes, read when it is needed. After Ctrl-C the chains that
            together have most draws, cut to the shortest of them. When the trace is finished, a
            log_likelihood or log_prior that PyMC adds to it is added to the trace too.

        Raises
        ------
        IncompleteTraceError
            No chain has a draw after tuning.

        See Also
        --------
        zarrtrace.Trace.to_inferencedata : The same for any trace.
        """
        self.split_warmup_groups()
        data = self.trace.to_inferencedata(
            save_warmup=save_warmup, chains=longest_chains(self.trace)
        )
        return keeping(data, self.trace)

    def groups(self) -> list[str]:
        """The names of the groups.

        Returns
        -------
        list of str
            In ArviZ's order.

        See Also
        --------
        zarrtrace.Trace.groups : The same for any trace.
        """
        return list(self.trace.groups)

    @property
    def posterior(self) -> xr.Dataset:
        """The existing draws after tuning."""
        return self.trace.posterior

    @property
    def unconstrained_posterior(self) -> xr.Dataset:
        """The same draws in the unconstrained space, with `include_transformed=True`."""
        return self.trace.unconstrained_posterior

    @property
    def sample_stats(self) -> xr.Dataset:
        """The statistics of the draws after tuning, under ArviZ's names."""
        return self.trace.sample_stats

    @property
    def constant_data(self) -> xr.Dataset:
        """The model's data that is not observed."""
        return self.trace.constant_data

    @property
    def observed_data(self) -> xr.Dataset:
        """The observed data."""
        return self.trace.observed_data

    # Adding -------------------------------------------------------------------------------

    def create_group(self, name: str, data_dict: Mapping[str, Any]) -> xr.Dataset | None:
        """Add a group of data, with the dimensions and labels of the model.

        Parameters
        ----------
        name : str
            The group, such as "constant_data".
        data_dict : mapping of str to array
            The values of the model's data by their names.

        Returns
        -------
        xarray.Dataset or None
            None when there is no data, as in the original.

        See Also
        --------
        zarrtrace.Trace.add_group : Add any group.
        """
        if not data_dict:
            return None
        self.trace.add_group(name, data_arrays(self._model, data_dict))
        return self.trace[name]

    def init_group_with_empty(self, *args: Any, **kwargs: Any) -> None:
        """Refuse: a group of a run is created with the run, and holds only draws.

        Parameters
        ----------
        *args, **kwargs
            Those of PyMC's own trace.

        Raises
        ------
        InvalidInputError
            Always.

        See Also
        --------
        ZarrTrace.create_group : Add data.
        """
        raise InvalidInputError(
            "sampled groups are created by init_trace and hold no empty draws; "
            "create_group adds data"
        )

    def init_sampling_state_group(self, tune: int, chains: int) -> None:
        """Refuse: the sampling state is created with the run.

        Parameters
        ----------
        tune : int
            Draws of tuning.
        chains : int
            Number of chains.

        Raises
        ------
        InvalidInputError
            Always.

        See Also
        --------
        ZarrTrace.init_trace : Create the trace.
        """
        raise InvalidInputError("the sampling state is created by init_trace, with the run")

    def __repr__(self) -> str:
        return f"ZarrTrace({self._store!r})" if self._trace is None else repr(self._trace)
