"""A running server for tests of the server itself: real store, hub and server, no sources; and clients that break the rules."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Subprotocol

from stream.events.hub import Hub
from stream.events.store import Store
from stream.messages import SourceStatus
from stream.server.metrics import Metrics
from stream.server.response import StaticFile
from stream.server.server import Server
from stream.settings import ServerSettings
from tests.events import decided
from tests.live import PATIENCE_S

FILES = {
    "/": StaticFile(b"<!doctype html><title>t</title>", "text/html; charset=utf-8", '"abc"'),
    "/app.js": StaticFile(b"1", "text/javascript; charset=utf-8", '"def"'),
}
SUBPROTOCOLS = [Subprotocol("apexstream.v1")]
TOKEN = "a-token-for-tests-0123456789"


@dataclass
class RunningServer:
    """A server that runs, with its parts; pictures are the evidence it serves, by event and name."""

    hub: Hub
    metrics: Metrics
    store: Store
    pictures: dict[tuple[str, str], bytes] = field(default_factory=dict)
    ready: bool = True
    server: Server = field(init=False)

    @property
    def port(self) -> int:
        return self.server.port

    @property
    def uri(self) -> str:
        return f"ws://127.0.0.1:{self.port}/"

    def sample(self, name: str, **labels: str) -> float:
        """A sample of the metrics, 0 where there is none yet."""
        return self.metrics.registry.get_sample_value(name, labels) or 0.0


@contextlib.asynccontextmanager
async def running_server(
    folder: Path, *, session: Any = None, files: Mapping[str, StaticFile] = FILES, **settings: Any
) -> AsyncIterator[RunningServer]:
    """A server at a free port of this machine; session is where cameras of browsers are added."""
    with Store(folder) as store:
        metrics = Metrics()
        hub = Hub(store, model="ahmsa-3db@sha256:0123456789ab", version="0.0.1", replayed=metrics.replayed.inc)
        hub.post(SourceStatus("lobby", "pattern", "live", fps=30.0, width=640, height=480))
        running = RunningServer(hub, metrics, store)
        running.server = Server(
            ServerSettings(**{"port": 0, **settings}),
            hub,
            picture=lambda event, picture: running.pictures.get((event, picture)),
            ready=lambda: running.ready,
            metrics=metrics,
            session=session,
            files=files,
        )
        publisher = asyncio.create_task(hub.run())
        await running.server.start()
        try:
            yield running
        finally:
            await running.server.stop()
            hub.close()
            await publisher


@dataclass(frozen=True)
class Answer:
    """An HTTP response as received."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


async def raw(port: int, request: bytes, tls: ssl.SSLContext | None = None) -> bytes:
    """All bytes of the response to a request, until the server closes."""
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", port, ssl=tls, server_hostname="localhost" if tls is not None else None
    )
    writer.write(request)
    try:
        async with asyncio.timeout(PATIENCE_S):
            return await reader.read()
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


async def ask(
    port: int,
    path: str,
    *,
    method: str = "GET",
    headers: Sequence[tuple[str, str]] = (),
    host: str | None = "localhost",
    body: bytes = b"",
    tls: ssl.SSLContext | None = None,
) -> Answer:
    """One request, sent without a library that would correct it."""
    lines = [f"{method} {path} HTTP/1.1", *([f"Host: {host}"] if host is not None else [])]
    lines += [f"{name}: {value}" for name, value in headers]
    return parsed(await raw(port, "\r\n".join([*lines, "", ""]).encode("latin-1") + body, tls))


def parsed(data: bytes) -> Answer:
    """A response from its bytes; status 0 where none came."""
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    if headers.get("transfer-encoding") == "chunked":
        body = _joined(body)
    return Answer(int(first.split(" ")[1]) if first.startswith("HTTP/") else 0, headers, body)


def _joined(chunks: bytes) -> bytes:
    """A chunked body as a whole. Raises ValueError where its end is missing."""
    body = b""
    while chunks != b"0\r\n\r\n":
        size, _, rest = chunks.partition(b"\r\n")
        length = int(size, 16)
        if not length or rest[length : length + 2] != b"\r\n":
            raise ValueError(f"the response ends after {len(body)} bytes")
        body, chunks = body + rest[:length], rest[length + 2 :]
    return body


