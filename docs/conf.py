"""How Sphinx builds the site: `python -m sphinx -W docs site`. It needs no network."""

from __future__ import annotations

import os
import re
import sys
import warnings
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "extensions"))

# Before ArviZ is imported: the pictures of the tutorials open no window.
os.environ["MPLBACKEND"] = "agg"
# Worker processes print no bars of progress into the pages.
os.environ["COLUMNS"] = "100"
warnings.filterwarnings("ignore", message=r"\s*ArviZ is undergoing a major refactor")

import zarrtrace  # noqa: E402

project = "zarrtrace"
author = "The zarrtrace developers"
copyright = "the zarrtrace developers"
version = release = zarrtrace.__version__

extensions = [
    "command_line",
    "format_page",
    "setup_code",
    "tutorial_runs",
    "myst_parser",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "numpydoc",
]
exclude_patterns = ["tutorial_scripts", "_build"]
default_role = "py:obj"
needs_sphinx = "8.1"

myst_enable_extensions = ["colon_fence", "deflist", "attrs_inline"]
myst_heading_anchors = 3

autosummary_generate = True
autodoc_typehints = "none"  # The sections of the docstrings say the types.
autodoc_member_order = "bysource"
numpydoc_show_class_members = False
numpydoc_class_members_toctree = False


sphinx_gallery_conf = {
    "examples_dirs": "tutorial_scripts",
    "gallery_dirs": "tutorials",
    "filename_pattern": r"\.py$",
    "within_subsection_order": "tutorial_runs.InOrder",
    "copyfile_regex": r".*\.py",
    "download_all_examples": False,
    "reset_modules_order": "both",
    "show_memory": False,
    "write_computation_times": False,  # its page fetches scripts from elsewhere
    "abort_on_example_error": True,
    "only_warn_on_example_error": False,
    "plot_gallery": True,
    "reset_modules": ("matplotlib", "tutorial_runs.remove_traces"),
    "remove_config_comments": True,
    "capture_repr": ("_repr_html_", "__repr__"),
    "show_signature": False,
}

html_theme = "pydata_sphinx_theme"
html_title = "zarrtrace"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_copy_source = False
html_theme_options: dict[str, Any] = {
    "navbar_end": ["theme-switcher"],
    "navigation_with_keys": False,
    "show_prev_next": True,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
}

# Nobody makes these; what returns them stands in their first sentence.
_NOT_CONSTRUCTED = {
    *("zarrtrace.Trace", "zarrtrace.Snapshot", "zarrtrace.ChainWriter"),
    *("zarrtrace.table.Table", "zarrtrace.tables.segments.Segments"),
    *("zarrtrace.tables.segments.Segment", "zarrtrace.folder.Runs", "zarrtrace.folder.Run"),
}


def leave_signature_out(app: object, what: str, name: str, *_: object) -> tuple[str, None] | None:
    """Show no arguments of the classes that nobody constructs."""
    return ("", None) if what == "class" and name in _NOT_CONSTRUCTED else None


# A docstring may say `(chains, draws, *shape)`; only reStructuredText takes the star for markup.
_STAR = re.compile(r"(?<![\w`*\\])(\*{1,2})(?=[A-Za-z_])(?!\w+\*)")


def escape_stars(
    app: object, what: str, name: str, thing: object, options: object, lines: list[str]
) -> None:
    """Escape a star that begins a name, before numpydoc reads the docstring."""
    lines[:] = [
        _STAR.sub(lambda star: "".join(rf"\{one}" for one in star[1]), line) for line in lines
    ]


def setup(app: Any) -> None:
    """Register what this file adds to Sphinx."""
    app.connect("autodoc-process-docstring", escape_stars, priority=400)
    app.connect("autodoc-process-signature", leave_signature_out)
