from __future__ import annotations

import asyncio
import json
import logging
import random
import socket
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed
from websockets.protocol import State
from websockets.server import ServerProtocol

import stream.server.connection
import stream.server.listener
from stream import protocol
from stream.messages import Preview
from stream.protocol import PreviewRequest
from stream.server.connection import Connection, ServerState
from tests.events import decided
from tests.running_server import (
    UPGRADE,
    RunningServer,
    ask,
    client_frame,
    connected,
    next_of,
    open_socket,
    parsed,
    raw,
    run,
    running_server,
    still_serves,
    stuck_client_is_disconnected,
    until,
)


def close_code(data: bytes) -> int | None:
    """The code of the close frame at the end of what a server sent; None where there is none."""
    at, code = 0, None
    while at + 2 <= len(data):
        start, size, at = at, data[at + 1], at + 2
        if size >= 126:
            wide = 2 if size == 126 else 8
            size, at = int.from_bytes(data[at : at + wide], "big"), at + wide
        if data[start] == 0x88:
            code = int.from_bytes(data[at : at + 2], "big")
        at += size
    return code


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (client_frame(0x1, b"x" * 5000), 1009),
        (client_frame(0x1, b"x" * 3000, fin=False) + client_frame(0x0, b"x" * 3000), 1009),
        (b"\x81\xff\x7f\xff\xff\xff\xff\xff\xff\xff\x00\x00\x00\x00", 1009),
        (b"\x81\x05hello", 1002),
        (client_frame(0x3, b""), 1002),
        (b"\xf1\x80\x00\x00\x00\x00", 1002),
        (client_frame(0x0, b"x"), 1002),
        (client_frame(0x9, b"x" * 126), 1002),
        (client_frame(0x8, b"\x00"), 1002),
        (client_frame(0x1, b"\xff\xfe"), 1007),
    ],
)
def test_oversized_and_malformed_frames_end_their_own_connection(tmp_path: Path, sent: bytes, code: int) -> None:
    async def test() -> None:
        async with running_server(tmp_path, max_message_bytes=4096) as service:
            reader, writer = await open_socket(service.port)
            writer.write(sent)
            got = await asyncio.wait_for(reader.read(), 20)
            assert close_code(got) == code
            writer.close()
            await still_serves(service)
            await until(lambda: service.sample("apexstream_refusals_total", reason="frame") == 1, "the refusal to be counted")

    run(test)


