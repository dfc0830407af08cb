"""Which variables, scalars, chains and draws of a group a table or a verdict is about."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from ..errors import IncompleteTraceError, InvalidInputError, VariableNotFoundError
from ..layout.coordinates import SAMPLE_DIMS
from ..layout.superchains import are_equal, check_superchains, declared_superchains
from ..layout.variables import Variable
from ..messages import warn_caller
from ..reading.groups import Snapshot
from ..reading.moment import Moment
from .element_names import element_name

if TYPE_CHECKING:
    import xarray as xr

Filter = Literal["like", "regex"]
Coords = Mapping[Hashable, Any]
Positions = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Chosen:
    """The chosen scalars of one variable.

    Attributes
    ----------
    shape : tuple of int
        The shape of a draw of the whole variable.
    places : numpy.ndarray
        The positions of the chosen scalars in a flat draw.
    labels : list of str
        A name for each, such as `theta[Choate]`.
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    places: Positions
    labels: list[str]

    def pick(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The chosen scalars of values (chains, draws, *shape), as (chains, draws, scalars)."""
        flat = values.reshape(*values.shape[:2], int(np.prod(self.shape)))
        is_whole = np.array_equal(self.places, np.arange(flat.shape[2]))
        return flat if is_whole else flat[:, :, self.places]


class Selection:
    """The chosen scalars, chains and draws of a group, at one moment.

    Parameters
    ----------
    var_names : str or sequence of str, optional
        Names, or what names contain (`filter_vars="like"`) or match ("regex"). With "~" in front
        they are left out.
    coords : mapping, optional
        Labels of dimensions, as for `xarray.Dataset.sel`.
    kinds : str
        The kinds of dtypes that are numbers here.

    Attributes
    ----------
    variables : list of Chosen
        In the order of the table.
    chains, draws : numpy.ndarray
        The chosen positions among the chains and the draws that the group shows.
    left_out : list of str
        The variables that have no numbers: text, times, complex numbers.
    """

    def __init__(
        self,
        now: Moment,
        group: str = "posterior",
        var_names: str | Sequence[str] | None = None,
        filter_vars: Filter | None = None,
        coords: Coords | None = None,
        kinds: str = "fiub",
    ) -> None:
        self.now, self.group, self.where = now, group, f"{group} of {now}"
        self._dataset = Snapshot(now).dataset(group)
        # `dataset[name]` looks at all variables: with thousands that is too slow.
        of_dataset = self._dataset.variables
        arrays = {
            str(name): of_dataset[name]
            for name in self._dataset.data_vars
            if set(SAMPLE_DIMS) <= set(of_dataset[name].dims)
        }
        if not arrays:
            raise InvalidInputError("it has no chains and draws", where=self.where, group=group)
        axes = {str(dim): self._axis(str(dim)) for dim in self._dataset.dims}
        axes |= {str(dim): _select(axes, dim, label) for dim, label in (coords or {}).items()}
        # An int leaves one chain, or one draw, and their order is that of the trace.
        self.chains, self.draws = (np.unique(axes[dim].values) for dim in SAMPLE_DIMS)
        if not self.chains.size or not self.draws.size:
            raise self._no_draws()
        names = choose_names(list(arrays), var_names, filter_vars, self.where)
        self.left_out = [name for name in names if arrays[name].dtype.kind not in kinds]
        if self.left_out and var_names is not None:
            first = self.left_out[0]
            raise InvalidInputError(
                f"{first} has no summary: its draws are {arrays[first].dtype}",
                where=self.where,
                remedy="leave it out of var_names",
                group=group,
                variable=first,
            )
        self.variables = [
            _choose(name, arrays[name], axes) for name in names if name not in self.left_out
        ]
        if not self.variables:
            raise InvalidInputError("it has no variable of numbers", where=self.where, group=group)

    @property
    def counts(self) -> list[int]:
        """The draws that each chain of the group has; more than is shown where they differ."""
        known = self._dataset.attrs.get("draws_recorded")
        return list(known) if known is not None else [self.length] * self._dataset.sizes["chain"]

    @property
    def length(self) -> int:
        """The draws that every chain of the group shows."""
        return int(self._dataset.sizes["draw"])

    @property
    def size(self) -> int:
        """How many scalars are chosen."""
        return sum(len(chosen.labels) for chosen in self.variables)

    @property
    def shape(self) -> tuple[int, int]:
        """How many chains and draws are chosen."""
        return len(self.chains), len(self.draws)

    @property
    def chain_numbers(self) -> list[int]:
        """The chosen chains as the trace counts them, without those that have no draw."""
        numbers: list[int] = self._dataset["chain"].values[self.chains].tolist()
        return numbers

    def read(self, variables: Sequence[Chosen]) -> list[npt.NDArray[Any]]:
        """The chosen draws of some variables, each of shape (chains, draws, scalars)."""
        ours = [one.name for one in variables if self.sampled(one)]
        values = Snapshot(self.now).get(ours, group=self.group) if ours else {}
        return [
            self._pick(one, values[one.name] if one.name in values else self._load(one.name))
            for one in variables
        ]

    def sampled(self, chosen: Chosen) -> Variable | None:
        """The variable as it was declared; None if another tool, or `add_group`, has written it."""
        group = self.now.layout.groups.get(self.group.removeprefix("warmup_"))
        declared = group and group.variables.get(chosen.name)
        # Another tool may have stored it with another dtype.
        return declared if declared and declared.dtype == chosen.dtype else None

    def _load(self, name: str) -> npt.NDArray[Any]:
        array = self._dataset[name].transpose(*SAMPLE_DIMS, ...)
        return np.asarray(array.values)

    def _pick(self, chosen: Chosen, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        values = chosen.pick(values)
        if len(self.draws) < values.shape[1]:
            values = values[:, self.draws]
        return values if len(self.chains) == len(values) else values[self.chains]

    def _axis(self, dim: str) -> xr.DataArray:
        """The positions along a dimension, with their labels."""
        labels = self._dataset[dim]
        return labels.copy(data=np.arange(labels.size)).reset_coords(drop=True)

    def _no_draws(self) -> IncompleteTraceError:
        recorded = int(self.now.counts.max(initial=0))
        warmup = f"warmup_{self.group}"
        if recorded and self.now.has_group(warmup):
            return IncompleteTraceError(
                f"it has no draw after warmup yet, and {recorded} of warmup",
                where=self.where,
                remedy=f"group={warmup!r} shows these",
                group=self.group,
            )
        return IncompleteTraceError(
            "it has no draw yet", where=self.where, remedy="ask again later", group=self.group
        )


def choose_names(
    known: list[str],
    var_names: str | Sequence[str] | None,
    filter_vars: Filter | None,
    where: str,
) -> list[str]:
    """The names that are meant, as ArviZ chooses them."""
    if filter_vars not in (None, "like", "regex"):
        raise InvalidInputError(f"filter_vars is None, 'like' or 'regex', got {filter_vars!r}")
    if var_names is None:
        return known
    asked = [var_names] if isinstance(var_names, str) else list(var_names)
    excluded = [name[1:] for name in asked if name.startswith("~") and name not in known]
    found = [_matching(name, known, filter_vars, where) for name in excluded or asked]
    if excluded:
        return [name for name in known if not any(name in names for names in found)]
    if filter_vars:
        return [name for name in known if any(name in names for names in found)]
    return list(dict.fromkeys(itertools.chain.from_iterable(found)))


def _matching(asked: str, known: list[str], filter_vars: Filter | None, where: str) -> list[str]:
    match filter_vars:
        case "like":
            found = [name for name in known if asked in name]
        case "regex":
            try:
                found = [name for name in known if re.search(asked, name)]
            except re.error as error:
                raise InvalidInputError(f"{asked!r} is not a regular expression: {error}") from None
        case _:
            found = [name for name in known if name == asked]
    if not found:
        raise VariableNotFoundError(
            f"there is no variable {asked!r} in {where}",
            remedy=f"it has {', '.join(known)}",
            variable=asked,
        )
    return found


def _choose(name: str, array: xr.Variable, axes: Mapping[str, xr.DataArray]) -> Chosen:
    """The scalars of a variable that are chosen along its dimensions, with their labels."""
    inner = [str(dim) for dim in array.dims if dim not in SAMPLE_DIMS]
    shape = tuple(array.sizes[dim] for dim in inner)
    places: Positions = np.arange(math.prod(shape)).reshape(shape)
    for dim in inner:
        # An int takes the first dimension away, anything else moves it to the end.
        chosen = axes[dim].values
        places = places[chosen] if chosen.ndim == 0 else np.moveaxis(places[chosen], 0, -1)
    labels = [axes[dim][dim].values for dim in inner if axes[dim].ndim]
    names = [element_name(name, combination) for combination in itertools.product(*labels)]
    return Chosen(name, array.dtype, shape, places.ravel(), names)


def _select(axes: Mapping[str, xr.DataArray], dim: Hashable, label: Any) -> xr.DataArray:
    if dim not in axes:
        raise InvalidInputError(
            f"coords has {dim!r}, which is not a dimension",
            remedy=f"the dimensions are {', '.join(axes)}",
        )
    try:
        return axes[str(dim)].sel({dim: label})
    except (KeyError, ValueError, TypeError, IndexError) as error:
        raise InvalidInputError(
            f"coords chooses nothing along {dim!r}: {' '.join(str(error).split())}",
            remedy="give labels that it has",
        ) from None


def warn_of_left_out(selection: Selection) -> None:
    """Say which variables and draws are left out although they were not asked to be."""
    if selection.left_out:
        names = ", ".join(selection.left_out)
        warn_caller(f"{names} in {selection.where}: text, times or complex numbers are left out")
    counts = selection.counts
    if len(set(counts)) > 1:
        warn_caller(
            f"the chains of {selection.where} have {min(counts)} to {max(counts)} draws: the first "
            f"{selection.length} of each are used"
        )


def superchains_of(
    selection: Selection, superchains: Sequence[int] | None = None
) -> list[int] | None:
    """The superchains of the chosen chains: those that are given, or those that are declared.

    Returns
    -------
    list of int or None
        None without any. Empty, with a warning, if the chosen chains are not equally many of each
        superchain: nested R-hat is not defined then.

    Raises
    ------
    InvalidInputError
        They do not fit the chains of the trace.
    """
    layout = selection.now.layout
    if superchains is None:
        of_chains = declared_superchains(layout.attrs, layout.chains)
    else:
        of_chains = check_superchains(superchains, layout.chains)
    if of_chains is None:
        return None
    chosen = [of_chains[chain] for chain in selection.chain_numbers]
    if are_equal(chosen):
        return chosen
    warn_caller(
        f"the {len(chosen)} chosen chains of {selection.where} are not equally many of two or more "
        f"superchains: there is no nested R-hat"
    )
    return []
