"""Where a source on the network may lead: to the host it was configured with, by name or address, and to public addresses.

A play list or a redirect may name any host, this machine and its neighbours among them. What FFmpeg fetches by HTTP it
fetches through a proxy of ours on this machine, which looks at every host and connects to the very address it looked at:

    FFmpeg --GET http://HOST/... or CONNECT HOST--> Outbound --HOST configured, an address of it, or public--> HOST

A redirect of an RTSP server is not checked: FFmpeg follows it by itself.
It counts as well what comes: FFmpeg keeps a head, or a part, that never ends in memory.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
import select
import socket
import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

CONNECT_S = 10.0
MOST_HEAD = 64 * 1024
MOST_AHEAD = 64 << 20
"""Bytes that may come before there is another packet of pictures; the largest of them has some 20 MiB."""
MOST_AT_ONCE = 32
_PIECE = 64 * 1024
_ANSWERS = {"refused": b"HTTP/1.1 403 Forbidden\r\n", "failed": b"HTTP/1.1 502 Bad Gateway\r\n"}
_AUTHORITY = re.compile(r"^[a-z]+://[^/?#]*", re.IGNORECASE)
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


class Outbound:
    """A proxy at 127.0.0.1 for one connection to a source at host; `address` is what FFmpeg's http_proxy is set to.

    packets says how many packets of pictures FFmpeg has found so far; where `MOST_AHEAD` bytes come without another one,
    flooded is set and everything ends. refused is the host that was not connected to, "" where there was none; failure is why
    the last connection was not made.
    """

    def __init__(self, host: str, packets: Callable[[], int] = lambda: 0) -> None:
        self.refused, self.flooded = "", False
        self.failure: OSError | None = None
        self._host, self._packets = host.lower(), packets
        self._lock = threading.Lock()  # guards what follows
        self._open: set[socket.socket] = set()
        self._closed = False
        self._found, self._ahead = packets(), 0
        if "no_proxy" in os.environ:
            del os.environ["no_proxy"]  # FFmpeg would go past this proxy to the hosts it names
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, name=f"outbound {host}", daemon=True).start()

    def close(self) -> None:
        """Break off all connections; their threads end by themselves."""
        with self._lock:
            self._closed = True
            ending = [*self._open, self._listener]
        for one in ending:
            with contextlib.suppress(OSError):  # it is not connected, or closed already
                one.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _accept(self) -> None:
        while True:
            try:
                asking, _ = self._listener.accept()
            except OSError:
                return
            if self._keep(asking):
                threading.Thread(target=self._serve, args=(asking,), name=f"to {self._host}", daemon=True).start()

    def _keep(self, one: socket.socket) -> bool:
        """Have a socket end with this; False where that is over, or there are too many."""
        with self._lock:
            kept = not self._closed and len(self._open) < 2 * MOST_AT_ONCE
            if kept:
                self._open.add(one)
        if not kept:
            one.close()
        return kept

    def _serve(self, asking: socket.socket) -> None:
        there: socket.socket | None = None
        try:
            asking.settimeout(CONNECT_S)
            head, rest = _head(asking)
            host, port, request = _asked(head)
            there = self._connected(asking, host, port)
            if there is not None and self._keep(there):
                (there if request else asking).sendall(request or b"HTTP/1.1 200 Connection established\r\n\r\n")
                there.sendall(rest)
                _copy(asking, there, self._count)
        except (OSError, ValueError):
            return  # either side is gone, or what came is no request: FFmpeg hears that the connection ended
        finally:
            for one in (asking, there):
                if one is not None:
                    with self._lock:
                        self._open.discard(one)
                    one.close()

    def _count(self, size: int) -> None:
        """So many bytes came from a host. Raises ValueError where they are too many."""
        with self._lock:
            found = self._packets()
            self._ahead = self._ahead + size if found == self._found else size
            self._found = found
            self.flooded |= self._ahead > MOST_AHEAD
        if self.flooded:
            self.close()
            raise ValueError("no packet comes of all that is sent")

    def _connected(self, asking: socket.socket, host: str, port: int) -> socket.socket | None:
        """A connection to host, or None where it is refused or cannot be had, which is answered."""
        try:
            places = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            if not self._may_reach(host, {str(place[4][0]) for place in places}):
                self.refused = host
                _answer(asking, "refused")
                self.close()
                return None
            there = _first(places)
        except OSError as error:
            self.failure = error
            _answer(asking, "failed")
            return None
        self.failure = None
        return there

    def _may_reach(self, host: str, addresses: set[str]) -> bool:
        """Whether all addresses of host are public or the source's own: a recorder writes its address into its play lists."""
        if host == self._host:
            return True
        inner = {address for address in addresses if not is_public(address)}
        return not inner or inner <= _addresses(self._host)