def test_ten_thousand_fuzzed_messages(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    dice = random.Random(7)
    valid = [b'{"type":"subscribe","streams":["lobby"]}', b'{"type":"preview","stream":"lobby","on":true}', b'{"type":"ping"}']

    def mutated() -> str | bytes:
        data = bytearray(dice.choice(valid))
        for _ in range(dice.randrange(1, 6)):
            at = dice.randrange(len(data) + 1)
            data[at : at + dice.randrange(3)] = dice.choice(
                [b"", b"\x00", b"[" * 50, b"1e999", b'"', b"\\ud800", b"null", b"{}"]
            )
        if dice.random() < 0.2:
            return dice.randbytes(dice.randrange(200))
        return bytes(data).decode("latin-1") if dice.random() < 0.9 else bytes(data)

    async def talk(service: RunningServer) -> int:
        answers = 0
        async with connected(service, max_queue=None) as client:
            for _ in range(100):
                for _ in range(20):
                    await client.send(mutated())
                await client.send('{"type":"ping"}')
                async for message in client:
                    answers += 1
                    if isinstance(message, str) and json.loads(message)["type"] == "pong":
                        break
        return answers

    async def test() -> None:
        async with running_server(tmp_path, messages_per_s=1e6) as service:
            answers = [await talk(service) for _ in range(5)]
            assert sum(answers) > 5000
            await still_serves(service)

    with caplog.at_level(logging.WARNING):
        run(test)
    assert len(caplog.records) == 1, "one line for all that came from one address"


def test_ten_thousand_fuzzed_byte_strings_instead_of_frames(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    dice = random.Random(8)

    def mutated() -> bytes:
        data = bytearray(
            client_frame(dice.choice([0, 1, 2, 8, 9, 10]), dice.randbytes(dice.randrange(140)), fin=dice.random() < 0.8)
        )
        for _ in range(dice.randrange(2)):
            data[dice.randrange(len(data))] = dice.randrange(256)
        return bytes(data)

    async def talk(service: RunningServer) -> int:
        reader, writer = await open_socket(service.port)
        frames = [mutated() for _ in range(50)]
        writer.write(b"".join(frames))
        writer.write_eof()
        try:
            await asyncio.wait_for(reader.read(), 20)
        except ConnectionResetError:
            return len(frames)
        finally:
            writer.close()
        return len(frames)

    async def test() -> None:
        async with running_server(tmp_path, messages_per_s=1e6) as service:
            sent = [await asyncio.gather(*(talk(service) for _ in range(20))) for _ in range(10)]
            assert sum(map(sum, sent)) == 10_000
            await until(lambda: service.sample("apexstream_connections") == 0, "all connections to be closed")
            await still_serves(service)

    with caplog.at_level(logging.WARNING):
        run(test)
    assert 1 <= len(caplog.records) <= 2, "one line for each reason"


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (b"GET /\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\nHost: localhost\r\n\r\n", 400),
        (b"GET /\xff HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost localhost\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: \x00\r\n\r\n", 400),
        (b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * 9000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\n" + b"X: x\r\n" * 200 + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\n" + (b"X: " + b"x" * 1000 + b"\r\n") * 100 + b"\r\n", 431),
        (b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n", 200),
    ],
)
def test_invalid_requests(tmp_path: Path, request_: bytes, status: int) -> None:
    async def test() -> None:
        async with running_server(tmp_path) as service:
            assert parsed(await raw(service.port, request_)).status == status
            await still_serves(service)

    run(test)


@pytest.mark.parametrize(
    "headers",
    [
        [("Upgrade", "websocket")],
        [*UPGRADE[:2], ("Sec-WebSocket-Version", "8"), UPGRADE[3]],
        [*UPGRADE[:3], ("Sec-WebSocket-Key", "short")],
        [*UPGRADE, UPGRADE[3]],
        [*UPGRADE, ("Sec-WebSocket-Protocol", ",;=")],
    ],
)
def test_invalid_handshakes(tmp_path: Path, headers: list[tuple[str, str]]) -> None:
    async def test() -> None:
        async with running_server(tmp_path) as service:
            assert (await ask(service.port, "/", headers=headers)).status in (400, 426)
            assert (await ask(service.port, "/nowhere", headers=UPGRADE)).status == 404
            assert (await ask(service.port, "/camera", headers=UPGRADE)).status in (403, 404)
            assert (await ask(service.port, "/", method="POST", headers=UPGRADE)).status == 405
            await still_serves(service)

    run(test)


def test_slow_requests_are_disconnected_while_others_are_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(stream.server.connection, "REQUEST_S", 1.0)

    async def trickle(port: int) -> float:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        started = time.monotonic()
        for byte in b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Slow: " + b"x" * 1000:
            writer.write(bytes([byte]))
            try:
                if not await asyncio.wait_for(reader.read(1), 0.05):
                    break
            except TimeoutError:
                continue
            except ConnectionResetError:
                break
        writer.close()
        return time.monotonic() - started

    async def test() -> None:
        async with running_server(tmp_path) as service:
            slow = [asyncio.create_task(trickle(service.port)) for _ in range(100)]
            refused = partial(service.sample, "apexstream_refusals_total", reason="slow")  # by then, on a busy machine
            await until(lambda: service.sample("apexstream_connections") + refused() >= 100, "the slow ones to be there")
            assert (await ask(service.port, "/")).status == 200
            assert max(await asyncio.gather(*slow)) < 20
            await until(lambda: service.sample("apexstream_connections") == 0, "the slow ones to be closed")
            assert refused() == 100
            await still_serves(service)

    with caplog.at_level(logging.WARNING):
        run(test)
    assert len(caplog.records) == 1


def test_one_connection_too_many_is_answered_503(tmp_path: Path) -> None:
    async def test() -> None:
        async with running_server(tmp_path, max_connections=3) as service:
            crowd = [await connect(service.uri) for _ in range(3)]
            answer = await ask(service.port, "/healthz")
            assert (answer.status, answer.headers["retry-after"]) == (503, "10")
            await crowd.pop().close()
            await until(lambda: service.sample("apexstream_connections") == 2, "one to be closed")
            assert (await ask(service.port, "/healthz")).status == 200
            for client in crowd:
                await client.close()

    run(test)


def test_far_too_many_connections_are_reset(tmp_path: Path) -> None:
    async def test() -> None:
        async with running_server(tmp_path, max_connections=3) as service:
            most = 3 + stream.server.listener.MIN_NEW
            streams = [await asyncio.open_connection("127.0.0.1", service.port) for _ in range(most + 20)]
            await until(lambda: service.sample("apexstream_connections") <= most, "those beyond the limit to be closed")
            for _, writer in streams:
                writer.close()
            await until(lambda: service.sample("apexstream_connections") == 0, "all to be closed")
            assert (await ask(service.port, "/healthz")).status == 200

    run(test)


def test_too_many_messages_end_the_connection(tmp_path: Path) -> None:
    async def test() -> None:
        async with running_server(tmp_path, messages_per_s=10) as service:
            async with connected(service) as client:
                with pytest.raises(ConnectionClosed) as closed:
                    for _ in range(1000):
                        await client.send('{"type":"ping"}')
                    await next_of(client, "never")
                assert closed.value.rcvd is not None
                assert closed.value.rcvd.code == 1008
            assert service.sample("apexstream_refusals_total", reason="rate") == 1
            await still_serves(service)

    run(test)


def test_a_client_that_does_not_close_is_disconnected(tmp_path: Path) -> None:
    async def test() -> None:
        async with running_server(tmp_path, messages_per_s=10) as service:
            reader, writer = await open_socket(service.port)
            writer.write(client_frame(0x9, b"") * 100)
            await until(lambda: service.sample("apexstream_refusals_total", reason="rate"), "the flood to be noticed")
            await until(lambda: service.sample("apexstream_connections") == 0, "the connection to be closed")
            assert reader is not None

    run(test)


def test_a_client_that_does_not_read_is_disconnected_and_the_others_miss_nothing(tmp_path: Path) -> None:
    async def test() -> None:
        async with running_server(tmp_path) as service:
            await stuck_client_is_disconnected(service)
            await still_serves(service, 5_000)

    run(test)


def test_nothing_is_written_to_a_client_that_was_disconnected_a_moment_ago(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def test() -> None:
        async with running_server(tmp_path) as service:
            async with connected(service):
                (client,) = service.server.state.open
                client.disconnect("behind")
                for _ in range(100):
                    client.write("more")
            await still_serves(service)

    run(test)
    assert [record.message for record in caplog.records if record.name == "asyncio"] == []


def test_a_dead_peer_is_disconnected_however_little_it_is_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream.server.connection, "STUCK_S", 0.3)

    async def test() -> None:
        async with running_server(tmp_path, buffer_bytes=1 << 30) as service:
            reader, writer = await open_socket(service.port)
            writer.transport.pause_reading()
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            await until(lambda: service.hub.subscribers, "the client to have joined")
            for number in range(400):
                service.hub.post(decided(number, model="m" * 10_000))
            await until(lambda: service.sample("apexstream_subscribers_dropped_total") == 1, "the client to be disconnected")
            assert reader is not None

    run(test)


def test_answers_to_pings_do_not_pile_up(tmp_path: Path) -> None:
    async def test() -> None:
        async with running_server(tmp_path, messages_per_s=1e9, buffer_bytes=65536) as service:
            _, writer = await open_socket(service.port)
            writer.transport.pause_reading()
            flood = client_frame(0x9, b"x" * 125) * 500
            try:
                while service.sample("apexstream_subscribers_dropped_total") == 0:
                    writer.write(flood)
                    await asyncio.wait_for(writer.drain(), 20)
            except ConnectionError:
                pass
            await until(lambda: service.sample("apexstream_subscribers_dropped_total") == 1, "the client to be disconnected")
            writer.close()

    run(test)


PREVIEW = protocol.preview(Preview("lobby", {}, b"jpeg"))
STATE = ServerState(10.0, 1000, refusals=Any, admission=Any, dropped=lambda: None)


class Waiting(Connection):
    """A connection of which so many bytes wait, and that asked for a preview ten times a second."""

    def __init__(self) -> None:
        super().__init__(STATE, ServerProtocol(state=State.OPEN), server=Any)
        self.bytes = 0
        self.previews = {"lobby": PreviewRequest(type="preview", stream="lobby", on=True, fps=10.0, width=320)}

    def waiting(self) -> int:
        return self.bytes

    async def drain(self) -> None:
        pass


def test_previews_are_wanted_at_the_rate_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(stream.server.connection.time, "monotonic", lambda: now[0])

    async def body() -> None:
        connection, wanted = Waiting(), 0
        for _ in range(300):  # ten seconds at 30 a second
            wanted += connection.wants(PREVIEW)
            now[0] += 1 / 30
        assert 99 <= wanted <= 101
        connection.previews.clear()
        assert not connection.wants(PREVIEW), "it did not ask for previews"

    asyncio.run(body())


def test_no_preview_is_wanted_while_bytes_wait() -> None:
    async def body() -> None:
        connection = Waiting()
        connection.bytes = 1
        assert not connection.wants(PREVIEW)
        connection.bytes = 0
        assert connection.wants(PREVIEW)

    asyncio.run(body())


def test_a_closed_connection_ends_a_replay() -> None:
    async def body() -> None:
        connection = Waiting()
        await connection.drained()
        connection.protocol.state = State.CLOSED
        with pytest.raises(ConnectionError):
            await connection.drained()

    asyncio.run(body())
