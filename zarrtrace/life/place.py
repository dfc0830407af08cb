"""The place of a new trace: it is empty, or has an old trace that is replaced.

In a local directory the new trace is built beside the place and renamed into it, so that there is
always the old trace or the new one, whatever happens to the process. Where nothing can be
renamed (object stores, memory, mount points) the new trace is written in place: a mark in
`_sampling_state/zarr.json` says who makes it, and whether its maker is alive.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from zarr.storage import LocalStore

from ..errors import ChainBusyError, NotWritableError, TraceError, TraceExistsError
from ..layout.file import LAYOUT_ATTRIBUTE, MAKER_ATTRIBUTE
from ..layout.hierarchy import Hierarchy
from ..layout.layout import STATE, Layout
from ..messages import warn_caller
from ..recording.exit import writer_with
from ..recording.writer import ChainWriter
from ..sampling_state.block import ChainBlock, chain_blocks, read_claims, watch_until_free
from ..sampling_state.claim import STALE_AFTER, Claim, process_began, watch
from ..store.beside import (
    bring_back,
    building_beside,
    change_places,
    real_place,
    take_free_place,
)
from ..store.location import Location
from ..store.zarr_json import documents_first, encode_document, group_document, parse_document

Content = Literal["nothing", "unfinished", "being made", "trace", "something else"]

_DOCUMENT = f"{STATE}/zarr.json"
# Where a new trace is built that will replace another one in the same store.
_REPLACEMENT = f"{STATE}/replacement"
# Groups beside it, see `_succeeding`.
_SUCCESSOR = "successor_"
_PATIENCE = 60.0  # seconds to wait for another process that makes or overwrites a trace


# What is there ----------------------------------------------------------------------------------


def look(location: Location) -> Content:
    """What is at the place of a new trace."""
    state = bring_back_what_was_there(location)
    maker = maker_of(state)
    if LAYOUT_ATTRIBUTE in state:
        return "trace"
    if maker is not None:
        return "being made" if maker.alive else "unfinished"
    names = {name for name in location.children("") if not name.endswith(".partial")}
    if names and _attributes(location, _DOCUMENT) != state:
        return look(location)  # another process has begun to make a trace since
    # An export of a trace has the attributes of one, but no sampling state.
    ours = _attributes(location, "zarr.json").get("creation_library") == "zarrtrace"
    if ours and location.exists(_DOCUMENT):
        # An earlier version was killed while it made this, or the document is damaged.
        arrays = ("draw_idx", "journal", "writer")
        names = {name for array in arrays for name in location.children(f"{STATE}/{array}")}
        return (
            "trace" if any(name == "c" or name.startswith("c.") for name in names) else "unfinished"
        )
    if ours and names == {"zarr.json"}:
        return "unfinished"
    return "something else" if names else "nothing"


def bring_back_what_was_there(location: Location) -> dict[str, Any]:
    """Finish the replacement of a trace by a process that was killed.

    Returns
    -------
    dict
        The attributes of the sampling state afterwards.
    """
    if location.path is not None:
        bring_back(real_place(location.path))
    state = _attributes(location, _DOCUMENT)
    return _attributes(location, _DOCUMENT) if _complete_replacement(location, state) else state


def _attributes(location: Location, key: str) -> dict[str, Any]:
    data = location.read(key)
    try:
        attributes = parse_document(data, key).get("attributes") if data is not None else None
    except TraceError:
        attributes = None
    return attributes if isinstance(attributes, dict) else {}


def maker_of(attributes: dict[str, Any]) -> Claim | None:
    """The process that made or makes a trace; None when it is no longer known."""
    text = attributes.get(MAKER_ATTRIBUTE)
    return Claim.from_text(text) if isinstance(text, str) else None


# A new trace ------------------------------------------------------------------------------------

Write = Callable[[Location], object]


def settle(location: Location, if_exists: str, write: Write) -> bool:
    """Write a new trace at a place; False when the existing trace is to be opened instead.

    Parameters
    ----------
    if_exists : "error", "open" or "overwrite"
        What to do with an existing trace.
    write : callable
        Writes the new trace to the location it is called with.

    Raises
    ------
    TraceExistsError
        There is something else, or a trace that must not be overwritten, or one that another
        process has made at the same moment.
    ChainBusyError
        A chain of the trace to be overwritten is being recorded.
    """
    location.require_writable()
    bring_back_what_was_there(location)
    before = identity(location)
    _wait_for_unseen_maker(location)
    deadline = time.monotonic() + _PATIENCE
    while True:
        content = look(location)
        if content == "trace" and if_exists == "open":
            return False
        if content == "being made" and if_exists == "open" and time.monotonic() < deadline:
            time.sleep(0.05)
        elif content in ("nothing", "unfinished"):
            if _fill(location, content, write):
                return True
            if time.monotonic() > deadline:
                raise _exists(location, "being made")
            time.sleep(0.05)
        elif content == "trace" and if_exists == "overwrite":
            if not _overwrite(location, before, write):
                raise _exists(location, "being made")
            return True
        else:
            raise _exists(location, content)


def _wait_for_unseen_maker(location: Location) -> None:
    """Wait until a process that this one cannot see has made its trace, or had time to do so."""

    def maker() -> Claim | None:
        state = _attributes(location, _DOCUMENT)
        return None if LAYOUT_ATTRIBUTE in state else maker_of(state)

    watch(maker)


def _exists(location: Location, content: Content) -> TraceExistsError:
    if content == "being made":
        return TraceExistsError(
            f"another process is making a trace at {location}",
            remedy="wait until it is done, and open it with zarrtrace.open(..., mode='a'), or pass "
            "if_exists='open'",
        )
    if content == "trace":
        return TraceExistsError(
            f"there is a trace at {location} already",
            remedy="open it with zarrtrace.open(..., mode='a'), choose another place, or pass "
            "overwrite=True to remove it",
        )
    return TraceExistsError(
        f"{location} holds something that is not a trace, and zarrtrace removes only traces",
        remedy="choose another place, or remove it yourself",
    )


def _fill(location: Location, content: Content, write: Write) -> bool:
    """Write a trace where there is none; False when another process was faster."""
    with ExitStack() as stack:
        beside = _beside(stack, location) if content == "nothing" else None
        if beside is not None and not real_place(location.path or Path()).exists():
            write(beside)
            assert beside.path is not None
            return take_free_place(beside.path, real_place(location.path or Path()))
    # An empty directory is kept, with its owner, its permissions, and processes that are in it.
    if location.path is not None and not location.path.exists():
        location.path.mkdir(parents=True, exist_ok=True)
    with location.alone(_PATIENCE) as alone:
        found = _name_of(location)
        if not alone or look(location) != content:
            return False
        if content == "nothing":
            return _write_first(location, write)
        with _succeeding(location, found) as maker:
            if maker is not None:
                _write_in_place(location, maker, write)
            return maker is not None


def _write_first(location: Location, write: Write) -> bool:
    """Write a trace to an empty place; False when another process was faster."""
    with making() as maker:
        if not location.create(
            _DOCUMENT, encode_document(group_document({MAKER_ATTRIBUTE: maker}))
        ):
            return False
        location.remove_partial_files()
        write(location)
        return True


def _write_in_place(location: Location, maker: str, write: Write) -> None:
    """Write a trace in place, replacing what zarrtrace has left there."""
    # Readers of an old trace first lose the layout, and then the chunks.
    location.write(_DOCUMENT, encode_document(group_document({MAKER_ATTRIBUTE: maker})))
    _remove_others(location, _DOCUMENT)
    write(location)


@contextmanager
def making() -> Iterator[str]:
    """The mark of this process for what it makes while the block runs."""
    claim = Claim.new()
    claim.hold()
    try:
        yield json.dumps({**json.loads(claim.to_text()), "parent": os.getppid()})
    finally:
        claim.let_go()


# One successor, where nothing is locked ---------------------------------------------------------


@contextmanager
def _succeeding(location: Location, found: str) -> Iterator[str | None]:
    """The mark of this process, if it alone may replace what it found at a place; otherwise None.

    If several processes found the same thing there, only one becomes its successor: the first to
    put its mark under a key that is named after that thing. If it dies before it has put its mark
    at the place, another process becomes the successor of this one.
    """
    with making() as maker:
        # In a local directory the lock decides.
        if location.path is not None:
            yield maker
            return
        key = _become_successor(location, found, maker)
        if key is not None and _name_of(location) != found:
            # It was replaced meanwhile, and the keys of its successors are gone.
            location.delete(key)
            key = None
        try:
            yield None if key is None else maker
        except BaseException:
            with suppress(TraceError):
                if key is not None and _name_of(location) == found:
                    location.delete(key)
            raise


def _name_of(location: Location) -> str:
    """A name of what is at a place, which only that has."""
    state = _attributes(location, _DOCUMENT)
    if LAYOUT_ATTRIBUTE in state:
        return _name(identity(location))
    maker = maker_of(state)
    return _name(None if maker is None else maker.token)


def _name(made: str | None) -> str:
    return hashlib.sha256(str(made).encode()).hexdigest()[:32]


def _become_successor(location: Location, name: str, maker: str) -> str | None:
    """The key of the mark of this process; None when a living process is the successor."""
    mark = encode_document(group_document({MAKER_ATTRIBUTE: maker}))
    while True:
        key = f"{STATE}/{_SUCCESSOR}{name}/zarr.json"
        if location.create(key, mark):
            return key
        other = maker_of(_attributes(location, key))
        if other is None or other.alive:
            return None
        name = _name(other.token)


# Replace another trace ------------------------------------------------------------------------


def identity(location: Location) -> str | None:
    """The identity of the trace at a place."""
    layout = _layout(location)
    return None if layout is None else layout.created_at


def _layout(location: Location) -> Layout | None:
    """The layout of the trace at a place; None where there is none that can be read."""
    try:
        return Hierarchy(location).layout
    except TraceError:
        return None


def _overwrite(location: Location, before: str | None, write: Write) -> bool:
    """Replace a trace by a new one; False when another process does so."""
    found = _name_of(location)
    _require_nobody(location, before)
    with ExitStack() as stack:
        beside = _beside(stack, location)
        if beside is not None:
            write(beside)
            if _exchange(location, beside, before):
                return True
    with _succeeding(location, found) as maker:
        if maker is not None:
            with _giving_way(location, before):
                _write_in_place(location, maker, write)
        return maker is not None


@contextmanager
def building(location: Location, if_exists: str) -> Iterator[Location]:
    """Yield where to build a trace, which is moved to its place when the block ends well.

    Raises
    ------
    TraceExistsError, ChainBusyError
        As for `settle`, before the block and after it.
    """
    location.require_writable()
    bring_back_what_was_there(location)
    before = identity(location)
    _wait_for_unseen_maker(location)
    content = look(location)
    if content in ("being made", "something else") or (
        content == "trace" and if_exists != "overwrite"
    ):
        raise _exists(location, content)
    if content == "trace":
        _require_nobody(location, before)
    with ExitStack() as stack:
        beside = _beside(stack, location)
        if beside is None and content != "trace":
            yield location
            return
        new = location.below(_REPLACEMENT) if beside is None else beside
        if beside is None:
            location.delete_tree(_REPLACEMENT)
        yield new
        _take_place(location, new, before, if_exists)


def _take_place(location: Location, new: Location, before: str | None, if_exists: str) -> None:
    """Put a trace that was built elsewhere at its place."""
    while True:
        found = _name_of(location)
        content = look(location)
        if content == "trace" and if_exists == "overwrite":
            if new.path is not None and _is_beside(new) and _exchange(location, new, before):
                return
            with _succeeding(location, found) as maker:
                if maker is None:
                    raise _exists(location, "being made")
                with _giving_way(location, before):
                    _copy_over(new, location, maker)
            return
        if content not in ("nothing", "unfinished"):
            raise _exists(location, content)
        place = real_place(location.path or Path())
        if new.path is None or place.exists():
            with location.alone(_PATIENCE) as alone, _succeeding(location, found) as maker:
                if maker is None:
                    raise _exists(location, "being made")
                if alone and look(location) == content:
                    _copy_over(new, location, maker)
                    return
        elif take_free_place(new.path, place):
            return


def _is_beside(new: Location) -> bool:
    return new.path is not None and new.path.parent.name.endswith(".building")


def _beside(stack: ExitStack, location: Location) -> Location | None:
    """A place beside it to build at, or None where nothing can be renamed."""
    if location.path is None:
        return None
    place = real_place(location.path)
    if place.exists() and (os.path.ismount(place) or not os.access(place.parent, os.W_OK)):
        return None
    try:
        built = stack.enter_context(building_beside(place))
    except OSError as error:
        if place.exists():
            return None
        raise NotWritableError(
            f"{location} cannot be made: {error.strerror}; change the permissions of "
            f"{place.parent} or free some space there, or choose another place"
        ) from error
    return Location(LocalStore(built), read_only=False)


def _exchange(location: Location, new: Location, before: str | None) -> bool:
    """Exchange two traces; False where nothing can be renamed."""
    assert location.path is not None
    assert new.path is not None
    with _giving_way(location, before):
        try:
            change_places(new.path, real_place(location.path))
        except OSError:
            return False
        return True


def _require_nobody(location: Location, before: str | None) -> Layout | None:
    """Refuse if the trace there is being recorded, or another process has just made it.

    Returns its layout; None when it is too damaged to be recorded.
    """
    layout = _layout(location)
    found = None if layout is None else layout.created_at
    if found != before or _is_of_the_same_job(_attributes(location, _DOCUMENT)):
        raise TraceExistsError(
            f"another process has just made the trace at {location}",
            remedy="where every process runs the same script, let one of them create it, or pass "
            "if_exists='open' to all",
        )
    if layout is not None:
        ours = {block.number for block, _ in _writers_of_this_process(location, layout)}
        blocks = chain_blocks(location, layout)
        watch_until_free(block for block in blocks if block.number not in ours)
    return layout


def _writers_of_this_process(
    location: Location, layout: Layout
) -> Iterator[tuple[ChainBlock, ChainWriter]]:
    blocks = chain_blocks(location, layout)
    for block, claim in zip(blocks, read_claims(blocks), strict=True):
        writer = None if claim is None else writer_with(claim.token)
        if isinstance(writer, ChainWriter):
            yield block, writer


def _is_of_the_same_job(attributes: dict[str, Any]) -> bool:
    """Whether a process that runs the same script as this one made a trace.

    It is alive or has the same parent, and it made the trace after this process began.
    """
    maker = maker_of(attributes)
    if maker is None or maker.is_of_this_process:
        return False
    parent = json.loads(attributes[MAKER_ATTRIBUTE]).get("parent")
    # What was made before this process began is not from the same job.
    just_now = maker.since > max(process_began(), time.time() - STALE_AFTER)
    return just_now and (maker.alive or parent == os.getppid())


@contextmanager
def _giving_way(location: Location, before: str | None) -> Iterator[None]:
    """Keep writers out of the old trace while another one replaces it."""
    with location.alone(_PATIENCE) as alone:
        if not alone:
            raise ChainBusyError(
                f"{location} is being split, finished, extended or overwritten by another "
                f"process; try again afterwards"
            )
        layout = _require_nobody(location, before)
        if layout is None:
            yield
            return
        hierarchy = Hierarchy(location)
        hierarchy.change(replace(layout, paused=True))
        try:
            # A writer that opened meanwhile has seen the layout and closed, or is seen here.
            _require_nobody(location, before)
            for block, writer in _writers_of_this_process(location, layout):
                warn_caller(
                    f"{block} is still open in this process and is being overwritten: its writer "
                    f"accepts no more draws",
                )
                writer._withdraw()
            yield
        finally:
            with suppress(TraceError):
                if hierarchy.layout.paused:
                    hierarchy.change(layout)


def stay(hierarchy: Hierarchy) -> Layout:
    """Let writers in again after a process that was about to change this trace was killed.

    Returns the layout afterwards.
    """
    layout = hierarchy.layout
    if layout.paused:
        layout = replace(layout, paused=False)
        hierarchy.change(layout)
    return layout


# Where nothing can be renamed -------------------------------------------------------------------


def _copy_over(new: Location, location: Location, maker: str) -> None:
    """Replace what zarrtrace has at a place by the content of another trace."""
    location.write(_DOCUMENT, encode_document(group_document({MAKER_ATTRIBUTE: maker})))
    _remove_others(location, _DOCUMENT, _REPLACEMENT)
    for key in documents_first(new.keys("")):
        data = None if key == _DOCUMENT else new.read(key)
        if data is not None:
            location.write(key, bytes(data))
    data = new.read(_DOCUMENT)
    assert data is not None
    location.write(_DOCUMENT, bytes(data))
    location.delete_tree(_REPLACEMENT)


def _complete_replacement(location: Location, state: dict[str, Any]) -> bool:
    """Complete the replacement of a trace inside its store by a process that was killed.

    If the removal of the old trace had not begun, it stays and the new one is removed. False if
    nothing is left to do.
    """
    maker = maker_of(state)
    if LAYOUT_ATTRIBUTE in state or maker is None or maker.alive:
        return False
    new = location.below(_REPLACEMENT)
    if identity(new) is None:
        return False
    with _succeeding(location, _name(maker.token)) as mark:
        if mark is not None:
            _copy_over(new, location, mark)
        return mark is not None


def _remove_others(location: Location, *kept: str) -> None:
    """Remove everything in a store except some keys of its sampling state."""
    for directory in ("", f"{STATE}/"):
        for name in location.children(directory.rstrip("/")):
            key = f"{directory}{name}"
            if key == STATE or key in kept:
                continue
            location.delete_tree(key)
            # A store that knows Zarr refuses to look for a file at the path of a group.
            if location.takes_any_key or name == "zarr.json":
                location.delete(key)
