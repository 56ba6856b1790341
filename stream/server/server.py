"""The service's one port: page, HTTP and websockets, on the asyncio server of `websockets`.

    request -> AccessControl -> Routes (HTTP), or a websocket:
        /         hello, then what the hub sends and what the client asks for (docs/protocol.md)
        /camera   a browser's camera (`stream.server.camera`)

Runs on one event loop; only `wanted_preview` may be called from other threads. A client's errors end its own connection at
most, and are logged once a minute.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from http import HTTPStatus
from typing import Any, cast

from websockets.asyncio.server import Server as Listening
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed, NegotiationError
from websockets.frames import CloseCode
from websockets.http11 import Request, Response
from websockets.protocol import State
from websockets.typing import Subprotocol

from engine.errors import ApexError, ConfigError, InputError
from stream import protocol
from stream.analysis.session import Session
from stream.events.hub import Hub
from stream.messages import WantedPreview
from stream.process import Sweep, collect_garbage
from stream.protocol import PreviewRequest, Subscribe
from stream.server.access import AccessControl, Need, Refusal, RefusalLog, tls_context, unknown_host
from stream.server.camera import serve_camera
from stream.server.connection import CLOSE_S, PAUSE_BYTES, Connection, ServerState
from stream.server.listener import MAX_ACCEPTED, Admission, ListeningSocket, bind_all, connection_limits
from stream.server.metrics import Metrics
from stream.server.response import StaticFile, StreamedResponse, dashboard_files, refusal, text
from stream.server.routes import Routes
from stream.settings import ServerSettings

RESPONSE_S = 60.0
"""Time limit for a client to read an HTTP response."""
PING_S = 20.0
MAX_CAMERAS = 16
"""Connections of browsers' cameras, those being accepted or refused among them: their pictures wait in memory."""
MAX_FRAMES = 4
"""Frames of a client that wait to be processed; no more are read before that."""
HANDSHAKE_S = 5.0
"""Time limit for the TLS handshake."""
SOCKETS = ("/", "/camera")

log = logging.getLogger(__name__)
library_log = log.getChild("websockets")
library_log.setLevel(logging.ERROR)


