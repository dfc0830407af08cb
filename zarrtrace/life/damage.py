"""What is wrong with a trace or a table, as `check` finds it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Damage:
    """One thing that is wrong with a trace or a table; its text says all of it.

    Attributes
    ----------
    path : str
        The key or array it is about.
    why : str
        What is wrong, and what it means.
    """

    path: str
    why: str

    def __str__(self) -> str:
        return f"{self.path}: {self.why}"


@dataclass(frozen=True)
class DamagedDraws(Damage):
    """Draws that cannot be read, or rows of a table.

    Attributes
    ----------
    path, why : str
        As in `Damage`.
    group, variable : str
        Whose draws they are.
    block : int
        Which writer's chains they are of, counted from 0.
    draws : range
        Which ones, counted from the start of the chain; of a table, the rows.
    """

    group: str
    variable: str
    block: int
    draws: range
