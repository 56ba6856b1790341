from __future__ import annotations

import gc
import os
import resource
import socket
import ssl
import threading
from pathlib import Path
from typing import Any

import pytest
import trustme

from engine.errors import OutputError
from stream.outlets import mqtt_connection
from stream.outlets.home_assistant import Publication
from stream.outlets.mqtt_connection import Connection, Waker
from stream.outlets.settings import MqttSettings
from tests.broker import broker, free_port, receiver
from tests.live import PATIENCE_S

WILL = Publication("test/status", "offline")


def connected(port: int, waker: Waker | None = None, **settings: Any) -> Connection:
    return Connection(MqttSettings(host="127.0.0.1", port=port, **settings), "test", WILL, waker or Waker())


def test_the_broker_publishes_the_will_of_a_connection_that_breaks_alone(tmp_path: Path) -> None:
    with broker(tmp_path) as server, receiver(server.port) as got:
        ended = connected(server.port)
        ended.publish([Publication("test/a", "1"), Publication("test/b", "2", retain=False)])
        ended.end()
        ended.close()
        broken = connected(server.port)
        broken.publish([Publication("test/c", "3")])
        broken.close()
        got.until(lambda: got.last("test/status") == "offline", "the will")
        assert [one.topic for one in got.got] == ["test/a", "test/b", "test/c", "test/status"]


def test_many_messages_are_published_in_order(tmp_path: Path) -> None:
    with broker(tmp_path) as server, receiver(server.port) as got:
        connection = connected(server.port)
        connection.publish([Publication("test/n", str(number), retain=False) for number in range(500)])
        got.until(lambda: len(got.of("test/n")) == 500, "all")
        assert got.of("test/n") == [str(number) for number in range(500)]
        connection.close()


def test_a_wait_ends_when_it_is_woken_also_before_it_began(tmp_path: Path) -> None:
    with broker(tmp_path) as server:
        waker = Waker()
        connection = connected(server.port, waker)
        waker.wake()
        connection.publish([Publication("test/a", "1")])
        connection.wait()
        woken = threading.Timer(0.01, waker.wake)
        woken.start()
        connection.wait()
        connection.close()


def test_a_lost_connection_is_noticed_while_waiting(tmp_path: Path) -> None:
    with broker(tmp_path) as server:
        connection = connected(server.port)
        ending = threading.Timer(0.01, server.stop)
        ending.start()
        with pytest.raises(OutputError, match=r"the connection to .* was lost"):
            connection.wait()
        ending.join()
        with pytest.raises(OutputError, match="was lost"):
            connection.publish([Publication("test/a", "1")])
        connection.close()


def test_what_is_retained_is_received(tmp_path: Path) -> None:
    got: dict[str, str] = {}
    with broker(tmp_path) as server, receiver(server.port) as other:
        other.publish("test/one/state", "live")
        other.publish("test/two/state", "ended")
        waker = Waker()

        def received(topic: str, payload: str) -> None:
            got[topic] = payload
            if len(got) == 2:
                waker.wake()

        connection = Connection(MqttSettings(host="127.0.0.1", port=server.port), "test", WILL, waker, received=received)
        connection.subscribe("test/+/state")
        connection.publish([Publication("test/three/state", "live")])
        connection.wait()
        connection.close()
    assert got == {"test/one/state": "live", "test/two/state": "ended"}, "its own messages are not"


def test_errors_of_connecting_are_sentences(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OutputError, match=r"^mqtt://127\.0\.0\.1:\d+ cannot be reached: connection refused$"):
        connected(free_port())
    with pytest.raises(OutputError, match=r"^mqtt://no\.such\.host\.invalid:1883 cannot be reached: "):
        Connection(MqttSettings(host="no.such.host.invalid"), "test", WILL, Waker())
    monkeypatch.setattr(mqtt_connection, "CONNECT_S", 0.05)
    timed_out = pytest.raises(OutputError, match=r"cannot be reached: .*timed out$")
    with socket.create_server(("127.0.0.1", 0)) as silent, timed_out:
        connected(silent.getsockname()[1], tls=True)
    with broker(tmp_path) as server, pytest.raises(OutputError, match=r"cannot be reached"):
        connected(server.port, tls=True)


def answering(data: bytes) -> int:
    """The port of a server that answers the first connection with data and closes it."""
    server = socket.create_server(("127.0.0.1", 0))

    def run() -> None:
        with server, server.accept()[0] as connection:
            connection.recv(1000)
            connection.sendall(data)

    threading.Thread(target=run, daemon=True).start()
    return int(server.getsockname()[1])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"\x20\x03\x00\x00\x00" * 3,
        b"\x20\xff\xff\xff\xff\xff",
        bytes(range(255, 191, -1)),
    ],
)
def test_a_server_of_another_kind_is_no_broker(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mqtt_connection, "ANSWER_S", 0.3)
    with pytest.raises(OutputError):
        connected(answering(data)).wait()


def test_a_broker_of_the_older_version_is_advised_about(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OutputError, match=r'refuses the connection: Unsupported protocol version; set version = "3\.1\.1"'):
        connected(answering(b"\x20\x03\x00\x84\x00"))


def test_connections_leave_nothing_open(tmp_path: Path) -> None:
    def opened() -> int:
        gc.collect()  # what other tests left
        return len(list(Path("/proc/self/fd").iterdir()))

    waker = Waker()
    with broker(tmp_path) as server:
        before = opened()
        for number in range(10):
            connection = connected(server.port, waker)
            connection.publish([Publication("test/a", str(number))])
            connection.close()
            with pytest.raises(OutputError):
                connected(1, waker)
        assert opened() <= before, "other tests' servers may have closed theirs meanwhile"


def test_it_works_in_a_process_with_thousands_of_open_files(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert hard >= 1300, "this test opens 1,100 files"
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 1300), hard))
    held = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]
    try:
        authority = trustme.CA()
        issued = authority.issue_cert("127.0.0.1")
        for name, blob in (("key", issued.private_key_pem), ("cert", issued.cert_chain_pems[0]), ("ca", authority.cert_pem)):
            blob.write_to_path(tmp_path / f"{name}.pem")
        options = f"allow_anonymous true\ncertfile {tmp_path}/cert.pem\nkeyfile {tmp_path}/key.pem"
        with broker(tmp_path, options) as server:
            connection = connected(server.port, tls=True, ca=tmp_path / "ca.pem")
            connection.publish([Publication("test/a", "x" * 100_000) for _ in range(20)])
            assert isinstance(connection._client.socket(), ssl.SSLSocket)
            connection.end()
            connection.close()
    finally:
        for number in held:
            os.close(number)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_waker_never_blocks() -> None:
    waker = Waker()
    done = threading.Event()

    def many() -> None:
        for _ in range(100_000):
            waker.wake()
        done.set()

    threading.Thread(target=many, daemon=True).start()
    assert done.wait(PATIENCE_S)
    waker.clear()
    with pytest.raises(BlockingIOError):
        waker.receiver.recv(1)
