"""What a live page costs: its first paint, the way of a draw to it, and what ten browsers cost.

    python tests/benchmarks/harness_serve.py paint [--scalars 100] [--rounds 5]
    python tests/benchmarks/harness_serve.py browsers [--browsers 10] [--seconds 20] [--rounds 3]

`paint` needs Playwright and a Chromium. `browsers` opens the connections of pages and answers at
once, as a page does that has nothing to draw.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any

import numpy as np

import zarrtrace as zt

CHAINS = 4
BEFORE = 1000  # existing draws of each chain when the page is opened

# When the words are there, then what is in the first screen, and then all.
MARKS = """
window.marks = {}
const within = (node, wanted) => node.querySelector(wanted) ?? [...node.querySelectorAll("*")]
  .map((one) => one.shadowRoot && within(one.shadowRoot, wanted)).find((found) => found)
const parts = () => [...document.querySelectorAll("main > div[id]")]
const isDrawn = (part) => part.childNodes.length > 0
const tests = {
  words: () => within(document, "h1"),
  screen: () => within(document, "canvas") && !document.querySelector(".early")
    && parts().filter((part) => part.getBoundingClientRect().top < innerHeight).every(isDrawn),
  all: () => within(document, "canvas") && parts().every(isDrawn),
}
const look = () => {
  for (const [name, test] of Object.entries(tests))
    if (!(name in marks) && document.body && test())
      requestAnimationFrame(() => setTimeout(() => { marks[name] ??= performance.now() }))
  if (!("all" in marks)) setTimeout(look, 10)
}
look()
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("section", choices=["paint", "browsers"])
    parser.add_argument("--scalars", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--browsers", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=20)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        writers = recorded(Path(folder) / "run", given.scalars)
        with served(Path(folder) / "run") as (process, address):
            if given.section == "paint":
                paint(writers, given.scalars, address, given.rounds)
            else:
                with recording(writers, given.scalars):
                    asyncio.run(browsers(process, address, given))
        for writer in writers:
            writer.close()


def recorded(path: Path, scalars: int) -> list[Any]:
    """A run of some scalars, each a variable, whose writers continue."""
    trace = zt.create(
        path, chains=CHAINS, draws=100 * BEFORE,
        posterior={f"x{number}": 0.0 for number in range(scalars)},
        sample_stats={"energy": 0.0, "diverging": zt.Var(dtype=bool)},
    )  # fmt: skip
    writers = [trace.writer(chain) for chain in range(CHAINS)]
    for chain, writer in enumerate(writers):
        rng = np.random.default_rng(chain)
        writer.record_block(
            {f"x{number}": rng.normal(size=BEFORE) for number in range(scalars)},
            {"energy": rng.normal(size=BEFORE), "diverging": np.arange(BEFORE) % 300 == 299},
        )
    return writers


def record(writers: list[Any], scalars: int, number: int) -> None:
    """A draw of each chain."""
    for chain, writer in enumerate(writers):
        values = np.random.default_rng([chain, number]).normal(size=scalars)
        writer.record(
            {f"x{place}": value for place, value in enumerate(values)},
            {"energy": 0.0, "diverging": False},
        )


@contextmanager
def recording(writers: list[Any], scalars: int) -> Iterator[None]:
    """Record ten draws a second."""
    is_over = Event()

    def run() -> None:
        number = 0
        while not is_over.wait(0.1):
            record(writers, scalars, number)
            number += 1

    thread = Thread(target=run)
    thread.start()
    yield
    is_over.set()
    thread.join()


@contextmanager
def served(path: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    command = [sys.executable, "-m", "zarrtrace", "serve", str(path), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            found = re.search(r"http://\S+", process.stdout.readline())
            assert found is not None
            yield process, found.group()
        finally:
            process.kill()


def processor_time(process: subprocess.Popen[str]) -> float:
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# First paint, and the way of a draw ---------------------------------------------------------------


def paint(writers: list[Any], scalars: int, address: str, rounds: int) -> None:
    from playwright.sync_api import sync_playwright

    names = ("chromium", "chromium-browser", "google-chrome")
    found = next(filter(None, map(shutil.which, names)), None)
    marks: list[dict[str, float]] = []
    ways: list[float] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        for number in range(rounds + 1):
            page = browser.new_page(viewport={"width": 1400, "height": 900})
            page.add_init_script(MARKS)
            page.goto(address)
            page.wait_for_function('"all" in marks', timeout=120_000)
            page.wait_for_timeout(2000)
            marks.append(page.evaluate("marks"))
            start = time.monotonic()
            record(writers, scalars, number)
            page.get_by_text(f"{BEFORE + number + 1} of").first.wait_for(timeout=60_000)
            ways.append(time.monotonic() - start)
            page.close()
        browser.close()
    for name in marks[0]:
        say(f"{name} painted", [1e-3 * one[name] for one in marks[1:]])
    say("from record to the page", ways[1:])


def say(what: str, seconds: list[float]) -> None:
    print(
        f"{what:24} median {statistics.median(seconds):5.2f} s,"
        f" {min(seconds):.2f} to {max(seconds):.2f}",
        flush=True,
    )


# Ten browsers ------------------------------------------------------------------------------------


async def browsers(process: subprocess.Popen[str], address: str, given: argparse.Namespace) -> None:
    for _ in range(given.rounds):
        for number in (1, given.browsers):
            told: list[int] = []
            pages = [asyncio.create_task(browse(address, told)) for _ in range(number)]
            await asyncio.sleep(5)
            told.clear()
            start = processor_time(process)
            await asyncio.sleep(given.seconds)
            used = processor_time(process) - start
            print(
                f"{number:3} browsers: {used:6.2f} s of a processor in {given.seconds:.0f} s,"
                f" {len(told)} times a browser was sent {sum(told) / len(told) / 1e3:.0f} kB",
                flush=True,
            )
            for page in pages:
                page.cancel()
            await asyncio.gather(*pages, return_exceptions=True)


async def browse(address: str, told: list[int]) -> None:
    """Open a page, and answer whatever it is sent."""
    from tornado.httpclient import AsyncHTTPClient
    from tornado.websocket import websocket_connect

    page = (await AsyncHTTPClient().fetch(address, request_timeout=60)).body.decode()
    token = re.search(r'"token":"([^"]+)"', page)
    assert token is not None
    place = f"{address.replace('http', 'ws', 1)}ws"
    socket = await websocket_connect(place, subprotocols=["bokeh", token.group(1)])
    size, asked, answer = 0, "", ""
    while (fragment := await socket.read_message()) is not None:
        size += len(fragment)
        if not isinstance(fragment, str):
            continue
        said = json.loads(fragment)
        if said.get("msgtype") == "ACK":
            await send(socket, "PULL-DOC-REQ", {})
        elif "doc" in said:
            asked, answer = (
                re.search(rf'"id":"([^"]+)","attributes":{{"name":"{name}"', fragment).group(1)
                for name in ("asked", "answer")
            )
            await send(socket, "PATCH-DOC", answered(answer, ["ready"]))
        for event in said.get("events", ()):
            if event.get("attr") == "tags" and event["model"]["id"] == asked:
                told.append(size)
                size = 0
                await send(socket, "PATCH-DOC", answered(answer, event["new"]))


async def send(socket: Any, kind: str, content: dict[str, Any]) -> None:
    for part in ({"msgid": "1", "msgtype": kind}, {}, content):
        await socket.write_message(json.dumps(part))


def answered(model: str, tags: list[Any]) -> dict[str, Any]:
    event = {"kind": "ModelChanged", "model": {"id": model}, "attr": "tags", "new": tags}
    return {"events": [event]}


if __name__ == "__main__":
    main()
