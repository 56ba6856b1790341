from __future__ import annotations

import asyncio
import json
import logging
import ssl
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trustme
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Origin, Subprotocol

from engine.errors import ConfigError
from stream.messages import Preview, WantedPreview
from stream.protocol import PreviewRequest
from stream.server.server import wanted_previews
from tests.events import damage, decided, preview_parts
from tests.running_server import (
    SUBPROTOCOLS,
    TOKEN,
    UPGRADE,
    ask,
    connected,
    next_of,
    open_socket,
    raw,
    run,
    running_server,
    stuck_client_is_disconnected,
    until,
)

BEARER = ("Authorization", f"Bearer {TOKEN}")


# Access control


def test_with_a_token_all_but_the_page_and_health_is_refused(tmp_path: Path) -> None:
    async def test() -> None:
        async with running_server(tmp_path, token=TOKEN) as service:
            for path in ("/metrics", "/readyz", "/api/streams", "/api/events", "/evidence/x/onset.png"):
                closed = await ask(service.port, path)
                assert (closed.status, closed.headers["www-authenticate"]) == (401, 'Bearer realm="apexstream"'), path
                assert (await ask(service.port, path, headers=[("Authorization", "Bearer guess")])).status == 401
                assert (await ask(service.port, path, headers=[BEARER])).status in (200, 404)
            for path in ("/", "/app.js", "/healthz"):
                assert (await ask(service.port, path)).status == 200

    run(test)


def test_websockets_need_the_token(tmp_path: Path) -> None:
    async def test() -> None:
        async with running_server(tmp_path, token=TOKEN) as service:
            for options in ({}, {"additional_headers": {"Authorization": "Bearer guess"}}):
                with pytest.raises(InvalidStatus) as refused:
                    await connect(service.uri, subprotocols=SUBPROTOCOLS, **options)
                assert refused.value.response.status_code == 401
            async with connected(service, additional_headers=dict([BEARER])) as client:
                assert client.subprotocol == "apexstream.v1"
            page = [*SUBPROTOCOLS, Subprotocol(f"apexstream.token.{TOKEN}")]
            async with connect(service.uri, subprotocols=page) as client:
                assert client.subprotocol == "apexstream.v1"
                assert client.response is not None
                assert TOKEN not in str(client.response.headers)

    run(test)


def test_wrong_tokens_are_rate_limited_and_open_connections_stay(tmp_path: Path) -> None:
    async def test() -> None:
        async with (
            running_server(tmp_path, token=TOKEN) as service,
            connected(service, additional_headers=dict([BEARER])) as client,
        ):
            answers = [await ask(service.port, "/metrics", headers=[("Authorization", f"Bearer guess-{k}")]) for k in range(40)]
            limited = [answer for answer in answers if answer.status == 429]
            assert {answer.status for answer in answers} == {401, 429}
            assert limited[0].headers["retry-after"] == "1"
            assert service.sample("apexstream_refusals_total", reason="guesses") == len(limited)
            assert (await ask(service.port, "/")).status == 200
            service.hub.post(decided(1))
            assert (await next_of(client, "expression"))["seq"] == 1

    run(test)


def test_subprotocols(tmp_path: Path) -> None:
    async def test() -> None:
        async with running_server(tmp_path) as service:
            async with connect(service.uri) as client:
                assert client.subprotocol is None
                assert json.loads(await client.recv())["type"] == "hello"
            with pytest.raises(InvalidStatus) as refused:
                await connect(service.uri, subprotocols=[Subprotocol("graphql-ws")])
            assert refused.value.response.status_code == 400

    run(test)


def test_wrong_host_and_wrong_origin_are_refused_and_logged_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        async with running_server(tmp_path) as service:
            for _ in range(5):
                assert (await ask(service.port, "/", host="evil.example")).status == 403
                assert (await ask(service.port, "/", host=None)).status == 403
                assert (await ask(service.port, "/", host="evil.example", headers=UPGRADE)).status == 403
                with pytest.raises(InvalidStatus) as refused:
                    await connect(service.uri, origin=Origin("http://evil.example"))
                assert refused.value.response.status_code == 403
            own = Origin(f"http://127.0.0.1:{service.port}")
            async with connected(service, origin=own) as client:
                assert client.subprotocol == "apexstream.v1"
            assert service.sample("apexstream_refusals_total", reason="host") == 15
            assert service.sample("apexstream_refusals_total", reason="origin") == 5

    with caplog.at_level(logging.WARNING):
        run(test)
    assert len([record for record in caplog.records if "Host" in record.getMessage()]) == 1
    assert len([record for record in caplog.records if "origin" in record.getMessage()]) == 1


