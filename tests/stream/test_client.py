from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
import trustme
from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request, Response

from engine.errors import InputError, SourceError
from stream import client as client_module
from stream import protocol
from stream.backoff import Backoff
from stream.client import Place, Remote, follow, socket_url
from stream.events.store import Store
from stream.protocol import Subscribe
from tests.broker import free_port
from tests.events import decided, stored
from tests.serving import serving

DEADLINE_S = 30
TOKEN = "a-token-of-some-length"


def on_a_loop(body: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(body(), 2 * DEADLINE_S))


async def events(remote: Remote, place: Place, last: int, **options: Any) -> list[dict[str, Any]]:
    """Final events until the one numbered last."""
    got = []
    async with asyncio.timeout(DEADLINE_S), aclosing(follow(remote, place, **options)) as messages:
        async for message in messages:
            if message["type"] == "expression" and message["state"] == "final":
                got.append(message)
                if message["seq"] == last:
                    break
    return got


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "RETRY_S", (0.01, 0.1))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("ws://127.0.0.1:8765", "ws://127.0.0.1:8765/"),
        ("http://box:80/", "ws://box:80/"),
        ("https://box/events#top", "wss://box/events"),
        ("wss://[::1]:8765", "wss://[::1]:8765/"),
    ],
)
def test_addresses_are_normalized(given: str, expected: str) -> None:
    assert socket_url(given) == expected


@pytest.mark.parametrize("wrong", ["", "box:8765", "ftp://box", "ws://", "ws://box:99999", "ws://[::1", "ws://u:p@box/"])
def test_an_invalid_address_is_refused(wrong: str) -> None:
    with pytest.raises(InputError, match="is no address of a live service"):
        socket_url(wrong)


@pytest.mark.parametrize("address", ["ws://box/?since=0", "https://box?stream=door"])
def test_an_address_with_a_query_is_refused(address: str) -> None:
    with pytest.raises(InputError, match="use --since and --stream"):
        socket_url(address)


