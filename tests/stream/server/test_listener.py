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
    ENDING,
    NEW,
    OTHER_FILES,
    AcceptedSocket,
    Admission,
    Counted,
    ListeningSocket,
    Room,
    listeners,
    room_for,
)
from stream.settings import TOKEN_VARIABLE
from tests.listening import ask, listening, run, until
from tests.live import PATIENCE_S


@pytest.fixture(autouse=True)
def no_token_around(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)


def test_connections_are_counted_overall_and_by_address() -> None:
    counted = Counted(5, per_address=2)
    assert counted.enter("10.0.0.1") is None
    assert counted.enter("10.0.0.1") is None
    assert counted.enter("10.0.0.1") is not None
    assert counted.enter("10.0.0.2") is None
    assert counted.enter("127.0.0.1") is None
    assert counted.enter("127.0.0.1") is not None, "a sixth, of five at most"
    for _ in range(3):
        counted.leave("10.0.0.1")
    assert counted.total == 3
    assert counted.enter("10.0.0.1") is None


def test_a_network_of_ipv6_is_counted_as_one_address() -> None:
    counted = Counted(100, per_address=2)
    assert counted.enter("2001:db8::1") is None
    assert counted.enter("2001:db8::2") is None
    assert counted.enter("2001:db8::3") is not None
    assert counted.enter("2001:db8:0:1::1") is None
    for k in (1, 2):
        counted.leave(f"2001:db8::{k}")
    assert counted.enter("2001:db8::4") is None


def test_this_machine_is_bounded_overall_alone() -> None:
    counted = Counted(100, per_address=2)
    assert all(counted.enter("127.0.0.1") is None for _ in range(100))


