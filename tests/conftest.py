"""Stores that every promise is tried on: memory, a directory, and a real S3 server."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import zarrtrace as zt

# One process per test is busy enough on two cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--trials", type=int, default=None, help="size of the harnesses, small by default"
    )


@pytest.fixture
def trials(request: pytest.FixtureRequest) -> int | None:
    """How often a harness tries, when the command line says it."""
    found: int | None = request.config.getoption("--trials")
    return found


@dataclass
class Place:
    """Where a test puts its trace: how to create one there and open it again."""

    kind: str
    store: Any
    options: dict[str, Any] = field(default_factory=dict)
    created: zt.Trace | None = None

    def create(self, **definition: Any) -> zt.Trace:
        self.created = zt.create(self.store, **self.options, **definition)
        return self.created

    def open(self, mode: Any = "r") -> zt.Trace:
        return zt.open(self.store, mode, **self.options)

    @property
    def path(self) -> Path:
        assert self.kind == "directory"
        return Path(self.store)


@pytest.fixture
def directory(tmp_path: Path) -> Place:
    return Place("directory", tmp_path / "run.zarr")


@pytest.fixture
def memory() -> Place:
    from zarr.storage import MemoryStore

    return Place("memory", MemoryStore())


@pytest.fixture
def bucket(s3_server: str) -> Place:
    """A URL on an S3 server, through s3fs."""
    return Place(
        "bucket",
        f"s3://traces/{uuid.uuid4().hex}.zarr",
        {
            "storage_options": {
                "key": "test",
                "secret": "test",
                "client_kwargs": {"endpoint_url": s3_server, "region_name": "us-east-1"},
            }
        },
    )


@pytest.fixture(params=["memory", "directory", "bucket"])
def place(request: pytest.FixtureRequest) -> Place:
    """Each kind of store in turn."""
    found: Place = request.getfixturevalue(request.param)
    return found


@pytest.fixture(params=["memory", "directory"])
def fast_place(request: pytest.FixtureRequest) -> Place:
    """The stores that need no server, for wide inputs."""
    found: Place = request.getfixturevalue(request.param)
    return found


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """A moto server in a process of its own, with a bucket `traces`."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    endpoint = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-W", "ignore", "-m", "moto.server", "-H", "127.0.0.1"]
    server = subprocess.Popen(
        [*command, "-p", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        _wait_for(endpoint, server)
        request = urllib.request.Request(f"{endpoint}/traces", method="PUT", data=b"")
        request.add_header("Host", f"127.0.0.1:{port}")
        with urllib.request.urlopen(request, timeout=10):
            pass
        yield endpoint
    finally:
        server.terminate()
        server.wait()


def _wait_for(endpoint: str, server: subprocess.Popen[bytes]) -> None:
    for _ in range(200):
        assert server.poll() is None, "the S3 server ended at once"
        try:
            with urllib.request.urlopen(f"{endpoint}/moto-api/", timeout=1):
                return
        except OSError:
            time.sleep(0.1)
    raise AssertionError("the S3 server did not answer")
