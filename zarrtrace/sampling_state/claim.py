"""Claims, which say who records a chain: one per writer, in `_sampling_state/writer`.

On one machine the lock on the journal decides, and death frees it. The claim says who holds it,
and decides where there is no lock, and between machines. A process that this one can see is looked
up; every other one is watched: it is alive as long as its heartbeat changes. Clocks of two machines
are never compared.
"""

from __future__ import annotations

import functools
import json
import math
import os
import platform
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

BEAT_EVERY = 15.0  # seconds
STALE_AFTER = 60.0  # seconds: four missed beats
LOOK_EVERY = 0.5  # seconds, while a writer is watched
_LONG_AGO = 600.0  # seconds: more than the clocks of machines with a common store can differ

_NO_PROCESS, _UNKNOWN = -1, 0  # instead of the start of a process

# The claims that this process keeps up, by token. A claim of this process that is
# not among them belongs to a writer that is gone.
_held: set[str] = set()
# The last beat seen of each writer that is watched, and when this process first saw it.
_seen: dict[str, tuple[float, float]] = {}

_imported = time.time()


def _begin_again() -> None:
    global _imported
    _imported = time.time()
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_again)


@dataclass(frozen=True)
class Claim:
    """One writer's claim on a block of chains.

    Attributes
    ----------
    host : str
        The name of its machine, for messages.
    pid, process_start : int
        Its process, and when that began, in clock ticks since boot; 0 where unknown.
    since, beat : float
        When it was made and refreshed, in seconds since the epoch on the clock of its machine.
    token : str
        A unique text of this claim.
    boot : str
        The boot id of its machine; "" where there is none, and in claims of earlier versions.
    pid_namespace : str
        The namespace of its process number: containers on one machine have different ones.
    """

    host: str
    pid: int
    process_start: int
    since: float
    beat: float
    token: str
    boot: str = ""
    pid_namespace: str = ""

    @classmethod
    def new(cls) -> Claim:
        """The claim of this process, now."""
        now = time.time()
        pid = os.getpid()
        return cls(
            host=platform.node(),
            pid=pid,
            process_start=_process_start(pid),
            since=now,
            beat=now,
            token=uuid.uuid4().hex,
            boot=_boot_id(),
            pid_namespace=_pid_namespace(),
        )

    @classmethod
    def from_text(cls, text: str) -> Claim | None:
        """The claim in its JSON text; None for any other text."""
        try:
            content = json.loads(text)
            pid = int(content["pid"])
            since, beat = float(content["since"]), float(content["beat"])
            if not 0 < pid < 2**31 or not math.isfinite(since) or not math.isfinite(beat):
                return None
            return cls(
                host=str(content["host"]),
                pid=pid,
                process_start=int(content["process_start"]),
                since=since,
                beat=beat,
                token=str(content["token"]),
                boot=str(content.get("boot", "")),
                pid_namespace=str(content.get("pid_namespace", "")),
            )
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
            return None

    def to_text(self) -> str:
        """The claim as JSON text."""
        return json.dumps(asdict(self))

    def beating(self) -> Claim:
        """The same with a fresh heartbeat."""
        return replace(self, beat=time.time())

    # Whose it is --------------------------------------------------------------------------

    def hold(self) -> None:
        """Keep up this claim, until `let_go`."""
        _held.add(self.token)

    def let_go(self) -> None:
        """Stop keeping up this claim: if it still exists, it is void."""
        _held.discard(self.token)

    @property
    def is_held(self) -> bool:
        """Whether this process keeps it up."""
        return self.token in _held

    @property
    def is_of_this_machine(self) -> bool:
        """Whether its writer is on this machine, so that file locks work between the two."""
        if self.boot and _boot_id():
            return self.boot == _boot_id()
        return self.host == platform.node()

    @property
    def is_visible(self) -> bool:
        """Whether this process can look up the writer's process by its number."""
        return self._runs is not None

    @property
    def alive(self) -> bool:
        """Whether its writer is alive, as far as this process knows.

        A writer that this process cannot see, or whose process was stopped by a signal, is watched:
        it counts as alive until this process has seen the same heartbeat for `STALE_AFTER` seconds.
        """
        runs = self._runs
        is_watched = runs is None or self.is_stopped
        return self._silence < STALE_AFTER if is_watched else bool(runs)

    @property
    def is_stopped(self) -> bool:
        """Whether its process was stopped by a signal, and may continue at any time."""
        return bool(self._runs) and not self.is_of_this_process and _is_stopped(self.pid)

    @property
    def _runs(self) -> bool | None:
        """Whether its process is alive; None where this process cannot tell."""
        if not self._is_near:
            return None
        start = _process_start(self.pid)
        if start == _NO_PROCESS:
            return False
        if self.is_of_this_process:
            return self.is_held
        if _UNKNOWN in (start, self.process_start):
            return None
        return start == self.process_start

    @property
    def _is_near(self) -> bool:
        """Whether its process number means the same to this process."""
        if self.boot or _boot_id():
            return (self.boot, self.pid_namespace) == (_boot_id(), _pid_namespace())
        return self.host == platform.node()

    @property
    def is_of_this_process(self) -> bool:
        """Whether this process has made it."""
        near = self._is_near and self.pid == os.getpid()
        return near and self.process_start == _process_start(self.pid)

    def is_below(self, ancestor: int) -> bool:
        """Whether its process was started by that one, or by one that was started by it."""
        pid = self.pid
        while pid > 1 and pid != ancestor:
            pid = int(_status_fields(pid)[1])
        return pid == ancestor

    @property
    def seems_alive(self) -> bool:
        """An immediate guess from the clocks of both machines, for display only."""
        return self.alive and (self.is_visible or time.time() - self.beat < STALE_AFTER)

    def is_of_the_past(self, age: float | None) -> bool:
        """Whether its writer is dead because the claim is far too old.

        Parameters
        ----------
        age : float or None
            Seconds since it was written, on the clock of the store; None if it has no clock.
        """
        if age is None or self.is_visible:
            return False
        # If it is from this machine, it was made before the last start.
        by_name = max(STALE_AFTER, _uptime()) if self.host == platform.node() else _LONG_AGO
        return age > min(by_name, _LONG_AGO)

    @property
    def _silence(self) -> float:
        """For how many seconds this process has seen this heartbeat and no other."""
        now = time.monotonic()
        beat, first = _seen.get(self.token, (None, now))
        if beat != self.beat:
            first = now
            _seen[self.token] = self.beat, now
        return now - first

    def __str__(self) -> str:
        now = time.time()
        return (
            f"process {self.pid} on {self.host}, writing since {_ago(now - self.since)}, "
            f"last heartbeat {_ago(now - self.beat)} ago"
        )


