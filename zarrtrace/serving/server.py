"""The server of live pages: who may ask it, and for what."""

from __future__ import annotations

import hmac
import logging
import secrets
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from signal import SIGINT, signal
from socket import gethostname, socket
from threading import Lock
from typing import Any
from urllib.parse import quote, urlsplit

from bokeh.application import Application
from bokeh.application.handlers.function import FunctionHandler
from bokeh.document import Document
from bokeh.protocol.exceptions import ProtocolError
from bokeh.resources import Resources
from bokeh.server.server import BaseServer
from bokeh.server.tornado import BokehTornado
from bokeh.server.views.doc_handler import DocHandler
from bokeh.server.views.ws import WSHandler
from tornado.httpserver import HTTPServer
from tornado.httputil import HTTPServerRequest
from tornado.ioloop import IOLoop
from tornado.netutil import bind_sockets
from tornado.web import RequestHandler
from tornado.websocket import WebSocketHandler

from ..errors import InvalidInputError, TraceError
from ..opening import open
from .live import Live
from .overview import Overview
from .repeated import Repeated
from .session import LivePage, ask_to_stop, begin, show_overview, show_words

LOOPBACK = ("127.0.0.1", "localhost", "::1")
_ANY = ("0.0.0.0", "::", "")
_FIRST_LOOK = 20.0  # seconds that the server takes before it says that it is ready
_FIRST_LOOK_OF_RUN = 5.0  # seconds in which a browser waits for the page of a run

StorageOptions = Mapping[str, Any] | None
Pages = dict[str, Callable[[Document], None]]
Arguments = Mapping[str, list[bytes]]  # of a request


# Who may ask -------------------------------------------------------------------------------------


class Refused(RequestHandler):
    """Whoever does not know the token, or comes by the name of another host, gets no answer."""

    def prepare(self) -> None:
        """Refuse."""
        self.set_status(403)
        self.finish("403: open the address that zarrtrace serve has printed\n")


class GuardedPage(DocHandler):  # type: ignore[misc]
    """A page; the browser keeps the token for what the page asks for later."""

    async def prepare(self) -> None:
        """Set what all pages have, and wait for what this one shows."""
        guarded = self.application
        assert isinstance(guarded, Guarded)
        arguments = self.request.arguments
        # Others are answered meanwhile.
        await IOLoop.current().run_in_executor(None, guarded.wait_for, arguments)
        if guarded.token:
            self.set_cookie(guarded.cookie, guarded.token, httponly=True, samesite="Strict")
        self.set_header("X-Frame-Options", "DENY")
        self.set_header("Referrer-Policy", "no-referrer")
        self.set_header("Cache-Control", "no-store")


class GuardedSocket(WSHandler):  # type: ignore[misc]
    """The connection of a page; pages of other servers get none."""

    def open(self) -> None:
        """Begin to send."""
        # A page of an earlier server, or one that slept for long, finds it closed and loads again.
        with suppress(ProtocolError):
            super().open()

    def check_origin(self, origin: str) -> bool:
        """Whether a page comes from here."""
        return WebSocketHandler.check_origin(self, origin)


_COMPONENTS = ["bokeh", "bokeh-widgets", "bokeh-tables"]
_HANDLERS: dict[type, type] = {DocHandler: GuardedPage, WSHandler: GuardedSocket}


class Guarded(BokehTornado):  # type: ignore[misc]
    """Answers only those who may look.

    Attributes
    ----------
    token : str
        What each request has to know; "" where all of this machine may look.
    cookie : str
        The name by which a browser keeps it.
    wait_for : callable
        Waits until there is something to show to a request.
    """

    def __init__(self, shown: OfTrace | OfFolder, token: str, port: int) -> None:
        self.token, self.cookie = token, f"zarrtrace_{port}"
        self.wait_for = shown.wait_for
        pages = shown.pages.items()
        applications = {path: Application(FunctionHandler(show)) for path, show in pages}
        super().__init__(applications, secret_key=secrets.token_bytes(), sign_sessions=True)

    def get_handler_delegate(
        self, request: HTTPServerRequest, target_class: Any, *args: Any, **options: Any
    ) -> Any:
        """Choose who answers a request."""
        if not self._may_ask(request):
            return super().get_handler_delegate(request, Refused)
        chosen = _HANDLERS.get(target_class, target_class)
        return super().get_handler_delegate(request, chosen, *args, **options)

    def resources(self, absolute_url: str | bool | None = None) -> Resources:
        """What a browser loads: nothing on a page is a formula."""
        every: Resources = super().resources(absolute_url)
        return every.clone(components=_COMPONENTS)

    def log_request(self, handler: RequestHandler) -> None:
        """Say nothing of requests, whose addresses have the token."""

    def _may_ask(self, request: HTTPServerRequest) -> bool:
        if not self.token:
            # A page elsewhere could give its own name this address.
            return urlsplit(f"//{request.host}").hostname in LOOPBACK
        given = [one.decode("latin-1") for one in request.query_arguments.get("token", [])]
        cookie = request.cookies.get(self.cookie)
        given += [cookie.value] if cookie is not None else []
        return any(hmac.compare_digest(one.encode(), self.token.encode()) for one in given)


# For what ----------------------------------------------------------------------------------------