@pytest.fixture
def files() -> Iterator[Callable[[int, int], None]]:
    """Sets this process' limits of open files (soft, hard as far as it may), and puts the soft one back."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield lambda soft, hard: resource.setrlimit(resource.RLIMIT_NOFILE, (soft, max(soft, hard)))
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_the_limit_of_open_files_is_raised_for_the_connections(files: Callable[[int, int], None]) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    files(600, hard)
    wanted = 800 + NEW[1] + ENDING + OTHER_FILES
    assert room_for(800) == Room(800, NEW[1], ENDING)
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (wanted, hard)
    assert room_for(100) == Room(100, 100, ENDING)
    assert room_for(3) == Room(3, NEW[0], ENDING)
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (wanted, hard), "never lowered"


@pytest.mark.parametrize("files", [16, 64, 256, 1024, 2000])
def test_descriptors_are_kept_back_whatever_the_limit_is(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, files: int
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (files, files))
    monkeypatch.setattr(resource, "setrlimit", lambda *_: None)
    with caplog.at_level(logging.WARNING, "stream.server.listener"):
        room = room_for(2000)
    assert min(room.most, room.new) >= 1
    assert room.most + room.new + room.ending <= files - min(OTHER_FILES, 3 * files // 4)
    assert f"at most {room.most} connections at once: this process may open {files} files" in caplog.text


def test_the_one_that_says_nothing_for_longest_gives_way_and_others_addresses_are_spared() -> None:
    refused: list[str] = []
    admission = Admission(Room(100, 4, 100), lambda reason, address: refused.append(address))
    ends: list[socket.socket] = []

    def enter(address: str) -> AcceptedSocket:
        near, far = socket.socketpair()
        ends.append(far)
        accepted = AcceptedSocket(near, address)
        assert admission.enter(accepted)
        return accepted

    asked, other = enter("2001:db8::1"), enter("10.0.0.1")
    admission.settled(asked.fileno())
    crowd = [enter(f"2001:db8::{k:x}") for k in range(10)]
    assert refused == [f"2001:db8::{k:x}" for k in range(7)], "the oldest of the address that has most"
    assert sum(not _waits(end) for end in ends) == 7
    assert admission.total == 12, "counted until they are closed"
    for accepted in (asked, other, *crowd):
        accepted.close()
        accepted.close()
    assert admission.total == 0
    for end in ends:
        end.close()


def test_a_new_connection_is_kept_before_those_that_spoke_once_and_wait() -> None:
    """As behind a proxy, where all have one address: many past TLS that never ask, and one who just came."""
    admission = Admission(Room(100, 4, 100))
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
    assert [_waits(client) for client in clients] == [False, False, True, True, True, True], "the oldest gave way"
    for end in (*accepted, *clients):
        end.close()


def _waits(end: socket.socket) -> bool:
    """Whether the other end is open and has said nothing."""
    try:
        end.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return True
    return False


def test_beyond_all_bounds_a_connection_is_reset() -> None:
    refused: list[str] = []
    admission = Admission(Room(1, 1, 0), lambda reason, address: refused.append(reason))
    pairs = [socket.socketpair() for _ in range(3)]
    entered = [AcceptedSocket(near, "10.0.0.1") for near, _ in pairs]
    for accepted in entered[:2]:
        assert admission.enter(accepted)
        admission.settled(accepted.fileno())
    assert not admission.enter(entered[2])
    assert pairs[2][1].recv(1) == b""
    assert (admission.total, refused) == (2, ["crowded"])
    for accepted, (_, far) in zip(entered, pairs, strict=True):
        accepted.close()
        far.close()


def test_without_a_descriptor_the_queue_is_emptied_and_reported(files: Callable[[int, int], None]) -> None:
    refused: list[str] = []
    note = lambda reason, address: refused.append(reason)  # noqa: E731
    admission = Admission(Room(10, 10, 10), note)
    (listener,) = listeners("127.0.0.1", 0, lambda family: ListeningSocket(family, admission, note))
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


def test_a_connection_is_closed_though_who_counts_it_fails() -> None:
    def fail(_: AcceptedSocket) -> None:
        raise RuntimeError("no running event loop")

    near, far = socket.socketpair()
    accepted = AcceptedSocket(near, "10.0.0.1")
    accepted.gone = fail
    with pytest.raises(RuntimeError):
        accepted.close()
    assert accepted.fileno() == -1
    with far:
        assert far.recv(1) == b""


def test_all_addresses_of_a_host_share_a_port() -> None:
    admission = Admission(Room(10, 10, 10))
    bound = listeners("localhost", 0, lambda family: ListeningSocket(family, admission, lambda *_: None))
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


def test_handshakes_that_never_finish_keep_nobody_out(
    tmp_path: Path, tls: tuple[dict[str, Path], ssl.SSLContext], caplog: pytest.LogCaptureFixture
) -> None:
    files, trusting = tls

    async def test() -> None:
        async with listening(tmp_path / "store", max_connections=20, **files) as service:
            before = descriptors()
            silent = [await asyncio.open_connection("127.0.0.1", service.port) for _ in range(600)]
            assert (await ask(service.port, "/healthz", tls=trusting)).status == 200
            served = descriptors() - before - len(silent)
            assert served <= 20 + NEW[0] + ENDING
            assert service.figure("apexstream_connections") <= 20 + NEW[0] + ENDING
            assert service.figure("apexstream_refusals_total", reason="crowded") >= 600 - NEW[0] - ENDING
            for _, writer in silent:
                writer.close()
            await until(lambda: service.figure("apexstream_connections") == 0, "all to be gone")

    with caplog.at_level(logging.WARNING):
        run(test)
    assert 1 <= len(caplog.records) <= 20, "a line a second at the most"
    assert not [record for record in caplog.records if record.exc_info]


def test_a_handshake_has_its_time(
    tmp_path: Path, tls: tuple[dict[str, Path], ssl.SSLContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream.server.server, "HANDSHAKE_S", 0.2)

    async def test() -> None:
        async with listening(tmp_path / "store", **tls[0]) as service:
            reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
            writer.write(b"\x16\x03\x01")  # the beginning of a ClientHello
            async with asyncio.timeout(PATIENCE_S):
                assert await reader.read() == b""
            await until(lambda: service.figure("apexstream_connections") == 0, "its place to be free")
            writer.close()

    run(test)


def test_who_has_begun_to_speak_is_kept_before_those_who_are_silent(tmp_path: Path) -> None:
    async def test() -> None:
        async with listening(tmp_path, max_connections=20) as service:
            reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
            writer.write(b"GET /healthz HTTP/1.1\r\n")
            await until(lambda: any(client.begun for client in service.server.clients), "its first line to be there")
            silent = [await asyncio.open_connection("127.0.0.1", service.port) for _ in range(3 * NEW[0])]
            writer.write(b"Host: localhost\r\n\r\n")
            assert (await reader.read()).startswith(b"HTTP/1.1 200 OK")
            for _, other in silent:
                other.close()
            writer.close()

    run(test)


SMALL = """
import asyncio, pathlib, resource, sys
from tests.listening import listening

async def main() -> None:
    async with listening(pathlib.Path(sys.argv[1])) as service:
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
    _, said = small.communicate(timeout=PATIENCE_S)
    assert "Traceback" not in said
    assert len(said.splitlines()) < 20
