"""The review's one port: the page, the frames of the video, and a websocket over which codes are stored.

    /  and the page's files          the review's own, and those of the dashboard that it shares
    /frames/<chunk>?region=x,y,w,h   pictures (`stream.review.pictures`), of the whole frame without a region
    /faces                           [[face, frame, x, y, width, height], ...]: where the faces are, in frame pixels
    websocket /                      `stream.review.session`, and {"type": "video", ...} or {"type": "reading", "share"}

Access is checked as that of the live service. The token is always needed: every user of a machine reaches its loopback address.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import secrets
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pydantic import SecretStr
from websockets.asyncio.server import Server as Listening
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from engine.errors import ApexError, ConfigError, OutputError, SourceError
from engine.types import F64
from stream import protocol
from stream.recorded.face_places import read_face_places
from stream.recorded.results import Results
from stream.review.database import ReviewDatabase
from stream.review.frames import FrameReader, frame_times
from stream.review.pictures import CHUNK, Pictures, Region
from stream.review.session import FramesNotReadError, ReviewSession
from stream.server.access import AccessControl, Need, RefusalLog
from stream.server.response import StaticFile, page_files, refusal, respond, static, text
from stream.settings import ServerSettings
from stream.shutdown import GracefulShutdown

SHARED = ("/style.css", "/theme.js", "/icon.svg", "/display.js")
"""Files of the dashboard that the page uses too."""
REQUEST_S = 600.0
"""Time limit for an answer: a video that cannot be entered in the middle is read from its start."""
PROGRESS_S = 0.3
MAX_MESSAGE_BYTES = 1 << 16

log = logging.getLogger(__name__)


class ReviewServer:
    """Serves one session, by `async with`. Raises ConfigError where it cannot listen.

    Frames and their times are read on a thread of its own, so that codes are stored meanwhile.
    """

    def __init__(self, session: ReviewSession, video: Path, *, host: str = "127.0.0.1", port: int = 8766) -> None:
        self.session, self.video = session, video
        self.token, self._once = session.database.token, secrets.token_urlsafe()
        self._settings = ServerSettings(host=host, port=port, token=SecretStr(self.token))
        self._access, self._refusals = AccessControl(self._settings), RefusalLog()
        shared = {path: file for path, file in page_files("dashboard").items() if path in SHARED}
        self._files: dict[str, StaticFile] = {**shared, **page_files("review", "page")}
        self._pool = ThreadPoolExecutor(1, "frames")
        self._pictures: Pictures | None = None
        self._video: dict[str, Any] = {"type": "reading", "share": 0.0}  # what is known of the video
        self._clients: set[ServerConnection] = set()
        self._read, self._closing = asyncio.Event(), threading.Event()
        self._telling: set[asyncio.Task[None]] = set()  # kept until they are done
        self._stack = AsyncExitStack()
        self._listening: Listening | None = None

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            self._listening = await stack.enter_async_context(await self._listen())
            stack.callback(self._pool.shutdown, wait=False, cancel_futures=True)
            reading = asyncio.create_task(self._read_video())
            stack.callback(reading.cancel)
            stack.callback(self._closing.set)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    @property
    def url(self) -> str:
        """The page's address, the token in its fragment, which browsers send to nobody."""
        return f"{self._origin}{self._page}"

    @property
    def url_once(self) -> str:
        """An address that leads to the page once: other users see the arguments of a browser that is started with it."""
        return f"{self._origin}/once/{self._once}"

    @property
    def _page(self) -> str:
        return f"/#token={self.token}"

    @property
    def _origin(self) -> str:
        host = self._settings.host if self._settings.host not in ("0.0.0.0", "::") else "localhost"
        port = next(iter(self._listening.sockets)).getsockname()[1] if self._listening else self._settings.port
        return f"http://{f'[{host}]' if ':' in host else host}:{port}"

    async def _listen(self) -> Any:
        settings = self._settings
        try:
            return await serve(
                self._serve,
                settings.host,
                settings.port,
                process_request=self._process_request,
                select_subprotocol=lambda _, offered: Subprotocol(protocol.SUBPROTOCOL) if offered else None,
                compression=None,
                server_header=None,
                open_timeout=REQUEST_S,
                max_size=MAX_MESSAGE_BYTES,
                close_timeout=1.0,
                logger=_quiet_log(),
            )
        except (OSError, UnicodeError, socket.gaierror) as error:
            number = getattr(error, "errno", None)
            reason = (os.strerror(number) if isinstance(number, int) and number > 0 else str(error)).lower()
            raise ConfigError(
                f"cannot listen at {settings.host}:{settings.port} ({reason}); choose another address with --listen HOST:PORT"
            ) from error

    # The video.

    async def _read_video(self) -> None:
        """Find the times of all frames, tell the pages how far that is, and be ready to send pictures."""
        loop, reported = asyncio.get_running_loop(), [0.0]

        def progress(share: float) -> None:
            if self._closing.is_set():  # the program would wait for the thread at its end
                raise SourceError("stopped")
            now = loop.time()
            if now - reported[0] > PROGRESS_S:
                reported[0] = now
                loop.call_soon_threadsafe(self._tell, {"type": "reading", "share": round(share, 3)})

        try:
            times = await loop.run_in_executor(self._pool, self._times, progress)
        except ApexError as error:
            log.error("%s", error)
            self.session.problem = str(error)
            self._tell({"type": "video", "problem": str(error)})
            return
        finally:
            self._read.set()
        self.session.times = times
        self._pictures = Pictures(FrameReader(self.video, times))
        facts = self.session.results.summary.get("video") or {}
        video = {"frames": len(times), "chunk": CHUNK, "start": float(times[0]), "end": float(times[-1])}
        self._tell({"type": "video", **video, "width": facts.get("width"), "height": facts.get("height")})

    def _times(self, progress: Callable[[float], None]) -> F64:
        results = self.session.results
        with ReviewDatabase.open(results.folder) as database:
            times = frame_times(self.video, results, database, progress)
        if not len(times):
            raise SourceError(f"{self.video} has no frames")
        return times

    def _tell(self, video: dict[str, Any]) -> None:
        self._video = video
        for client in self._clients:
            telling = asyncio.create_task(_send(client, video))
            self._telling.add(telling)
            telling.add_done_callback(self._telling.discard)

    # Requests.

    async def _process_request(self, connection: ServerConnection, request: Request) -> Response | None:
        path, _, query = request.path.partition("?")
        upgrade = any("websocket" in value.lower() for value in request.headers.get_all("Upgrade"))
        once = path.startswith("/once/")
        need: Need = "socket" if upgrade else "host" if once or path in self._files else "token"
        address = connection.remote_address
        refused = self._access.check(request.headers, need, str(address[0]) if address else "")
        if refused is not None:
            self._refusals.report(refused.reason, str(address[0]) if address else "", path)
            return refusal(refused)
        if upgrade:
            return None if path == "/" else text(404, "There is no websocket at this path.")
        return self._lead_once(path.removeprefix("/once/")) if once else await self._respond(connection, request, path, query)

    async def _respond(self, connection: ServerConnection, request: Request, path: str, query: str) -> Response:
        if path in self._files:
            return static(self._files[path], request.headers)
        if path == "/faces":
            places = list(read_face_places(self.session.results.folder))
            return respond(200, json.dumps(places).encode(), "application/json")
        if path.startswith("/frames/"):
            return await self._frames(connection, path.removeprefix("/frames/"), query)
        return text(404, "Not found.")

    def _lead_once(self, code: str) -> Response:
        """Lead the browser that is the first to know the code to the page."""
        if not self._once or not secrets.compare_digest(code.encode(), self._once.encode()):
            return text(404, "This address was used before; the review prints one that stays valid.")
        self._once = ""
        response = text(303, "The page is at another address.")
        response.headers["Location"] = self._page
        return response

    async def _frames(self, connection: ServerConnection, number: str, query: str) -> Response:
        region = Region.parse(query.removeprefix("region="))
        if not (number.isascii() and number.isdecimal() and len(number) < 9) or (query and region is None):
            return text(400, "/frames/NUMBER?region=x,y,width,height is expected.")
        pictures = self._pictures
        if pictures is None:
            return text(503, "The video is still being read.")

        def chunk_if_wanted() -> bytes:
            """The chunk; nothing is decoded for a page that has gone on to another event meanwhile."""
            return b"" if connection.transport.is_closing() else pictures.chunk(int(number), region)

        loop = asyncio.get_running_loop()
        try:
            chunk = await loop.run_in_executor(self._pool, chunk_if_wanted)
        except ApexError as error:
            return text(503, str(error))
        return respond(200, chunk, "application/octet-stream")

    # Websockets.

    async def _serve(self, connection: ServerConnection) -> None:
        self._clients.add(connection)
        try:
            await _send(connection, self.session.hello())
            await _send(connection, self._video)
            async for message in connection:
                await _send(connection, await self._answer(message))
        except ConnectionClosed:
            pass
        finally:
            self._clients.discard(connection)

    async def _answer(self, message: str | bytes) -> dict[str, Any]:
        try:
            with suppress(FramesNotReadError):
                return self.session.act(message)
            await self._read.wait()  # the page keeps the action, and says so
            return self.session.act(message)
        except FramesNotReadError as error:  # the server ends; the page sends it to the next one
            return {"type": "problem", "sentence": str(error)}
        except OutputError as error:  # it is kept by the page, which sends it again
            log.error("%s", error)
            return {"type": "problem", "sentence": str(error)}


