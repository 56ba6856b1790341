"""Following a live service: its messages, over as many connections as that takes, each event once.

What breaks a connection (the service restarted, the network gone, nothing heard for a while) is answered with another one,
after a wait that grows; it goes on after the last event received. What no other connection would mend is raised.
"""

from __future__ import annotations

import asyncio
import os
import random
import ssl
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing, closing
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage, InvalidStatus
from websockets.typing import Subprotocol

from engine.errors import InputError, SourceError
from stream import protocol as wire
from stream.protocol import Subscribe
from stream.schema import read_message

SILENCE_S = 15.0
"""A service sends a heartbeat every 5 seconds; who hears nothing for this long is cut off and does not know it."""
OPEN_S = 10.0
CLOSE_S = 1.0
WAIT_S = (0.2, 5.0)
LARGEST = 16 << 20
ANSWER_BYTES = 4096
BROKE_OFF = (ConnectionError, ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)
WHY = {
    400: "it does not understand what is asked for",
    401: "it wants a token: --token-file, or the environment variable APEXSTREAM_TOKEN",
    403: "it does not answer to the name it was called by; its settings may list that under [server] hosts",
    404: "there is no such socket",
}
WRONG_TOKEN = "the token is not the one it wants; look at --token-file or the environment variable APEXSTREAM_TOKEN"
BUSY = (408, 429, 500, 502, 503, 504)
"""Answers that another try may change; all others stay as they are."""


@dataclass
class Place:
    """How far a client has come: the last event's seq, None before the first connection, and the store it counts in."""

    seq: int | None = None
    store: str | None = None


def socket_url(url: str) -> str:
    """url as a websocket's: ws, wss, http and https are taken, the path is / where there is none.

    Raises InputError, for an address with a query, too: what is asked for is put there by `follow`.
    """
    try:
        parts = urlsplit(url)
        valid = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        valid = False
    scheme = {"ws": "ws", "wss": "wss", "http": "ws", "https": "wss"}.get(parts.scheme) if valid else None
    if scheme is None or "@" in parts.netloc:
        raise InputError(f"{url} is no address of a live service; one looks like ws://127.0.0.1:8765")
    if parts.query:
        raise InputError(f"{url} asks for something behind its question mark; leave that out and use --since and --stream")
    return urlunsplit((scheme, parts.netloc, parts.path or "/", "", ""))


@dataclass(frozen=True)
class Remote:
    """A service: its address, what it asks for, whom to trust for TLS, and for how long it may be silent."""

    url: str
    token: str | None = field(default=None, repr=False)
    tls: ssl.SSLContext | None = field(default=None, repr=False)
    silence_s: float = SILENCE_S


async def follow(
    remote: Remote, place: Place, *, wish: Subscribe | None = None, told: Callable[[str], None] = lambda sentence: None
) -> AsyncGenerator[dict[str, Any], None]:
    """The service's messages, for ever; no final event comes twice and none is left out.

    It begins after place.seq (None: with what comes next) and moves place along before it hands an event over. told gets a
    sentence for each connection that is lost or cannot be had, once until there is one again. Raises SourceError for what
    trying again would not change, InputError for an address that is none.
    """
    address, wish = socket_url(remote.url), wish or Subscribe()
    waits, quiet = _waits(), False
    while True:
        try:
            async with aclosing(_once(remote, address, place, wish)) as connection:
                async for message in connection:
                    if message["type"] == "hello":
                        waits, quiet = _waits(), False
                    yield message
        except _LostError as lost:
            if not quiet:
                told(f"{remote.url}: {lost}; trying again")
            quiet = True
            await asyncio.sleep(next(waits))


class _LostError(Exception):
    """A connection broke or could not be had; another may do."""


async def _once(remote: Remote, address: str, place: Place, wish: Subscribe) -> AsyncGenerator[dict[str, Any], None]:
    """The messages of one connection. Raises _LostError at its end, SourceError where there is no use in another."""
    connection = await _opened(remote, address, wire.query(place.seq, wish))
    try:
        while True:
            message = await _received(connection, remote.silence_s)
            if message["type"] == "hello":
                _settle(place, message)
            if not _moved(place, message):
                continue
            yield message
    finally:
        await connection.close()


