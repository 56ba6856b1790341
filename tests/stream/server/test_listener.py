from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trustme

import stream.server.server
from stream.server.listener import (
    MAX_ENDING,
    MAX_NEW,
    MIN_NEW,
    OTHER_FILES,
    AcceptedSocket,
    Admission,
    ConnectionLimits,
    bind_all,
    connection_limits,
)
from tests.live import PATIENCE_S
from tests.running_server import ask, run, running_server, until


@pytest.fixture
def clients() -> Iterator[list[socket.socket]]:
    """The other ends of admitted connections."""
    ends: list[socket.socket] = []
    yield ends
    for end in ends:
        end.close()


def admitted(admission: Admission, address: str, clients: list[socket.socket]) -> AcceptedSocket:
    near, far = socket.socketpair()
    clients.append(far)
    accepted = AcceptedSocket(near, address)
    assert admission.enter(accepted)
    return accepted


Requests = Callable[..., tuple[AcceptedSocket, bool]]


@pytest.fixture
def request_from(clients: list[socket.socket]) -> Requests:
    """Admits a connection of an address, has it send its request, and returns whether it is served."""

    def send(admission: Admission, address: str) -> tuple[AcceptedSocket, bool]:
        accepted = admitted(admission, address, clients)
        return accepted, admission.request(accepted.fileno()) is None

    return send


def test_served_connections_are_limited_overall_and_by_address(request_from: Requests) -> None:
    admission = Admission(ConnectionLimits(5, 10, 10), per_address=2)
    first, served = request_from(admission, "10.0.0.1")
    assert served
    assert [request_from(admission, "10.0.0.1")[1] for _ in range(2)] == [True, False]
    assert request_from(admission, "10.0.0.2")[1]
    last, served = request_from(admission, "127.0.0.1")
    assert served
    assert not request_from(admission, "127.0.0.1")[1], "a sixth, of five at most"
    for accepted in (first, last):
        accepted.close()
    assert admission.total == 4
    assert request_from(admission, "10.0.0.3")[1]


def test_an_ipv6_network_counts_as_one_address(request_from: Requests) -> None:
    admission = Admission(ConnectionLimits(100, 10, 10), per_address=2)
    one, two = (request_from(admission, f"2001:db8::{k}") for k in (1, 2))
    assert one[1] and two[1]
    assert not request_from(admission, "2001:db8::3")[1]
    assert request_from(admission, "2001:db8:0:1::1")[1]
    for accepted in (one[0], two[0]):
        accepted.close()
    assert request_from(admission, "2001:db8::4")[1]


def test_loopback_addresses_have_the_overall_limit_alone(request_from: Requests) -> None:
    admission = Admission(ConnectionLimits(100, 10, 10), per_address=2)
    assert all(request_from(admission, "127.0.0.1")[1] for _ in range(100))


