"""`zarrtrace serve`: who may ask it, for what, and how it ends."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import Request, urlopen

import pytest

import zarrtrace as zt
from zarrtrace.cli import main

MARKUP = "<script>window.taken=1</script>"


def answer(address: str, **headers: str) -> tuple[int, str]:
    try:
        with urlopen(Request(address, headers=headers), timeout=30) as found:
            return found.status, found.read().decode()
    except HTTPError as error:
        return error.code, ""


@pytest.mark.long
@pytest.mark.once("newest")
def test_a_folder_is_shown_to_those_with_the_token_and_nothing_outside_it(tmp_path: Path) -> None:
    folder = tmp_path / "runs"
    for path in (folder / "one", tmp_path / "outside"):
        zt.create(path, chains=1, draws=9, posterior={MARKUP: 0.0})
    (folder / "link").symlink_to(tmp_path / "outside")
    command = [sys.executable, "-m", "zarrtrace", "serve", str(folder)]
    options = ["--host", "127.0.0.1", "--port", "0"]
    with subprocess.Popen([*command, *options], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        found = re.search(r"(http://\S+)\?(token=\S+)", server.stdout.readline())
        assert found is not None
        address, token = found.groups()
        assert answer(f"{address}?{token}")[0] == 200
        for path in ("", "?token=wrong", "static/js/bokeh.min.js", "ws"):
            assert answer(f"{address}{path}")[0] == 403, path
        socket = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
        key = {"Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA=="}
        origin = {"Origin": "http://example.org"}
        assert answer(f"{address}ws?{token}", **socket, **key, **origin)[0] == 403
        assert "There is no run" not in answer(f"{address}run?name=one&{token}")[1]
        for name in ("../outside", "link", str(tmp_path / "outside")):
            said = answer(f"{address}run?name={quote(name, safe='')}&{token}")
            assert said[0] == 200 and MARKUP not in said[1]
        server.send_signal(signal.SIGINT)
        assert server.wait(30) == 0


@pytest.mark.once("newest")
def test_a_path_that_is_no_trace_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", str(tmp_path / "nowhere"), "--port", "0"]) == 1
    assert "there is no" in capsys.readouterr().err
