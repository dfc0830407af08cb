"""One text file that is a table: a line for each draw, a column for each parameter.

GetDist and Cobaya, MrBayes, BEAST and RevBayes write such files, and CSV is one. The separator is
a tab, a comma or blanks. Lines that begin with `#` or `[` are comments, and the names of the
columns are the line before the first draw, or else the last comment with as many words as there are
columns, or else those of GetDist's `.paramnames` file.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from ..errors import InvalidInputError
from .chain_file import ChainFile, is_number, two_runs
from .columns import Columns, VariableColumns, rename_variables

# The first column, where it counts the steps of the sampler: MrBayes, BEAST 1 and 2, RevBayes.
_STEPS = {"gen", "generation", "state", "sample", "iteration"}
# What the samplers say of a draw, besides names that begin with one of these.
_STATS = {"lnl", "lnpr", "posterior", "joint", "likelihood", "prior", "chi2"}
_STATS_BEGIN = ("minuslog", "chi2__")
# The first columns of Cobaya and GetDist.
_WEIGHTED = ("weight", "minuslogpost")
_MOST_STEPS = 10**7  # that a weight is believed
_RUN_COMMENT = "[ID:"  # MrBayes writes the same one into all files of a run


class TableFile(ChainFile):
    """A file whose chain continues for as long as somebody writes it.

    Where the first columns are those of Cobaya, a row is the draws of as many steps as its weight
    says: the chain has not moved for so long.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.thinning: int | None = None
        self._texts: list[str] = []  # before the first draw
        self._names: tuple[str, ...] = ()

    @property
    def tune(self) -> int:
        """Zero: these formats do not say what is warmup."""
        return 0

    @property
    def draws(self) -> None:
        """Nobody knows."""
        return

    @property
    def has_ended(self) -> bool:
        """Never: the end of a table says nothing."""
        return False

    def columns(self) -> Columns:
        """A variable for each column, those that the sampler says of a draw in sample_stats."""
        parameters: dict[str, VariableColumns] = {}
        stats: dict[str, VariableColumns] = {}
        for position, name in enumerate(self._names):
            is_step = not position and name.lower() in _STEPS
            is_stat = name.lower() in _STATS or name.startswith(_STATS_BEGIN)
            if self._is_weighted and not position:
                continue  # it is the number of draws
            found = stats if is_step or is_stat else parameters
            # A slash would make a group of it.
            stored = name.replace("/", ".")
            while stored in found:
                stored += "_"
            dtype = "int64" if is_step else "float64"
            found[stored] = VariableColumns(name, np.array(position), dtype=dtype)
        if not parameters:
            raise InvalidInputError(
                "the columns are those of the sampler, without a parameter", where=str(self.path)
            )
        groups = {"posterior": rename_variables(parameters), "sample_stats": stats}
        return Columns(self._names, {name: group for name, group in groups.items() if group})

    @classmethod
    def require_one_run(cls, files: Sequence[Self]) -> None:
        """Refuse files of other columns or another run of MrBayes."""
        known = [file for file in files if file.header]
        for file in known[1:]:
            if file._names != known[0]._names:
                raise two_runs(known[0], file, "their columns are different")
            if file._run != known[0]._run:
                raise two_runs(known[0], file, f"its ID is {known[0]._run} there, {file._run} here")

    @classmethod
    def describe_run(cls, files: Sequence[Self]) -> dict[str, Any]:
        """The thinning, which the first two steps show."""
        thinning = next(file.thinning for file in files if file.header)
        return {"name": "", "attrs": {} if thinning is None else {"thinning": thinning}}

    # Reading ------------------------------------------------------------------------------

    def look(self) -> bool:
        """Read up to the first draw; whether the names of the columns are known by now.

        Where the steps are counted, they are known with the second draw, which shows the thinning.

        Raises
        ------
        InvalidInputError
            The file is not a table, its columns have no names, or it was removed or replaced since
            it was first read.
        """
        while not self.header and (lines := self._read_lines()):
            for number, line in enumerate(lines):
                text = line.strip()
                separator = _separator(text)
                if text and all(map(is_number, text.split(separator))):
                    self._read_names(text, separator)
                    return self._read_thinning(lines[number:])
                self._read_text(text)
                self._offset += len(line) + 1
        return bool(self.header)

    def _read_text(self, line: bytes) -> None:
        """Keep a line that stands before the first draw."""
        text = line.decode("utf-8-sig", errors="replace")
        if self._texts and not self._is_comment(self._texts[-1].encode()) and text:
            raise self._no_table(
                f"two lines are not numbers: {self._texts[-1]!r:.40}, {text!r:.40}"
            )
        if text:
            self._texts.append(text)

    def _read_names(self, row: bytes, separator: bytes | None) -> None:
        """Find the names of the columns, of which this is the first row."""
        self._separator = separator
        self._width = len(row.split(separator))
        mark = None if separator is None else separator.decode()
        titles = [self._texts[-1]] if self._texts else []
        if titles and self._is_comment(titles[0].encode()):
            titles = [text.lstrip("#").strip() for text in reversed(self._texts) if text[0] == "#"]
        splits = [tuple(name.strip().strip('"') for name in text.split(mark)) for text in titles]
        names = next((names for names in splits if len(names) == self._width), None)
        names = names or self._names_beside()
        if names is None:
            raise self._no_table(
                f"its columns have no names: no line before the first {self._width} numbers has as "
                f"many words, and there is no .paramnames file of GetDist with as many names"
            )
        twice = next((name for i, name in enumerate(names) if name in names[:i] or not name), None)
        if twice is not None:
            raise InvalidInputError(
                f"two columns are called {twice!r}" if twice else "a column has no name",
                where=str(self.path),
                variable=twice,
            )
        self._names = names

    def _names_beside(self) -> tuple[str, ...] | None:
        """The names in GetDist's file `root.paramnames`, without the first two columns."""
        for stem in (self.path.stem, re.sub(r"[._]\d+$", "", self.path.stem)):
            beside = self.path.with_name(f"{stem}.paramnames")
            if beside.is_file():
                lines = beside.read_text(encoding="utf-8", errors="replace").splitlines()
                # A star marks what is derived from the others.
                names = [line.split()[0].rstrip("*") for line in lines if line.strip()]
                if len(names) + len(_WEIGHTED) == self._width:
                    return (*_WEIGHTED, *names)
        return None

    def _read_thinning(self, lines: list[bytes]) -> bool:
        """Compare the steps of the first two draws; whether they are there, if there are steps."""
        if self._names[0].lower() in _STEPS:
            rows = [line.strip() for line in lines if not self._is_comment(line) and line.strip()]
            if len(rows) < 2:
                return False
            steps = [row.split(self._separator)[0] for row in rows[:2]]
            if all(step.isdigit() for step in steps):
                self.thinning = int(steps[1]) - int(steps[0])
        self.header = " ".join(self._names)
        return True

    @property
    def _is_weighted(self) -> bool:
        return self._names[:2] == _WEIGHTED

    @property
    def _run(self) -> str:
        """What MrBayes calls the run."""
        text = self._texts[0] if self._texts else ""
        return text.removeprefix(_RUN_COMMENT).strip(" ]") if text.startswith(_RUN_COMMENT) else ""

    def _is_comment(self, line: bytes) -> bool:
        return line.startswith((b"#", b"["))

    def _count_draws(self, line: bytes, draw: int) -> int:
        super()._count_draws(line, draw)
        if not self._is_weighted:
            return 1
        text = line.split(self._separator, 1)[0]
        weight = float(text) if is_number(text) else -1
        if 0 <= weight <= _MOST_STEPS and weight == int(weight):
            return int(weight)
        raise InvalidInputError(
            f"the weight of the row at draw {draw} is {text.decode(errors='replace')}, which is "
            f"not a number of steps of a chain",
            where=str(self.path),
            remedy="draw rows of equal weight first, with numpy.random.Generator.choice(p=weights) "
            "or makeSingle() of GetDist",
            variable=_WEIGHTED[0],
            draw=draw,
        )

    def _no_table(self, why: str) -> InvalidInputError:
        return InvalidInputError(
            f"the file is not a table of draws with a name for each column: {why}",
            where=str(self.path),
        )


def _separator(row: bytes) -> bytes | None:
    """What stands between the values of a row; None for blanks."""
    return next((mark for mark in (b"\t", b",") if mark in row), None)