UPGRADE = (
    ("Upgrade", "websocket"),
    ("Connection", "Upgrade"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
)


@contextlib.asynccontextmanager
async def connected(service: RunningServer, query: str = "", **options: Any) -> AsyncIterator[ClientConnection]:
    """A client that got hello and receives what is sent from now on."""
    async with connect(f"{service.uri}{query}", subprotocols=SUBPROTOCOLS, **options) as client:
        assert json.loads(await client.recv())["type"] == "hello"
        if "since" not in query:
            assert (await next_of(client, "status"))["stream"] == "lobby", "sent by the hub to each new subscriber"
        yield client


async def next_of(client: ClientConnection, kind: str) -> dict[str, Any]:
    """The next message of a type."""
    async for message in client:
        if isinstance(message, str) and json.loads(message)["type"] == kind:
            return dict(json.loads(message))
    raise AssertionError(f"the connection ended before a {kind}")


async def still_serves(service: RunningServer, number: int = 1_000) -> None:
    """The next client is served: page, websocket, event."""
    assert (await ask(service.port, "/healthz")).status == 200
    async with connected(service) as client:
        service.hub.post(decided(number))
        assert (await next_of(client, "expression"))["id"] == f"lobby-{number}"


async def open_socket(port: int, tls: ssl.SSLContext | None = None) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A websocket after its handshake, without a library that keeps to the protocol."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls, server_hostname="localhost" if tls else None)
    lines = ["GET / HTTP/1.1", "Host: localhost", *(f"{name}: {value}" for name, value in UPGRADE), "", ""]
    writer.write("\r\n".join(lines).encode())
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101")
    return reader, writer


def client_frame(opcode: int, data: bytes, *, fin: bool = True) -> bytes:
    """A client's frame."""
    length = bytes([0x80 | len(data)]) if len(data) < 126 else b"\xfe" + struct.pack(">H", len(data))
    length = length if len(data) < 65536 else b"\xff" + struct.pack(">Q", len(data))
    return bytes([(0x80 if fin else 0) | opcode]) + length + b"\x00\x00\x00\x00" + data


async def stuck_client_is_disconnected(service: RunningServer, tls: ssl.SSLContext | None = None) -> None:
    """Of two clients one reads and misses nothing; the other one is disconnected."""
    reader, writer = await open_socket(service.port, tls)
    transport = writer.transport
    assert isinstance(transport, asyncio.Transport)
    transport.pause_reading()
    before, dropped = service.hub.subscribers, service.sample("apexstream_subscribers_dropped_total")
    uri = f"{'wss' if tls else 'ws'}://localhost:{service.port}/"
    async with connect(uri, ssl=tls, max_size=None, proxy=None) as client:
        await until(lambda: service.hub.subscribers > before, "the client to have joined")
        probabilities = {"surprise": 1.0, **{"x" * 2000 + str(k): 0.0 for k in range(10)}}
        total = 0
        while service.sample("apexstream_subscribers_dropped_total") == dropped and total < 2000:
            service.hub.post(decided(total, stream="lobby", probabilities=probabilities))
            assert (await next_of(client, "expression"))["id"] == f"lobby-{total}"
            total += 1
        assert service.sample("apexstream_subscribers_dropped_total") == dropped + 1
    transport.resume_reading()  # at once: the kernel's buffer was dropped too
    with pytest.raises(ConnectionError):
        async with asyncio.timeout(PATIENCE_S):
            await reader.read()
    writer.close()


async def until(true: Callable[[], Any], what: str) -> None:
    """Wait until something is true; fails the test when that takes too long."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            while not true():
                await asyncio.sleep(0.005)
    except TimeoutError:
        raise AssertionError(f"waited {PATIENCE_S:.0f} s for {what}") from None


def run(test: Callable[[], Awaitable[None]]) -> None:
    """A test that is a coroutine."""

    async def whole() -> None:
        async with asyncio.timeout(4 * PATIENCE_S):
            await test()

    asyncio.run(whole())
