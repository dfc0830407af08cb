"""A block of code that a page needs to run and does not show: what a reader has already.

The tests of the pages run it with the blocks that are shown.
"""

from __future__ import annotations

from typing import Any, ClassVar

from docutils import nodes
from sphinx.util.docutils import SphinxDirective


class SetupCode(SphinxDirective):
    """The directive `setup`, which leaves nothing on the page."""

    has_content = True
    option_spec: ClassVar = {}

    def run(self) -> list[nodes.Node]:
        """Show nothing."""
        return []


def setup(app: Any) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("setup", SetupCode)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
