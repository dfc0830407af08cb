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

    @classmethod
    def from_text(cls, text: str) -> Claim | None:
        """The claim in its JSON text; None for anything that is not one."""
        try:
            content = json.loads(text)
            pid = int(content["pid"])
            if not 0 < pid < 2**31:
                return None
            return cls(
                host=str(content["host"]),
                pid=pid,
                process_start=int(content["process_start"]),
                since=float(content["since"]),
                beat=float(content["beat"]),
                token=str(content["token"]),
            )
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
            return None

    def to_text(self) -> str:
        """The claim as JSON text."""
        return json.dumps(asdict(self))

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
