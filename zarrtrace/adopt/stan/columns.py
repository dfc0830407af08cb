"""The columns of CmdStan's CSV files, and the variables that they are the elements of.

A column `x.1.2` is an element of the array `x`, `z.real` a part of the complex number `z`, and
`p:1.3` an element of the first part of the tuple `p`.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import numpy as np

from ...errors import InvalidInputError
from ...life.stat_names import arviz_names
from ..columns import Columns, Positions, VariableColumns, rename_variables

_PARTS = re.compile(r"([.:])([^.:]+)")
_STAT_DTYPES = {"treedepth__": "int64", "n_leapfrog__": "int64", "divergent__": "bool"}
_LOG_LIKELIHOOD = "log_lik"  # the variable that ArviZ takes for it


def stan_columns(header: str) -> Columns:
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
    variables = rename_variables(_variables(parameters))
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
    return Columns(tuple(names), {name: group for name, group in groups.items() if group})


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
            # They do not form an array: each is a variable of its own.
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
