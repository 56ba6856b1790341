"""The HTTP side of the port: the page's files, the state of the service, its figures, its events, and the pictures behind them.

    /  and the page's files      a table read once from the package: what is not in it does not exist
    /healthz  /readyz  /metrics  alive; ready to serve; Prometheus
    /api/streams                 {"v", "streams": [status, ...], "seq", "store", "model", "version", "now", "problem"}
    /api/events                  ?since= &limit= &stream= &kind= &label= (the last three repeatable) &format=json|jsonl|csv|vtt
                                 json: {"v", "events": [...], "last": seq to go on from, "more": whether there is more, "seq"}
    /evidence/<event>/<picture>.png   onset, apex, flow

GET and HEAD only. Every answer closes its connection. Events are read, encoded and sent a page at a time, at the pace of who
fetches them, so that an answer that nobody reads holds one page in memory, however long it is.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import parse_qs, unquote

from websockets.http11 import Request, Response

from engine.errors import ApexError, InputError
from stream import protocol as wire
from stream.events.formats import FORMATS, Entry
from stream.messages import SourceStatus
from stream.server import metrics
from stream.server.access import Need
from stream.server.response import Page, Streamed, respond, send_page, text

MOST_EVENTS = 10_000
SOME_EVENTS = 500
PAGE = 100
"""Events read, encoded and sent at once."""
MOST_STREAMED = 256
"""Answers of several pages that are being sent at once; one more is put off (503)."""


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


Route = Callable[[Request], Awaitable[Response]]


class Answers:
    """Answers requests that are no websocket handshakes."""

    def __init__(self, facts: Facts, figures: metrics.Metrics, pages: Mapping[str, Page]) -> None:
        self._facts, self._figures, self._pages = facts, figures, pages
        self._streaming = 0
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
            answer.headers["Retry-After"] = "10"
        if request.method == "HEAD":
            answer.body = b""
        return answer

    async def _found(self, path: str, request: Request) -> Response:
        if path in self._routes:
            return await self._routes[path](request)
        if path in self._pages:
            return send_page(self._pages[path], request.headers)
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
        first = await self._page(asked, asked.since, asked.limit)
        if not first.rest:
            body, kind = _written(asked.format, first, self._facts.seq), _media_type(asked.format)
            return _attached(respond(200, body, kind), asked.format)
        if self._streaming >= MOST_STREAMED:
            raise _BusyError("too many stored events are being fetched; try again later")
        whole = _attached(respond(200, b"", _media_type(asked.format)), asked.format)
        del whole.headers["Content-Length"]
        if request.method == "HEAD":
            return whole
        if request.protocol != "HTTP/1.0":
            whole.headers["Transfer-Encoding"] = "chunked"
        return Streamed(200, whole.reason_phrase, whole.headers, pieces=self._pieces(asked, first))

    async def _page(self, asked: _Asked, since: int, left: int) -> _PageOfEvents:
        """The next events of an answer to which so many may still be added."""
        size = min(PAGE, left)
        many = {"streams": asked.streams, "kinds": asked.kinds, "labels": asked.labels}
        found = await self._facts.stored(since, limit=size + 1, **many)
        events, more = found[:size], len(found) > size
        return _PageOfEvents(events, events[-1]["seq"] if events else since, more, left - size if more else 0)

    async def _pieces(self, asked: _Asked, page: _PageOfEvents) -> AsyncGenerator[bytes, None]:
        """The body, page by page."""
        self._streaming += 1
        try:
            yield _opening(asked.format) + _encoded(asked.format, page.events)
            while page.rest:
                page = await self._page(asked, page.last, page.rest)
                yield b"," * (asked.format == "json" and bool(page.events)) + _encoded(asked.format, page.events)
            yield _closing(asked.format, page, self._facts.seq)
        finally:
            self._streaming -= 1

    def _evidence(self, path: str) -> Response:
        parts = [unquote(part) for part in path.split("/")[2:]]
        if len(parts) == 2 and parts[1].endswith(".png"):
            found = self._facts.picture(parts[0], parts[1].removesuffix(".png"))
            if found is not None:
                return respond(200, found, "image/png")
        return text(404, "There is no such picture; those of the last events are kept, in memory alone.")


class _BusyError(ApexError):
    """An answer that may be had later."""


@dataclass(frozen=True)
class _PageOfEvents:
    """Events, the seq of the last one, whether there are more in the store, and how many of those are still asked for."""

    events: list[dict[str, Any]]
    last: int
    more: bool
    rest: int


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
        if format_ not in ("json", *FORMATS):
            raise InputError(f"format is one of json, {', '.join(FORMATS)}")
        limit = given.get("limit", [str(SOME_EVENTS)])[-1]
        if not (limit.isascii() and limit.isdecimal() and len(limit) < 6 and 1 <= int(limit) <= MOST_EVENTS):
            raise InputError(f"limit is a number from 1 to {MOST_EVENTS}")
        since = wire.read_seq(given.get("since", ["0"])[-1])
        return cls(since, int(limit), format_, given.get("stream"), given.get("kind"), given.get("label"))


def _media_type(format_: str) -> str:
    return "application/json" if format_ == "json" else FORMATS[format_].media_type


def _attached(answer: Response, format_: str) -> Response:
    if format_ != "json":
        answer.headers["Content-Disposition"] = f'attachment; filename="events.{format_}"'
    return answer


def _written(format_: str, page: _PageOfEvents, seq: int) -> bytes:
    """A whole body of one page."""
    return _opening(format_) + _encoded(format_, page.events) + _closing(format_, page, seq)


def _opening(format_: str) -> bytes:
    """What comes before the first event."""
    return b'{"v":%d,"events":[' % wire.VERSION if format_ == "json" else FORMATS[format_].head(False).encode()


def _encoded(format_: str, events: Sequence[Mapping[str, Any]]) -> bytes:
    """Events in a row."""
    if format_ == "json":
        return b",".join(map(_json, events))
    return "".join(FORMATS[format_].write(Entry.stored(event)) for event in events).encode()


def _closing(format_: str, page: _PageOfEvents, seq: int) -> bytes:
    """What comes behind the last event."""
    return b"]," + _json({"last": page.last, "more": page.more, "seq": seq})[1:] if format_ == "json" else b""


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
