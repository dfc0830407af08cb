"""Make the pictures of pages of the site: wide and narrow, light and dark.

    python -m sphinx -W docs SITE
    python tests/docs/make_screens.py SITE docs/pictures/site

It needs Playwright, Pillow, and a Chromium at /usr/bin/chromium or where `CHROMIUM` says.
"""

from __future__ import annotations

import argparse
import os
from io import BytesIO
from pathlib import Path

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
            picture = Image.open(BytesIO(page.screenshot()))
            few_colours = picture.convert("RGB").quantize(64)
            few_colours.save(pictures / f"{name}_{view}.png", optimize=True)
        context.close()


def main() -> None:
    """Make all pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("site", type=Path)
    parser.add_argument("pictures", type=Path)
    given = parser.parse_args()
    given.pictures.mkdir(parents=True, exist_ok=True)
    chromium = os.environ.get("CHROMIUM", "/usr/bin/chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        photograph(browser, given.site, given.pictures)
        browser.close()


if __name__ == "__main__":
    main()
