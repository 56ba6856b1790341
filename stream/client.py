"""A client of a live service: receives its messages, each event once, and reconnects.

When a connection is lost (a restart, a network failure, no message for a while) the client connects again after a wait that
grows, and resumes after the last event received. Errors that another connection would not solve are raised.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, closing
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage, InvalidStatus
from websockets.typing import Subprotocol

from engine.errors import InputError, SourceError
from stream import protocol
from stream.backoff import Backoff
from stream.protocol import Subscribe
from stream.schema import read_message

SILENCE_S = 15.0
"""A service sends a heartbeat every 5 seconds; without a message for so long the connection is taken for lost."""
OPEN_S = 10.0
CLOSE_S = 1.0
RETRY_S = (0.2, 5.0)
"""The first and the longest wait before connecting again."""
JITTER = 0.5
MAX_MESSAGE = 16 << 20
ANSWER_BYTES = 4096
CONNECTION_LOST = (ConnectionError, ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)
WHY = {
    400: "the query of the address is not valid",
    401: "a token is required: --token-file, or the environment variable APEXSTREAM_TOKEN",
    403: "it does not accept this host name; its settings may list it under [server] hosts",
    404: "there is no websocket at this path",
}
WRONG_TOKEN = "the token is wrong; check --token-file or the environment variable APEXSTREAM_TOKEN"
RETRIED = (408, 429, 500, 502, 503, 504)
"""HTTP status codes after which connecting again may succeed."""


@dataclass
class Place:
    """A client's position: the seq of the last event received, None before the first connection, and its store's name."""

    seq: int | None = None
    store: str | None = None


def socket_url(url: str) -> str:
    """url as that of a websocket: ws, wss, http and https are accepted, the default path is /.

    Raises InputError; also for a URL with a query, which `follow` adds itself.
    """
    try:
        parts = urlsplit(url)
        valid = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        valid = False
    scheme = {"ws": "ws", "wss": "wss", "http": "ws", "https": "wss"}.get(parts.scheme) if valid else None
    if scheme is None or "@" in parts.netloc:
        raise InputError(f"{url} is no address of a live service; an example is ws://127.0.0.1:8765")
    if parts.query:
        raise InputError(f"{url} has a query; remove it and use --since and --stream")
    return urlunsplit((scheme, parts.netloc, parts.path or "/", "", ""))


@dataclass(frozen=True)
class Remote:
    """A service: its address, the token it requires, the TLS settings, and the longest time without a message."""

    url: str
    token: str | None = field(default=None, repr=False)
    tls: ssl.SSLContext | None = field(default=None, repr=False)
    silence_s: float = SILENCE_S


async def follow(
    remote: Remote,
    place: Place,
    *,
    subscription: Subscribe | None = None,
    report: Callable[[str], None] = lambda sentence: None,
) -> AsyncGenerator[dict[str, Any], None]:
    """The service's messages, without end; no final event is repeated or missing.

    Starts after place.seq (None: with the next event) and updates place before it yields an event. report is called with a
    sentence when the connection is lost or fails, once until there is one again. Raises SourceError where connecting again
    would not help, InputError where the address is not valid.
    """
    address, subscription = socket_url(remote.url), subscription or Subscribe()
    backoff, reported = Backoff(*RETRY_S, jitter=JITTER), False
    while True:
        try:
            async with aclosing(_messages(remote, address, place, subscription)) as connection:
                async for message in connection:
                    if message["type"] == "hello":
                        backoff.reset()
                        reported = False
                    yield message
        except _LostError as lost:
            if not reported:
                report(f"{remote.url}: {lost}; trying again")
            reported = True
            await asyncio.sleep(backoff.next())


class _LostError(Exception):
    """A connection was lost or failed; connecting again may succeed."""


async def _messages(
    remote: Remote, address: str, place: Place, subscription: Subscribe
) -> AsyncGenerator[dict[str, Any], None]:
    """The messages of one connection. Raises _LostError at its end, SourceError where connecting again would not help."""
    connection = await _connect(remote, address, protocol.query(place.seq, subscription))
    try:
        while True:
            message = await _receive(connection, remote.silence_s)
            if message["type"] == "hello":
                _start_at(place, message)
            if _advance(place, message):
                yield message
    finally:
        await connection.close()


async def _connect(remote: Remote, address: str, query: str) -> ClientConnection:
    try:
        return await connect(
            f"{address}?{query}" if query else address,
            subprotocols=[Subprotocol(protocol.SUBPROTOCOL)],
            additional_headers={"Authorization": f"Bearer {remote.token}"} if remote.token else None,
            ssl=(remote.tls or True) if address.startswith("wss:") else None,
            open_timeout=OPEN_S,
            close_timeout=CLOSE_S,
            max_size=MAX_MESSAGE,
            compression=None,
        )
    except InvalidStatus as error:
        status = error.response.status_code
        if status in RETRIED:
            raise _LostError(f"it answers {status}") from error
        why = WRONG_TOKEN if status == 401 and remote.token else WHY.get(status)
        raise SourceError(f"{address} refuses: {why or f'it answers {status}, as no live service does'}") from error
    except ssl.SSLCertVerificationError as error:
        raise SourceError(
            f"{address}: its certificate is not trusted ({error.verify_message}); --ca adds a certificate authority"
        ) from error
    except (InvalidMessage, OSError, EOFError) as error:
        await _check_tls(address, error)
        raise _LostError(_reason(error)) from error
    except InvalidHandshake as error:
        raise SourceError(f"{address} is no live service of apexstream: {error}") from error


async def _check_tls(address: str, error: Exception) -> None:
    """Raise SourceError where TLS failed in a way that will not change, not where the connection was just lost."""
    if not address.startswith("wss:"):
        return
    if isinstance(error, CONNECTION_LOST):
        if await _serves_without_tls(address):
            raise SourceError(f"{address}: the service does not use TLS; use ws:// instead of wss://") from error
    elif isinstance(error, ssl.SSLError):
        reason = (error.reason or "unknown reason").lower().replace("_", " ")
        raise SourceError(f"{address}: the TLS handshake failed ({reason})") from error


async def _serves_without_tls(address: str) -> bool:
    """Whether a live service answers there without TLS; it closes connections that start a TLS handshake."""
    parts = urlsplit(address)
    try:
        async with asyncio.timeout(OPEN_S):
            reader, writer = await asyncio.open_connection(parts.hostname, parts.port or 443)
            with closing(writer):
                writer.write(f"GET /healthz HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: close\r\n\r\n".encode())
                answer = await reader.read(ANSWER_BYTES)
    except (OSError, TimeoutError):
        return False
    head, _, body = answer.partition(b"\r\n\r\n")
    return head.startswith(b"HTTP/1.1 200 ") and body.strip() == b"alive"


async def _receive(connection: ClientConnection, silence_s: float) -> dict[str, Any]:
    """The next text message."""
    try:
        while True:
            async with asyncio.timeout(silence_s):
                raw = await connection.recv()
            if isinstance(raw, str):
                return read_message(raw)
    except TimeoutError as error:
        connection.transport.abort()
        raise _LostError(f"no message for {silence_s:g} s") from error
    except ConnectionClosed as error:
        raise _LostError(_reason(error)) from error
    except ValueError as error:
        raise SourceError(f"a message is not one of apexstream: {error}") from error


def _advance(place: Place, message: dict[str, Any]) -> bool:
    """Update place; False for an event that was received before. All events up to a heartbeat's seq have been sent."""
    seq = message.get("seq") if message["type"] in ("expression", "heartbeat") else None
    if seq is None or place.seq is None:
        return True
    known, place.seq = place.seq, max(int(seq), place.seq)
    return place.seq > known or message["type"] == "heartbeat"


def _start_at(place: Place, hello: dict[str, Any]) -> None:
    """Set place to where this connection starts. Raises _LostError where the service has another store now."""
    another = place.store is not None and place.store != hello["store"]
    place.store = hello["store"]
    if another:
        place.seq = 0
        raise _LostError("it has another store, which is read from its start")
    if place.seq is None or place.seq > hello["seq"]:
        place.seq = hello["seq"]


def _reason(error: Exception) -> str:
    """Why a connection was lost or failed, in a few words."""
    if isinstance(error, TimeoutError):
        return "it does not answer"
    if isinstance(error, ConnectionClosed):
        reason = error.rcvd.reason if error.rcvd is not None else ""
        return f"it closed the connection ({reason})" if reason else "the connection was lost"
    if isinstance(error, OSError) and error.errno is not None and error.errno > 0:
        return os.strerror(error.errno).lower()
    return "it cannot be reached"
