"""The HTTP routes: the dashboard's files, the state of the service, its metrics, its events, and their evidence pictures.

    /  and the dashboard's files read once from the package; nothing else is served from disk
    /healthz  /readyz  /metrics  alive; ready to serve; Prometheus
    /api/streams                 {"v", "streams": [status, ...], "seq", "store", "model", "version", "now", "problem"}, by a
                                 fleet's hub also "nodes"
    /api/outlets                 {"v", "outlets": [{"name", "state", "detail", "sent", "dropped"}, ...]}
    /api/events                  ?since= &limit= &stream= &kind= &label= (the last three repeatable) &format=json|jsonl|csv|...
                                 json: {"v", "events": [...], "last": seq to go on from, "more": whether there is more, "seq"}
    /evidence/<event>/<picture>.png   onset, apex, flow

GET and HEAD only. Every response closes its connection. Events are read, encoded and sent a page at a time, as fast as the
client reads, so that a response that is not read holds one page in memory, however long it is. Formats that are one document
(eaf, ...) are made whole, a few at a time, on a thread of their own.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import parse_qs, unquote

from websockets.http11 import Request, Response

from engine.errors import ApexError, InputError, OutputError
from stream import protocol
from stream.events.formats import FORMATS, Entry, LineFormat, file_name
from stream.events.formats.format import encoded
from stream.events.hub import Hub
from stream.events.query import Bounds
from stream.server.access import Need
from stream.server.metrics import CONTENT_TYPE, Metrics
from stream.server.response import StaticFile, StreamedResponse, respond, static, text

MAX_EVENTS = 10_000
SOME_EVENTS = 500
PAGE = 100
"""Events read, encoded and sent at once."""
MAX_STREAMED = 256
"""Responses of several pages that may be sent at once; one more is answered 503."""
MAX_DOCUMENTS = 2
"""Documents that may be made at once, each with all its events in memory; one more is answered 503."""


class Routes:
    """Answers the requests that are no websocket handshakes.

    picture returns the PNG of an event's evidence by event and name, None where there is none; ready says whether the networks
    are loaded.
    """

    def __init__(
        self,
        hub: Hub,
        metrics: Metrics,
        files: Mapping[str, StaticFile],
        *,
        picture: Callable[[str, str], bytes | None],
        ready: Callable[[], bool],
    ) -> None:
        self._hub, self._metrics, self._files, self._picture, self._ready = hub, metrics, files, picture, ready
        self._streaming = self._documents = 0
        self._routes: dict[str, Callable[[], Response]] = {
            "/healthz": lambda: text(200, "alive"),
            "/readyz": lambda: text(200 if self._problem is None else 503, self._problem or "ready"),
            "/metrics": lambda: respond(200, metrics.render(), CONTENT_TYPE),
            "/api/streams": self._streams,
            "/api/outlets": self._outlets,
        }

    def need(self, path: str) -> Need:
        """What a request for path must pass."""
        if path == "/healthz":
            return "nothing"
        return "token" if path in self._routes or path.startswith(("/api/events", "/evidence/")) else "host"

    async def respond(self, request: Request) -> Response:
        """The response to a request that passed access control."""
        if request.method not in ("GET", "HEAD"):
            response = text(405, "Only GET and HEAD are supported.")
            response.headers["Allow"] = "GET, HEAD"
            return response
        try:
            response = await self._dispatch(request.path.partition("?")[0], request)
        except InputError as error:
            response = text(400, str(error))
        except ApexError as error:
            response = text(503, str(error))
            response.headers["Retry-After"] = "10"
        if request.method == "HEAD":
            response.body = b""
        return response

    async def _dispatch(self, path: str, request: Request) -> Response:
        if path == "/api/events":
            return await self._events(request)
        if path in self._routes:
            return self._routes[path]()
        if path in self._files:
            return static(self._files[path], request.headers)
        if path.startswith("/evidence/"):
            return self._evidence(path)
        return text(404, "Not found.")

    @property
    def _problem(self) -> str | None:
        """Why the service is not ready or not well, in one sentence; None while all is well."""
        return self._hub.problem if self._ready() else "the networks are being loaded"

    def _streams(self) -> Response:
        hello = self._hub.hello().body
        body = {
            "v": protocol.VERSION,
            "streams": [protocol.status(status).body for status in self._hub.streams.values()],
            **{key: hello[key] for key in ("seq", "store", "model", "version", "now")},
            "problem": self._problem,
            **{key: hello[key] for key in ("nodes",) if key in hello},
        }
        return respond(200, _json(body), "application/json")

    def _outlets(self) -> Response:
        outlets = [asdict(outlet) for outlet in self._metrics.outlets()]
        return respond(200, _json({"v": protocol.VERSION, "outlets": outlets}), "application/json")

    async def _events(self, request: Request) -> Response:
        asked = _EventsQuery.read(request.path.partition("?")[2])
        if asked.format != "json" and not isinstance(FORMATS[asked.format], LineFormat):
            return self._download(asked.format, await self._document(asked))
        first = await self._page(asked, asked.since, asked.limit)
        if first.rest and self._streaming >= MAX_STREAMED:
            raise OutputError("too many stored events are being fetched; try again later")
        pieces = self._pieces(asked, first)
        body = b"" if first.rest else b"".join([piece async for piece in pieces])
        response = respond(200, body, "application/json") if asked.format == "json" else self._download(asked.format, body)
        if not first.rest:
            return response
        del response.headers["Content-Length"]
        if request.method == "HEAD":
            return response
        if request.protocol != "HTTP/1.0":
            response.headers["Transfer-Encoding"] = "chunked"
        return StreamedResponse(200, response.reason_phrase, response.headers, pieces=pieces)

    @staticmethod
    def _download(name: str, body: bytes) -> Response:
        """Events in the format of that name, as a file to save."""
        response = respond(200, body, FORMATS[name].media_type)
        response.headers["Content-Disposition"] = f'attachment; filename="{file_name(name)}"'
        return response

    async def _document(self, asked: _EventsQuery) -> bytes:
        """All events asked for as one document."""
        if self._documents >= MAX_DOCUMENTS:
            raise OutputError("too many documents are being made; try again later")
        self._documents += 1
        try:
            page = await self._page(asked, asked.since, asked.limit)
            events = page.events
            while page.rest:
                page = await self._page(asked, page.last, page.rest)
                events += page.events
            pieces = FORMATS[asked.format].export(map(Entry.stored, events), None)
            return await asyncio.to_thread(b"".join, pieces)
        finally:
            self._documents -= 1

    async def _page(self, asked: _EventsQuery, since: int, left: int) -> _PageOfEvents:
        """The next events of a response to which at most `left` may still be added."""
        size = min(PAGE, left)
        bounds: Bounds = {**asked.bounds, "limit": size + 1}
        try:
            found = await self._hub.stored(since, **bounds)
        except ConnectionAbortedError as error:
            raise OutputError("the service is ending") from error
        events, more = found[:size], len(found) > size
        return _PageOfEvents(events, events[-1]["seq"] if events else since, more, left - size if more else 0)

    async def _pieces(self, asked: _EventsQuery, page: _PageOfEvents) -> AsyncGenerator[bytes, None]:
        """The body, page by page."""
        format_ = None if asked.format == "json" else FORMATS[asked.format]
        assert format_ is None or isinstance(format_, LineFormat)
        self._streaming += 1
        try:
            head = b'{"v":%d,"events":[' % protocol.VERSION if format_ is None else encoded(format_.head(None))
            yield head + _encoded(format_, page.events)
            while page.rest:
                page = await self._page(asked, page.last, page.rest)
                yield b"," * (format_ is None and bool(page.events)) + _encoded(format_, page.events)
            if format_ is None:
                yield b"]," + _json({"last": page.last, "more": page.more, "seq": self._hub.seq})[1:]
        finally:
            self._streaming -= 1

    def _evidence(self, path: str) -> Response:
        parts = [unquote(part) for part in path.split("/")[2:]]
        if len(parts) == 2 and parts[1].endswith(".png"):
            found = self._picture(parts[0], parts[1].removesuffix(".png"))
            if found is not None:
                return respond(200, found, "image/png")
        return text(404, "Picture not found; only those of the last events are kept.")


@dataclass(frozen=True)
class _PageOfEvents:
    """Events, the seq of the last one, whether the store has more, and how many of those the request still wants."""

    events: list[dict[str, Any]]
    last: int
    more: bool
    rest: int


@dataclass(frozen=True)
class _EventsQuery:
    """The query of /api/events."""

    since: int
    limit: int
    format: str
    bounds: Bounds

    @classmethod
    def read(cls, query: str) -> _EventsQuery:
        try:
            given = parse_qs(query, keep_blank_values=True, max_num_fields=100, errors="strict")
        except ValueError as error:
            raise InputError("the query of the address is not valid") from error
        unknown = given.keys() - {"since", "limit", "format", "stream", "kind", "label"}
        if unknown:
            raise InputError("the query may have since, limit, format, stream, kind and label only")
        format_ = given.get("format", ["json"])[-1]
        if format_ not in ("json", *FORMATS):
            raise InputError(f"format is one of json, {', '.join(FORMATS)}")
        limit = given.get("limit", [str(SOME_EVENTS)])[-1]
        if not (limit.isascii() and limit.isdecimal() and len(limit) < 6 and 1 <= int(limit) <= MAX_EVENTS):
            raise InputError(f"limit is a number from 1 to {MAX_EVENTS}")
        since = protocol.read_seq(given.get("since", ["0"])[-1])
        bounds = Bounds(streams=given.get("stream"), kinds=given.get("kind"), labels=given.get("label"))
        return cls(since, int(limit), format_, bounds)


def _encoded(format_: LineFormat | None, events: Sequence[Mapping[str, Any]]) -> bytes:
    """Consecutive events; without a format as elements of a JSON array."""
    if format_ is None:
        return b",".join(map(_json, events))
    return encoded("".join(format_.write(Entry.stored(event)) for event in events))


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