class OfTrace:
    """The page of one trace."""

    def __init__(self, path: str, storage_options: StorageOptions, allow_stop: bool) -> None:
        trace = open(path, storage_options=storage_options)
        self._path, self._options = str(trace.path), storage_options
        self._allow_stop = allow_stop
        self.live = Live(trace._hierarchy)
        self.live.looks.start()

    def show(self, document: Document) -> None:
        """Show it in one browser."""
        begin(document, self._path.rstrip("/").rpartition("/")[2])
        LivePage(document, self.live, self._stop if self._allow_stop else None)

    def _stop(self) -> str:
        return ask_to_stop(self._path, self._options)

    @property
    def pages(self) -> Pages:
        """What shows what, by path."""
        return {"/": self.show}

    def wait(self) -> None:
        """Wait until there is something to show."""
        self.live.has_looked.wait(_FIRST_LOOK)

    def wait_for(self, arguments: Arguments) -> None:
        """Return: the page says whether the first look has been taken."""

    def stop(self) -> None:
        """Look no more."""
        self.live.looks.stop()


class OfFolder:
    """The overview of a folder, and the pages of those of its runs that somebody looks at."""

    def __init__(self, folder: str, storage_options: StorageOptions, allow_stop: bool) -> None:
        self._folder, self._options, self._allow_stop = folder, storage_options, allow_stop
        self._overview = Overview(folder, _address_of, storage_options)
        self._overview.refresh()
        self._looks = Repeated(self._overview.refresh, self._overview.fail)
        self._runs: dict[str, OfTrace] = {}
        self._browsers: Counter[str] = Counter()
        self._lock = Lock()  # browsers come and go in several threads

    @property
    def has_runs(self) -> bool:
        """Whether the folder has a run."""
        return bool(self._overview.names)

    @property
    def pages(self) -> Pages:
        """What shows what, by path."""
        return {"/": self._show, "/run": self._show_run}

    def wait(self) -> None:
        """Return: the first look has been taken."""
        self._looks.start()

    def wait_for(self, arguments: Arguments) -> None:
        """Open the run that is asked for, and wait until there is something to show of it."""
        with suppress(TraceError, OSError):
            run = self._open(_name_in(arguments))
            if run is not None:
                run.live.has_looked.wait(_FIRST_LOOK_OF_RUN)

    def _open(self, name: str) -> OfTrace | None:
        """The page of a run; None where the folder has no such run."""
        path = self._overview.path_of(name)
        if path is None or name in self._runs:
            return self._runs.get(name)
        opened = OfTrace(path, self._options, self._allow_stop)
        kept = self._runs.setdefault(name, opened)
        if kept is not opened:
            opened.stop()
        return kept

    def stop(self) -> None:
        """Look no more."""
        self._looks.stop()
        for run in self._runs.values():
            run.stop()

    def _show(self, document: Document) -> None:
        begin(document, self._folder.rstrip("/").rpartition("/")[2])
        show_overview(document, self._overview, self._looks)

    def _show_run(self, document: Document) -> None:
        name = _name_in(document.session_context.request.arguments)
        try:
            run = self._open(name)
        except (TraceError, OSError) as error:
            show_words(document, name, str(error))
            return
        if run is None:
            show_words(document, name, f"There is no run {name!r} in this folder.")
            return
        with self._lock:
            self._browsers[name] += 1
        run.show(document)
        document.on_session_destroyed(lambda context: self._forget(name))

    def _forget(self, name: str) -> None:
        """Look no more at a run when its last browser is gone."""
        with self._lock:
            self._browsers[name] -= 1
            is_last = not self._browsers[name]
        if is_last:
            self._runs.pop(name).stop()


def _address_of(name: str) -> str:
    return f"run?name={quote(name, safe='')}"


def _name_in(arguments: Arguments) -> str:
    return arguments.get("name", [b""])[0].decode("utf-8", "replace")


class Served:
    """A server of one trace, or of a folder of runs.

    Attributes
    ----------
    address : str
        What a browser opens.
    """

    def __init__(self, shown: OfTrace | OfFolder, sockets: list[socket], host: str | None) -> None:
        # That a browser has gone is nothing to warn of.
        logging.getLogger("bokeh").setLevel(logging.ERROR)
        port = sockets[0].getsockname()[1]
        token = "" if host is None else secrets.token_urlsafe(24)
        self._shown = shown
        tornado = Guarded(shown, token, port)
        http = HTTPServer(tornado)
        http.add_sockets(sockets)
        self._server = BaseServer(IOLoop.current(), tornado, http)
        name = LOOPBACK[0] if host is None else host
        # Other machines know this one by its name.
        name = gethostname() if name in _ANY else name
        name = f"[{name}]" if ":" in name else name
        self.address = f"http://{name}:{port}/" + (f"?token={token}" if token else "")

    def run(self, ready: Callable[[], None]) -> None:
        """Say that it is ready, and answer until Ctrl-C."""
        try:
            self._server.start()
            self._shown.wait()
            loop = IOLoop.current()
            # An exception could arrive in the middle of an answer, and come out a second time.
            signal(SIGINT, lambda number, frame: loop.add_callback_from_signal(loop.stop))
            ready()
            loop.start()
        except KeyboardInterrupt:
            pass
        finally:
            self._shown.stop()
            self._server.stop()


def bind(host: str | None, port: int) -> list[socket]:
    """Take a port.

    Raises
    ------
    InvalidInputError
        Another program has it, or this machine has no such address.
    """
    try:
        return bind_sockets(port, LOOPBACK[0] if host is None else host)
    except (OSError, OverflowError) as error:
        raise InvalidInputError(
            f"port {port} of {host or LOOPBACK[0]} cannot be used: "
            f"{getattr(error, 'strerror', None) or error}",
            remedy="give another one by --port, or 0 for any that is free",
        ) from error
