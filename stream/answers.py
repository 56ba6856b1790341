"""The HTTP side of the port: the page's files, the state of the service, its figures, its events, and the pictures behind them.

    /  and the page's files      a table read once from the package: what is not in it does not exist
    /healthz  /readyz  /metrics  alive; ready to serve; Prometheus
    /api/streams                 {"v", "streams": [status, ...], "seq", "store", "model", "version", "now", "problem"}
    /api/events                  ?since= &limit= &stream= &kind= &label= (the last three several times) &format=json|jsonl|csv
                                 json: {"v", "events": [...], "last": seq to go on from, "more": whether there is more, "seq"}
    /evidence/<event>/<picture>.png   onset, apex, flow

GET and HEAD only. Every answer closes its connection.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import mimetypes
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus
from importlib import resources
from typing import Any, Protocol
from urllib.parse import parse_qs, unquote

from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from engine.errors import ApexError, InputError
from engine.text import csv_line
from stream import metrics, wire
from stream.feed import SourceStatus
from stream.guard import Need, Refusal
from stream.writers import CSV_COLUMNS, CSV_LABELS

MOST_EVENTS = 10_000
SOME_EVENTS = 500
PAGE_TYPES = (".html", ".css", ".js", ".svg", ".png", ".ico", ".webmanifest", ".woff2", ".txt")
API_COLUMNS = ("seq", "emitted_at", "latency_ms", *CSV_COLUMNS)
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


class Facts(Protocol):
    """What the service tells of itself. All but `stored` are called on the event loop and answer at once."""

    @property
    def model(self) -> str:
        """The network in use, as events name it."""

    @property
    def version(self) -> str:
        """The program's version."""

    @property
    def store_name(self) -> str:
        """Which store the numbers belong to."""

    @property
    def seq(self) -> int:
        """The number of the last stored event."""

    @property
    def problem(self) -> str | None:
        """What ails the service, in a sentence; None while it is ready and well."""

    def statuses(self) -> Sequence[SourceStatus]:
        """The latest of every source."""

    async def stored(
        self,
        since: int,
        *,
        limit: int,
        streams: Sequence[str] | None,
        kinds: Sequence[str] | None,
        labels: Sequence[str] | None,
    ) -> list[dict[str, Any]]:
        """Stored events after since, ascending."""

    def picture(self, event: str, picture: str) -> bytes | None:
        """A PNG behind an event; None where there is none."""


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


Route = Callable[[Request], Awaitable[Response]]


class Answers:
    """Answers requests that are no websocket handshakes."""

    def __init__(self, facts: Facts, figures: metrics.Metrics, pages: Mapping[str, Page]) -> None:
        self._facts, self._figures, self._pages = facts, figures, pages
        self._routes: dict[str, Route] = {
            "/healthz": self._healthz,
            "/readyz": self._readyz,
            "/metrics": self._metrics,
            "/api/streams": self._streams,
            "/api/events": self._events,
        }

    def need(self, path: str) -> Need:
        """What a request for path must show."""
        if path == "/healthz":
            return "nothing"
        return "token" if path in self._routes or path.startswith("/evidence/") else "host"

    async def answer(self, request: Request) -> Response:
        """The answer to a request that has shown what it needs."""
        if request.method not in ("GET", "HEAD"):
            answer = text(405, "Only GET and HEAD are answered here.")
            answer.headers["Allow"] = "GET, HEAD"
            return answer
        path = request.path.partition("?")[0]
        try:
            answer = await self._found(path, request)
        except InputError as error:
            answer = text(400, str(error))
        except ApexError as error:
            answer = text(503, str(error))
        if request.method == "HEAD":
            answer.body = b""
        return answer

    async def _found(self, path: str, request: Request) -> Response:
        if path in self._routes:
            return await self._routes[path](request)
        if path in self._pages:
            return _file(self._pages[path], request.headers)
        if path.startswith("/evidence/"):
            return self._evidence(path)
        return text(404, "There is nothing here.")

    async def _healthz(self, _: Request) -> Response:
        return text(200, "alive")

    async def _readyz(self, _: Request) -> Response:
        problem = self._facts.problem
        return text(200, "ready") if problem is None else text(503, problem)

    async def _metrics(self, _: Request) -> Response:
        return respond(200, self._figures.render(), metrics.CONTENT_TYPE)

    async def _streams(self, _: Request) -> Response:
        facts = self._facts
        told = {
            "v": wire.VERSION,
            "streams": [wire.status(status).body for status in facts.statuses()],
            "seq": facts.seq,
            "store": facts.store_name,
            "model": facts.model,
            "version": facts.version,
            "now": wire.iso(time.time()),
            "problem": facts.problem,
        }
        return respond(200, _json(told), "application/json")

    async def _events(self, request: Request) -> Response:
        asked = _Asked.read(request.path.partition("?")[2])
        many = {"streams": asked.streams, "kinds": asked.kinds, "labels": asked.labels}
        found = await self._facts.stored(asked.since, limit=asked.limit + 1, **many)
        events, more = found[: asked.limit], len(found) > asked.limit
        last = events[-1]["seq"] if events else asked.since
        told = {"v": wire.VERSION, "events": events, "last": last, "more": more, "seq": self._facts.seq}
        body, kind = await asyncio.to_thread(_encoded, told, asked.format)
        answer = respond(200, body, kind)
        if asked.format != "json":
            answer.headers["Content-Disposition"] = f'attachment; filename="events.{asked.format}"'
        return answer

    def _evidence(self, path: str) -> Response:
        parts = [unquote(part) for part in path.split("/")[2:]]
        if len(parts) == 2 and parts[1].endswith(".png"):
            found = self._facts.picture(parts[0], parts[1].removesuffix(".png"))
            if found is not None:
                return respond(200, found, "image/png")
        return text(404, "There is no such picture; those of the last events are kept, in memory alone.")


