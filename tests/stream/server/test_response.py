from __future__ import annotations

from collections.abc import AsyncGenerator

import pytest
from websockets.datastructures import Headers

from stream.server.access import Refusal
from stream.server.response import SECURITY, StaticFile, StreamedResponse, dashboard_files, refusal, respond, static, text


async def pieces() -> AsyncGenerator[bytes, None]:
    yield b"one"


def test_every_response_closes_its_connection_and_has_the_security_headers() -> None:
    answer = text(200, "alive")
    assert answer.headers["Connection"] == "close"
    assert all(answer.headers[name] == value for name, value in SECURITY.items())
    assert (answer.body, answer.headers["Content-Length"]) == (b"alive\n", "6")


@pytest.mark.parametrize(("status", "wait"), [(503, "10"), (429, "1"), (403, None)])
def test_retry_after(status: int, wait: str | None) -> None:
    assert refusal(Refusal(status, "crowded", "Later.")).headers.get("Retry-After") == wait


def test_a_streamed_response() -> None:
    whole = respond(200, b"", "text/plain")
    plain = StreamedResponse(200, "OK", whole.headers, pieces=pieces())
    assert (plain.piece(b"one"), plain.serialize()) == (b"one", b"")
    whole.headers["Transfer-Encoding"] = "chunked"
    chunked = StreamedResponse(200, "OK", whole.headers, pieces=pieces())
    assert chunked.head().startswith(b"HTTP/1.1 200 OK\r\n")
    assert chunked.piece(b"") == b""
    assert (chunked.piece(b"x" * 17), chunked.serialize()) == (b"11\r\n" + b"x" * 17 + b"\r\n", b"0\r\n\r\n")


def test_a_cached_file_is_not_sent_again() -> None:
    file = StaticFile(b"1", "text/javascript", '"abc"')
    assert static(file, Headers()).body == b"1"
    known = static(file, Headers([("If-None-Match", '"abc"')]))
    assert (known.status_code, known.body, "Content-Length" in known.headers) == (304, b"", False)


def test_the_files_of_the_dashboard() -> None:
    files = dashboard_files()
    assert files["/"] is files["/index.html"]
    assert {"/app.js", "/camera.js"} <= files.keys()
