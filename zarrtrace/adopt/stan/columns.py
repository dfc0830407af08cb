"""The columns of CmdStan's CSV files, and the variables that they are the elements of.

A column `x.1.2` is an element of the array `x`, `z.real` a part of the complex number `z`, and
`p:1.3` an element of the first part of the tuple `p`.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...errors import InvalidInputError
from ...layout.variables import Var
from ...messages import warn_caller
from ..stat_names import arviz_names

Numbers = np.ndarray[Any, np.dtype[np.float64]]
Values = np.ndarray[Any, Any]
Positions = np.ndarray[Any, np.dtype[np.intp]]

_PARTS = re.compile(r"([.:])([^.:]+)")
_STAT_DTYPES = {"treedepth__": "int64", "n_leapfrog__": "int64", "divergent__": "bool"}
_LOG_LIKELIHOOD = "log_lik"  # the variable that ArviZ takes for it


@dataclass(frozen=True)
class Columns:
    """The variables of a file.

    Attributes
    ----------
    names : tuple of str
        Those of the columns, as they are in the file.
    groups : dict of str to dict of str to VariableColumns
        For each sampled group its variables, under the names that they get in the trace.
    """

    names: tuple[str, ...]
    groups: dict[str, dict[str, VariableColumns]]

    @classmethod
    def of(cls, header: str) -> Columns:
        """The columns of the line that names them.

        Raises
        ------
        InvalidInputError
            Two columns have the same name, or there is no parameter.
        """
        names = header.split(",")
        if len(set(names)) < len(names):
            twice = next(name for position, name in enumerate(names) if name in names[:position])
            raise InvalidInputError(f"two columns are called {twice!r}", variable=twice)
        stats = [name for name in names if name.endswith("__")]
        positions = {name: position for position, name in enumerate(names)}
        stat_names = arviz_names(stats)
        parameters = {k: position for k, position in positions.items() if k not in stat_names}
        variables = _rename(_variables(parameters))
        if not variables:
            raise InvalidInputError("the columns are those of the sampler, without a parameter")
        # A posterior is never empty.
        likelihood = variables.keys() & {_LOG_LIKELIHOOD} if len(variables) > 1 else set()
        groups = {
            "posterior": {k: v for k, v in variables.items() if k not in likelihood},
            "sample_stats": {
                stat_names[stat]: VariableColumns(
                    stat, np.array(positions[stat]), dtype=_STAT_DTYPES.get(stat, "float64")
                )
                for stat in stats
            },
            "log_likelihood": {k: v for k, v in variables.items() if k in likelihood},
        }
        return cls(tuple(names), {name: group for name, group in groups.items() if group})

    def definitions(self) -> dict[str, dict[str, Var]]:
        """The variables of each group, as `zarrtrace.create` takes them."""
        return {
            group: {name: variable.definition(name) for name, variable in variables.items()}
            for group, variables in self.groups.items()
        }

    def values(self, rows: Numbers) -> dict[str, dict[str, Values]]:
        """The values of each variable in rows of the file, (draws, *shape)."""
        return {
            group: {name: variable.values(rows) for name, variable in variables.items()}
            for group, variables in self.groups.items()
        }


@dataclass(frozen=True)
class VariableColumns:
    """The columns that hold one variable.

    Attributes
    ----------
    stan_name : str
        What Stan calls the variable.
    positions : numpy.ndarray of int
        For each element the number of its column, in the shape of the variable.
    imaginary : numpy.ndarray of int, optional
        The same for the imaginary parts of complex numbers.
    dtype : str
        Of the values.
    """

    stan_name: str
    positions: Positions
    imaginary: Positions | None = None
    dtype: str = "float64"

    def definition(self, name: str) -> Var:
        """The variable, where the trace calls it `name`."""
        is_stat = self.stan_name.endswith("__")
        attrs = {} if is_stat or name == self.stan_name else {"name_in_model": self.stan_name}
        return Var(shape=self.positions.shape, dtype=self.dtype, attrs=attrs)

    def values(self, rows: Numbers) -> Values:
        """The values in rows of the file, (draws, *shape)."""
        if self.imaginary is None:
            return rows[:, self.positions].astype(self.dtype, copy=False)
        values = np.empty((len(rows), *self.positions.shape), dtype=self.dtype)
        # A sum of the two would make NaN of an infinite part.
        values.real = rows[:, self.positions]
        values.imag = rows[:, self.imaginary]
        return values


@dataclass(frozen=True)
class _Element:
    """What the name of a column says: of which variable it is which element, and which part."""

    variable: str
    index: tuple[int, ...]
    part: str

    @classmethod
    def of(cls, column: str) -> _Element:
        variable = re.split("[.:]", column, maxsplit=1)[0]
        index: list[int] = []
        part = ""
        for separator, text in _PARTS.findall(column):
            if separator == ":":
                variable += f":{text}"
            elif text in ("real", "imag"):
                part = text
            elif text.isdigit():
                index.append(int(text))
            else:
                return cls(column, (), "")
        return cls(variable, tuple(index), part)


def _variables(positions: dict[str, int]) -> dict[str, VariableColumns]:
    """The variables of the model that have these columns."""
    elements: dict[str, list[tuple[_Element, int]]] = {}
    for name, position in positions.items():
        element = _Element.of(name)
        elements.setdefault(element.variable, []).append((element, position))
    found: dict[str, VariableColumns] = {}
    for name, of_variable in elements.items():
        parts = {
            part: _array({e.index: position for e, position in of_variable if e.part == part})
            for part in {e.part: None for e, _ in of_variable}
        }
        real, imaginary = parts.get("real"), parts.get("imag")
        if parts.keys() == {""} and (array := parts[""]) is not None:
            found[name] = VariableColumns(name, array)
        elif (
            parts.keys() == {"real", "imag"}
            and real is not None
            and imaginary is not None
            and real.shape == imaginary.shape
        ):
            found[name] = VariableColumns(name, real, imaginary, dtype="complex128")
        else:
            # They are no array: each is a variable of its own.
            columns = {position: column for column, position in positions.items()}
            for _, position in of_variable:
                column = columns[position]
                found[column] = VariableColumns(column, np.array(position))
    return found


def _array(elements: dict[tuple[int, ...], int]) -> Positions | None:
    """The positions in the shape of the array with these elements; None where some are missing.

    Indices begin with 1. Their order in the file, column by column, does not matter.
    """
    ranks = {len(index) for index in elements}
    if len(ranks) > 1:
        return None
    shape = tuple(map(max, zip(*elements, strict=True)))
    if math.prod(shape) != len(elements) or any(0 in index for index in elements):
        return None
    array = np.empty(shape, dtype=np.intp)
    for index, position in elements.items():
        array[tuple(i - 1 for i in index)] = position
    return array


def _rename(variables: dict[str, VariableColumns]) -> dict[str, VariableColumns]:
    """The variables under names that are not those of a dimension."""
    taken = {"chain", "draw"} | {
        f"{name}_dim_{axis}"
        for name, variable in variables.items()
        for axis in range(variable.positions.ndim)
    }
    renamed: dict[str, VariableColumns] = {}
    for name, variable in variables.items():
        stored = name
        while stored in taken or (stored != name and stored in variables):
            stored += "_"
        if stored != name:
            warn_caller(
                f"the parameter {name!r} is stored as {stored!r}: a dimension of the trace is "
                f"called {name!r}"
            )
        renamed[stored] = variable
    return renamed