@dataclass(frozen=True)
class _Asked:
    """The query of /api/events."""

    since: int
    limit: int
    format: str
    streams: list[str] | None
    kinds: list[str] | None
    labels: list[str] | None

    @classmethod
    def read(cls, query: str) -> _Asked:
        try:
            given = parse_qs(query, keep_blank_values=True, max_num_fields=100, errors="strict")
        except ValueError as error:
            raise InputError("the address cannot be read behind its question mark") from error
        unknown = given.keys() - {"since", "limit", "format", "stream", "kind", "label"}
        if unknown:
            raise InputError("only since, limit, format, stream, kind and label may be asked for")
        format_ = given.get("format", ["json"])[-1]
        if format_ not in ("json", "jsonl", "csv"):
            raise InputError("format is json, jsonl or csv")
        limit = given.get("limit", [str(SOME_EVENTS)])[-1]
        if not (limit.isascii() and limit.isdecimal() and len(limit) < 6 and 1 <= int(limit) <= MOST_EVENTS):
            raise InputError(f"limit is a number from 1 to {MOST_EVENTS}")
        since = wire.read_seq(given.get("since", ["0"])[-1])
        return cls(since, int(limit), format_, given.get("stream"), given.get("kind"), given.get("label"))


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
    if refused.status == 503:
        answer.headers["Retry-After"] = "10"
    return answer


def _file(page: Page, headers: Headers) -> Response:
    known = any(page.etag in value for value in headers.get_all("If-None-Match"))
    answer = respond(304 if known else 200, b"" if known else page.body, page.kind)
    if known:
        del answer.headers["Content-Length"]
    del answer.headers["Cache-Control"]
    answer.headers["Cache-Control"] = "no-cache"
    answer.headers["ETag"] = page.etag
    return answer


def _encoded(told: Mapping[str, Any], format_: str) -> tuple[bytes, str]:
    if format_ == "json":
        return _json(told), "application/json"
    if format_ == "jsonl":
        return b"".join(_json(event) + b"\n" for event in told["events"]), "application/jsonl; charset=utf-8"
    rows = [API_COLUMNS, *map(csv_row, told["events"])]
    return "".join(map(csv_line, rows)).encode(), "text/csv; charset=utf-8"


def csv_row(event: Mapping[str, Any]) -> list[object]:
    """A stored event's values in the order of API_COLUMNS."""
    row: list[object] = [event.get(name, "") for name in API_COLUMNS[:3]]
    row += [event[name] for name in CSV_COLUMNS[:7]]
    for mark in (event["onset"], event["apex"], event["offset"]):
        row += ["", ""] if mark is None else [mark["frame"], f"{mark['t']:.6f}"]
    offset = event["offset"]
    row.append("" if offset is None else f"{offset['t'] - event['onset']['t']:.6f}")
    row += [str(event.get(name, False)).lower() for name in ("truncated", "speaking")]
    row += [event["probabilities"].get(label, "") for label in CSV_LABELS]
    return [*row, event["model"], event.get("why", ""), event.get("expression_probability", "")]


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