def _addresses(host: str) -> set[str]:
    """The addresses of a host; none where it has none."""
    try:
        return {str(place[4][0]) for place in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
    except (OSError, UnicodeError):
        return set()


def is_public(address: str) -> bool:
    """Whether an address is one of the internet's, not this machine's or its network's, however it is written."""
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        inner = found.ipv4_mapped or found.sixtofour or (found.teredo[1] if found.teredo else None)
        if found in _NAT64:
            inner = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
    return found.is_global and not found.is_multicast


def guards(target: str) -> str:
    """The host of an address whose connections go by `Outbound`; "" for other kinds, and where a proxy is set for all of HTTP.

    FFmpeg takes that proxy from the environment; where it may go is then that proxy's matter.
    """
    if not target.lower().startswith(("http://", "https://")) or os.environ.get("http_proxy"):
        return ""
    return urlsplit(target).hostname or ""


def _first(places: Sequence[tuple[int, int, int, str, Any]]) -> socket.socket:
    """A connection to the first of the addresses that takes it. Raises OSError."""
    failure = OSError("it has no address")
    for family, kind, protocol, _, place in places:
        there = socket.socket(family, kind, protocol)
        try:
            there.settimeout(CONNECT_S)
            there.connect(place)
        except OSError as error:
            failure = error
            there.close()
        else:
            there.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return there
    raise failure


def _head(asking: socket.socket) -> tuple[bytes, bytes]:
    """A request's head, and what came behind it. Raises ValueError, OSError."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = asking.recv(_PIECE)
        if not piece or len(data) > MOST_HEAD:
            raise ValueError("no request came")
        data += piece
    head, _, rest = data.partition(b"\r\n\r\n")
    return head, rest


def _asked(head: bytes) -> tuple[str, int, bytes]:
    """Host, port and the request as the host itself is asked, empty for a tunnel. Raises ValueError."""
    first, _, fields = head.partition(b"\r\n")
    method, target, version = first.decode("latin-1").split(" ")
    if method == "CONNECT":
        place = urlsplit(f"//{target}")
        return (place.hostname or "").lower(), place.port or 443, b""
    place = urlsplit(target)
    path = _AUTHORITY.sub("", target)
    request = f"{method} {'' if path.startswith('/') else '/'}{path} {version}\r\n".encode("latin-1") + fields + b"\r\n\r\n"
    return (place.hostname or "").lower(), place.port or 80, request


def _answer(asking: socket.socket, what: str) -> None:
    asking.sendall(_ANSWERS[what] + b"Content-Length: 0\r\nConnection: close\r\n\r\n")


def _copy(one: socket.socket, other: socket.socket, came: Callable[[int], None]) -> None:
    """What either sends to the other, until either has ended; how long that may take is FFmpeg's matter.

    came hears how many bytes the other sent, and ends it by raising ValueError.
    """
    one.settimeout(None)
    other.settimeout(None)
    peer = {one.fileno(): (one, other), other.fileno(): (other, one)}
    waiting = select.poll()
    for file in peer:
        waiting.register(file, select.POLLIN)
    while True:
        for file, _ in waiting.poll():
            sender, receiver = peer[file]
            piece = sender.recv(_PIECE)
            if not piece:
                return
            if sender is other:
                came(len(piece))
            receiver.sendall(piece)
