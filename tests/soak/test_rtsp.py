"""The server and the proxy that other tests use, asked with plain sockets."""

from __future__ import annotations

import base64
import socket
from collections.abc import Iterator

import pytest

from tests.soak.rtsp import PATH, RtspServer, TcpProxy

SOON_S = 30.0


@pytest.fixture(scope="module")
def server() -> Iterator[RtspServer]:
    with RtspServer(user="me", password="secret", size=(160, 120)) as server:
        yield server


def described(port: int, login: str = "") -> str:
    """The first line of the server's answer to a question about its stream."""
    with socket.create_connection(("127.0.0.1", port), SOON_S) as client:
        asked = f"DESCRIBE rtsp://127.0.0.1:{port}{PATH} RTSP/1.0\r\nCSeq: 1\r\nAccept: application/sdp\r\n"
        asked += f"Authorization: Basic {base64.b64encode(login.encode()).decode()}\r\n" if login else ""
        client.sendall(f"{asked}\r\n".encode())
        return client.makefile().readline().strip()


def test_a_stream_is_described_to_who_knows_the_password(server: RtspServer) -> None:
    assert server.url == f"rtsp://127.0.0.1:{server.port}/camera"
    assert described(server.port, "me:secret").endswith("200 OK")
    assert "401" in described(server.port, "me:wrong")
    assert "401" in described(server.port)


def test_a_server_keeps_its_port_over_kill_and_start(server: RtspServer) -> None:
    port = server.port
    server.kill()
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", port), SOON_S)
    server.start()
    assert server.port == port
    assert described(port, "me:secret").endswith("200 OK")


def test_a_frozen_server_answers_when_it_is_thawed(server: RtspServer) -> None:
    server.freeze()
    with socket.create_connection(("127.0.0.1", server.port), SOON_S) as client:
        client.sendall(b"OPTIONS * RTSP/1.0\r\nCSeq: 1\r\n\r\n")
        client.settimeout(0.1)
        with pytest.raises(TimeoutError):
            client.recv(1)
        server.thaw()
        client.settimeout(SOON_S)
        assert client.recv(4) == b"RTSP"


def test_a_proxy_passes_on_stalls_drops_silently_and_resets(server: RtspServer) -> None:
    question = b"OPTIONS * RTSP/1.0\r\nCSeq: 1\r\n\r\n"
    with TcpProxy(server.port) as proxy, socket.create_connection(("127.0.0.1", proxy.port), SOON_S) as client:
        client.sendall(question)
        assert client.recv(4096).startswith(b"RTSP/1.0 200")
        proxy.stall()
        client.sendall(question)
        client.settimeout(0.1)
        with pytest.raises(TimeoutError):
            client.recv(1)
        proxy.flow()
        client.settimeout(SOON_S)
        assert client.recv(4096).startswith(b"RTSP/1.0 200")
        proxy.drop_silently()
        client.sendall(question)
        client.settimeout(0.1)
        with pytest.raises(TimeoutError):
            client.recv(1)
        client.settimeout(SOON_S)
        with socket.create_connection(("127.0.0.1", proxy.port), SOON_S) as another:
            another.sendall(question)
            assert another.recv(4096).startswith(b"RTSP/1.0 200"), "only what was open is dropped"
        proxy.reset()
        with pytest.raises(ConnectionResetError):
            client.recv(1)
