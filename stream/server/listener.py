"""Connections bounded where they are accepted: before TLS, before a byte is read, however few files the process may open.

    listening socket --accept--> new (TLS handshake, request) --settled--> served --close--> gone

What is new is bounded by itself: one more ends the oldest that has not said a word among the older half, else the oldest,
of the address that has most, so that whoever opens connections and says nothing ends its own. Beyond the overall bound a
connection is reset at once. Descriptors that the process has left are never used up here; one is kept in reserve, so that
even without any the queue of the port is emptied.

A connection is counted from accept to the close of its descriptor, whoever closes it. Used on one event loop.
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
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from stream.server.access import Refusal, group, is_loopback

BACKLOG = 1024
"""Connections that may wait in the kernel to be accepted."""
AT_ONCE = 64
"""The most accepted in one turn of the event loop; between two it does other things."""
PER_ADDRESS = 256
"""The most connections of one address at once; this machine's own (a proxy, tests) are bounded by the overall limit alone."""
OTHER_FILES = 256
"""Files kept back for all that is no connection: sources, store, processes; three quarters where there are not so many."""
NEW = (64, 128)
"""How many connections may be without a request: as many as there may be at all, within these bounds."""
ENDING = 64
"""Connections beyond the limit that are being answered (503) or ended."""
NO_LINGER = struct.pack("ii", 1, 0)
TURNS = 20
"""Turns of the event loop for which a connection waits in the kernel for others to end; usually they take two."""
_TCP_INFO: int | None = getattr(socket, "TCP_INFO", None) if sys.platform == "linux" else None
_RECEIVED = struct.Struct("=128xQ")
_NO_FILES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Room:
    """How many connections there may be: most to be served, besides them new ones without a request, and ending ones."""

    most: int
    new: int
    ending: int


