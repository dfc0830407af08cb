"""What the trials of a harness ended with, counted, and printed at its end."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, get_args

# "lost": an acknowledged draw is not there; "wrong": a draw has another value than it was given;
# "unreadable": what is there, or a run that continues there, ends in an error; "failed": all else.
Kind = Literal["lost", "wrong", "unreadable", "failed"]

KINDS: tuple[Kind, ...] = get_args(Kind)


class TrialFailed(AssertionError):
    """A trial found what must not be."""

    def __init__(self, kind: Kind, why: str) -> None:
        super().__init__(why)
        self.kind = kind


def kind_of(error: BaseException) -> Kind:
    if isinstance(error, TrialFailed):
        return error.kind
    return "failed" if isinstance(error, AssertionError) else "unreadable"


class Outcomes:
    """Counts what trials ended with, and whatever else they say."""

    def __init__(self) -> None:
        self.trials = 0
        self.seen: Counter[str] = Counter()
        self.ended: Counter[Kind] = Counter()

    @contextmanager
    def trial(self, number: int) -> Iterator[None]:
        """One trial; its error is counted and printed; the next trial begins."""
        self.trials += 1
        try:
            yield
        except Exception as error:
            kind = kind_of(error)
            self.ended[kind] += 1
            print(f"trial {number} {kind}: {type(error).__name__}: {error}", flush=True)

    def __str__(self) -> str:
        ended = ", ".join(f"{self.ended[kind]} {kind}" for kind in KINDS)
        seen = "".join(f", {count:,} {what}" for what, count in self.seen.items())
        return f"{self.trials} trials{seen}: {ended}"

    @property
    def exit_code(self) -> int:
        return 1 if self.ended.total() else 0


def counts(output: str) -> Counter[str]:
    """The counts in the last line that a harness printed; none of its trials may have failed."""
    pairs = re.findall(r"(\d[\d,]*) ([^,:]+)", output.splitlines()[-1])
    found = Counter({what: int(number.replace(",", "")) for number, what in pairs})
    assert {kind: found[kind] for kind in KINDS} == dict.fromkeys(KINDS, 0), output
    return found
