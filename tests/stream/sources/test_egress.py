from __future__ import annotations

import errno
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import av
import pytest
import trustme

import stream.sources.egress
from stream.sources.egress import EgressProxy, is_public, proxied_host

SOON_S = 20.0
"""Longest wait for what should happen at once: reached only by a test that fails."""


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True),
        ("2606:4700::1111", True),
        ("127.0.0.1", False),
        ("0.0.0.0", False),
        ("10.1.2.3", False),
        ("172.16.0.1", False),
        ("192.168.1.1", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("224.0.0.1", False),
        ("255.255.255.255", False),
        ("::1", False),
        ("::", False),
        ("fe80::1%eth0", False),
        ("fd00::1", False),
        ("ff02::1", False),
        ("::ffff:10.0.0.1", False),
        ("::ffff:8.8.8.8", True),
        ("64:ff9b::a00:1", False),
        ("64:ff9b::808:808", True),
        ("2002:a00:1::", False),
    ],
)
def test_public_addresses(address: str, public: bool) -> None:
    assert is_public(address) is public


def test_http_goes_through_the_proxy_unless_another_one_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("http_proxy", raising=False)
    assert proxied_host("http://me:secret@Camera.local:81/x") == "camera.local"
    assert proxied_host("HTTPS://[fd00::1]/x") == "fd00::1"
    assert proxied_host("rtsp://camera/x") == proxied_host("rtmp://camera/x") == proxied_host("clip.mp4") == ""
    monkeypatch.setenv("http_proxy", "http://proxy:3128")
    assert proxied_host("http://camera/x") == ""


@pytest.fixture
def host() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(SOON_S)
        yield listener


def request_to(proxy: EgressProxy, request: str) -> socket.socket:
    """A connection to the proxy on which a request was sent."""
    _, _, place = proxy.address.partition("://")
    name, _, port = place.partition(":")
    client = socket.create_connection((name, int(port)), timeout=SOON_S)
    client.sendall(request.encode())
    return client


def response_to(proxy: EgressProxy, request: str) -> bytes:
    """What the proxy answers, nothing where it accepts no connection or closes it."""
    try:
        with request_to(proxy, request) as client:
            return client.makefile("rb").read()
    except ConnectionError:
        return b""


@pytest.mark.parametrize(
    ("target", "path"), [("/a?b=/c", "/a?b=/c"), ("", "/"), ("?x=/y", "/?x=/y"), ("//a//b", "//a//b"), ("/%41%2f", "/%41%2f")]
)
def test_the_host_gets_the_same_request_as_without_a_proxy(host: socket.socket, target: str, path: str) -> None:
    place = f"127.0.0.1:{host.getsockname()[1]}"
    with closing(EgressProxy("127.0.0.1")) as proxy:
        with request_to(proxy, f"GET http://{place}{target} HTTP/1.1\r\nHost: {place}\r\nX: y\r\n\r\nbody") as client:
            server, _ = host.accept()
            expected = f"GET {path} HTTP/1.1\r\nHost: {place}\r\nX: y\r\n\r\nbody".encode()
            assert server.recv(len(expected), socket.MSG_WAITALL) == expected
            server.sendall(b"HTTP/1.1 200 OK\r\n\r\npictures")
            server.close()
            assert client.makefile("rb").read() == b"HTTP/1.1 200 OK\r\n\r\npictures"
        assert (proxy.refused, proxy.failure) == ("", None)


@pytest.mark.parametrize("request_", ["GET http://127.0.0.1:{}/ HTTP/1.1", "CONNECT 127.0.0.1:{} HTTP/1.1"])
def test_another_host_of_this_network_is_not_connected_to(host: socket.socket, request_: str) -> None:
    with (
        closing(EgressProxy("camera.example")) as proxy,
        request_to(proxy, f"{request_.format(host.getsockname()[1])}\r\n\r\n") as client,
    ):
        assert client.makefile("rb").read().startswith(b"HTTP/1.1 403 ")
        assert proxy.refused == "127.0.0.1"
        assert response_to(proxy, "GET http://camera.example/ HTTP/1.1\r\n\r\n") == b"", "the proxy is closed"
    host.setblocking(False)
    with pytest.raises(BlockingIOError):
        host.accept()


