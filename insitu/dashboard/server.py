# SPDX-License-Identifier: Apache-2.0
"""The dashboard's web server: pages, their WebSocket, the token at the door.

It runs in a process of its own, so that what it costs it takes from a spare core and not from the controller's turns.
Tornado serves it (Dask brings it along); plots are Bokeh's, drawn in the browser.
"""

import asyncio
import errno
import json
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import bokeh.server
from tornado import web
from tornado.httpserver import HTTPServer
from tornado.websocket import WebSocketClosedError, WebSocketHandler

from insitu.dashboard.access import Access, Role, bearer, cookie_name
from insitu.dashboard.hub import Hub
from insitu.dashboard.metrics import CONTENT_TYPE, metrics
from insitu.dashboard.page import HERE, gate
from insitu.dashboard.sources import Source
from insitu.dashboard.views.registry import VIEWS
from insitu.errors import RunError

#: Ports that are tried after one that is taken.
NEXT_PORTS = 50
#: What a browser may send at once. It says "more", and what was chosen on the page.
MESSAGE_BYTES = 1 << 16
#: The close code of a WebSocket whose token is not good.
NO_TOKEN = 4401
#: Browsers that may look at once; the next one is told so.
BROWSERS = 200


class Door(web.RequestHandler):
    """What all pages have in common: who is it?"""

    @property
    def hub(self) -> Hub:
        hub: Hub = self.application.settings["hub"]
        return hub

    @property
    def cookie(self) -> str:
        return cookie_name(int(self.application.settings["port"]))

    def set_default_headers(self) -> None:
        self.set_header("X-Frame-Options", "DENY")
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("Referrer-Policy", "no-referrer")
        self.set_header("Cache-Control", "no-store")
        self.set_header("Server", "insitu")

    def who(self) -> Role | None:
        """Return what this request's token opens."""
        access: Access = self.application.settings["access"]
        given = self.get_query_argument("token", None) or bearer(self.request.headers) or self.get_cookie(self.cookie)
        return access.role(given)

    def log_exception(self, *error: Any) -> None:
        if not isinstance(error[1], web.HTTPError):
            super().log_exception(*error)


class Page(Door):
    """One view; with a token in the address it is put into a cookie, and out of the address."""

    async def get(self, name: str) -> None:
        role = self.who()
        token = self.get_query_argument("token", None)
        if role is None:
            self.set_status(403)
            self.finish(gate(wrong=bool(token or self.get_cookie(self.cookie))))
        elif token is not None:
            self.set_cookie(self.cookie, token, httponly=True, samesite="Strict", path="/")
            self.redirect(self.request.path)
        elif not name:
            self.redirect("run")
        elif name not in VIEWS:
            raise web.HTTPError(404)
        else:
            self.finish(await self.hub.call(partial(self.hub.page_of, VIEWS[name], role)))

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        self.finish(f"{status_code}: there is no such page here; the views are {', '.join(VIEWS)}.")


class Feed(WebSocketHandler, Door):
    """One open page."""

    ready = False
    sent = ""
    choice: dict[str, str] = {}  # noqa: RUF012 - replaced, never changed
    sent_at = float("-inf")
    _view = ""

    def open(self, *args: str, **kwargs: str) -> None:
        if self.who() is None:
            self.close(NO_TOKEN, "no token, or a wrong one")
            return
        if self.hub.browsers >= BROWSERS:
            self.close(1013, f"{BROWSERS} pages are open already")
            return
        view = self.get_query_argument("view", "")
        if view not in VIEWS:
            self.close(1008, "no such view")
            return
        self._view, self.ready = view, True
        self.hub.join(view, self)

    def push(self, text: str) -> None:
        """Send an update; the next one when the browser asks for more."""
        self.ready, self.sent, self.sent_at = False, text, time.monotonic()
        with suppress(WebSocketClosedError):
            self.write_message(text)

    def on_message(self, message: str | bytes) -> None:
        """Take in that the browser is ready for more, or what was chosen there."""
        if message == "more":
            self.ready = True
            return
        try:
            chosen = json.loads(message)
            if "do" in chosen:
                self._do(chosen["do"])
                return
            self.choice = {str(key): str(value) for key, value in chosen.items()}
        except (ValueError, AttributeError, TypeError, KeyError, IndexError):
            self.close(1008, "nothing that a page says")
            return
        self.sent_at = float("-inf")
        self.hub.wake()

    def _do(self, asked: dict[str, Any]) -> None:
        """Ask a run for an action; an observer's page cannot, whatever it sends."""
        helm = self.hub.runs[int(asked["run"])].helm
        if self.who() is Role.OPERATOR and helm is not None:
            helm.ask(str(asked["kind"]), dict(asked["values"]))

    def on_close(self) -> None:
        if self._view:
            self.hub.leave(self._view, self)


class Metrics(Door):
    """The metrics of all runs, for Prometheus."""

    async def get(self) -> None:
        if self.who() is None:
            raise web.HTTPError(403)
        snapshots = await self.hub.snapshots()
        self.set_header("Content-Type", CONTENT_TYPE)
        self.finish(metrics(snapshots))


class Files(web.StaticFileHandler):
    """Scripts and styles, which are the same for everybody and need no token."""

    def set_extra_headers(self, path: str) -> None:
        self.set_header("X-Content-Type-Options", "nosniff")


def application(hub: Hub, access: Access, port: int) -> web.Application:
    """Return the routes."""
    scripts = Path(bokeh.server.__file__).parent / "static"
    return web.Application(
        [
            (r"/static/(.*)", Files, {"path": str(HERE / "static")}),
            (r"/bokeh/(js/bokeh.*\.js)", Files, {"path": str(scripts)}),
            (r"/feed", Feed),
            (r"/metrics", Metrics),
            (r"/([a-z]*)", Page),
        ],
        hub=hub,
        access=access,
        port=port,
        websocket_max_message_size=MESSAGE_BYTES,
        log_function=lambda handler: None,
    )


def bind(host: str, port: int) -> socket.socket:
    """Listen at `port`, or at the next one that is free, and return the socket.

    Raises `RunError` where none of them can be had.
    """
    for candidate in range(port, port + NEXT_PORTS) if port else (0,):
        try:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            listening = socket.create_server((host, candidate), family=family, backlog=128)
        except OSError as error:  # of a name that is none, too
            if error.errno in (errno.EADDRINUSE, errno.EACCES) and port:
                continue
            raise RunError(f"The dashboard cannot listen at {host}: {error.strerror}.") from error
        listening.setblocking(False)
        return listening
    raise RunError(f"The dashboard finds no free port from {port} to {port + NEXT_PORTS - 1} at {host}.")


class Server:
    """A dashboard of `runs` at `host`, from the port on that was asked for. To be made and used in an event loop."""

    def __init__(self, runs: Sequence[Source], host: str, port: int, access: Access) -> None:
        listening = bind(host, port)
        self.port = int(listening.getsockname()[1])
        self.host = host
        self.access = access
        self.hub = Hub(runs, VIEWS)
        self._http = HTTPServer(application(self.hub, access, self.port))
        self._http.add_socket(listening)
        self._task = asyncio.create_task(self.hub.run())

    def url(self, role: Role) -> str:
        """Return the address that opens the dashboard for a role."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        token = self.access.operator if role is Role.OPERATOR else self.access.observer
        return f"http://{host}:{self.port}/run?token={token}"

    async def close(self) -> None:
        """Bring all pages up to date once more, and end."""
        await self.hub.close()
        await self._task
        self._http.stop()
        await self._http.close_all_connections()
        for run in self.hub.runs:
            run.close()
