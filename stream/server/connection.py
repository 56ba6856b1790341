"""One connection: `websockets`' own, with bounds on what its client may send, leave unread, and hold open.

What the library leaves to us: its keepalive waits for a client that never reads, its ping answers pile up for one, a handshake
that trickles in is not distinguished from a slow download, a request with a body gets no answer. Frames are written to the
transport directly, framed once for all who get them; above the bound a client is cut off, for neither a ping nor a closing
handshake would ever reach it.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

from websockets.asyncio.server import Server, ServerConnection
from websockets.exceptions import InvalidMessage
from websockets.frames import CloseCode, Frame, Opcode
from websockets.protocol import Event, State
from websockets.server import ServerProtocol

from stream.protocol import Subscribe
from stream.server.access import REQUEST_S, Bucket, Refusal, RefusalLog
from stream.server.listener import NO_LINGER, Admission, Counted, plain_address

CLOSE_S = 2.0
"""How long a client may take to answer the closing handshake."""
STUCK_S = 20.0
"""How long what waits for a client may stay above PAUSE_BYTES: a dead peer is told by this, however little is sent."""
PAUSE_BYTES = 32 * 1024
SEND_BUFFER = 256 * 1024
"""The kernel's share of what waits for a client; left to itself it grows to megabytes, which hide that nobody reads."""
MOST_HEAD = 64 * 1024
"""Bytes of a request; the library bounds lines and their number, which come to a mebibyte."""
BROKEN = (CloseCode.PROTOCOL_ERROR, CloseCode.INVALID_DATA, CloseCode.MESSAGE_TOO_BIG)
BAD_REQUEST = "400 Bad Request", "This is no request that can be served: HTTP/1.1, GET or HEAD, without a body.\n"
BAD_HEAD = "431 Request Header Fields Too Large", "The request is longer than any that is answered here.\n"
BAD_METHOD = "405 Method Not Allowed", "Only GET and HEAD are answered here.\n"


@dataclass(eq=False)
class House:
    """What all connections of a server share: the rules and the books."""

    messages_per_s: float
    buffer_bytes: int
    counted: Counted
    refusals: RefusalLog
    admission: Admission
    open: set[Client] = field(default_factory=set)
    dropped: Callable[[], None] = lambda: None


