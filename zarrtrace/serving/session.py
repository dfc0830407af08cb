"""What one browser is shown: laid out once, and filled again when it has drawn what it has."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from threading import Thread
from typing import Any

from bokeh.document import Document
from bokeh.models import Button, ColumnDataSource, CustomJS, Div
from jinja2 import Environment

from ..errors import TraceError
from ..life.stop import request_stop, said_of_stop
from ..messages import printable
from ..opening import open
from ..report.parts import text
from ..report.style import PAGE_CSS, TEMPLATE
from ..report.values import Value, View
from ..report.words import escape
from .live import Live
from .overview import Overview
from .repeated import Repeated

# What was sent is put where it belongs.
_FILL = """
const page = Bokeh.documents.find((one) => one.get_model_by_name("page") != null)
feed.data.name.forEach((name, place) => {
  for (const [id, property] of places[name])
    page.get_model_by_id(id)[property] = feed.data.value[place]
})
"""
_TELL_CHOICES = """
const page = Bokeh.documents.find((one) => one.get_model_by_name("page") != null)
for (const name of ["first", "x", "y"]) {
  const select = page.get_model_by_name(name)
  select?.properties.value.change.connect(() => { chosen.tags = [name, select.value] })
}
"""
_READY = 'answer.tags = ["ready"]'
_ANSWER = "answer.tags = asked.tags"
_RELOAD = "window.location.reload()"
_CONFIRM = 'if (window.confirm("Ask the run to stop?")) asked.tags = [Date.now()]'
# A computer that slept, or a server that was started again.
_COME_BACK = """
said.text = '<p style="color:var(--bad)">The connection is lost. The page comes back with it.</p>'
const look = () => fetch(window.location.href).then(
  (answer) => { if (answer.ok) window.location.reload() }, () => {})
