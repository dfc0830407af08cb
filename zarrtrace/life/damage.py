"""What is wrong with a trace or a table, as `check` finds it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Damage:
    """One thing that is wrong with a trace or a table; its text describes it in full.

    Attributes
    ----------
    path : str
        The key or array concerned.
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
        The variable whose draws they are.
    block : int
        The block of chains, counted from 0.
    draws : range
        The draws, counted from the start of the chain; in a table, the rows.
    """

    group: str
    variable: str
    block: int
    draws: range
