"""Two sshfs mounts of one directory, with caches apart like two machines of a network."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

NEEDED = ("sshfs", "ssh-keygen", "fusermount3")


def can_mount() -> bool:
    """Whether this machine has what two mounts need."""
    sshd = shutil.which("sshd", path="/usr/sbin:/sbin:/usr/bin")
    may_mount = os.access("/dev/fuse", os.R_OK | os.W_OK)
    return may_mount and sshd is not None and all(map(shutil.which, NEEDED))


@contextlib.contextmanager
def two_mounts(folder: Path) -> Iterator[tuple[Path, Path]]:
    """Mount a new directory twice, from an SSH server of its own on this machine."""
    folder.chmod(0o700)
    for name in ("server", "client"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
        subprocess.run(command, check=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = {
        "Port": port,
        "ListenAddress": "127.0.0.1",
        "HostKey": folder / "server",
        "AuthorizedKeysFile": folder / "client.pub",
        "PidFile": "none",
        "StrictModes": "no",
        "UsePAM": "no",
        "PermitRootLogin": "yes",
        "Subsystem": "sftp internal-sftp",
    }
    (folder / "config").write_text("".join(f"{key} {value}\n" for key, value in options.items()))
    with contextlib.suppress(PermissionError):
        Path("/run/sshd").mkdir(exist_ok=True)
    (folder / "data").mkdir()
    mounts = folder / "first", folder / "second"
    sshd = shutil.which("sshd", path="/usr/sbin:/sbin:/usr/bin")
    assert sshd is not None
    server = subprocess.Popen([sshd, "-D", "-f", str(folder / "config")], stderr=subprocess.PIPE)
    try:
        _wait_for(port)
        for mount in mounts:
            mount.mkdir()
            known = f"IdentityFile={folder / 'client'},StrictHostKeyChecking=no"
            known += ",UserKnownHostsFile=/dev/null,LogLevel=ERROR"
            command = ["sshfs", "-p", str(port), "-o", known, f"127.0.0.1:{folder / 'data'}"]
            subprocess.run([*command, str(mount)], check=True, timeout=60)
        yield mounts
    finally:
        for mount in mounts:
            subprocess.run(["fusermount3", "-u", "-z", str(mount)], capture_output=True)
        server.kill()
        server.communicate()


def _wait_for(port: int) -> None:
    """Wait until a server listens."""
    deadline = time.monotonic() + 30
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            assert time.monotonic() < deadline, "the SSH server does not start"
            time.sleep(0.05)
        else:
            return