def watch(read_claim: Callable[[], Claim | None]) -> Claim | None:
    """Watch a writer that this process cannot see, until it is clear whether it is alive.

    Parameters
    ----------
    read_claim : callable
        Reads its claim.

    Returns
    -------
    Claim or None
        The claim of a living writer, which can be seen or whose heartbeat has changed. None
        when there is no claim, or its writer is dead.
    """
    first = read_claim()
    claim = first
    while claim is not None and claim.alive:
        changed = first is None or (claim.token, claim.beat) != (first.token, first.beat)
        if claim.is_visible or changed:
            return claim
        time.sleep(LOOK_EVERY)
        claim = read_claim()
    return None


@functools.cache
def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _uptime() -> float:
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return math.inf if clock is None else time.clock_gettime(clock)


def process_began() -> float:
    """When this process began, in seconds since the epoch.

    A process that was forked began at that moment, however late it was given a processor. Where
    the system does not tell, it began when it imported this module.
    """
    start = _process_start(os.getpid())
    if start <= _UNKNOWN or not hasattr(time, "CLOCK_BOOTTIME"):
        return _imported
    return time.time() - _uptime() + start / os.sysconf("SC_CLK_TCK")


def _pid_namespace() -> str:
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def _process_start(pid: int) -> int:
    """When a process began, in clock ticks since boot."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return _NO_PROCESS
    except OSError:
        pass
    try:
        if os.readlink("/proc/self") != str(os.getpid()):
            return _UNKNOWN  # /proc shows the processes of another namespace
        fields = _status_fields(pid)
        # A process that is dead and not yet waited for has no thread that could write.
        return _NO_PROCESS if fields[0] in (b"Z", b"X") else int(fields[19])
    except (OSError, IndexError, ValueError):
        return _UNKNOWN


def _is_stopped(pid: int) -> bool:
    try:
        return _status_fields(pid)[0] == b"T"
    except (OSError, IndexError):
        return False


def _status_fields(pid: int) -> list[bytes]:
    """What `/proc` says of a process after its name: its state, its parent and so on."""
    # The name, in parentheses, may contain any character.
    return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()


def _ago(seconds: float) -> str:
    seconds = max(seconds, 0.0)  # clocks differ
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
