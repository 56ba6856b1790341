from __future__ import annotations

from collections.abc import AsyncGenerator

import pytest
from websockets.datastructures import Headers

from stream.server.access import Refusal
from stream.server.response import SECURITY, Page, Streamed, page_files, refusal, respond, send_page, text


async def pieces() -> AsyncGenerator[bytes, None]:
    yield b"one"


def test_every_answer_closes_its_connection_and_keeps_other_pages_out() -> None:
    answer = text(200, "alive")
    assert answer.headers["Connection"] == "close"
    assert all(answer.headers[name] == value for name, value in SECURITY.items())
    assert (answer.body, answer.headers["Content-Length"]) == (b"alive\n", "6")


@pytest.mark.parametrize(("status", "wait"), [(503, "10"), (429, "1"), (403, None)])
def test_who_may_come_again_is_told_when(status: int, wait: str | None) -> None:
    assert refusal(Refusal(status, "crowded", "Later.")).headers.get("Retry-After") == wait


def test_an_answer_in_pieces() -> None:
    whole = respond(200, b"", "text/plain")
    plain = Streamed(200, "OK", whole.headers, pieces=pieces())
    assert (plain.piece(b"one"), plain.serialize()) == (b"one", b"")
    whole.headers["Transfer-Encoding"] = "chunked"
    chunked = Streamed(200, "OK", whole.headers, pieces=pieces())
    assert chunked.head().startswith(b"HTTP/1.1 200 OK\r\n")
    assert chunked.piece(b"") == b""
    assert (chunked.piece(b"x" * 17), chunked.serialize()) == (b"11\r\n" + b"x" * 17 + b"\r\n", b"0\r\n\r\n")


def test_a_file_that_is_known_is_not_sent_again() -> None:
    page = Page(b"1", "text/javascript", '"abc"')
    assert send_page(page, Headers()).body == b"1"
    known = send_page(page, Headers([("If-None-Match", '"abc"')]))
    assert (known.status_code, known.body, "Content-Length" in known.headers) == (304, b"", False)


def test_the_pages_files_are_all_there() -> None:
    files = page_files()
    assert files["/"] is files["/index.html"]
    assert {"/app.js", "/camera.js"} <= files.keys()