@pytest.fixture
def files() -> Iterator[Callable[[int, int], None]]:
    """Sets this process' limits of open files (soft, hard as far as it may), and puts the soft one back."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield lambda soft, hard: resource.setrlimit(resource.RLIMIT_NOFILE, (soft, max(soft, hard)))
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_the_limit_of_open_files_is_raised_for_the_connections(files: Callable[[int, int], None]) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    files(600, hard)
    wanted = 800 + MAX_NEW + MAX_ENDING + OTHER_FILES
    assert connection_limits(800) == ConnectionLimits(800, MAX_NEW, MAX_ENDING)
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (wanted, hard)
    assert connection_limits(100) == ConnectionLimits(100, 100, MAX_ENDING)
    assert connection_limits(3) == ConnectionLimits(3, MIN_NEW, MAX_ENDING)
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (wanted, hard), "never lowered"


@pytest.mark.parametrize("files", [16, 64, 256, 1024, 2000])
def test_descriptors_are_kept_free_whatever_the_limit_is(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, files: int
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (files, files))
    monkeypatch.setattr(resource, "setrlimit", lambda *_: None)
    with caplog.at_level(logging.WARNING, "stream.server.listener"):
        limits = connection_limits(2000)
    assert min(limits.served, limits.new) >= 1
    assert limits.served + limits.new + limits.ending <= files - min(OTHER_FILES, 3 * files // 4)
    assert f"at most {limits.served} connections at once: this process may open {files} files" in caplog.text


def test_the_oldest_silent_connection_is_closed_and_other_addresses_are_spared(clients: list[socket.socket]) -> None:
    refused: list[str] = []
    admission = Admission(ConnectionLimits(100, 4, 100), lambda reason, address: refused.append(address))
    served, other = (admitted(admission, address, clients) for address in ("2001:db8::1", "10.0.0.1"))
    admission.request(served.fileno())
    crowd = [admitted(admission, f"2001:db8::{k:x}", clients) for k in range(10)]
    assert refused == [f"2001:db8::{k:x}" for k in range(7)], "the oldest of the address that has most"
    assert sum(not _waits(end) for end in clients) == 7
    assert admission.total == 12, "counted until they are closed"
    for accepted in (served, other, *crowd):
        accepted.close()
        accepted.close()
    assert admission.total == 0


def test_a_new_connection_is_kept_rather_than_old_ones_that_sent_something_and_wait() -> None:
    """As behind a proxy, where all have one address: many past TLS without a request, and a new one."""
    admission = Admission(ConnectionLimits(100, 4, 100))
    clients: list[socket.socket] = []
    accepted: list[AcceptedSocket] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        for k in range(6):
            clients.append(socket.create_connection(listener.getsockname()))
            accepted.append(AcceptedSocket(listener.accept()[0], "127.0.0.1"))
            assert admission.enter(accepted[-1])
            if k < 4:
                clients[-1].sendall(b"\x16")
                accepted[-1].recv(1)
    assert [_waits(client) for client in clients] == [False, False, True, True, True, True], "the oldest are closed"
    for end in (*accepted, *clients):
        end.close()


def _waits(end: socket.socket) -> bool:
    """Whether the other end is open and has sent nothing."""
    try:
        end.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return True
    return False


def test_beyond_the_overall_limit_a_connection_is_reset() -> None:
    refused: list[str] = []
    admission = Admission(ConnectionLimits(1, 1, 0), lambda reason, address: refused.append(reason))
    pairs = [socket.socketpair() for _ in range(3)]
    entered = [AcceptedSocket(near, "10.0.0.1") for near, _ in pairs]
    for accepted in entered[:2]:
        assert admission.enter(accepted)
        admission.request(accepted.fileno())
    assert not admission.enter(entered[2])
    assert pairs[2][1].recv(1) == b""
    assert (admission.total, refused) == (2, ["crowded"])
    for accepted, (_, far) in zip(entered, pairs, strict=True):
        accepted.close()
        far.close()


def test_without_a_descriptor_the_queue_is_emptied_and_reported(files: Callable[[int, int], None]) -> None:
    refused: list[str] = []
    admission = Admission(ConnectionLimits(10, 10, 10), lambda reason, address: refused.append(reason))
    (listener,) = bind_all("127.0.0.1", 0, admission)
    listener.listen()
    clients = [socket.create_connection(listener.getsockname()) for _ in range(3)]
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    files(max(int(file.name) for file in Path("/proc/self/fd").iterdir()) + 1, hard)
    hoard: list[int] = []
    with contextlib.suppress(OSError):
        while True:
            hoard.append(os.dup(0))
    with pytest.raises(BlockingIOError):
        listener.accept()
    assert refused == ["files"] * 4, "each of the three, and that no other waits"
    for file in hoard:
        os.close(file)
    for client in clients:
        with client, pytest.raises(ConnectionResetError):
            client.recv(1)
    with socket.create_connection(listener.getsockname()):
        accepted, _ = listener.accept()
        accepted.close()
    listener.close()


def test_a_connection_is_closed_though_its_callback_fails() -> None:
    def fail(_: AcceptedSocket) -> None:
        raise RuntimeError("no running event loop")

    near, far = socket.socketpair()
    accepted = AcceptedSocket(near, "10.0.0.1")
    accepted.on_close = fail
    with pytest.raises(RuntimeError):
        accepted.close()
    assert accepted.fileno() == -1
    with far:
        assert far.recv(1) == b""


def test_all_addresses_of_a_host_share_a_port() -> None:
    admission = Admission(ConnectionLimits(10, 10, 10))
    bound = bind_all("localhost", 0, admission)
    assert len({listener.getsockname()[1] for listener in bound}) == 1
    for listener in bound:
        listener.close()


# A whole server


def descriptors() -> int:
    """How many files this process has open."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


