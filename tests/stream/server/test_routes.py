from __future__ import annotations

import asyncio
import json
import logging
import socket
from pathlib import Path
from typing import Any

import pytest

import stream.server.routes
from engine.errors import OutputError
from stream.events.formats import FORMATS, LineFormat
from stream.outlets.outlet import OutletStatus
from stream.server.connection import PAUSE_BYTES
from tests.events import DAMAGED, damage, decided, stored
from tests.running_server import (
    RunningServer,
    ask,
    parsed,
    raw,
    run,
    running_server,
    until,
)


def test_http_responses(tmp_path: Path) -> None:
    async def test() -> None:
        async with running_server(tmp_path) as service:
            service.hub.post(decided(1))
            await until(lambda: service.hub.seq == 1, "an event to be stored")
            service.pictures["lobby-1", "onset"] = b"\x89PNG"
            page = await ask(service.port, "/")
            assert (page.status, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
            assert (await ask(service.port, "/healthz")).body == b"alive\n"
            assert (await ask(service.port, "/readyz")).status == 200
            service.ready = False
            ready = await ask(service.port, "/readyz")
            assert (ready.status, ready.body) == (503, b"the networks are being loaded\n")
            assert (await ask(service.port, "/api/streams")).json()["problem"] == "the networks are being loaded"
            figures = await ask(service.port, "/metrics")
            assert figures.headers["content-type"].startswith("text/plain; version=")
            assert b"apexstream_subscribers 0.0" in figures.body
            streams = (await ask(service.port, "/api/streams?x=1")).json()
            assert [(one["stream"], one["state"]) for one in streams["streams"]] == [("lobby", "live")]
            assert streams["seq"] == 1
            assert (await ask(service.port, "/api/outlets")).json() == {"v": 1, "outlets": []}
            service.metrics.outlets = lambda: [OutletStatus("mqtt", "failing", "no broker", sent=3, dropped=1)]
            outlet = {"name": "mqtt", "state": "failing", "detail": "no broker", "sent": 3, "dropped": 1}
            assert (await ask(service.port, "/api/outlets")).json()["outlets"] == [outlet]
            figures = await ask(service.port, "/metrics")
            assert b'apexstream_outlet_working{outlet="mqtt"} 0.0' in figures.body
            assert b'apexstream_outlet_events_total{outlet="mqtt"} 3.0' in figures.body
            assert b'apexstream_outlet_dropped_total{outlet="mqtt"} 1.0' in figures.body
            picture = await ask(service.port, "/evidence/lobby%2D1/onset.png")
            assert (picture.headers["content-type"], picture.body) == ("image/png", b"\x89PNG")
            assert (await ask(service.port, "/evidence/lobby-1/apex.png")).status == 404

    run(test)


def test_every_response_has_the_security_headers(tmp_path: Path) -> None:
    async def test() -> None:
        async with running_server(tmp_path) as service:
            for path in ("/", "/healthz", "/nothing", "/api/events?limit=x"):
                headers = (await ask(service.port, path)).headers
                assert "default-src 'none'" in headers["content-security-policy"]
                assert headers["x-content-type-options"] == "nosniff"
                assert headers["cross-origin-resource-policy"] == "same-origin"
                assert "access-control-allow-origin" not in headers
                assert "server" not in headers

    run(test)


def test_page_files_are_fetched_once(tmp_path: Path) -> None:
    async def test() -> None:
        async with running_server(tmp_path) as service:
            first = await ask(service.port, "/app.js")
            again = await ask(service.port, "/app.js", headers=[("If-None-Match", first.headers["etag"])])
            assert (again.status, again.body) == (304, b"")
            other = await ask(service.port, "/app.js", headers=[("If-None-Match", '"other"')])
            assert other.status == 200
            head = await ask(service.port, "/app.js", method="HEAD")
            assert (head.status, head.body, head.headers["content-length"]) == (200, b"", "1")

    run(test)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "BREW"])
@pytest.mark.parametrize("body", [b"", b"hello"])
def test_other_methods_are_answered_405(tmp_path: Path, method: str, body: bytes) -> None:
    async def test() -> None:
        async with running_server(tmp_path) as service:
            length = [("Content-Length", str(len(body)))]
            answer = await ask(service.port, "/api/events", method=method, headers=length, body=body)
            assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD")
            assert b"Only GET and HEAD" in answer.body

    run(test)


def test_a_chunked_body_is_refused_too(tmp_path: Path) -> None:
    async def test() -> None:
        async with running_server(tmp_path) as service:
            chunked = [("Transfer-Encoding", "chunked")]
            assert (await ask(service.port, "/", method="POST", headers=chunked, body=b"0\r\n\r\n")).status == 405
            assert (await ask(service.port, "/", headers=chunked, body=b"0\r\n\r\n")).status == 400

    run(test)


