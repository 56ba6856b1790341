"""When a client of the live service received each event, beside when the frame that decided it arrived."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

FPS = 30


@dataclass(frozen=True)
class Received:
    """An event as it reached the client.

    latency_ms runs from the arrival of the frame that decided to the receipt; decided_t is that frame's source time.
    """

    id: str
    state: str
    apex_t: float
    latency_ms: float
    decided_t: float


def received(messages: Sequence[dict[str, Any]]) -> list[Received]:
    """The events among the messages, timed."""
    signals = [(m["at"], m["t"]) for m in messages if m["type"] == "signal"]
    return [_timed(m, signals) for m in messages if m["type"] == "expression" and not m.get("truncated")]


def _timed(event: dict[str, Any], signals: Sequence[tuple[float, float]]) -> Received:
    """When the frame that decided arrived is known from the message; which frame it was, from the signal nearest to it."""
    emitted = datetime.fromisoformat(event["emitted_at"]).timestamp()
    arrived = emitted - event["latency_ms"] / 1000
    after = bisect_left(signals, (arrived, 0.0))
    at, t = min(signals[max(0, after - 1) : after + 1], key=lambda signal: abs(signal[0] - arrived))
    decided = round((t + arrived - at) * FPS) / FPS
    latency_ms = 1000 * (event["received"] - arrived)
    return Received(event["id"], event["state"], event["apex"]["t"], round(latency_ms, 1), decided)
