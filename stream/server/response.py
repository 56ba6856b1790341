"""HTTP responses: with security headers, whole or in pieces; the static files of the dashboard."""

from __future__ import annotations

import hashlib
import mimetypes
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from email.utils import formatdate
from http import HTTPStatus
from importlib import resources

from websockets.datastructures import Headers
from websockets.http11 import Response

from stream.server.access import Refusal

FILE_TYPES = (".html", ".css", ".js", ".svg", ".png", ".ico", ".webmanifest", ".woff2", ".txt")
SECURITY = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; media-src 'self' blob:; font-src 'self'; manifest-src 'self'; worker-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
"""On every response: nothing is loaded from another origin, no other page may frame this one or read from it."""


@dataclass(frozen=True)
class StaticFile:
    """A file of the dashboard."""

    body: bytes
    kind: str
    etag: str


def dashboard_files() -> dict[str, StaticFile]:
    """The dashboard's files by URL path, "/" among them; those of other types than FILE_TYPES are left out."""
    return page_files("dashboard")


def page_files(*folder: str) -> dict[str, StaticFile]:
    """As `dashboard_files`, of the page in a folder of the package `stream`."""
    items = resources.files("stream").joinpath(*folder).iterdir()
    files = {f"/{item.name}": _static(item.name, item.read_bytes()) for item in items if item.name.endswith(FILE_TYPES)}
    return {**files, "/": files["/index.html"]}


def _static(name: str, body: bytes) -> StaticFile:
    kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
    if kind.startswith("text/") or kind.endswith(("javascript", "json")):
        kind += "; charset=utf-8"
    return StaticFile(body, kind, f'"{hashlib.sha256(body).hexdigest()[:32]}"')


@dataclass
class StreamedResponse(Response):
    """A response whose body is made while it is sent; `serialize` returns its end, for after the pieces."""

    pieces: AsyncGenerator[bytes, None] = field(kw_only=True)

    def head(self) -> bytes:
        """Status and headers."""
        return super().serialize()

    def piece(self, data: bytes) -> bytes:
        """A piece of the body as it is sent; an empty chunk would end the body."""
        return b"%x\r\n%s\r\n" % (len(data), data) if data and "Transfer-Encoding" in self.headers else data

    def serialize(self) -> bytes:
        """The end of the body, after the last piece."""
        return b"0\r\n\r\n" if "Transfer-Encoding" in self.headers else b""


def respond(status: int, body: bytes, kind: str) -> Response:
    """A response that is not cached, with the headers of SECURITY."""
    headers = Headers(SECURITY)
    headers["Date"] = formatdate(usegmt=True)
    headers["Connection"] = "close"
    headers["Content-Type"] = kind
    headers["Content-Length"] = str(len(body))
    headers["Cache-Control"] = "no-store"
    return Response(status, HTTPStatus(status).phrase, headers, body)


def text(status: int, sentence: str) -> Response:
    """A response of one sentence."""
    return respond(status, f"{sentence}\n".encode(), "text/plain; charset=utf-8")


def refusal(refused: Refusal) -> Response:
    """The response to a refused request."""
    answer = text(refused.status, refused.sentence)
    if refused.status == 401:
        answer.headers["WWW-Authenticate"] = 'Bearer realm="apexstream"'
    wait = {503: "10", 429: "1"}.get(refused.status)
    if wait is not None:
        answer.headers["Retry-After"] = wait
    return answer


def static(file: StaticFile, headers: Headers) -> Response:
    """A file of the dashboard; 304 where the request's headers show that the client has it."""
    known = any(file.etag in value for value in headers.get_all("If-None-Match"))
    answer = respond(304 if known else 200, b"" if known else file.body, file.kind)
    if known:
        del answer.headers["Content-Length"]
    del answer.headers["Cache-Control"]
    answer.headers["Cache-Control"] = "no-cache"
    answer.headers["ETag"] = file.etag
    return answer
