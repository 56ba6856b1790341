"""Answers over HTTP as they are sent: with the headers that keep other pages out, whole or piece by piece; the page's files."""

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

PAGE_TYPES = (".html", ".css", ".js", ".svg", ".png", ".ico", ".webmanifest", ".woff2", ".txt")
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
"""On every answer: nothing of another origin is loaded, no other page may frame this one or read from it."""


@dataclass(frozen=True)
class Page:
    """A file of the page."""

    body: bytes
    kind: str
    etag: str


def page_files(package: str = "stream", folder: str = "dashboard") -> dict[str, Page]:
    """The page's files by path, "/" among them; those of other types than PAGE_TYPES are left out."""
    root = resources.files(package) / folder
    files = {f"/{item.name}": item for item in (root.iterdir() if root.is_dir() else ()) if item.name.endswith(PAGE_TYPES)}
    pages = {path: _page(path, item.read_bytes()) for path, item in files.items() if item.is_file()}
    if "/index.html" in pages:
        pages["/"] = pages["/index.html"]
    return pages


def _page(path: str, body: bytes) -> Page:
    kind = mimetypes.guess_type(path)[0] or "application/octet-stream"
    if kind.startswith("text/") or kind.endswith(("javascript", "json")):
        kind += "; charset=utf-8"
    return Page(body, kind, f'"{hashlib.sha256(body).hexdigest()[:32]}"')


@dataclass
class Streamed(Response):
    """An answer whose body is made while it is sent; what `serialize` returns is its end, for when the pieces are sent."""

    pieces: AsyncGenerator[bytes, None] = field(kw_only=True)

    def head(self) -> bytes:
        """Status and headers."""
        return super().serialize()

    def piece(self, data: bytes) -> bytes:
        """A piece of the body as it is sent; an empty chunk would be the end."""
        return b"%x\r\n%s\r\n" % (len(data), data) if data and "Transfer-Encoding" in self.headers else data

    def serialize(self) -> bytes:
        """What comes behind the last piece."""
        return b"0\r\n\r\n" if "Transfer-Encoding" in self.headers else b""


def respond(status: int, body: bytes, kind: str) -> Response:
    """An answer that no cache keeps, with the headers of SECURITY."""
    headers = Headers(SECURITY)
    headers["Date"] = formatdate(usegmt=True)
    headers["Connection"] = "close"
    headers["Content-Type"] = kind
    headers["Content-Length"] = str(len(body))
    headers["Cache-Control"] = "no-store"
    return Response(status, HTTPStatus(status).phrase, headers, body)


def text(status: int, sentence: str) -> Response:
    """A sentence as an answer."""
    return respond(status, f"{sentence}\n".encode(), "text/plain; charset=utf-8")


def refusal(refused: Refusal) -> Response:
    """The answer to whom the guard refuses."""
    answer = text(refused.status, refused.sentence)
    if refused.status == 401:
        answer.headers["WWW-Authenticate"] = 'Bearer realm="apexstream"'
    wait = {503: "10", 429: "1"}.get(refused.status)
    if wait is not None:
        answer.headers["Retry-After"] = wait
    return answer


def send_page(page: Page, headers: Headers) -> Response:
    """A file of the page; 304 where the request's headers show that it is known."""
    known = any(page.etag in value for value in headers.get_all("If-None-Match"))
    answer = respond(304 if known else 200, b"" if known else page.body, page.kind)
    if known:
        del answer.headers["Content-Length"]
    del answer.headers["Cache-Control"]
    answer.headers["Cache-Control"] = "no-cache"
    answer.headers["ETag"] = page.etag
    return answer