def test_it_starts_with_the_next_event_or_with_stored_ones(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        store.append([stored(1), stored(2)])

    async def body() -> None:
        async with serving(tmp_path) as service:
            assert [event["seq"] for event in await events(Remote(service.events_url), Place(0), 2)] == [1, 2]
            place = Place()
            async with aclosing(follow(Remote(service.events_url), place)) as messages:
                assert (await anext(messages))["type"] == "hello"
                assert place == Place(2, service.store.identity)
                service.hub.post(decided(3))
                assert (await anext(messages))["seq"] == 3
                assert place.seq == 3

    on_a_loop(body)


@pytest.mark.usefixtures("impatient")
def test_after_a_restart_of_the_service_it_reconnects_and_misses_no_event(tmp_path: Path) -> None:
    async def body() -> None:
        reports: list[str] = []
        port = free_port()
        async with serving(tmp_path, port=port) as service:
            following = asyncio.create_task(events(Remote(f"ws://127.0.0.1:{port}"), Place(0), 40, report=reports.append))
            for number in range(10):
                service.hub.post(decided(number))
        for run in range(1, 4):
            async with serving(tmp_path, port=port) as service:
                for number in range(10):
                    service.hub.post(decided(10 * run + number))
                if run == 3:
                    got = await following
        assert [event["seq"] for event in got] == list(range(1, 41))
        assert [event["id"] for event in got] == [f"lobby-{number}" for number in range(40)]
        assert reports
        assert all(sentence.endswith("; trying again") for sentence in reports)

    on_a_loop(body)


@pytest.mark.usefixtures("impatient")
def test_a_service_that_does_not_run_yet_is_waited_for_and_reported_once(tmp_path: Path) -> None:
    async def body() -> None:
        port = free_port()
        reports: list[str] = []
        tried = asyncio.Event()
        following = asyncio.create_task(
            events(
                Remote(f"ws://127.0.0.1:{port}"), Place(0), 1, report=lambda sentence: (reports.append(sentence), tried.set())
            )
        )
        await tried.wait()
        async with serving(tmp_path, port=port) as service:
            service.hub.post(decided(1))
            assert len(await following) == 1
        assert reports == [f"ws://127.0.0.1:{port}: connection refused; trying again"]

    on_a_loop(body)


def test_waits_vary_and_are_never_longer_than_the_longest(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []

    class Recorded(Backoff):
        def next(self) -> float:
            waits.append(super().next())
            return 0.0

    monkeypatch.setattr(client_module, "Backoff", Recorded)

    async def body() -> None:
        async def receive() -> None:
            async for _ in follow(Remote("ws://127.0.0.1:1"), Place(0)):
                raise AssertionError("nothing is served there")

        receiving = asyncio.create_task(receive())
        async with asyncio.timeout(DEADLINE_S):
            while len(waits) < 30:
                await asyncio.sleep(0)
        receiving.cancel()

    on_a_loop(body)
    at_the_limit, longest = waits[10:], client_module.RETRY_S[1]
    assert longest / 2 <= min(at_the_limit) < max(at_the_limit) <= longest
    assert len(set(at_the_limit)) > 5


@pytest.mark.usefixtures("impatient")
def test_another_store_at_the_same_address_is_read_from_its_beginning(tmp_path: Path) -> None:
    async def body() -> None:
        place = Place(3, "another store")
        reports: list[str] = []
        with Store(tmp_path) as store:
            store.append([stored(number) for number in range(5)])
        async with serving(tmp_path) as service:
            got = await events(Remote(service.events_url), place, 5, report=reports.append)
        assert [event["seq"] for event in got] == [1, 2, 3, 4, 5]
        assert "it has another store" in reports[0]

    on_a_loop(body)


def test_a_store_restored_from_a_copy_is_followed_from_its_last_event(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        store.append([stored(1)])
        place = Place(7, store.identity)

    async def body() -> None:
        async with serving(tmp_path) as service, aclosing(follow(Remote(service.events_url), place)) as messages:
            assert (await anext(messages))["type"] == "hello"
            assert place.seq == 1
            service.hub.post(decided(2))
            assert [message["seq"] async for message in until_final(messages)] == [2]

    on_a_loop(body)


async def until_final(messages: AsyncGenerator[dict[str, Any], None]) -> AsyncGenerator[dict[str, Any], None]:
    async for message in messages:
        if message["type"] == "expression":
            yield message
            return


def test_a_subscription_is_sent_to_the_service(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        store.append([stored(1), stored(2, stream="door"), stored(3)])

    async def body() -> None:
        async with serving(tmp_path) as service:
            got = await events(Remote(service.events_url), Place(0), 2, subscription=Subscribe(streams=("door",)))
        assert [event["stream"] for event in got] == ["door"]

    on_a_loop(body)


def test_a_heartbeat_advances_a_client_that_wants_no_stored_event() -> None:
    async def speak(connection: ServerConnection) -> None:
        await connection.send(protocol.hello([], model="", version="", seq=9, store="s", now=0).encoded)
        await connection.send(protocol.heartbeat(now=0, seq=5).encoded)
        await connection.wait_closed()

    async def body() -> None:
        place = Place(2, "s")
        async with serve(speak, "127.0.0.1", 0, subprotocols=[protocol.SUBPROTOCOL]) as server:
            port = next(iter(server.sockets)).getsockname()[1]
            async with aclosing(follow(Remote(f"ws://127.0.0.1:{port}"), place)) as messages:
                assert [(await anext(messages))["type"] for _ in range(2)] == ["hello", "heartbeat"]
        assert place.seq == 5

    on_a_loop(body)


def test_a_missing_or_wrong_token_is_reported(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        store.append([stored(1)])

    async def body() -> None:
        async with serving(tmp_path, token=TOKEN) as service:
            assert len(await events(Remote(service.events_url, TOKEN), Place(0), 1)) == 1
            for wrong, why in ((None, "a token is required"), ("another-token", "the token is wrong")):
                with pytest.raises(SourceError, match=why) as caught:
                    await events(Remote(service.events_url, wrong), Place(0), 1)
                assert "another-token" not in str(caught.value)
            with pytest.raises(SourceError, match="there is no websocket at this path"):
                await events(Remote(service.events_url + "elsewhere", TOKEN), Place(0), 1)

    on_a_loop(body)
    assert TOKEN not in repr(Remote("ws://box", TOKEN))


def test_certificates_are_checked(tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    issued = authority.issue_cert("127.0.0.1")
    issued.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    for number, pem in enumerate(issued.cert_chain_pems):
        pem.write_to_path(str(tmp_path / "chain.pem"), append=number > 0)
    trusting = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))

    async def body() -> None:
        async with serving(tmp_path / "data", certificate=tmp_path / "chain.pem", key=tmp_path / "key.pem") as service:
            service.hub.post(decided(1))
            assert service.events_url.startswith("wss://")
            assert len(await events(Remote(service.events_url, tls=trusting), Place(0), 1)) == 1
            with pytest.raises(SourceError, match="certificate is not trusted"):
                await events(Remote(service.events_url), Place(0), 1)

    on_a_loop(body)


def test_a_service_without_tls_is_reported(tmp_path: Path) -> None:
    async def body() -> None:
        async with serving(tmp_path) as service:
            with pytest.raises(SourceError, match="does not use TLS; use ws://"):
                await events(Remote(f"wss://127.0.0.1:{service.server.port}"), Place(0), 1)

    on_a_loop(body)


async def scripted(answers: Sequence[bytes], tried: Callable[[], None] = lambda: None) -> asyncio.Server:
    """Answers each connection with the next of answers, then with the last one, and closes it."""
    left = list(answers)

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        tried()
        writer.write(left.pop(0) if len(left) > 1 else left[0])
        writer.close()

    return await asyncio.start_server(speak, "127.0.0.1", 0)


def test_a_server_that_answers_a_tls_handshake_with_something_else_is_reported() -> None:
    async def body() -> None:
        async with await scripted([b"HTTP/1.1 400 Bad Request\r\n\r\n"]) as server:
            port = server.sockets[0].getsockname()[1]
            with pytest.raises(SourceError, match="the TLS handshake failed"):
                await events(Remote(f"wss://127.0.0.1:{port}"), Place(0), 1)

    on_a_loop(body)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("plain", [b"", b"HTTP/1.1 400 This is a TLS port\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\na page"])
def test_a_tls_connection_that_is_lost_is_retried(plain: bytes) -> None:
    async def body() -> None:
        tries, enough = 0, asyncio.Event()

        def tried() -> None:
            nonlocal tries
            tries += 1
            if tries == 6:
                enough.set()

        async with await scripted([b"", plain, b"", plain, b""], tried) as server:
            port = server.sockets[0].getsockname()[1]
            following = asyncio.create_task(events(Remote(f"wss://127.0.0.1:{port}"), Place(0), 1))
            await asyncio.wait([following, asyncio.create_task(enough.wait())], return_when=asyncio.FIRST_COMPLETED)
            assert not following.done()
            following.cancel()

    on_a_loop(body)


@pytest.mark.usefixtures("impatient")
def test_a_service_that_sends_nothing_is_reconnected_to() -> None:
    hello = protocol.hello([], model="", version="", seq=0, store="s", now=0).encoded
    event = protocol.expression({**stored(1), "seq": 1}).encoded
    connections = 0

    async def speak(connection: ServerConnection) -> None:
        nonlocal connections
        connections += 1
        await connection.send(hello)
        if connections > 1:
            await connection.send(event)
        await connection.wait_closed()

    async def body() -> None:
        reports: list[str] = []
        async with serve(speak, "127.0.0.1", 0, subprotocols=[protocol.SUBPROTOCOL]) as server:
            port = next(iter(server.sockets)).getsockname()[1]
            remote = Remote(f"ws://127.0.0.1:{port}", silence_s=0.2)
            assert len(await events(remote, Place(), 1, report=reports.append)) == 1
        assert set(reports) == {f"ws://127.0.0.1:{port}: no message for 0.2 s; trying again"}, "more often on a busy machine"

    on_a_loop(body)


@pytest.mark.parametrize(
    "text",
    [
        "nonsense",
        "[1]",
        '{"a":' * 100_000,
        '{"type":"hello"}',
        '{"type":"hello","seq":"x","store":[]}',
        '{"type":"heartbeat","seq":{}}',
        '{"type":"status","stream":{}}',
        '{"type":"error"}',
        '{"type":"expression","state":"final","seq":1}',
    ],
)
def test_a_server_with_another_protocol_is_reported(text: str) -> None:
    async def speak(connection: ServerConnection) -> None:
        await connection.send(text)
        await connection.wait_closed()

    async def body() -> None:
        async with serve(speak, "127.0.0.1", 0, subprotocols=[protocol.SUBPROTOCOL]) as server:
            port = next(iter(server.sockets)).getsockname()[1]
            with pytest.raises(SourceError, match="a message is not one of apexstream"):
                await events(Remote(f"ws://127.0.0.1:{port}"), Place(), 1)

    on_a_loop(body)


def test_a_server_that_is_no_live_service_is_reported() -> None:
    async def page(connection: ServerConnection, request: Request) -> Response:
        return connection.respond(200, "a page")

    async def unused(connection: ServerConnection) -> None:
        await connection.wait_closed()

    async def body() -> None:
        async with serve(unused, "127.0.0.1", 0, process_request=page) as server:
            port = next(iter(server.sockets)).getsockname()[1]
            with pytest.raises(SourceError, match="it answers 200, as no live service does"):
                await events(Remote(f"ws://127.0.0.1:{port}"), Place(), 1)

    on_a_loop(body)
