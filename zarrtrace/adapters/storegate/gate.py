"""The gate under multiml's own name."""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import zarr

from .samples import PHASES, DataSet, list_data_sets, split_samples
from .values import (
    as_codecs,
    as_columns,
    as_index,
    as_one_sample,
    as_stored,
    is_row,
    shuffled,
    stacked,
    table,
)

VarNames = str | Sequence[str]
Phases = str | Sequence[int] | Sequence[float]


class StoreGate:
    """Data sets for machine learning: variables in the phases train, valid and test.

    Parameters
    ----------
    backend : "numpy", "zarr" or "hybrid", default "numpy"
        In memory, in storage, or both, with `to_memory` and `to_storage` between them.
    backend_args : mapping, optional
        `output_dir` (a temporary directory by default), `chunk` (samples in a chunk; by default as
        many as 256 KiB hold), `compressor` ("default", None, or a codec of zarr or numcodecs),
        `mode` ("a", "r", "r+", "w", "w-", as in zarr; "w" removes the existing data sets).
    data_id : str, optional
        The data set to use first.

    See Also
    --------
    import_zarr2 : Convert data that multiml wrote with zarr 2.

    Examples
    --------
    >>> import numpy as np
    >>> from zarrtrace.adapters.storegate import StoreGate
    >>> gate = StoreGate("zarr", {"output_dir": "data"}, data_id="events")
    >>> gate.add_data("momenta", np.zeros((10, 4), dtype="float32"), phase=(0.8, 0.1, 0.1))
    >>> gate.compile()
    >>> {phase: len(gate[phase]) for phase in ("train", "valid", "test")}
    {'train': 8, 'valid': 1, 'test': 1}
    >>> gate["train"]["momenta"][0:2].shape
    (2, 4)
    """

    def __init__(
        self,
        backend: str = "numpy",
        backend_args: Mapping[str, Any] | None = None,
        data_id: str | None = None,
    ) -> None:
        if backend not in ("numpy", "zarr", "hybrid"):
            raise NotImplementedError(f"backend {backend!r}: use numpy, zarr or hybrid")
        self._backend = backend
        self._backend_args = dict(backend_args or {})
        self._in_use = "numpy" if backend == "numpy" else "zarr"
        self._memory: dict[str, DataSet] = {}
        self._storage: dict[str, DataSet] = {}
        self._compiled: dict[str, dict[str, Any]] = {}
        self._data_id: str | None = None
        if backend != "numpy":
            self._open_storage(**self._backend_args)
        elif self._backend_args:
            raise TypeError(f"the numpy backend does not take {', '.join(self._backend_args)}")
        if data_id is not None:
            self.set_data_id(data_id)

    def _open_storage(
        self,
        output_dir: str | os.PathLike[str] | None = None,
        chunk: int | None = None,
        compressor: Any = "default",
        mode: str = "a",
    ) -> None:
        if mode not in ("a", "r", "r+", "w", "w-"):
            raise ValueError(f"mode must be 'a', 'r', 'r+', 'w' or 'w-', got {mode!r}")
        self._output_dir = os.fspath(output_dir) if output_dir is not None else tempfile.mkdtemp()
        if os.path.exists(os.path.join(self._output_dir, ".zgroup")):
            raise ValueError(
                f"{self._output_dir} was written by multiml with zarr 2; "
                f"import_zarr2({self._output_dir!r}, 'new directory') converts it"
            )
        there = list_data_sets(self._output_dir)
        if mode == "w-" and there:
            raise FileExistsError(f"{self._output_dir} holds {', '.join(there)}")
        if mode in ("r", "r+") and not there:
            raise FileNotFoundError(f"{self._output_dir} holds no data set")
        if mode == "w" and there:
            group = zarr.open_group(self._output_dir, mode="r+")
            for name in there:
                del group[name]
        self._options = {
            "mode": "r" if mode == "r" else "a",
            "compressors": as_codecs(compressor),
            "rows_per_chunk": chunk,
        }

    def __repr__(self) -> str:
        return (
            f"StoreGate(backend={self._backend}, backend_args={self._backend_args}, "
            f"data_id={self._data_id})"
        )

    # One data set or another --------------------------------------------------------------

    @property
    def data_id(self) -> str | None:
        """The data set in use."""
        return self._data_id

    @property
    def backend(self) -> str:
        """The chosen backend: numpy, zarr or hybrid."""
        return self._backend

    def set_data_id(self, data_id: str) -> None:
        """Use this data set from now on, and create it if it is missing.

        Parameters
        ----------
        data_id : str
            The name of the data set.

        Raises
        ------
        ValueError
            It is not a string.

        See Also
        --------
        StoreGate.get_data_ids : The existing data sets.

        Examples
        --------
        >>> from zarrtrace.adapters.storegate import StoreGate
        >>> gate = StoreGate()
        >>> gate.set_data_id("events")
        >>> gate.data_id
        'events'
        """
        if not isinstance(data_id, str):
            raise ValueError(f"data_id must be a string, got {data_id!r}")
        if self._backend != "zarr" and data_id not in self._memory:
            self._memory[data_id] = DataSet(None)
        if self._backend != "numpy" and data_id not in self._storage:
            self._storage[data_id] = DataSet(self._output_dir, group=data_id, **self._options)
        self._data_id = data_id

    def get_data_ids(self) -> list[str]:
        """The names of the data sets.

        Returns
        -------
        list of str
            With the hybrid backend those in storage.

        See Also
        --------
        StoreGate.set_data_id : Use one of them.

        Examples
        --------
        >>> from zarrtrace.adapters.storegate import StoreGate
        >>> gate = StoreGate(data_id="events")
        >>> gate.get_data_ids()
        ['events']
        """
        return list(self._memory) if self._backend == "numpy" else list_data_sets(self._output_dir)

    @property
    def _id(self) -> str:
        if self._data_id is None:
            raise ValueError("no data_id yet: call set_data_id(...)")
        return self._data_id

    @property
    def _data(self) -> DataSet:
        """The data set in use: in memory or in storage."""
        return (self._memory if self._in_use == "numpy" else self._storage)[self._id]

    def set_mode(self, mode: str) -> None:
        """Choose whether the hybrid backend reads and writes in memory or in storage.

        Parameters
        ----------
        mode : "numpy" or "zarr"
            Memory or storage.

        See Also
        --------
        StoreGate.to_memory : Copy from storage to memory.

        Examples
        --------
        >>> from zarrtrace.adapters.storegate import StoreGate
        >>> gate = StoreGate("hybrid", {"output_dir": "data"}, data_id="events")
        >>> gate.set_mode("numpy")
        """
        if self._backend != "hybrid":
            warnings.warn(f"set_mode is for the hybrid backend, not {self._backend}", stacklevel=2)
            return
        if mode not in ("numpy", "zarr"):
            raise ValueError(f"mode must be 'numpy' or 'zarr', got {mode!r}")
        self._in_use = mode
        self.compile()

    # Views --------------------------------------------------------------------------------

    def __getitem__(self, item: Any) -> Any:
        return View(self)[item]

    def __setitem__(self, item: Any, data: Any) -> None:
        View(self)[item] = data

    def __delitem__(self, item: Any) -> None:
        del View(self)[item]

    def __len__(self) -> int:
        return len(View(self))

    def __contains__(self, item: object) -> bool:
        return item in View(self)

    # Adding and changing ------------------------------------------------------------------

    def add_data(
        self,
        var_names: VarNames,
        data: Any,
        phase: Phases = "train",
        shuffle: bool | int = False,
        do_compile: bool = False,
    ) -> None:
        """Create variables, or append to existing ones.

        Parameters
        ----------
        var_names : str, tuple of str or list of str
            One variable, or several.
        data : array_like
            (N, k) for one variable; (N, M, k) for a tuple of M; one (N, k) each for a list.
        phase : str or three numbers
            "train", "valid" or "test"; the number of samples for each; fractions, cut off to whole
            numbers, the rest to test; "all" or "auto": the present sizes (after `compile`).
        shuffle : bool or int
            A seed: the samples are shuffled first, in the same way for all variables.
        do_compile : bool
            Whether to `compile` afterwards.

        See Also
        --------
        StoreGate.update_data : Replace samples.
        StoreGate.get_data : Read them.

        Examples
        --------
        >>> import numpy as np
        >>> from zarrtrace.adapters.storegate import StoreGate
        >>> gate = StoreGate(data_id="events")
        >>> gate.add_data(("x", "y"), np.zeros((10, 2, 3)), phase=(8, 1, 1))
        >>> gate.get_var_names("valid")
        ['x', 'y']
        """
        columns = as_columns(var_names, data)
        count = len(next(iter(columns.values())))
        parts = self._parts(phase, count)
        if shuffle:
            order = shuffled(count, int(shuffle))
            columns = {name: values[order] for name, values in columns.items()}
        if count:
            self._data.add(columns, phase=parts)
        self._changed(do_compile)

    def update_data(
        self,
        var_names: VarNames,
        data: Any,
        phase: Phases = "train",
        index: Any = -1,
        do_compile: bool = True,
    ) -> None:
        """Replace samples, or add the variable where it is missing.

        Parameters
        ----------
        var_names : str, tuple of str or list of str
            One variable, or several.
        data : array_like
            (N, k) for one variable; (N, M, k) for a tuple of M; one (N, k) each for a list.
        phase : str or three numbers
            The phases of the samples, as in `add_data`.
        index : int, pair of int, slice, or list of int, default -1
            -1 is all samples; a pair (a, b) those from a to b - 1.
        do_compile : bool, default True
            Whether to `compile` afterwards.

        See Also
        --------
        StoreGate.add_data : Append samples.

        Examples
        --------
        >>> import numpy as np
        >>> from zarrtrace.adapters.storegate import StoreGate
        >>> gate = StoreGate(data_id="events")
        >>> gate.add_data("label", np.zeros(4, dtype=int))
        >>> gate.update_data("label", np.array([1, 2]), index=(0, 2))
        >>> gate.get_data("label")
        array([1, 2, 0, 0])
        """
        self._update(var_names, data, phase, as_index(index))
        self._changed(do_compile)

    def _update(self, var_names: VarNames, data: Any, phase: Phases, index: Any) -> None:
        if is_row(index):
            if not isinstance(phase, str) or phase in ("all", "auto"):
                raise ValueError("one sample is in one phase: name it")
            for name, row in as_one_sample(var_names, data).items():
                shape = self._data[phase][name].shape[1:]
                self._data.update(name, row.reshape(shape), index, phase)
            return
        columns = as_columns(var_names, data)
        count = len(next(iter(columns.values())))
        for part, chosen in split_samples(self._parts(phase, count), count).items():
            given = {name: values[chosen] for name, values in columns.items()}
            there = {name: values for name, values in given.items() if name in self._data[part]}
            missing = {name: values for name, values in given.items() if name not in there}
            if there:
                self._data.update(there, index=index, phase=part)
            if missing:
                self._data.add(missing, phase=part)

    def create_empty(
        self, var_names: VarNames, shape: Sequence[int], phase: Phases = "train", dtype: Any = "f4"
    ) -> None:
        """Create variables of zeros, to be filled by `update_data`.

        Parameters
        ----------
        var_names : str, tuple of str or list of str
            One variable, or several.
        shape : sequence of int
            Shape (N, k), the samples first.
        phase : str or three numbers
            The phases of the samples, as in `add_data`.
        dtype : dtype, default float32
            The dtype of each variable.

        Raises
        ------
        ValueError
            There is such a variable.

        See Also
        --------
        StoreGate.add_data : Create variables with values.

        Examples
        --------
        >>> from zarrtrace.adapters.storegate import StoreGate
        >>> gate = StoreGate(data_id="events")
        >>> gate.create_empty("score", (4, 2))
        >>> gate.get_var_shapes("score")
        (2,)
        """
        names = [var_names] if isinstance(var_names, str) else list(var_names)
        parts = self._parts(phase, shape[0])
        for part in PHASES if not isinstance(parts, str) else (parts,):
            for name in names:
                if name in self._data[part]:
                    raise ValueError(f"{name!r} is already in {part}")
        # Zeros that take no memory.
        zeros = np.broadcast_to(np.zeros((), dtype), tuple(shape))
        self._data.add(dict.fromkeys(names, zeros), phase=parts)
        self._changed(False)

    def delete_data(
        self, var_names: VarNames, phase: str = "train", do_compile: bool = True
    ) -> None:
        """Remove variables from a phase or from "all"; missing ones are ignored.

        Parameters
        ----------
        var_names : str, tuple of str or list of str
            One variable, or several.
        phase : str, default "train"
            A phase, or "all".
        do_compile : bool, default True
            Whether to `compile` afterwards.

        See Also
        --------
        StoreGate.clear_data : Remove all variables.

        Examples
        --------
        >>> import numpy as np
        >>> from zarrtrace.adapters.storegate import StoreGate
        >>> gate = StoreGate(data_id="events")
        >>> gate.add_data(["x", "y"], [np.zeros(4), np.ones(4)])
        >>> gate.delete_data("x")
        >>> gate.get_var_names()
        ['y']
        """
        names = [var_names] if isinstance(var_names, str) else list(var_names)
        for part in self._phases(phase):
            found = [name for name in names if name in self._data[part]]
            if found:
                self._data.delete(found, part)
        self._changed(do_compile)

    def clear_data(self) -> None:
        """Remove all variables of this data set, in the present mode.

        See Also
        --------
        StoreGate.delete_data : Remove some variables.

        Examples
        --------
        >>> import numpy as np
        >>> from zarrtrace.adapters.storegate import StoreGate
        >>> gate = StoreGate(data_id="events")
        >>> gate.add_data("x", np.zeros(4))
        >>> gate.clear_data()
        >>> gate.get_var_names()
        []
        """
        self.delete_data(self._data.names, "all")

    def astype(self, var_names: VarNames, dtype: Any, phase: str = "train") -> None:
        """Change the dtype of variables.

        Parameters
        ----------
        var_names : str, tuple of str or list of str
            One variable, or several.
        dtype : dtype
            The new dtype.
        phase : str, default "train"
            A phase, or "all".

        See Also
        --------
        StoreGate.onehot : Convert class numbers.

        Examples
        --------
        >>> import numpy as np
        >>> from zarrtrace.adapters.storegate import StoreGate
        >>> gate = StoreGate(data_id="events")
        >>> gate.add_data("label", np.array([0, 2]))
        >>> gate.astype("label", "float32")
        >>> gate.get_data("label")
        array([0., 2.], dtype=float32)
        """
        self._map(lambda values: values.astype(dtype), var_names, phase)

    def onehot(self, var_names: VarNames, num_classes: int, phase: str = "train") -> None:
        """Convert class numbers to vectors of 0 and 1: (N,) becomes (N, num_classes).

        Parameters
        ----------
        var_names : str, tuple of str or list of str
            One variable, or several.
        num_classes : int
            How many classes there are.
        phase : str, default "train"
            A phase, or "all".

        See Also
        --------
        StoreGate.argmax : The other way.

        Examples
        --------
        >>> import numpy as np
        >>> from zarrtrace.adapters.storegate import StoreGate
        >>> gate = StoreGate(data_id="events")
        >>> gate.add_data("label", np.array([0, 2]))
        >>> gate.onehot("label", 3)
        >>> gate.get_data("label")
        array([[1., 0., 0.],
               [0., 0., 1.]])
        """
        self._map(lambda values: np.identity(num_classes)[values], var_names, phase)

    def argmax(self, var_names: VarNames, axis: int, phase: str = "train") -> None:
        """Replace an axis (from 1 on) by the position of its largest value.

        Parameters
        ----------
        var_names : str, tuple of str or list of str
            One variable, or several.
        axis : int
            An axis other than that of the samples, which is 0.
        phase : str, default "train"
            A phase, or "all".

        Raises
        ------
        ValueError
            `axis` is 0.

        See Also
        --------
        StoreGate.onehot : The other way.

        Examples
        --------
        >>> import numpy as np
        >>> from zarrtrace.adapters.storegate import StoreGate
        >>> gate = StoreGate(data_id="events")
        >>> gate.add_data("score", np.array([[0.1, 0.9], [0.7, 0.3]]))
        >>> gate.argmax("score", axis=1)
        >>> gate.get_data("score")
        array([1, 0])
        """
        if axis == 0:
            raise ValueError("axis 0 has the samples; argmax needs one of the others")
        self._map(lambda values: np.argmax(values, axis=axis), var_names, phase)

    def _map(self, function: Callable[..., Any], var_names: VarNames, phase: str) -> None:
        names = [var_names] if isinstance(var_names, str) else list(var_names)
        for name in names:
            self._data.map(function, name, phase=None if phase == "all" else phase)
        self._changed(True)

    def shuffle(self, phase: str = "all", seed: int = 0) -> None:
        """Shuffle the samples of a phase or of "all", in the same way for all variables.

        Parameters
        ----------
        phase : str, default "all"
            A phase, or "all".
        seed : int, default 0
            The same seed shuffles in the same way.

        Raises
        ------
        ValueError
            The variables of a phase have unequal lengths.

        See Also
        --------
        StoreGate.add_data : Shuffle samples as they are added.

        Examples
        --------
        >>> import numpy as np
        >>> from zarrtrace.adapters.storegate import StoreGate
        >>> gate = StoreGate(data_id="events")
        >>> gate.add_data(["x", "y"], [np.arange(100), np.arange(100)])
        >>> gate.shuffle(seed=1)
        >>> x, y = gate.get_data(["x", "y"])
        >>> bool((x == y).all()), bool((x == np.arange(100)).all())
        (True, False)
        """
        for part in self._phases(phase):
            lengths = {len(samples) for samples in self._data[part].values()}
            if len(lengths) > 1:
                raise ValueError(f"the variables of {part} have {sorted(lengths)} samples")
            for length in lengths:
                self._data.reorder(shuffled(length, seed), part)
        self._changed(True)

    # Between memory and storage -----------------------------------------------------------

    def to_memory(
        self,
        var_names: VarNames,
        phase: str = "train",
        output_var_names: VarNames | None = None,
        callback: Callable[..., Any] | None = None,
    ) -> None:
        """Copy variables from storage to memory (hybrid backend).

        Parameters
        ----------
        var_names : str, tuple or list of str
            The variables to copy.
        phase : str
            A phase, or "all".
        output_var_names : str, tuple or list of str, optional
            Other names there.
        callback : callable, optional
            Takes names and data, and returns other names and data.

        See Also
        --------
        StoreGate.to_storage : The other way.

        Examples
        --------
        >>> import numpy as np
        >>> from zarrtrace.adapters.storegate import StoreGate
        >>> gate = StoreGate("hybrid", {"output_dir": "data"}, data_id="events")
        >>> gate.add_data("x", np.arange(3))
        >>> gate.to_memory("x")
        >>> gate.set_mode("numpy")
        >>> gate.get_data("x")
        array([0, 1, 2])
        """
        named = var_names if output_var_names is None else output_var_names
        self._copy("zarr", "numpy", var_names, phase, named, named, callback)

    def to_storage(
        self,
        var_names: VarNames,
        phase: str = "train",
        output_var_names: VarNames | None = None,
        callback: Callable[..., Any] | None = None,
    ) -> None:
        """Copy variables from memory to storage (hybrid backend).

        Parameters
        ----------
        var_names : str, tuple or list of str
            The variables to copy.
        phase : str
            A phase, or "all".
        output_var_names : str, tuple or list of str, optional
            Other names there.
        callback : callable, optional
            Takes names and data, and returns other names and data.

        See Also
        --------
        StoreGate.to_memory : The other way.

        Examples
        --------
        >>> import numpy as np
        >>> from zarrtrace.adapters.storegate import StoreGate
        >>> gate = StoreGate("hybrid", {"output_dir": "data"}, data_id="events")
        >>> gate.set_mode("numpy")
        >>> gate.add_data("x", np.arange(3))
        >>> gate.to_storage("x")
        >>> gate.set_mode("zarr")
        >>> gate.get_data("x")
        array([0, 1, 2])
        """
        named = var_names if output_var_names is None else output_var_names
        self._copy("numpy", "zarr", var_names, phase, named, var_names, callback)

    def _copy(
        self,
        source: str,
        target: str,
        var_names: VarNames,
        phase: str,
        named: VarNames,
        called_with: VarNames,
        callback: Callable[..., Any] | None,
    ) -> None:
        if self._backend != "hybrid":
            raise ValueError(f"only the hybrid backend has memory and storage, not {self._backend}")
        names = [var_names] if isinstance(var_names, str) else list(var_names)
        before = self._in_use
        try:
            for part in self._phases(phase):
                self._in_use = source
                if phase == "all" and not any(name in self._data[part] for name in names):
                    continue
                data = self._get(var_names, part, slice(None))
                output = named
                if callback is not None:
                    output, data = callback(called_with, data)
                columns = as_columns(output, data)
                self._in_use = target
                for name in columns:
                    if name in self._data[part]:
                        self._data.delete(name, part)
                self._data.add(columns, phase=part)
        finally:
            self._in_use = before
        self.compile()

    # Reading ------------------------------------------------------------------------------

    def get_data(self, var_names: VarNames, phase: str | None = "train", index: Any = -1) -> Any:
        """The values of variables, after `compile`.

        Parameters
        ----------
        var_names : str, tuple of str or list of str
            One returns (N, k), a tuple of M (N, M, k), a list one (N, k) each.
        phase : str or None
            A phase; "all" or None for all of them, one after the other, without an index.
        index : int, pair of int, slice, or list of int, default -1
            -1 is all samples; another int one sample, without its dimension N; a pair (a, b) those
            from a to b - 1; a list returns these, in its order.

        Returns
        -------
        numpy.ndarray or list of numpy.ndarray
            One returns (N, k), a tuple of M (N, M, k), a list one (N, k) each.

        Raises
        ------
        ValueError
            `compile` was not called since data changed, or an index is for all phases together.

        See Also
        --------
        StoreGate.add_data : Add values.

        Examples
        --------
        >>> import numpy as np
        >>> from zarrtrace.adapters.storegate import StoreGate
        >>> gate = StoreGate(data_id="events")
        >>> gate.add_data("x", np.arange(10), phase=(6, 2, 2), do_compile=True)
        >>> gate.get_data("x", phase="valid")
        array([6, 7])
        >>> gate.get_data("x", index=[0, 5])
        array([0, 5])
        """
        return self._get_compiled(var_names, phase, as_index(index))

    def _get_compiled(self, var_names: VarNames, phase: str | None, index: Any) -> Any:
        compiled = self.get_metadata()
        if phase is not None and phase != "all":
            return self._get(var_names, phase, index)
        if not (isinstance(index, slice) and index == slice(None)):
            raise ValueError("an index needs one phase, not all together")
        if isinstance(var_names, list):
            return [self._get_compiled(name, phase, index) for name in var_names]
        found = [self._get(var_names, part, index) for part in compiled["valid_phases"]]
        return np.concatenate(found)

    def _get(self, var_names: VarNames, phase: str, index: Any) -> Any:
        if isinstance(var_names, str):
            return as_stored(self._data.get(var_names, index, phase))
        values = self._data.get(var_names, index, phase)
        found = [as_stored(values[name]) for name in var_names]
        return found if isinstance(var_names, list) else stacked(found, is_row(index))

    def get_var_names(self, phase: str = "train") -> list[str]:
        """The names of the variables of a phase.

        Parameters
        ----------
        phase : str, default "train"
            "train", "valid" or "test".

        Returns
        -------
        list of str
            None where the phase has no samples.

        See Also
        --------
        StoreGate.get_var_shapes : Their shapes.

        Examples
        --------
        >>> import numpy as np
        >>> from zarrtrace.adapters.storegate import StoreGate
        >>> gate = StoreGate(data_id="events")
        >>> gate.add_data(["x", "y"], [np.zeros(4), np.zeros((4, 2))])
        >>> gate.get_var_names()
        ['x', 'y']
        """
        return list(self._data[phase])

    def get_var_shapes(self, var_names: VarNames, phase: str = "train") -> Any:
        """The shape of one sample of a variable, or of each of several.

        Parameters
        ----------
        var_names : str, tuple of str or list of str
            One variable, or several.
        phase : str, default "train"
            "train", "valid" or "test".

        Returns
        -------
        tuple of int, None or list of these
            The shape k; None where there is no such variable; a list for several variables.

        See Also
        --------
        StoreGate.get_var_names : The existing variables.

        Examples
        --------
        >>> import numpy as np
        >>> from zarrtrace.adapters.storegate import StoreGate
        >>> gate = StoreGate(data_id="events")
        >>> gate.add_data(["x", "y"], [np.zeros(4), np.zeros((4, 2))])
        >>> gate.get_var_shapes(["x", "y"])
        [(), (2,)]
        """
        if not isinstance(var_names, str):
            return [self.get_var_shapes(name, phase) for name in var_names]
        samples = self._data[phase].get(var_names)
        return None if samples is None else samples.shape[1:]

    # What there is ------------------------------------------------------------------------

    def compile(self, reset: bool = False, show_info: bool = False) -> None:
        """Check that the variables of each phase have as many samples; afterwards data can be read.

        Parameters
        ----------
        reset : bool
            Whether to set the variable `active` to 1 for every sample.
        show_info : bool
            Whether to print the data set afterwards.

        Raises
        ------
        ValueError
            The variables of a phase have unequal lengths.

        See Also
        --------
        StoreGate.get_metadata : What was counted.

        Examples
        --------
        >>> import numpy as np
        >>> from zarrtrace.adapters.storegate import StoreGate
        >>> gate = StoreGate(data_id="events")
        >>> gate.add_data("x", np.arange(10), phase=(6, 2, 2))
        >>> gate.compile(reset=True)
        >>> gate.get_data("active", phase="test")
        array([1, 1])
        """
        data = self._data
        sizes = {}
        for phase in PHASES:
            lengths = {name: len(samples) for name, samples in data[phase].items()}
            if reset:
                lengths.pop("active", None)
            if len(set(lengths.values())) > 1:
                raise ValueError(f"{phase}: the variables have unequal lengths, {lengths}")
            if lengths:
                sizes[phase] = next(iter(lengths.values()))
        for phase in sizes if reset else ():
            if "active" in data[phase]:
                data.delete("active", phase)
            data.add("active", np.ones(sizes[phase], dtype=np.int64), phase=phase)
        total = [sizes.get(phase, 0) for phase in PHASES]
        self._compiled[self._id] = {
            "compiled": True,
            "total_events": total,
            "sizes": {**dict(zip(PHASES, total, strict=True)), "all": sum(total)},
            "valid_phases": list(sizes),
        }
        if show_info:
            self.show_info()

    def get_metadata(self) -> dict[str, Any]:
        """The numbers of samples, and the phases that have any, after `compile`.

        Returns
        -------
        dict
            `sizes` by phase and of "all"; `total_events`, the same as a list; `valid_phases`, those
            with samples; `compiled`, which is True.

        Raises
        ------
        ValueError
            `compile` was not called since data changed.

        See Also
        --------
        StoreGate.compile : Count them.

        Examples
        --------
        >>> import numpy as np
        >>> from zarrtrace.adapters.storegate import StoreGate
        >>> gate = StoreGate(data_id="events")
        >>> gate.add_data("x", np.arange(10), phase=(6, 2, 2), do_compile=True)
        >>> gate.get_metadata()["sizes"]
        {'train': 6, 'valid': 2, 'test': 2, 'all': 10}
        """
        compiled = self._compiled.get(self._id)
        if compiled is None:
            raise ValueError("call compile() first, which checks the data")
        return compiled

    def show_info(self) -> None:
        """Print the existing variables.

        See Also
        --------
        StoreGate.get_var_names : The names of a phase.

        Examples
        --------
        >>> import numpy as np
        >>> from zarrtrace.adapters.storegate import StoreGate
        >>> gate = StoreGate(data_id="events")
        >>> gate.add_data("x", np.zeros((4, 2), dtype="float32"), do_compile=True)
        >>> gate.show_info()
        StoreGate data_id : events, compiled : True
        ...
        """
        data = self._data
        compiled = self._data_id in self._compiled
        rows = [
            (phase, self._in_use, name, samples.dtype, len(samples), samples.shape[1:])
            for phase in PHASES
            for name, samples in data[phase].items()
        ]
        print(table(f"StoreGate data_id : {self._data_id}, compiled : {compiled}", rows))

    # Within -------------------------------------------------------------------------------

    def _changed(self, do_compile: bool) -> None:
        self._compiled.pop(self._id, None)
        if do_compile:
            self.compile()

    def _phases(self, phase: str) -> Sequence[str]:
        return PHASES if phase == "all" else (phase,)

    def _parts(self, phase: Phases, count: int) -> Phases:
        """The phases in the form of a DataSet."""
        if phase not in ("all", "auto"):
            return phase
        total: list[int] = self.get_metadata()["total_events"]
        if sum(total) != count:
            raise ValueError(f"the phases have {sum(total)} samples together, got {count}")
        return total


