"""The fields that stored events and received messages must have; others are kept as they are."""

from __future__ import annotations

import json
import re
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

LAST_SEQ = 2**63 - 1
"""The largest rowid of SQLite."""

DEEPEST = 32
"""Levels of a message; the encoders of Python give up at a few hundred, and at fewer the more has been called."""

_LARGE = re.compile(rb"[eE]\+?\d\d\d|\d{309}")


def _time(text: str) -> str:
    try:
        datetime.fromisoformat(text).astimezone()
    except OverflowError as error:
        raise ValueError("the time is out of range") from error
    return text


_Seq = Annotated[int, Field(ge=0, le=LAST_SEQ)]


class _Shape(BaseModel):
    model_config = ConfigDict(strict=True, allow_inf_nan=False, hide_input_in_errors=True)


class _Mark(_Shape):
    frame: int
    t: float


class _Stored(_Shape):
    type: Literal["expression"]
    v: int
    id: str
    stream: str
    face: int
    state: Literal["provisional", "final"]
    kind: str | None
    onset: _Mark
    apex: _Mark
    offset: _Mark | None
    label: str
    probabilities: dict[str, float | None]
    confidence: float | None
    intensity: float | None
    model: str
    emitted_at: Annotated[str, AfterValidator(_time)]
    onset_at: Annotated[str, AfterValidator(_time)] | None = None
    latency_ms: float | None = None


class _Expression(_Stored):
    seq: _Seq | None = None


class _Hello(_Shape):
    seq: _Seq
    store: str


class _Heartbeat(_Shape):
    seq: _Seq


class _Status(_Shape):
    stream: str
    state: str
    detail: str


class _Node(_Shape):
    name: str
    state: str
    detail: str


class _Error(_Shape):
    message: str


_MESSAGES: dict[str, type[_Shape]] = {
    "expression": _Expression,
    "hello": _Hello,
    "heartbeat": _Heartbeat,
    "status": _Status,
    "node": _Node,
    "error": _Error,
}


def read_stored(body: bytes) -> dict[str, Any]:
    """A stored event from its JSON text. Raises ValueError where it is damaged."""
    event = _object(body)
    _check(_Stored, event)
    check_encodable(body, event)
    return event


def check_encodable(body: bytes, found: dict[str, Any]) -> None:
    """Raise ValueError where what was found in a JSON text has a lone surrogate, or a number that is not finite."""
    if b"\\u" in body or b"NaN" in body or b"Infinity" in body or _LARGE.search(body):
        json.dumps(found, ensure_ascii=False, allow_nan=False).encode()


def read_message(text: str) -> dict[str, Any]:
    """A message of the service from its JSON text; unknown types are accepted. Raises ValueError."""
    message = _object(text)
    kind = message.setdefault("type", "")
    if not isinstance(kind, str):
        raise ValueError("its type is not a string")
    if kind in _MESSAGES:
        _check(_MESSAGES[kind], message)
        if kind == "expression" and message["state"] == "final" and message.get("seq") is None:
            raise ValueError("a final event has no seq")
    return message


def _object(text: bytes | str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (RecursionError, TypeError) as error:
        raise ValueError("it is nested too deeply or not a string") from error
    if not isinstance(found, dict):
        raise ValueError("it is not a JSON object")
    brackets = text.count(b"[") + text.count(b"{") if isinstance(text, bytes) else text.count("[") + text.count("{")
    if brackets > DEEPEST and _is_deeper(found, DEEPEST):
        raise ValueError("it is nested too deeply")
    return found


def _is_deeper(value: dict[str, Any] | list[Any], levels: int) -> bool:
    """Whether objects and arrays of a parsed JSON lie in more than so many levels."""
    inner = value.values() if isinstance(value, dict) else value
    return levels <= 0 or any(_is_deeper(one, levels - 1) for one in inner if isinstance(one, (dict, list)))


def _check(shape: type[_Shape], value: dict[str, Any]) -> None:
    try:
        shape.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"] if str(part).isidentifier())[:80]
        raise ValueError(f"{where or 'it'}: {first['msg'][:1].lower()}{first['msg'][1:]}") from None
