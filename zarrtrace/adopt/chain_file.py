"""A text file with the draws of one chain, read line by line as it grows."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, Self

import numpy as np

from ..errors import InvalidInputError
from ..store.local import open_regular
from .columns import Columns, Numbers

_HEAD_BYTES = 1024  # by which a file is known again
_MOST_BYTES = 2**20  # read at once, unless one line is longer
_MOST_DRAWS = 10_000  # that one call returns, when a line may be several draws


class ChainFile(ABC):
    """The lines of a file, each read once and when it is whole.

    The file may not exist yet. It is opened for each look at it, so that nothing keeps the one
    that another process removed, and a network file system shows what was added.

    Attributes
    ----------
    path : pathlib.Path
        Where the file is.
    header : str
        The line that names the columns, "" until it was read.
    rows : int
        The draws that were read.
    first_row : bytes
        The line of the first draw, empty until it was read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.header = ""
        self.rows = 0
        self.first_row = b""
        self._offset = 0
        self._head = b""
        self._separator: bytes | None = b","
        self._width = 0

    # What a format says of its files --------------------------------------------------------

    @property
    @abstractmethod
    def tune(self) -> int:
        """Draws of warmup in the file of a chain that has ended."""

    @property
    @abstractmethod
    def draws(self) -> int | None:
        """Draws after warmup in the file of a chain that has ended; None where nobody knows."""

    @property
    @abstractmethod
    def has_ended(self) -> bool:
        """Whether the file says that its chain has ended, and all its draws were read."""

    @abstractmethod
    def look(self) -> bool:
        """Read up to the first draw; whether the names of the columns are known by now.

        Raises
        ------
        InvalidInputError
            The file is not of this format, or was removed or replaced since it was first read.
        """

    @abstractmethod
    def columns(self) -> Columns:
        """The variables of the file, once the names of its columns are known.

        Raises
        ------
        InvalidInputError
            Two columns have the same name, or there is no parameter.
        """

    @classmethod
    @abstractmethod
    def require_one_run(cls, files: Sequence[Self]) -> None:
        """Refuse files that are not the chains of one run, as far as they are read.

        Raises
        ------
        InvalidInputError
            Two of them are of different runs, or are the same chain.
        """

    @classmethod
    @abstractmethod
    def describe_run(cls, files: Sequence[Self]) -> dict[str, Any]:
        """The name and the attributes of a trace of these files, as `zarrtrace.create` takes them.

        The names of the columns are known of one file at least.
        """

    @classmethod
    def adaptation(cls, files: Sequence[Self]) -> dict[str, Any]:
        """What the files say of each chain once its warmup is over; empty if nothing."""
        return {}

    # Reading ------------------------------------------------------------------------------

    def read(self) -> list[bytes]:
        """The lines of the next draws; empty when there is no further whole line.

        A line that stands for several draws is repeated as often. Each call reads some of the
        draws of a large file, and the comments between them.

        Raises
        ------
        InvalidInputError
            As `look`; or a line has other columns than the header.
        """
        rows: list[bytes] = []
        while self.look() and not rows and (lines := self._read_lines()):
            for line in lines:
                text = line.strip()
                if self._is_comment(text):
                    self._read_comment(text)
                elif text:
                    try:
                        rows += [text] * self._count_draws(text, self.rows + len(rows))
                    except InvalidInputError:
                        if rows:
                            # What is before it is good; the next call begins with this line.
                            break
                        raise
                self._offset += len(line) + 1
                if len(rows) >= _MOST_DRAWS:
                    break
        if not self.rows and rows:
            self.first_row = rows[0]
        self.rows += len(rows)
        return rows

    def parse(self, rows: list[bytes], first: int) -> Numbers:
        """The numbers in lines of draws, (draws, columns), up to the first damaged line.

        Parameters
        ----------
        rows : list of bytes
            What `read` returned, or a part of it.
        first : int
            The number of the first of these draws, for messages.

        Raises
        ------
        InvalidInputError
            There is something else than a number in the first line.
        """
        try:
            return self._parse(rows)
        except ValueError:
            words = enumerate(map(self._first_word, rows))
            found = next(((row, word) for row, word in words if word is not None), None)
            if found is None:
                raise
        good, word = found
        if not good:
            raise self._bad_row(first, f"has {word.decode(errors='replace')!r}")
        return self._parse(rows[:good])

    def _parse(self, rows: list[bytes]) -> Numbers:
        delimiter = None if self._separator is None else self._separator.decode()
        numbers: Numbers = np.loadtxt(rows, delimiter=delimiter, comments=None, ndmin=2)
        return numbers

    def _first_word(self, row: bytes) -> bytes | None:
        """The first value in a line that is not a number, if there is one."""
        return next((word for word in row.split(self._separator) if not is_number(word)), None)

    def _is_comment(self, line: bytes) -> bool:
        return line.startswith(b"#")

    def _read_comment(self, line: bytes) -> None:  # noqa: B027
        """Read a comment that stands among the draws, or after them."""

    def _count_draws(self, line: bytes, draw: int) -> int:
        """How many draws a line stands for, of which this is the number of the first."""
        width = len(line.split()) if self._separator is None else line.count(self._separator) + 1
        if width != self._width:
            raise self._bad_row(draw, f"has {width} values")
        return 1

    def _read_lines(self) -> list[bytes]:
        """The next whole lines, without their ends."""
        try:
            with open(open_regular(self.path)[0], "rb") as content:
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
        """Refuse a file that does not continue what was read before."""
        head = content.read(_HEAD_BYTES)
        size = content.seek(0, os.SEEK_END)
        if not head.startswith(self._head) or size < self._offset:
            raise InvalidInputError(
                "another run has written a new file in its place",
                where=str(self.path),
                remedy="follow the new run into another trace",
            )
        self._require_format(head)
        self._head = head

    def _require_format(self, head: bytes) -> None:  # noqa: B027
        """Refuse a file that begins otherwise than those of its format."""

    def _bad_row(self, draw: int, found: str) -> InvalidInputError:
        return InvalidInputError(
            f"the line of draw {draw} {found}, where {self._width} numbers belong",
            where=str(self.path),
            remedy="the file is damaged; the draws before this one are good",
            draw=draw,
        )


def two_runs(one: ChainFile, other: ChainFile, why: str) -> InvalidInputError:
    """The error of a file that is not of the run of another one."""
    return InvalidInputError(
        f"the file is of another run than {one.path}: {why}",
        where=str(other.path),
        remedy="give the files of one run",
    )


def is_number(text: bytes) -> bool:
    """Whether a value is a number, as Python reads it; NaN and infinity are."""
    try:
        float(text)
    except ValueError:
        return False
    return b"_" not in text
