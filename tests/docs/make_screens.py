"""Make the pictures of pages of the site: wide and narrow, light and dark; and of an overview.

    python -m sphinx -W docs SITE
    python tests/docs/make_screens.py SITE docs/pictures/site
    python tests/docs/make_screens.py --overview docs/pictures

It needs Playwright, Pillow, and a Chromium at /usr/bin/chromium or where `CHROMIUM` says.
"""

from __future__ import annotations

import argparse
import os
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image
from playwright.sync_api import Browser, sync_playwright

PAGES = {
    "front": "index.html",
    "tutorial": "tutorials/first_trace.html",
    "howto": "howto/choose_the_burn_in_later.html",
    "reference": "reference/trace.html",
}
VIEWS = {"wide": (1400, "light"), "narrow": (400, "dark")}
HEIGHT = 900


def photograph(browser: Browser, site: Path, pictures: Path) -> None:
    """Write a picture of the top of each page in each view."""
    for view, (width, scheme) in VIEWS.items():
        context = browser.new_context(
            viewport={"width": width, "height": HEIGHT}, color_scheme=scheme
        )
        page = context.new_page()
        for name, address in PAGES.items():
            page.goto((site / address).resolve().as_uri())
            save(page.screenshot(), pictures / f"{name}_{view}.png")
        context.close()


def save(screen: bytes, picture: Path) -> None:
    """Write a picture with few colours, which makes it small."""
    image = Image.open(BytesIO(screen)).convert("RGB")
    image.quantize(64).save(picture, optimize=True)


def photograph_overview(browser: Browser, pictures: Path) -> None:
    """Write pictures of the overview of a folder: some runs are done, one is recorded."""
    from bokeh.document import Document
    from bokeh.embed import file_html
    from bokeh.resources import INLINE
    from jinja2 import Environment

    import zarrtrace as zt
    from zarrtrace.report.style import PAGE_CSS, TEMPLATE
    from zarrtrace.serving.overview import Overview

    with TemporaryDirectory() as place:
        folder = Path(place) / "runs"
        for number in range(6):
            rng = np.random.default_rng(number)
            trace = zt.folder.create(
                folder, f"step-{number}", name="eight_schools", chains=4, tune=100, draws=400,
                posterior={"mu": 0.0, "theta": zt.Var(shape=8)},
            )  # fmt: skip
            for chain in range(4):
                with trace.writer(chain) as writer:
                    draws = 500 if number < 4 else 300
                    mu = rng.normal(size=draws) + (number == 2) * chain
                    writer.record_block({"mu": mu, "theta": rng.normal(size=(draws, 8))})
            if number < 4:
                trace.finish()
        (folder / "step-3" / "_sampling_state" / "zarr.json").write_text("{")
        writer = trace.writer(0)
        writer.resume()
        overview = Overview(folder, str)
        overview.refresh()
        writer.record({"mu": 0.0, "theta": np.zeros(8)})
        overview.refresh()
        document = Document()
        document.add_root(overview.layout())
        template = Environment(autoescape=False).from_string(TEMPLATE)
        html = file_html(
            document, INLINE, "runs", template=template,
            template_variables={"page_css": PAGE_CSS},
        )  # fmt: skip
        html = html.replace(place, "/data")  # the problems of a run name its path
        (folder / "overview.html").write_text(html, encoding="utf-8")
        for view, (width, scheme) in VIEWS.items():
            page = browser.new_page(viewport={"width": width, "height": 560}, color_scheme=scheme)
            page.goto((folder / "overview.html").as_uri())
            page.wait_for_function("window.Bokeh && Bokeh.documents[0]?.is_idle", timeout=120_000)
            save(page.screenshot(), pictures / f"overview_{view}.png")
        writer.close()


def main() -> None:
    """Make all pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("site", type=Path, nargs="?")
    parser.add_argument("pictures", type=Path, nargs="?")
    parser.add_argument("--overview", type=Path, metavar="PICTURES")
    given = parser.parse_args()
    chromium = os.environ.get("CHROMIUM", "/usr/bin/chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        if given.overview:
            photograph_overview(browser, given.overview.absolute())
        if given.pictures:
            given.pictures.mkdir(parents=True, exist_ok=True)
            photograph(browser, given.site, given.pictures)
        browser.close()


if __name__ == "__main__":
    main()
