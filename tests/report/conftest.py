"""A real browser for pages: it refuses every request but that of the page itself.

Where the environment variable `ZARRTRACE_SCREENS` names a directory, each page that a test opens
is photographed into it when the test ends.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Route

# The parts of a page are drawn one after the other.
IS_DRAWN = """window.Bokeh && Bokeh.documents.length && !document.querySelector("main > div:empty")
  && (document.querySelector("main") || Bokeh.documents[0].is_idle)"""


@pytest.fixture
def open_page(browser: Browser, request: pytest.FixtureRequest) -> Iterator[Callable[..., Page]]:
    """Opens a file; errors of the page, and requests for anything else, fail the test."""
    faults: list[str] = []
    pages: list[Page] = []

    def open(path: Path, width: int = 1400, scheme: Literal["light", "dark"] = "light") -> Page:
        address = path.absolute().as_uri()

        def refuse_others(route: Route) -> None:
            if route.request.url == address:
                route.continue_()
            else:
                faults.append(route.request.url[:200])
                route.abort()

        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        page.on("console", lambda said: said.type == "error" and faults.append(said.text))
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.route("**/*", refuse_others)
        page.goto(address)
        page.wait_for_function(IS_DRAWN, timeout=120_000)
        pages.append(page)
        return page

    yield open
    for number, page in enumerate(pages):
        keep_screen(page, f"{request.node.name}_{number}")
        page.close()
    assert not faults


def keep_screen(page: Page, name: str) -> None:
    """Write a picture of the whole page where the environment asks for pictures."""
    if folder := os.environ.get("ZARRTRACE_SCREENS"):
        picture = Path(folder) / f"{re.sub(r'[^0-9A-Za-z_]+', '_', name).strip('_')}.png"
        page.screenshot(path=picture, full_page=True)
