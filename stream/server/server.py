"""The service's one port: page, HTTP and sockets, by `websockets`' asyncio server.

    request -> Guard (who may) -> Answers (HTTP), or a socket:
        /         hello, then what the hub sends, and what the client asks for (docs/protocol.md)
        /camera   a browser's own camera (`stream.server.camera`)

Runs on one event loop; only `preview_wish` may be called from other threads. What a client does wrong ends, at most, its own
connection, and is logged once for its address in a minute.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import time
from collections.abc import Mapping, Sequence, Set
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
from stream import protocol as wire
from stream.events.hub import Hub
from stream.events.subscribers import Subscriber
from stream.messages import PreviewWish
from stream.process import Sweep, collect_garbage
from stream.protocol import Message, PreviewRequest, Subscribe
from stream.server.access import Guard, Need, Refusal, RefusalLog, tls_context, unknown_host
from stream.server.camera import BrowserCameras, serve_camera
from stream.server.connection import CLOSE_S, PAUSE_BYTES, Client, Framer, House, factory
from stream.server.listener import AT_ONCE, Admission, Counted, ListeningSocket, listeners, room_for
from stream.server.metrics import Metrics
from stream.server.response import Page, Streamed, page_files, refusal, text
from stream.server.routes import Answers, Facts
from stream.settings import ServerSettings

ANSWER_S = 60.0
"""How long an answer over HTTP may take to be fetched."""
PING_S = 20.0
MOST_CAMERAS = 16
"""Sockets of browsers' cameras, those that are let in or turned away just then among them: their pictures wait in memory."""
MOST_FRAMES = 4
"""Frames of a client that wait to be looked at; it is read no further before that."""
HANDSHAKE_S = 5.0
"""How long a client may take over TLS's handshake."""
SOCKETS = ("/", "/camera")

log = logging.getLogger(__name__)
library_log = log.getChild("websockets")
library_log.setLevel(logging.ERROR)


class Listener(Subscriber):
    """A client as the hub's subscriber: what it asked for, and how it is sent."""

    def __init__(self, client: Client, framer: Framer) -> None:
        super().__init__(client.asked)
        self.client = client
        self.previews: dict[str, PreviewRequest] = {}
        self._framer = framer
        self._due: dict[str, float] = {}

    def wants(self, message: Message) -> bool:
        """Whether it asked for message; for a picture, also whether one is due and the one before it has left."""
        if not super().wants(message):
            return False
        return message.type != "preview" or self._takes_picture(message.stream or "")

    def send(self, encoded: str | bytes) -> None:
        """Never blocks; a client that does not read is cut off."""
        self.client.write(self._framer(encoded))

    async def drained(self) -> None:
        """Return once little waits. Raises ConnectionError when the client is gone."""
        await self.client.drain()
        if self.client.protocol.state is not State.OPEN:
            raise ConnectionError("the client is gone")

    def _takes_picture(self, stream: str) -> bool:
        request = self.previews.get(stream)
        if request is None or self.client.waiting():
            return False
        now, step = time.monotonic(), 1 / request.fps
        due = self._due.get(stream, now)
        if now < due - step / 4:  # frames do not come like clockwork
            return False
        self._due[stream] = max(due, now - step) + step
        return True


