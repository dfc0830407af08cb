"""A page as HTML: what a browser shows first is drawn first, and all else one after the other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from threading import Lock
from typing import Any

from bokeh.core.json_encoder import serialize_json
from bokeh.core.serialization import Serializer
from bokeh.document import Document
from bokeh.models import Div

from .page import Page
from .style import TEXT_CSS
from .values import Value

_FIRST = 6  # parts, which fill a screen

# A browser paints between two calls, and not while it draws all parts in one.
_DRAW = """
Bokeh.embed.embed_items(JSON.parse(document.getElementById("models").textContent), [{items}])
  .then(() => {{
    document.querySelector(".early")?.remove()
    const page = Bokeh.documents.find((one) => one.get_model_by_name("page") != null)
    const later = page.get_model_by_name("page").tags.slice({first})
    const draw = () => {{
      if (later.length) page.add_root(later.shift())
      if (later.length) setTimeout(draw)
    }}
    setTimeout(draw)
  }})
"""

_EARLY = """<div class="early"><template shadowrootmode="open"><style>{css}</style>{html}</template>
</div>"""


class Embedded:
    """The models of a page, laid out once for any number of browsers.

    Attributes
    ----------
    places : dict of str to list
        By the name of a value the models, as their ids, and their properties that have it.
    document : Document
        Has all models.
    """

    def __init__(self, page: Page) -> None:
        # It knows the parts that are not drawn yet.
        keeper = Div(visible=False, name="page", tags=list(page.roots))
        self._roots = [keeper, *page.roots]
        self._lock = Lock()
        self._classes: list[list[str]] = [[], *(root.tags for root in page.roots)]
        self.document = Document()
        with self.document.models.freeze():
            for root in self._roots[: 1 + _FIRST]:
                self.document.add_root(root)
        self._json: Any = self.document.to_json(deferred=False)
        self._attributes = dict(_attributes(self._json["roots"]))
        # A list to choose from is not on the page where there is no choice.
        self.places = {
            name: [[model.id, of] for model, of in found if model.id in self._attributes]
            for name, found in page.places.items()
        }

    def variables(self, values: Mapping[str, Value]) -> dict[str, str]:
        """What the template of a page has of it, with other values than it was laid out with."""
        ids = [root.id for root in self._roots]
        parts = "\n".join(
            f'<div id="{name}" class="{" ".join(classes)}"></div>'
            for name, classes in zip(ids, self._classes, strict=True)
        )
        items = {"docid": "page", "roots": dict(zip(ids, ids, strict=True)), "root_ids": ids}
        draw = _DRAW.format(items=serialize_json(items), first=_FIRST)
        drawing = (
            f'<script type="application/json" id="models">{self._filled(values)}</script>\n'
            f"<script>{draw}</script>"
        )
        early = _EARLY.format(css=TEXT_CSS, html=f"{values['heading']}{values['verdict']}")
        return {"early": early, "parts": parts, "drawing": drawing}

    def _filled(self, values: Mapping[str, Value]) -> str:
        """The models with other values, as JSON in which no tag ends."""
        with self._lock:
            for name, value in values.items():
                encoded = Serializer(deferred=False).encode(value)
                for model, of in self.places.get(name, []):
                    self._attributes[model][of] = encoded
            models: str = serialize_json({"page": self._json})
        return models.replace("<", "\\u003c")


def _attributes(found: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """The attributes of all models in JSON, by their ids."""
    if isinstance(found, dict):
        if found.get("type") == "object" and "id" in found:
            yield found["id"], found.setdefault("attributes", {})
        for one in found.values():
            yield from _attributes(one)
    elif isinstance(found, list):
        for one in found:
            yield from _attributes(one)
