"""The overview of a folder in a real browser."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import zarrtrace as zt
from zarrtrace.serving.overview import Overview

if TYPE_CHECKING:
    from playwright.sync_api import Page

MARKUP = "<img src=x onerror=window.taken=1>"
NAMES = [MARKUP, "a[b]", "🎲", "שלום", "\u202ereversed"]


@pytest.mark.long
@pytest.mark.once("newest")
def test_names_are_shown_as_text_and_filtered(
    tmp_path: Path, open_page: Callable[..., Page]
) -> None:
    from bokeh.embed import file_html
    from bokeh.resources import INLINE

    for name in NAMES:
        zt.create(tmp_path / "runs" / name, chains=1, draws=9, posterior={"mu": 0.0}, name=name)
    overview = Overview(tmp_path / "runs", lambda name: f"#{name}")
    overview.refresh()
    (tmp_path / "page.html").write_text(file_html(overview.layout(), INLINE), encoding="utf-8")
    page = open_page(tmp_path / "page.html")
    links = page.locator(".slick-row a")
    links.first.wait_for()
    assert sorted(links.all_inner_texts()) == sorted([*NAMES[:4], r"\u202ereversed"])
    assert f"#{MARKUP}" in [link.get_attribute("href") for link in links.all()]
    assert page.evaluate("window.taken") is None
    page.get_by_label("Name contains").fill("A[")
    links.filter(has_text="🎲").wait_for(state="detached")
    assert links.all_inner_texts() == ["a[b]"]
