"""One connection: the one of `websockets`, with limits on what its client may send, leave unread, and hold open.

The library does not cover these: its keepalive waits for a client that never reads, answers to pings pile up for one, a slow
handshake is not distinguished from a slow download, a request with a body gets no answer. Frames are written to the transport
directly; a client above its limit is disconnected at once, as neither a ping nor a closing
handshake would reach it.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Any

from websockets.asyncio.server import Server, ServerConnection
from websockets.exceptions import InvalidMessage
from websockets.frames import CloseCode, Frame, Opcode
from websockets.protocol import Event, State
from websockets.server import ServerProtocol

from stream.protocol import Message, PreviewRequest, Subscribe
from stream.server.access import RateLimit, Refusal, RefusalLog
from stream.server.listener import NO_LINGER, Admission, plain_address

REQUEST_S = 10.0
"""Time limit for a client's request, not counting the TLS handshake."""
CLOSE_S = 2.0
"""Time limit for the client's answer to the closing handshake."""
STUCK_S = 20.0
"""How long more than PAUSE_BYTES may wait for a client: this detects a dead peer, however little it is sent."""
PAUSE_BYTES = 32 * 1024
SEND_BUFFER = 256 * 1024
"""The kernel's send buffer for a client; unbounded, it grows to megabytes, which hide that the client does not read."""
MAX_HEAD = 64 * 1024
"""Bytes of a request's head; the library bounds its lines and their number, which come to a mebibyte."""
BROKEN = (CloseCode.PROTOCOL_ERROR, CloseCode.INVALID_DATA, CloseCode.MESSAGE_TOO_BIG)
BAD_REQUEST = "400 Bad Request", "Invalid request: HTTP/1.1 is expected, GET or HEAD, without a body.\n"
BAD_HEAD = "431 Request Header Fields Too Large", "The request is too long.\n"
BAD_METHOD = "405 Method Not Allowed", "Only GET and HEAD are supported.\n"


@dataclass(eq=False)
class ServerState:
    """What all connections of a server share: limits, admission, the log of refusals, and the set of open connections.

    dropped is called for each subscriber that is disconnected because it does not read.
    """

    messages_per_s: float
    buffer_bytes: int
    refusals: RefusalLog
    admission: Admission
    dropped: Callable[[], None]
    open: set[Connection] = field(default_factory=set)


