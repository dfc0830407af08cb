"""The request that a run stops: the number of a draw, from any process, in a file of its own.

A chain that was asked to stop at draw N ends when it has N draws, as if that many were declared. No
zarr.json that others write is touched, and no writer writes this one.
"""

from __future__ import annotations

import getpass
import json
import math
import os
import platform
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple

from ..layout.layout import STATE, Layout
from ..messages import printable
from ..store.location import Location
from ..store.zarr_json import encode_document, group_document

_DOCUMENT = f"{STATE}/request/zarr.json"
_ATTRIBUTE = "stop_request"
_LONGEST = 2**20  # bytes


@dataclass(frozen=True)
class StopRequest:
    """A request that all chains of a run stop at the same draw.

    Attributes
    ----------
    at : int
        The number of draws at which a chain ends, warmup included; one that has more ends at once.
        0 ends all of them at once.
    draws : int or None
        The draws that were declared when it was asked: the request is void after another
        number was declared.
    asked_at : float
        When, in seconds since the epoch on the clock of who asked.
    user, host, pid : str, str, int
        Who asked: the user, the machine and the process.
    reason : str
        Why, in the words of who asked; "" for no reason given.
    goal : mapping of str to str, int or float
        The attributes that say by which rule the length of the run was chosen; empty for a request
        that does not come from a goal.
    """

    at: int
    draws: int | None
    asked_at: float
    user: str
    host: str
    pid: int
    reason: str = ""
    goal: Mapping[str, str | int | float] = field(default_factory=dict)

    @classmethod
    def by_this_process(
        cls,
        layout: Layout,
        at: int,
        reason: str,
        goal: Mapping[str, str | int | float],
    ) -> StopRequest:
        """A request of this process, now."""
        who = _user(), platform.node(), os.getpid()
        return cls(at, layout.draws, time.time(), *who, reason, goal)

    @property
    def attrs(self) -> dict[str, str | int | float]:
        """The attributes that a trace keeps of a stop."""
        when = datetime.fromtimestamp(self.asked_at, UTC).isoformat(timespec="seconds")
        why = {"stop_reason": self.reason} if self.reason else {}
        return {"stop_requested_at": when, "stop_requested_by": self.who, **why, **self.goal}

    @property
    def who(self) -> str:
        """`alice on node7`."""
        return f"{self.user or f'process {self.pid}'} on {self.host}"

    def __str__(self) -> str:
        draw = f"at draw {self.at}" if self.at else "at once"
        why = f": {self.reason}" if self.reason else ""
        return printable(f"{draw}, asked by {self.who}{why}")


class End(NamedTuple):
    """Where the chains of a run end.

    Attributes
    ----------
    declared : int
        The declared draws of a chain, warmup included.
    request : StopRequest or None
        The request that they stop earlier, if there is one.
    """

    declared: int
    request: StopRequest | None

    @property
    def draws(self) -> int:
        """The draws of a chain that is complete; one that was asked to stop may have more."""
        return self.declared if self.request is None else min(self.declared, self.request.at)

    def of_chain(self, count: int) -> int:
        """The draws at which a chain ends that has `count` now."""
        return min(self.declared, max(self.draws, count))


def read_end(location: Location, layout: Layout) -> End:
    """Where the chains of a run end by its layout and the request in its store."""
    return End(layout.total, None if layout.closed else _read_request(location, layout))


def _read_request(location: Location, layout: Layout) -> StopRequest | None:
    """The request in the store; None where there is none that holds for this layout."""
    data = location.read(_DOCUMENT)
    if data is None or len(data) > _LONGEST:
        return None
    try:
        content = json.loads(json.loads(bytes(data))["attributes"][_ATTRIBUTE])
        request = StopRequest(
            at=int(content["at"]),
            draws=None if content["draws"] is None else int(content["draws"]),
            asked_at=float(content["asked_at"]),
            user=str(content["user"]),
            host=str(content["host"]),
            pid=int(content["pid"]),
            reason=str(content["reason"]),
            goal=_checked_goal(content["goal"]),
        )
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return None
    holds = request.draws == layout.draws and request.at >= 0 and math.isfinite(request.asked_at)
    return request if holds else None


def _checked_goal(content: Any) -> dict[str, str | int | float]:
    kinds = (str, int, float)
    return {str(key): value for key, value in content.items() if isinstance(value, kinds)}


def write_request(location: Location, request: StopRequest) -> None:
    """Store a request in place of an earlier one."""
    attrs = {_ATTRIBUTE: json.dumps(asdict(request))}
    location.write(_DOCUMENT, encode_document(group_document(attrs)))


def remove_request(location: Location) -> None:
    """Remove the request, if there is one."""
    if location.exists(_DOCUMENT):
        location.delete_tree(f"{STATE}/request")


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return ""
