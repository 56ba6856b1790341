"""Admission of connections where they are accepted: before TLS, before a byte is read, within the limit of open files.

    listening socket --accept--> new (TLS handshake, request) --request--> served --close--> closed

The number of new connections is bounded by itself. One more closes the oldest that has sent nothing among the older half of
the address that has most, else its oldest, so that a client that opens connections and sends nothing closes its own. Beyond
the overall limit a connection is reset at once. Files that the rest of the process needs are kept free; one descriptor is kept
in reserve, so that connections can be reset even when no descriptor is free.

A connection is counted from accept until its descriptor is closed. Used on one event loop.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import resource
import socket
import struct
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from stream.server.access import Refusal, client_key, is_loopback

BACKLOG = 1024
"""Connections that may wait in the kernel to be accepted."""
MAX_ACCEPTED = 64
"""Connections accepted in one iteration of the event loop."""
PER_ADDRESS = 256
"""The most connections of one client at once; loopback addresses (a proxy, tests) have the overall limit alone."""
OTHER_FILES = 256
"""Files kept free for everything but connections: sources, store, processes; three quarters where there are not so many."""
MIN_NEW, MAX_NEW = 64, 128
"""How many connections may be without a request: as many as there may be at all, within these bounds."""
MAX_ENDING = 64
"""Connections beyond the limit that are being answered (503) or closed."""
NO_LINGER = struct.pack("ii", 1, 0)
MAX_DEFERRED = 20
"""Iterations of the event loop for which a connection waits in the kernel for others to close; usually they take two."""
_TCP_INFO: int | None = getattr(socket, "TCP_INFO", None) if sys.platform == "linux" else None
_RECEIVED = struct.Struct("=128xQ")
_NO_FILES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ConnectionLimits:
    """The most connections: served, besides them new ones without a request, and ones being refused or closed."""

    served: int
    new: int
    ending: int


def connection_limits(connections: int) -> ConnectionLimits:
    """The limits of this process for so many connections; raises its limit of open files for them as far as allowed."""
    new = max(MIN_NEW, min(connections, MAX_NEW))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + new + MAX_ENDING + OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return ConnectionLimits(connections, new, MAX_ENDING)
    kept = min(OTHER_FILES, 3 * soft // 4)
    spare = min(new + MAX_ENDING, (soft - kept) // 2)
    served = max(1, min(connections, soft - kept - spare))
    if served < connections:
        log.warning("at most %d connections at once: this process may open %d files, and %d are kept free", served, soft, kept)
    return ConnectionLimits(served, max(1, 4 * spare // 5), spare - 4 * spare // 5)


class AcceptedSocket(socket.socket):
    """A connection's socket; on_close is called once, before its descriptor is closed."""

    def __init__(self, accepted: socket.socket, address: str) -> None:
        super().__init__(accepted.family, accepted.type, accepted.proto, fileno=accepted.detach())
        self.address, self.client = address, client_key(address)
        self.requested = False
        self.on_close: Callable[[AcceptedSocket], None] = lambda _: None

    def close(self) -> None:
        """Close the descriptor."""
        try:
            if self.fileno() >= 0:
                self.on_close(self)
        finally:
            super().close()

    @property
    def silent(self) -> bool:
        """Whether no byte was received from it; False where the system cannot tell (tcpi_bytes_received, Linux only)."""
        if _TCP_INFO is None:
            return False
        try:
            info = self.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, _RECEIVED.size)
        except OSError:
            return False
        return len(info) == _RECEIVED.size and not _RECEIVED.unpack(info)[0]

    def disconnect(self) -> None:
        """Break the connection; the transport that holds the socket then reads its end and closes it."""
        with contextlib.suppress(OSError):  # it is broken already
            self.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
            self.shutdown(socket.SHUT_RDWR)


