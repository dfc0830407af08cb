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

    See Also
    --------
    Trace.check : Find what is damaged.
    DamagedDraws : Draws that cannot be read.

    Examples
    --------
    >>> import os
    >>> import zarrtrace as zt
    >>> trace = zt.create("run.zarr", chains=1, draws=4, posterior={"mu": 0.0})
    >>> os.remove("run.zarr/posterior/chain/zarr.json")
    >>> [damage] = trace.check()
    >>> damage.path
    'posterior/chain'
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

    See Also
    --------
    Trace.check : Find what is damaged.
    Trace.repair : Keep all other draws.

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
    >>> [damage] = trace.check()
    >>> damage.group, damage.variable, damage.block, damage.draws
    ('posterior', 'mu', 0, range(2, 4))
    """

    group: str
    variable: str
    block: int
    draws: range
