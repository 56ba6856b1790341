"""An egress proxy against server-side request forgery: a source may lead to its own host and to public addresses only.

A playlist or a redirect may name any host, this machine and its neighbours among them. What FFmpeg fetches by HTTP goes through
a proxy in this process, which checks every host and connects to the very address it checked:

    FFmpeg --GET http://HOST/... or CONNECT HOST--> EgressProxy --the source's host, an address of it, or public--> HOST

A redirect of an RTSP server is not checked: FFmpeg follows it by itself.
The proxy also limits how much is received without a picture: FFmpeg would keep a head or a part that never ends in memory.
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
from typing import Any
from urllib.parse import urlsplit

CONNECT_S = 10.0
MAX_HEAD = 64 * 1024
MAX_AHEAD = 64 << 20
"""Bytes that may be received before FFmpeg finds another packet of pictures; the largest of these has some 20 MiB."""
MAX_CONNECTIONS = 32
_CHUNK = 64 * 1024
_END = b"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
_REFUSED, _FAILED = b"HTTP/1.1 403 Forbidden" + _END, b"HTTP/1.1 502 Bad Gateway" + _END
_AUTHORITY = re.compile(r"^[a-z]+://[^/?#]*", re.IGNORECASE)
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


class EgressProxy:
    """A proxy at 127.0.0.1 for one source at host; `address` is what FFmpeg's http_proxy is set to.

    packets() is how many packets of pictures FFmpeg has found so far; where `MAX_AHEAD` bytes are received without another one,
    flooded is set and all connections are closed. refused is the host that was not allowed, "" where there was none; failure is
    why the last connection could not be made.
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
            del os.environ["no_proxy"]  # FFmpeg would bypass this proxy for the hosts it names
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, name=f"egress proxy {host}", daemon=True).start()

    def close(self) -> None:
        """Close all connections; their threads end by themselves."""
        with self._lock:
            self._closed = True
            sockets = [*self._open, self._listener]
        for one in sockets:
            with contextlib.suppress(OSError):  # it is not connected, or closed already
                one.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self._register(client):
                threading.Thread(target=self._serve, args=(client,), name=f"egress {self._host}", daemon=True).start()

    def _register(self, one: socket.socket) -> bool:
        """Have `close` end a socket too; where that was called already, or there are too many, it is closed: False."""
        with self._lock:
            accepted = not self._closed and len(self._open) < 2 * MAX_CONNECTIONS
            if accepted:
                self._open.add(one)
        if not accepted:
            one.close()
        return accepted

    def _serve(self, client: socket.socket) -> None:
        server: socket.socket | None = None
        try:
            client.settimeout(CONNECT_S)
            head, rest = _read_head(client)
            host, port, request = _parse_request(head)
            server = self._connect(client, host, port)
            if server is not None and self._register(server):
                (server if request else client).sendall(request or b"HTTP/1.1 200 Connection established\r\n\r\n")
                server.sendall(rest)
                _relay(client, server, self._count)
        except (OSError, ValueError):
            return  # either side is gone, or the request is malformed: FFmpeg sees that the connection ended
        finally:
            for one in (client,) if server is None else (client, server):
                with self._lock:
                    self._open.discard(one)
                one.close()

    def _count(self, size: int) -> None:
        """Count bytes received from a host. Raises ValueError where they are too many."""
        with self._lock:
            found = self._packets()
            self._ahead = self._ahead + size if found == self._found else size
            self._found = found
            self.flooded |= self._ahead > MAX_AHEAD
        if self.flooded:
            self.close()
            raise ValueError("too many bytes without a packet")

    def _connect(self, client: socket.socket, host: str, port: int) -> socket.socket | None:
        """A connection to host, or None where it is not allowed or fails, to which the client gets a response."""
        try:
            places = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            if not self._may_reach(host, {str(place[4][0]) for place in places}):
                self.refused = host
                client.sendall(_REFUSED)
                self.close()
                return None
            server = _connect_first(places)
        except OSError as error:
            self.failure = error
            client.sendall(_FAILED)
            return None
        self.failure = None
        return server

    def _may_reach(self, host: str, addresses: set[str]) -> bool:
        """Whether all addresses of host are public or the source's own: a recorder writes its address into its playlists."""
        if host == self._host:
            return True
        private = {address for address in addresses if not is_public(address)}
        return not private or private <= _addresses(self._host)


def _addresses(host: str) -> set[str]:
    """The addresses of a host, none where it cannot be resolved."""
    try:
        return {str(place[4][0]) for place in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
    except (OSError, UnicodeError):
        return set()


def is_public(address: str) -> bool:
    """Whether an IP address is global, not of this machine or its network, in whatever notation."""
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        inner = found.ipv4_mapped or found.sixtofour or (found.teredo[1] if found.teredo else None)
        if found in _NAT64:
            inner = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
    return found.is_global and not found.is_multicast


def proxied_host(target: str) -> str:
    """The host of an HTTP address, to be read through an `EgressProxy`; "" for other kinds, and where http_proxy is set.

    FFmpeg takes that proxy from the environment, and what may be reached is up to that proxy.
    """
    if not target.lower().startswith(("http://", "https://")) or os.environ.get("http_proxy"):
        return ""
    return urlsplit(target).hostname or ""


def _connect_first(places: Sequence[tuple[int, int, int, str, Any]]) -> socket.socket:
    """A connection to the first of the addresses that accepts one. Raises OSError."""
    failure = OSError("it has no address")
    for family, kind, protocol, _, place in places:
        server = socket.socket(family, kind, protocol)
        try:
            server.settimeout(CONNECT_S)
            server.connect(place)
        except OSError as error:
            failure = error
            server.close()
        else:
            server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return server
    raise failure


def _read_head(client: socket.socket) -> tuple[bytes, bytes]:
    """A request's head, and what was received after it. Raises ValueError, OSError."""
    data = b""
    while b"\r\n\r\n" not in data:
        chunk = client.recv(_CHUNK)
        if not chunk or len(data) > MAX_HEAD:
            raise ValueError("no complete request was received")
        data += chunk
    head, _, rest = data.partition(b"\r\n\r\n")
    return head, rest


def _parse_request(head: bytes) -> tuple[str, int, bytes]:
    """Host, port and the head to send to that host, empty for a tunnel. Raises ValueError."""
    first, _, fields = head.partition(b"\r\n")
    method, target, version = first.decode("latin-1").split(" ")
    if method == "CONNECT":
        place = urlsplit(f"//{target}")
        return (place.hostname or "").lower(), place.port or 443, b""
    place = urlsplit(target)
    path = _AUTHORITY.sub("", target)
    request = f"{method} {'' if path.startswith('/') else '/'}{path} {version}\r\n".encode("latin-1") + fields + b"\r\n\r\n"
    return (place.hostname or "").lower(), place.port or 80, request


def _relay(client: socket.socket, server: socket.socket, received: Callable[[int], None]) -> None:
    """Pass on what either sends to the other, until either has ended; FFmpeg has the timeouts.

    received is called with the number of bytes from the server, and ends it by raising ValueError.
    """
    client.settimeout(None)
    server.settimeout(None)
    peers = {client.fileno(): (client, server), server.fileno(): (server, client)}
    poll = select.poll()
    for file in peers:
        poll.register(file, select.POLLIN)
    while True:
        for file, _ in poll.poll():
            sender, receiver = peers[file]
            chunk = sender.recv(_CHUNK)
            if not chunk:
                return
            if sender is server:
                received(len(chunk))
            receiver.sendall(chunk)
