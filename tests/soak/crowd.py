"""Many websocket clients in one thread: sockets in one epoll loop, frames read just enough to know which event came when.

A client library would be the bottleneck at a thousand connections; what is left out is all but reading frames and answering
pings. Linux only, as epoll is.
"""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable

import numpy as np

from engine.errors import ApexError
from engine.types import F64
from stream.server.listener import connection_limits

EVENT = b'{"type":"expression","v":1,"seq":'
CONNECT_S = 60.0
_HANDSHAKE = (
    "GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: apexstream.v1\r\n\r\n"
)
_PING = 0x9


class Crowd:
    """Clients of the events' socket at a port of this machine: some read all they are sent, some never do.

    came is [readers, events]: when (`time.monotonic()`) each reader first had the event of each seq, counted from 1; NaN where
    it has not. dropped_at is when the server cut off each of those that never read. Raises ApexError where one is refused.
    """

    def __init__(self, port: int, *, readers: int, stuck: int, events: int) -> None:
        self.came: F64 = np.full((readers, events), np.nan)
        self.twice = 0
        self.gone = 0
        self.dropped_at: list[float] = []
        self._epoll = select.epoll()
        self._sockets: dict[int, socket.socket] = {}
        self._rest: dict[int, bytes] = {}
        connection_limits(readers + stuck)
        for _ in range(readers + stuck):
            self._connect(port)
        self._row = dict(zip(self._sockets, range(readers), strict=False))
        for number in self._sockets:
            self._epoll.register(number, select.EPOLLIN if number in self._row else select.EPOLLRDHUP)

    def watch(self, done: Callable[[], bool]) -> None:
        """Take what comes until done says so, which is asked ten times a second at least."""
        asked = 0.0
        while True:
            for number, what in self._epoll.poll(0.1):
                if number in self._row:
                    self._read(number)
                elif what & (select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR):
                    self.dropped_at.append(time.monotonic())
                    self._forget(number)
            now = time.monotonic()
            if now - asked >= 0.1:
                asked = now
                if done():
                    return

    def complete(self, events: int) -> bool:
        """Whether every reader that is still there has had the first so many events."""
        return not np.isnan(self.came[list(self._row.values()), :events]).any()

    def close(self) -> None:
        """Hang up."""
        for number in list(self._sockets):
            self._forget(number)
        self._epoll.close()

    def _connect(self, port: int) -> None:
        one = socket.create_connection(("127.0.0.1", port), timeout=CONNECT_S)
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        one.sendall(_HANDSHAKE.format(port=port).encode())
        answer = b""
        while b"\r\n\r\n" not in answer and (part := one.recv(65536)):
            answer += part
        if not answer.startswith(b"HTTP/1.1 101"):
            raise ApexError(f"the service refused a client: {answer[:60]!r}")
        one.setblocking(False)
        self._sockets[one.fileno()] = one
        self._rest[one.fileno()] = answer.partition(b"\r\n\r\n")[2]

    def _forget(self, number: int) -> None:
        self._epoll.unregister(number)
        self._sockets.pop(number).close()
        self._row.pop(number, None)

    def _read(self, number: int) -> None:
        try:
            data = self._sockets[number].recv(1 << 18)
        except BlockingIOError:
            return
        except ConnectionError:
            data = b""
        if not data:
            self.gone += 1
            self._forget(number)
            return
        self._rest[number] = self._frames(number, self._rest[number] + data, time.monotonic())

    def _frames(self, number: int, data: bytes, now: float) -> bytes:
        """Note what whole frames hold, and return what is left."""
        at, row = 0, self.came[self._row[number]]
        while len(data) >= at + 2:
            size, start = data[at + 1], at + 2
            if size >= 126:
                start += 2 if size == 126 else 8
                size = int.from_bytes(data[at + 2 : start], "big")
            if len(data) < start + size:
                break
            if data.startswith(EVENT, start):
                seq = int(data[start + len(EVENT) : data.index(b",", start + len(EVENT))])
                if seq <= len(row):
                    self.twice += int(not np.isnan(row[seq - 1]))
                    row[seq - 1] = np.fmin(row[seq - 1], now)
            elif data[at] & 0xF == _PING:
                pong = bytes([0x8A, 0x80 | size, 0, 0, 0, 0]) + data[start : start + size]
                self._sockets[number].send(pong)
            at = start + size
        return data[at:]
