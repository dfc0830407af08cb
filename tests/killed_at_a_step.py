"""Stop an operation on a trace before any of the things that it does to the store."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import obstore
import pytest
from conftest import Place

import zarrtrace as zt
from zarrtrace.store.location import Location

STEPS = ("write", "share", "move_tree", "delete_tree", "delete")
# One after the other in a local store, which counts each; elsewhere all at once.
BATCHES = ("write_many", "share_many", "delete_many")


class Killed(BaseException):
    """As if the process ended here: nothing after it is done."""


@contextmanager
def killed_at(
    step: int, monkeypatch: pytest.MonkeyPatch, names: Sequence[str] = (*STEPS, *BATCHES)
) -> Iterator[list[int]]:
    """Stop before the step-th thing that is done to the store; returns how many were done.

    After their number follows how many keys each of them was about. If things are done at once,
    half of them are done. With `names` only these are counted.

    What the heartbeat does meanwhile, on a slow machine, is not counted.
    """
    done, own = [0], threading.get_ident()

    def stopping(name: str) -> Any:
        real = getattr(Location, name)

        def method(self: Location, *arguments: Any) -> Any:
            if threading.get_ident() == own and (self.waits or name not in BATCHES):
                keys = 1
                if name in BATCHES:
                    items = list(arguments[0])
                    arguments, keys = (items, *arguments[1:]), len(items)
                if done[0] == step:
                    if name in BATCHES:
                        real(self, items[: keys // 2])
                    raise Killed
                done[0] += 1
                done.append(keys)
            return real(self, *arguments)

        return method

    with monkeypatch.context() as patch:
        for name in names:
            patch.setattr(Location, name, stopping(name))
        yield done


def made_again(fast_place: Place) -> Callable[[], zt.Trace]:
    """Puts the trace of a place back as it is now, and opens it."""
    put_back = put_back_at(fast_place)

    def opened() -> zt.Trace:
        put_back()
        return fast_place.open("a")

    return opened


def put_back_at(fast_place: Place) -> Callable[[], None]:
    """Puts what is at a place back as it is now: a copy, in a tenth of the time of making it."""
    if fast_place.kind == "memory":
        held = dict(fast_place.store._store_dict)

        def put_back() -> None:
            fast_place.store._store_dict.clear()
            fast_place.store._store_dict.update(held)

    elif fast_place.kind == "objects":
        objects = fast_place.store.store
        paths = [item["path"] for items in obstore.list(objects) for item in items]
        kept = {path: bytes(obstore.get(objects, path).bytes()) for path in paths}

        def put_back() -> None:
            for items in obstore.list(objects):
                obstore.delete(objects, [item["path"] for item in items])
            for path, data in kept.items():
                obstore.put(objects, path, data)

    else:
        copy = fast_place.path.with_name("as_it_was.zarr")
        shutil.copytree(fast_place.path, copy)

        def put_back() -> None:
            shutil.rmtree(fast_place.path)
            shutil.copytree(copy, fast_place.path)

    return put_back