@pytest.mark.parametrize(
    "path",
    [
        "/../pyproject.toml",
        "/../../../../../../etc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/..%2f..%2fetc/passwd",
        "/..\\..\\etc\\passwd",
        "//etc/passwd",
        "/./app.js",
        "/app.js/",
        "/app.js%00.html",
        "/server.py",
        "/dashboard/app.js",
        "/evidence/../../etc/passwd",
        "/evidence/%2e%2e%2f%2e%2e%2fetc%2fpasswd/onset.png",
        "/evidence/lobby-1/__class__.png",
        "/evidence//.png",
        "file:///etc/passwd",
        "http://localhost/../etc/passwd",
        "*",
    ],
)
def test_unknown_paths_are_not_found(tmp_path: Path, path: str) -> None:
    async def test() -> None:
        async with running_server(tmp_path) as service:
            answer = await ask(service.port, path)
            assert answer.status == 404
            assert b"root:" not in answer.body

    run(test)


def test_stored_events_as_json_lines_and_table(tmp_path: Path) -> None:
    async def test() -> None:
        async with running_server(tmp_path) as service:
            for number, label in enumerate(["surprise", "negative", "surprise"]):
                service.hub.post(decided(number, label=label, stream="=lobby"))
            await until(lambda: service.hub.seq == 3, "three events to be stored")
            first = (await ask(service.port, "/api/events?limit=2")).json()
            assert ([one["seq"] for one in first["events"]], first["last"], first["more"], first["seq"]) == ([1, 2], 2, True, 3)
            rest = (await ask(service.port, "/api/events?since=2")).json()
            assert ([one["seq"] for one in rest["events"]], rest["last"], rest["more"]) == ([3], 3, False)
            named = (await ask(service.port, "/api/events?label=surprise&kind=micro&stream=%3Dlobby")).json()
            assert [one["seq"] for one in named["events"]] == [1, 3]
            assert (await ask(service.port, "/api/events?stream=nobody")).json()["events"] == []
            lines = (await ask(service.port, "/api/events?format=jsonl")).body.splitlines()
            assert [json.loads(line)["seq"] for line in lines] == [1, 2, 3]
            table = await ask(service.port, "/api/events?format=csv")
            assert "attachment" in table.headers["content-disposition"]
            rows = [row.split(",") for row in table.body.decode().splitlines()]
            assert [dict(zip(rows[0], row, strict=True))["label"] for row in rows[1:]] == ["surprise", "negative", "surprise"]
            assert "'=lobby" in rows[1], "a spreadsheet would run it as a formula"

    run(test)


@pytest.mark.parametrize(
    "query",
    [
        *(
            "limit=0",
            "limit=10001",
            "limit=-1",
            "limit=%D9%A1",
            "limit=x",
            "since=-1",
            "since=1e3",
            "since=99999999999999999999",
        ),
        *("format=xml", "colour=red", "stream=%ff", "&".join(["stream=a"] * 101)),
    ],
)
def test_invalid_queries(tmp_path: Path, query: str) -> None:
    async def test() -> None:
        async with running_server(tmp_path) as service:
            assert (await ask(service.port, f"/api/events?{query}")).status == 400

    run(test)


# Responses of several pages


def fill(service: RunningServer, number: int, **fields: Any) -> None:
    """So many events in the store, without their having been sent."""
    service.store.append([stored(k, **fields) for k in range(number)])


LINES = [name for name, format_ in FORMATS.items() if isinstance(format_, LineFormat)]
DOCUMENTS = [name for name in FORMATS if name not in LINES]


@pytest.mark.parametrize("format_", ["json", *LINES])
def test_a_response_of_many_pages_equals_one_of_one_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format_: str) -> None:
    async def test() -> None:
        async with running_server(tmp_path) as service:
            fill(service, 250)
            for query in ("limit=10000", "limit=101", "limit=201&since=3", "limit=250", "limit=249"):
                path = f"/api/events?format={format_}&{query}"
                monkeypatch.setattr(stream.server.routes, "PAGE", 100)
                paged = await ask(service.port, path)
                assert (paged.status, paged.headers["transfer-encoding"]) == (200, "chunked")
                monkeypatch.setattr(stream.server.routes, "PAGE", 10_000)
                whole = await ask(service.port, path)
                assert whole.headers["content-length"] == str(len(whole.body))
                assert paged.body == whole.body, query
                assert paged.headers.get("content-disposition") == whole.headers.get("content-disposition")

    run(test)


@pytest.mark.parametrize("format_", DOCUMENTS)
def test_a_document_is_made_of_all_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format_: str) -> None:
    async def test() -> None:
        async with running_server(tmp_path) as service:
            fill(service, 250)
            path = f"/api/events?format={format_}&limit=201&since=3"
            monkeypatch.setattr(stream.server.routes, "PAGE", 100)
            paged = await ask(service.port, path)
            monkeypatch.setattr(stream.server.routes, "PAGE", 10_000)
            whole = await ask(service.port, path)
            assert paged.status == 200 and paged.body == whole.body and len(paged.body) > 5_000
            assert paged.headers["content-type"] == FORMATS[format_].media_type
            assert (await ask(service.port, path, method="HEAD")).body == b""

    run(test)


