"""Which file system holds a directory, and whether other machines write to it as well."""

from __future__ import annotations

import functools
import os
import re
import time
from pathlib import Path

_MOUNTS = Path("/proc/self/mountinfo")
# What clients know of a file, of its size and of its absence may be so old: sshfs remembers it for
# 20 seconds.
_ARRIVES_WITHIN, _LOOK_EVERY = 25.0, 0.2  # seconds
# Those whose clients have caches of their own.
_OF_A_NETWORK = {
    "9p", "afs", "beegfs", "beegfs_nodev", "ceph", "cifs", "cvmfs2", "fhgfs", "gfs2",
    "glusterfs", "gpfs", "lustre", "ncpfs", "nfs", "nfs4", "ocfs2", "orangefs", "panfs",
    "pvfs2", "quobyte", "smb2", "smb3", "smbfs", "virtiofs", "wekafs",
    "fuse.ceph", "fuse.ceph-fuse",
    "fuse.curlftpfs", "fuse.gcsfuse", "fuse.glusterfs", "fuse.goofys", "fuse.juicefs",
    "fuse.mfs", "fuse.moosefs", "fuse.mount-s3", "fuse.quobyte", "fuse.rclone", "fuse.s3fs",
    "fuse.smbnetfs", "fuse.sshfs",
}  # fmt: skip


class Arrival:
    """A wait for what another machine wrote to a network file system, and this one sees late.

    Parameters
    ----------
    network : str
        The type of the file system, as `network_of` says it. On any other one nothing arrives late.
    """

    def __init__(self, network: str) -> None:
        self._late_at = time.monotonic() + (_ARRIVES_WITHIN if network else 0.0)

    def is_due(self) -> bool:
        """Wait a moment for it; False if it would have arrived by now."""
        if time.monotonic() >= self._late_at:
            return False
        time.sleep(_LOOK_EVERY)
        return True


def network_of(directory: str | os.PathLike[str]) -> str:
    """The type of the network file system of a directory, such as `nfs4`; "" for any other one.

    The directory need not exist yet. Where the system does not say what is mounted, it is "".
    """
    try:
        mounts = _mounts(_MOUNTS.read_bytes())
    except OSError:
        return ""
    path = os.path.realpath(directory)
    above = {path, *map(str, Path(path).parents)}
    # Of two at one place, the later one hides the other.
    found = [(len(place), kind) for place, kind in mounts if place in above]
    found.sort(key=lambda mount: mount[0])
    kind = found[-1][1] if found else ""
    return kind if kind in _OF_A_NETWORK else ""


@functools.lru_cache(maxsize=1)
def _mounts(content: bytes) -> list[tuple[str, str]]:
    """Where each file system is mounted, and its type."""
    mounts = []
    for line in content.splitlines():
        before, _, after = line.partition(b" - ")
        place, kind = before.split(b" ")[4], after.split(b" ")[0]
        # Spaces and the like are written as three octal digits.
        place = re.sub(rb"\\([0-7]{3})", lambda found: bytes([int(found[1], 8) % 256]), place)
        mounts.append((os.fsdecode(place), os.fsdecode(kind)))
    return mounts
