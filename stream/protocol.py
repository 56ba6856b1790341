"""The messages of the websocket, version 1: those of the service are built here, those of clients are parsed here.

docs/asyncapi.yaml is their schema, docs/protocol.md their description. A message is encoded once, however many receive it.
Numbers that are not finite become null, as JSON has none.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import parse_qs, urlencode

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError

from engine.errors import InputError
from stream.messages import Acted, Decided, Preview, Signal, SourceKind, SourceStatus
from stream.schema import LAST_SEQ

VERSION = 1
SUBPROTOCOL = "apexstream.v1"
TOKEN_SUBPROTOCOL = "apexstream.token."
PREVIEW_FPS = 15
PREVIEW_WIDTH = 640
T = TypeVar("T")
_LENGTH = struct.Struct(">I")

MessageType = Literal["expression", "activity", "status", "signal", "removed", "preview"]
"""The types of messages about streams, which a client may choose from; hello, heartbeat, error and pong are always sent."""


@dataclass(frozen=True, eq=False)
class Message:
    """A message to clients: body is its JSON as a mapping, all numbers finite; of a preview the header, with jpeg the picture.

    The other fields are for filters and metrics; seq is None for all but final events, source is the kind of an event's source.
    """

    type: str
    body: Mapping[str, Any] = field(repr=False)
    stream: str | None = None
    kind: str | None = None
    label: str | None = None
    seq: int | None = None
    source: SourceKind | None = None
    jpeg: bytes | None = field(default=None, repr=False)

    @cached_property
    def encoded(self) -> str | bytes:
        """JSON text; of a preview the header's length (4 bytes, big-endian), header and JPEG."""
        text = json.dumps(self.body, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        if self.jpeg is None:
            return text
        header = text.encode()
        return _LENGTH.pack(len(header)) + header + self.jpeg


def expression(body: Mapping[str, Any], *, evidence: bool = False, source: SourceKind | None = None) -> Message:
    """An event's message from its JSON form (`stamped`, with seq once it is stored)."""
    sent = {**body, "evidence": True} if evidence else body
    return _message(sent, stream=body["stream"], kind=body["kind"], label=body["label"], seq=body.get("seq"), source=source)


def stamped(decided: Decided, *, monotonic: float, now: float) -> dict[str, Any]:
    """The event's JSON form with emitted_at (now, Unix epoch) and latency_ms (since the frame that decided it arrived)."""
    latency_ms = max(0.0, 1000 * (monotonic - decided.arrived))
    return dict(_finite({**decided.event.as_dict(), "emitted_at": iso(now), "latency_ms": round(latency_ms, 1)}))


def hello(
    streams: Iterable[SourceStatus], *, model: str, version: str, seq: int, store: str, now: float, problem: str | None = None
) -> Message:
    """The first message. store names the store that seq belongs to; problem is why events are not stored, else None."""
    described = [{"name": status.stream, "kind": status.kind, "state": status.state} for status in streams]
    preview = {"max_fps": PREVIEW_FPS, "max_width": PREVIEW_WIDTH}
    fields = {"streams": described, "model": model, "version": version, "seq": seq, "store": store, "preview": preview}
    return _message({"type": "hello", "v": VERSION, **fields, "now": iso(now), "problem": problem})


def status(status: SourceStatus) -> Message:
    """The state of a source."""
    names = ("stream", "kind", "state", "detail", "fps", "frames", "drops", "reconnects", "width", "height")
    fields = {name: getattr(status, name) for name in names}
    fields["fps"] = round(status.fps, 2) if math.isfinite(status.fps) else None
    return _message({"type": "status", "v": VERSION, **fields, "since": iso(status.since)}, stream=status.stream)


def activity(acted: Acted) -> Message:
    """An activity of a face besides expressions."""
    return _message(acted.activity.as_dict(acted.stream), stream=acted.stream)


def signal(signal: Signal) -> Message:
    """The motion trace: of each face the newest values, its current activities, and all values since the last signal."""
    samples, newest = [], []
    for trace in signal.faces:
        times, loudness = [round(t, 4) for t in trace.t], [round(value, 3) for value in trace.loudness]
        moved = [round(value, 3) for value in trace.moved_px]
        samples.append({"face": trace.face, "t": times, "loudness": loudness})
        last = {"loudness": loudness[-1] if loudness else None, "moved_px": moved[-1] if moved else None}
        doing = [{"kind": kind, "since": round(since, 4)} for kind, since in trace.doing.items()]
        newest.append({"face": trace.face, **last, "doing": doing})
    fields = {"stream": signal.stream, "t": round(signal.t, 4), "at": round(signal.at, 3), "faces": newest, "samples": samples}
    return _message({"type": "signal", "v": VERSION, **fields}, stream=signal.stream)


def heartbeat(*, now: float, seq: int, problem: str | None = None) -> Message:
    """Sent at intervals: all events up to seq that the client subscribed to have been sent; problem is as in hello."""
    return _message({"type": "heartbeat", "v": VERSION, "now": iso(now), "seq": seq, "problem": problem})


def error(code: str, sentence: object) -> Message:
    """An error; code is for programs, the sentence for people."""
    return _message({"type": "error", "v": VERSION, "code": code, "message": str(sentence)})


def removed(stream: str) -> Message:
    """A stream was removed."""
    return _message({"type": "removed", "v": VERSION, "stream": stream}, stream=stream)


def pong(*, now: float) -> Message:
    """The answer to a ping."""
    return _message({"type": "pong", "v": VERSION, "now": iso(now)})


def preview(preview: Preview) -> Message:
    """A preview with its header."""
    header = {"type": "preview", "v": VERSION, "stream": preview.stream, **preview.header}
    return _message(header, stream=preview.stream, jpeg=preview.jpeg)


def read_preview(data: bytes) -> tuple[dict[str, Any], bytes]:
    """Header and JPEG of a preview. Raises InputError."""
    try:
        (length,) = _LENGTH.unpack_from(data)
        end = _LENGTH.size + length
        header = json.loads(data[_LENGTH.size : end])
    except (struct.error, ValueError, RecursionError) as error:
        raise InputError(f"a preview of {len(data)} bytes cannot be read: {error}") from error
    if not isinstance(header, dict) or end > len(data):
        raise InputError(f"a preview of {len(data)} bytes is truncated or its header is no JSON object")
    return header, data[end:]


def iso(moment: float) -> str:
    """Seconds of the Unix epoch as 2026-01-31T09:00:00.123Z."""
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


Name = Annotated[str, StringConstraints(min_length=1, max_length=200)]
Names = Annotated[tuple[Name, ...], Field(max_length=100)] | None


class _ClientMessage(BaseModel):
    """Base of clients' messages: unknown keys are refused, v is 1 or missing, numbers are finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=True)
    v: Literal[1] = 1


class Subscribe(_ClientMessage):
    """Which messages a client wants from now on; a list that is missing or null selects all.

    streams and types: messages of these. kinds and labels: events of these; a provisional event has no kind yet and is not sent
    to a client that selects kinds.
    """

    type: Literal["subscribe"] = "subscribe"
    streams: Names = None
    types: tuple[MessageType, ...] | None = None
    kinds: tuple[Literal["micro", "macro"], ...] | None = None
    labels: Names = None

    def wants(self, message: Message) -> bool:
        """Whether message is among those selected."""
        if message.stream is None:
            return True
        if self.types is not None and message.type not in self.types:
            return False
        if self.streams is not None and message.stream not in self.streams:
            return False
        if message.type != "expression":
            return True
        return (self.kinds is None or message.kind in self.kinds) and (self.labels is None or message.label in self.labels)


class PreviewRequest(_ClientMessage):
    """Previews of a stream, on or off: at most fps a second, at most width pixels wide."""

    type: Literal["preview"]
    stream: Name
    on: bool
    fps: Annotated[float, Field(gt=0, le=PREVIEW_FPS)] = 10.0
    width: Annotated[int, Field(ge=16, le=PREVIEW_WIDTH)] = 480


class Ping(_ClientMessage):
    """A request for a pong."""

    type: Literal["ping"]


class CameraOffer(_ClientMessage):
    """A page's first message on /camera: the person in front of the camera agreed."""

    type: Literal["camera"]
    name: Annotated[str, StringConstraints(pattern=r"^\w[\w .-]{0,63}$")]
    consent: Literal[True]


ClientMessage = Subscribe | PreviewRequest | Ping
_CLIENT: TypeAdapter[ClientMessage] = TypeAdapter(Annotated[ClientMessage, Field(discriminator="type")])
_CAMERA: TypeAdapter[CameraOffer] = TypeAdapter(CameraOffer)
_QUERY: TypeAdapter[Subscribe] = TypeAdapter(Subscribe)


def read_client(text: str | bytes) -> ClientMessage:
    """A client's message on the events' websocket. Raises InputError with one sentence that quotes nothing of the message."""
    return _read(_CLIENT, text)


def read_camera(text: str | bytes) -> CameraOffer:
    """A page's first message on the camera's websocket. Raises InputError."""
    return _read(_CAMERA, text)


def read_query(query: str) -> tuple[int | None, Subscribe]:
    """since and a subscription from a websocket's query: since=17&stream=lobby&type=expression&kind=micro&label=surprise.

    All but since are repeatable; other names are ignored. Raises InputError.
    """
    try:
        given = parse_qs(query, keep_blank_values=True, max_num_fields=200)
    except ValueError as error:
        raise InputError("the query has more than 200 fields") from error
    wanted = {f"{name}s": values for name in ("stream", "type", "kind", "label") if (values := given.get(name))}
    try:
        subscription = _QUERY.validate_python(wanted)
    except ValidationError as error:
        raise InputError(f"the query is not valid: {_sentence(error)}") from None
    return (read_seq(given["since"][-1]) if "since" in given else None), subscription


def query(since: int | None, wanted: Subscribe) -> str:
    """The query that `read_query` reads; "" where all is wanted."""
    fields = {"since": since, "stream": wanted.streams, "type": wanted.types, "kind": wanted.kinds, "label": wanted.labels}
    return urlencode({name: value for name, value in fields.items() if value is not None}, doseq=True)


def read_seq(text: str) -> int:
    """The seq of an event, 0 for before the first. Raises InputError."""
    if not (text.isascii() and text.isdecimal() and len(text) < 20 and int(text) <= LAST_SEQ):
        raise InputError("since is the seq of the last event seen: 0, 1, 2, ...")
    return int(text)


def _read(adapter: TypeAdapter[T], text: str | bytes) -> T:
    try:
        return adapter.validate_json(text)
    except ValidationError as error:
        raise InputError(_sentence(error)) from None


def _sentence(error: ValidationError) -> str:
    """The first error, without quoting the input."""
    first = error.errors(include_input=False, include_url=False, include_context=False)[0]
    if first["type"] == "json_invalid":
        return "the message is not valid JSON"
    if first["type"].startswith("union_tag"):
        return "a message is a JSON object whose type is subscribe, preview or ping"
    known = [str(part) for part in first["loc"] if isinstance(part, int) or part in _KEYS]
    reason = first["msg"].removeprefix("Value error, ")
    return f"{'.'.join(known) or 'the message'}: {reason[0].lower()}{reason[1:]}"


_KEYS = frozenset(key for model in (Subscribe, PreviewRequest, Ping, CameraOffer) for key in model.model_fields)


def _message(body: Mapping[str, Any], **fields: Any) -> Message:
    return Message(body["type"], _finite(body), **fields)


def _finite(value: Any) -> Any:
    """value with null in place of every number that is not finite."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return value