class View:
    """A phase of a gate, or variables in it: `gate[phase][var_names][index]`.

    See Also
    --------
    StoreGate : The gate it is a view of.

    Examples
    --------
    >>> import numpy as np
    >>> from zarrtrace.adapters.storegate import StoreGate
    >>> gate = StoreGate(data_id="events")
    >>> gate.add_data("x", np.arange(10), phase=(6, 2, 2), do_compile=True)
    >>> train = gate["train"]
    >>> len(train), "x" in train
    (6, True)
    >>> train["x"][[0, -1]]
    array([0, 5])
    """

    def __init__(
        self, gate: StoreGate, phase: str | None = None, var_names: VarNames | None = None
    ) -> None:
        self.gate = gate
        self.phase = phase
        self.var_names = var_names

    def __getitem__(self, item: Any) -> Any:
        if isinstance(item, str) and (item in PHASES or item == "all"):
            return View(self.gate, item, self.var_names)
        if _are_names(item):
            return View(self.gate, self.phase, item)
        if self.var_names is None:
            raise NotImplementedError(f"{item!r}: name variables first, gate[phase][var_names]")
        return self.gate._get_compiled(self.var_names, self.phase, item)

    def __setitem__(self, item: Any, data: Any) -> None:
        if self.phase is None or self.var_names is None:
            raise ValueError("name a phase and variables first: gate[phase][var_names][index] = ")
        if self.phase == "all" and not (isinstance(item, slice) and item == slice(None)):
            raise ValueError("all phases together take only the index [:]")
        self.gate._update(self.var_names, data, self.phase, item)
        self.gate._changed(True)

    def __delitem__(self, item: Any) -> None:
        if self.phase is None:
            raise ValueError("name a phase first: del gate[phase][var_names]")
        if not _are_names(item):
            raise ValueError(f"{item!r}: whole variables are deleted, by their names")
        self.gate.delete_data(item, self.phase)

    def __len__(self) -> int:
        sizes = self.gate.get_metadata()["sizes"]
        if self.phase is None:
            raise ValueError("name a phase first: len(gate[phase])")
        return int(sizes[self.phase])

    def __contains__(self, item: object) -> bool:
        if self.phase is None:
            raise ValueError("name a phase first: name in gate[phase]")
        return any(item in self.gate._data[part] for part in self.gate._phases(self.phase))

    def __iter__(self) -> Iterator[Any]:
        for i in range(len(self)):
            yield self[i]

    def __repr__(self) -> str:
        return f"{self.gate!r}[{self.phase!r}][{self.var_names!r}]"