@pytest.fixture
def tls(tmp_path: Path) -> tuple[dict[str, Path], ssl.SSLContext]:
    """A server's settings for TLS, and what its clients trust."""
    issuer = trustme.CA()
    issued = issuer.issue_cert("localhost")
    chain, key = tmp_path / "chain.pem", tmp_path / "key.pem"
    issued.cert_chain_pems[0].write_to_path(chain)
    issued.private_key_pem.write_to_path(key)
    trusting = ssl.create_default_context()
    issuer.configure_trust(trusting)
    return {"certificate": chain, "key": key}, trusting


def test_unfinished_handshakes_do_not_block_other_clients(
    tmp_path: Path, tls: tuple[dict[str, Path], ssl.SSLContext], caplog: pytest.LogCaptureFixture
) -> None:
    files, trusting = tls

    async def test() -> None:
        async with running_server(tmp_path / "store", max_connections=20, **files) as service:
            before = descriptors()
            silent = [await asyncio.open_connection("127.0.0.1", service.port) for _ in range(600)]
            assert (await ask(service.port, "/healthz", tls=trusting)).status == 200
            served = descriptors() - before - len(silent)
            assert served <= 20 + MIN_NEW + MAX_ENDING
            assert service.sample("apexstream_connections") <= 20 + MIN_NEW + MAX_ENDING
            assert service.sample("apexstream_refusals_total", reason="crowded") >= 600 - MIN_NEW - MAX_ENDING
            for _, writer in silent:
                writer.close()
            await until(lambda: service.sample("apexstream_connections") == 0, "all to be closed")

    with caplog.at_level(logging.WARNING):
        run(test)
    assert 1 <= len(caplog.records) <= 20, "a line a second at the most"
    assert not [record for record in caplog.records if record.exc_info]


def test_a_handshake_has_a_time_limit(
    tmp_path: Path, tls: tuple[dict[str, Path], ssl.SSLContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream.server.server, "HANDSHAKE_S", 0.2)

    async def test() -> None:
        async with running_server(tmp_path / "store", **tls[0]) as service:
            reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
            writer.write(b"\x16\x03\x01")  # the beginning of a ClientHello
            async with asyncio.timeout(PATIENCE_S):
                assert await reader.read() == b""
            await until(lambda: service.sample("apexstream_connections") == 0, "its place to be free")
            writer.close()

    run(test)


def test_a_connection_that_sent_something_is_kept_rather_than_silent_ones(tmp_path: Path) -> None:
    async def test() -> None:
        async with running_server(tmp_path, max_connections=20) as service:
            reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
            writer.write(b"GET /healthz HTTP/1.1\r\n")
            await until(lambda: service.server.state.open, "it to be accepted")
            silent = [await asyncio.open_connection("127.0.0.1", service.port) for _ in range(3 * MIN_NEW)]
            writer.write(b"Host: localhost\r\n\r\n")
            assert (await reader.read()).startswith(b"HTTP/1.1 200 OK")
            for _, other in silent:
                other.close()
            writer.close()

    run(test)


SMALL = """
import asyncio, pathlib, resource, sys
from tests.running_server import running_server

async def main() -> None:
    async with running_server(pathlib.Path(sys.argv[1])) as service:
        print(service.port, flush=True)
        await asyncio.to_thread(sys.stdin.read)

resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
asyncio.run(main())
"""


def test_a_process_of_64_files_serves_beside_80_idle_connections(tmp_path: Path) -> None:
    small = subprocess.Popen(
        [sys.executable, "-c", SMALL, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert small.stdout is not None
    port = int(small.stdout.readline())

    async def test() -> None:
        idle = [await asyncio.open_connection("127.0.0.1", port) for _ in range(80)]
        assert (await ask(port, "/healthz")).status == 200
        assert (await ask(port, "/api/events")).status == 200, "a descriptor is left for the store"
        for _, writer in idle:
            writer.close()

    run(test)
    _, errors = small.communicate(timeout=PATIENCE_S)
    assert "Traceback" not in errors
    assert len(errors.splitlines()) < 20
