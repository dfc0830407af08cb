"""The columns of a text file of draws, and the variables that they are the elements of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..layout.variables import Var
from ..messages import warn_caller

Numbers = np.ndarray[Any, np.dtype[np.float64]]
Values = np.ndarray[Any, Any]
Positions = np.ndarray[Any, np.dtype[np.intp]]


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
    source_name : str
        What the file calls the variable.
    positions : numpy.ndarray of int
        For each element the number of its column, in the shape of the variable.
    imaginary : numpy.ndarray of int, optional
        The same for the imaginary parts of complex numbers.
    dtype : str
        Of the values.
    """

    source_name: str
    positions: Positions
    imaginary: Positions | None = None
    dtype: str = "float64"

    def definition(self, name: str) -> Var:
        """The variable, where the trace calls it `name`."""
        is_stat = self.source_name.endswith("__")
        attrs = {} if is_stat or name == self.source_name else {"name_in_model": self.source_name}
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


def rename_variables(variables: dict[str, VariableColumns]) -> dict[str, VariableColumns]:
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