def test_only_so_many_documents_are_made_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream.server.routes, "MAX_DOCUMENTS", 0)

    async def test() -> None:
        async with running_server(tmp_path) as service:
            refused = await ask(service.port, "/api/events?format=eaf")
            assert (refused.status, refused.headers["retry-after"]) == (503, "10")
            assert b"too many documents are being made" in refused.body
            assert (await ask(service.port, "/api/events?format=csv")).status == 200

    run(test)


def test_a_damaged_event_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream.server.routes, "PAGE", 2)

    async def test() -> None:
        async with running_server(tmp_path) as service:
            fill(service, 7)
            for seq, body in zip((2, 3, 7), DAMAGED, strict=False):
                damage(service.store.path, seq, body)
            for format_ in ("jsonl", "csv"):
                answer = await ask(service.port, f"/api/events?format={format_}")
                assert (answer.status, len(answer.body.splitlines())) == (200, 4 + (format_ == "csv"))
            whole = (await ask(service.port, "/api/events")).json()
            assert ([one["seq"] for one in whole["events"]], whole["last"], whole["more"]) == ([1, 4, 5, 6], 6, False)

    run(test)


def test_http_1_0_and_head(tmp_path: Path) -> None:
    async def test() -> None:
        async with running_server(tmp_path) as service:
            fill(service, 250)
            head = await ask(service.port, "/api/events?format=jsonl", method="HEAD")
            assert (head.status, head.body) == (200, b"")
            old = parsed(await raw(service.port, b"GET /api/events?format=jsonl HTTP/1.0\r\nHost: localhost\r\n\r\n"))
            assert "transfer-encoding" not in old.headers
            assert len(old.body.splitlines()) == 250

    run(test)


def test_unread_responses_hold_a_page_each(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        async with running_server(tmp_path) as service:
            fill(service, 3000, model="m" * 2000)
            page = len((await ask(service.port, f"/api/events?limit={stream.server.routes.PAGE}")).body)
            unread = []
            for _ in range(60):
                plain = socket.socket()
                plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                plain.setblocking(False)
                await asyncio.get_running_loop().sock_connect(plain, ("127.0.0.1", service.port))
                plain.send(b"GET /api/events?limit=10000 HTTP/1.1\r\nHost: localhost\r\n\r\n")
                unread.append(plain)
            clients = service.server.state.open
            await until(lambda: len(clients) == 60 and all(client.waiting() for client in clients), "all to be stuck")
            assert max(client.waiting() for client in clients) <= page + 2 * PAUSE_BYTES
            assert (await ask(service.port, "/healthz")).status == 200
            for plain in unread:
                plain.close()
            await until(lambda: not clients, "all to be closed")

    run(test)
    assert not [record for record in caplog.records if record.exc_info], "a closed connection is no error"


def test_streamed_responses_are_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream.server.routes, "MAX_STREAMED", 1)

    async def test() -> None:
        async with running_server(tmp_path) as service:
            fill(service, 3000, model="m" * 2000)
            reader, writer = await asyncio.open_connection("127.0.0.1", service.port, limit=1024)
            writer.write(b"GET /api/events?limit=10000 HTTP/1.1\r\nHost: localhost\r\n\r\n")
            await reader.readuntil(b"\r\n")
            late = await ask(service.port, "/api/events?limit=10000")
            assert (late.status, late.headers["retry-after"]) == (503, "10")
            assert (await ask(service.port, "/api/events?limit=10")).status == 200, "a single page is always served"
            writer.close()
            await until(lambda: not service.server.state.open, "the first to be closed")
            assert (await ask(service.port, "/api/events?limit=10000")).status == 200

    run(test)


def test_a_response_that_cannot_be_completed_is_aborted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def test() -> None:
        async with running_server(tmp_path) as service:
            fill(service, 250)
            read = service.hub.stored

            async def failing(since: int, **bounds: Any) -> list[dict[str, Any]]:
                if since >= 200:
                    raise OutputError("the store is damaged")
                return await read(since, **bounds)

            monkeypatch.setattr(service.hub, "stored", failing)
            answer = await raw(service.port, b"GET /api/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert not answer.endswith(b"0\r\n\r\n")
            assert (await ask(service.port, "/api/events?since=240")).status == 503

    with caplog.at_level(logging.ERROR):
        run(test)
    assert "a response was aborted: the store is damaged" in caplog.text


def test_a_service_that_is_ending_reads_no_events(tmp_path: Path) -> None:
    async def test() -> None:
        async with running_server(tmp_path) as service:
            service.hub.close()
            answer = await ask(service.port, "/api/events")
            assert (answer.status, answer.body) == (503, b"the service is ending\n")

    run(test)
