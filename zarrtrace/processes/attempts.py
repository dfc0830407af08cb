"""Which chains are started again, and which have failed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from ..messages import counted, warn_caller
from ..recording import exit as ending
from ..trace import Trace
from .chains import Block, block_name, first_chain, first_line


class Attempts:
    """Says which chains are started again, and which have failed."""

    def __init__(self, trace: Trace, retries: int) -> None:
        self._trace = trace
        self._retries = retries
        self._made: Counter[int] = Counter()

    def needs_more(self, block: Block, report: str) -> bool:
        """Whether draws are missing of a chain whose process ended badly; warns if not."""
        if self.lacking([first_chain(block)]):
            return True
        warn_caller(
            f"{block_name(block)} of {self._trace.path} has all its draws, but its process ended "
            f"badly after the last one: {first_line(report)}"
        )
        return False

    def lacking(self, chains: Iterable[int]) -> list[int]:
        """Those of some chains that have draws to come, whoever records them."""
        moment = self._trace._now()
        return [chain for chain in chains if moment.counts[chain] < moment.end.draws]

    def another(self, block: Block, why: str) -> bool:
        """Whether to start a chain again whose process or worker is gone; warns if so."""
        chain = first_chain(block)
        if ending.preempted_by() or self._made[chain] >= self._retries:
            return False
        self._made[chain] += 1
        count = counted(int(self._trace.recorded[chain]), "draw")
        warn_caller(
            f"{block_name(block)} of {self._trace.path} was lost after {count} ({why}); it is "
            f"started again, {self._made[chain]} of {self._retries} times"
        )
        return True
