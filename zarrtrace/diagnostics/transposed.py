"""A variable that is larger than memory, in slabs of scalars with all their draws.

A chunk holds all scalars of some draws, and a rank needs all draws of a scalar. So the variable is
transposed once through a file: every chunk is decoded once, and written as a part of each slab.
"""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from ..errors import InvalidInputError
from .parts import Part, read_parts
from .selection import Chosen, Selection

_PARTS = 4  # of the memory: two for draws that are read and written, one for a copy, or a slab


@dataclass(frozen=True)
class Room:
    """How much memory may be used, and the directory for what does not fit.

    Attributes
    ----------
    say : callable
        Told what is written to the directory, before it is.
    """

    memory: float
    scratch: str | os.PathLike[str] | None
    say: Callable[[str], None]

    def holds(self, selection: Selection, chosen: Chosen) -> bool:
        """Whether a variable is read whole: it fits, or is not one that is stored in our chunks."""
        draws = len(selection.counts) * selection.length
        whole = draws * int(np.prod(chosen.shape)) * chosen.dtype.itemsize
        return whole <= self.memory / _PARTS or selection.sampled(chosen) is None


def read_in_slabs(selection: Selection, chosen: Chosen, room: Room) -> Iterator[npt.NDArray[Any]]:
    """The chosen draws of a variable, some scalars after the other: (chains, draws, scalars).

    The slabs share their memory: each is valid until the next one is asked for.

    Raises
    ------
    InvalidInputError
        The directory has too little room.
    """
    chains, draws = selection.shape
    column = chains * draws * chosen.dtype.itemsize
    step = max(1, int(room.memory / _PARTS / column))
    bounds = [*range(0, len(chosen.places), step), len(chosen.places)]
    directory = os.fspath(room.scratch or tempfile.gettempdir())
    size = column * len(chosen.places)
    _require_room(directory, size, chosen, selection)
    room.say(
        f"{selection.group}/{chosen.name} is transposed through {directory}, which takes "
        f"{size_label(size)} there"
    )
    # Nothing is left of it when this process is killed.
    with tempfile.TemporaryFile(dir=directory, buffering=0) as file:
        _reserve(file, size)
        for part in read_parts(selection, chosen, room.memory / _PARTS):
            for start, stop in itertools.pairwise(bounds):
                _write(file, part, start, stop, selection.shape)
        buffer: npt.NDArray[Any] = np.empty(min(step, bounds[-1]) * chains * draws, chosen.dtype)
        for start, stop in itertools.pairwise(bounds):
            slab = buffer[: (stop - start) * chains * draws]
            file.seek(start * column)
            _read_into(file, memoryview(slab).cast("B"))
            yield slab.reshape(chains, draws, stop - start)


def _write(file: IO[bytes], part: Part, start: int, stop: int, shape: tuple[int, int]) -> None:
    """Write some scalars of a part to their slab, where draws of a chain follow each other."""
    chains, draws = shape
    data = np.ascontiguousarray(part.values[:, start:stop])
    row = part.chain * draws + part.first
    place = start * chains * draws + row * (stop - start)
    view = memoryview(data).cast("B")
    file.seek(place * data.itemsize)
    while view:
        view = view[file.write(view) :]


def _require_room(directory: str, size: int, chosen: Chosen, selection: Selection) -> None:
    try:
        free = shutil.disk_usage(directory).free
    except OSError as error:
        raise InvalidInputError(
            f"the scratch directory {directory} cannot be used: {error.strerror}",
            remedy="give another one as scratch",
        ) from None
    if free < size:
        raise InvalidInputError(
            f"{selection.group}/{chosen.name} has to be transposed through {directory}, which "
            f"takes {size_label(size)}, and {size_label(free)} are free there",
            remedy="give another directory as scratch, or more memory, or choose scalars by coords",
            group=selection.group,
            variable=chosen.name,
        )


def _reserve(file: IO[bytes], size: int) -> None:
    """Make a disk that fills up meanwhile an error now, where the file system can say so."""
    try:
        os.posix_fallocate(file.fileno(), 0, size)
    except (OSError, AttributeError):
        file.truncate(size)


def _read_into(file: IO[bytes], view: memoryview) -> None:
    while view:
        number = file.readinto(view)  # type: ignore[attr-defined]
        if not number:
            raise OSError("the scratch file is shorter than it was written")
        view = view[number:]


def size_label(size: float) -> str:
    """`12.3 GB`, `4.0 MB`, `512 bytes`."""
    for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if size >= unit:
            return f"{size / unit:.1f} {name}"
    return f"{int(size)} bytes"
