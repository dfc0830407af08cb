"""The live page in a real browser: what it shows of a run, and of a run that is not there."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np
import pytest

import zarrtrace as zt
from zarrtrace.cli import main

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.long, pytest.mark.once("oldest")]

VARIABLE = "<script>window.taken=1"
LABEL = "<script>window.taken=2</script>"

# The page is drawn, and connected with its server: the words alone are there before.
IS_LIVE = "window.Bokeh && Bokeh.documents.length == 2 && !document.querySelector('.early')"

# The columns of a table, and the numbers of its rows.
TABLE = """() => {
  const pairs = (data) => data instanceof Map ? data : Object.entries(data)
  for (const document of Bokeh.documents)
    for (const model of document._all_models.values())
      if (model.type == "DataTable")
        return [model.columns.map((column) => [column.field, column.title]),
                Object.fromEntries([...pairs(model.source.data)].map(([k, v]) => [k, [...v]]))]
}"""


@dataclass
class Server:
    """A server of live pages, in a process of its own."""

    process: subprocess.Popen[str]
    address: str


@contextmanager
def serving(path: Path, log: Path, port: int = 0) -> Iterator[Server]:
    command = [sys.executable, "-m", "zarrtrace", "serve", str(path), "--port", str(port)]
    with (
        log.open("a") as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as process,
    ):
        try:
            assert process.stdout is not None
            found = re.search(r"http://\S+", process.stdout.readline())
            assert found is not None, log.read_text()
            yield Server(process, found.group())
        finally:
            process.kill()


@dataclass
class Runs:
    """A folder of runs, each of which is shown in the browser."""

    folder: Path
    show: Callable[[str], Page]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, browser: Browser) -> Iterator[Runs]:
    """One server for all tests: at the end it has written nothing of an error."""
    folder, log = tmp_path_factory.mktemp("runs"), tmp_path_factory.mktemp("log") / "errors"
    make(folder / "first")
    make(folder / "second")
    with serving(folder, log) as server:

        def show(name: str) -> Page:
            # A new run is in the overview after a second at most.
            page = browser.new_page(viewport={"width": 1000, "height": 700})
            page.on("pageerror", lambda error: faults.append(str(error)))
            page.goto(server.address)
            page.locator(".slick-row", has_text=name).first.wait_for()
            page.goto(f"{server.address}run?name={quote(name)}")
            page.wait_for_function(IS_LIVE, timeout=60_000)
            return page

        faults: list[str] = []
        yield Runs(folder, show)
        assert not faults
    assert "Traceback" not in log.read_text(), log.read_text()


def says(page: Page, words: str, *, seconds: float = 60) -> None:
    """Wait until a page says something, in whatever tree it is."""
    page.get_by_text(words).first.wait_for(timeout=1000 * seconds)


def make(path: Path, draws: int = 40, **more: Any) -> tuple[zt.Trace, list[Any]]:
    """A trace whose writers have recorded some draws, and continue."""
    posterior = {"mu": 0.0, "theta": zt.Var(dims="school"), VARIABLE: 0.0}
    trace = zt.create(
        path, chains=2, draws=100, posterior=posterior, coords={"school": [LABEL, "b"]}, **more
    )
    writers = [trace.writer(chain) for chain in range(2)]
    record(writers, 0, draws)
    return trace, writers


def record(writers: list[Any], first: int, number: int) -> None:
    for chain, writer in enumerate(writers):
        rng = np.random.default_rng([chain, first])
        draws = {"mu": rng.normal(size=number), "theta": rng.normal(size=(number, 2))}
        writer.record_block({**draws, VARIABLE: rng.normal(size=number)})


def test_draws_are_shown_as_they_come_with_the_numbers_of_watch(
    runs: Runs, capsys: pytest.CaptureFixture[str]
) -> None:
    _, writers = make(runs.folder / "run")
    page = runs.show("run")
    says(page, "2 chains, 40 of 100 draws (40 %)")
    record(writers, 40, 60)
    says(page, "2 chains, 100 of 100 draws (100 %)")
    for writer in writers:
        writer.close()
    says(page, "complete")
    # It is laid out again, with the table first.
    says(page, "2 chains of 100 draws")
    for name in (VARIABLE, LABEL):
        says(page, name)
    assert page.evaluate("window.taken") is None
    assert main(["watch", "--json", "--once", str(runs.folder / "run")]) == 0
    look = json.loads(capsys.readouterr().out)
    columns, data = page.evaluate(TABLE)
    field = {title: name for name, title in columns}
    rows = {name: row for row, name in enumerate(data["name"])}
    assert len(look["values"]) == 4
    for value in look["values"]:
        row = rows[value["name"]]
        for title, name in (("r_hat", "rhat"), ("ess_bulk", "ess_bulk"), ("ess_tail", "ess_tail")):
            assert data[field[title]][row] == pytest.approx(value[name], rel=1e-6), name
    page.close()


def test_a_store_that_vanishes_and_comes_back_is_shown_again(runs: Runs) -> None:
    _, writers = make(runs.folder / "moved")
    page = runs.show("moved")
    shutil.move(runs.folder / "moved", runs.folder.parent / "away")
    says(page, "The run cannot be read")
    says(page, "What was read last is shown until it is back.")
    shutil.move(runs.folder.parent / "away", runs.folder / "moved")
    says(page, "2 chains, 40 of 100 draws (40 %)")
    record(writers, 40, 20)
    says(page, "2 chains, 60 of 100 draws (60 %)")
    for writer in writers:
        writer.close()
    shutil.rmtree(runs.folder / "moved")
    says(page, "The run cannot be read")
    page.close()


def test_a_damaged_chunk_is_named_and_all_else_is_shown(runs: Runs) -> None:
    trace, writers = make(runs.folder / "damaged", draws_per_chunk=16, checksum=True)
    for writer in writers:
        writer.close()
    [chunk] = Path(trace.path).glob("posterior/mu/c.1.1")
    chunk.write_bytes(b"\0" * 50)
    page = runs.show("damaged")
    says(page, "posterior/mu, chain 1, draws 16 to 31")
    says(page, "theta[b]")
    page.close()


def test_a_browser_that_slept_shows_what_is_newest(runs: Runs) -> None:
    _, writers = make(runs.folder / "slept", 10)
    page = runs.show("slept")
    says(page, "2 chains, 10 of 100 draws (10 %)")
    tools = page.context.new_cdp_session(page)
    tools.send("Page.setWebLifecycleState", {"state": "frozen"})
    other = runs.show("slept")
    for first in range(10, 40, 10):
        record(writers, first, 10)
        says(other, f"2 chains, {first + 10} of 100 draws")
    tools.send("Page.setWebLifecycleState", {"state": "active"})
    says(page, "2 chains, 40 of 100 draws (40 %)")
    for writer in writers:
        writer.close()
    page.close()
    other.close()


def test_a_page_comes_back_with_its_server(tmp_path: Path, browser: Browser) -> None:
    _, writers = make(tmp_path / "run", 10)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path / "errors"
    page = browser.new_page()
    with serving(tmp_path / "run", log, port) as server:
        page.goto(server.address)
        page.wait_for_function(IS_LIVE, timeout=60_000)
    says(page, "The connection is lost")
    record(writers, 10, 10)
    with serving(tmp_path / "run", log, port):
        says(page, "2 chains, 20 of 100 draws (20 %)")
        assert not page.get_by_text("The connection is lost").is_visible()
        page.close()
    for writer in writers:
        writer.close()
    assert "Traceback" not in log.read_text(), log.read_text()
