"""The backend under jexplore's own name."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np

import zarrtrace as zt
from zarrtrace.errors import InvalidInputError

from .epochs import (
    Epoch,
    Kind,
    as_class,
    check_epoch,
    choose_epoch,
    kinds_of,
    read_hdf,
    require_same,
    whole,
    write_stats,
)
from .store import StoredEpochs

_AT_ONCE = 32 * 2**20  # bytes that are read at a time


class _Placed(NamedTuple):
    """An epoch: its number, its range of draws, and its content while it is in memory."""

    number: int
    draws: range
    epoch: Epoch | None


class DefaultBackend:
    """A backend that stores epochs in a trace, under jexplore's name.

    Parameters
    ----------
    burn : int, default 0
        Draws at the start that are burned, including those of future epochs.
    outdir : str or path, default "./"
        The directory of the trace; made when the first epoch is stored. Existing epochs
        belong to this backend, and further ones are added after them.
    outfile_fmt : str, default "epochs_%d.h5"
        The name of the trace, here `epochs.zarr`.
    epochs_per_file : int, default 1
        How many epochs, of the first one's length, share a chunk; more where it would be
        smaller than 64 KiB, fewer where it would be larger than 4 MiB.
    inmem_epochs : int, default 0
        How many of the newest epochs wait in memory, not stored yet: when the process ends they
        are lost, unless `close()` was called.
    save_stats : bool, default True
        Whether the statistics of an epoch are kept.
    resume : bool, default False
        Whether `reset()` keeps the stored epochs. A sampler calls it when it is made; with
        `resume=True` it continues with the existing epochs.
    parameter_names : sequence of str, optional
        A name for each dimension of `p`: the labels of `p_dim`.

    Attributes
    ----------
    path : str
        The path of the trace.

    See Also
    --------
    zarrtrace.Trace.segments : The epochs as segments of a trace.

    Notes
    -----
    In the trace `posterior` has `p` (chain, draw, p_dim), and `k` where models are selected;
    `sample_stats` has `log_likelihood` and `log_prior`, the `ll` and `lp` of an epoch. Everything
    else in an epoch is in its segment: `backend.trace.segments`. With n temperatures, chains 0,
    n, 2n, ... are those of the first one, as in the arrays of jexplore.

    Burned draws are deleted, chunk by chunk. Epochs that were burned before any was stored
    leave no trace: a later backend does not count them. From the first stored epoch to
    `close()` only this process can write; reading disturbs no writer.

    Examples
    --------
    >>> import numpy as np
    >>> from zarrtrace.adapters.jexplore import DefaultBackend
    >>> backend = DefaultBackend(outdir="run")
    >>> for number in range(2):
    ...     backend = backend.ingest({"samples": {"p": np.full((4, 3, 10), float(number))}})
    >>> backend.close()
    >>> backend.epochs
    2
    >>> backend.get_samples()["p"].shape
    (4, 3, 20)
    """

    def __init__(
        self,
        burn: int = 0,
        *,
        outdir: str | os.PathLike[str] = "./",
        outfile_fmt: str = "epochs_%d.h5",
        epochs_per_file: int = 1,
        inmem_epochs: int = 0,
        save_stats: bool = True,
        resume: bool = False,
        parameter_names: Sequence[str] | None = None,
    ) -> None:
        stem = re.sub(r"[_.-]?%\d*[ds]", "", os.path.splitext(outfile_fmt)[0]) or "epochs"
        self.path = os.path.join(os.path.abspath(os.path.expanduser(outdir)), f"{stem}.zarr")
        self.epochs_per_file = whole("epochs_per_file", epochs_per_file, least=1)
        self.inmem_epochs = whole("inmem_epochs", inmem_epochs, least=None)
        self.save_stats = save_stats
        self.resume = resume
        self.parameter_names = parameter_names
        self._burn = whole("burn", burn, least=None)
        self._stored = StoredEpochs.open(self.path)
        self._waiting: list[Epoch] = []
        # Epochs and draws that were burned before anything was stored.
        self._never_stored = (0, 0)

    # What there is ------------------------------------------------------------------------

    @property
    def trace(self) -> zt.Trace:
        """The trace of the stored epochs, read-only; TraceNotFoundError before there is one."""
        return zt.open(self.path)

    @property
    def burn(self) -> int:
        """Number of burned draws, counted from the first one ever ingested."""
        return max(self._burn, self._stored.burn) if self._stored is not None else self._burn

    @property
    def epochs(self) -> int:
        """Number of ingested epochs, including burned ones: the number of the next one."""
        stored = 0 if self._stored is None else len(self._stored)
        return self._first[0] + stored + len(self._waiting)

    @property
    def _first(self) -> tuple[int, int]:
        """The number of the first epoch in the trace or in memory, and of its first draw."""
        stored = self._stored
        return self._never_stored if stored is None else (stored.first_epoch, stored.first_draw)

    def _placed(self) -> list[_Placed]:
        """The epochs in the trace, then those in memory, including burned ones."""
        number, stop = self._first
        placed: list[_Placed] = []
        for draws in [] if self._stored is None else self._stored.ranges:
            placed.append(_Placed(number + len(placed), draws, None))
            stop = draws.stop
        for epoch in self._waiting:
            start, stop = stop, stop + _draws(epoch)
            placed.append(_Placed(number + len(placed), range(start, stop), epoch))
        return placed

    def _kept(self) -> list[tuple[_Placed, range]]:
        """The epochs that are not burned, and their remaining draws."""
        burn = self.burn
        return [
            (placed, range(max(placed.draws.start, burn), placed.draws.stop))
            for placed in self._placed()
            if placed.draws.stop > burn
        ]

    def get(self, ind: int = -1) -> Epoch:
        """An epoch as a dictionary.

        Parameters
        ----------
        ind : int, default -1
            Its number, counting burned ones; a negative one counts back from the newest.

        Returns
        -------
        dict
            The epoch as it was ingested, with those of its draws that are not burned.

        Raises
        ------
        ValueError
            It was burned.
        IndexError
            There is no such epoch.

        See Also
        --------
        DefaultBackend.get_samples : The draws of all epochs.
        DefaultBackend.load : An object of jexplore.

        Examples
        --------
        >>> import numpy as np
        >>> from zarrtrace.adapters.jexplore import DefaultBackend
        >>> backend = DefaultBackend(outdir="run")
        >>> for number in range(2):
        ...     backend = backend.ingest({"samples": {"p": np.zeros((4, 3, 10))}, "number": number})
        >>> backend.get(0)["number"], backend.get()["number"]
        (0, 1)
        """
        count = self.epochs
        if not -count <= ind < count:
            raise IndexError(f"there are {count} epochs at {self.path}; there is no epoch {ind}")
        placed = self._place(range(count)[ind], first_waiting=count - len(self._waiting))
        burn = self.burn
        if placed is None or placed.draws.stop <= burn:
            raise ValueError(f"Epoch {ind} was burned: it lies before draw {burn}")
        kept = range(max(placed.draws.start, burn), placed.draws.stop)
        samples = {name: self._values(name, placed, kept) for name in self._kinds()}
        return {**self._described(placed), "samples": samples}

    def _place(self, number: int, first_waiting: int) -> _Placed | None:
        """The place of one epoch; None when it was burned before anything was stored."""
        position = number - self._first[0]
        if self._stored is not None and position >= 0 and number < first_waiting:
            return _Placed(number, self._stored.range_of(position), None)
        return next((placed for placed in self._placed() if placed.number == number), None)

    def _described(self, placed: _Placed) -> Epoch:
        """An epoch without its samples."""
        if placed.epoch is not None:
            beside = {name: value for name, value in placed.epoch.items() if name != "samples"}
            return deepcopy(beside)
        assert self._stored is not None
        return self._stored.described(placed.number - self._stored.first_epoch)

    def _values(self, name: str, placed: _Placed, draws: range) -> np.ndarray[Any, Any]:
        """Draws of one sample of one epoch: shape (chains, dimension, draws)."""
        if placed.epoch is not None:
            first = placed.draws.start
            inside = slice(draws.start - first, draws.stop - first, draws.step)
            values: np.ndarray[Any, Any] = placed.epoch["samples"][name][..., inside].copy()
            return values
        assert self._stored is not None
        return self._stored.sample(name, draws)

    def get_samples(
        self,
        burn: int = 0,
        thin: int = 1,
        pars: Sequence[str] | None = None,
        mask: Any = Ellipsis,
        flatten: bool = False,
    ) -> dict[str, np.ndarray[Any, Any]] | None:
        """The draws of all epochs, one after the other.

        Parameters
        ----------
        burn : int, default 0
            Draws to leave out at the start, after those that are burned.
        thin : int, default 1
            Keep every `thin`-th draw, restarting in each epoch.
        pars : sequence of str, optional
            The samples; `["p"]` by default.
        mask : index of the chains, optional
            An array of booleans or numbers, or a slice; all by default.
        flatten : bool, default False
            Whether chains and draws become one axis, chain after chain.

        Returns
        -------
        dict or None
            Arrays of shape (chains, dimension, draws), or (chains × draws, dimension); None when
            nothing is left.

        Raises
        ------
        KeyError
            There is no such sample.
        IndexError
            There is no such chain.

        See Also
        --------
        DefaultBackend.flatten_samples : Make one axis of chains and draws afterwards.

        Examples
        --------
        >>> import numpy as np
        >>> from zarrtrace.adapters.jexplore import DefaultBackend
        >>> backend = DefaultBackend(outdir="run").ingest({"samples": {"p": np.zeros((4, 3, 10))}})
        >>> backend.get_samples(burn=4, thin=2)["p"].shape
        (4, 3, 3)
        >>> backend.get_samples(flatten=True)["p"].shape
        (40, 3)
        """
        names = ["p"] if pars is None else [pars] if isinstance(pars, str) else list(pars)
        left = whole("burn", burn, least=0)
        chosen = []
        for placed, draws in self._kept():
            if draws[left:]:
                # Thinning restarts in each epoch.
                chosen.append((placed, draws[left :: whole("thin", thin, least=1)]))
            left = max(left - len(draws), 0)
        if not chosen:
            return None
        samples = {name: self._sample(name, chosen, mask) for name in names}
        return self.flatten_samples(samples) if flatten else samples

    def _sample(
        self, name: str, chosen: list[tuple[_Placed, range]], mask: Any
    ) -> np.ndarray[Any, Any]:
        """The chosen draws of one sample, of the chains of a mask."""
        kind = self._kinds()[name]
        chains = np.arange(kind.chains)[mask]
        if chains.ndim != 1:
            raise IndexError(f"mask={mask!r} leaves no axis of chains; pass [{mask!r}]")
        total = sum(len(draws) for _, draws in chosen)
        found = np.empty((len(chains), *kind.shape, total), kind.dtype)
        done = 0
        for placed, draws in _joined(chosen, _AT_ONCE // kind.bytes_per_draw):
            found[..., done : done + len(draws)] = self._values(name, placed, draws)[chains]
            done += len(draws)
        return found

    def _kinds(self) -> dict[str, Kind]:
        if self._stored is not None:
            return self._stored.kinds
        return kinds_of(self._waiting[0]["samples"]) if self._waiting else {}

    @staticmethod
    def flatten_samples(
        samples: Mapping[str, np.ndarray[Any, Any]] | None,
    ) -> dict[str, np.ndarray[Any, Any]] | None:
        """The same samples with chains and draws as one axis, chain after chain.

        Parameters
        ----------
        samples : mapping of str to numpy.ndarray, or None
            The result of `get_samples`: arrays of shape (chains, dimension, draws).

        Returns
        -------
        dict or None
            Arrays of shape (chains × draws, dimension); None for None.

        See Also
        --------
        DefaultBackend.get_samples : Read samples.

        Examples
        --------
        >>> import numpy as np
        >>> from zarrtrace.adapters.jexplore import DefaultBackend
        >>> DefaultBackend.flatten_samples({"p": np.zeros((4, 3, 10))})["p"].shape
        (40, 3)
        """
        if samples is None:
            return None
        moved = {name: np.moveaxis(values, -1, 1) for name, values in samples.items()}
        return {name: values.reshape(-1, *values.shape[2:]) for name, values in moved.items()}

    def get_stats(
        self,
        epochs: Sequence[int] | None = None,
        fname: str | os.PathLike[str] | None = None,
    ) -> dict[str, dict[str, Any]]:
        """The statistics of the epochs that are not burned and have any.

        Parameters
        ----------
        epochs : sequence of int, optional
            Only those with these numbers.
        fname : str or path, optional
            A file of HDF5 to write them to as well, which is overwritten.

        Returns
        -------
        dict
            The `steps`, `counts` and `stats` of each epoch, by its name such as "epoch_3".

        See Also
        --------
        DefaultBackend.get : A whole epoch.

        Examples
        --------
        >>> import numpy as np
        >>> from zarrtrace.adapters.jexplore import DefaultBackend
        >>> epoch = {"samples": {"p": np.zeros((4, 3, 10))}, "stats": {"steps": np.arange(10)}}
        >>> backend = DefaultBackend(outdir="run").ingest(epoch)
        >>> list(backend.get_stats())
        ['epoch_0']
        """
        stats = {}
        for placed, _ in self._kept():
            if epochs is None or placed.number in epochs:
                described = self._described(placed)
                if "stats" in described:
                    stats[f"epoch_{placed.number}"] = described["stats"]
        if fname is not None:
            write_stats(fname, stats)
        return stats

    # Ingesting ----------------------------------------------------------------------------

    def ingest(self, epoch: Any, eind: int = -1) -> Self:
        """Ingest an epoch.

        Parameters
        ----------
        epoch : Epoch, dict, str or path
            An epoch of jexplore, its dictionary, or a file of HDF5 or a trace that holds some.
        eind : int, default -1
            Which epoch of the file, as in `read_epoch`.

        Returns
        -------
        DefaultBackend
            This backend.

        Raises
        ------
        ValueError
            It has other samples, chains or dimensions than earlier epochs; nothing of it is kept.
        zarrtrace.errors.ChainBusyError
            Another process stores epochs there.

        See Also
        --------
        DefaultBackend.ingest_dict : Ingest a dictionary.

        Examples
        --------
        >>> import numpy as np
        >>> from zarrtrace.adapters.jexplore import DefaultBackend
        >>> backend = DefaultBackend(outdir="run").ingest({"samples": {"p": np.zeros((4, 3, 10))}})
        >>> backend.epochs
        1
        """
        if isinstance(epoch, str | bytes | os.PathLike):
            return self.ingest_dict(self.read_epoch(os.fsdecode(epoch), eind), copy=False)
        if isinstance(epoch, Mapping):
            return self.ingest_dict(epoch)
        if not hasattr(epoch, "to_backend"):
            raise TypeError(
                f"a backend ingests epochs of jexplore, dictionaries and paths, not a "
                f"{type(epoch).__name__}"
            )
        content = epoch.to_backend(burn=0, stats=self.save_stats)[2]
        if content is None:
            raise InvalidInputError("this epoch has no draws: run it before it is ingested")
        return self.ingest_dict(content, copy=False)

    def ingest_dict(self, epoch: Mapping[str, Any], copy: bool = True) -> Self:
        """Ingest an epoch as a dictionary.

        Parameters
        ----------
        epoch : mapping
            Its `samples`, arrays of shape (chains, dimension, draws) with `p` among them, and
            any description of them: numbers, text and arrays, nested to any depth.
        copy : bool, default True
            Whether to copy an epoch that waits in memory.

        Returns
        -------
        DefaultBackend
            This backend.

        Raises
        ------
        KeyError, ValueError, zarrtrace.errors.ChainBusyError
            As for `ingest`.

        See Also
        --------
        DefaultBackend.ingest : Ingest an epoch of any form.

        Examples
        --------
        >>> import numpy as np
        >>> from zarrtrace.adapters.jexplore import DefaultBackend
        >>> backend = DefaultBackend(outdir="run")
        >>> backend = backend.ingest_dict({"samples": {"p": np.zeros((4, 3, 10))}, "note": "warm"})
        >>> backend.get()["note"]
        'warm'
        """
        samples = check_epoch(epoch)
        require_same(kinds_of(samples), self._kinds() or kinds_of(samples))
        taken: Epoch = {**epoch, "samples": samples}
        if copy and self.inmem_epochs > 0:
            taken = deepcopy(taken)
        self._waiting.append(taken)
        try:
            self.update()
        except BaseException:
            # An epoch that could not be stored was not ingested, and can be ingested again.
            self._waiting = [other for other in self._waiting if other is not taken]
            raise
        return self

    def update(self) -> None:
        """Store the oldest epochs in memory as long as they are more than `inmem_epochs`.

        See Also
        --------
        DefaultBackend.close : Store all of them.

        Examples
        --------
        >>> import numpy as np
        >>> from zarrtrace.adapters.jexplore import DefaultBackend
        >>> backend = DefaultBackend(outdir="run", inmem_epochs=2)
        >>> backend = backend.ingest({"samples": {"p": np.zeros((4, 3, 10))}})
        >>> backend.inmem_epochs = 0
        >>> backend.update()
        >>> len(backend.trace.segments)
        1
        """
        self._forget_burned()
        while len(self._waiting) > max(self.inmem_epochs, 0):
            self._store_oldest()

    def _store_oldest(self) -> None:
        epoch = self._waiting[0]
        draws = _draws(epoch)
        if self._stored is None:
            self._stored = StoredEpochs.create(
                self.path,
                kinds_of(epoch["samples"]),
                draws_per_epoch=draws,
                epochs_per_file=self.epochs_per_file,
                first=self._never_stored,
                parameter_names=self.parameter_names,
            )
        self._stored.append(epoch)
        del self._waiting[0]
        self._stored.set_burn(self._burn)

    def _forget_burned(self) -> None:
        """Drop epochs in memory that are burned before anything was stored."""
        while self._stored is None and self._waiting:
            oldest = self._placed()[0]
            if oldest.draws.stop > self.burn:
                return
            self._never_stored = (oldest.number + 1, oldest.draws.stop)
            del self._waiting[0]

    # Burning ------------------------------------------------------------------------------

    def set_burn(self, burn: int) -> None:
        """Burn the draws before this one, also of future epochs: they are deleted.

        Parameters
        ----------
        burn : int
            Draws counted from the first one ever ingested.

        Raises
        ------
        ValueError
            Fewer draws than are burned already.

        See Also
        --------
        DefaultBackend.clean : Burn all of them.

        Examples
        --------
        >>> import numpy as np
        >>> from zarrtrace.adapters.jexplore import DefaultBackend
        >>> backend = DefaultBackend(outdir="run").ingest({"samples": {"p": np.zeros((4, 3, 10))}})
        >>> backend.set_burn(6)
        >>> backend.get_samples()["p"].shape
        (4, 3, 4)
        """
        burn = whole("burn", burn, least=0)
        if burn < self.burn:
            raise ValueError(
                f"Burned samples are burned. You can only augment burn value: {self.burn} draws "
                f"are burned, {burn} are fewer"
            )
        self._burn = burn
        if self._stored is not None:
            # Store those in memory too, so that there is no gap in the trace.
            while any(p.epoch is not None and p.draws.stop <= burn for p in self._placed()):
                self._store_oldest()
            self._stored.set_burn(burn)
        self._forget_burned()

    def clean(self) -> None:
        """Burn all epochs ingested so far.

        See Also
        --------
        DefaultBackend.set_burn : Burn some draws.

        Examples
        --------
        >>> import numpy as np
        >>> from zarrtrace.adapters.jexplore import DefaultBackend
        >>> backend = DefaultBackend(outdir="run").ingest({"samples": {"p": np.zeros((4, 3, 10))}})
        >>> backend.clean()
        >>> backend.burn
        10
        """
        self.set_burn(max(self.burn, self._ingested()))

    def _ingested(self) -> int:
        """Number of draws ever ingested."""
        placed = self._placed()
        return placed[-1].draws.stop if placed else self._first[1]

    def reset(self) -> None:
        """Delete all epochs and start again with number 0; with `resume=True` do nothing.

        Draws of future epochs that were to be burned are still burned.

        See Also
        --------
        DefaultBackend.clean : Burn the epochs, and keep counting.

        Examples
        --------
        >>> import numpy as np
        >>> from zarrtrace.adapters.jexplore import DefaultBackend
        >>> backend = DefaultBackend(outdir="run").ingest({"samples": {"p": np.zeros((4, 3, 10))}})
        >>> backend.reset()
        >>> backend.epochs
        0
        """
        if self.resume:
            return
        ahead = max(self.burn - self._ingested(), 0)
        if self._stored is not None:
            self._stored.remove()
        self._stored = None
        self._waiting.clear()
        self._never_stored = (0, 0)
        self._burn = ahead

    def close(self) -> None:
        """Store the epochs that wait in memory, and let other processes store some.

        See Also
        --------
        DefaultBackend.update : Store some of them.

        Examples
        --------
        >>> import numpy as np
        >>> from zarrtrace.adapters.jexplore import DefaultBackend
        >>> with DefaultBackend(outdir="run", inmem_epochs=2) as backend:
        ...     backend = backend.ingest({"samples": {"p": np.zeros((4, 3, 10))}})
        >>> DefaultBackend(outdir="run").epochs
        1
        """
        while self._waiting:
            self._store_oldest()
        if self._stored is not None:
            self._stored.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        self.close()

    # Rebuilding ---------------------------------------------------------------------------

    @staticmethod
    def read_epoch(fn: str | os.PathLike[str], iepoch: int = -1) -> Epoch:
        """An epoch of a file of HDF5 that jexplore wrote, or of a trace of this backend.

        Parameters
        ----------
        fn : str or path
            The file, or the directory of the trace. Where there is no file such as `epochs_2.h5`,
            but a trace `epochs.zarr`, these are the epochs of the trace that the original would
            have put into its second file.
        iepoch : int, default -1
            Its number; a negative one counts back from the newest.

        Returns
        -------
        dict
            The epoch, as `get` returns it.

        Raises
        ------
        ValueError
            There is no such epoch.
        FileNotFoundError
            There is neither such a file nor such a trace.

        See Also
        --------
        DefaultBackend.load_epoch : An object of jexplore.

        Examples
        --------
        >>> import numpy as np
        >>> from zarrtrace.adapters.jexplore import DefaultBackend
        >>> with DefaultBackend(outdir="run") as backend:
        ...     backend = backend.ingest({"samples": {"p": np.zeros((4, 3, 10))}})
        >>> DefaultBackend.read_epoch("run/epochs.zarr")["samples"]["p"].shape
        (4, 3, 10)
        """
        path = Path(fn)
        if path.is_dir():
            backend = DefaultBackend(outdir=path.parent, outfile_fmt=f"{path.stem}.h5")
            try:
                return backend.get(iepoch)
            except IndexError as error:
                raise ValueError(f"No epoch {iepoch} in {path}: {error}") from None
        found = None if path.exists() else _find_in_trace(path)
        if found is None:
            return read_hdf(path, iepoch)
        backend, numbers = found
        return backend.get(choose_epoch(path, numbers, iepoch))

    def load(
        self, iepoch: int = -1, eclass: type | None = None, pars: Sequence[str] | None = None
    ) -> Any:
        """An epoch as an object of jexplore, to continue from.

        Parameters
        ----------
        iepoch : int, default -1
            Its number, as in `get`.
        eclass : type, optional
            The class of the epoch; by default the stored one, if that is EpochMH or
            EpochMS of jexplore. No other stored name is ever imported.
        pars : sequence of str, optional
            Only these samples.

        Returns
        -------
        object
            An epoch of the class.

        Raises
        ------
        ValueError
            It was burned, or is of a class that must be given.

        See Also
        --------
        DefaultBackend.get : The same as a dictionary.

        Examples
        --------
        >>> import numpy as np
        >>> from zarrtrace.adapters.jexplore import DefaultBackend
        >>> epoch = {"samples": {"p": np.zeros((4, 3, 10))}}
        >>> epoch["class"] = "jexplore.sampling.mh.EpochMH"
        >>> backend = DefaultBackend(outdir="run").ingest(epoch)
        >>> type(backend.load()).__name__
        'EpochMH'
        """
        return as_class(self.get(iepoch), eclass, pars)

    @staticmethod
    def load_epoch(
        fn: str | os.PathLike[str],
        iepoch: int = -1,
        eclass: type | None = None,
        pars: Sequence[str] | None = None,
    ) -> Any:
        """An epoch of a file or a trace as jexplore's object: `read_epoch` and `load` in one.

        Parameters
        ----------
        fn : str or path
            The file, or the directory of the trace, as for `read_epoch`.
        iepoch : int, default -1
            Its number; a negative one counts back from the newest.
        eclass : type, optional
            The class of the epoch, as for `load`.
        pars : sequence of str, optional
            Only these samples.

        Returns
        -------
        object
            An epoch of the class.

        Raises
        ------
        ValueError
            There is no such epoch, or it is of a class that must be given.
        FileNotFoundError
            There is neither such a file nor such a trace.

        See Also
        --------
        DefaultBackend.read_epoch : The same as a dictionary.

        Examples
        --------
        >>> import numpy as np
        >>> from zarrtrace.adapters.jexplore import DefaultBackend
        >>> epoch = {"samples": {"p": np.zeros((4, 3, 10))}}
        >>> epoch["class"] = "jexplore.sampling.mh.EpochMH"
        >>> DefaultBackend(outdir="run").ingest(epoch).close()
        >>> type(DefaultBackend.load_epoch("run/epochs.zarr")).__name__
        'EpochMH'
        """
        return as_class(DefaultBackend.read_epoch(fn, iepoch), eclass, pars)

    def __repr__(self) -> str:
        return (
            f"<DefaultBackend {self.path}: {self.epochs} epochs, {self.burn} draws burned, "
            f"{len(self._waiting)} epochs in memory>"
        )


def _draws(epoch: Epoch) -> int:
    draws: int = epoch["samples"]["p"].shape[-1]
    return draws


def _joined(chosen: list[tuple[_Placed, range]], most: int) -> list[tuple[_Placed, range]]:
    """Read consecutive stored epochs at once, with at most this number of draws."""
    joined: list[tuple[_Placed, range]] = []
    for placed, draws in chosen:
        if joined and placed.epoch is None:
            before = joined[-1][1]
            one_by_one = before.step == draws.step == 1
            if one_by_one and before.stop == draws.start and draws.stop - before.start <= most:
                joined[-1] = (placed, range(before.start, draws.stop))
                continue
        joined.append((placed, draws))
    return joined


def _find_in_trace(file: Path) -> tuple[DefaultBackend, list[int]] | None:
    """The backend whose epochs the original would have in this file, and their numbers there."""
    for match in reversed(list(re.finditer(r"[_.-]?(\d+)", file.stem))):
        stem = file.stem[: match.start()] + file.stem[match.end() :]
        backend = DefaultBackend(outdir=file.parent, outfile_fmt=f"{stem}.h5")
        stored = backend._stored
        if stored is not None:
            first = stored.first_epoch + (int(match[1]) - 1) * stored.epochs_per_file
            in_file = range(first, first + stored.epochs_per_file)
            kept = [placed.number for placed, _ in backend._kept()]
            return backend, [number for number in kept if number in in_file]
    return None