class Server:
    """Serves what hub and facts have, by the settings. Raises ConfigError where they would leave it open to strangers."""

    def __init__(
        self,
        settings: ServerSettings,
        hub: Hub,
        facts: Facts,
        *,
        figures: Metrics | None = None,
        cameras: BrowserCameras | None = None,
        pages: Mapping[str, Page] | None = None,
    ) -> None:
        self._settings, self._hub, self._cameras = settings, hub, cameras
        self.figures = figures or Metrics()
        self._guard = Guard(settings)
        self._tls = tls_context(settings.certificate, settings.key)
        self._answers = Answers(facts, self.figures, page_files() if pages is None else pages)
        self._refusals = RefusalLog(counted=self.figures.refused)
        room = room_for(settings.max_connections)
        self._admission = Admission(room, self._refusals.tell, Sweep(collect_garbage).note)
        self._house = House(
            messages_per_s=settings.messages_per_s,
            buffer_bytes=settings.buffer_bytes,
            counted=Counted(room.most),
            refusals=self._refusals,
            admission=self._admission,
            dropped=self.figures.dropped,
        )
        self.figures.count_connections(lambda: self._admission.total, lambda: hub.subscribers)
        self._framer = Framer()
        self._listeners: set[Listener] = set()
        self._wishes: Mapping[str, PreviewWish] = {}  # replaced as a whole, so that any thread may read it
        self._servers: list[Listening] = []  # one for each address of the host

    @property
    def port(self) -> int:
        """The port in use."""
        if not self._servers:
            raise ConfigError("the server has not been started")
        return int(next(iter(self._servers[0].sockets)).getsockname()[1])

    @property
    def url(self) -> str:
        """The page's address, as seen from this machine where it listens everywhere."""
        host = self._settings.host if self._settings.host not in ("0.0.0.0", "::") else "localhost"
        return f"{'https' if self._tls else 'http'}://{f'[{host}]' if ':' in host else host}:{self.port}/"

    async def start(self) -> None:
        """Listen. Raises ConfigError where the address cannot be had."""
        settings = self._settings
        try:
            bound = listeners(
                settings.host, settings.port, lambda family: ListeningSocket(family, self._admission, self._refusals.tell)
            )
            self._servers = [await self._serve_at(listener) for listener in bound]
        except (socket.gaierror, UnicodeError) as error:
            raise unknown_host(settings.host) from error
        except OSError as error:
            reason = (os.strerror(error.errno) if error.errno else str(error)).lower()
            raise ConfigError(
                f"{settings.host}:{settings.port} cannot be listened at ({reason}); choose another with --listen HOST:PORT"
            ) from error

    async def _serve_at(self, listener: ListeningSocket) -> Listening:
        tls: dict[str, Any] = (
            {} if self._tls is None else {"ssl_handshake_timeout": HANDSHAKE_S, "ssl_shutdown_timeout": CLOSE_S}
        )
        return await serve(
            self._serve,
            sock=listener,
            ssl=self._tls,
            backlog=AT_ONCE,
            process_request=self._decide,
            select_subprotocol=_subprotocol,
            create_connection=factory(self._house),
            compression=None,
            server_header=None,
            open_timeout=ANSWER_S,
            ping_interval=PING_S,
            ping_timeout=PING_S,
            close_timeout=CLOSE_S,
            max_size=self._settings.max_message_bytes,
            max_queue=MOST_FRAMES,
            write_limit=PAUSE_BYTES,
            logger=library_log,
            **tls,
        )

    async def stop(self, within: float = 2.0) -> None:
        """Take no more connections and close those there are with 1001; who has not gone within so many seconds is cut off."""
        for server in self._servers:
            server.close(code=CloseCode.GOING_AWAY, reason="the service is ending")
        self._cut_off(only_silent=True)
        try:
            async with asyncio.timeout(within):
                await self._all_closed()
        except TimeoutError:
            self._cut_off(only_silent=False)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await self._all_closed()

    async def _all_closed(self) -> None:
        for server in self._servers:
            await server.wait_closed()

    @property
    def clients(self) -> Set[Client]:
        """The connections past TLS."""
        return self._house.open

    def preview_wish(self, stream: str) -> PreviewWish | None:
        """The largest and most frequent pictures of stream that anybody asks for; from any thread."""
        return self._wishes.get(stream)

    def _cut_off(self, *, only_silent: bool) -> None:
        self._admission.end_new()
        for client in list(self._house.open):
            if client.request is None or not only_silent:
                client.reset()

    # Requests.

    async def _decide(self, connection: ServerConnection, request: Request) -> Response | None:
        """An answer over HTTP, or None where a socket may be opened."""
        client = cast(Client, connection)
        if client.crowded is not None:
            self._refusals.tell(client.crowded.reason, client.address)
            return refusal(client.crowded)
        path, _, query = request.path.partition("?")
        upgrade = any("websocket" in value.lower() for value in request.headers.get_all("Upgrade"))
        refused = self._guard.refuse(request.headers, self._need(path, upgrade=upgrade), client.address)
        if refused is not None:
            self._refusals.tell(refused.reason, client.address, path)
            return refusal(refused)
        return self._admit(client, path, query) if upgrade else await self._answer(client, request)

    def _need(self, path: str, *, upgrade: bool) -> Need:
        if not upgrade:
            return self._answers.need(path)
        return "camera" if path == "/camera" else "socket"

    async def _answer(self, client: Client, request: Request) -> Response:
        answer = await self._answers.answer(request)
        reason = {HTTPStatus.NOT_FOUND: "path", HTTPStatus.METHOD_NOT_ALLOWED: "method"}.get(HTTPStatus(answer.status_code))
        if reason is not None and not request.path.startswith("/evidence/"):
            self._refusals.tell(reason, client.address, request.path.partition("?")[0])
        if isinstance(answer, Streamed):
            await self._stream(client, answer)
        return answer

    async def _stream(self, client: Client, answer: Streamed) -> None:
        """Send an answer piece by piece, as fast as the client takes them; where one cannot be made, it is broken off."""
        client.transport.write(answer.head())
        try:
            async with contextlib.aclosing(answer.pieces) as pieces:
                async for piece in pieces:
                    if client.protocol.state is not State.CONNECTING:
                        return
                    client.transport.write(answer.piece(piece))
                    await client.drain()
        except ApexError as error:
            log.error("an answer was broken off: %s", error)
            client.cut_off("store")
        except OSError:
            return  # the client has gone

    def _admit(self, client: Client, path: str, query: str) -> Response | None:
        if path not in SOCKETS or (path == "/camera" and self._cameras is None):
            self._refusals.tell("path", client.address, path)
            return text(404, "There is no socket here.")
        client.on_camera = path == "/camera"
        if sum(one.on_camera for one in self.clients) > MOST_CAMERAS:
            client.on_camera = False
            self._refusals.tell("crowded", client.address, path)
            return refusal(Refusal(503, "crowded", "Too many browsers show their camera or are about to; try again later."))
        try:
            client.since, client.asked = wire.read_query("" if client.on_camera else query)
        except InputError as error:
            return text(400, str(error))
        return None

    # Sockets.

    async def _serve(self, connection: ServerConnection) -> None:
        client = cast(Client, connection)
        if self._cameras is not None and client.on_camera:
            await serve_camera(client, self._cameras, counted=self.figures.picture)
            return
        listener = Listener(client, self._framer)
        listener.send(self._hub.hello().encoded)
        self._listeners.add(listener)
        following = asyncio.create_task(self._hub.follow(listener, client.since))
        following.add_done_callback(partial(self._followed, client))
        try:
            async for message in client:
                self._hear(listener, message)
        except ConnectionClosed:
            pass
        finally:
            following.cancel()
            self._hub.leave(listener)
            self._listeners.discard(listener)
            self._gather_wishes()

    def _followed(self, client: Client, following: asyncio.Task[None]) -> None:
        """What a replay came to: a client that went is none of our business, a store that cannot be read is told."""
        error = None if following.cancelled() else following.exception()
        if error is None or isinstance(error, OSError):
            return
        sentence = str(error) if isinstance(error, ApexError) else "stored events cannot be sent"
        log.error("a replay failed: %s", sentence, exc_info=None if isinstance(error, ApexError) else error)
        client.write(self._framer(wire.error("store", sentence).encoded))
        client.turn_away("store", CloseCode.INTERNAL_ERROR, "stored events cannot be read")

    def _hear(self, listener: Listener, message: str | bytes) -> None:
        try:
            said = wire.read_client(message)
            if isinstance(said, Subscribe):
                listener.subscription = said
            elif isinstance(said, PreviewRequest):
                self._show(listener, said)
            else:
                listener.send(wire.pong(now=time.time()).encoded)
        except InputError as error:
            self._refusals.tell("message", listener.client.address)
            listener.send(wire.error("message", error).encoded)

    def _show(self, listener: Listener, request: PreviewRequest) -> None:
        if not request.on:
            listener.previews.pop(request.stream, None)
        elif request.stream in self._hub.streams:
            listener.previews[request.stream] = request
        else:
            listener.send(wire.error("message", "no stream of that name is here").encoded)
        self._gather_wishes()

    def _gather_wishes(self) -> None:
        wishes: dict[str, PreviewWish] = {}
        for request in (request for listener in self._listeners for request in listener.previews.values()):
            so_far = wishes.get(request.stream, PreviewWish(0, 0.0))
            wishes[request.stream] = PreviewWish(max(so_far.width, request.width), max(so_far.fps, request.fps))
        self._wishes = wishes


def _subprotocol(_: ServerConnection, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    """Ours where it is offered; none where none is. A page's token beside it is never chosen, so never sent back."""
    if not offered or wire.SUBPROTOCOL in offered:
        return Subprotocol(wire.SUBPROTOCOL) if offered else None
    raise NegotiationError(f"this service speaks {wire.SUBPROTOCOL}")
