"""Write a page to a file that opens offline."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import InvalidInputError, StaleViewError, TraceReplacedError
from ..layout.hierarchy import Hierarchy
from ..reading.moment import Moment
from ..store.local import new_file
from .content import Content
from .finished import gather
from .style import PAGE_CSS, POLICY, TEMPLATE

_TRIES = 3  # while chains go back to their checkpoints, or draws are dropped


def write_report(
    hierarchy: Hierarchy,
    path: str | os.PathLike[str],
    var_names: str | Sequence[str] | None = None,
    *,
    overwrite: bool = False,
    **options: Any,
) -> Path:
    """Write the report of a trace; `options` are those of `gather`."""
    require_bokeh("a report")
    file = Path(path).expanduser().absolute()
    # Before anything is computed: it may take long.
    if file.is_dir() or not file.parent.is_dir():
        raise InvalidInputError(
            "a report cannot be written there",
            where=str(file),
            remedy="give the path of a file in an existing directory",
        )
    names = [var_names] if isinstance(var_names, str) else list(var_names or ())
    with new_file(file, overwrite) as partial:
        content = _gather(hierarchy, names, options)
        partial.write_text(as_html(content), encoding="utf-8")
    return file


def require_bokeh(what: str) -> None:
    """Refuse to go further without Bokeh.

    Raises
    ------
    InvalidInputError
        It is not installed.
    """
    try:
        import bokeh  # noqa: F401
    except ImportError as error:
        raise InvalidInputError(
            f"{what} needs Bokeh", remedy="pip install 'zarrtrace[report]' brings it"
        ) from error


def _gather(hierarchy: Hierarchy, var_names: Sequence[str], options: dict[str, Any]) -> Content:
    for _ in range(_TRIES - 1):
        try:
            return gather(Moment.of(hierarchy), var_names, **options)
        except TraceReplacedError:
            raise
        except StaleViewError:
            continue
    return gather(Moment.of(hierarchy), var_names, **options)


def as_html(content: Content) -> str:
    """A page with its data and all that shows it in one file."""
    from bokeh.embed.bundle import bundle_for_objs_and_resources
    from bokeh.resources import INLINE
    from jinja2 import Environment

    from .embedded import Embedded
    from .page import build_report
    from .values import View, values_of

    values = values_of(content, View())
    embedded = Embedded(build_report(content, values))
    scripts, _ = bundle_for_objs_and_resources([embedded.document], INLINE)
    template = Environment(autoescape=False).from_string(TEMPLATE)
    return template.render(
        title=content.title,
        page_css=PAGE_CSS,
        policy=POLICY,
        bokeh_js=scripts,
        **embedded.variables(values),
    )