@pytest.mark.parametrize("name", ["localhost", "LocalHost"])
def test_the_same_host_may_be_named_by_its_address(host: socket.socket, name: str) -> None:
    place = f"127.0.0.1:{host.getsockname()[1]}"
    with closing(EgressProxy(name)) as proxy, request_to(proxy, f"CONNECT {place} HTTP/1.1\r\n\r\n") as client:
        assert client.recv(12) == b"HTTP/1.1 200"
        assert proxy.refused == ""


def test_a_neighbour_of_the_same_host_is_not_connected_to() -> None:
    with closing(EgressProxy("localhost")) as proxy, request_to(proxy, "CONNECT 127.0.0.2:80 HTTP/1.1\r\n\r\n") as client:
        assert client.recv(12) == b"HTTP/1.1 403"
        assert proxy.refused == "127.0.0.2"


def test_why_a_host_cannot_be_reached_is_known(host: socket.socket) -> None:
    port = host.getsockname()[1]
    host.close()
    with (
        closing(EgressProxy("127.0.0.1")) as proxy,
        request_to(proxy, f"GET http://127.0.0.1:{port}/ HTTP/1.1\r\n\r\n") as client,
    ):
        assert client.makefile("rb").read().startswith(b"HTTP/1.1 502 ")
        assert proxy.failure is not None
        assert proxy.failure.errno == errno.ECONNREFUSED


@pytest.mark.parametrize(
    "request_", ["", "GET\r\n\r\n", "GET http://[::1/ HTTP/1.1\r\n\r\n", "GET / HTTP/1.1\r\n\r\n", "x" * 100_000]
)
def test_a_malformed_request_ends_its_connection(request_: str) -> None:
    with closing(EgressProxy("127.0.0.1")) as proxy, request_to(proxy, request_) as client:
        client.shutdown(socket.SHUT_WR)
        try:
            assert client.recv(1000)[:13] in (b"", b"HTTP/1.1 502 ")
        except ConnectionResetError:
            return


def test_closing_ends_every_connection(host: socket.socket) -> None:
    before = set(threading.enumerate())
    proxy = EgressProxy("127.0.0.1")
    client = request_to(proxy, f"CONNECT 127.0.0.1:{host.getsockname()[1]} HTTP/1.1\r\n\r\n")
    server, _ = host.accept()
    assert client.recv(12) == b"HTTP/1.1 200"
    proxy.close()
    for thread in set(threading.enumerate()) - before:
        thread.join(SOON_S)
        assert not thread.is_alive()
    assert server.recv(1) == b""
    client.close()
    server.close()


def test_what_is_received_without_a_packet_is_limited(host: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream.sources.egress, "MAX_AHEAD", 1000)
    packets = [0]
    with closing(EgressProxy("127.0.0.1", lambda: packets[0])) as proxy:
        client = request_to(proxy, f"CONNECT 127.0.0.1:{host.getsockname()[1]} HTTP/1.1\r\n\r\n")
        server, _ = host.accept()
        reader = client.makefile("rb")
        assert [reader.readline(), reader.readline()] == [b"HTTP/1.1 200 Connection established\r\n", b"\r\n"]
        for packets[0] in (1, 2, 3):
            server.sendall(b"a" * 900)
            assert reader.read(900) == b"a" * 900
        assert not proxy.flooded
        server.sendall(b"a" * 900)
        assert reader.read() == b"", "the connection is ended"
        assert proxy.flooded
        for one in (reader, client, server):
            one.close()


def test_ffmpeg_does_not_bypass_it_and_tls_goes_through_it(
    host: socket.socket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1,localhost")
    issued = trustme.CA().issue_cert("127.0.0.1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    issued.configure_cert(context)
    port, seen = host.getsockname()[1], list[bytes]()

    def serve() -> None:
        with context.wrap_socket(host.accept()[0], server_side=True) as server:
            seen.append(server.recv(1000))
            server.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")

    def fetch(proxy: EgressProxy) -> None:
        with pytest.raises(av.error.FFmpegError):
            av.open(f"https://127.0.0.1:{port}/camera", options={"http_proxy": proxy.address}, timeout=SOON_S)

    serving = threading.Thread(target=serve)
    serving.start()
    with closing(EgressProxy("127.0.0.1")) as proxy:
        fetch(proxy)
    serving.join(SOON_S)
    assert seen[0].startswith(b"GET /camera HTTP/1.1\r\n")
    with closing(EgressProxy("camera.example")) as proxy:
        fetch(proxy)
        assert proxy.refused == "127.0.0.1"