class Admission:
    """The open connections, within limits.

    refused is called with reason and address of each connection that was not accepted or not kept; wasted for each that closed
    without a request.
    """

    def __init__(
        self,
        limits: ConnectionLimits,
        refused: Callable[[str, str], None] = lambda reason, address: None,
        wasted: Callable[[], None] = lambda: None,
        *,
        per_address: int = PER_ADDRESS,
    ) -> None:
        self.refused = refused
        self._limits, self._wasted, self._per_address = limits, wasted, per_address
        self._open: dict[int, AcceptedSocket] = {}  # by descriptor
        self._new: dict[int, AcceptedSocket] = {}  # those of them without a request so far, oldest first
        self._ending: set[int] = set()
        self._served: Counter[str] = Counter()  # connections with a request, by client
        self._deferred = 0

    @property
    def total(self) -> int:
        """Open connections of every sort."""
        return len(self._open)

    @property
    def full(self) -> bool:
        """Whether one more would be too many."""
        return self.total >= self._limits.served + self._limits.new + self._limits.ending

    def may_accept(self) -> bool:
        """Whether to accept the next connection now: always, except for a few turns while others close."""
        self._deferred = self._deferred + 1 if self.full and self._ending else 0
        return not 0 < self._deferred <= MAX_DEFERRED

    def enter(self, connection: AcceptedSocket) -> bool:
        """Admit a connection, in place of another if need be; False where it was closed instead."""
        if self.full:
            self.refused("crowded", connection.address)
            _reset(connection)
            return False
        connection.on_close = self._closed
        self._open[connection.fileno()] = connection
        self._new[connection.fileno()] = connection
        if len(self._new) > self._limits.new:
            self._close_oldest()
        return True

    def request(self, file: int) -> Refusal | None:
        """The connection with that descriptor sent its request: why it is refused, None where it is served."""
        connection = self._open.get(file)
        if connection is None:
            return None
        self._new.pop(file, None)
        connection.requested = True
        self._served[connection.client] += 1
        if self._served.total() > self._limits.served:
            return Refusal(503, "crowded", "Too many connections; try again later.")
        if self._served[connection.client] > self._per_address and not is_loopback(connection.client):
            return Refusal(503, "crowded", "Too many connections from your address; try again later.")
        return None

    def close_new(self) -> None:
        """Close those without a request, as in the middle of a TLS handshake."""
        for connection in list(self._new.values()):
            connection.disconnect()

    def _close_oldest(self) -> None:
        client = Counter(one.client for one in self._new.values()).most_common(1)[0][0]
        most = [(file, one) for file, one in self._new.items() if one.client == client]
        older = most[: -(-len(most) // 2)]  # the newest have had no time to send anything
        file, oldest = next(((file, one) for file, one in older if one.silent), most[0])
        del self._new[file]
        self.refused("crowded", oldest.address)
        self._ending.add(file)
        oldest.disconnect()

    def _closed(self, connection: AcceptedSocket) -> None:
        file = connection.fileno()
        wasted = file in self._ending or self._new.pop(file, None) is not None
        self._open.pop(file, None)
        self._ending.discard(file)
        if connection.requested:
            self._served[connection.client] -= 1
            if not self._served[connection.client]:
                del self._served[connection.client]
        if wasted:
            self._wasted()


class ListeningSocket(socket.socket):
    """A listening socket whose connections pass admission; for asyncio's servers, as `sock` with backlog MAX_ACCEPTED."""

    def __init__(self, family: int, admission: Admission) -> None:
        super().__init__(family, socket.SOCK_STREAM)
        self._admission = admission
        self._pausing = False
        self._spare = _spare()

    def listen(self, backlog: int = BACKLOG) -> None:
        """Listen with BACKLOG at least: asyncio's own is how many it accepts at once."""
        super().listen(max(backlog, BACKLOG))

    def accept(self) -> tuple[socket.socket, Any]:
        """The next connection that is admitted. Raises BlockingIOError where none waits."""
        if self._pausing:
            self._pausing = False
            raise BlockingIOError(errno.EAGAIN, "asyncio pauses")
        for _ in range(MAX_ACCEPTED):
            if not self._admission.may_accept():
                break
            try:
                accepted, peer = super().accept()
            except OSError as error:
                if error.errno not in _NO_FILES:
                    raise
                self._shed(error)
                continue
            connection = AcceptedSocket(accepted, plain_address(peer))
            if self._admission.enter(connection):
                return connection, peer
        raise BlockingIOError(errno.EAGAIN, "the others are accepted in the next iteration")

    def _shed(self, error: OSError) -> None:
        """No descriptor is free: reset the next connection with the one in reserve. Raises error where that is taken too."""
        self._admission.refused("files", "any")
        if self._spare is None:
            self._spare = _spare()
        if self._spare is None:
            self._pausing = True  # asyncio waits a second, and would ask again before that
            raise error
        os.close(self._spare)
        self._spare = None
        try:
            _reset(super().accept()[0])
        finally:
            self._spare = _spare()

    def close(self) -> None:
        """Stop listening."""
        if self._spare is not None:
            os.close(self._spare)
            self._spare = None
        super().close()


def bind_all(host: str, port: int, admission: Admission) -> list[ListeningSocket]:
    """Sockets bound to every address of host, all at one port, even if port is 0. Raises OSError where none can be bound.

    An address family that this machine lacks (::1 without IPv6) is left out where there is another.
    """
    places = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    bound: list[ListeningSocket] = []
    missing: OSError | None = None
    with contextlib.ExitStack() as undo:
        for family, _, _, _, place in dict.fromkeys(places):
            try:
                listener = ListeningSocket(family, admission)
            except OSError as error:
                missing = error
                continue
            undo.callback(listener.close)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            try:
                listener.bind((place[0], bound[0].getsockname()[1] if bound and not port else place[1], *place[2:]))
            except OSError as error:
                if error.errno != errno.EADDRNOTAVAIL:
                    raise
                missing = error
                listener.close()
                continue
            listener.setblocking(False)
            bound.append(listener)
        if not bound and missing is not None:
            raise missing
        undo.pop_all()
    return bound


def plain_address(peer: Any) -> str:
    """The address of a peer; an IPv4 one that came over IPv6 as IPv4."""
    return str(peer[0]).removeprefix("::ffff:") if peer else "unknown"


def _reset(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
    connection.close()


def _spare() -> int | None:
    try:
        return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
