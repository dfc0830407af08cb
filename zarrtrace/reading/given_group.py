"""One version of a group that was given whole: where it lies while others take its place.

Whoever replaces or removes a group puts the old one aside, and deletes it when nobody holds it.
"""

from __future__ import annotations

import itertools
import weakref

from ..errors import DamagedTraceError, StaleViewError
from ..layout.hierarchy import Hierarchy
from ..layout.layout import ASIDE, Layout
from ..store.local import SharedLock, can_lock
from ..store.zarr_json import read_document

_MOST_HELD = 128  # each takes a file descriptor
_held: weakref.WeakValueDictionary[int, SharedLock] = weakref.WeakValueDictionary()
_number = itertools.count()


class GivenGroup:
    """A group of a layout, which stays what it is when the trace gets another one of its name.

    In a local directory its files are kept as long as this object lives, or until 128 others were
    opened since. Elsewhere they are gone when the other group has taken its place.

    Attributes
    ----------
    path : str
        Where it lies, as far as is known: `follow` says whether it still does.

    Raises
    ------
    StaleViewError
        It was replaced or removed.
    """

    def __init__(self, hierarchy: Hierarchy, layout: Layout, name: str) -> None:
        self.hierarchy = hierarchy
        self.name = name
        # A group of another tool cannot be told from one that replaces it.
        self._is_ours = name in layout.data_groups
        self._created_at = layout.group_created_at(name)
        self.path = ""
        if self._is_in_place(layout):
            self.path = name
            self._hold()
        else:
            self._look_aside()

    def follow(self, layout: Layout) -> bool:
        """Look where the group lies now, by the layout of now; whether that is another place.

        If it is not, what was read before is right.

        Raises
        ------
        StaleViewError
            It is nowhere any more.
        """
        before = self.path
        if self._is_in_place(layout):
            self.path = self.name
        else:
            self._look_aside()
        return self.path != before

    def _is_in_place(self, layout: Layout) -> bool:
        """Whether it lies at its name, says a layout; others say nothing of where it is."""
        if self.name in layout.replacing:
            return False
        if not self._is_ours:
            return self.name not in layout.data_groups
        return (
            self.name in layout.data_groups
            and layout.group_created_at(self.name) == self._created_at
        )

    def _look_aside(self) -> None:
        """Find it where it is, and hold it there."""
        while (found := self._find()) != self.path:
            self.path = found
            if not self._hold():
                # It is being deleted, and not found any more when that has begun.
                self.path = ""

    def _find(self) -> str:
        location = self.hierarchy.location
        aside = location.children(ASIDE)
        places = sorted(name for name in aside if name.rpartition(".")[0] == self.name)
        # It may have gone from one place to another while both were looked at.
        once = [self.name, *(f"{ASIDE}/{name}" for name in places)]
        for path in (*once, *once) if self._is_ours else ():
            try:
                document = read_document(location, path) or {}
            except DamagedTraceError:
                continue
            if document.get("attributes", {}).get("created_at") == self._created_at:
                return path
        raise StaleViewError(
            f"the group {self.name!r} was replaced or removed since it was opened",
            where=str(location),
            remedy=f"ask the trace for it again: trace[{self.name!r}]",
            group=self.name,
        )

    def _hold(self) -> bool:
        """Keep the files from whoever would delete them, as far as there are such locks.

        False if they are being deleted.
        """
        location = self.hierarchy.location
        if location.path is None or not can_lock() or not self._is_ours:
            return True
        while len(_held) >= _MOST_HELD:
            oldest = _held.pop(next(iter(_held)), None)
            if oldest is not None:
                oldest.let_go()
        # The one before is let go when this one is taken.
        lock = SharedLock()
        try:
            is_taken = lock.take(location.path / self.path)
        except OSError:
            # It has gone elsewhere, which `follow` finds; or it is damaged, which a reader says.
            return True
        if is_taken:
            _held[next(_number)] = self._lock = lock
        return is_taken