async def _send(connection: ServerConnection, message: dict[str, Any]) -> None:
    with suppress(ConnectionClosed):
        await connection.send(json.dumps(message, ensure_ascii=False, separators=(",", ":")))


def _quiet_log() -> logging.Logger:
    quiet = log.getChild("websockets")
    quiet.setLevel(logging.ERROR)
    return quiet


def analysed_video(results: Results, video: Path | None, database: ReviewDatabase, progress: Callable[[float], None]) -> Path:
    """The video of the results: the one given, else where it was. Raises SourceError where it is not there or another one."""
    video = video or results.video
    if video is None:
        raise SourceError(f"{results.folder / 'summary.json'} names no video; --video names the file")
    if not video.is_file():
        raise SourceError(f"{video}: the video is not there; if it was moved, name it by --video FILE")
    frame_times(video, results, database, progress)
    return video


def serve_review(session: ReviewSession, video: Path, host: str, port: int, started: Callable[[ReviewServer], None]) -> None:
    """Serve a review until a signal; started is called once the page is there. Raises ConfigError where the address cannot be
    used."""
    with GracefulShutdown() as shutdown:
        asyncio.run(_serve_until_signal(ReviewServer(session, video, host=host, port=port), started, shutdown))


async def _serve_until_signal(
    server: ReviewServer, started: Callable[[ReviewServer], None], shutdown: GracefulShutdown
) -> None:
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    shutdown.on_signal(lambda: loop.call_soon_threadsafe(stop.set))
    async with server:
        started(server)
        await stop.wait()
