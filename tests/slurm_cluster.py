"""A real Slurm on this machine, with daemons of its own, whose files are all in one folder."""

from __future__ import annotations

import getpass
import os
import platform
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parent.parent
_ENDED = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL"}

CONFIGURATION = """
ClusterName=zarrtrace
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
ReturnToService=2
SlurmdParameters=config_overrides
NodeName={host} NodeAddr=127.0.0.1 CPUs=4 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


@dataclass
class Cluster:
    """One node with four processors."""

    folder: Path
    events: list[str] = field(default_factory=list)
    _states: dict[str, str] = field(default_factory=dict)
    _begun: set[str] = field(default_factory=set)

    def call(self, *command: str, **environment: str) -> str:
        """What one of Slurm's commands prints."""
        given = {**os.environ, "SLURM_CONF": str(self.folder / "slurm.conf"), **environment}
        done = subprocess.run(
            command, env=given, cwd=self.folder, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout.strip()

    def submit_array(self, seconds_per_draw: float, *options: str) -> str:
        """Submit the example as a job of one minute; returns the number of the job."""
        for name in ("slurm_array.sh", "slurm_array.py"):
            shutil.copy(ROOT / "examples" / name, self.folder)
        return self.call(
            "sbatch", "--parsable", "--time=1", *options, "slurm_array.sh",
            PATH=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            PYTHONPATH=str(ROOT),
            SECONDS_PER_DRAW=str(seconds_per_draw),
        )  # fmt: skip

    def states(self, waits: bool = False) -> dict[str, str]:
        """The state of each task that has not ended for good, by its name.

        Slurm lets a task that was requeued wait for two minutes; unless `waits`, it begins soon.
        """
        found = {}
        # Without "all" a task is missing for a moment when it is requeued.
        for line in self.call("squeue", "-h", "-r", "-t", "all", "-o", "%i %T").splitlines():
            task, state = line.split()
            if state not in _ENDED:
                found[task] = state
            if self._states.get(task) != state:
                self.events.append(f"{time.strftime('%T')} {task} {state}")
            self._states[task] = state
            if state != "PENDING":
                self._begun.add(task)
            elif task in self._begun and not waits and self._shorten(task):
                self._begun.remove(task)
        return found

    def _shorten(self, task: str) -> bool:
        """Let a requeued task begin soon; False while Slurm still ends its last turn."""
        environment = {**os.environ, "SLURM_CONF": str(self.folder / "slurm.conf")}
        # In the second in which its last turn ended, the node would not launch it.
        command = ["scontrol", "update", f"jobid={task}", "StartTime=now+2"]
        return not subprocess.run(command, env=environment, capture_output=True).returncode

    def log(self) -> str:
        """What the daemons have said."""
        files = [*self.folder.glob("*.log"), *self.folder.glob("*.out")]
        return "\n".join(f"{file.name}:\n{file.read_text()}" for file in sorted(files))


def is_installed() -> bool:
    """Whether this machine has what a Slurm needs."""
    return all(map(_program, ("munged", "slurmctld", "slurmd", "sbatch")))


@contextmanager
def slurm(folder: Path) -> Iterator[Cluster]:
    """Start munged, slurmctld and slurmd; end them at the end of the block."""
    assert is_installed(), "Slurm is missing: apt-get install slurm-wlm munge"
    for part in ("state", "spool"):
        (folder / part).mkdir()
    key = folder / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    configuration = folder / "slurm.conf"
    configuration.write_text(
        CONFIGURATION.format(
            host=platform.node().partition(".")[0],
            user=getpass.getuser(),
            folder=folder,
            controller_port=_free_port(),
            node_port=_free_port(),
        )
    )
    munge_files = [
        f"--{name}={folder}/munge.{name.removesuffix('-file')}"
        for name in ("key-file", "socket", "pid-file", "log-file", "seed-file")
    ]
    cluster = Cluster(folder)
    daemons: list[subprocess.Popen[bytes]] = []

    def start(name: str, *arguments: str) -> None:
        with open(folder / f"{name}.out", "wb") as output:
            daemons.append(
                subprocess.Popen([_program(name), *arguments], stdout=output, stderr=output)
            )

    try:
        start("munged", "--foreground", "--force", *munge_files)
        _wait_until(lambda: (folder / "munge.socket").exists(), cluster)
        start("slurmctld", "-D", "-f", str(configuration))
        start("slurmd", "-D", "-f", str(configuration))
        _wait_until(lambda: _is_idle(cluster), cluster)
        yield cluster
        _wait_until(lambda: not cluster.states(), cluster)
    finally:
        for daemon in reversed(daemons):
            daemon.terminate()
        for daemon in daemons:
            daemon.wait(timeout=60)


def _is_idle(cluster: Cluster) -> bool:
    try:
        return cluster.call("sinfo", "-h", "-o", "%T") == "idle"
    except AssertionError:
        return False  # the controller is not there yet


def _wait_until(condition: Callable[[], bool], cluster: Cluster) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, cluster.log()
        time.sleep(0.1)


def _program(name: str) -> str:
    return shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin") or ""


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port