def room_for(connections: int) -> Room:
    """The room this process has for so many connections; its limit of open files is raised for them as far as it may be."""
    new = max(NEW[0], min(connections, NEW[1]))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + new + ENDING + OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return Room(connections, new, ENDING)
    kept = min(OTHER_FILES, 3 * soft // 4)
    spare = min(new + ENDING, (soft - kept) // 2)
    room = Room(max(1, min(connections, soft - kept - spare)), max(1, 4 * spare // 5), spare - 4 * spare // 5)
    if room.most < connections:
        log.warning(
            "at most %d connections at once: this process may open %d files, and %d are kept back", room.most, soft, kept
        )
    return room


class Counted:
    """How many connections have sent their request, overall and by address (`group`)."""

    def __init__(self, most: int, per_address: int = PER_ADDRESS) -> None:
        self._most, self._per_address = most, per_address
        self._by_address: dict[str, int] = {}
        self.total = 0

    def enter(self, address: str) -> Refusal | None:
        """Count one in; says why where that is one too many, counted all the same."""
        self.total += 1
        address = group(address)
        here = self._by_address[address] = self._by_address.get(address, 0) + 1
        if self.total > self._most:
            return Refusal(503, "crowded", "Too many connections; try again later.")
        if here > self._per_address and not is_loopback(address):
            return Refusal(503, "crowded", "Too many connections from your address; try again later.")
        return None

    def leave(self, address: str) -> None:
        """Count one out."""
        self.total -= 1
        address = group(address)
        left = self._by_address.get(address, 0) - 1
        if left > 0:
            self._by_address[address] = left
        else:
            self._by_address.pop(address, None)


class AcceptedSocket(socket.socket):
    """A connection's socket; gone is called once, when its descriptor is closed."""

    def __init__(self, accepted: socket.socket, address: str) -> None:
        super().__init__(accepted.family, accepted.type, accepted.proto, fileno=accepted.detach())
        self.address = address
        self.gone: Callable[[AcceptedSocket], None] = lambda _: None

    def close(self) -> None:
        """Close the descriptor."""
        try:
            if self.fileno() >= 0:
                self.gone(self)
        finally:
            super().close()

    @property
    def silent(self) -> bool:
        """Whether not a byte has come from it; only Linux can tell (tcpi_bytes_received)."""
        if _TCP_INFO is None:
            return False
        try:
            info = self.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, _RECEIVED.size)
        except OSError:
            return False
        return len(info) == _RECEIVED.size and not _RECEIVED.unpack(info)[0]

    def end(self) -> None:
        """Break the connection off; who holds the socket reads its end and closes it."""
        with contextlib.suppress(OSError):  # it is broken already
            self.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
            self.shutdown(socket.SHUT_RDWR)


class Admission:
    """The connections there are, within room.

    refused is called with why one was not let in or not kept, and its address; wasted for each that closed without a request.
    """

    def __init__(
        self,
        room: Room,
        refused: Callable[[str, str], None] = lambda reason, address: None,
        wasted: Callable[[], None] = lambda: None,
    ) -> None:
        self._room, self._refused, self._wasted = room, refused, wasted
        self._open: dict[int, AcceptedSocket] = {}  # by descriptor
        self._new: dict[str, dict[int, AcceptedSocket]] = {}  # those of them without a request so far, by address, oldest first
        self._waiting = 0
        self._ending: set[int] = set()
        self._turns = 0

    @property
    def total(self) -> int:
        """Open connections of every sort."""
        return len(self._open)

    @property
    def full(self) -> bool:
        """Whether one more would be too many."""
        return self.total >= self._room.most + self._room.new + self._room.ending

    def turn(self) -> bool:
        """Whether the next connection is to be accepted now: where there is room, and where none will be soon."""
        self._turns = self._turns + 1 if self.full and self._ending else 0
        return not 0 < self._turns <= TURNS

    def enter(self, connection: AcceptedSocket) -> bool:
        """Let a connection in, in place of another if need be; False where it was closed instead."""
        if self.full:
            self._refused("crowded", connection.address)
            _reset(connection)
            return False
        file, place = connection.fileno(), group(connection.address)
        connection.gone = self._gone
        self._open[file] = connection
        self._new.setdefault(place, {})[file] = connection
        self._waiting += 1
        if self._waiting > self._room.new:
            self._end_oldest()
        return True

    def settled(self, file: int) -> None:
        """The connection with that descriptor has sent its request."""
        connection = self._open.get(file)
        if connection is not None:
            self._forget(file, connection)

    def end_new(self) -> None:
        """End those without a request, as in the middle of TLS's handshake."""
        for crowd in list(self._new.values()):
            for connection in list(crowd.values()):
                connection.end()

    def _end_oldest(self) -> None:
        crowd = list(max(self._new.values(), key=len).items())
        older = crowd[: -(-len(crowd) // 2)]  # who came just now has had no time to speak
        file, oldest = next(((file, one) for file, one in older if one.silent), crowd[0])
        self._forget(file, oldest)
        self._refused("crowded", oldest.address)
        self._ending.add(file)
        oldest.end()

    def _forget(self, file: int, connection: AcceptedSocket) -> bool:
        """It is new no more; whether it was."""
        place = group(connection.address)
        if self._new.get(place, {}).pop(file, None) is None:
            return False
        self._waiting -= 1
        if not self._new[place]:
            del self._new[place]
        return True

    def _gone(self, connection: AcceptedSocket) -> None:
        file = connection.fileno()
        wasted = file in self._ending or self._forget(file, connection)
        self._open.pop(file, None)
        self._ending.discard(file)
        if wasted:
            self._wasted()


class ListeningSocket(socket.socket):
    """A port whose connections admission lets in; for `asyncio`'s servers, given as `sock` with AT_ONCE for their backlog."""

    def __init__(self, family: int, admission: Admission, refused: Callable[[str, str], None]) -> None:
        super().__init__(family, socket.SOCK_STREAM)
        self._admission, self._refused = admission, refused
        self._pausing = False
        self._spare = _spare()

    def listen(self, backlog: int = BACKLOG) -> None:
        """Listen with BACKLOG: what asyncio gives is how many it accepts at once."""
        super().listen(max(backlog, BACKLOG))

    def accept(self) -> tuple[socket.socket, Any]:
        """The next connection that is let in. Raises BlockingIOError where none waits."""
        if self._pausing:
            self._pausing = False
            raise BlockingIOError(errno.EAGAIN, "asyncio pauses")
        for _ in range(AT_ONCE):
            if not self._admission.turn():
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
        raise BlockingIOError(errno.EAGAIN, "the others are let in at the next turn")

    def _shed(self, error: OSError) -> None:
        """No descriptor is free: reset the next connection with the one in reserve. Raises error where that is gone, too."""
        self._refused("files", "any")
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


def listeners(host: str, port: int, make: Callable[[int], ListeningSocket]) -> list[ListeningSocket]:
    """Sockets bound to every address of host; all at one port, if port is 0 too. Raises OSError where none can be bound.

    An address of another kind that this machine lacks (::1 without IPv6) is left out where there is another.
    """
    places = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    bound: list[ListeningSocket] = []
    missing: OSError | None = None
    with contextlib.ExitStack() as undo:
        for family, _, _, _, place in dict.fromkeys(places):
            try:
                listener = make(family)
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
    """The address of whoever connected, an IPv4 one as such."""
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