class Connection(ServerConnection):
    """A client's connection, within the server's limits; a subscriber of the hub once its websocket is open."""

    def __init__(self, state: ServerState, protocol: ServerProtocol, server: Server, **options: Any) -> None:
        super().__init__(protocol, server, **options)
        self.server_state = state
        self.address = ""
        self.refused: Refusal | None = None  # by admission
        self.on_camera = False
        self.since: int | None = None
        self.subscription = Subscribe()
        self.previews: dict[str, PreviewRequest] = {}  # those it asked for, by stream
        self._preview_due: dict[str, float] = {}
        self._rate = RateLimit(state.messages_per_s)
        self._method = b""
        self._head = 0  # bytes of the request so far
        self._answered = False
        self._reported = False
        self._timers: dict[str, asyncio.TimerHandle] = {}

    def waiting(self) -> int:
        """Bytes written that the kernel has not taken yet."""
        return self.transport.get_write_buffer_size()

    def write(self, message: str | bytes) -> None:
        """Send a text (str) or binary (bytes) message without blocking; disconnects the client when too much waits for it."""
        if self.protocol.state is not State.OPEN or self.transport.is_closing():
            return
        self.transport.write(_frame(message))
        if self.waiting() > self.server_state.buffer_bytes:
            self.disconnect("behind")

    def wants(self, message: Message) -> bool:
        """Whether it subscribed to message; for a preview also whether one is due and the one before has been sent."""
        return self.subscription.wants(message) and (message.type != "preview" or self._takes_preview(str(message.stream)))

    async def drained(self) -> None:
        """Return once little waits. Raises ConnectionError when the connection is closed."""
        await self.drain()
        if self.protocol.state is not State.OPEN:
            raise ConnectionError("the connection is closed")

    def _takes_preview(self, stream: str) -> bool:
        request = self.previews.get(stream)
        if request is None or self.waiting():
            return False
        now, step = time.monotonic(), 1 / request.fps
        due = self._preview_due.get(stream, now)
        if now < due - step / 4:  # frames come at uneven intervals
            return False
        self._preview_due[stream] = max(due, now - step) + step
        return True

    def disconnect(self, reason: str) -> None:
        """End the connection at once, without a closing handshake."""
        if reason == "behind" and not self._reported:
            self.server_state.dropped()
        self._report(reason)
        self.reset()

    def reset(self) -> None:
        """Drop the connection with all that waits for it, in the kernel too: behind a closed window it would wait for hours."""
        with contextlib.suppress(OSError):  # it is closed already
            self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
        self.transport.abort()

    def fail(self, reason: str, code: CloseCode, sentence: str) -> None:
        """End the connection with a close code; resets it after CLOSE_S."""
        self._report(reason)
        if self.protocol.state is State.OPEN:
            self.protocol.fail(code, sentence)
            self.send_data()
        self._start_timer("close", CLOSE_S, self.reset)

    # Called by asyncio and by the library.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the timer of the request."""
        self.address = plain_address(transport.get_extra_info("peername"))
        self.server_state.open.add(self)
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        super().connection_made(transport)
        self._start_timer("request", REQUEST_S, partial(self.disconnect, "slow"))

    def connection_lost(self, exc: Exception | None) -> None:
        """Remove the connection from the open ones."""
        for timer in self._timers.values():
            timer.cancel()
        if self.protocol.close_sent is not None and self.protocol.close_sent.code in BROKEN:
            self._report("frame")
        self.server_state.open.discard(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Process received data; disconnects the client where the answers to it pile up."""
        if self.request is None:
            self._method = self._method or data[:16]
            self._head += len(data)
            if self._head > MAX_HEAD:
                self._refuse_head()
                return
        super().data_received(data)
        if self.protocol.state is State.CLOSING:
            self._start_timer("close", CLOSE_S, self.reset)
        if self.waiting() > self.server_state.buffer_bytes and self.protocol.state is not State.CONNECTING:
            self.disconnect("behind")

    def process_event(self, event: Event) -> None:
        """Process the request, then each frame, control frames and fragments too, within the rate limit."""
        if self.request is None:
            self._stop_timer("request")
            self.refused = self.server_state.admission.request(self.transport.get_extra_info("socket").fileno())
        elif not self._rate.take():
            if "close" not in self._timers:
                self.fail("rate", CloseCode.POLICY_VIOLATION, "too many messages a second")
            return
        super().process_event(event)

    def send_data(self) -> None:
        """Write what the protocol has to send; answers an invalid request first, as the library only closes."""
        invalid = self.request is None and self.protocol.handshake_exc is not None
        if invalid and not self._answered:
            self._answered = True
            self._answer(self.protocol.handshake_exc)
        super().send_data()

    def pause_writing(self) -> None:
        """More than PAUSE_BYTES wait: the client has STUCK_S to read them."""
        super().pause_writing()
        if self.protocol.state is State.OPEN:
            self._start_timer("stuck", STUCK_S, partial(self.disconnect, "behind"))

    def resume_writing(self) -> None:
        """The client reads."""
        self._stop_timer("stuck")
        super().resume_writing()

    def _refuse_head(self) -> None:
        """Answer once, and discard what else comes until the client closes or its time is over."""
        if self._answered:
            return
        self._answered = True
        self._report("request")
        self.transport.write(_plain(*BAD_HEAD))
        if self.transport.can_write_eof():
            self.transport.write_eof()
        else:
            self.transport.close()

    def _answer(self, error: Exception | None) -> None:
        if isinstance(error, InvalidMessage) and isinstance(error.__cause__, EOFError):
            return  # the client closed the connection
        self._report("request")
        if isinstance(error, InvalidMessage):
            method = self._method.split(b" ")[0]
            bad_method = method.isalpha() and method.isupper() and method not in (b"GET", b"HEAD")
            self.transport.write(_plain(*(BAD_METHOD if bad_method else BAD_REQUEST)))

    def _report(self, reason: str) -> None:
        """Log why the connection is ended, the first reason only."""
        if not self._reported:
            self._reported = True
            path = self.request.path.partition("?")[0] if self.request is not None else ""
            self.server_state.refusals.report(reason, self.address, path)

    def _start_timer(self, name: str, seconds: float, act: Callable[[], None]) -> None:
        if name not in self._timers:
            self._timers[name] = self.loop.call_later(seconds, act)

    def _stop_timer(self, name: str) -> None:
        timer = self._timers.pop(name, None)
        if timer is not None:
            timer.cancel()


@lru_cache(maxsize=1)  # all subscribers are sent the same message in turn
def _frame(message: str | bytes) -> bytes:
    """The websocket frame of a message, as servers send it."""
    opcode, data = (Opcode.TEXT, message.encode()) if isinstance(message, str) else (Opcode.BINARY, message)
    return Frame(opcode, data).serialize(mask=False)


def _plain(status: str, text: str) -> bytes:
    allow = "Allow: GET, HEAD\r\n" if status.startswith("405") else ""
    head = f"HTTP/1.1 {status}\r\nConnection: close\r\n{allow}Content-Length: {len(text)}\r\nContent-Type: text/plain\r\n\r\n"
    return (head + text).encode("ascii")
