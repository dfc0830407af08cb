"""How the tutorials are run and shown: their order, what they leave behind, and their paths."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

ORDER = (
    "first_trace",
    "own_sampler",
    "many_processes",
    "emcee_save_watch_resume",
    "pymc_model",
    "month_on_a_cluster",
)
SCRIPTS = "tutorial_scripts"


class InOrder:
    """Sorts the tutorials as a reader would take them."""

    def __init__(self, source: str) -> None:
        self.source = source

    def __call__(self, filename: str) -> int:
        """The place of one of them."""
        return ORDER.index(Path(filename).stem)


def remove_traces(gallery_conf: dict[str, Any], script: str) -> None:
    """Remove what a tutorial has left, before and after another one runs."""
    for trace in Path(gallery_conf["src_dir"], SCRIPTS).glob("*.zarr"):
        shutil.rmtree(trace)


def shorten_paths(app: Any, page: str, content: list[str]) -> None:
    """Leave out the directory of the machine that built the site where a trace says its path."""
    if page.startswith("tutorials/"):
        content[0] = content[0].replace(f"{Path(app.srcdir, SCRIPTS)}/", "")


def setup(app: Any) -> dict[str, bool]:
    """Register what changes the pages."""
    app.connect("source-read", shorten_paths)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