def test_no_token_reaches_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        async with running_server(tmp_path, token=TOKEN) as service:
            await ask(service.port, f"/api/events?token={TOKEN}")
            await ask(service.port, "/api/events", headers=[("Authorization", f"Bearer {TOKEN}x")])
            await ask(service.port, f"/nothing?token={TOKEN}", headers=[BEARER])
            async with connected(service, additional_headers=dict([BEARER])) as client:
                await client.send(TOKEN)
                assert TOKEN not in json.dumps(await next_of(client, "error"))
            assert TOKEN.encode() not in (await ask(service.port, "/metrics", headers=[BEARER])).body

    with caplog.at_level(logging.INFO):
        run(test)
    assert caplog.records
    assert TOKEN not in caplog.text


def test_tls(tmp_path: Path) -> None:
    issuer = trustme.CA()
    issued = issuer.issue_cert("localhost", "127.0.0.1")
    chain, key = tmp_path / "chain.pem", tmp_path / "key.pem"
    issued.cert_chain_pems[0].write_to_path(chain)
    issued.private_key_pem.write_to_path(key)
    trusting = ssl.create_default_context()
    issuer.configure_trust(trusting)

    async def test() -> None:
        async with running_server(tmp_path / "store", certificate=chain, key=key) as service:
            assert service.server.url.startswith("https://")
            assert (await ask(service.port, "/", tls=trusting)).status == 200
            uri = f"wss://localhost:{service.port}/"
            async with connect(uri, ssl=trusting, origin=Origin(f"https://localhost:{service.port}")) as client:
                assert json.loads(await client.recv())["type"] == "hello"
                await until(lambda: service.hub.subscribers, "the client to have joined")
                service.hub.post(decided(7))
                assert (await next_of(client, "expression"))["id"] == "lobby-7"
            assert not (await raw(service.port, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")).startswith(b"HTTP/1.1 200")
            with pytest.raises(ssl.SSLCertVerificationError):
                await connect(uri, ssl=ssl.create_default_context())
            await stuck_client_is_disconnected(service, trusting)

    run(test)


def test_a_port_in_use_is_an_error(tmp_path: Path) -> None:
    async def test() -> None:
        async with running_server(tmp_path / "one") as service:
            with pytest.raises(ConfigError, match=r"already in use.*--listen"):
                async with running_server(tmp_path / "two", port=service.port):
                    raise AssertionError("two servers at one port")

    run(test)


# Messages


def test_events_reach_all_clients_and_since_resumes(tmp_path: Path) -> None:
    async def test() -> None:
        async with running_server(tmp_path) as service:
            async with connected(service) as one, connected(service) as two:
                for number in range(3):
                    service.hub.post(decided(number))
                for client in (one, two):
                    assert [(await next_of(client, "expression"))["seq"] for _ in range(3)] == [1, 2, 3]
            async with connected(service, "?since=1") as late:
                assert [(await next_of(late, "expression"))["seq"] for _ in range(2)] == [2, 3]
                await next_of(late, "status")  # it has joined: what comes now is not replayed
                service.hub.post(decided(3))
                assert (await next_of(late, "expression"))["seq"] == 4
            for query in ("?since=x", "?kind=huge"):
                with pytest.raises(InvalidStatus) as refused:
                    await connect(service.uri + query, subprotocols=SUBPROTOCOLS)
                assert refused.value.response.status_code == 400
            assert service.sample("apexstream_events_replayed_total") == 2

    run(test)


def test_a_damaged_event_ends_no_replay(tmp_path: Path) -> None:
    async def test() -> None:
        async with running_server(tmp_path) as service:
            for number in range(4):
                service.hub.post(decided(number))
            await until(lambda: service.hub.seq == 4, "the events to be stored")
            damage(service.store.path, 2, "{")
            async with connected(service, "?since=0") as late:
                assert [(await next_of(late, "expression"))["seq"] for _ in range(3)] == [1, 3, 4]
                await next_of(late, "status")
                service.hub.post(decided(4))
                assert (await next_of(late, "expression"))["seq"] == 5
            assert service.hub.threads.damaged == 1

    run(test)


def test_subscribe_ping_and_invalid_messages(tmp_path: Path) -> None:
    async def test() -> None:
        async with running_server(tmp_path) as service, connected(service) as client:
            await client.send('{"type":"ping"}')
            assert (await next_of(client, "pong"))["v"] == 1
            await client.send('{"type":"subscribe","labels":["negative"],"types":["expression"]}')
            await client.send(b"\x00\x01")
            assert (await next_of(client, "error"))["code"] == "message"
            service.hub.post(decided(1, label="surprise"))
            service.hub.post(decided(2, label="negative"))
            assert (await next_of(client, "expression"))["seq"] == 2

    run(test)


def test_previews_go_to_clients_that_ask_at_the_rate_they_ask_for(tmp_path: Path) -> None:
    picture = Preview("lobby", {"t": 1.0, "index": 30, "width": 64, "height": 48, "faces": []}, b"\xff\xd8" + b"x" * 1000)

    async def test() -> None:
        async with running_server(tmp_path) as service, connected(service) as watching, connected(service) as other:
            assert service.server.wanted_preview("lobby") is None
            await watching.send('{"type":"preview","stream":"lobby","on":true,"fps":0.1,"width":320}')
            await until(lambda: service.server.wanted_preview("lobby"), "the preview to be known")
            assert service.server.wanted_preview("lobby") == WantedPreview(320, 0.1)
            await other.send('{"type":"preview","stream":"nobody","on":true}')
            assert (await next_of(other, "error"))["code"] == "message"
            for _ in range(20):
                service.hub.post(picture)
            service.hub.post(decided(1))
            shown = []
            while isinstance(message := await watching.recv(), bytes):
                shown.append(message)
            assert len(shown) == 1, "one is due in ten seconds"
            header, jpeg = preview_parts(shown[0])
            assert (header["stream"], header["index"], jpeg) == ("lobby", 30, picture.jpeg)
            await next_of(other, "expression")
            await watching.send('{"type":"preview","stream":"lobby","on":false}')
            await until(lambda: service.server.wanted_preview("lobby") is None, "the preview to be removed")
            await watching.send('{"type":"preview","stream":"lobby","on":true}')
            await until(lambda: service.server.wanted_preview("lobby"), "the preview to be known again")
            await watching.close()
            await until(lambda: service.server.wanted_preview("lobby") is None, "the preview to be removed with its client")

    run(test)


# Shutdown


def test_sockets_are_closed_with_1001_when_the_service_ends(tmp_path: Path) -> None:
    async def test() -> None:
        async with running_server(tmp_path) as service:
            port = service.port
            async with connected(service) as client:
                await service.server.stop()
                with pytest.raises(ConnectionClosed) as closed:
                    while True:
                        await client.recv()
                assert closed.value.rcvd is not None
                assert closed.value.rcvd.code == 1001
            with pytest.raises(OSError):
                await asyncio.open_connection("127.0.0.1", port)

    run(test)


def test_shutdown_does_not_wait_for_clients(tmp_path: Path) -> None:
    async def test() -> None:
        async with running_server(tmp_path) as service:
            silent = await asyncio.open_connection("127.0.0.1", service.port)
            stuck = await open_socket(service.port)
            stuck[1].transport.pause_reading()
            await until(lambda: service.hub.subscribers == 1, "the stuck one to have joined")
            for number in range(60):
                service.hub.post(decided(number, model="m" * 10_000))
            await until(lambda: service.hub.seq == 60, "the events to be sent")
            started = time.monotonic()
            await service.server.stop(within=0.5)
            assert time.monotonic() - started < 5
            assert service.sample("apexstream_connections") == 0
            for _, writer in (silent, stuck):
                writer.close()

    run(test)


@pytest.mark.parametrize("host", ["nosuchhost.invalid", "a..b"])
def test_an_unknown_host_is_an_error_with_a_token_too(tmp_path: Path, host: str) -> None:
    async def test() -> None:
        with pytest.raises(ConfigError, match=f"unknown host {host}"):
            async with running_server(tmp_path, host=host, token=TOKEN):
                pass

    run(test)


def test_the_largest_and_the_most_frequent_preview_is_made() -> None:
    def client(**wanted: tuple[float, int]) -> Any:
        return SimpleNamespace(
            previews={
                stream: PreviewRequest(type="preview", stream=stream, on=True, fps=fps, width=width)
                for stream, (fps, width) in wanted.items()
            }
        )

    both = wanted_previews([client(lobby=(5.0, 640), desk=(10.0, 320)), client(lobby=(12.0, 160))])
    assert both == {"lobby": WantedPreview(640, 12.0), "desk": WantedPreview(320, 10.0)}
