"""What CmdStan says in the comments of its CSV files: arguments, adaptation, times."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

Argument = str | int | float | bool

_VALUE = re.compile(r"([^=]*?)\s*=\s*(.*?)(?:\s*\(Default\))?\s*")
_STEP_SIZE = re.compile(r"Step size\s*=\s*(\S+)")
_SECONDS = re.compile(r"([-+.\deE]+) seconds \((Warm-up|Sampling|Total)\)")
_METRIC = "nverse mass matrix:"  # "Diagonal elements of inverse ...", "Elements of inverse ..."


@dataclass
class Comments:
    """The comments of one file, as far as they were read.

    Attributes
    ----------
    arguments : dict of str to str, int, float or bool
        Those that stand before the names of the columns. The key has the sections of the argument:
        `sample.num_warmup`, `random.seed`.
    step_size : float or None
        What adaptation has chosen.
    inverse_metric : list of list of float
        Its rows: one for a diagonal metric, none where there is no metric.
    seconds : dict of str to float
        `Warm-up`, `Sampling` and `Total`; empty until the chain has ended.
    """

    arguments: dict[str, Argument] = field(default_factory=dict)
    step_size: float | None = None
    inverse_metric: list[list[float]] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    _sections: list[tuple[int, str]] = field(default_factory=list)
    _in_metric: bool = False

    def read_argument(self, line: str) -> None:
        """Read a comment that stands before the names of the columns."""
        text = line.lstrip("#").rstrip()
        depth = len(text) - len(text.lstrip())
        self._sections = [section for section in self._sections if section[0] < depth]
        found = _VALUE.fullmatch(text.strip())
        if found is None:
            self._sections.append((depth, text.strip()))
            return
        # The sections that only repeat a choice, such as `hmc`, do not help to find an argument.
        section = f"{self._sections[-1][1]}." if self._sections else ""
        self.arguments[section + found[1]] = _value(found[2])

    def read_result(self, line: str) -> None:
        """Read a comment that stands among the draws, or after them."""
        text = line.lstrip("#").strip()
        if self._in_metric:
            row = _numbers(text)
            if row:
                self.inverse_metric.append(row)
                return
            self._in_metric = False
        if found := _STEP_SIZE.fullmatch(text):
            self.step_size = float(found[1])
        elif text.endswith(_METRIC):
            self._in_metric = True
        else:
            self.read_seconds(line)

    def read_seconds(self, line: str) -> None:
        """Read the time that a comment says, if it says one."""
        if found := _SECONDS.search(line):
            self.seconds[found[2]] = float(found[1])


def short_name(name: str, arguments: Iterable[str]) -> str:
    """The name of an argument without its section, if no other one is called the same."""
    short = name.rpartition(".")[2]
    same = [other for other in arguments if other.rpartition(".")[2] == short]
    return short if len(same) == 1 else name


def _value(text: str) -> Argument:
    if text in ("true", "false"):
        return text == "true"
    for number in (int, float):
        try:
            value = number(text)
        except ValueError:
            continue
        # JSON has no infinity.
        return value if math.isfinite(value) else text
    return text


def _numbers(text: str) -> list[float]:
    try:
        return [float(item) for item in text.split(",")]
    except ValueError:
        return []