async def _opened(remote: Remote, address: str, query: str) -> ClientConnection:
    try:
        return await connect(
            f"{address}?{query}" if query else address,
            subprotocols=[Subprotocol(wire.SUBPROTOCOL)],
            additional_headers={"Authorization": f"Bearer {remote.token}"} if remote.token else None,
            ssl=(remote.tls or True) if address.startswith("wss:") else None,
            open_timeout=OPEN_S,
            close_timeout=CLOSE_S,
            max_size=LARGEST,
            compression=None,
        )
    except InvalidStatus as error:
        status = error.response.status_code
        if status in BUSY:
            raise _LostError(f"it answers {status}") from error
        why = WRONG_TOKEN if status == 401 and remote.token else WHY.get(status)
        raise SourceError(f"{address} refuses: {why or f'it answers {status}, as no live service does'}") from error
    except ssl.SSLCertVerificationError as error:
        raise SourceError(
            f"{address}: its certificate is not trusted ({error.verify_message}); --ca names who signed it"
        ) from error
    except (InvalidMessage, OSError, EOFError) as error:
        await _check_tls(address, error)
        raise _LostError(_reason(error)) from error
    except InvalidHandshake as error:
        raise SourceError(f"{address} is no live service of apexstream: {error}") from error


async def _check_tls(address: str, error: Exception) -> None:
    """Raises SourceError where TLS was tried and another try would fail the same way, not where a connection just broke."""
    if not address.startswith("wss:"):
        return
    if isinstance(error, BROKE_OFF):
        if await _answers_without_tls(address):
            raise SourceError(f"{address}: the service there speaks no TLS; use ws:// in place of wss://") from error
    elif isinstance(error, ssl.SSLError):
        reason = (error.reason or "unknown reason").lower().replace("_", " ")
        raise SourceError(f"{address}: no TLS connection can be made with what answers there ({reason})") from error


async def _answers_without_tls(address: str) -> bool:
    """Whether one of our services answers there to plain HTTP. A service without TLS just ends a connection that begins it."""
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


async def _received(connection: ClientConnection, silence_s: float) -> dict[str, Any]:
    """The next message that is text."""
    try:
        while True:
            async with asyncio.timeout(silence_s):
                raw = await connection.recv()
            if isinstance(raw, str):
                return read_message(raw)
    except TimeoutError as error:
        connection.transport.abort()
        raise _LostError(f"nothing was heard for {silence_s:g} s") from error
    except ConnectionClosed as error:
        raise _LostError(_reason(error)) from error
    except ValueError as error:
        raise SourceError(f"what was received is no message of apexstream: {error}") from error


def _moved(place: Place, message: dict[str, Any]) -> bool:
    """Move place along; False for an event that came already. A heartbeat's seq tells that all up to it was sent, too."""
    seq = message.get("seq") if message["type"] in ("expression", "heartbeat") else None
    if seq is None or place.seq is None:
        return True
    known, place.seq = place.seq, max(int(seq), place.seq)
    return place.seq > known or message["type"] == "heartbeat"


def _settle(place: Place, hello: dict[str, Any]) -> None:
    """Where this connection begins. Raises _LostError where it has to begin elsewhere: the service has another store now."""
    another = place.store is not None and place.store != hello["store"]
    place.store = hello["store"]
    if another:
        place.seq = 0
        raise _LostError("its events are counted anew, in another store")
    if place.seq is None or place.seq > hello["seq"]:
        place.seq = hello["seq"]


def _reason(error: Exception) -> str:
    """Why a connection broke or could not be had, in a few words."""
    if isinstance(error, TimeoutError):
        return "it does not answer"
    if isinstance(error, ConnectionClosed):
        return f"it went ({error.rcvd.reason})" if error.rcvd is not None and error.rcvd.reason else "the connection broke"
    if isinstance(error, OSError) and error.errno is not None and error.errno > 0:
        return os.strerror(error.errno).lower()
    return "it cannot be reached"


def _waits() -> Iterator[float]:
    wait, longest = WAIT_S
    while True:
        yield wait * random.uniform(0.5, 1.0)
        wait = min(2 * wait, longest)
