"""`zarrtrace serve`: who may ask it, for what, and how it ends."""

from __future__ import annotations

import asyncio
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from queue import Queue
from socket import gethostname
from threading import Event, Thread
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import urlopen

import pytest
from conftest import Place
from tornado.ioloop import IOLoop

import zarrtrace as zt
from zarrtrace.cli import main
from zarrtrace.cli.command import build_parser
from zarrtrace.cli.serve import what_is_there
from zarrtrace.serving import server
from zarrtrace.serving.live import Live
from zarrtrace.serving.overview import Overview
from zarrtrace.serving.server import OfFolder, OfTrace, Served, bind


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
    with serving(str(folder), "--host", "127.0.0.1", "--port", "0") as process:
        assert process.stdout is not None
        found = re.search(r"(http://\S+)\?(token=\S+)", process.stdout.readline())
        assert found is not None
        address, token = found.groups()
        assert answer(f"{address}?{token}")[0] == 200
        for path in ("", "?token=wrong", "static/js/bokeh.min.js", "ws"):
            assert answer(f"{address}{path}")[0] == 403, path
        assert answer_to_socket(address, token, "http://example.org") == 403
        assert answer(f"{address}run?name=one&{token}")[0] == 200
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0


@pytest.mark.once("newest")
def test_a_folder_with_one_run_is_an_overview_to_which_others_may_come(tmp_path: Path) -> None:
    zt.create(tmp_path / "runs" / "one", chains=1, draws=9, posterior={"mu": 0.0})
    for path, kind in ((tmp_path / "runs", OfFolder), (tmp_path / "runs" / "one", OfTrace)):
        shown = what_is_there(build_parser().parse_args(["serve", str(path)]))
        shown.stop()
        assert type(shown) is kind


@pytest.mark.once("newest")
def test_serving_a_path_that_is_not_a_trace_fails_in_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", str(tmp_path / "nowhere"), "--port", "0"]) == 1
    assert "there is no" in capsys.readouterr().err


@pytest.mark.once("oldest")
def test_others_are_answered_while_a_run_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Later versions of Bokeh fill documents in threads, and 3.9 among those that answer."""
    for name in ("one", "two"):
        zt.create(tmp_path / name, chains=1, draws=9, posterior={"mu": 0.0})
    is_opened, is_enough = Event(), Event()
    look = Live.look

    def look_for_long(live: Live) -> None:
        is_opened.set()
        is_enough.wait(60)
        look(live)

    monkeypatch.setattr(Live, "look", look_for_long)
    monkeypatch.setattr(server, "_FIRST_LOOK_OF_RUN", 60.0)
    started: Queue[tuple[Served, IOLoop]] = Queue()

    def serve() -> None:
        served = Served(OfFolder(str(tmp_path), None, False), bind(None, 0), None)
        served._server.start()
        started.put((served, IOLoop.current()))
        IOLoop.current().start()

    thread = Thread(target=serve, daemon=True)
    thread.start()
    served, loop = started.get(timeout=60)
    with ThreadPoolExecutor() as browsers:
        page = browsers.submit(answer, f"{served.address}run?name=one")
        assert is_opened.wait(60)
        assert answer(served.address)[0] == 200
        assert not page.done()
        is_enough.set()
        assert "no draw yet" in page.result()[1]
    served._shown.stop()
    loop.add_callback(loop.stop)
    thread.join(60)


@pytest.mark.once("newest")
def test_a_server_for_others_prints_the_name_of_this_machine(tmp_path: Path) -> None:
    zt.create(tmp_path / "one", chains=1, draws=9, posterior={"mu": 0.0})
    shown = OfTrace(str(tmp_path / "one"), None, False)

    async def serve() -> str:
        served = Served(shown, bind("0.0.0.0", 0), "0.0.0.0")
        served._server.stop()
        return served.address

    assert urlsplit(asyncio.run(serve())).hostname == gethostname().lower()
    shown.stop()


@pytest.mark.once("newest")
def test_a_folder_is_read_with_its_storage_options(bucket: Place) -> None:
    zt.create(f"{bucket.store}/one", chains=1, draws=9, posterior={"mu": 0.0}, **bucket.options)
    overview = Overview(bucket.store, str, bucket.options["storage_options"])
    overview.refresh()
    table: Any = overview.layout().select_one({"name": "table"})
    assert (table.source.data["name"], table.source.data["status"]) == (["one"], ["new"])