def _are_names(item: object) -> bool:
    if isinstance(item, str):
        return True
    return isinstance(item, tuple | list) and bool(item) and all(isinstance(i, str) for i in item)


def import_zarr2(old: str | os.PathLike[str], output_dir: str | os.PathLike[str]) -> list[str]:
    """Convert data that multiml wrote with zarr 2.

    Parameters
    ----------
    old : str or path
        The `output_dir` of the original.
    output_dir : str or path
        The `output_dir` of a new `StoreGate`; data sets of the same names there must not have the
        variables.

    Returns
    -------
    list of str
        The data sets in the new directory.

    Raises
    ------
    ValueError
        The new directory has one of the variables already.

    See Also
    --------
    StoreGate : Read the converted data.

    Examples
    --------
    >>> import numpy as np
    >>> import zarr
    >>> from zarrtrace.adapters.storegate import StoreGate, import_zarr2
    >>> old = zarr.open_group("old", mode="w", zarr_format=2)
    >>> for phase in ("train", "valid", "test"):
    ...     _ = old.create_array(f"events/{phase}/x", data=np.arange(3))
    >>> import_zarr2("old", "new")
    ['events']
    >>> gate = StoreGate("zarr", {"output_dir": "new"}, data_id="events")
    >>> gate.compile()
    >>> gate.get_data("x", phase="test")
    array([0, 1, 2])
    """
    stored: Any = zarr.open_group(os.fspath(old), mode="r", zarr_format=2)
    for data_id, found in stored.groups():
        data = DataSet(output_dir, group=data_id)
        for phase in PHASES:
            for name, array in found[phase].arrays():
                if name in data[phase]:
                    raise ValueError(f"{output_dir}: {data_id} already has {name!r} in {phase}")
                step = 16 * array.chunks[0]
                for start in range(0, max(array.shape[0], 1), step):
                    data.add(name, array[start : start + step], phase)
    return list_data_sets(output_dir)