window.setInterval(look, 3000)
"""


class Turns:
    """Sends to a browser, and again only when it has answered: what is newest waits for it.

    Parameters
    ----------
    send : callable
        Sends what is new; False where nothing is.
    filled : CustomJS, optional
        What the browser does with it before it answers.
    """

    def __init__(
        self,
        document: Document,
        looks: Repeated,
        send: Callable[[], bool],
        filled: CustomJS | None = None,
    ) -> None:
        self._document, self._send = document, send
        # What is sent before a browser has the document is a part of it, and nobody answers.
        self._number, self._is_waiting, self._is_due = 0, True, False
        self._asked = Div(visible=False, name="asked")
        answer = Div(visible=False, name="answer")
        args = {"asked": self._asked, "answer": answer}
        callbacks = [] if filled is None else [filled]
        self._asked.js_on_change("tags", *callbacks, CustomJS(args=args, code=_ANSWER))
        answer.on_change("tags", self._answered)
        ready = CustomJS(args={"answer": answer}, code=_READY)
        document.js_on_event("document_ready", ready)
        said = text("")
        document.js_on_event("connection_lost", CustomJS(args={"said": said}, code=_COME_BACK))
        for root in (said, self._asked, answer):
            document.add_root(root)
        looks.listeners.append(self._tell)
        document.on_session_destroyed(lambda context: looks.listeners.remove(self._tell))

    def _tell(self) -> None:
        """There may be something new: called by the thread that looks."""
        self._document.add_next_tick_callback(self.take)

    def take(self) -> None:
        """Send what is new, now or when the browser has answered."""
        self._is_due = self._is_waiting
        if not self._is_waiting and self._send():
            self._number += 1
            self._is_waiting = True
            self._asked.tags = [self._number]

    def _answered(self, attr: str, old: object, new: object) -> None:
        self._is_waiting = False
        if self._is_due:
            self.take()


def begin(document: Document, title: str) -> None:
    """Give a document the frame of all pages."""
    document.title = printable(title)
    document.template = Environment(autoescape=False).from_string(TEMPLATE)
    document.template_variables["page_css"] = PAGE_CSS


def show_words(document: Document, title: str, words: str) -> None:
    """Show why there is nothing else."""
    begin(document, title)
    document.add_root(text(f'<h1>{escape(title)}</h1><p class="bad">{escape(words)}</p>'))


def show_overview(document: Document, overview: Overview, looks: Repeated) -> None:
    """Show the overview of a folder in one browser."""
    layout = overview.layout()
    document.add_root(layout)

    def fill() -> bool:
        overview.fill(layout)
        return True

    Turns(document, looks, fill)


class LivePage:
    """A live trace in one browser.

    Parameters
    ----------
    stop : callable or None
        Asks the run to stop, and says what became of it; None shows no button for that.
    """

    def __init__(self, document: Document, live: Live, stop: Callable[[], str] | None) -> None:
        self._document, self._live = document, live
        self._view = View()
        self._sent: dict[str, Value] = {}
        self._structure: Hashable = None
        self._feed = ColumnDataSource({"name": [], "value": []})
        self._again = Div(visible=False)
        self._again.js_on_change("tags", CustomJS(code=_RELOAD))
        self._waiting = text("")
        # Without it Bokeh goes through all models again for each part that is added.
        with document.models.freeze():
            self._turns = self._fill_document(stop)

    def _fill_document(self, stop: Callable[[], str] | None) -> Turns:
        document, live = self._document, self._live
        document.add_root(self._again)
        if live.shown is None:
            self._waiting.text = self._why_nothing()
            document.add_root(self._waiting)
            fill = None
        else:
            fill = self._lay_out(stop)
        return Turns(document, live.looks, self._send, fill)

    def _why_nothing(self) -> str:
        problem = self._live.problem
        if problem:
            return f'<p class="bad">The run cannot be read: {escape(problem)}</p>'
        return "<p>The run is being read for the first time.</p>"

    def _lay_out(self, stop: Callable[[], str] | None) -> CustomJS:
        shown = self._live.shown
        assert shown is not None
        self._structure, self._sent = shown.structure, dict(shown.values(self._view))
        self._document.template_variables.update(shown.page())
        chosen = Div(visible=False)
        chosen.on_change("tags", self._turn)
        self._document.add_root(chosen)
        tell = CustomJS(args={"chosen": chosen}, code=_TELL_CHOICES)
        self._document.js_on_event("document_ready", tell)
        if stop is not None and not shown.content.is_over:
            self._add_stop(stop)
        return CustomJS(args={"feed": self._feed, "places": shown.places}, code=_FILL)

    def _turn(self, attr: str, old: object, chosen: list[str]) -> None:
        """Show what was chosen."""
        name, value = chosen
        options: Any = self._sent["trace choices" if name == "first" else "pair choices"]
        if value in [option for option, _ in options]:
            self._view = self._view._replace(**{name: int(value)})
            self._turns.take()

    def _send(self) -> bool:
        """Send what has changed since it was sent."""
        shown = self._live.shown
        if shown is None:
            said = self._why_nothing()
            is_new: bool = self._waiting.text != said
            self._waiting.text = said
            return is_new
        values = shown.values(self._view)
        if shown.structure != self._structure:
            self._again.tags = ["again"]
            return True
        news = {name: one for name, one in values.items() if one is not self._sent.get(name)}
        if news:
            self._sent.update(news)
            self._feed.data = {"name": list(news), "value": list(news.values())}
        return bool(news)

    def _add_stop(self, stop: Callable[[], str]) -> None:
        button = Button(label="Stop the run", button_type="danger", max_width=160)
        asked, said = Div(visible=False), text("")
        button.js_on_click(CustomJS(args={"asked": asked}, code=_CONFIRM))

        def say(words: str) -> None:
            said.text = f"<p>{escape(words)}</p>"

        def ask() -> None:
            words = stop()
            self._document.add_next_tick_callback(lambda: say(words))

        def begin_to_ask(attr: str, old: object, new: object) -> None:
            # It waits for writers, and other browsers do not wait with it.
            Thread(target=ask, name="zarrtrace stop", daemon=True).start()

        asked.on_change("tags", begin_to_ask)
        for root in (button, asked, said):
            self._document.add_root(root)


def ask_to_stop(path: str, storage_options: Mapping[str, Any] | None) -> str:
    """Do what `zarrtrace stop` does, and say in words what became of it."""
    try:
        trace = open(path, "a", storage_options=storage_options)
        asked = request_stop(trace._hierarchy, None, reason="asked for on its page")
    except (TraceError, OSError) as error:
        return str(error)
    return f"The run is asked to stop {said_of_stop(asked.at, trace.tune)}."
