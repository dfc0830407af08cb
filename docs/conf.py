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
    "myst_parser",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "numpydoc",
]
exclude_patterns = ["tutorial_scripts", "_build", "**/README.rst", "tutorials/sg_execution_times.rst"]
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
    "within_subsection_order": "FileNameSortKey",
    "copyfile_regex": r".*\.py",
    "download_all_examples": False,
    "show_memory": False,
    "min_reported_time": 10_000,
    "abort_on_example_error": True,
    "only_warn_on_example_error": False,
    "plot_gallery": True,
    "reset_modules": ("matplotlib",),
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
