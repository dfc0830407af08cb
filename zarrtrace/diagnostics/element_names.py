"""Names of the elements of variables, by their labels: `theta[Choate]`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import DamagedTraceError
from ..layout.layout import Layout
from ..layout.variables import Variable
from ..reading.others import find_others
from ..store.dtypes import as_labels
from ..store.location import Location

Labels = npt.NDArray[Any]


class ElementNames:
    """Names the elements of the sampled variables of a trace, and reads each coordinate once.

    An element without a label, or with one that cannot be read, has its number.
    """

    def __init__(self, location: Location, layout: Layout) -> None:
        self._location = location
        self._layout = layout
        self._known: dict[tuple[str, str], Labels | None] = {}

    def name(self, variable: Variable, index: int) -> str:
        """The name of one element, by its index in a flat draw."""
        positions = np.unravel_index(index, variable.shape) if variable.shape else ()
        labels = [
            self._label(variable.group, dim, size, int(position))
            for dim, size, position in zip(variable.dims, variable.shape, positions, strict=True)
        ]
        return element_name(variable.name, labels)

    def _label(self, group: str, dim: str, size: int, position: int) -> Any:
        if (group, dim) not in self._known:
            self._known[group, dim] = self._read(group, dim)
        labels = self._known[group, dim]
        return position if labels is None or labels.shape != (size,) else labels[position]

    def _read(self, group: str, dim: str) -> Labels | None:
        if self._layout.coords.get(dim) != dim:
            return None
        from ..reading.data_groups import read_labels

        others = find_others(self._location, self._layout, group, [dim])
        try:
            array = read_labels(self._location, self._layout, group, dim, others)
        except DamagedTraceError:
            return None
        return as_labels(array.values)


def element_name(variable: str, labels: Sequence[Any]) -> str:
    """The name of the element of a variable that has these labels, one for each dimension."""
    return f"{variable}[{', '.join(map(str, labels))}]" if labels else variable
