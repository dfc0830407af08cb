"""One CSV file of CmdStan, and what its comments say."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from ...errors import InvalidInputError
from ...store.local import open_regular
from ..chain_file import ChainFile
from ..columns import Columns
from . import run
from .columns import stan_columns
from .comments import Comments

FIRST_WORDS = b"# stan_version"
_TAIL_BYTES = 1024  # with the times, which come last


class StanFile(ChainFile):
    """A file of CmdStan's method sample.

    Attributes
    ----------
    comments : Comments
        What the lines say that are not draws.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.comments = Comments()

    # What its comments say ----------------------------------------------------------------

    @property
    def tune(self) -> int:
        """Draws of warmup in the file of a chain that has ended."""
        # A model without parameters is sampled with fixed_param whatever the arguments say; that
        # has no warmup, and no step size.
        adapts = "stepsize__" in self.header.split(",")
        if not adapts or not self._number("sample.save_warmup", 0):
            return 0
        return math.ceil(self._number("sample.num_warmup", 1000) / self._thin)

    @property
    def draws(self) -> int:
        """Draws after warmup in the file of a chain that has ended."""
        return math.ceil(self._number("sample.num_samples", 1000) / self._thin)

    @property
    def has_ended(self) -> bool:
        """Whether the chain has drawn everything, and has said how long that took."""
        everything = self.tune + self.draws
        return bool(self.header) and self.rows >= everything and "Total" in self.comments.seconds

    @property
    def _thin(self) -> int:
        return self._number("sample.thin", 1)

    def columns(self) -> Columns:
        """The variables of the model, and the sampler's stats under ArviZ's names."""
        return stan_columns(self.header)

    @classmethod
    def require_one_run(cls, files: Sequence[Self]) -> None:
        """Refuse files of other columns or arguments, and the same chain twice."""
        run.require_one_run(files)

    @classmethod
    def describe_run(cls, files: Sequence[Self]) -> dict[str, Any]:
        """The name of the model, and the arguments that the chains share."""
        return run.describe_run(files)

    @classmethod
    def adaptation(cls, files: Sequence[Self]) -> dict[str, Any]:
        """The seed, the step size and the inverse metric of each chain."""
        return run.adaptation(files)

    # Reading ------------------------------------------------------------------------------

    def look(self) -> bool:
        """Read the comments up to the names of the columns; whether these were read by now.

        If the chain has ended, the last comments say at once how long it took.

        Raises
        ------
        InvalidInputError
            The file was not written by CmdStan's method sample, or was removed or replaced since
            it was first read.
        """
        while not self.header and (lines := self._read_lines()):
            for line in lines:
                self._offset += len(line) + 1
                text = line.decode(errors="replace").strip()
                if text.startswith("#"):
                    self.comments.read_argument(text)
                elif text:
                    self._read_header(text)
                    self._read_seconds()
                    break
        return bool(self.header)

    def _read_comment(self, line: bytes) -> None:
        self.comments.read_result(line.decode(errors="replace"))

    def _require_format(self, head: bytes) -> None:
        shared = min(len(head), len(FIRST_WORDS))
        if head[:shared] != FIRST_WORDS[:shared]:
            raise InvalidInputError(
                "the file is not a CSV file of CmdStan, which begins with its version",
                where=str(self.path),
            )

    def _read_header(self, line: str) -> None:
        method = self.comments.arguments.get("method")
        if method != "sample":
            raise InvalidInputError(
                f"the file is of CmdStan's method {method}; only those of the method sample are "
                f"chains of draws",
                where=str(self.path),
            )
        self.header = line
        self._width = line.count(",") + 1

    def _read_seconds(self) -> None:
        descriptor, size = open_regular(self.path)
        with open(descriptor, "rb") as content:
            content.seek(max(0, size - _TAIL_BYTES))
            lines = content.read().decode(errors="replace").splitlines()
        for line in lines:
            if line.startswith("#"):
                self.comments.read_seconds(line)

    def _number(self, name: str, default: int) -> int:
        value = self.comments.arguments.get(name, default)
        if not isinstance(value, int):
            raise InvalidInputError(
                f"{name} is {value!r}, not a whole number", where=str(self.path)
            )
        return int(value)
