"""A trace as a place and a layout: where it is stored, and how it is laid out now."""

from __future__ import annotations

from ..errors import TraceNotFoundError, TraceReplacedError
from ..store.location import Location
from ..store.zarr_json import LONGEST_DOCUMENT
from .file import decode_layout, encode_layout
from .layout import STATE, Layout


class Hierarchy:
    """The Zarr hierarchy of one trace: once it has been read, it stays with that trace.

    Attributes
    ----------
    location : Location
        Where it is stored.

    Parameters
    ----------
    layout : Layout, optional
        The layout of a trace that was just made, so that no other trace is taken for it.
    """

    def __init__(self, location: Location, layout: Layout | None = None) -> None:
        self.location = location
        # One tuple, replaced at once: threads may share a trace.
        self._known: tuple[tuple[int, ...] | None, bytes, Layout] | None = None
        if layout is not None:
            self._known = None, b"", layout

    @property
    def layout(self) -> Layout:
        """The layout as it is now.

        It is the same object as long as nothing has changed: a reader compares the object before
        and after reading, and so knows that no split moved chunks in between.

        Raises
        ------
        TraceNotFoundError
            There is no trace.
        TraceReplacedError
            Another trace lies where the one lay that this hierarchy was read from.
        DamagedTraceError, FormatVersionError
            The layout cannot be read.
        """
        known = self._known
        # The stamp is taken before the read: after a change in between, the next call reads again.
        stamp = self.location.stamp(f"{STATE}/zarr.json")
        if known is not None and stamp is not None and stamp == known[0]:
            return known[2]
        found = self.location.read(f"{STATE}/zarr.json", LONGEST_DOCUMENT)
        if found is None:
            raise TraceNotFoundError(f"there is no trace at {self.location} any more")
        # As bytes: a memoryview is compared element by element.
        data = bytes(found)
        same = known is not None and data == known[1]
        layout = known[2] if known and same else decode_layout(memoryview(data), str(self.location))
        if known is not None and layout.identity != known[2].identity:
            raise TraceReplacedError(
                "another trace lies here now: this one was overwritten or removed",
                where=str(self.location),
                remedy=f"zarrtrace.open({str(self.location)!r}) opens the other",
            )
        self._known = stamp, data, layout
        return layout

    def change(self, layout: Layout) -> None:
        """Put a new layout in place of the old one, at once for every reader.

        It survives power loss: what it makes superfluous may be removed afterwards.
        """
        self.location.write(f"{STATE}/zarr.json", encode_layout(layout))
        self.location.make_durable([f"{STATE}/zarr.json"])

    def __str__(self) -> str:
        return str(self.location)
