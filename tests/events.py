"""Events as the pipeline makes them, for tests of what becomes of them."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from engine.types import Event, Evidence, Mark
from stream.events.query import Reader
from stream.events.store import Store
from stream.messages import Decided


def an_event(
    number: int,
    *,
    stream: str = "lobby",
    label: str = "surprise",
    state: Literal["provisional", "final"] = "final",
    length_s: float = 0.4,
    **changes: Any,
) -> Event:
    """Event `number` of a stream: onset at `number` seconds, apex half way."""
    onset, final = float(number), state == "final"
    fields: dict[str, Any] = {
        "id": f"{stream}-{number}",
        "stream": stream,
        "face": 0,
        "state": state,
        "kind": ("micro" if length_s <= 0.5 else "macro") if final else None,
        "onset": Mark(30 * number, onset),
        "apex": Mark(30 * number + 6, onset + length_s / 2),
        "offset": Mark(30 * number + 12, onset + length_s) if final else None,
        "label": label,
        "probabilities": {"negative": 0.03, "positive": 0.05, "surprise": 0.92},
        "confidence": 0.92,
        "intensity": 1.31,
        "model": "ahmsa-3db@sha256:0123456789ab",
    }
    return Event(**{**fields, **changes})


def decided(number: int, **changes: Any) -> Decided:
    """The event as decided now."""
    return Decided(an_event(number, **changes), time.monotonic())


def stored(number: int, **changes: Any) -> dict[str, Any]:
    """The event's JSON form as the store takes it."""
    return {**an_event(number, **changes).as_dict(), "emitted_at": "2026-01-31T09:00:00.123Z", "latency_ms": 38.2}


DAMAGED: list[bytes] = [
    b"",
    b"{",
    b"[]",
    b"null",
    b"\xff\xfe\xfd",
    b"[" * 100_000,
    b'{"type":"expression"}',
    json.dumps({**stored(1), "onset": None}).encode(),
    json.dumps({**stored(1), "stream": 7}).encode(),
    json.dumps({**stored(1), "probabilities": [1]}).encode(),
    json.dumps({**stored(1), "intensity": float("nan")}).encode(),
    json.dumps({**stored(1), "later": float("inf")}).encode(),
    json.dumps({**stored(1), "label": "\ud800"}).encode(),
    json.dumps({**stored(1), "emitted_at": "never"}).encode(),
    json.dumps({**stored(1), "latency_ms": "38"}).encode(),
    json.dumps({**stored(1), "latency_ms": 10**400}).encode(),
    json.dumps({**stored(1), "later": 0}).encode()[:-2] + b"1" + b"0" * 400 + b".0}",
    json.dumps({**stored(1), "later": 0}).encode()[:-2] + b"[" * 600 + b"]" * 600 + b"}",
]
"""Bodies of stored events that cannot be sent on."""


def damage(path: Path, seq: int, body: object) -> None:
    """Overwrite what is stored of an event."""
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE events SET body = ? WHERE seq = ?", (body, seq))


def seqs(events: Sequence[Mapping[str, object]]) -> list[object]:
    """The numbers under which stored events are replayed."""
    return [event["seq"] for event in events]


def evidence(grey: int = 0) -> Evidence:
    """What an event was recognized from: a face that becomes lighter and moves to the right."""
    onset, apex = (np.full((128, 128), grey + more, np.uint8) for more in (0, 40))
    return Evidence(onset, apex, np.full((2, 128, 128), 0.5, np.float32))


def preview_parts(data: bytes) -> tuple[dict[str, Any], bytes]:
    """Header and JPEG of a preview as it is sent."""
    end = 4 + int.from_bytes(data[:4], "big")
    return json.loads(data[4:end]), data[end:]


def read(store: Store, since: int = 0, **bounds: Any) -> list[dict[str, Any]]:
    """The stored events, read by a connection of its own."""
    with Reader(store.path.parent) as reader:
        return reader.since(since, **bounds)
