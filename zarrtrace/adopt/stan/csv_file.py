"""One CSV file of CmdStan, read line by line as it grows."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import IO

import numpy as np

from ...errors import InvalidInputError
from .columns import Numbers
from .comments import Comments

_FIRST_WORDS = b"# stan_version"
_HEAD_BYTES = 1024  # by which a file is known again: the date is in them
_TAIL_BYTES = 1024  # with the times, which come last
_MOST_BYTES = 2**20  # read at once, unless one line is longer


class StanFile:
    """The lines of a file, each read once and when it is whole.

    The file may not exist yet. It is opened for each look at it, so that nothing keeps the one
    that another process removed, and a network file system shows what was added.

    Attributes
    ----------
    path : pathlib.Path
        Where the file is.
    header : str
        The names of the columns, "" until they were read.
    rows : int
        The draws whose lines were read.
    first_row : bytes
        The line of the first draw, empty until it was read.
    comments : Comments
        What the other lines say.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.header = ""
        self.rows = 0
        self.first_row = b""
        self.comments = Comments()
        self._offset = 0
        self._commas = 0
        self._head = b""

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

    # Reading ------------------------------------------------------------------------------

    def look(self) -> bool:
        """Read the comments up to the names of the columns; whether these were read by now.

        Of a chain that has ended, the last comments say at once how long it took.

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

    def read(self) -> list[bytes]:
        """The lines of the next draws; empty when there is no further whole line.

        Of a file with many draws some are read at each call. Comments on the way are read too.

        Raises
        ------
        InvalidInputError
            As `look`; or a line has other columns than the header.
        """
        rows: list[bytes] = []
        while self.look() and not rows and (lines := self._read_lines()):
            for line in lines:
                text = line.rstrip(b"\r")
                if text.startswith(b"#"):
                    self.comments.read_result(text.decode(errors="replace"))
                elif text and text.count(b",") != self._commas:
                    if rows:
                        # What is before it is good; the next call begins with this line.
                        break
                    raise self._bad_row(self.rows, f"has {text.count(b',') + 1} values")
                elif text:
                    rows.append(text)
                self._offset += len(line) + 1
        if not self.rows and rows:
            self.first_row = rows[0]
        self.rows += len(rows)
        return rows

    def parse(self, rows: list[bytes], first: int) -> Numbers:
        """The numbers in lines of draws, (draws, columns).

        Parameters
        ----------
        rows : list of bytes
            What `read` returned, or a part of it.
        first : int
            The number of the first of these draws, for messages.

        Raises
        ------
        InvalidInputError
            There is something else than a number.
        """
        try:
            numbers: Numbers = np.loadtxt(rows, delimiter=",", comments=None, ndmin=2)
        except ValueError:
            for draw, row in enumerate(rows, first):
                for text in row.split(b","):
                    if not _is_number(text):
                        raise self._bad_row(
                            draw, f"has {text.decode(errors='replace')!r}"
                        ) from None
            raise
        return numbers

    def _read_lines(self) -> list[bytes]:
        """The next whole lines, without their ends."""
        try:
            with self.path.open("rb") as content:
                self._require_same(content)
                length, text = _MOST_BYTES, b""
                while b"\n" not in text:
                    content.seek(self._offset)
                    text = content.read(length)
                    if len(text) < length:
                        break
                    length *= 2
        except FileNotFoundError:
            if not self._head:
                return []
            raise InvalidInputError(
                "the file was removed while its draws were read",
                where=str(self.path),
                remedy="the draws that were read are kept",
            ) from None
        except OSError as error:
            raise InvalidInputError(
                f"the file cannot be read ({error.strerror})", where=str(self.path)
            ) from error
        return text[: text.rfind(b"\n") + 1].split(b"\n")[:-1]

    def _require_same(self, content: IO[bytes]) -> None:
        """Refuse a file that does not go on from what was read before."""
        head = content.read(_HEAD_BYTES)
        size = content.seek(0, os.SEEK_END)
        if not head.startswith(self._head) or size < self._offset:
            raise InvalidInputError(
                "another run has written a new file in its place",
                where=str(self.path),
                remedy="follow the new run into another trace",
            )
        shared = min(len(head), len(_FIRST_WORDS))
        if head[:shared] != _FIRST_WORDS[:shared]:
            raise InvalidInputError(
                "the file is not a CSV file of CmdStan, which begins with its version",
                where=str(self.path),
            )
        self._head = head

    def _read_header(self, line: str) -> None:
        method = self.comments.arguments.get("method")
        if method != "sample":
            raise InvalidInputError(
                f"the file is of CmdStan's method {method}; only those of the method sample are "
                f"chains of draws",
                where=str(self.path),
            )
        self.header = line
        self._commas = line.count(",")

    def _read_seconds(self) -> None:
        with self.path.open("rb") as content:
            size = content.seek(0, os.SEEK_END)
            content.seek(max(0, size - _TAIL_BYTES))
            lines = content.read().decode(errors="replace").splitlines()
        for line in lines:
            if line.startswith("#"):
                self.comments.read_seconds(line)

    def _bad_row(self, draw: int, found: str) -> InvalidInputError:
        return InvalidInputError(
            f"the line of draw {draw} {found}, where {self._commas + 1} numbers belong",
            where=str(self.path),
            remedy="the file is damaged; the draws before this one are good",
            draw=draw,
        )

    def _number(self, name: str, default: int) -> int:
        value = self.comments.arguments.get(name, default)
        if not isinstance(value, int):
            raise InvalidInputError(
                f"{name} is {value!r}, not a whole number", where=str(self.path)
            )
        return int(value)


def _is_number(text: bytes) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
