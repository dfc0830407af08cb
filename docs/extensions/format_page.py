"""The page of the format: `zarrtrace/FORMAT.md`, which is part of the package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

import zarrtrace

FORMAT = Path(zarrtrace.__file__).parent / "FORMAT.md"


def read(app: Sphinx, page: str, content: list[str]) -> None:
    """Read the text from the package where the page has `FORMAT.md`."""
    if page == "reference/format":
        content[0] = FORMAT.read_text(encoding="utf-8")


def setup(app: Any) -> dict[str, bool]:
    """Register the page."""
    app.connect("source-read", read)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
