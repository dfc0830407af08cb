"""Who records a chain: one claim per writer, in `_sampling_state/writer`.

On one machine the lock on the journal decides, and death frees it. The claim says who holds it,
and decides where there is no lock, and between machines: by the process on the same host, by the
heartbeat from another.
"""

from __future__ import annotations

import json
import os
import platform
import time
import uuid
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from ..errors import ChainBusyError, DamagedTraceError
from ..layout.layout import Layout
from ..messages import chain_label
from ..store.location import Location
from .arrays import read_value, write_value

BEAT_EVERY = 15.0  # seconds
STALE_AFTER = 60.0  # seconds: four beats that did not come


@dataclass(frozen=True)
class Claim:
    """One writer's claim on a block of chains; times in seconds since the epoch."""

    host: str
    pid: int
    process_start: int
    since: float
    beat: float
    token: str

    @classmethod
    def new(cls) -> Claim:
        """The claim of this process, now."""
        now = time.time()
        pid = os.getpid()
        return cls(platform.node(), pid, _process_start(pid), now, now, uuid.uuid4().hex)

    def beating(self) -> Claim:
        """The same with a fresh heartbeat."""
        return replace(self, beat=time.time())

    @property
    def alive(self) -> bool:
        """Whether its writer is: by its process on this host, by its heartbeat elsewhere."""
        if self.host == platform.node():
            return _process_start(self.pid) == self.process_start
        return time.time() - self.beat < STALE_AFTER

    def __str__(self) -> str:
        now = time.time()
        return (
            f"process {self.pid} on {self.host}, writing since {_ago(now - self.since)}, "
            f"last heard of {_ago(now - self.beat)} ago"
        )


def read_claim(location: Location, layout: Layout, block: int) -> Claim | None:
    """The claim on a block of chains, or None."""
    try:
        content = json.loads(read_value(location, layout, "writer", block) or "null")
        if content is None:
            return None
        return Claim(
            host=str(content["host"]),
            pid=int(content["pid"]),
            process_start=int(content["process_start"]),
            since=float(content["since"]),
            beat=float(content["beat"]),
            token=str(content["token"]),
        )
    except (ValueError, KeyError, TypeError, DamagedTraceError):
        return None


def write_claim(location: Location, layout: Layout, block: int, claim: Claim | None) -> None:
    """Put a claim on a block of chains, or take it back."""
    text = "" if claim is None else json.dumps(asdict(claim))
    write_value(location, layout, "writer", block, text)


def require_free(location: Location, layout: Layout, block: int, force: bool) -> None:
    """Refuse a block of chains that a living writer has claimed.

    Raises
    ------
    ChainBusyError
        With the host, the process and the age of that writer.
    """
    claim = read_claim(location, layout, block)
    if claim is None or not claim.alive or (force and claim.host != platform.node()):
        return
    raise busy(location, layout, block, claim)


def busy(location: Location, layout: Layout, block: int, claim: Claim | None) -> ChainBusyError:
    """The error for a chain that has a writer already."""
    chains = layout.chains_of(block)
    who = "another writer" if claim is None else str(claim)
    remedy = "close() that writer or end its process"
    if claim is not None and claim.host != platform.node():
        remedy += (
            f"; if it is gone, wait until it is silent for {STALE_AFTER:.0f} s, "
            f"or take its place with trace.writer({chains[0]}, force=True)"
        )
    return ChainBusyError(
        f"{chain_label(chains)} of {location} is being recorded by {who}; {remedy}",
        chain=chains[0],
    )


def _process_start(pid: int) -> int:
    """When a process started, in clock ticks since boot; 0 when unknown, -1 when there is none."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return -1
    except OSError:
        pass
    try:
        # The name, in parentheses, may hold anything.
        return int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[19])
    except (OSError, IndexError, ValueError):
        return 0


def _ago(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
