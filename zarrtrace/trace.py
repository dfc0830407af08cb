"""The trace: create or open one, hand out its writers and its views, split and finish it."""

from __future__ import annotations

import math
import os
import weakref
from collections.abc import Hashable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np

from .errors import ChainError, InvalidInputError, TraceNotFoundError
from .layout.hierarchy import Hierarchy
from .layout.layout import TABLES, Layout
from .layout.names import check_name, is_of_segments
from .layout.variables import Var, ordered
from .life import change
from .messages import chain_label, warn_caller
from .reading.groups import GroupReader, Snapshot
from .reading.moment import Moment
from .recording.opening import open_writer
from .recording.writer import ChainWriter
from .sampling_state.block import ChainBlock
from .sampling_state.last_checkpoint import last_checkpoint
from .store.failures import own_errors_of_calls
from .store.location import Location
from .store.zarr_json import encode_document, group_document

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr
    from numpy.typing import DTypeLike

    from .diagnostics.verdict import Verdict
    from .life.damage import Damage
    from .life.description import Beside
    from .sampling_state.request import StopRequest
    from .tables.segments import Segments
    from .tables.table import Table
    from .watching.notebook import View


Align = Literal["cut", "pad"]
Definition = Mapping[str, Any]


@own_errors_of_calls
class Trace(GroupReader):
    """A trace, as returned by `create` and `open`.

    A group is an attribute (`trace.posterior`) or an item (`trace["posterior"]`): an
    `xarray.Dataset` with the draws of that moment, read lazily. A group
    whose name is one of the trace's own attributes, such as `draws` or `table`, is an item only.

    A trace is a mapping of its groups: `list(trace)`, `len(trace)`, `"prior" in trace`, `keys`,
    `values` and `items`; only `get` differs: it reads a variable. It is a context
    manager too: leaving it calls `close`. It can be sent to other processes; only its address is
    sent.

    See Also
    --------
    create : Create a trace.
    open : Open a trace.
    Trace.writer : Record draws.
    Trace.finish : End the run, so that any Zarr reader opens the trace.

    Examples
    --------
    >>> import zarrtrace as zt
    >>> trace = zt.create("run.zarr", chains=2, tune=1, draws=3, posterior={"mu": 0.0})
    >>> for chain in range(trace.chains):
    ...     with trace.writer(chain) as writer:
    ...         for draw in range(trace.tune + trace.draws):
    ...             writer.record({"mu": 10.0 * chain + draw})
    >>> list(trace)
    ['posterior', 'warmup_posterior']
    >>> trace.posterior.mu.values
    array([[ 1.,  2.,  3.],
           [11., 12., 13.]])
    >>> trace["warmup_posterior"].mu.values
    array([[ 0.],
           [10.]])
    >>> trace.get("mu", chains=1)
    array([[11., 12., 13.]])
    """

    def __init__(self, hierarchy: Hierarchy) -> None:
        self._hierarchy = hierarchy
        self._location = hierarchy.location
        self._tables: dict[str, Table] = {}
        # Closed ones without other references need no closing.
        self._writers: weakref.WeakSet[ChainWriter] = weakref.WeakSet()
        self._patience = 0.0  # of writers opened without `patience`

    # What it is ---------------------------------------------------------------------------

    @property
    def path(self) -> str:
        """Where the trace is: a path, a URL, or "memory"."""
        return str(self._hierarchy)

    @property
    def chains(self) -> int:
        """Number of chains."""
        return self._layout.chains

    @property
    def tune(self) -> int:
        """Declared draws of warmup per chain."""
        return self._layout.tune

    @property
    def draws(self) -> int:
        """Declared draws after warmup per chain.

        Without a fixed number it is larger than any run: `tune + draws` is 2**53.
        """
        return self._layout.total - self._layout.tune

    @property
    def has_end(self) -> bool:
        """Whether the number of draws is fixed: it was not created or extended with draws=None."""
        return self._layout.draws is not None

    @property
    def thin(self) -> int:
        """How many draws a writer is given for each one that is kept; 1 where all are kept."""
        return self._layout.thin

    @property
    def split_groups(self) -> tuple[str, ...]:
        """The sampled groups whose warmup is a `warmup_` group of the store; none before a split.

        `split_warmup()` and `finish()` create it for any Zarr reader; in `groups` and in the
        views of zarrtrace the warmup groups exist from the beginning.

        Examples
        --------
        >>> import zarrtrace as zt
        >>> trace = zt.create(chains=1, tune=1, draws=1, posterior={"mu": 0.0})
        >>> with trace.writer(0) as writer:
        ...     writer.record_block({"mu": [0.1, 0.2]})
        >>> trace.split_groups
        ()
        >>> trace.split_warmup()
        >>> trace.split_groups
        ('posterior',)
        """
        return tuple(name for name, group in self._layout.groups.items() if group.paths[1:])

    @property
    def status(self) -> str:
        """The state in one word: `new`, `sampling`, `stopped`, `complete` or `finished`.

        It is sampling while a writer is alive, as far as this process can tell: one on another
        machine counts as alive while its last heartbeat is younger than a minute. It is stopped
        when its writers have ended and draws are missing, complete when each chain has all its
        draws or those at which it was asked to stop, and finished after `finish()`. `repr` shows
        since when, and what to do next.

        See Also
        --------
        Trace.recorded : How many draws each chain has.

        Examples
        --------
        >>> import zarrtrace as zt
        >>> trace = zt.create("run.zarr", chains=1, draws=2, posterior={"mu": 0.0})
        >>> with trace.writer(0) as writer:
        ...     writer.record({"mu": 0.1})
        ...     print(trace.status)
        sampling
        >>> trace.status
        'stopped'
        """
        from .life.status import find_status

        return find_status(self._now()).word

    @property
    def finished(self) -> bool:
        """Whether `finish()` has been called: no more draws, and any Zarr reader can read it."""
        return self._layout.finished

    @property
    def burn_in(self) -> int:
        """Draws at the start of each chain that readers treat as warmup: `tune` at first.

        If groups were split separately, the value for the posterior.

        See Also
        --------
        Trace.set_burn_in : Choose another number.
        """
        layout = self._layout
        return layout.groups[ordered(layout.groups)[0]].warmup

    @property
    def dropped(self) -> int:
        """Number of draws deleted from the start of each chain by `drop_before`."""
        return self._layout.dropped

    @property
    def blocks(self) -> list[int | range]:
        """The arguments of `writer()`: each chain, or each block with `chains_per_chunk`.

        See Also
        --------
        Trace.writer : The writer of a chain or a block.

        Examples
        --------
        >>> import zarrtrace as zt
        >>> zt.create(chains=3, draws=10, posterior={"mu": 0.0}).blocks
        [0, 1, 2]
        >>> zt.create(chains=6, draws=10, posterior={"mu": 0.0}, chains_per_chunk=3).blocks
        [range(0, 3), range(3, 6)]
        """
        layout = self._layout
        if layout.chains_per_chunk == 1:
            return list(range(layout.chains))
        return [layout.chains_of(block) for block in range(layout.blocks)]

    @property
    def _layout(self) -> Layout:
        return self._hierarchy.layout

    def _block(self, number: int) -> ChainBlock:
        return ChainBlock(self._location, self._layout, number)

    # Writing ------------------------------------------------------------------------------

    def writer(
        self,
        chains: int | range | Sequence[int],
        *,
        force: bool = False,
        patience: float | None = None,
    ) -> ChainWriter:
        """The writer of one chain, or of a block of chains that are drawn together.

        Parameters
        ----------
        chains : int, range or sequence of int
            A chain; or, with `chains_per_chunk`, one of `trace.blocks`, such as `range(0, 32)`.
        force : bool, default False
            Whether to replace a writer that this process cannot see, on another host or
            in another container, without knowing whether it is alive.
        patience : float, optional
            Seconds to wait for such a writer, or for one whose process is stopped, until it closes
            or sends no heartbeat for 60 s. By default 0, and 90 in a chain of `zarrtrace.run`.

        Returns
        -------
        ChainWriter
            A writer that can record; a chain with earlier draws needs `resume()` first.

        Raises
        ------
        ChainError
            There is no such chain, or these chains are not a block.
        ChainBusyError
            Another writer records them; the message says which process on which host.
        InvalidInputError
            `patience` is not a number of seconds.
        NotWritableError, FinishedError
            The trace is read-only or finished.

        See Also
        --------
        Trace.blocks : The chains and blocks that have a writer.
        ChainWriter.resume : Continue where a chain stopped.
        run : Run all chains, each with its writer.

        Notes
        -----
        A dead writer is always replaced. So is, with a warning, an
        earlier writer in this process: it accepts no more draws, and its draws are kept.

        Examples
        --------
        >>> import zarrtrace as zt
        >>> trace = zt.create("run.zarr", chains=2, draws=100, posterior={"mu": 0.0})
        >>> with trace.writer(0) as writer:
        ...     writer.record({"mu": 0.1})
        ...     writer.record({"mu": 0.2})
        >>> with trace.writer(0) as writer:
        ...     start, state = writer.resume()
        ...     print(start)
        2
        """
        seconds = self._patience if patience is None else patience
        is_number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
        if not is_number or not seconds >= 0:
            raise InvalidInputError(f"patience must be a number of seconds, got {patience!r}")
        writer = open_writer(self._hierarchy, self._block_of(chains), force=force, patience=seconds)
        self._writers.add(writer)
        return writer

    def _with_patience(self, seconds: float) -> Trace:
        """The same trace with another default `patience` of its writers."""
        patient = Trace(self._hierarchy)
        # Writers opened through it are closed with this one.
        patient._tables, patient._writers = self._tables, self._writers
        patient._patience = seconds
        return patient

    def _block_of(self, chains: int | range | Sequence[int]) -> int:
        layout = self._layout
        given: list[Any] = [chains] if isinstance(chains, str) else np.ravel(chains).tolist()
        single = isinstance(chains, str) or np.ndim(chains) == 0
        wanted: list[int] = []
        for chain in given:
            if type(chain) is not int:
                raise ChainError(f"{chain!r} is not a chain of {self.path}: chains count from 0")
            if not 0 <= chain < layout.chains:
                raise ChainError(
                    f"{self.path} has {chain_label(range(layout.chains))}, not {chain}",
                    chain=chain,
                )
            wanted.append(chain)
        if not wanted:
            raise ChainError("pass at least one chain")
        block = wanted[0] // layout.chains_per_chunk
        if wanted != list(layout.chains_of(block)) or (single and layout.chains_per_chunk > 1):
            if layout.chains_per_chunk == 1:
                remedy = (
                    f"each chain has its own writer: trace.writer({wanted[0]}); to record "
                    f"chains together, create the trace with chains_per_chunk={len(wanted)}"
                )
            else:
                remedy = f"its block is trace.writer({layout.chains_of(block)})"
            raise ChainError(f"chains {wanted} are not a block of {self.path}; {remedy}")
        return block

    def split_warmup(self, n: int | None = None, groups: str | Iterable[str] | None = None) -> None:
        """Move the first draws of each chain to the `warmup_` groups.

        Parameters
        ----------
        n : int, optional
            Draws of warmup; `burn_in` by default, which is `tune` unless you set it. It can be
            chosen, and changed, at any later time.
        groups : str or iterable of str, optional
            The sampled groups to split; all by default.

        Raises
        ------
        ChainBusyError
            A chain is being recorded.
        IncompleteTraceError
            A chain has fewer than `n` draws; or its writer was killed on another machine, where a
            journal on a local disk may hold its last draws.

        See Also
        --------
        Trace.set_burn_in : The same for readers of zarrtrace, without moving draws.
        Trace.finish : Split and end the run.
        Trace.drop_before : Delete draws for good.

        Notes
        -----
        It needs memory for two chunks. Chunks on one side of the boundary are linked;
        where the boundary cuts through chunks, those of that variable are written again. After a
        kill nothing is lost: the trace reads as after the split, and the next
        `open(mode="a")` completes it.

        Examples
        --------
        >>> import zarrtrace as zt
        >>> trace = zt.create("run.zarr", chains=1, draws=4, posterior={"mu": 0.0})
        >>> with trace.writer(0) as writer:
        ...     writer.record_block({"mu": [5.0, 1.0, 2.0, 3.0]})
        >>> trace.split_warmup(1)
        >>> trace.posterior.mu.values
        array([[1., 2., 3.]])
        >>> trace.warmup_posterior.mu.values
        array([[5.]])
        """
        names = [groups] if isinstance(groups, str) else groups
        change.split_warmup(self._hierarchy, n, names)

    def set_burn_in(self, draws: int) -> None:
        """Treat the first draws of each chain as warmup from now on, without moving them.

        All readers honour it at once: the posterior begins after these draws, and they are in the
        warmup group. `split_warmup()` and `finish()` move them.

        Parameters
        ----------
        draws : int
            Counted from the start of the chain, `tune` included; more or fewer than before, but
            never fewer than were dropped. A chain need not have that many yet.

        Raises
        ------
        InvalidInputError
            `draws` is more than tune + draws, or fewer than were dropped.
        IncompleteTraceError
            The trace is finished, and a chain has fewer draws.
        ChainBusyError
            Another process is splitting, dropping or finishing.

        See Also
        --------
        Trace.burn_in : The number that was chosen.
        Trace.split_warmup : Move the draws as well.

        Notes
        -----
        Any process may call it while chains are recorded; no writer is disturbed. A finished
        trace stays right for other readers: its draws are moved, as by `split_warmup(draws)`.

        Examples
        --------
        >>> import zarrtrace as zt
        >>> trace = zt.create("run.zarr", chains=1, draws=4, posterior={"mu": 0.0})
        >>> with trace.writer(0) as writer:
        ...     writer.record_block({"mu": [5.0, 1.0, 2.0, 3.0]})
        >>> trace.set_burn_in(1)
        >>> trace.get("mu")
        array([[1., 2., 3.]])
        >>> trace.set_burn_in(0)
        >>> trace.get("mu")
        array([[5., 1., 2., 3.]])
        """
        change.set_burn_in(self._hierarchy, draws)

    def drop_before(self, draw: int) -> None:
        """Drop the draws before this one, of every chain and group, and delete their chunks.

        They are never read again; `recorded`, checkpoints and writers are not affected.
        `burn_in` is at least `draw` afterwards.

        Parameters
        ----------
        draw : int
            Number of the draw from the start of the chain, `tune` included.

        Raises
        ------
        InvalidInputError
            `draw` is more than tune + draws.
        IncompleteTraceError
            A chain has not recorded that many draws.
        ChainBusyError
            Another process is splitting, dropping or finishing.

        See Also
        --------
        Trace.dropped : How many draws were dropped.
        Trace.set_burn_in : Leave draws out without deleting them.

        Notes
        -----
        It takes the time of removing files: chunks that also hold later draws are kept as they are.
        It can be called while chains are recorded. After a kill either all or none of the draws
        exist, and the next call removes their remaining files. In a finished trace the arrays
        begin at `draw` afterwards, right for other readers: as in `split_warmup`, whole chunks are
        linked, and arrays whose chunks the draw cuts are written again.

        Examples
        --------
        >>> import zarrtrace as zt
        >>> trace = zt.create("run.zarr", chains=1, draws=4, posterior={"mu": 0.0})
        >>> with trace.writer(0) as writer:
        ...     writer.record_block({"mu": [5.0, 1.0, 2.0, 3.0]})
        >>> trace.drop_before(1)
        >>> trace.get("mu")
        array([[1., 2., 3.]])
        >>> trace.recorded
        array([4])
        """
        change.drop_before(self._hierarchy, draw)

    def extend(self, draws: int | None) -> Trace:
        """Allow more draws in every chain, even in a finished trace.

        Parameters
        ----------
        draws : int or None
            How many more draws each chain gets; `run` or the writers record them after the existing
            ones, from the last checkpoint. None for any number, without a fixed end; a
            trace without one gets an end that many draws after those of its longest chain.

        Returns
        -------
        Trace
            This trace, no longer finished.

        Raises
        ------
        InvalidInputError
            `draws` is neither None nor a whole number from 1.
        ChainBusyError
            Another process is splitting, dropping or finishing.

        See Also
        --------
        run : Record the new draws.
        ChainWriter.resume : Continue a chain.

        Notes
        -----
        Any process may call it while chains are recorded: their writers continue as if the new
        number had been declared from the beginning.

        Examples
        --------
        >>> import zarrtrace as zt
        >>> trace = zt.create("run.zarr", chains=1, draws=2, posterior={"mu": 0.0})
        >>> with trace.writer(0) as writer:
        ...     writer.record_block({"mu": [1.0, 2.0]})
        >>> trace.finish()
        >>> trace = trace.extend(3)
        >>> trace.draws, trace.status
        (5, 'stopped')
        """
        change.extend(self._hierarchy, draws)
        return self

    def request_stop(self, at: int | None = None, *, now: bool = False, reason: str = "") -> int:
        """Ask every chain to stop at the same draw, from any process that can write to the store.

        The writers see it within a second on a disk, elsewhere at their next flush. Then
        `writer.total` is that draw, and once a chain has it, `writer.stop_requested` is true and
        `record()` raises a StopRequestedError: a chain of `zarrtrace.run` ends well by it. When all
        chains have the draw, the trace is complete, and `extend` continues from there.

        Parameters
        ----------
        at : int, optional
            The number of draws of a chain, warmup included. By default the next end of a chunk
            that no chain will have passed, so that all end equal and no chunk is cut.
        now : bool, default False
            Whether each chain stops as soon as it sees the request, with the draws that it has.
        reason : str, default ""
            Why, for everybody who looks at the run.

        Returns
        -------
        int
            The draw at which chains end; 0 for at once. A chain with more draws ends at once.

        Raises
        ------
        FinishedError
            The run is finished.
        InvalidInputError
            All chains have their draws already, or `at` is not before the end of the run.
        NotWritableError
            The trace is open read-only.
        ChainBusyError
            Another process is splitting, extending or finishing the trace just now.

        See Also
        --------
        Trace.cancel_stop : Take the request back.
        zarrtrace.Converged : A goal, at which `run` stops the chains.

        Examples
        --------
        >>> import zarrtrace as zt
        >>> trace = zt.create(chains=1, draws=100, posterior={"mu": 0.0})
        >>> with trace.writer(0) as writer:
        ...     while not writer.stop_requested:
        ...         writer.record({"mu": float(writer.recorded)})
        ...         if writer.recorded == 5:
        ...             at = trace.request_stop(at=8, reason="enough for an example")
        >>> trace.recorded.tolist(), trace.status
        ([8], 'complete')
        """
        from .life.stop import request_stop

        asked = request_stop(self._hierarchy, at, now=now, reason=reason)
        if not asked.living:
            warn_caller(
                f"no chain of {self.path} is recorded now, as far as this process can tell: those "
                f"that continue will stop there; cancel_stop() takes it back"
            )
        return asked.at

    def cancel_stop(self) -> bool:
        """Take the request of `request_stop` back: chains that still run continue to their end.

        Those that have stopped continue when they are run again.

        Returns
        -------
        bool
            Whether there was a request.

        Raises
        ------
        NotWritableError, ChainBusyError
            As `request_stop`.

        See Also
        --------
        Trace.request_stop : Ask the chains to stop.

        Examples
        --------
        >>> import zarrtrace as zt
        >>> trace = zt.create(chains=1, draws=100, posterior={"mu": 0.0})
        >>> with trace.writer(0) as writer:
        ...     at = trace.request_stop(at=8)
        ...     print(writer.total, trace.cancel_stop(), writer.total)
        8 True 100
        """
        from .life.stop import cancel_stop

        return cancel_stop(self._hierarchy)

    @property
    def stop_request(self) -> StopRequest | None:
        """The request that the run stops, with its draw, who asked, when and why; None without."""
        return self._now().end.request

    def finish(self, chains: int | Iterable[int] | None = None) -> None:
        """Finish the trace: split it if necessary, trim it to the recorded draws, consolidate.

        Then it accepts no more draws, and `xarray.open_datatree(path, engine="zarr")` and, with
        ArviZ 1.x, `arviz.from_zarr(path)` read it without zarrtrace. Chains of unequal length are
        cut to the shortest there, as a warning and their attributes say; zarrtrace still reads all
        of them. Calling it again, also after a kill, completes it.

        Parameters
        ----------
        chains : int or iterable of int, optional
            The chains to finish with; all by default. The others are left out of all views,
            as the attribute `chains_left_out` says. Their draws are kept: `get` and `dataset` read
            them with `chains=`, and `extend` brings them back. You can choose again later.

        Raises
        ------
        ChainBusyError
            A chain is being recorded.
        ChainError
            There is no such chain, or only some of the chains of one writer.
        IncompleteTraceError
            One of the chains has no draws after warmup; or its writer was killed on another
            machine, where a journal on a local disk may hold its last draws.

        See Also
        --------
        Trace.extend : Allow more draws again.
        Trace.pack : Write a finished trace to one file.

        Examples
        --------
        >>> import xarray as xr
        >>> import zarrtrace as zt
        >>> trace = zt.create("run.zarr", chains=3, tune=1, draws=2, posterior={"mu": 0.0})
        >>> for chain in (0, 2):
        ...     with trace.writer(chain) as writer:
        ...         writer.record_block({"mu": [0.0, 1.0, 2.0]})

        Chain 1 died before its first draw:

        >>> trace.finish(chains=[0, 2])
        >>> xr.open_datatree("run.zarr", engine="zarr").posterior.mu.values
        array([[1., 2.],
               [1., 2.]])
        """
        unequal = change.finish(self._hierarchy, chains)
        for table in self._tables.values():
            table.flush()
        if unequal:
            warn_caller(unequal)

    def check(self) -> list[Damage]:
        """Read everything, and return what is damaged or missing.

        With `checksum=True` at creation every flipped bit of a chunk is found; otherwise only what
        cannot be decoded.

        Returns
        -------
        list of Damage
            Empty when nothing is wrong; each item has a text. Draws that cannot be read are
            `DamagedDraws`, with their group, variable, block of chains and draws.

        See Also
        --------
        Trace.repair : Fix what is found.
        DamagedDraws : Draws that cannot be read.

        Examples
        --------
        >>> import os
        >>> import zarrtrace as zt
        >>> trace = zt.create(
        ...     "run.zarr", chains=1, draws=4, draws_per_chunk=2, posterior={"mu": 0.0}
        ... )
        >>> with trace.writer(0) as writer:
        ...     writer.record_block({"mu": [0.1, 0.2, 0.3, 0.4]})
        >>> trace.finish()
        >>> trace.check()
        []
        >>> os.remove("run.zarr/posterior/mu/c.0.1")
        >>> [damage] = trace.check()
        >>> damage.variable, damage.draws
        ('mu', range(2, 4))
        """
        from .life.check import check

        change.warn_of_journals_elsewhere(self._location, self._layout)
        found = list(check(self._location, self._layout))
        for name in self.tables:
            damages = self.table(name).check()
            found += [replace(one, path=f"{TABLES}/{name}/{one.path}") for one in damages]
        return found

    def repair(self) -> list[str]:
        """Fix what `check` finds: keep all that can be kept, and report exactly what was lost.

        It completes an interrupted split or finish, removes files of killed processes, and
        makes documents and counts again from the existing files. A chunk that cannot be decoded is
        moved away, on a local disk to `PATH.damaged`: its floats and times then read
        as missing values, its other dtypes raise `DamagedTraceError`, and the attribute
        `lost_draws` of the variable names the draws.

        Returns
        -------
        list of str
            What was done, and what has to be restored from a copy.

        Raises
        ------
        ChainBusyError
            A chain is being recorded.

        See Also
        --------
        Trace.check : Find what is damaged.

        Examples
        --------
        >>> import os
        >>> import zarrtrace as zt
        >>> trace = zt.create(
        ...     "run.zarr", chains=1, draws=4, draws_per_chunk=2, posterior={"mu": 0.0}
        ... )
        >>> with trace.writer(0) as writer:
        ...     writer.record_block({"mu": [0.1, 0.2, 0.3, 0.4]})
        >>> trace.finish()
        >>> os.remove("run.zarr/posterior/mu/c.0.1")
        >>> [report] = trace.repair()
        >>> print(report)
        posterior/mu, chain 0, draws 2 to 3: ... these draws of posterior/mu read as missing values
        >>> trace.get("mu")
        array([[0.1, 0.2, nan, nan]])
        """
        done = change.repair_trace(self._hierarchy)
        for name in self.tables:
            done += [f"{TABLES}/{name}/{line}" for line in self.table(name).repair()]
        return done

    def add_group(
        self, name: str, data: Definition | xr.Dataset, *, overwrite: bool = False
    ) -> None:
        """Add a group that is given whole, at any time: predictions, log likelihoods, data.

        Parameters
        ----------
        name : str
            The group's name.
        data : xarray.Dataset, DataTree node, or mapping
            Any dimensions are allowed; chain and draw come first and are stored by chain.
            Arrays of dask are written piece by piece.
        overwrite : bool, default False
            Whether to replace a group of this name that was given whole.

        Raises
        ------
        TraceExistsError
            There is such a group already, and `overwrite` is False.
        InvalidInputError
            There is a sampled group of this name.
        SchemaError
            Something in it cannot be stored, or disagrees with the coordinates of the trace.
        ChainBusyError
            Another process changes the trace just now.

        See Also
        --------
        Trace.remove_group : Remove it again.
        Trace.update : Add the groups of a result.

        Notes
        -----
        Killed anywhere, the trace has the group as it was or as it shall be, and the next
        `open(mode="a")` does what is left. So has every reader of zarrtrace: what it has opened
        before stays what it is on a local disk, and raises StaleViewError elsewhere when it is
        read after the group was replaced. Other readers shall open the trace again.

        Examples
        --------
        >>> import zarrtrace as zt
        >>> trace = zt.create("run.zarr", chains=1, draws=3, posterior={"mu": 0.0})
        >>> with trace.writer(0) as writer:
        ...     writer.record_block({"mu": [0.1, 0.2, 0.3]})
        >>> trace.add_group("posterior_predictive", {"y": 2 * trace.posterior.mu})
        >>> trace.add_group("observed_data", {"y": 0.5})
        >>> trace.groups
        ('posterior', 'posterior_predictive', 'observed_data')
        """
        change.add_group(self._hierarchy, name, data, overwrite)

    def remove_group(self, name: str) -> None:
        """Remove a group that was given whole.

        Parameters
        ----------
        name : str
            The group's name.

        Raises
        ------
        GroupNotFoundError
            There is no such group.
        InvalidInputError
            The group is sampled: draws are never removed.
        ChainBusyError
            Another process changes the trace just now.

        See Also
        --------
        Trace.add_group : Add a group.

        Notes
        -----
        What holds of a group that `add_group` replaces holds of one that is removed.

        Examples
        --------
        >>> import zarrtrace as zt
        >>> trace = zt.create("run.zarr", chains=1, draws=3, posterior={"mu": 0.0})
        >>> trace.add_group("observed_data", {"y": 0.5})
        >>> trace.remove_group("observed_data")
        >>> trace.groups
        ('posterior',)
        """
        change.remove_group(self._hierarchy, name)

    def update(self, results: Any, *, overwrite: bool = False) -> list[str]:
        """Add the groups of a result that are not sampled here, and return their names.

        These are predictions, priors or data.

        Parameters
        ----------
        results : xarray.DataTree, arviz.InferenceData, str or path
            The groups; a path is a netCDF file. What is lazy is read in pieces.
        overwrite : bool, default False
            Whether groups that were given whole are replaced; otherwise they are left as they are.
            Sampled groups always are.

        Returns
        -------
        list of str
            The groups that were taken, one after the other: an error leaves those before it.

        Raises
        ------
        TraceNotFoundError
            There is no such file.
        InvalidInputError
            It is not a result, or the file is not one that xarray can open.
        SchemaError, ChainBusyError
            As `add_group`.

        See Also
        --------
        Trace.add_group : Add one group.

        Examples
        --------
        The result is what ArviZ or PyMC return, such as that of `pymc.sample_posterior_predictive`:

        >>> import xarray as xr
        >>> import zarrtrace as zt
        >>> trace = zt.create("run.zarr", chains=1, draws=3, posterior={"mu": 0.0})
        >>> result = xr.DataTree.from_dict({"observed_data": xr.Dataset({"y": 0.5})})
        >>> trace.update(result)
        ['observed_data']
        >>> trace.observed_data.y.item()
        0.5
        """
        return change.update(self._hierarchy, results, overwrite)

    # Copies -------------------------------------------------------------------------------

    def compact(
        self,
        error: float = 1 / 16,
        *,
        dry_run: bool = False,
        keep: str | os.PathLike[str] | None = None,
        force: bool = False,
        memory: float = 2.5e8,
        scratch: str | os.PathLike[str] | None = None,
        progress: bool = True,
    ) -> pd.DataFrame:
        """Round the draws of a finished trace to a part of their Monte Carlo errors, in place.

        Most bits of a draw are noise that no result depends on. Each element of a floating-point
        variable is rounded to a multiple of a power of two, which is at most `error` times the
        smallest Monte Carlo standard error of its mean, 5 %, 50 % and 95 % quantile, and stored
        with a codec that profits. The trace becomes three to four times smaller, and every Zarr
        reader reads it. The bits are gone for good.

        These stay exact: the last draw of each chain, the sampling state, unnormalised densities
        such as `lp`, elements whose error is unknown or 0 (constant, or with NaN or infinities),
        and all that is not floating-point or complex. `log_likelihood` and `log_prior` are
        rounded to 1/64 at most. Draws of warmup are rounded like the others. After a kill, opening
        the trace with mode "a" completes it.

        Parameters
        ----------
        error : float, default 1/16
            The largest quantum as a part of the smallest Monte Carlo error, above 0 and at most 1.
        dry_run : bool, default False
            Whether only to compute what it would save and change.
        keep : str or path, optional
            Where to copy the trace with all its bits, before it is rounded.
        force : bool, default False
            Whether to round draws whose Monte Carlo errors are not known well: R-hat exceeds 1.05,
            or there are fewer than 100 effective draws.
        memory : float, default 2.5e8
            Bytes that the Monte Carlo errors may use. A larger variable is transposed once through
            a file.
        scratch : str or path, optional
            The directory of that file, by default that of `tempfile`.
        progress : bool, default True
            Whether there is a bar on a terminal where it takes longer than a second.

        Returns
        -------
        pandas.DataFrame
            A row for each sampled variable: the bytes of its chunks `before` and `after`, and the
            `smallest` and the `largest` quantum of its elements. With `dry_run` also the largest
            changes of `mean`, `sd`, `q05`, `q50` and `q95` in units of their Monte Carlo errors,
            of `ess_bulk` and `ess_tail` as a part of themselves, and of `r_hat`.

        Raises
        ------
        IncompleteTraceError
            The trace is not finished, or the Monte Carlo errors of its posterior are not known.
        InvalidInputError
            `error` is not between 0 and 1.
        TraceExistsError
            There is something at `keep`.

        See Also
        --------
        Var : Round a variable while it is recorded.
        Trace.pack : Write the trace to one file.

        Examples
        --------
        >>> import numpy as np
        >>> import zarrtrace as zt
        >>> trace = zt.create("run.zarr", chains=4, draws=1000, posterior={"mu": 0.0})
        >>> rng = np.random.default_rng(1)
        >>> for chain in range(4):
        ...     with trace.writer(chain) as writer:
        ...         writer.record_block({"mu": rng.normal(size=1000)})
        >>> trace.finish()
        >>> table = trace.compact()
        >>> bool(table.before["posterior/mu"] > 3 * table.after["posterior/mu"])
        True
        >>> trace.posterior.mu.attrs["rounded_to"] == 2**-10
        True
        """
        from .life.compact import Compaction
        from .store.locate import locate

        compaction = Compaction(error, force, dry_run, memory, scratch, progress)
        if dry_run:
            return change.preview_compaction(self._hierarchy, compaction)
        return change.compact(self._hierarchy, compaction, None if keep is None else locate(keep))

    def pack(self, path: str | os.PathLike[str] | None = None) -> Path:
        """Write a finished trace to one .zip file, which is not compressed again.

        Parameters
        ----------
        path : str or path, optional
            A file that does not exist; by default `run.zarr.zip` beside `run.zarr`.

        Returns
        -------
        pathlib.Path
            The file, for `zarrtrace.open`, and for other readers as a `zarr.storage.ZipStore`.

        Raises
        ------
        IncompleteTraceError
            The trace is not finished.
        TraceExistsError
            There is a file already.
        InvalidInputError
            The name does not end in .zip, or the place is inside of the trace.

        See Also
        --------
        open : Opens the file as well.
        Trace.to_netcdf : Write a netCDF file.

        Examples
        --------
        >>> import zarrtrace as zt
        >>> trace = zt.create("run.zarr", chains=1, draws=2, posterior={"mu": 0.0})
        >>> with trace.writer(0) as writer:
        ...     writer.record_block({"mu": [0.1, 0.2]})
        >>> trace.finish()
        >>> trace.pack().name
        'run.zarr.zip'
        >>> zt.open("run.zarr.zip").get("mu")
        array([[0.1, 0.2]])
        """
        from .life.pack import pack

        # Rows that wait in memory, or in a journal, are in no file that a zip has.
        for table in self._tables.values():
            table.flush()
        return pack(self._hierarchy, path)

    # Reading ------------------------------------------------------------------------------

    def at_once(self) -> Snapshot:
        """A `Snapshot` of the trace as it is now, to read several things at one moment.

        Returns
        -------
        Snapshot
            It has `recorded`, `groups`, the groups as attributes and items, `dataset`,
            `to_datatree`, `to_inferencedata`, `get` and `ragged`, all of the moment of this call.
            Each of these calls on the trace itself reads its own moment.

        See Also
        --------
        Snapshot : What is returned.

        Examples
        --------
        >>> import zarrtrace as zt
        >>> trace = zt.create("run.zarr", chains=1, draws=100, posterior={"mu": 0.0})
        >>> with trace.writer(0) as writer:
        ...     writer.record({"mu": 0.1})
        ...     now = trace.at_once()
        ...     writer.record({"mu": 0.2})
        >>> now.get("mu"), now.recorded
        (array([[0.1]]), array([1]))
        >>> trace.get("mu")
        array([[0.1, 0.2]])
        """
        return Snapshot(self._now())

    def watch(self, *, every: float = 2.0, var_names: Sequence[str] = ()) -> View:
        """Show how the run does while it runs, in place: in a notebook, or in a terminal.

        It shows what `zarrtrace watch PATH` shows. Chains may be recorded in this process or in
        any other one. Without a notebook or a terminal nothing is shown.

        Parameters
        ----------
        every : float, default 2
            Seconds from one look to the next.
        var_names : sequence of str
            Variables that are always shown.

        Returns
        -------
        View
            At once: a thread draws it again until the run is over, or until `view.stop()`.
            `view.wait(seconds)` waits for that, and `view.seen` is the last look.

        Raises
        ------
        InvalidInputError
            `every` is not a number of seconds above 0.
        VariableNotFoundError
            The posterior has no such variable.

        See Also
        --------
        Trace.status : The state of the run in one word.

        Examples
        --------
        >>> import numpy as np
        >>> import zarrtrace as zt
        >>> trace = zt.create("run.zarr", chains=2, draws=100, posterior={"mu": 0.0})
        >>> view = trace.watch(every=0.1)
        >>> for chain in range(2):
        ...     with trace.writer(chain) as writer:
        ...         writer.record_block({"mu": np.random.default_rng(chain).normal(size=100)})
        >>> view.wait(60)
        True
        >>> view.seen.status, view.seen.rhat_draws
        ('complete', 100)
        """
        from .watching.follow import Watched
        from .watching.notebook import View
        from .watching.watcher import Watcher

        if (
            isinstance(every, bool)
            or not isinstance(every, int | float)
            or not 0 < every < math.inf
        ):
            raise InvalidInputError(f"every must be a number of seconds above 0, got {every!r}")
        make_watcher = partial(Watcher, var_names=tuple(var_names))
        return View(Watched(self._hierarchy, make_watcher), every)

    def summary(
        self,
        var_names: str | Sequence[str] | None = None,
        filter_vars: Literal["like", "regex"] | None = None,
        coords: Mapping[Hashable, Any] | None = None,
        *,
        group: str = "posterior",
        kind: str = "all",
        ci_prob: float | None = None,
        ci_kind: Literal["hdi", "eti"] | None = None,
        round_to: int | str | None = "auto",
        skipna: bool = False,
        superchains: Sequence[int] | None = None,
        memory: float = 1e9,
        scratch: str | os.PathLike[str] | None = None,
        threads: int = 1,
        progress: bool = True,
    ) -> pd.DataFrame:
        """What the draws say, and how far they can be trusted: the table of `arviz.summary`.

        It has the columns, intervals and rounding of the ArviZ that is installed, and its numbers.
        It is faster, and takes a trace that is still recorded, one whose chains differ in length
        (longer ones are cut to the shortest, with a warning), and one that is larger than memory.

        Parameters
        ----------
        var_names : str or sequence of str, optional
            The variables; with "~" in front those to leave out. By default all that are numbers.
        filter_vars : {"like", "regex"}, optional
            Whether `var_names` are parts of names, or regular expressions.
        coords : mapping, optional
            Labels of dimensions, as for `xarray.Dataset.sel`; also of `chain` and `draw`.
        group : str, default "posterior"
            A sampled group, such as `warmup_posterior`.
        kind : str, default "all"
            `all`, `stats` or `diagnostics`, or one of these followed by `_median`; with ArviZ 1.x
            `mc_diagnostics`. `moments` is what can be computed while every draw is read once,
            without a file: see Notes.
        ci_prob : float, optional
            The probability of the interval, by default that of ArviZ's `rcParams`.
        ci_kind : {"hdi", "eti"}, optional
            The interval: the shortest one, or with equal tails.
        round_to : int or str, default "auto"
            As for `arviz.summary`; "none" rounds nothing.
        skipna : bool, default False
            Whether mean, sd, median, mad, quantiles and the interval leave NaN out.
        superchains : sequence of int, optional
            The superchain of each chain, by default what `create` was given: chains of one
            superchain began at the same point. With them a table that has R-hat has nested R-hat
            too.
        memory : float, default 1e9
            Bytes that may be used. A larger variable is transposed once through a file, but not
            for `moments`.
        scratch : str or path, optional
            The directory of that file, by default that of `tempfile`.
        threads : int, default 1
            How many blocks of scalars are computed at the same time.
        progress : bool, default True
            Whether there is a bar on a terminal where it takes longer than a second.

        Returns
        -------
        pandas.DataFrame
            A row for each scalar; of ArviZ 1.x a `SummaryDataFrame`. NaN stands for a variable
            with a damaged chunk, and a warning names it.

        Raises
        ------
        IncompleteTraceError
            There is no draw after warmup yet.
        GroupNotFoundError, VariableNotFoundError
            There is no such group, or no such variable.
        InvalidInputError
            The installed ArviZ does not have the `kind`, `coords` chooses nothing, `superchains` do
            not fit the chains, or `scratch` or `memory` has too little room.

        See Also
        --------
        Trace.diagnose : Whether the draws can be trusted.

        Notes
        -----
        The columns of `kind="moments"` are `mean`, `sd`, `r_hat_split` (`arviz.rhat` with
        `method="split"`, without ranks), `mcse_mean_batch` (the standard error of the mean by batch
        means, too small where chains mix slowly) and three quantiles, such as `kll_50%`, by KLL
        sketches. The rank of such a quantile among all draws is wrong by `kll_rank_error` at most,
        as a part of all draws, with 99 % confidence; 0 says that it is exact. Sketches are as large
        as `memory` allows. They need the package datasketches: `pip install 'zarrtrace[sketch]'`.

        Examples
        --------
        >>> import numpy as np
        >>> import zarrtrace as zt
        >>> trace = zt.create("run.zarr", chains=4, draws=500, posterior={"mu": 0.0})
        >>> rng = np.random.default_rng(1)
        >>> for chain in range(4):
        ...     with trace.writer(chain) as writer:
        ...         writer.record_block({"mu": rng.normal(size=500)})
        >>> table = trace.summary(round_to="none")
        >>> table.loc["mu", ["mean", "sd"]].round(2).to_dict()
        {'mean': -0.01, 'sd': 1.01}
        """
        from .diagnostics.frame import choose_style
        from .diagnostics.selection import Selection, superchains_of, warn_of_left_out
        from .diagnostics.summary import summarise, summarise_in_one_pass

        style = choose_style(kind, ci_prob, ci_kind, round_to)
        selection = Selection(self._now(), group, var_names, filter_vars, coords)
        warn_of_left_out(selection)
        of_chains = superchains_of(selection, superchains)
        if kind == "moments":
            return summarise_in_one_pass(
                selection, style, skipna=skipna, memory=memory, progress=progress
            )
        return summarise(
            selection,
            style if of_chains is None else style.with_nested(),
            skipna=skipna,
            superchains=of_chains or (),
            memory=memory,
            scratch=scratch,
            threads=threads,
            progress=progress,
        )

    def diagnose(
        self,
        var_names: str | Sequence[str] | None = None,
        filter_vars: Literal["like", "regex"] | None = None,
        coords: Mapping[Hashable, Any] | None = None,
        *,
        group: str = "posterior",
        rhat_max: float = 1.01,
        ess_min_ratio: float = 0.001,
        ess_threshold: float | None = None,
        bfmi_threshold: float = 0.3,
        memory: float = 1e9,
        scratch: str | os.PathLike[str] | None = None,
        threads: int = 1,
        progress: bool = True,
    ) -> Verdict:
        """Whether the draws can be trusted, and if not, where the trouble is and what to do next.

        It checks what `arviz.diagnose` of ArviZ 1.x checks, with its thresholds: divergences,
        the maximum tree depth, E-BFMI, effective sample sizes and R-hat.

        Parameters
        ----------
        var_names : str or sequence of str, optional
            The variables; with "~" in front those to leave out. By default all that are numbers.
        filter_vars : {"like", "regex"}, optional
            Whether `var_names` are parts of names, or regular expressions.
        coords : mapping, optional
            Labels of dimensions, as for `summary`.
        group : str, default "posterior"
            A sampled group, such as `warmup_posterior`.
        rhat_max : float, default 1.01
            A larger R-hat is a problem; the larger one of the rank-normalised and the folded one.
        ess_min_ratio : float, default 0.001
            An ESS, of bulk or tail, is a problem if it is a smaller share of the draws.
        ess_threshold : float, optional
            A smaller bulk ESS is a problem; by default 100 for each chain.
        bfmi_threshold : float, default 0.3
            A smaller E-BFMI is a problem.
        memory : float, default 1e9
            Bytes that may be used, as for `summary`.
        scratch : str or path, optional
            The directory of a file for larger variables, by default that of `tempfile`.
        threads : int, default 1
            How many blocks of scalars are computed at the same time.
        progress : bool, default True
            Whether there is a bar on a terminal where it takes longer than a second.

        Returns
        -------
        Verdict
            It is true if the draws are good: no check failed, and R-hat and ESS could be computed.
            Printed it is the verdict in sentences. `findings` has one for each check, and
            `as_dict()` returns all of it for JSON.

        Raises
        ------
        IncompleteTraceError
            There is no draw after warmup yet.
        GroupNotFoundError, VariableNotFoundError, InvalidInputError
            As `summary`.

        See Also
        --------
        Trace.summary : The numbers of each variable.

        Examples
        --------
        >>> import numpy as np
        >>> import zarrtrace as zt
        >>> trace = zt.create("run.zarr", chains=4, draws=500, posterior={"mu": 0.0})
        >>> rng = np.random.default_rng(1)
        >>> for chain in range(4):
        ...     with trace.writer(chain) as writer:
        ...         writer.record_block({"mu": rng.normal(size=500) + (chain == 3)})
        >>> verdict = trace.diagnose()
        >>> bool(verdict)
        False
        >>> [finding.check for finding in verdict.problems]
        ['ess', 'rhat']
        """
        from .diagnostics.verdict import diagnose

        return diagnose(
            self._now(),
            group,
            var_names,
            filter_vars,
            coords,
            rhat_max=rhat_max,
            ess_min_ratio=ess_min_ratio,
            ess_threshold=ess_threshold,
            bfmi_threshold=bfmi_threshold,
            memory=memory,
            scratch=scratch,
            threads=threads,
            progress=progress,
        )

    def report(
        self,
        path: str | os.PathLike[str] = "report.html",
        var_names: str | Sequence[str] | None = None,
        *,
        overwrite: bool = False,
        memory: float = 1e9,
        scratch: str | os.PathLike[str] | None = None,
        threads: int = 1,
        progress: bool = True,
    ) -> Path:
        """Write one HTML page that shows the run, and opens offline in any browser.

        It has the verdict and the table of `diagnose` and `summary`, traces with R-hat on them,
        rank plots, R-hat and ESS over draws, energies, divergences in parameter space, how far each
        chain is, and what was run. The table and the distributions of R-hat and ESS have all
        scalars; drawn are those of `var_names` and the 50 worst ones.

        Parameters
        ----------
        path : str or path, default "report.html"
            The file. It is there when it is whole.
        var_names : str or sequence of str, optional
            Variables whose scalars are drawn first, at most 100 of each.
        overwrite : bool, default False
            Whether to replace an existing file.
        memory : float, default 1e9
            Bytes that may be used, as for `summary`.
        scratch : str or path, optional
            The directory of a file for larger variables, by default that of `tempfile`.
        threads : int, default 1
            How many blocks of scalars are computed at the same time.
        progress : bool, default True
            Whether there is a bar on a terminal where it takes longer than a second.

        Returns
        -------
        pathlib.Path
            The file.

        Raises
        ------
        TraceExistsError
            There is a file, and `overwrite` is False.
        VariableNotFoundError
            The posterior has no such variable.
        InvalidInputError
            Bokeh, which draws it, is not installed, or the directory does not exist.

        See Also
        --------
        Trace.summary : The numbers of the table.
        Trace.diagnose : The verdict.
        Trace.watch : Look at a run while it runs.

        Notes
        -----
        A run that is still recorded has a report too, of this moment. Draws are thinned for
        drawing by the smallest and the largest one of each column of pixels, so that no spike is
        lost.

        Examples
        --------
        >>> import numpy as np
        >>> import zarrtrace as zt
        >>> trace = zt.create("run.zarr", chains=4, draws=500, posterior={"mu": 0.0})
        >>> rng = np.random.default_rng(1)
        >>> for chain in range(4):
        ...     with trace.writer(chain) as writer:
        ...         writer.record_block({"mu": rng.normal(size=500)})
        >>> trace.report("run.html").name
        'run.html'
        """
        from .report.write import write_report

        return write_report(
            self._hierarchy,
            path,
            var_names,
            overwrite=overwrite,
            memory=memory,
            scratch=scratch,
            threads=threads,
            progress=progress,
        )

    def _now(self) -> Moment:
        return Moment.of(self._hierarchy)

    @property
    def segments(self) -> Segments:
        """The segments: runs of draws with attributes and arrays of their own.

        Samplers that work in blocks keep in them what they know of each block. It is a sequence, as
        it is at that moment; `segments.add(n)` after `record_block` adds a segment for the last n
        draws.

        See Also
        --------
        zarrtrace.tables.segments.Segments : What is returned.

        Examples
        --------
        >>> import zarrtrace as zt
        >>> trace = zt.create("run.zarr", chains=1, draws=4, posterior={"mu": 0.0})
        >>> with trace.writer(0) as writer:
        ...     writer.record_block({"mu": [0.1, 0.2]})
        ...     trace.segments.add(2, {"step_size": 0.5})
        >>> trace.segments[0].attrs
        {'step_size': 0.5}
        """
        from .tables.segments import Segments

        return Segments(self)

    @property
    def tables(self) -> tuple[str, ...]:
        """The names of the tables beside the draws, in the order in which they were made."""
        from .tables import table

        return table.names(self._location)

    def table(
        self,
        name: str,
        columns: Mapping[str, Var | DTypeLike] | None = None,
        *,
        attrs: Mapping[str, Any] | None = None,
        flush_every: float = 1.0,
    ) -> Table:
        """A table beside the draws: rows of typed columns, appended at any time.

        Parameters
        ----------
        name : str
            The table's name; it is made if it is missing and this trace is open for writing.
        columns : mapping of str to Var or dtype, optional
            Its columns. Without them the first row declares them, as an example.
        attrs : mapping, optional
            Attributes of a new table: strings, numbers, lists of these.
        flush_every : float, default 1
            Seconds that rows with text may wait in memory; with 0 they are safe at once, at the
            price of a file for each column of text.

        Returns
        -------
        Table
            The same object each time, so it can be looked up wherever a row is appended.

        Raises
        ------
        TraceNotFoundError
            There is no such table, and the trace is read-only.
        SchemaError
            A column cannot be stored, or the table has different columns.

        See Also
        --------
        Trace.tables : The names of the tables.
        zarrtrace.table.open : A table at a place of its own.

        Examples
        --------
        >>> import zarrtrace as zt
        >>> trace = zt.create("run.zarr", chains=1, draws=4, posterior={"mu": 0.0})
        >>> warnings = trace.table("warnings", {"draw": int, "text": str})
        >>> warnings.append(draw=3, text="the step size is small")
        >>> trace.close()
        >>> trace.table("warnings")["draw"]
        array([3])
        """
        from .tables.table import Table

        name = check_name(name, "table")
        if name not in self._tables:
            location = self._location.below(f"{TABLES}/{name}")
            table = Table(
                location,
                columns,
                attrs=attrs,
                flush_every=flush_every,
                require_trace=partial(getattr, self._hierarchy, "layout"),
            )
            if not table._exists() and location.read_only:
                known = ", ".join(self.tables) or "none"
                raise TraceNotFoundError(
                    f"{self.path} has no table {name!r}; it has {known}, and is open read-only"
                )
            if not location.read_only and not self._location.exists(f"{TABLES}/zarr.json"):
                document = encode_document(group_document())
                self._location.write(f"{TABLES}/zarr.json", document)
            self._tables[name] = table
        elif columns is not None:
            self._tables[name]._require(columns)
        return self._tables[name]

    def last_checkpoint(
        self, chains: int | range | Sequence[int], like: Any = None
    ) -> tuple[int, Any]:
        """The last checkpoint of a chain, or of a block of chains: from any process, at any time.

        Parameters
        ----------
        chains : int, range or sequence of int
            As for `writer`.
        like : optional
            A state of the same structure, as for `ChainWriter.resume`.

        Returns
        -------
        draws : int
            The draws it belongs to, warmup included; where the trace thins, as many as the writer
            was given.
        state : object or None
            The state passed to `ChainWriter.checkpoint`; (0, None) without a checkpoint.

        Raises
        ------
        DamagedTraceError
            It cannot be read.

        See Also
        --------
        ChainWriter.checkpoint : Keep a state.
        ChainWriter.resume : Continue from it.

        Examples
        --------
        >>> import zarrtrace as zt
        >>> trace = zt.create("run.zarr", chains=1, draws=10, posterior={"mu": 0.0})
        >>> with trace.writer(0) as writer:
        ...     writer.record({"mu": 0.1})
        ...     writer.checkpoint({"step_size": 0.5})
        >>> trace.last_checkpoint(0)
        (1, {'step_size': 0.5})
        """
        found = last_checkpoint(self._block(self._block_of(chains)), like)
        return (found.draws * self.thin + found.skipped, found.state) if found else (0, None)

    # Life ---------------------------------------------------------------------------------

    def close(self) -> None:
        """Close the writers and tables that this process has opened through this object.

        Afterwards the trace can still be read, and opens further writers. Closing it again does
        nothing.

        See Also
        --------
        ChainWriter.close : Close one writer.

        Examples
        --------
        >>> import zarrtrace as zt
        >>> trace = zt.create("run.zarr", chains=2, draws=10, posterior={"mu": 0.0})
        >>> writers = [trace.writer(chain) for chain in range(2)]
        >>> trace.close()
        >>> [writer.closed for writer in writers]
        [True, True]
        """
        # All of them are closed, even if one cannot be flushed.
        with ExitStack() as stack:
            for table in self._tables.values():
                stack.callback(table.close)
            for writer in list(self._writers):
                stack.callback(writer.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (self._hierarchy.location, self._patience)

    def _beside(self) -> Beside:
        """The tables and segments, for descriptions of the trace."""
        from .life.description import Beside, DescribedTable

        names = self.tables
        tables = [(name, self.table(name)) for name in names if not is_of_segments(name)]
        segments = self.segments if any(map(is_of_segments, names)) else ()
        return Beside(
            [DescribedTable(name, table.columns, len(table)) for name, table in tables],
            [range(segment.start, segment.stop) for segment in segments],
        )

    def __repr__(self) -> str:
        from .life import description as summary

        return summary.as_text(self._now(), self._beside())

    def _repr_html_(self) -> str:
        from .life import description as summary

        return summary.as_html(self._now())


def _reopen(location: Location, patience: float = 0.0) -> Trace:
    return Trace(Hierarchy(location))._with_patience(patience)
