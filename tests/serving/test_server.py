"""`zarrtrace serve`: who may ask it, for what, and how it ends."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import urlopen

import pytest

import zarrtrace as zt
from zarrtrace.cli import main
from zarrtrace.serving.overview import Overview


@contextmanager
def serving(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "zarrtrace", "serve", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            yield server
        finally:
            server.kill()


def answer(address: str) -> tuple[int, str]:
    try:
        with urlopen(address, timeout=30) as found:
            return found.status, found.read().decode()
    except HTTPError as error:
        return error.code, ""


def answer_to_socket(address: str, token: str, origin: str) -> int:
    """What a page of another server is told; `urlopen` would close the connection."""
    connection = HTTPConnection(urlsplit(address).netloc, timeout=30)
    headers = {
        "Origin": origin,
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
    }
    with closing(connection):
        connection.request("GET", f"/ws?{token}", headers=headers)
        return connection.getresponse().status


@pytest.mark.long
@pytest.mark.once("newest")
def test_a_folder_is_shown_to_those_with_the_token(tmp_path: Path) -> None:
    folder = tmp_path / "runs"
    for path in (folder / "one", tmp_path / "outside"):
        zt.create(path, chains=1, draws=9, posterior={"mu": 0.0})
    (folder / "link").symlink_to(tmp_path / "outside")
    overview = Overview(folder, str)
    overview.refresh()
    assert overview.path_of("one") == str(folder / "one")
    for name in ("../outside", "link", str(tmp_path / "outside")):
        assert overview.path_of(name) is None
    with serving(str(folder), "--host", "127.0.0.1", "--port", "0") as server:
        assert server.stdout is not None
        found = re.search(r"(http://\S+)\?(token=\S+)", server.stdout.readline())
        assert found is not None
        address, token = found.groups()
        assert answer(f"{address}?{token}")[0] == 200
        for path in ("", "?token=wrong", "static/js/bokeh.min.js", "ws"):
            assert answer(f"{address}{path}")[0] == 403, path
        assert answer_to_socket(address, token, "http://example.org") == 403
        assert answer(f"{address}run?name=one&{token}")[0] == 200
        server.send_signal(signal.SIGINT)
        assert server.wait(30) == 0


@pytest.mark.once("newest")
def test_serving_a_path_that_is_not_a_trace_fails_in_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", str(tmp_path / "nowhere"), "--port", "0"]) == 1
    assert "there is no" in capsys.readouterr().err