class Server:
    """Serves the hub's messages, the dashboard and the HTTP routes. Raises ConfigError where settings would leave it open.

    picture and ready are those of `Routes`; session gets the cameras of browsers, None: there is no /camera.
    """

    def __init__(
        self,
        settings: ServerSettings,
        hub: Hub,
        *,
        picture: Callable[[str, str], bytes | None],
        ready: Callable[[], bool],
        metrics: Metrics,
        session: Session | None = None,
        files: Mapping[str, StaticFile] | None = None,
    ) -> None:
        self._settings, self._hub, self._session, self._metrics = settings, hub, session, metrics
        self._access = AccessControl(settings)
        self._tls = tls_context(settings.certificate, settings.key)
        files = dashboard_files() if files is None else files
        self._routes = Routes(hub, metrics, files, picture=picture, ready=ready)
        self._refusals = RefusalLog(count=metrics.refused)
        limits = connection_limits(settings.max_connections)
        self._admission = Admission(limits, self._refusals.report, Sweep(collect_garbage).note)
        self.state = ServerState(
            settings.messages_per_s, settings.buffer_bytes, self._refusals, self._admission, dropped=metrics.dropped.inc
        )
        metrics.connections.set_function(lambda: self._admission.total)
        metrics.subscribers.set_function(lambda: hub.subscribers)
        self._wanted_previews: Mapping[str, WantedPreview] = {}  # replaced as a whole, so that any thread may read it
        self._servers: list[Listening] = []  # one for each address of the host

    @property
    def port(self) -> int:
        """The port in use."""
        if not self._servers:
            raise ConfigError("the server has not been started")
        return int(next(iter(self._servers[0].sockets)).getsockname()[1])

    @property
    def url(self) -> str:
        """The page's address, as seen from this machine where it listens on all addresses."""
        host = self._settings.host if self._settings.host not in ("0.0.0.0", "::") else "localhost"
        return f"{'https' if self._tls else 'http'}://{f'[{host}]' if ':' in host else host}:{self.port}/"

    async def start(self) -> None:
        """Listen. Raises ConfigError where the address cannot be bound."""
        settings = self._settings
        try:
            bound = bind_all(settings.host, settings.port, self._admission)
            self._servers = [await self._serve_at(listener) for listener in bound]
        except (socket.gaierror, UnicodeError) as error:
            raise unknown_host(settings.host) from error
        except OSError as error:
            reason = (os.strerror(error.errno) if error.errno else str(error)).lower()
            raise ConfigError(
                f"cannot listen at {settings.host}:{settings.port} ({reason}); choose another address with --listen HOST:PORT"
            ) from error

    async def _serve_at(self, listener: ListeningSocket) -> Listening:
        tls: dict[str, Any] = (
            {} if self._tls is None else {"ssl_handshake_timeout": HANDSHAKE_S, "ssl_shutdown_timeout": CLOSE_S}
        )
        return await serve(
            self._serve,
            sock=listener,
            ssl=self._tls,
            backlog=MAX_ACCEPTED,
            process_request=self._process_request,
            select_subprotocol=_subprotocol,
            create_connection=cast("type[ServerConnection]", partial(Connection, self.state)),
            compression=None,
            server_header=None,
            open_timeout=RESPONSE_S,
            ping_interval=PING_S,
            ping_timeout=PING_S,
            close_timeout=CLOSE_S,
            max_size=self._settings.max_message_bytes,
            max_queue=MAX_FRAMES,
            write_limit=PAUSE_BYTES,
            logger=library_log,
            **tls,
        )

    async def stop(self, within: float = 2.0) -> None:
        """Stop listening and close all connections with 1001; those still open after `within` seconds are reset."""
        for server in self._servers:
            server.close(code=CloseCode.GOING_AWAY, reason="the service is ending")
        for only_new, limit_s in ((True, within), (False, 1.0)):
            self._reset(only_new=only_new)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(limit_s):
                    for server in self._servers:
                        await server.wait_closed()
                return

    def wanted_preview(self, stream: str) -> WantedPreview | None:
        """The largest size and the highest rate of previews of stream that any client asks for; from any thread."""
        return self._wanted_previews.get(stream)

    def _reset(self, *, only_new: bool) -> None:
        """Reset connections: those without a request, or all."""
        self._admission.close_new()
        for connection in list(self.state.open):
            if connection.request is None or not only_new:
                connection.reset()

    # Requests.

    async def _process_request(self, connection: ServerConnection, request: Request) -> Response | None:
        """The HTTP response, or None where a websocket may be opened."""
        connection = cast(Connection, connection)
        path, _, query = request.path.partition("?")
        if connection.refused is not None:
            return self._refuse(connection, connection.refused)
        upgrade = any("websocket" in value.lower() for value in request.headers.get_all("Upgrade"))
        need: Need = ("camera" if path == "/camera" else "socket") if upgrade else self._routes.need(path)
        refused = self._access.check(request.headers, need, connection.address)
        if refused is not None:
            return self._refuse(connection, refused, path)
        return self._accept_socket(connection, path, query) if upgrade else await self._respond(connection, request)

    def _refuse(self, connection: Connection, refused: Refusal, path: str = "") -> Response:
        self._refusals.report(refused.reason, connection.address, path)
        return refusal(refused)

    async def _respond(self, connection: Connection, request: Request) -> Response:
        response = await self._routes.respond(request)
        reason = {HTTPStatus.NOT_FOUND: "path", HTTPStatus.METHOD_NOT_ALLOWED: "method"}.get(HTTPStatus(response.status_code))
        if reason is not None and not request.path.startswith("/evidence/"):
            self._refusals.report(reason, connection.address, request.path.partition("?")[0])
        if isinstance(response, StreamedResponse):
            await self._stream(connection, response)
        return response

    async def _stream(self, connection: Connection, response: StreamedResponse) -> None:
        """Send a response piece by piece, as fast as the client reads; aborted where a piece cannot be made."""
        connection.transport.write(response.head())
        try:
            async with contextlib.aclosing(response.pieces) as pieces:
                async for piece in pieces:
                    if connection.protocol.state is not State.CONNECTING:
                        return
                    connection.transport.write(response.piece(piece))
                    await connection.drain()
        except ApexError as error:
            log.error("a response was aborted: %s", error)
            connection.disconnect("store")
        except OSError:
            return  # the client closed the connection

    def _accept_socket(self, connection: Connection, path: str, query: str) -> Response | None:
        if path not in SOCKETS or (path == "/camera" and self._session is None):
            self._refusals.report("path", connection.address, path)
            return text(404, "There is no websocket at this path.")
        connection.on_camera = path == "/camera"
        if sum(one.on_camera for one in self.state.open) > MAX_CAMERAS:
            connection.on_camera = False
            return self._refuse(connection, Refusal(503, "crowded", "Too many cameras are connected; try again later."), path)
        try:
            connection.since, connection.subscription = protocol.read_query("" if connection.on_camera else query)
        except InputError as error:
            return text(400, str(error))
        return None

    # Websockets.

    async def _serve(self, connection: ServerConnection) -> None:
        connection = cast(Connection, connection)
        if self._session is not None and connection.on_camera:
            await serve_camera(connection, self._session, count=self._metrics.picture)
            return
        connection.write(self._hub.hello().encoded)
        since = self._hub.seq if connection.since is None else connection.since
        following = asyncio.create_task(self._hub.follow(connection, since))
        following.add_done_callback(partial(self._joined, connection))
        try:
            async for message in connection:
                self._receive(connection, message)
        except ConnectionClosed:
            pass
        finally:
            following.cancel()
            self._hub.leave(connection)
            connection.previews.clear()
            self._wanted_previews = wanted_previews(self.state.open)

    def _joined(self, connection: Connection, following: asyncio.Task[None]) -> None:
        """The replay ended: reports why it failed, unless the client closed the connection."""
        error = None if following.cancelled() else following.exception()
        if error is None or isinstance(error, OSError):
            return
        sentence = str(error) if isinstance(error, ApexError) else "stored events cannot be sent"
        log.error("a replay failed: %s", sentence, exc_info=None if isinstance(error, ApexError) else error)
        connection.write(protocol.error("store", sentence).encoded)
        connection.fail("store", CloseCode.INTERNAL_ERROR, "stored events cannot be read")

    def _receive(self, connection: Connection, data: str | bytes) -> None:
        try:
            message = protocol.read_client(data)
            if isinstance(message, Subscribe):
                connection.subscription = message
            elif isinstance(message, PreviewRequest):
                self._set_preview(connection, message)
            else:
                connection.write(protocol.pong(now=time.time()).encoded)
        except InputError as error:
            self._refusals.report("message", connection.address)
            connection.write(protocol.error("message", error).encoded)

    def _set_preview(self, connection: Connection, request: PreviewRequest) -> None:
        if not request.on:
            connection.previews.pop(request.stream, None)
        elif request.stream in self._hub.streams:
            connection.previews[request.stream] = request
        else:
            connection.write(protocol.error("message", "there is no stream of that name").encoded)
        self._wanted_previews = wanted_previews(self.state.open)


def wanted_previews(connections: Iterable[Connection]) -> dict[str, WantedPreview]:
    """By stream, the largest width and the highest rate of previews that any of the clients asks for."""
    wanted: dict[str, WantedPreview] = {}
    for request in (request for connection in connections for request in connection.previews.values()):
        so_far = wanted.get(request.stream, WantedPreview(0, 0.0))
        wanted[request.stream] = WantedPreview(max(so_far.width, request.width), max(so_far.fps, request.fps))
    return wanted


def _subprotocol(_: ServerConnection, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    """The service's, where it is offered; None where none is. A token offered beside it is never sent back."""
    if not offered or protocol.SUBPROTOCOL in offered:
        return Subprotocol(protocol.SUBPROTOCOL) if offered else None
    raise NegotiationError(f"this service speaks {protocol.SUBPROTOCOL}")