class Client(ServerConnection):
    """A connection that keeps the house's rules; a subscriber's `send` never blocks."""

    def __init__(self, house: House, protocol: ServerProtocol, server: Server, **options: Any) -> None:
        super().__init__(protocol, server, **options)
        self.house = house
        self.address = ""
        self.crowded: Refusal | None = None
        self.on_camera = False
        self.since: int | None = None
        self.asked = Subscribe()
        self._bucket = Bucket(house.messages_per_s)
        self._method = b""
        self._head = 0
        self._answered = False
        self._told_off = False
        self._timers: dict[str, asyncio.TimerHandle] = {}

    @property
    def begun(self) -> bool:
        """Whether something of its request has come."""
        return self._head > 0

    def waiting(self) -> int:
        """Bytes written that the kernel has not taken yet."""
        return self.transport.get_write_buffer_size()

    def write(self, frame: bytes) -> None:
        """Write an encoded frame; cuts the client off when more than the bound waits for it."""
        if self.protocol.state is not State.OPEN:
            return
        self.transport.write(frame)
        if self.transport.get_write_buffer_size() > self.house.buffer_bytes:
            self.cut_off("behind")

    def cut_off(self, reason: str) -> None:
        """End the connection at once, without a closing handshake."""
        if reason == "behind" and not self._told_off:
            self.house.dropped()
        self._tell(reason)
        self.reset()

    def reset(self) -> None:
        """Drop the connection with all that waits for it, in the kernel too: behind a closed window it would wait for hours."""
        with contextlib.suppress(OSError):  # it is closed already
            self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
        self.transport.abort()

    def turn_away(self, reason: str, code: CloseCode, sentence: str) -> None:
        """End the connection with a close code, and cut it off if the client does not go."""
        self._tell(reason)
        if self.protocol.state is State.OPEN:
            self.protocol.fail(code, sentence)
            self.send_data()
        self._after("close", CLOSE_S, self.reset)

    # What asyncio and the library call.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the clock for the request."""
        self.address = plain_address(transport.get_extra_info("peername"))
        self.house.open.add(self)
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        super().connection_made(transport)
        self._after("request", REQUEST_S, partial(self.cut_off, "slow"))

    def connection_lost(self, exc: Exception | None) -> None:
        """Count the connection out."""
        for timer in self._timers.values():
            timer.cancel()
        if self.protocol.close_sent is not None and self.protocol.close_sent.code in BROKEN:
            self._tell("frame")
        self.house.open.discard(self)
        if self.request is not None:
            self.house.counted.leave(self.address)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what came in, and see whether the answers to it pile up."""
        if self.request is None:
            self._method = self._method or data[:16]
            self._head += len(data)
            if self._head > MOST_HEAD:
                self._refuse_head()
                return
        super().data_received(data)
        if self.protocol.state is State.CLOSING:
            self._after("close", CLOSE_S, self.reset)
        if self.waiting() > self.house.buffer_bytes and self.protocol.state is not State.CONNECTING:
            self.cut_off("behind")

    def process_event(self, event: Event) -> None:
        """The request, then one frame after another, control frames and fragments too, within the rate."""
        if self.request is None:
            self._stop("request")
            self.crowded = self.house.counted.enter(self.address)
            self.house.admission.settled(self.transport.get_extra_info("socket").fileno())
        elif not self._bucket.take():
            if "close" not in self._timers:
                self.turn_away("rate", CloseCode.POLICY_VIOLATION, "too many messages a second")
            return
        super().process_event(event)

    def send_data(self) -> None:
        """Write what the protocol has; a request it could not read is answered first, as the library only hangs up."""
        unreadable = self.request is None and self.protocol.handshake_exc is not None
        if unreadable and not self._answered:
            self._answered = True
            self._answer(self.protocol.handshake_exc)
        super().send_data()

    def pause_writing(self) -> None:
        """More than PAUSE_BYTES wait: the client has STUCK_S to take them."""
        super().pause_writing()
        if self.protocol.state is State.OPEN:
            self._after("stuck", STUCK_S, partial(self.cut_off, "behind"))

    def resume_writing(self) -> None:
        """The client reads."""
        self._stop("stuck")
        super().resume_writing()

    def _refuse_head(self) -> None:
        """Answer once, and take what else comes without looking at it, until the client goes or its time is over."""
        if self._answered:
            return
        self._answered = True
        self._tell("request")
        self.transport.write(_plain(*BAD_HEAD))
        if self.transport.can_write_eof():
            self.transport.write_eof()
        else:
            self.transport.close()

    def _answer(self, error: Exception | None) -> None:
        hung_up = isinstance(error, InvalidMessage) and isinstance(error.__cause__, EOFError)
        if hung_up:
            return
        self._tell("request")
        if isinstance(error, InvalidMessage):
            method = self._method.split(b" ")[0]
            bad_method = method.isalpha() and method.isupper() and method not in (b"GET", b"HEAD")
            self.transport.write(_plain(*(BAD_METHOD if bad_method else BAD_REQUEST)))

    def _tell(self, reason: str) -> None:
        if not self._told_off:
            self._told_off = True
            path = self.request.path.partition("?")[0] if self.request is not None else ""
            self.house.refusals.tell(reason, self.address, path)

    def _after(self, what: str, seconds: float, act: Callable[[], None]) -> None:
        if what not in self._timers:
            self._timers[what] = self.loop.call_later(seconds, act)

    def _stop(self, what: str) -> None:
        timer = self._timers.pop(what, None)
        if timer is not None:
            timer.cancel()


class Framer:
    """Frames of messages. The same object handed in again, as to each subscriber in turn, is framed once."""

    def __init__(self) -> None:
        self._last: tuple[str | bytes, bytes] = ("", b"")

    def __call__(self, message: str | bytes) -> bytes:
        """The websocket frame that carries a text (str) or binary (bytes) message."""
        if message is not self._last[0]:
            self._last = (message, frame(message))
        return self._last[1]


def frame(message: str | bytes) -> bytes:
    """The websocket frame, as servers send it, of a text (str) or binary (bytes) message."""
    if isinstance(message, str):
        return Frame(Opcode.TEXT, message.encode()).serialize(mask=False)
    return Frame(Opcode.BINARY, message).serialize(mask=False)


def factory(house: House) -> type[ServerConnection]:
    """What `websockets` makes its connections with: a class to its types, called like one."""
    return cast("type[ServerConnection]", partial(Client, house))


def _plain(status: str, text: str) -> bytes:
    allow = "Allow: GET, HEAD\r\n" if status.startswith("405") else ""
    head = f"HTTP/1.1 {status}\r\nConnection: close\r\n{allow}Content-Length: {len(text)}\r\nContent-Type: text/plain\r\n\r\n"
    return (head + text).encode("ascii")
