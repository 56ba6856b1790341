"""The messages of the websocket, version 1: those of the service are built here, those of clients are parsed here.

docs/asyncapi.yaml is their schema, docs/protocol.md their description. A message is encoded once, however many receive it.
Numbers that are not finite become null, as JSON has none.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import parse_qs, urlencode

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError

from engine.errors import InputError
from stream.messages import Acted, Decided, NodeStatus, Preview, Signal, SourceKind, SourceStatus
from stream.schema import LAST_SEQ

VERSION = 1
SUBPROTOCOL = "apexstream.v1"
TOKEN_SUBPROTOCOL = "apexstream.token."
PREVIEW_FPS = 15
PREVIEW_WIDTH = 640
T = TypeVar("T")
_LENGTH = struct.Struct(">I")

MessageType = Literal["expression", "activity", "status", "signal", "removed", "preview"]
"""The types of messages about streams, which a client may choose from; hello, heartbeat, error, pong and, by a fleet's hub,
node are always sent."""


@dataclass(frozen=True, eq=False)
class Message:
    """A message to clients: body is its JSON as a mapping, all numbers finite; of a preview the header, with jpeg the picture.

    source is the kind of an event's source, for metrics; origin is what the message was made from, for outlets.
    """

    body: Mapping[str, Any] = field(repr=False)
    source: SourceKind | None = None
    jpeg: bytes | None = field(default=None, repr=False)
    origin: Decided | Acted | Signal | None = field(default=None, repr=False)

    @property
    def type(self) -> str:
        """What it is: expression, status, ..."""
        return str(self.body["type"])

    @property
    def stream(self) -> str | None:
        """The stream that it is about; None for hello, heartbeat, error, pong and node."""
        return self.body.get("stream")

    @cached_property
    def encoded(self) -> str | bytes:
        """JSON text; of a preview the header's length (4 bytes, big-endian), header and JPEG."""
        text = json.dumps(self.body, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        if self.jpeg is None:
            return text
        header = text.encode()
        return _LENGTH.pack(len(header)) + header + self.jpeg


def expression(
    body: Mapping[str, Any], *, evidence: bool = False, source: SourceKind | None = None, origin: Decided | None = None
) -> Message:
    """An event's message from its JSON form (`stamped`, with seq once it is stored)."""
    return Message(_finite({**body, "evidence": True} if evidence else body), source, origin=origin)


def stamped(decided: Decided, *, monotonic: float, now: float) -> dict[str, Any]:
    """The event's JSON form with emitted_at (now, Unix epoch), latency_ms (since the frame that decided it arrived), and, where
    that is known, onset_at: when the frame of the onset was captured."""
    latency_ms = max(0.0, 1000 * (monotonic - decided.arrived))
    made = {**decided.event.as_dict(), "emitted_at": iso(now), "latency_ms": round(latency_ms, 1)}
    if decided.clock_offset:
        made["onset_at"] = iso(now - monotonic + decided.clock_offset + decided.event.onset.t)
    return dict(_finite(made))


def hello(
    streams: Iterable[SourceStatus],
    *,
    model: str,
    version: str,
    seq: int,
    store: str,
    now: float,
    problem: str | None = None,
    nodes: Iterable[NodeStatus] | None = None,
) -> Message:
    """The first message. store names the store that seq belongs to; problem is why events are not stored, else None; nodes are
    those of a fleet, None where there is none."""
    described = [{"name": status.stream, "kind": status.kind, "state": status.state, **_node_of(status)} for status in streams]
    preview = {"max_fps": PREVIEW_FPS, "max_width": PREVIEW_WIDTH}
    fields = {"streams": described, "model": model, "version": version, "seq": seq, "store": store, "preview": preview}
    fleet = {} if nodes is None else {"nodes": [_described(one) for one in nodes]}
    return _message("hello", **fields, now=iso(now), problem=problem, **fleet)


def node(status: NodeStatus) -> Message:
    """The state of a node of a fleet."""
    return _message("node", **_described(status))


def _described(node: NodeStatus) -> dict[str, Any]:
    names = ("name", "state", "detail", "page", "version", "model")
    return {**{name: getattr(node, name) for name in names}, "since": iso(node.since)}


def _node_of(status: SourceStatus) -> dict[str, str]:
    return {} if status.node is None else {"node": status.node}


def status(status: SourceStatus) -> Message:
    """The state of a source."""
    names = ("stream", "kind", "state", "detail", "fps", "frames", "drops", "reconnects", "width", "height")
    fields = {name: getattr(status, name) for name in names}
    fields["fps"] = round(status.fps, 2) if math.isfinite(status.fps) else None
    return Message({"type": "status", "v": VERSION, **fields, "since": iso(status.since), **_node_of(status)})


def activity(acted: Acted) -> Message:
    """An activity of a face besides expressions."""
    return Message(_finite(acted.activity.as_dict(acted.stream)), origin=acted)


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
    t, at = round(signal.t, 4), round(signal.at, 3)
    return _message("signal", signal, stream=signal.stream, t=t, at=at, faces=newest, samples=samples)


def heartbeat(*, now: float, seq: int, problem: str | None = None) -> Message:
    """Sent at intervals: all events up to seq that the client subscribed to have been sent; problem is as in hello."""
    return _message("heartbeat", now=iso(now), seq=seq, problem=problem)


def error(code: str, sentence: object) -> Message:
    """An error; code is for programs, the sentence for people."""
    return _message("error", code=code, message=str(sentence))


def removed(stream: str) -> Message:
    """A stream was removed."""
    return _message("removed", stream=stream)


def pong(*, now: float) -> Message:
    """The answer to a ping."""
    return _message("pong", now=iso(now))


def preview(preview: Preview) -> Message:
    """A preview with its header."""
    header = {"type": "preview", "v": VERSION, "stream": preview.stream, **preview.header}
    return Message(_finite(header), jpeg=preview.jpeg)


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
        kind, label = message.body["kind"], message.body["label"]
        return (self.kinds is None or kind in self.kinds) and (self.labels is None or label in self.labels)


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


def read_client(text: str | bytes) -> ClientMessage:
    """A client's message on the events' websocket. Raises InputError with one sentence that quotes nothing of the message."""
    return _read(_CLIENT.validate_json, text)


def read_camera(text: str | bytes) -> CameraOffer:
    """A page's first message on the camera's websocket. Raises InputError."""
    return _read(CameraOffer.model_validate_json, text)


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
        subscription = Subscribe.model_validate(wanted)
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


def _read(validate: Callable[[str | bytes], T], text: str | bytes) -> T:
    try:
        return validate(text)
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


def _message(kind: str, origin: Signal | None = None, /, **fields: Any) -> Message:
    return Message(_finite({"type": kind, "v": VERSION, **fields}), origin=origin)


def _finite(value: Any) -> Any:
    """value with null in place of every number that is not finite."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return value
